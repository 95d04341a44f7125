-- What was measured, per tenant, read with snapshot() and
-- histogram_quantile(); beside each quantile the exact one, which takes a sort
-- of the engine's tables. demo/run prints this after the workload, and says how
-- many turns pgbench made in how many seconds.

\pset footer off
\pset border 1
\pset null '-'

\echo '== What was measured: shared memory'

create temp table snapshot as
select *
from meshhook_metrics.snapshot();

select
	sum(count) as samples,
	round(sum(count) / :seconds) as per_second
from snapshot \gset

\echo :turns 'turns of senders and workers in' :seconds 's recorded' :samples 'samples,' :per_second 'a second.'
\echo
\echo 'Webhooks and workflow runs'
\echo
select
	p.name as tenant,
	sum(s.value) filter (where s.metric = 'meshhook_webhook_deliveries_total') as deliveries,
	coalesce(sum(s.value) filter (where s.metric = 'meshhook_webhook_deliveries_total' and s.labels ->> 'status' = 'rejected'), 0) as rejected,
	pg_size_pretty((sum(s.value) filter (where s.metric = 'meshhook_webhook_received_bytes_total'))::bigint) as received,
	coalesce(sum(s.value) filter (where r.status = 'succeeded'), 0) as succeeded,
	coalesce(sum(s.value) filter (where r.status = 'failed'), 0) as failed,
	coalesce(sum(s.value) filter (where r.status = 'dead'), 0) as dead,
	sum(s.value) filter (where s.metric = 'meshhook_queue_depth') as queued,
	coalesce(sum(s.value) filter (where s.metric = 'meshhook_workflow_retries_total'), 0) as retries,
	round((100 * coalesce(sum(s.value) filter (where r.status <> 'succeeded'), 0) / sum(s.value) filter (where r.status is not null))::numeric, 1)
		|| ' %' as "error rate"
from snapshot s
join demo.projects p on p.id = s.tenant_id
cross join lateral (
	select case when s.metric = 'meshhook_workflow_runs_total' then s.labels ->> 'status' end as status
) r
group by p.name
order by p.name;

-- Both durations of every run, as the tables have them
create temp table exact as
select
	'meshhook_workflow_run_duration_seconds' as metric,
	project_id as tenant_id,
	demo.seconds(started_at, finished_at) as seconds
from demo.runs
where finished_at is not null
union all
select
	'meshhook_queue_wait_seconds',
	project_id,
	demo.seconds(due_at, started_at)
from demo.attempts;

create temp table quantiles as
select
	metric,
	tenant_id,
	e.q,
	meshhook_metrics.histogram_count(h.histogram) as count,
	meshhook_metrics.histogram_quantile(h.histogram, e.q) as estimate,
	e.exact
from (
	select metric, tenant_id, meshhook_metrics.histogram_merge(histogram) as histogram
	from snapshot
	group by metric, tenant_id
) h
join (
	select metric, tenant_id, q.q, percentile_disc(q.q) within group (order by seconds) as exact
	from exact
	cross join unnest(array[0.5, 0.95, 0.99]) q (q)
	group by metric, tenant_id, q.q
) e using (metric, tenant_id);

create function pg_temp.milliseconds(float8)
returns numeric
language sql
as $$
	select round(1000 * $1::numeric, 2)
$$;

create function pg_temp.quantile_table(p_metric text)
returns table (tenant text, count bigint, p50 numeric, p50_exact numeric, p95 numeric, p95_exact numeric, p99 numeric, p99_exact numeric)
language sql
as $$
	select
		p.name,
		max(q.count),
		pg_temp.milliseconds(max(q.estimate) filter (where q.q = 0.5)),
		pg_temp.milliseconds(max(q.exact) filter (where q.q = 0.5)),
		pg_temp.milliseconds(max(q.estimate) filter (where q.q = 0.95)),
		pg_temp.milliseconds(max(q.exact) filter (where q.q = 0.95)),
		pg_temp.milliseconds(max(q.estimate) filter (where q.q = 0.99)),
		pg_temp.milliseconds(max(q.exact) filter (where q.q = 0.99))
	from quantiles q
	join demo.projects p on p.id = q.tenant_id
	where q.metric = p_metric
	group by p.name
	order by p.name
$$;

\echo 'Run duration in ms, first start to end: from the histogram, and exact from the tables'
\echo
select tenant, count as runs, p50, p50_exact as "exact", p95, p95_exact as "exact", p99, p99_exact as "exact"
from pg_temp.quantile_table('meshhook_workflow_run_duration_seconds');

\echo 'Queue wait in ms, due to start: from the histogram, and exact from the tables'
\echo
select tenant, count as attempts, p50, p50_exact as "exact", p95, p95_exact as "exact", p99, p99_exact as "exact"
from pg_temp.quantile_table('meshhook_queue_wait_seconds');

\echo 'For Prometheus: some lines of prometheus() for tenant acme'
\echo
\pset format unaligned
\pset tuples_only on
select line
from regexp_split_to_table(meshhook_metrics.prometheus('a0000000-0000-4000-8000-000000000001'), '\n') with ordinality l (line, position)
where line ~ '^# [A-Z]+ meshhook_(queue_wait_seconds|workflow_runs_total) '
	or line ~ '^meshhook_workflow_runs_total\{.*"deploy"'
	or line ~ '^meshhook_queue_wait_seconds_bucket\{.*"deploy",le="(0.0078125|0.0625|0.5|\+Inf)"'
	or line ~ '^meshhook_queue_wait_seconds_(sum|count)\{.*"deploy"'
order by position;
\echo
\pset tuples_only off
\pset format aligned

\echo 'The extension itself, from status()'
\echo
select
	series_used || ' of ' || series_max as series,
	histograms_used || ' of ' || histograms_max as histograms,
	pg_size_pretty(shared_memory_bytes) as "shared memory",
	(select sum(value::bigint) from jsonb_each_text(discarded)) as "discarded samples"
from meshhook_metrics.status();
