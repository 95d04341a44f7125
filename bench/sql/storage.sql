-- What the benches that fill the storage tables themselves have in common

-- Neighbours in these ids have different tenants, as series of different tenants do
-- that are recorded at the same time
create function bench.tenant(i bigint) returns uuid
language sql immutable
return ('11111111-1111-4111-8111-' || lpad(i::text, 12, '0'))::uuid;

-- A duration as they spread: log-normal around 50 ms
create function bench.duration() returns float8
language sql volatile
return exp(ln(0.05) + sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()));

-- Histograms to pick from: of 50 observations, as five minutes have at one in six
-- seconds, and of some thousand in exactly 30 buckets
create table bench.histograms as
select 'usual' as shape, i, h.histogram
from generate_series(0, 499) i
cross join lateral (
    select meshhook_metrics.histogram_of(bench.duration()) as histogram
    from generate_series(1, 50 + i * 0)) h
union all
select '30 buckets', i, h.histogram
from generate_series(0, 499) i
cross join lateral (
    select meshhook_metrics.histogram_of(2 ^ (b / 8::float8 - 9) * (1.001 + 0.08 * random())) as histogram
    from generate_series(0, 29) b
    cross join lateral generate_series(0, (30 * exp(-((b - 15) / 7::float8) ^ 2) * random() + i * 0)::int)) h;

create unique index on bench.histograms (shape, i);

analyze bench.histograms;

do $$
begin
    assert (
        select bool_and((select count(*) from meshhook_metrics.histogram_buckets(h.histogram)) = 30)
        from bench.histograms h
        where h.shape = '30 buckets');
end
$$;

-- Milliseconds that a statement takes, commit included, by the clock and of
-- processor time, and the WAL it writes
create procedure bench.time(statement text, inout milliseconds float8, inout cpu_milliseconds float8, inout wal_bytes bigint)
language plpgsql as $$
declare
    started timestamptz;
    cpu_started bigint;
    wal pg_lsn;
begin
    commit;
    wal := pg_current_wal_insert_lsn();
    cpu_started := mhm_empty.cpu_nanoseconds();
    started := clock_timestamp();
    execute statement;
    commit;
    milliseconds := extract(epoch from clock_timestamp() - started) * 1000;
    cpu_milliseconds := (mhm_empty.cpu_nanoseconds() - cpu_started) / 1e6;
    wal_bytes := pg_current_wal_insert_lsn() - wal;
end
$$;
