-- What the measurements of bench/record share: the peers' tables, the inputs, and
-- the loops that read the clock inside the session, so that no round trip is in a
-- figure.

\ir clock.sql

\ir events.sql

-- The same as it is kept where events are looked up again
create table bench.events_indexed (
    id bigint generated always as identity primary key,
    like bench.events including defaults
);

create index on bench.events_indexed (tenant, at);

-- One row per counter, as people count today
create table bench.counters (
    id int primary key,
    tenant uuid not null,
    metric text not null,
    labels jsonb not null,
    value float8 not null
);

insert into bench.counters
select i,
       '11111111-1111-4111-8111-111111111111',
       'bench_deliveries_total',
       jsonb_build_object('queue', 'webhooks', 'status', 'ok', 'worker', i),
       0
from generate_series(1, 100) i;

create table bench.label_sets as
select jsonb_build_object('queue', 'queue_' || i / 5, 'status', (array['ok', 'failed', 'retried', 'skipped', 'dropped'])[1 + i % 5]) as labels
from generate_series(0, 99) i;

analyze bench.label_sets;

-- 1,000 samples as a worker would hand them over: ten tenants, two labels, and
-- counters, durations and a queue depth mixed
create table bench.batch as
select jsonb_agg(jsonb_build_object(
           'op', s.op,
           'metric', s.metric,
           'value', s.value,
           'labels', jsonb_build_object('queue', 'queue_' || i % 7, 'status', case when i % 9 = 0 then 'failed' else 'ok' end),
           'tenant', '11111111-1111-4111-8111-00000000000' || i % 10)) as samples
from generate_series(1, 1000) i
cross join lateral (
    select case when i % 10 < 5 then 'inc' when i % 10 < 9 then 'observe' else 'gauge_set' end as op,
           case when i % 10 < 5 then 'bench_batch_total' when i % 10 < 9 then 'bench_batch_seconds' else 'bench_batch_depth' end as metric,
           case when i % 10 < 5 then 1 when i % 10 < 9 then round(0.001 * i, 4) else i end as value
) s;

-- Waits until the session that holds the start lock lets go, so that sessions
-- start together; returns the seconds since the epoch of both ends, and the
-- processor time in between.
create function bench.started_together(statement text, out started float8, out finished float8, out cpu_nanoseconds bigint)
language plpgsql as $$
begin
    perform pg_advisory_xact_lock_shared(1);
    started := extract(epoch from clock_timestamp());
    cpu_nanoseconds := bench.cpu_nanoseconds(statement);
    finished := extract(epoch from clock_timestamp());
end
$$;

-- Microseconds per sample of a batch handed over again and again, each time in
-- a transaction of its own, by one of the ways to take it
create procedure bench.take_batch(way text, repeats int, inout microseconds float8)
language plpgsql as $$
declare
    samples jsonb;
    samples_text text;
    insert_values text;
    tenants uuid[];
    metrics text[];
    labels jsonb[];
    amounts float8[];
    started timestamptz;
begin
    select b.samples
    into samples
    from bench.batch b;
    -- A value of its own in memory, not one that is read from its table each time
    samples := samples || '[]';
    samples_text := samples;
    select array_agg(s.tenant), array_agg(s.metric), array_agg(s.labels), array_agg(s.value),
           'insert into bench.events (tenant, metric, labels, value) values '
           || string_agg(format('(%L, %L, %L, %s)', s.tenant, s.metric, s.labels, s.value), ', ')
    into tenants, metrics, labels, amounts, insert_values
    from jsonb_to_recordset(samples) as s (tenant uuid, metric text, labels jsonb, value float8);
    commit;

    started := clock_timestamp();
    for i in 1 .. repeats loop
        case way
            when 'empty' then
                perform mhm_empty.record(samples);
            when 'record' then
                perform meshhook_metrics.record(samples);
            when 'insert' then
                insert into bench.events (tenant, metric, labels, value)
                select s.tenant, s.metric, s.labels, s.value
                from jsonb_to_recordset(samples) as s (tenant uuid, metric text, labels jsonb, value float8);
            when 'insert indexed' then
                insert into bench.events_indexed (tenant, metric, labels, value)
                select s.tenant, s.metric, s.labels, s.value
                from jsonb_to_recordset(samples) as s (tenant uuid, metric text, labels jsonb, value float8);
            when 'insert arrays' then
                insert into bench.events (tenant, metric, labels, value)
                select *
                from unnest(tenants, metrics, labels, amounts);
            when 'insert values' then
                execute insert_values;
            when 'record from text' then
                perform meshhook_metrics.record(samples_text::jsonb);
            when 'insert from text' then
                insert into bench.events (tenant, metric, labels, value)
                select s.tenant, s.metric, s.labels, s.value
                from jsonb_to_recordset(samples_text::jsonb) as s (tenant uuid, metric text, labels jsonb, value float8);
        end case;
        commit;
    end loop;
    microseconds := extract(epoch from clock_timestamp() - started) * 1e6 / repeats / jsonb_array_length(samples);
end
$$;

-- What the registry holds, and how many samples it could not take
create function bench.registry(out series_used bigint, out histograms_used bigint, out discarded bigint)
language sql
begin atomic
    select s.series_used,
           s.histograms_used,
           coalesce((select sum(d.value::bigint) from jsonb_each_text(s.discarded) d), 0)
    from meshhook_metrics.status() s;
end;

-- The series of the bench in prometheus()'s text: a counter's sample lines, a
-- histogram's _count lines
create function bench.exposed_series() returns setof text
language sql
begin atomic
    select line
    from regexp_split_to_table(meshhook_metrics.prometheus(), '\n') line
    where line ~ '^bench_[a-z0-9_]+_(total|count)\{';
end;
