-- What was told of the outage: the rules, what happened to their alerts, a
-- notification as its receiver gets it, and who may see and do what. demo/run
-- prints this after tenants.sql, in its session; check_alerts.sql checks it.

\echo '== Alerts: what was told of the outage'
\echo 'A user of initech has written three rules before (demo/rules.sql). The worker evaluates the rules of all tenants'
\echo 'after a flush, here every second.'
\echo

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"app_metadata": {"tenant_ids": ["c0000000-0000-4000-8000-000000000003"]}}', true) as claims \gset
select
	name as alert,
	format('%s of %s%s%s %s %s', aggregate, replace(metric, 'meshhook_', ''),
		case when labels <> '{}' then ' ' || labels::text end,
		' / ' || replace(denominator_metric, 'meshhook_', ''), comparison, threshold) as "fires when",
	extract(epoch from time_window)::int || ' s' as "in",
	extract(epoch from for_duration)::int || ' s' as "for",
	severity
from meshhook_metrics.alert_rules
order by severity, name desc;
commit;

\echo 'What happened, as the user reads it in alert_events, which Supabase Realtime streams; beside it the outage'
\echo
select
	to_char(t.at, 'HH24:MI:SS.MS') as at,
	t.what as "what happened",
	t.name as alert,
	t.labels,
	round(t.value::numeric, 4) as value,
	t.threshold
from (
	select at, 'alert is ' || state as what, name, labels, value, threshold
	from meshhook_metrics.alert_events
	where tenant_id = 'c0000000-0000-4000-8000-000000000003'
	union all
	select m.at, m.what, null, null, null, null
	from demo.outages o
	cross join lateral (
		values
			(o.began_at, 'the service is down'),
			(o.ended_at, 'the service is back')
	) m (at, what)
) t
order by t.at, t.name;

-- A process that delivers takes them, and says of each that it has done so. Those
-- of one rule come one after the other.
create temp table delivered (
	id bigint,
	attempts int,
	payload jsonb
);

grant insert on delivered to service_role;

begin;
set local role service_role;
insert into delivered (id, attempts, payload)
select id, attempts, payload
from meshhook_metrics.claim_notifications();
select count(meshhook_metrics.finish_notification(n.id)) as first_ones
from meshhook_metrics.alert_notifications n
where n.attempts > 0 \gset
insert into delivered (id, attempts, payload)
select id, attempts, payload
from meshhook_metrics.claim_notifications();
select count(meshhook_metrics.finish_notification(n.id)) as next_ones
from meshhook_metrics.alert_notifications n
where n.attempts > 0
	and n.delivered_at is null \gset
commit;

\echo 'Each time it fired and was resolved a notification was written to the outbox, in the same transaction. A process'
\echo 'outside, or pg_net, delivers them: claim_notifications() gave it' :first_ones 'and, once they were delivered,' :next_ones 'more. The first one,'
\echo 'which is what Alertmanager sends to a webhook:'
\echo
\pset format unaligned
\pset tuples_only on
select regexp_replace(l.line, '^(.{114}).{6,}$', '\1 ...')
from (
	select payload
	from delivered
	order by id
	limit 1
) d
cross join regexp_split_to_table(jsonb_pretty(d.payload), '\n') with ordinality l (line, position)
order by l.position;
\echo
\pset tuples_only off
\pset format aligned

insert into questions (topic, position, question, statement)
values
	('alerts', 1, 'alert rules', $$
		select count(*)
		from meshhook_metrics.alert_rules $$),
	('alerts', 2, 'alerts that have fired', $$
		select nullif(count(*), 0)
		from meshhook_metrics.alert_events
		where state = 'firing' $$),
	('alerts', 3, 'the last event', $$
		select name || ': ' || state
		from meshhook_metrics.alert_events
		order by id desc
		limit 1 $$),
	('alerts', 4, 'rules, alerts and events of other tenants', $$
		select count(*)
		from (
			select tenant_id
			from meshhook_metrics.alert_rules
			union all
			select tenant_id
			from meshhook_metrics.alerts
			union all
			select tenant_id
			from meshhook_metrics.alert_events
		) r
		where tenant_id not in (select meshhook_metrics.tenant_ids()) $$),
	('alerts', 5, 'silence "Runs die" for an hour', $$
		update meshhook_metrics.alert_rules
		set silenced_until = now() + interval '1 hour'
		where name = 'Runs die'
		returning 'done' $$),
	('alerts', 6, 'write a rule for initech', $$
		insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
		values ('c0000000-0000-4000-8000-000000000003', 'Many runs', 'meshhook_workflow_runs_total', 'rate', 1000)
		returning 'done' $$),
	('alerts', 7, 'write an event', $$
		insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at)
		select r.id, r.tenant_id, '', r.name, r.severity, '{}', '{}', 'firing', 'threshold', now(), now()
		from meshhook_metrics.alert_rules r
		limit 1
		returning 'done' $$),
	('alerts', 8, 'read the outbox', $$
		select count(*)
		from meshhook_metrics.alert_notifications $$);

\set topic alerts
\set viewer initech
\set tenants '["c0000000-0000-4000-8000-000000000003"]'
\ir ask.sql
\set viewer globex
\set tenants '["b0000000-0000-4000-8000-000000000002"]'
\ir ask.sql

\echo 'Who sees and does what: a user of initech, and one of globex'
\echo
select
	question as "asked as role authenticated",
	max(answer) filter (where viewer = 'initech') as initech,
	max(answer) filter (where viewer = 'globex') as globex
from answers
where topic = 'alerts'
group by position, question
order by position;
