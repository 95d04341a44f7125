-- What bench/flush flushes, and how it reads the clock: 10,000 series of 100
-- tenants, each with 80 counters, 10 gauges and 10 histograms

create table bench.series as
select case when n <= 80 then 'counter' when n <= 90 then 'gauge' else 'histogram' end as kind,
       case when n <= 80 then 'bench_deliveries_total' when n <= 90 then 'bench_depth' else 'bench_duration_seconds' end as metric,
       jsonb_build_object('queue', 'queue_' || n / 5, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + n % 5]) as labels,
       ('11111111-1111-4111-8111-' || lpad(t::text, 12, '0'))::uuid as tenant
from generate_series(1, 100) t
cross join generate_series(1, 100) n;

-- The lower ends of 30 neighbouring buckets
create table bench.durations as
select 2 ^ (b / 8.0 - 9) as value
from generate_series(0, 29) b;

analyze bench.series, bench.durations;

-- Change every series: counters by one to five calls of amounts up to 1,000, gauges
-- to any value, each histogram in 30 buckets
create function bench.touch() returns void
language plpgsql as $$
begin
    perform count(meshhook_metrics.inc(s.metric, ceil(1000 * random()), s.labels, s.tenant))
    from bench.series s
    cross join generate_series(1, 5) n
    where s.kind = 'counter'
        and (n = 1 or random() < 0.5);
    perform count(meshhook_metrics.gauge_set(s.metric, 1000 * random(), s.labels, s.tenant))
    from bench.series s
    where s.kind = 'gauge';
    perform count(meshhook_metrics.observe(s.metric, d.value * (1.001 + 0.08 * random()), s.labels, s.tenant))
    from bench.series s
    cross join bench.durations d
    where s.kind = 'histogram';
end
$$;

-- Whether the minute has begun and the worker is done with the one before, so that
-- a flush has neither to wait for that nor to share its WAL
create function bench.is_calm() returns boolean
language sql
begin atomic
    select s.complete_until = date_trunc('minute', clock_timestamp())
        and clock_timestamp() < s.complete_until + interval '55 seconds'
    from meshhook_metrics.rollup_state s
    where s.target = '1m';
end;

-- One flush, as flush() takes it and as the worker does; what it wrote
create function bench.flush(
    out milliseconds float8,
    out worker_milliseconds float8,
    out wal_bytes bigint,
    out series bigint,
    out buckets bigint,
    out finished float8)
language plpgsql as $$
declare
    newest bigint := coalesce((select max(l.id) from meshhook_metrics.live l), 0);
    wal pg_lsn := pg_current_wal_insert_lsn();
    started timestamptz := clock_timestamp();
begin
    perform meshhook_metrics.flush();
    finished := extract(epoch from clock_timestamp());
    milliseconds := (finished - extract(epoch from started)) * 1000;
    wal_bytes := pg_current_wal_insert_lsn() - wal;
    worker_milliseconds := (select s.last_flush_ms from meshhook_metrics.status() s);
    series := (select sum(cardinality(l.series_id)) from meshhook_metrics.live l where l.id > newest);
    buckets := (
        select count(*)
        from meshhook_metrics.live l
        cross join unnest(l.histogram) h
        cross join meshhook_metrics.histogram_buckets(h) b
        where l.id > newest
            and h is not null);
end
$$;

-- The rows of the last flush in files, for COPY
create procedure bench.write_files(folder text)
language plpgsql as $$
declare
    format text;
begin
    foreach format in array array['text', 'binary'] loop
        execute format(
            'copy (
                select l.tenant_id, l.at, l.seconds, l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram
                from meshhook_metrics.live l
                where l.at = (select max(at) from meshhook_metrics.live)
                order by l.id) to %L (format %s)', folder || '/live.' || format, format);
        execute format('create table bench.copied_%s (like meshhook_metrics.live including all)', format);
    end loop;
end
$$;

-- Milliseconds that COPY takes for them, commit included, by the clock and of
-- processor time
create procedure bench.copy(folder text, format text, inout milliseconds float8, inout cpu_milliseconds float8)
language plpgsql as $$
declare
    started timestamptz;
    cpu_started bigint;
begin
    commit;
    cpu_started := mhm_empty.cpu_nanoseconds();
    started := clock_timestamp();
    execute format('copy bench.copied_%s (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram) from %L (format %s)',
        format, folder || '/live.' || format, format);
    commit;
    milliseconds := extract(epoch from clock_timestamp() - started) * 1000;
    cpu_milliseconds := (mhm_empty.cpu_nanoseconds() - cpu_started) / 1e6;
end
$$;

-- Seconds by the clock and of processor time that a statement takes, and when it
-- ended
create function bench.time(statement text, out seconds float8, out cpu_seconds float8, out finished float8)
language plpgsql as $$
declare
    started float8 := extract(epoch from clock_timestamp());
begin
    cpu_seconds := bench.cpu_nanoseconds(statement) / 1e9;
    finished := extract(epoch from clock_timestamp());
    seconds := finished - started;
end
$$;

create function bench.bytes(out live float8, out series float8)
language sql
begin atomic
    select pg_total_relation_size('meshhook_metrics.live') / (select sum(cardinality(l.series_id))::float8 from meshhook_metrics.live l),
           pg_total_relation_size('meshhook_metrics.series') / (select count(*)::float8 from meshhook_metrics.series);
end;
