-- What the flush worker has stored of the run: the tables and, with
-- query_range(), the run over time. demo/run prints this after report.sql, in
-- its session, and says how long the run was meant to be.

\echo '== What was stored: the tables'

-- A flush that begins now brings all that was recorded
select meshhook_metrics.flush() as tick \gset

-- The worker goes on meanwhile, and may close a minute
begin isolation level repeatable read;

-- Live rows that are not in rollup_1m yet, one a series
create temp table open_minute as
select
	l.id,
	l.tenant_id,
	e.series_id,
	l.at,
	e.count,
	e.sum,
	e.min,
	e.max,
	e.last,
	e.histogram
from meshhook_metrics.live l
cross join lateral unnest(l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram)
	e (series_id, count, sum, min, max, last, histogram)
where l.id > (
	select s.live_id
	from meshhook_metrics.rollup_state s
	where s.target = '1m');

create temp table minutes as
select series_id, sum(sum) as sum
from meshhook_metrics.rollup_1m
group by series_id;

-- Every stored total: the minutes that have closed, and what came since
create temp table stored as
select
	s.tenant_id,
	s.metric,
	s.labels,
	s.kind,
	sum(p.count) as count,
	sum(p.sum) as sum,
	min(p.min) as min,
	max(p.max) as max,
	(array_agg(p.last order by p.at desc, p.id desc) filter (where p.last is not null))[1] as last,
	meshhook_metrics.histogram_merge(p.histogram) as histogram
from (
	select null::bigint as id, series_id, bucket as at, count, sum, min, max, last, histogram
	from meshhook_metrics.rollup_1m
	union all
	select id, series_id, at, count, sum, min, max, last, histogram
	from open_minute
) p
join meshhook_metrics.series s on s.id = p.series_id
group by s.tenant_id, s.metric, s.labels, s.kind;

select
	(select count(*) from meshhook_metrics.live) as live_rows,
	(select count(*) from meshhook_metrics.rollup_1m) as minute_rows,
	flush_errors
from meshhook_metrics.status() \gset

commit;

\echo 'Every second the worker stored what had changed, in one transaction:' :tick 'flushes,' :flush_errors 'errors.'
\echo 'A flush writes a row for each tenant into live, which Supabase Realtime streams. When a minute is over,'
\echo 'the worker adds it to rollup_1m; from there it goes on to 5 minutes, hours and days.'
\echo
\echo 'Workflow runs that ended: in the storage tables, and in shared memory'
\echo
select
	p.name as tenant,
	coalesce(sum(r.sum), 0) as "rollup_1m",
	coalesce(sum(o.sum), 0) as "live, open minute",
	coalesce(sum(r.sum), 0) + coalesce(sum(o.sum), 0) as stored,
	sum(n.value) as "in memory"
from meshhook_metrics.series s
join demo.projects p on p.id = s.tenant_id
left join minutes r on r.series_id = s.id
left join (
	select series_id, sum(sum) as sum
	from open_minute
	group by series_id
) o on o.series_id = s.id
left join snapshot n on (n.tenant_id, n.metric, n.labels) = (s.tenant_id, s.metric, s.labels)
where s.metric = 'meshhook_workflow_runs_total'
group by p.name
order by p.name;

\echo 'Rows by now:' :live_rows 'in live,' :minute_rows 'in rollup_1m (a row a series and minute that has closed).'
\echo

select
	min(received_at) as since,
	s.step
from demo.deliveries
cross join lateral (
	select min(step) as step
	from unnest(array['1 s', '2 s', '5 s', '10 s', '30 s', '1 min', '5 min', '30 min', '2 h', '6 h']::interval[]) step
	where step * 12 >= make_interval(secs => :seconds)
) s
group by s.step \gset

\echo 'The run over time, as its operator sees it (service_role). Each column is one call, p95 this one:'
\echo '    select bucket, value from meshhook_metrics.query_range('
\echo '        ''meshhook_workflow_run_duration_seconds'', ':'since'','
\echo '        step => ':'step'', aggregate => ''p95'')'
\echo
begin;
set local role service_role;
select
	to_char(ended.bucket, 'HH24:MI:SS') as "from",
	ended.value as "runs ended",
	round(rate.value::numeric, 1) as "/s",
	retries.value as retries,
	round(1000 * median.value::numeric, 2) as "p50 in ms",
	round(1000 * p95.value::numeric, 2) as "p95 in ms",
	round(1000 * longest.value::numeric, 1) as "max in ms",
	queued.value as queued
from meshhook_metrics.query_range('meshhook_workflow_runs_total', :'since', step => :'step') ended
left join meshhook_metrics.query_range('meshhook_workflow_runs_total', :'since', step => :'step',
	aggregate => 'rate') rate using (bucket)
left join meshhook_metrics.query_range('meshhook_workflow_retries_total', :'since', step => :'step') retries using (bucket)
left join meshhook_metrics.query_range('meshhook_workflow_run_duration_seconds', :'since', step => :'step',
	aggregate => 'p50') median using (bucket)
left join meshhook_metrics.query_range('meshhook_workflow_run_duration_seconds', :'since', step => :'step',
	aggregate => 'p95') p95 using (bucket)
left join meshhook_metrics.query_range('meshhook_workflow_run_duration_seconds', :'since', step => :'step',
	aggregate => 'max') longest using (bucket)
left join meshhook_metrics.query_range('meshhook_queue_depth', :'since', step => :'step') queued using (bucket)
order by ended.bucket;
commit;
