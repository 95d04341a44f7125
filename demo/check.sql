-- Compares every series, in shared memory and stored, with what the engine's
-- tables say, and what a tenant's user saw with what is the tenant's; ends with
-- an error when anything differs, or when check_alerts.sql found that. Runs after
-- the other files of the report, in their session, on what they took.

-- What is null is not known to the tables, and not compared.
create temp table expected (
	metric text,
	tenant_id uuid,
	labels jsonb,
	value float8,		-- of a counter or gauge
	count bigint,		-- samples
	sum float8			-- of a histogram
);

insert into expected (metric, tenant_id, labels, value, count)
select 'meshhook_webhook_deliveries_total', project_id, jsonb_build_object('source', source, 'status', status), count(*), count(*)
from demo.deliveries
group by project_id, source, status
union all
select 'meshhook_webhook_received_bytes_total', project_id, jsonb_build_object('source', source), sum(bytes), count(*)
from demo.deliveries
group by project_id, source
union all
select 'meshhook_workflow_runs_total', r.project_id, jsonb_build_object('workflow', w.name, 'status', r.status), count(*), count(*)
from demo.runs r
join demo.workflows w on w.id = r.workflow_id
where r.finished_at is not null
group by r.project_id, w.name, r.status
union all
select 'meshhook_workflow_retries_total', a.project_id, jsonb_build_object('workflow', w.name), count(*), count(*)
from demo.attempts a
join demo.workflows w on w.id = a.workflow_id
where a.outcome = 'retried'
group by a.project_id, w.name
union all
select 'meshhook_workflow_errors_total', a.project_id, jsonb_build_object('workflow', w.name, 'reason', a.error), count(*), count(*)
from demo.attempts a
join demo.workflows w on w.id = a.workflow_id
where a.error is not null
group by a.project_id, w.name, a.error
union all
select 'meshhook_workflow_steps_total', project_id, jsonb_build_object('step', step), count(*), count(*)
from demo.steps
group by project_id, step
union all
-- in and out of the queue, and in again for a retry
select 'meshhook_queue_depth', r.project_id, '{}', count(*) filter (where r.status = 'queued'),
	count(*) + sum(a.claimed) + sum(a.retried)
from demo.runs r
cross join lateral (
	select
		count(*) as claimed,
		count(*) filter (where outcome = 'retried') as retried
	from demo.attempts
	where run_id = r.id
) a
group by r.project_id
union all
select 'meshhook_workflow_runs_in_progress', project_id, '{}', count(*) filter (where finished_at is null),
	count(*) + count(finished_at)
from demo.attempts
group by project_id
union all
select 'meshhook_projects', '00000000-0000-0000-0000-000000000000', '{}', count(*), 1
from demo.projects;

insert into expected (metric, tenant_id, labels, count, sum)
select 'meshhook_webhook_response_seconds', project_id, jsonb_build_object('source', source), count(*), null
from demo.deliveries
group by project_id, source
union all
select 'meshhook_workflow_run_duration_seconds', r.project_id, jsonb_build_object('workflow', w.name), count(*),
	sum(demo.seconds(r.started_at, r.finished_at))
from demo.runs r
join demo.workflows w on w.id = r.workflow_id
where r.finished_at is not null
group by r.project_id, w.name
union all
select 'meshhook_queue_wait_seconds', a.project_id, jsonb_build_object('workflow', w.name), count(*),
	sum(demo.seconds(a.due_at, a.started_at))
from demo.attempts a
join demo.workflows w on w.id = a.workflow_id
group by a.project_id, w.name
union all
select 'meshhook_workflow_step_duration_seconds', project_id, jsonb_build_object('step', step), count(*),
	sum(demo.seconds(started_at, finished_at))
from demo.steps
group by project_id, step;

-- One row per check; a series that the tables know nothing of is one that
-- differs. A sum of fractions depends on the order of adding in its last digits.
create temp table checks as
select
	metric,
	tenant_id,
	labels,
	place || c.what as what,
	c.measured,
	c.expected,
	coalesce(abs(c.measured - c.expected) <= c.tolerance * abs(c.expected), false) as agrees
from (
	select p.place, e.*
	from expected e
	cross join (values (''), ('stored ')) p (place)
) e
full join (
	select '' as place, metric, tenant_id, labels, value, count, sum
	from snapshot
	where metric !~ '^meshhook_metrics_'
	union all
	select 'stored ', metric, tenant_id, labels, case kind when 'counter' then sum when 'gauge' then last end, count, sum
	from stored
) s using (place, metric, tenant_id, labels)
cross join lateral (
	values
		('value', s.value, e.value, 0),
		('count', s.count, e.count, 0),
		('sum', s.sum, e.sum, 1e-9)
) c (what, measured, expected, tolerance)
where c.expected is not null
	or (e.count is null and c.what = 'count')
union all
-- Histograms that were taken apart into flushes and minutes, and merged again
select
	metric,
	tenant_id,
	labels,
	'stored ' || c.what,
	c.measured,
	c.expected,
	coalesce(c.measured = c.expected, false)
from stored t
join snapshot s using (metric, tenant_id, labels)
cross join lateral (
	values
		('min', t.min, s.min),
		('max', t.max, s.max),
		('p50', meshhook_metrics.histogram_quantile(t.histogram, 0.5), meshhook_metrics.histogram_quantile(s.histogram, 0.5)),
		('p95', meshhook_metrics.histogram_quantile(t.histogram, 0.95), meshhook_metrics.histogram_quantile(s.histogram, 0.95))
) c (what, measured, expected)
where t.kind = 'histogram'
union all
-- What tenants' users saw: their own runs, and nothing that is not theirs
select
	'meshhook_workflow_runs_total',
	p.id,
	'{}',
	a.question || ', as ' || a.viewer || ' sees it',
	c.measured,
	c.expected,
	coalesce(c.measured = c.expected, false)
from answers a
left join demo.projects p on p.name = a.viewer
cross join lateral (
	select
		case
			when a.question ~ '^(snapshot|a sample)' then (a.answer <> 'permission denied')::int
			when a.answer = '-' then 0
			else a.answer::float8
		end as measured,
		case
			when a.question <> 'runs that ended' then 0
			else (
				select count(*)
				from demo.runs r
				where r.project_id = p.id
					and r.finished_at is not null)
		end as expected
	where a.topic = 'metrics'
		and a.question !~ '^(of them, succeeded|p95|names|series)'
) c
union all
-- The promise of the histogram: 4.4 % (2^(1/16) - 1) above 2^-20 s
select
	metric,
	tenant_id,
	'{}',
	'p' || 100 * q,
	estimate,
	exact,
	abs(estimate - exact) <= exact * (2 ^ (1 / 16.0) - 1 + 1e-9) + 2 ^ (-20)
from quantiles
union all
select
	'meshhook_metrics_discarded_total',
	'00000000-0000-0000-0000-000000000000',
	'{}',
	'value',
	d.discarded,
	0,
	d.discarded = 0
from (
	select coalesce(sum(value::float8), 0) as discarded
	from meshhook_metrics.status() s
	cross join jsonb_each_text(s.discarded)
) d
union all
select *
from alert_checks;

select
	count(*) as checks,
	count(*) filter (where not agrees) > 0 as differ
from checks \gset

\if :differ
\echo
\echo 'What differs from the tables of the engine, or from the outage'
\echo
select
	coalesce(p.name, 'platform') as tenant,
	c.metric,
	c.labels,
	c.what,
	c.measured,
	c.expected
from checks c
left join demo.projects p on p.id = c.tenant_id
where not c.agrees
order by c.metric, tenant, c.labels;

\set VERBOSITY terse
do $$
begin
	raise exception '% of % checks failed: the rows above.',
		(select count(*) from checks where not agrees),
		(select count(*) from checks);
end
$$;
\endif

\echo 'All' :checks 'checks agree: every counter, gauge and histogram, in memory and stored, equals what the'
\echo 'tables of the engine say; the alerts fired in the outage and were resolved after it, once each, and were'
\echo 'told of once; and each user has seen the own tenant and nothing else.'
