insert into bench.events (tenant, metric, labels, value) values ('11111111-1111-4111-8111-111111111111', 'bench_deliveries_total', '{"queue": "webhooks", "status": "ok"}', 1);
