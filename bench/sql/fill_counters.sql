-- 10,000 counters: 5 metrics of 20 label sets for each of 100 tenants

select meshhook_metrics.describe('bench_exposed_' || m || '_total', 'counter', 'Counter number ' || m || ' of the exposition measured')
from generate_series(1, 5) m;

select count(meshhook_metrics.inc(
           'bench_exposed_' || m || '_total',
           m * 1000 + l,
           jsonb_build_object('queue', 'queue_' || l / 5, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + l % 5]),
           ('11111111-1111-4111-8111-' || lpad(t::text, 12, '0'))::uuid))
from generate_series(1, 100) t
cross join generate_series(1, 5) m
cross join generate_series(0, 19) l;
