-- What bench/rollup rolls up and asks for. The worker serves another database, so
-- only the bench changes these tables.

grant usage on schema mhm_empty to authenticated;

\ir storage.sql

-- Tables as after the migrations
create procedure bench.empty_storage()
language plpgsql as $$
begin
    truncate meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m,
        meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d;
    update meshhook_metrics.rollup_state
    set live_id = (select coalesce(max(l.id), 0) from meshhook_metrics.live l),
        complete_until = '-infinity',
        retained_from = '-infinity';
    commit;
end
$$;

-- Closing minutes: what a flush of 10,000 series of 100 tenants writes to live, 80
-- counters, 10 gauges and 10 histograms each
create table bench.flushed as
select bench.tenant(t) as tenant_id,
       array_agg(s.id order by s.id) as series_id,
       array_agg(case when s.n <= 80 then 1 + s.id % 5 when s.n <= 90 then 1 else meshhook_metrics.histogram_count(h.histogram) end order by s.id) as count,
       array_agg(case when s.n <= 90 then ceil(1000 * random()) else meshhook_metrics.histogram_sum(h.histogram) end order by s.id) as sum,
       array_agg(case when s.n > 90 then meshhook_metrics.histogram_min(h.histogram) when s.n > 80 then 1 end order by s.id) as min,
       array_agg(case when s.n > 90 then meshhook_metrics.histogram_max(h.histogram) when s.n > 80 then 1000 end order by s.id) as max,
       array_agg(case when s.n between 81 and 90 then 1000 * random() end order by s.id) as last,
       array_agg(case when s.n > 90 then h.histogram end order by s.id) as histogram
from generate_series(1, 100) t
cross join lateral (
    select n, (t * 100 + n)::bigint as id
    from generate_series(1, 100) n) s
join bench.histograms h on h.shape = '30 buckets' and h.i = s.id % 500
group by t
order by t;

-- The minutes that these series already have on the day, stored one after the other
create procedure bench.fill_minutes(since timestamptz, minutes int)
language plpgsql as $$
begin
    perform meshhook_metrics.create_leaf('1m', since);
    for m in 0 .. minutes - 1 loop
        insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
        select f.tenant_id, e.series_id, since + m * interval '1 minute', 12 * e.count, 12 * e.sum, e.min, e.max, e.last, e.histogram
        from bench.flushed f
        cross join unnest(f.series_id, f.count, f.sum, f.min, f.max, f.last, f.histogram)
            e (series_id, count, sum, min, max, last, histogram)
        order by f.tenant_id, e.series_id;
        commit;
    end loop;
    update meshhook_metrics.rollup_state
    set complete_until = since + minutes * interval '1 minute';
end
$$;

-- Twelve flushes in a minute
create procedure bench.flush_minute(minute timestamptz)
language plpgsql as $$
begin
    insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
    select f.tenant_id, minute + k * interval '5 seconds' - interval '1 microsecond', 5, f.series_id, f.count, f.sum, f.min, f.max, f.last, f.histogram
    from generate_series(1, 12) k
    cross join bench.flushed f
    order by k;
    commit;
end
$$;

-- Minutes that are not closed: twelve flushes in each, rows of 500 series of one tenant
create procedure bench.leave_minutes(kind text, series int, since timestamptz, minutes int)
language plpgsql as $$
begin
    create temp table flushed on commit drop as
    select bench.tenant(1 + n / 500 % 100) as tenant_id,
           array_agg(n::bigint order by n) as series_id,
           array_agg(case kind when 'histograms' then meshhook_metrics.histogram_count(h.histogram) else 1 + n % 5 end order by n) as count,
           array_agg(case kind when 'histograms' then meshhook_metrics.histogram_sum(h.histogram) else ceil(1000 * random()) end order by n) as sum,
           case kind when 'histograms' then array_agg(meshhook_metrics.histogram_min(h.histogram) order by n) end as min,
           case kind when 'histograms' then array_agg(meshhook_metrics.histogram_max(h.histogram) order by n) end as max,
           case kind when 'histograms' then array_agg(h.histogram order by n) end as histogram
    from generate_series(0, series - 1) n
    join bench.histograms h on h.shape = '30 buckets' and h.i = n % 500
    group by n / 500;

    insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, histogram)
    select f.tenant_id, since + m * interval '1 minute' + k * interval '5 seconds' - interval '1 microsecond', 5, f.series_id, f.count, f.sum, f.min, f.max, f.histogram
    from generate_series(0, minutes - 1) m
    cross join generate_series(1, 12) k
    cross join flushed f
    order by m, k;
    commit;
end
$$;

-- Raw events and the minutes that stand for them. The narrow ones are as small as
-- they can be, with a number for all that tells series apart.
\ir events.sql

create table bench.narrow_events (
    at timestamptz not null,
    series_id bigint not null,
    value float8 not null
);

create function bench.labels(series_id bigint) returns jsonb
language sql immutable
return jsonb_build_object('queue', 'queue_' || series_id / 50, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + series_id / 10 % 5]);

create table bench.hours (
    tenant uuid not null,
    labels jsonb not null,
    bucket timestamptz not null,
    count bigint not null,
    sum float8 not null,
    min float8 not null,
    max float8 not null,
    percentiles float8[] not null
);

create table bench.narrow_hours (
    series_id bigint not null,
    bucket timestamptz not null,
    count bigint not null,
    sum float8 not null,
    min float8 not null,
    max float8 not null,
    percentiles float8[] not null
);

create procedure bench.fill_events(day timestamptz, series int, minutes int)
language plpgsql as $$
begin
    perform meshhook_metrics.create_leaf('1m', day);
    for m in 0 .. minutes - 1 loop
        with event as (
            insert into bench.narrow_events (at, series_id, value)
            select day + (m + (e - random()) / 10) * interval '1 minute', s, bench.duration()
            from generate_series(1, 10) e
            cross join generate_series(1, series) s
            returning at, series_id, value
        ), wide as (
            insert into bench.events (at, tenant, metric, labels, value)
            select e.at, bench.tenant(e.series_id % 10), 'bench_duration_seconds', bench.labels(e.series_id), e.value
            from event e
        )
        insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, histogram)
        select bench.tenant(e.series_id % 10), e.series_id, day + m * interval '1 minute',
               count(*), sum(e.value), min(e.value), max(e.value), meshhook_metrics.histogram_of(e.value)
        from event e
        group by e.series_id
        order by 1, 2;
        commit;
    end loop;
    update meshhook_metrics.rollup_state
    set complete_until = day + minutes * interval '1 minute'
    where target = '1m';
end
$$;

create procedure bench.forget_rollups()
language plpgsql as $$
begin
    truncate meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d, bench.hours, bench.narrow_hours;
    update meshhook_metrics.rollup_state
    set complete_until = '-infinity'
    where target <> '1m';
    commit;
end
$$;

-- The same hours from the raw events, with the memory that rollup() has
create procedure bench.group_events()
language plpgsql as $$
begin
    set local work_mem = '64MB';
    insert into bench.hours (tenant, labels, bucket, count, sum, min, max, percentiles)
    select e.tenant, e.labels, date_trunc('hour', e.at), count(*), sum(e.value), min(e.value), max(e.value),
           percentile_disc(array[0.5, 0.95, 0.99]) within group (order by e.value)
    from bench.events e
    where e.metric = 'bench_duration_seconds'
    group by e.tenant, e.labels, date_trunc('hour', e.at);
end
$$;

create procedure bench.group_narrow_events()
language plpgsql as $$
begin
    set local work_mem = '64MB';
    insert into bench.narrow_hours (series_id, bucket, count, sum, min, max, percentiles)
    select e.series_id, date_trunc('hour', e.at), count(*), sum(e.value), min(e.value), max(e.value),
           percentile_disc(array[0.5, 0.95, 0.99]) within group (order by e.value)
    from bench.narrow_events e
    group by e.series_id, date_trunc('hour', e.at);
end
$$;

-- How many hours of both agree in what is exact, and how far off p50, p95 and p99
-- are at most
create function bench.compare_hours(out agreeing bigint, out hours bigint, out worst float8)
language sql
begin atomic
    select count(*) filter (where h.count = r.count and abs(h.sum - r.sum) < 1e-6 * h.sum and h.min = r.min and h.max = r.max),
           count(*),
           max(off.worst)
    from bench.narrow_hours h
    left join meshhook_metrics.rollup_1h r
    on r.series_id = h.series_id
        and r.bucket = h.bucket
    cross join lateral (
        select max(abs(meshhook_metrics.histogram_quantile(r.histogram, p.q) / p.exact - 1)) as worst
        from unnest(array[0.5, 0.95, 0.99], h.percentiles) p (q, exact)) off;
end;

-- A day's leaf of rows of one kind, stored minute by minute
create procedure bench.fill_leaf(day timestamptz, kind text, series int, minutes int)
language plpgsql as $$
begin
    perform meshhook_metrics.create_leaf('1m', day);
    for m in 0 .. minutes - 1 loop
        insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, histogram)
        select bench.tenant(s % 10), s, day + m * interval '1 minute',
               coalesce(meshhook_metrics.histogram_count(h.histogram), 60), coalesce(meshhook_metrics.histogram_sum(h.histogram), 12345),
               meshhook_metrics.histogram_min(h.histogram), meshhook_metrics.histogram_max(h.histogram), h.histogram
        from generate_series(1, series) s
        left join bench.histograms h on kind = 'histogram' and h.shape = '30 buckets' and h.i = (s + m) % 500
        order by 1, 2;
        commit;
    end loop;
end
$$;

create function bench.bytes_per_row(leaf regclass) returns float8
language plpgsql as $$
declare
    rows_found bigint;
begin
    execute format('select count(*) from %s', leaf) into rows_found;
    return pg_total_relation_size(leaf)::float8 / rows_found;
end
$$;

create function bench.leaf(target text, at timestamptz) returns regclass
language sql stable
return (
    select format('meshhook_metrics.%I', l.leaf)::regclass
    from meshhook_metrics.leaves(target) l
    where at >= l.lower_bound
        and at < l.upper_bound);

-- query_range: a counter and a histogram, each of 10 tenants with 100 series, over
-- some days in five minutes, then minutes, then flushes
create procedure bench.fill_ranges(until timestamptz, days int)
language plpgsql as $$
declare
    five_until timestamptz := date_bin('5 minutes', until - interval '1 minute', 'epoch');
    minute_until timestamptz := date_trunc('minute', until);
    day timestamptz := date_trunc('day', until, 'UTC');
begin
    insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
    select bench.tenant(t), k.metric, k.kind,
           jsonb_build_object('queue', 'queue_' || n / 5, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + n % 5])
    from generate_series(1, 10) t
    cross join (values ('bench_deliveries_total', 'counter'), ('bench_duration_seconds', 'histogram')) k (metric, kind)
    cross join generate_series(0, 99) n;

    perform meshhook_metrics.create_leaf('5m', d)
    from generate_series(day - days * interval '1 day', day, interval '1 day') d;
    perform meshhook_metrics.create_leaf('1m', d)
    from unnest(array[day - interval '1 day', day]) d;

    create temp view ranged as
    select s.tenant_id, s.id, s.kind, b.bucket,
           coalesce(meshhook_metrics.histogram_count(h.histogram), 300) as count,
           coalesce(meshhook_metrics.histogram_sum(h.histogram), 1 + s.id % 500) as sum,
           meshhook_metrics.histogram_min(h.histogram) as min,
           meshhook_metrics.histogram_max(h.histogram) as max,
           h.histogram
    from (select 1) one
    cross join lateral (
        select generate_series(current_setting('bench.since')::timestamptz, current_setting('bench.until')::timestamptz,
            current_setting('bench.step')::interval) as bucket) b
    cross join meshhook_metrics.series s
    left join bench.histograms h on s.kind = 'histogram' and h.shape = 'usual'
        and h.i = (s.id + extract(epoch from b.bucket)::bigint / 60) % 500;

    -- rollup() writes an hour at a time
    for piece in 0 .. 24 * days - 1 loop
        perform set_config('bench.since', (five_until - (piece + 1) * interval '1 hour')::text, true),
            set_config('bench.until', (five_until - piece * interval '1 hour' - interval '5 minutes')::text, true),
            set_config('bench.step', '5 minutes', true);
        insert into meshhook_metrics.rollup_5m (tenant_id, series_id, bucket, count, sum, min, max, histogram)
        select r.tenant_id, r.id, r.bucket, r.count, r.sum, r.min, r.max, r.histogram
        from ranged r
        order by 1, 2, 3;
    end loop;

    perform set_config('bench.since', five_until::text, true),
        set_config('bench.until', (minute_until - interval '1 minute')::text, true),
        set_config('bench.step', '1 minute', true);
    insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, histogram)
    select r.tenant_id, r.id, r.bucket, r.count, r.sum, r.min, r.max, r.histogram
    from ranged r
    order by r.bucket, 1, 2;

    perform set_config('bench.since', minute_until::text, true),
        set_config('bench.until', minute_until::text, true);
    insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, histogram)
    select r.tenant_id, minute_until + k * interval '5 seconds', 5, array_agg(r.id), array_agg(r.count), array_agg(r.sum),
           array_agg(r.min), array_agg(r.max), array_agg(r.histogram)
    from generate_series(1, 6) k
    cross join ranged r
    group by k, r.tenant_id
    order by k, r.tenant_id;

    update meshhook_metrics.rollup_state
    set complete_until = case target when '1m' then minute_until when '5m' then five_until else '-infinity' end,
        live_id = (select min(l.id) - 1 from meshhook_metrics.live l);
    drop view ranged;
    commit;
end
$$;
