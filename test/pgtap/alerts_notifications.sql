-- What is told of alerts, to whom and when: the rows of the outbox
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
-- The answers must not depend on where the session is
set local timezone = 'America/St_Johns';
set local datestyle = 'German';

-- What was told, a line a notification: to whom if it has a name, and the state of its alerts
create function pg_temp.told() returns text
language sql as $$
	select coalesce(string_agg(case n.receiver when 'default' then '' else n.receiver || ' ' end || (
		select string_agg(coalesce(a -> 'labels' ->> 'queue' || ' ', '') || (a ->> 'status'), ' ' order by a -> 'labels' ->> 'queue')
		from jsonb_array_elements(n.payload -> 'alerts') a), '; ' order by n.receiver, n.id), '')
	from meshhook_metrics.alert_notifications n
$$;
create function pg_temp.telling(columns jsonb, steps text) returns text
language sql as $$
	select pg_temp.play(columns, steps);
	select pg_temp.told();
$$;
-- The seconds of each step at which something was told
create function pg_temp.times(columns jsonb, steps text) returns text
language plpgsql as $$
declare
	step text;
	known bigint := 0;
	told text := '';
begin
	perform pg_temp.clear(), pg_temp.rule(columns);
	foreach step in array regexp_split_to_array(steps, '\s+') loop
		perform pg_temp.go(step);
		if (select count(*) from meshhook_metrics.alert_notifications) > known then
			known := (select count(*) from meshhook_metrics.alert_notifications);
			told := told || ' ' || split_part(step, '=', 1);
		end if;
	end loop;
	return ltrim(told);
end
$$;

-- A whole payload: Alertmanager's webhook, version 4
select pg_temp.rule('{"id": "33333333-3333-3333-3333-333333333333", "name": "Queue is \"deep\"", "group_by": ["queue"], "severity": "critical",
	"annotations": {"summary": "{{ labels.queue }}: {{ value }} > {{ threshold }}", "runbook_url": "https://example.org/deep?a=1&b=2"}}');
select pg_temp.sample('depth', pg_temp.t(0), 11.5, '{"queue": "a"}');
select pg_temp.sample('depth', pg_temp.t(0), 12, '{"queue": "b"}');
select pg_temp.evaluate(0);
select is((select jsonb_pretty(payload) from meshhook_metrics.alert_notifications), jsonb_pretty('{
	"version": "4",
	"groupKey": "{}/{rule_id=\"33333333-3333-3333-3333-333333333333\"}:{tenant_id=\"11111111-1111-1111-1111-111111111111\"}",
	"truncatedAlerts": 0,
	"status": "firing",
	"receiver": "default",
	"groupLabels": {"alertname": "Queue is \"deep\"", "tenant_id": "11111111-1111-1111-1111-111111111111"},
	"commonLabels": {"alertname": "Queue is \"deep\"", "severity": "critical", "tenant_id": "11111111-1111-1111-1111-111111111111"},
	"commonAnnotations": {"runbook_url": "https://example.org/deep?a=1&b=2"},
	"externalURL": "",
	"alerts": [
		{
			"status": "firing",
			"labels": {"alertname": "Queue is \"deep\"", "severity": "critical", "tenant_id": "11111111-1111-1111-1111-111111111111", "queue": "b"},
			"annotations": {"summary": "b: 12 > 10", "runbook_url": "https://example.org/deep?a=1&b=2"},
			"startsAt": "2024-01-16T10:00:00.000000Z",
			"endsAt": "0001-01-01T00:00:00Z",
			"generatorURL": "",
			"fingerprint": "4ff5dfe62f3a6efc8ed050c3d7178337"
		},
		{
			"status": "firing",
			"labels": {"alertname": "Queue is \"deep\"", "severity": "critical", "tenant_id": "11111111-1111-1111-1111-111111111111", "queue": "a"},
			"annotations": {"summary": "a: 11.5 > 10", "runbook_url": "https://example.org/deep?a=1&b=2"},
			"startsAt": "2024-01-16T10:00:00.000000Z",
			"endsAt": "0001-01-01T00:00:00Z",
			"generatorURL": "",
			"fingerprint": "9f9a39b86e08102d2268921b559fbe45"
		}
	]}'), 'what fires');
select pg_temp.sample('depth', pg_temp.t(30.25), 13, '{"queue": "a"}');
select pg_temp.sample('depth', pg_temp.t(30.25), 1e-7, '{"queue": "b"}');
select pg_temp.evaluate(30.25);
select is((select jsonb_pretty(jsonb_build_object('status', payload -> 'status', 'alerts', payload -> 'alerts')) from meshhook_metrics.alert_notifications order by id desc limit 1), jsonb_pretty('{
	"status": "firing",
	"alerts": [
		{
			"status": "resolved",
			"labels": {"alertname": "Queue is \"deep\"", "severity": "critical", "tenant_id": "11111111-1111-1111-1111-111111111111", "queue": "b"},
			"annotations": {"summary": "b: 1e-07 > 10", "runbook_url": "https://example.org/deep?a=1&b=2"},
			"startsAt": "2024-01-16T10:00:00.000000Z",
			"endsAt": "2024-01-16T10:00:30.250000Z",
			"generatorURL": "",
			"fingerprint": "4ff5dfe62f3a6efc8ed050c3d7178337"
		},
		{
			"status": "firing",
			"labels": {"alertname": "Queue is \"deep\"", "severity": "critical", "tenant_id": "11111111-1111-1111-1111-111111111111", "queue": "a"},
			"annotations": {"summary": "a: 13 > 10", "runbook_url": "https://example.org/deep?a=1&b=2"},
			"startsAt": "2024-01-16T10:00:00.000000Z",
			"endsAt": "0001-01-01T00:00:00Z",
			"generatorURL": "",
			"fingerprint": "9f9a39b86e08102d2268921b559fbe45"
		}
	]}'), 'what is resolved, and all that goes on firing with values of now');
select pg_temp.sample('depth', pg_temp.t(40), 1, '{"queue": "a"}');
select pg_temp.evaluate(40);
select results_eq($$ select payload ->> 'status', payload -> 'commonLabels' = payload -> 'alerts' -> 0 -> 'labels', payload -> 'commonAnnotations' = payload -> 'alerts' -> 0 -> 'annotations',
		jsonb_array_length(payload -> 'alerts') from meshhook_metrics.alert_notifications order by id desc limit 1 $$,
	$$ values ('resolved', true, true, 1) $$, 'what is resolved alone; one alert has everything in common');
select is((select count(distinct payload ->> 'groupKey') from meshhook_metrics.alert_notifications), 1::bigint, 'all of a rule have one groupKey');
select results_eq('select distinct tenant_id, rule_id, receiver, attempts, next_attempt_at <= clock_timestamp(), delivered_at, dead_at, request_id from meshhook_metrics.alert_notifications',
	$$ values ('11111111-1111-1111-1111-111111111111'::uuid, '33333333-3333-3333-3333-333333333333'::uuid, 'default', 0, true, null::timestamptz, null::timestamptz, null::bigint) $$,
	'it is due at once');

-- When
select is(pg_temp.telling('{}', '0=5 10=11 20=12 30=13 40=5 50=5'), 'firing; resolved', 'once when it fires and once when it is resolved');
select is(pg_temp.telling('{"for_duration": "1 minute"}', '0=11 30=11 40=5'), '', 'of what is only pending nothing is told');
select is(pg_temp.telling('{"for_duration": "1 minute", "keep_firing_for": "1 minute"}', '0=11 60=11 70=5 80=11 90=5 150=5'), 'firing; resolved', 'nor that it recovers, and goes back');
select is(pg_temp.telling('{"no_data": "firing"}', '0=- 10=5'), 'firing; resolved', 'it is told of no data');
select is(pg_temp.times('{"repeat_interval": "1 minute"}', '0=11 59.999999=11 60=11 119.999999=11 120=11 150=5 210=5'), '0 60 120 150', 'again each repeat_interval, to the microsecond');
select is(pg_temp.times('{"repeat_interval": "1 minute"}', '0=11 70=11 120=11 130=11'), '0 70 130', 'counted from when it was told of last');
select is(pg_temp.times('{"repeat_interval": null}', '0=11 86400=11 8640000=11'), '0', 'never, where it is null');
select is(pg_temp.times('{}', '0=11 14399=11 14400=11'), '0 14400', 'by default each four hours');
select is(pg_temp.times('{"repeat_interval": "1 minute", "keep_firing_for": "1 hour"}', '0=11 10=5 60=5'), '0 60', 'also while it recovers');
select is(pg_temp.times('{"repeat_interval": "1 minute"}', '0=11 10=- 60=-'), '0 60', 'also through a gap');
select isnt(pg_temp.times('{"repeat_interval": "1 minute"}', '86400=11 0=11 60=11 120=11'), '86400', 'a clock that is set back by a day does not end that for a day');
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"], "repeat_interval": "1 minute"}');
select pg_temp.sample('depth', pg_temp.t(s), case when q = 'b' and s < 30 then 5 else 11 end, jsonb_build_object('queue', q)) from generate_series(0, 90, 10) s, unnest(array['a', 'b']) q;
select pg_temp.evaluate(s) from generate_series(0, 90, 10) s;
select is(pg_temp.told(), 'a firing; a firing b firing; a firing b firing', 'a group that begins to fire is told of with those that fire already, and all are repeated together');
select is((select string_agg(pg_temp.seconds(notified_at), ' ') from meshhook_metrics.alerts), '90 90', 'so that they stay together');
select pg_temp.clear();
select pg_temp.rule();
select pg_temp.go('0=11');
update meshhook_metrics.alert_rules set enabled = false;
select pg_temp.go('10=11');
select is(pg_temp.told(), 'firing; resolved', 'of a rule that is disabled it is told that it is resolved');
update meshhook_metrics.alert_rules set enabled = true;
select pg_temp.go('20=11');
delete from meshhook_metrics.alert_rules;
select pg_temp.go('30=11');
select is(pg_temp.told(), 'firing; resolved; firing; resolved', 'and of one that is deleted');
-- Between two statements of an evaluation, as another session can
select pg_temp.clear();
select pg_temp.rule();
create function pg_temp.lose_rule() returns trigger
language plpgsql as $$
begin
	delete from meshhook_metrics.alert_rules r where r.id = new.rule_id;
	return null;
end
$$;
create trigger lose_rule after insert on meshhook_metrics.alert_events for each row when (new.state = 'firing') execute function pg_temp.lose_rule();
select pg_temp.sample('depth', pg_temp.t(0), 11);
select meshhook_metrics.evaluate_alerts(pg_temp.t(0));
drop trigger lose_rule on meshhook_metrics.alert_events;
select is((select state from meshhook_metrics.alerts), 'firing', 'of one that is deleted when its firing is written, and not yet told of');
select pg_temp.go('10=11 20=11');
select is(pg_temp.events(), '0 firing, 10 resolved(deleted)', 'the next evaluation resolves it');
select is(pg_temp.told(), '', 'and of neither anybody is told');

-- Silences
create function pg_temp.silence(seconds numeric) returns void
language sql as $$
	update meshhook_metrics.alert_rules set silenced_until = pg_temp.t(seconds)
$$;
select is(pg_temp.times(jsonb_build_object('silenced_until', pg_temp.t(30)), '0=11 29.999999=11 30=11 40=11'), '30', 'what fires in a silence is told of when that ends');
select is(pg_temp.events(), '0 firing', 'its state does not wait');
select is((select payload #>> '{alerts,0,startsAt}' from meshhook_metrics.alert_notifications), '2024-01-16T10:00:00.000000Z', 'it fired when it did');
select is(pg_temp.telling(jsonb_build_object('silenced_until', pg_temp.t(30)), '0=11 10=5 20=11 29=5 40=5'), '', 'what begins and ends in a silence is not told of');
select is(pg_temp.telling('{"silenced_until": "infinity"}', '0=11 86400=11'), '', 'a silence can be without end');
select pg_temp.clear();
select pg_temp.rule('{"repeat_interval": "1 minute"}');
select pg_temp.go('0=11');
select pg_temp.silence(200);
select pg_temp.go('60=11 120=11');
select is(pg_temp.told(), 'firing', 'nothing is repeated in a silence');
select pg_temp.go('130=5');
select is(pg_temp.told(), 'firing; resolved', 'but what was told of before, and is over, is told at once');
select pg_temp.go('140=11 150=5');
select is(pg_temp.told(), 'firing; resolved', 'what comes after that is not');
select pg_temp.go('160=11 200=11');
select is(pg_temp.told(), 'firing; resolved; firing', 'until the silence ends');
select pg_temp.silence(210);
select pg_temp.go('205=11');
update meshhook_metrics.alert_rules set silenced_until = null;
select pg_temp.go('206=11 270=11');
select is(pg_temp.told(), 'firing; resolved; firing; firing', 'one that is taken back before changes nothing of when it is repeated');
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"]}');
select pg_temp.sample('depth', pg_temp.t(s), case when q = 'b' and s > 0 then 5 else 11 end, jsonb_build_object('queue', q)) from generate_series(0, 10, 10) s, unnest(array['a', 'b']) q;
select pg_temp.evaluate(0);
select pg_temp.silence(100);
select pg_temp.evaluate(10);
select is(pg_temp.told(), 'a firing b firing; b resolved', 'what goes on firing is silenced, and not told of with what is resolved');

-- To whom
select pg_temp.clear();
insert into meshhook_metrics.alert_receivers (tenant_id, name, url) values (:'a', 'ops', null), (:'a', 'pager', 'https://example.org/pager'), (:'b', 'other', null);
select is(pg_temp.telling('{}', '0=11 10=5'), 'ops firing; ops resolved; pager firing; pager resolved', 'each of the tenant''s receivers is told');
select set_eq($$ select receiver, payload ->> 'receiver' from meshhook_metrics.alert_notifications $$, $$ values ('ops', 'ops'), ('pager', 'pager') $$, 'by its name');
select is(pg_temp.telling(jsonb_build_object('tenant_id', '00000000-0000-0000-0000-000000000000', 'no_data', 'firing'), '0=-'), 'firing', 'a tenant without receivers has one, default');
delete from meshhook_metrics.alert_receivers;

-- More than a hundred: all that a rule can have fires, and others of it have gone
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"]}');
select pg_temp.sample('depth', pg_temp.t(0), 11, jsonb_build_object('queue', q)) from generate_series(1, 100) q;
select pg_temp.evaluate(0);
create temp view alerts_told as
select n.id, n.payload ->> 'status' as status, a ->> 'status' as alert_status, a -> 'labels' ->> 'queue' as queue, a ->> 'fingerprint' as fingerprint, n.payload ->> 'groupKey' as group_key
from meshhook_metrics.alert_notifications n, jsonb_array_elements(n.payload -> 'alerts') a;
select results_eq('select count(*), status, alert_status from alerts_told group by id, status, alert_status order by id', $$ values (100::bigint, 'firing', 'firing') $$, 'a hundred alerts are one notification');
delete from meshhook_metrics.alert_notifications;
delete from meshhook_metrics.series where (labels ->> 'queue')::int <= 60;
select pg_temp.sample('depth', pg_temp.t(10), 11, jsonb_build_object('queue', q)) from generate_series(61, 160) q;
select is(pg_temp.evaluate(10), 120::bigint, 'many are resolved, and as many fire');
select results_eq('select status, alert_status, count(*) from alerts_told group by id, status, alert_status order by id, alert_status desc',
	$$ values ('firing', 'resolved', 60::bigint), ('firing', 'firing', 40), ('firing', 'firing', 60) $$, 'more than a hundred alerts are several notifications; what is resolved comes first');
select results_eq('select count(*), count(distinct queue), count(distinct fingerprint), count(distinct group_key), count(*) filter (where alert_status = ''resolved'' and queue::int <= 60) from alerts_told',
	'values (160::bigint, 160::bigint, 160::bigint, 1::bigint, 60::bigint)', 'none is lost, or told twice');

-- What nobody takes gives way to what is newer
create function pg_temp.outbox() returns text
language sql as $$
	select string_agg(concat_ws(' ', n.payload ->> 'status', case when n.attempts > 0 then 'taken' end, case when n.dead_at is not null then 'dead' end), ', ' order by n.id)
	from meshhook_metrics.alert_notifications n
$$;
-- As if each evaluation were a transaction of its own
create function pg_temp.later() returns void
language sql as $$
	update meshhook_metrics.alert_notifications set created_at = created_at - interval '1 minute'
$$;
select pg_temp.clear();
select pg_temp.rule('{"repeat_interval": "1 minute"}');
select pg_temp.rule(jsonb_build_object('tenant_id', :'b', 'repeat_interval', null));
select pg_temp.sample('depth', pg_temp.t(0), 11, tenant => :'b');
select pg_temp.go('0=11');
select pg_temp.later();
select pg_temp.go('60=11');
select is((select string_agg(left(tenant_id::text, 1) || coalesce(' ' || last_error, ''), ', ' order by tenant_id, id) from meshhook_metrics.alert_notifications),
	'1 gave way to a newer notification before it was taken, 1, 2', 'what only fires gives way to the next that does, of the same rule');
delete from meshhook_metrics.alert_notifications where tenant_id = :'b';
select is(pg_temp.outbox(), 'firing dead, firing', 'and is dead');
update meshhook_metrics.alert_notifications set attempts = 1 where dead_at is null;
select pg_temp.later();
select pg_temp.go('120=11');
select is(pg_temp.outbox(), 'firing dead, firing taken, firing', 'what is taken does not');
select pg_temp.later();
select pg_temp.go('130=5');
select pg_temp.later();
select pg_temp.go('140=11');
select is(pg_temp.outbox(), 'firing dead, firing taken, firing, resolved, firing', 'nor what something resolved comes after, nor that');
select pg_temp.clear();
select pg_temp.rule('{"repeat_interval": "1 minute"}');
insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload, attempts)
select r.tenant_id, r.id, receiver, '{"status": "resolved", "alerts": [{"status": "resolved"}]}', case when n = 2 then 1 else 0 end
from meshhook_metrics.alert_rules r, unnest(array['default', 'other']) receiver, generate_series(1, 22) n
order by n;
select pg_temp.go('0=11');
select is((select string_agg(distinct format('%s: %s', n.receiver, n.dead), ', ') from (
		select receiver, dead_at is not null as is_dead, string_agg(no::text, ' ') filter (where dead_at is not null) over (partition by receiver order by no rows between unbounded preceding and unbounded following) as dead
		from (select *, row_number() over (partition by receiver order by id) as no from meshhook_metrics.alert_notifications) n) n),
	'default: 1 3, other: 1', 'beyond twenty of a rule and receiver the oldest give way, but what is taken');
-- Of what has begun by a clock that was set back since
select pg_temp.clear(), pg_temp.rule();
select pg_temp.sample('depth', pg_temp.t(100000), 11);
select pg_temp.evaluate(100000);
select pg_temp.sample('depth', pg_temp.t(500), 5);
select pg_temp.evaluate(500);
select results_eq($$
	select a ->> 'status', a ->> 'startsAt', a ->> 'endsAt'
	from meshhook_metrics.alert_notifications n, jsonb_array_elements(n.payload -> 'alerts') a
	order by n.id $$, $$ values
	('firing', '2024-01-17T13:46:40.000000Z', '0001-01-01T00:00:00Z'),
	('resolved', '2024-01-16T10:08:20.000000Z', '2024-01-16T10:08:20.000000Z') $$, 'no alert is told to have begun after its end');

select * from finish();
rollback;
