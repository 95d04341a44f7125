-- What a user of one tenant sees, and one of another: the same questions
-- (ask.sql), asked as role authenticated with the claims of a signed-in user,
-- as PostgREST and Realtime do it. demo/run prints this after stored.sql, in
-- its session; check.sql compares the answers with the engine's tables.

\echo '== Who sees what'

create temp table questions (
	topic text,
	position int,
	question text,
	statement text
);

create temp table answers (
	topic text,
	viewer text,
	position int,
	question text,
	answer text
);

grant select on questions to authenticated;
grant insert on answers to authenticated;

insert into questions (topic, position, question, statement)
select 'metrics', q.position, q.question, q.statement
from (
	values
		(1, 'runs that ended', $$
			select sum(value)
			from meshhook_metrics.query_range('meshhook_workflow_runs_total', current_setting('demo.since')::timestamptz) $$),
		(2, 'of them, succeeded', $$
			select sum(value)
			from meshhook_metrics.query_range('meshhook_workflow_runs_total', current_setting('demo.since')::timestamptz,
				labels => '{"status": "succeeded"}') $$),
		(3, 'p95 of their duration in ms', $$
			select round(1000 * value::numeric, 2)
			from meshhook_metrics.query_range('meshhook_workflow_run_duration_seconds',
				current_setting('demo.since')::timestamptz, step => '1 day', aggregate => 'p95')
			order by bucket
			limit 1 $$),
		(4, 'names of workflows', $$
			select string_agg(distinct labels ->> 'workflow', ', ')
			from meshhook_metrics.series $$),
		(5, 'series, rows of live, minute rows', $$
			select concat_ws(', ',
				(select count(*) from meshhook_metrics.series),
				(select count(*) from meshhook_metrics.live),
				(select count(*) from meshhook_metrics.rollup_1m)) $$),
		(6, 'of them, of other tenants', $$
			select count(*)
			from (
				select tenant_id
				from meshhook_metrics.series
				union all
				select tenant_id
				from meshhook_metrics.live
				union all
				select tenant_id
				from meshhook_metrics.rollup_1m
			) r
			where tenant_id not in (select meshhook_metrics.tenant_ids()) $$),
		(7, 'runs of initech, by its id', $$
			select sum(value)
			from meshhook_metrics.query_range('meshhook_workflow_runs_total', current_setting('demo.since')::timestamptz,
				tenant => 'c0000000-0000-4000-8000-000000000003') $$),
		(8, 'snapshot() of shared memory', $$
			select count(*)
			from meshhook_metrics.snapshot() $$),
		(9, 'a sample of its own in live', $$
			insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
			select t, now(), 1, '{1}', '{1}', '{1}'
			from meshhook_metrics.tenant_ids() t
			returning id $$)
) q (position, question, statement);

create function pg_temp.answer_of(question text)
returns text
language plpgsql
as $$
declare
	answer text;
begin
	execute question into answer;
	return coalesce(answer, '-');
exception when insufficient_privilege then
	return 'permission denied';
end
$$;

\set topic metrics
\set viewer acme
\set tenants '["a0000000-0000-4000-8000-000000000001"]'
\ir ask.sql
\set viewer globex
\set tenants '["b0000000-0000-4000-8000-000000000002"]'
\ir ask.sql
\set viewer 'no tenant'
\set tenants '[]'
\ir ask.sql

\echo 'The same questions, asked by a user of acme, by one of globex, and by one who belongs to no tenant.'
\echo 'Row level security makes the difference; a dash stands for no rows.'
\echo
select
	question as "asked as role authenticated",
	max(answer) filter (where viewer = 'acme') as acme,
	max(answer) filter (where viewer = 'globex') as globex,
	max(answer) filter (where viewer = 'no tenant') as "no tenant"
from answers
where topic = 'metrics'
group by position, question
order by position;
