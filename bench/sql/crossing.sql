-- A rule about a gauge, and how long it takes from a sample to what is told of it

insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window)
values ('22222222-2222-4222-8222-222222222222', 'level', 'bench_level', 'last', 100, '10 seconds');

-- Seconds from a sample until another transaction sees the event that comes of it,
-- looked for every two milliseconds; the sample comes at any moment between flushes
create function bench.cross(value float8, awaited text, flush_interval interval) returns float8
language plpgsql as $$
declare
    newest bigint := coalesce((select max(e.id) from meshhook_metrics.alert_events e), 0);
    recorded timestamptz;
begin
    perform pg_sleep(random() * extract(epoch from flush_interval));
    recorded := clock_timestamp();
    perform meshhook_metrics.gauge_set('bench_level', value, '{}', '22222222-2222-4222-8222-222222222222');
    loop
        if exists (select from meshhook_metrics.alert_events e where e.id > newest and e.state = awaited) then
            return extract(epoch from clock_timestamp() - recorded);
        end if;
        if clock_timestamp() > recorded + interval '1 minute' then
            raise exception 'no alert is % a minute after the sample', awaited;
        end if;
        perform pg_sleep(0.002);
    end loop;
end
$$;

-- What the worker took for the last evaluation
create function bench.evaluation_milliseconds() returns float8
language sql volatile
return 1000 * substring(meshhook_metrics.prometheus() from '\nmeshhook_metrics_last_alert_evaluation_duration_seconds (\S+)')::float8;
