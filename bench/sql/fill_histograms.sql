-- 1,000 histograms, 20 label sets for each of 50 tenants, of 200 durations
-- each that spread as durations do: log-normal around 50 ms

select meshhook_metrics.describe('bench_exposed_seconds', 'histogram', 'Histogram of the exposition measured', 'seconds');

select setseed(0.5);

select count(meshhook_metrics.observe(
           'bench_exposed_seconds',
           exp(ln(0.05) + sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random())),
           jsonb_build_object('queue', 'queue_' || l / 5, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + l % 5]),
           ('11111111-1111-4111-8111-' || lpad(t::text, 12, '0'))::uuid))
from generate_series(1, 50) t
cross join generate_series(0, 19) l
cross join generate_series(1, 200) n;
