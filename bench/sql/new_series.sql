-- A registry for a million series: how long making one takes, and how long others wait

-- So many tenants, each with series of so many labels from one on, by a function
-- that takes what inc() takes. Processor nanoseconds.
create function bench.new_series(function text, tenants int, first_label int, labels int) returns bigint
language sql as $$
    select bench.cpu_nanoseconds(format(
        'select count(%s(''bench_new_total'', 1, jsonb_build_object(''label'', l), (''11111111-1111-4111-8111-'' || lpad(t::text, 12, ''0''))::uuid)) '
        'from generate_series(1, %s) t, generate_series(%s, %s) l',
        function, tenants, first_label, first_label + labels - 1));
$$;

-- The longest of so many milliseconds of calls, each with a series that the
-- session has not met
create function bench.longest_call(milliseconds float8, out longest_ms float8, out calls bigint)
language plpgsql as $$
declare
    until timestamptz := clock_timestamp() + milliseconds * interval '1 ms';
    called timestamptz := clock_timestamp();
    returned timestamptz;
    labels jsonb;
begin
    longest_ms := 0;
    calls := 0;
    while called < until loop
        labels := jsonb_build_object('call', calls % 1000);
        called := clock_timestamp();
        perform meshhook_metrics.inc('bench_bystander_total', 1, labels);
        returned := clock_timestamp();
        longest_ms := greatest(longest_ms, extract(epoch from returned - called) * 1000);
        calls := calls + 1;
        if calls % 1000 = 0 then
            perform meshhook_metrics.reset('bench_bystander_total');
        end if;
    end loop;
end
$$;
