-- What query_range() says to a question that makes no sense, and to one that does but has no answer
\getenv folder PG_ABS_SRCDIR
\set mistakes :folder /sql/include/mistake.sql
\set migrations :folder /sql/include/migrations.sql
\set ECHO none
set client_min_messages = warning;
\i :mistakes
begin;
\i :migrations
set timezone = 'UTC';
set datestyle = 'ISO';
set intervalstyle = 'postgres';
\set ECHO all

\pset format unaligned
\pset tuples_only on
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
select '11111111-1111-1111-1111-111111111111', metric, kind, '{"status": "ok"}'
from (values ('runs_total', 'counter'), ('depth', 'gauge'), ('run_seconds', 'histogram')) m (metric, kind);

-- A call with one thing different from a good one
create function pg_temp.ask(arguments text) returns text
language sql as $$
	select coalesce(pg_temp.mistake(format('select * from meshhook_metrics.query_range(%s)', arguments)), 'nothing')
$$;
create function pg_temp.step(step text, since text default '2026-01-01 00:00:00+00', until text default '2026-01-01 01:00:00+00') returns text
language sql as $$
	select step || ': ' || pg_temp.ask(format('%L, %L, %L, %L', 'runs_total', since, until, step))
$$;

-- Nothing wrong
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02' $$);
select pg_temp.ask($$ 'runs_total', now() $$);
select pg_temp.ask($$ 'runs_total', now(), now() $$);

-- Times
select pg_temp.ask($$ null, '2026-01-01', '2026-01-02' $$);
select pg_temp.ask($$ 'runs_total', null, '2026-01-02' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', null $$);
select pg_temp.ask($$ 'runs_total', '-infinity', '2026-01-02' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', 'infinity' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-02', '2026-01-01' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01 00:00:00.000001', '2026-01-01' $$);
select pg_temp.ask($$ 'runs_total', '4713-01-01 BC', '2026-01-01' $$);
select pg_temp.ask($$ 'runs_total', '4713-01-01 BC', '2026-01-01', '30 days' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '290000-01-01' $$);

-- Steps
select pg_temp.step(step) from unnest(array[
	'0', '-5 minutes', '0.5 seconds', '999999 microseconds', '1 microsecond',
	'7 seconds', '11 seconds', '40 seconds', '59 seconds', '1.1 seconds',
	'61 seconds', '90 seconds', '7 minutes', '11 minutes', '25 minutes', '5 hours', '7 hours', '23 hours', '23:59:59',
	'25 hours', '36 hours', '1 day 1 second',
	'1 month', '1 year', '-1 month', '1 month -29 days', '100 years', '36501 days', '178000000 years']) step;
select pg_temp.step(step) from unnest(array[
	'1 second', '1.5 seconds', '2', '3', '4', '5', '6', '10', '12', '15', '20', '30', '60',
	'1 minute', '2 minutes', '00:03', '4 minutes', '5 minutes', '8 minutes', '9 minutes', '16 minutes', '32 minutes', '45 minutes',
	'1 hour', '80 minutes', '90 minutes', '2 hours', '3 hours', '4 hours', '6 hours', '8 hours', '12 hours', '24 hours',
	'1 day', '2 days', '48 hours', '1 week', '30 days', '31 days', '365 days', '36500 days', '1 day -12 hours', 'PT5M']) step;
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-01', 'five minutes' $$);

-- Too many buckets, and just not
select pg_temp.step('1 second', '2026-01-01 00:00:00+00', '2026-01-01 03:03:20+00');
select pg_temp.step('1 second', '2026-01-01 00:00:00+00', '2026-01-01 03:03:20.000001+00');
select pg_temp.step('1 minute', '2026-01-01 00:00:00+00', '2026-01-08 15:20:00+00');
select pg_temp.step('1 minute', '2026-01-01 00:00:00+00', '2026-01-08 15:21:00+00');
select pg_temp.step('1 day', '1990-01-01', '2026-01-01');

-- Aggregates
select aggregate || ': ' || pg_temp.ask(format('%L, %L, %L, aggregate => %L', 'run_seconds', '2026-01-01', '2026-01-02', aggregate))
from unnest(array[
	'', 'sum', 'median', 'Increase', 'P95', 'p', 'p-1', 'p101', 'p100.1', 'p1000', 'p.5', 'p5.', 'p9,5', 'p95 ', 'p1e1', 'pNaN', '95', 'p95''; select',
	'last']) aggregate;
select aggregate || ': ' || pg_temp.ask(format('%L, %L, %L, aggregate => %L', 'run_seconds', '2026-01-01', '2026-01-02', aggregate))
from unnest(array['increase', 'rate', 'avg', 'min', 'max', 'count', 'p0', 'p5', 'p50', 'p99.9', 'p99.999', 'p100', 'p100.0', 'p00']) aggregate;
select aggregate || ': ' || pg_temp.ask(format('%L, %L, %L, aggregate => %L', 'runs_total', '2026-01-01', '2026-01-02', aggregate))
from unnest(array['increase', 'rate', 'avg', 'count', 'min', 'max', 'last', 'p95']) aggregate;
select aggregate || ': ' || pg_temp.ask(format('%L, %L, %L, aggregate => %L', 'depth', '2026-01-01', '2026-01-02', aggregate))
from unnest(array['last', 'avg', 'min', 'max', 'count', 'increase', 'rate', 'p50']) aggregate;

-- Labels
select labels || ': ' || pg_temp.ask(format('%L, %L, %L, labels => %L', 'runs_total', '2026-01-01', '2026-01-02', labels))
from unnest(array[
	'[]', '"status"', '1', 'null', '{"status": null}', '{"status": ["ok"]}', '{"status": {"is": "ok"}}', '{"a": "1", "b%s": []}', '{',
	'{}', '{"status": 1}', '{"status": true}', '{"": ""}']) labels;
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', labels => null $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', group_by => '{status,null}' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', group_by => '{}' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', group_by => '{status,status,""}' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', group_by => '{{status,a},{b,c}}' $$);

-- What is not there is no mistake
select metric || ': ' || pg_temp.ask(format('%L, %L, %L, aggregate => %L', metric, '2026-01-01', '2026-01-02', aggregate))
from unnest(array['no_such_metric', '', 'no such metric; drop table', repeat('m', 200)]) metric, unnest(array['last', 'p95']) aggregate;
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', tenant => '99999999-9999-9999-9999-999999999999', aggregate => 'last' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02', labels => '{"status": "no such"}', aggregate => 'last' $$);

-- Storage that is broken, or not there
savepoint whole;
delete from meshhook_metrics.rollup_state where target = '1m';
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02' $$);
rollback to whole;
drop table meshhook_metrics.rollup_state;
select pg_temp.ask($$ 'runs_total', '2026-01-01', '2026-01-02' $$);
select pg_temp.ask($$ 'no_such_metric', '2026-01-01', '2026-01-02' $$);
select pg_temp.ask($$ 'runs_total', '2026-01-02', '2026-01-01' $$);
rollback;
