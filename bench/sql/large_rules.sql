-- Rules that need as much memory as rules can: quantiles over all the histograms of a
-- tenant, with a window of its own each

\ir storage.sql

-- All at once, so that no evaluation sees a part of them; the samples are of the last
-- second, so they are within every window
create procedure bench.make_large_rules(rules int, histograms int)
language plpgsql as $$
begin
    insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
    select bench.tenant(1), 'bench_run_seconds', 'histogram', jsonb_build_object('n', n)
    from generate_series(1, histograms) n;
    insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, histogram)
    select
        s.tenant_id,
        now() - interval '1 second',
        1,
        array_agg(s.id),
        array_agg(meshhook_metrics.histogram_count(h.histogram)),
        array_agg(meshhook_metrics.histogram_sum(h.histogram)),
        array_agg(meshhook_metrics.histogram_min(h.histogram)),
        array_agg(meshhook_metrics.histogram_max(h.histogram)),
        array_agg(h.histogram)
    from meshhook_metrics.series s
    join bench.histograms h on h.shape = '30 buckets' and h.i = s.id % 500
    group by s.tenant_id, s.id / 500;
    insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window)
    select bench.tenant(1), n, 'bench_run_seconds', 'p95', 0, interval '10 minutes' + n * interval '1 second'
    from generate_series(1, rules) n;
end
$$;

-- Until the worker has evaluated so many rules
create procedure bench.await_evaluation(awaited int)
language plpgsql as $$
begin
    while not exists (select from meshhook_metrics.alert_state s where s.evaluated_at is not null and s.rules = awaited) loop
        commit;
        perform pg_sleep(0.05);
    end loop;
end
$$;

-- How many rules have failed, have no value, or another one than a rule with the same samples
create function bench.wrong_large_rules() returns bigint
language sql
begin atomic
    select count(*)
    from meshhook_metrics.alert_rules r
    left join meshhook_metrics.alerts a on a.rule_id = r.id
    where r.last_error is not null
        or a.value is distinct from (select max(o.value) from meshhook_metrics.alerts o);
end;
