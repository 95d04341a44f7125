-- What bench/alerts evaluates: ten rules for each tenant, over ten series each that
-- have changed in every flush for more than an hour. The worker serves another
-- database, so only the bench changes these tables, until the end.

\ir storage.sql

-- Ten rules as tenants have them: ratios, rates, sums, levels, quantiles, two of them
-- with a group for each queue; windows from a minute to an hour
create table bench.rules (name, metric, labels, aggregate, denominator_metric, denominator_min, group_by, time_window) as
values
    ('error rate', 'bench_deliveries_total', jsonb '{"status": "failed"}', 'increase', 'bench_deliveries_total', float8 '0', null::text[], interval '5 minutes'),
    ('error rate of each queue', 'bench_deliveries_total', '{"status": "failed"}', 'increase', 'bench_deliveries_total', 20, '{queue}', '15 minutes'),
    ('error rate of an hour', 'bench_deliveries_total', '{"status": "failed"}', 'increase', 'bench_deliveries_total', 100, null, '1 hour'),
    ('deliveries a second', 'bench_deliveries_total', '{}', 'rate', null, 0, null, '1 minute'),
    ('retries', 'bench_deliveries_total', '{"status": "retried"}', 'increase', null, 0, null, '1 hour'),
    ('depth', 'bench_depth', '{}', 'max', null, 0, null, '1 minute'),
    ('depth of each queue', 'bench_depth', '{}', 'max', null, 0, '{queue}', '15 minutes'),
    ('mean depth', 'bench_depth', '{}', 'avg', null, 0, null, '5 minutes'),
    ('p95', 'bench_duration_seconds', '{}', 'p95', null, 0, null, '5 minutes'),
    ('p95 of an hour', 'bench_duration_seconds', '{}', 'p95', null, 0, null, '1 hour');

-- What a flush brings of a histogram: some hundred observations in 30 buckets
create table bench.flushed_histograms as
select h.i,
       meshhook_metrics.histogram_count(h.histogram) as count,
       meshhook_metrics.histogram_sum(h.histogram) as sum,
       meshhook_metrics.histogram_min(h.histogram) as min,
       meshhook_metrics.histogram_max(h.histogram) as max,
       h.histogram
from bench.histograms h
where h.shape = '30 buckets';

create unique index on bench.flushed_histograms (i);

analyze bench.flushed_histograms;

-- What all series of a flush bring, or of a minute of so many flushes
create function bench.samples(moment timestamptz, flushes int)
returns table (
    tenant_id uuid,
    series_id bigint,
    count bigint,
    sum float8,
    min float8,
    max float8,
    last float8,
    histogram meshhook_metrics.histogram)
language sql volatile
begin atomic
    select s.tenant_id, s.id,
           flushes * coalesce(h.count, case s.kind when 'counter' then 3 else 1 end),
           flushes * coalesce(h.sum, case s.kind when 'counter' then ceil(1000 * r.random) else 1000 * r.random end),
           coalesce(h.min, case s.kind when 'gauge' then 900 * r.random end),
           coalesce(h.max, case s.kind when 'gauge' then 1000 * r.random end),
           case s.kind when 'gauge' then 1000 * r.random end,
           h.histogram
    from (
        select n.*, random()
        from meshhook_metrics.series n) s
    cross join lateral (select s.random) r
    left join bench.flushed_histograms h on s.kind = 'histogram' and h.i = (s.id + extract(epoch from moment)::bigint) % 500;
end;

create procedure bench.flush(moment timestamptz)
language sql
begin atomic
    insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
    select s.tenant_id, moment, 5, array_agg(s.series_id order by s.series_id), array_agg(s.count order by s.series_id),
           array_agg(s.sum order by s.series_id), array_agg(s.min order by s.series_id), array_agg(s.max order by s.series_id),
           array_agg(s.last order by s.series_id), array_agg(s.histogram order by s.series_id)
    from bench.samples(moment, 1) s
    group by s.tenant_id
    order by s.tenant_id;
end;

-- When the flushes of a minute come; the twelfth is the last one that is still in it
create function bench.flush_time(minute timestamptz, flush int) returns timestamptz
language sql immutable
return minute + flush * interval '5 seconds' - case flush when 12 then interval '1 microsecond' else '0' end;

-- The storage as it is after the twelve flushes of a minute that is still open:
-- flushes for longer than live is kept, minutes for longer than the longest window
create procedure bench.fill(tenants int, open_minute timestamptz)
language plpgsql as $$
declare
    minutes_of_live constant int := 16;
    minutes constant int := 75;
    minute timestamptz;
begin
    insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
    select bench.tenant(t), k.metric, k.kind, k.labels
    from (
        select 'bench_deliveries_total' as metric, 'counter' as kind, jsonb_build_object('queue', q, 'status', s) as labels
        from unnest(array['orders', 'invoices']) q
        cross join unnest(array['ok', 'failed', 'retried']) s
        union all
        select m.metric, m.kind, jsonb_build_object('queue', q)
        from unnest(array['orders', 'invoices']) q
        cross join (values ('bench_depth', 'gauge'), ('bench_duration_seconds', 'histogram')) m (metric, kind)) k
    cross join generate_series(1, tenants) t;
    perform meshhook_metrics.create_leaf(r.target, b)
    from unnest(array['1m', '5m', '1h']) r (target)
    cross join unnest(array[open_minute - minutes * interval '1 minute', open_minute]) b;

    for m in reverse minutes .. 1 loop
        minute := open_minute - m * interval '1 minute';
        if m > minutes_of_live then
            insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
            select s.tenant_id, s.series_id, minute, s.count, s.sum, s.min, s.max, s.last, s.histogram
            from bench.samples(minute, 12) s
            order by s.tenant_id, s.series_id;
            update meshhook_metrics.rollup_state
            set complete_until = minute + interval '1 minute'
            where target = '1m';
        else
            for flush in 1 .. 12 loop
                call bench.flush(bench.flush_time(minute, flush));
            end loop;
            perform meshhook_metrics.close_minutes(minute + interval '1 minute');
        end if;
        commit;
    end loop;
    for flush in 1 .. 12 loop
        call bench.flush(bench.flush_time(open_minute, flush));
    end loop;
    perform meshhook_metrics.rollup();
    commit;
end
$$;

-- The rules of so many tenants; none of them has anything to tell
create procedure bench.make_rules(tenants int)
language sql
begin atomic
    delete from meshhook_metrics.alert_rules;
    insert into meshhook_metrics.alert_rules (
        tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_min, group_by, threshold, time_window,
        annotations)
    select bench.tenant(t), r.name, r.metric, r.labels, r.aggregate, r.denominator_metric, r.denominator_min, r.group_by,
           1e9, r.time_window,
           jsonb_build_object('summary', r.name || ' is {{ value }}, more than {{ threshold }}',
               'runbook_url', 'https://runbooks.example.com/' || replace(r.name, ' ', '-'))
    from generate_series(1, tenants) t
    cross join bench.rules r;
end;

-- Whether one rule of each tenant has something to tell
create procedure bench.set_firing(firing boolean)
language sql
begin atomic
    update meshhook_metrics.alert_rules
    set threshold = case when firing then 0 else 1e9 end
    where name = 'error rate';
end;

-- Rules, those that failed, alerts that fire, and what has been written of them
create function bench.alerting(
    out rules bigint,
    out failing bigint,
    out firing bigint,
    out fired bigint,
    out resolved bigint,
    out notifications bigint)
language sql
begin atomic
    select s.rules, s.rules_failing,
           (select count(*) from meshhook_metrics.alerts a where a.state = 'firing'),
           (select count(*) from meshhook_metrics.alert_events e where e.state = 'firing'),
           (select count(*) from meshhook_metrics.alert_events e where e.state = 'resolved'),
           (select count(*) from meshhook_metrics.alert_notifications)
    from meshhook_metrics.alert_state s;
end;

-- Forget what was written, so that the next time finds the tables as this one did
create procedure bench.forget_alerts()
language plpgsql as $$
begin
    truncate meshhook_metrics.alert_events, meshhook_metrics.alert_notifications;
end
$$;

-- How many rules have another value than the plain sum over the flushes, or over the
-- minutes and the flushes of the open one, comes to; or have none
create function bench.wrong_values(moment timestamptz) returns bigint
language sql
begin atomic
    with flushed as (
        select e.series_id, sum(e.sum) as sum
        from meshhook_metrics.live l
        cross join unnest(l.series_id, l.sum) e (series_id, sum)
        where l.at > moment - interval '5 minutes'
            and l.at <= moment
        group by e.series_id
    ), histograms as (
        select r.series_id, r.histogram
        from meshhook_metrics.rollup_1m r
        where r.bucket >= date_trunc('minute', moment - interval '1 hour')
            and r.histogram is not null
        union all
        select e.series_id, e.histogram
        from meshhook_metrics.live l
        cross join unnest(l.series_id, l.histogram) e (series_id, histogram)
        where l.at >= date_trunc('minute', moment)
            and l.at <= moment
            and e.histogram is not null
    ), expected as (
        select s.tenant_id, 'error rate' as name, sum(f.sum) filter (where s.labels ->> 'status' = 'failed') / sum(f.sum) as value
        from flushed f
        join meshhook_metrics.series s on s.id = f.series_id
        where s.metric = 'bench_deliveries_total'
        group by s.tenant_id
        union all
        select s.tenant_id, 'p95 of an hour', meshhook_metrics.histogram_quantile(meshhook_metrics.histogram_merge(h.histogram), 0.95)
        from histograms h
        join meshhook_metrics.series s on s.id = h.series_id
        group by s.tenant_id
    )
    select count(*)
    from meshhook_metrics.alert_rules r
    left join meshhook_metrics.alert_values(moment, array(select id from meshhook_metrics.alert_rules)) v on v.rule_id = r.id
    left join expected e on e.tenant_id = r.tenant_id and e.name = r.name
    -- A rule with groups has a row without labels as well: that it was evaluated
    where (r.group_by is null or v.labels is not null or v.rule_id is null)
        and (v.value is null or abs(v.value - e.value) > 1e-9 * abs(e.value));
end;

-- The rules of every fiftieth tenant with query_range(), a call each, and for a ratio
-- one more
create procedure bench.query_each(moment timestamptz)
language plpgsql as $$
declare
    rule meshhook_metrics.alert_rules;
begin
    for rule in
        select r.*
        from meshhook_metrics.alert_rules r
        where right(r.tenant_id::text, 12)::bigint % 50 = 0
    loop
        perform
        from meshhook_metrics.query_range(rule.metric, moment - rule.time_window, moment, rule.time_window, rule.labels,
            rule.aggregate, rule.group_by, rule.tenant_id);
        if rule.denominator_metric is not null then
            perform
            from meshhook_metrics.query_range(rule.denominator_metric, moment - rule.time_window, moment, rule.time_window,
                rule.denominator_labels, rule.aggregate, rule.group_by, rule.tenant_id);
        end if;
    end loop;
end
$$;

-- Change every series every so often, until bench.busy is empty: counters by a call,
-- each histogram in 30 buckets
create table bench.busy as
select true as busy;

create procedure bench.keep_busy(every interval)
language plpgsql as $$
declare
    next timestamptz := clock_timestamp();
begin
    while exists (select from bench.busy) loop
        perform count(meshhook_metrics.inc(s.metric, ceil(1000 * random()), s.labels, s.tenant_id))
        from meshhook_metrics.series s
        where s.metric = 'bench_deliveries_total';
        perform count(meshhook_metrics.gauge_set(s.metric, 1000 * random(), s.labels, s.tenant_id))
        from meshhook_metrics.series s
        where s.metric = 'bench_depth';
        perform count(meshhook_metrics.observe(s.metric, 2 ^ (b / 8::float8 - 9) * (1.001 + 0.08 * random()), s.labels, s.tenant_id))
        from meshhook_metrics.series s
        cross join generate_series(0, 29) b
        where s.metric = 'bench_duration_seconds';
        commit;
        next := greatest(next + every, clock_timestamp());
        perform pg_sleep_until(next);
    end loop;
end
$$;
