-- As many series as the registry has places for: 2,000 histograms and 8,000
-- counters of 100 tenants, with labels whose text has 64 bytes

create view bench.long_labels as
select i,
       ('11111111-1111-4111-8111-' || lpad((i % 100)::text, 12, '0'))::uuid as tenant,
       jsonb_build_object('queue', lpad(i::text, 20, 'q'), 'status', rpad('ok', 17, '_')) as labels
from generate_series(1, 10000) i;

do $$
begin
    assert (select bool_and(octet_length(labels::text) = 64) from bench.long_labels);
end
$$;

select count(meshhook_metrics.observe('bench_fill_seconds', 0.001 * i, labels, tenant))
from bench.long_labels
where i <= 2000;

select count(meshhook_metrics.inc('bench_fill_total', i, labels, tenant))
from bench.long_labels
where i > 2000;
