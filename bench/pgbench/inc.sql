select meshhook_metrics.inc('bench_deliveries_total', 1, '{"queue": "webhooks", "status": "ok"}', '11111111-1111-4111-8111-111111111111');
