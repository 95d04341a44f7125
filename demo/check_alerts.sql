-- Checks the alerts against the outage, their values against the flushes, the
-- outbox against the events, and what users saw. check.sql, which comes next, adds
-- these checks to its own.

-- The windows of "Runs die" and "Runs are slow" when they fired, added up from the
-- flushes. These are kept for a quarter of an hour. Of the one that a window's
-- beginning divides, its sum counts by as much of its time as is in the window.
create temp table fired as
select
	e.id,
	e.name,
	e.labels,
	e.value,
	case e.name
		when 'Runs die' then
			sum(f.sum * p.part) filter (where s.metric = 'meshhook_workflow_runs_total' and s.labels @> '{"status": "dead"}' and s.labels @> e.labels)
				/ sum(f.sum * p.part) filter (where s.metric = 'meshhook_workflow_runs_total' and s.labels @> e.labels)
		else
			meshhook_metrics.histogram_quantile(
				meshhook_metrics.histogram_merge(f.histogram) filter (where s.metric = 'meshhook_workflow_run_duration_seconds'), 0.95)
	end as expected
from meshhook_metrics.alert_events e
join meshhook_metrics.live l on l.tenant_id = e.tenant_id and l.at > e.at - interval '10 seconds' and l.at <= e.at
cross join lateral greatest(l.at - l.seconds * interval '1 second', date_trunc('minute', l.at) - interval '1 microsecond') b (begins)
cross join lateral (
	select (extract(epoch from l.at - greatest(b.begins, e.at - interval '10 seconds')) / extract(epoch from l.at - b.begins))::float8
) p (part)
cross join lateral unnest(l.series_id, l.sum, l.histogram) f (series_id, sum, histogram)
join meshhook_metrics.series s on s.id = f.series_id
where e.state = 'firing'
	and e.at - interval '10 seconds' > (select min(at) from meshhook_metrics.live)
group by e.id;

create temp table alert_checks as
-- Of each rule that the outage is about: how often it fired and was resolved
select
	'alert ' || r.name as metric,
	r.tenant_id,
	jsonb '{}' as labels,
	c.what,
	c.measured::float8,
	c.expected::float8,
	c.measured = c.expected as agrees
from meshhook_metrics.alert_rules r
cross join demo.outages o
cross join lateral (
	select
		count(*) filter (where e.state = 'firing') as fired,
		count(*) filter (where e.state = 'firing' and e.at between o.began_at and o.ended_at) as fired_in_it,
		count(*) filter (where e.state = 'resolved') as resolved,
		count(*) filter (
			where e.state = 'resolved'
				and e.at > o.ended_at
				and e.fired_event_id in (
					select f.id
					from meshhook_metrics.alert_events f
					where f.rule_id = r.id
						and f.state = 'firing')) as resolved_after_it
	from meshhook_metrics.alert_events e
	where e.rule_id = r.id
) e
cross join lateral (
	values
		('fired', e.fired, 1),
		('fired during the outage', e.fired_in_it, 1),
		('resolved', e.resolved, 1),
		('resolved after the outage', e.resolved_after_it, 1),
		('firing at the end', (select count(*) from meshhook_metrics.alerts a where a.rule_id = r.id and a.state = 'firing'), 0)
) c (what, measured, expected)
where r.name in ('Runs die', 'Runs are slow')
union all
-- The other one has nothing to tell, unless runs did wait that long
select 'alert Queue waits', r.tenant_id, '{}', 'events', count(e.id), 0, count(e.id) = 0
from meshhook_metrics.alert_rules r
left join meshhook_metrics.alert_events e on e.rule_id = r.id
where r.name = 'Queue waits'
	and not exists (
		select
		from demo.attempts a
		where a.project_id = r.tenant_id
			and a.started_at - a.due_at > interval '5 seconds')
group by r.tenant_id
union all
select 'alerts', p.id, '{}', 'events of a tenant without rules', count(e.id), 0, count(e.id) = 0
from demo.projects p
left join meshhook_metrics.alert_events e on e.tenant_id = p.id
where p.name <> 'initech'
group by p.id
union all
select 'alert ' || name, 'c0000000-0000-4000-8000-000000000003', labels, 'value when it fired', value, expected,
	coalesce(abs(value - expected) <= 1e-9 * abs(expected), false)
from fired
union all
-- Each time an alert fired or was resolved it was told of once
select
	'alert ' || coalesce(e.name, n.alert #>> '{labels,alertname}'),
	coalesce(e.tenant_id, n.tenant_id),
	coalesce(e.labels, n.alert -> 'labels'),
	'notifications of ' || coalesce(e.state, n.alert ->> 'status'),
	n.times,
	case when e.id is not null then 1 else 0 end,
	coalesce(n.times = 1 and e.id is not null, false)
from (
	select id, tenant_id, name, labels, fingerprint, state,
		to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as at
	from meshhook_metrics.alert_events
	where state in ('firing', 'resolved')
) e
full join (
	select o.tenant_id, a.alert, count(*) as times
	from meshhook_metrics.alert_notifications o
	cross join jsonb_array_elements(o.payload -> 'alerts') a (alert)
	group by o.tenant_id, a.alert
) n on n.tenant_id = e.tenant_id
	and n.alert ->> 'fingerprint' = e.fingerprint
	and n.alert ->> 'status' = e.state
	and n.alert ->> case e.state when 'firing' then 'startsAt' else 'endsAt' end = e.at
union all
select 'alerts', '00000000-0000-0000-0000-000000000000', '{}', 'notifications that were delivered', count(n.delivered_at),
	count(*), coalesce(count(n.delivered_at) = count(*) and bool_and(n.attempts = 1), false)
from meshhook_metrics.alert_notifications n
union all
-- What users saw and did: initech's user what is the tenant's, globex's nothing
select
	'alerts',
	p.id,
	'{}',
	a.question || ', as ' || a.viewer || ' sees it: ' || a.answer,
	(a.answer = w.answer)::int,
	1,
	a.answer = w.answer
from answers a
join demo.projects p on p.name = a.viewer
join (
	values
		(1, '3', '0'),
		(2, '2', '-'),
		(4, '0', '0'),
		(5, 'done', '-'),
		(6, 'done', 'permission denied'),
		(7, 'permission denied', 'permission denied'),
		(8, 'permission denied', 'permission denied')
) q (position, initech, globex) on q.position = a.position
cross join lateral (select case a.viewer when 'initech' then q.initech else q.globex end as answer) w
where a.topic = 'alerts';
