select mhm_empty.inc('bench_deliveries_total', 1, '{"queue": "webhooks", "status": "ok"}', '11111111-1111-4111-8111-111111111111');
