-- What bench/policies reads. The worker serves another database, so only the bench
-- changes these tables.

grant usage on schema mhm_empty to authenticated;

\ir storage.sql

grant usage on schema bench to authenticated;

-- A role that has what authenticated has, by a policy of another form
create role bench_in;
grant usage on schema meshhook_metrics, mhm_empty to bench_in;
grant execute on function meshhook_metrics.tenant_ids to bench_in;
grant select on meshhook_metrics.rollup_5m to bench_in;
create policy with_in on meshhook_metrics.rollup_5m for select to bench_in
using (tenant_id in (select meshhook_metrics.tenant_ids()));

-- Minutes after minutes, as rollup() stores them: all series of a bucket together
create procedure bench.fill_policies(tenants int, series_each int, buckets int)
language plpgsql as $$
declare
    until timestamptz := date_bin('5 minutes', now(), 'epoch');
begin
    insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
    select bench.tenant(t), 'bench_deliveries_total', 'counter', jsonb_build_object('queue', 'queue_' || n)
    from generate_series(1, series_each) n
    cross join generate_series(1, tenants) t;

    perform meshhook_metrics.create_leaf('5m', d)
    from generate_series(until - buckets * interval '5 minutes', until, interval '1 day') d;
    perform meshhook_metrics.create_leaf('5m', until);
    for b in 1 .. buckets loop
        insert into meshhook_metrics.rollup_5m (tenant_id, series_id, bucket, count, sum)
        select s.tenant_id, s.id, until - (buckets - b) * interval '5 minutes', 300, 1 + s.id % 500
        from meshhook_metrics.series s
        order by 1, 2;
    end loop;
    commit;
end
$$;

-- tenant_ids() with all that it does but the exception block
do $$
declare
    definition text := pg_get_functiondef('meshhook_metrics.tenant_ids()'::regprocedure);
    unguarded text := regexp_replace(
        replace(definition, 'FUNCTION meshhook_metrics.tenant_ids()', 'FUNCTION bench.unguarded_tenant_ids()'),
        '\n\s*exception when .*\n(\s*end\s*)\$function\$', E'\n\\1$function$');
begin
    assert unguarded !~ 'exception when' and definition ~ 'exception when';
    execute unguarded;
end
$$;

-- What a policy asks, many times: its processor time, and the last answer
create function bench.call(routine text, times int, out nanoseconds bigint, out answer uuid[])
language plpgsql as $$
begin
    execute format(
        $f$
            create or replace function pg_temp.call_it(times int) returns uuid[]
            language plpgsql as 'declare answer uuid[]; begin for i in 1 .. times loop answer := array(select %s()); end loop; return answer; end'
        $f$, routine);
    nanoseconds := mhm_empty.cpu_nanoseconds();
    answer := pg_temp.call_it(times);
    nanoseconds := mhm_empty.cpu_nanoseconds() - nanoseconds;
end
$$;
