-- Asks as a user of the tenants in :tenants, and notes the answers under
-- :viewer. Row level security decides what a question is about: none of them
-- names the tenant, but for one that tries somebody else's.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"app_metadata": {"tenant_ids": ' || :'tenants' || '}}', true) as claims \gset
select set_config('demo.since', :'since', true) as since_set \gset

insert into answers (viewer, position, question, answer)
select :'viewer', q.position, q.question, pg_temp.answer_of(q.statement)
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
commit;
