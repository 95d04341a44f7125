-- What becomes of an alert as its value comes and goes: every transition, and when
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
-- The answers must not depend on where the session is
set local timezone = 'America/St_Johns';
set local datestyle = 'German';

-- The comparison
select is(
	(select string_agg(comparison || ' ' || value || ': ' || pg_temp.play(jsonb_build_object('comparison', comparison), '0=' || value), E'\n' order by i, value)
	from unnest(array['>', '>=', '<', '<=', '=', '<>']) with ordinality c (comparison, i), unnest(array[9, 10, 11]) value),
	E'> 9: \n> 10: \n> 11: 0 firing\n'
	'>= 9: \n>= 10: 0 firing\n>= 11: 0 firing\n'
	'< 9: 0 firing\n< 10: \n< 11: \n'
	'<= 9: 0 firing\n<= 10: 0 firing\n<= 11: \n'
	'= 9: \n= 10: 0 firing\n= 11: \n'
	'<> 9: 0 firing\n<> 10: \n<> 11: 0 firing', 'each comparison, below, at and above the threshold');
select is(pg_temp.play('{"threshold": 0.1}', '0=0.1 10=0.10000000000000002'), '10 firing', 'a threshold is compared exactly');
select is(pg_temp.play('{"threshold": 0, "comparison": "<"}', '0=-1e-300 10=0 20=-0'), '0 firing, 10 resolved', 'also around zero');
select is(pg_temp.play('{"threshold": -5}', '0=-6 10=-4.9 20=-5'), '10 firing, 20 resolved', 'and below it');

-- Without further options
select is(pg_temp.play('{}', '0=5 10=11 20=12 30=10 40=5'), '10 firing, 30 resolved', 'fires when the comparison holds, is resolved when it ceases to');
select is(pg_temp.play('{}', '0=11 10=10 20=11 30=10 40=11'), '0 firing, 10 resolved, 20 firing, 30 resolved, 40 firing', 'each swing counts');

-- for_duration
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 30=11 60=11 90=11'), '0 pending, 60 firing', 'is pending until it has held for for_duration');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 59.999999=11'), '0 pending', 'not a microsecond shorter');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 59.999999=11 60=11'), '0 pending, 60 firing', 'and not longer');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 50=10 60=11 110=11 120=11'), '0 pending, 50 inactive, 60 pending, 120 firing',
	'what ceases to hold before is inactive, and begins anew');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 60=10'), '0 pending, 60 inactive', 'also in the moment in which it would fire');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 300=11'), '0 pending, 300 firing', 'fires late when it is evaluated late');
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 60=11 70=10 80=11 140=11'), '0 pending, 60 firing, 70 resolved, 80 pending, 140 firing',
	'is pending again after it was resolved');
select is(pg_temp.play('{"for_duration": "1 microsecond"}', '0=11 0.000001=11'), '0 pending, 0.000001 firing', 'the shortest for_duration');

-- keep_firing_for
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '0=11 10=10 40=10 70=10'), '0 firing, 70 resolved',
	'keeps firing until it has ceased to hold for keep_firing_for');
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '0=11 10=10 69.999999=10'), '0 firing', 'not a microsecond shorter');
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '0=11 10=10 69.999999=10 70=10'), '0 firing, 70 resolved', 'and not longer');
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '0=11 10=10 60=11 70=10 120=10 130=10'), '0 firing, 130 resolved',
	'goes back to firing without a second event, and recovers from the beginning');
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '0=11 10=10 70=11 80=10'), '0 firing', 'also in the moment in which it would be resolved');
select is(pg_temp.play('{"for_duration": "20 seconds", "keep_firing_for": "1 minute"}', '0=11 20=11 30=5 50=11 60=5 120=5 130=11 150=11'),
	'0 pending, 20 firing, 120 resolved, 130 pending, 150 firing', 'what recovers and goes back need not hold for for_duration again');
select is(pg_temp.play('{"for_duration": "1 minute", "keep_firing_for": "1 minute"}', '0=11 10=10 20=10'), '0 pending, 10 inactive',
	'what is pending does not keep');
select pg_temp.clear();
select pg_temp.rule('{"keep_firing_for": "1 minute"}');
select pg_temp.go('0=11 10=10');
select results_eq('select state, pg_temp.seconds(since), pg_temp.seconds(started_at), pg_temp.seconds(recovering_since), value from meshhook_metrics.alerts',
	$$ values ('firing', '0', '0', '10', 10::float8) $$, 'while it recovers it is firing, and says since when it recovers');
select pg_temp.go('20=15');
select results_eq('select state, pg_temp.seconds(since), pg_temp.seconds(started_at), pg_temp.seconds(recovering_since), value from meshhook_metrics.alerts',
	$$ values ('firing', '0', '0', null::text, 15::float8) $$, 'and back again it does not');

-- recovery_threshold
select is(pg_temp.play('{"recovery_threshold": 8}', '0=11 10=10 20=9 30=11 40=8.5 50=11 60=8 70=9 80=11'), '0 firing, 60 resolved, 80 firing',
	'with recovery_threshold swings around the threshold are one alert');
select is(pg_temp.play('{"recovery_threshold": 8}', '0=9 10=10 20=11 30=8.0000001 40=8 50=9'), '20 firing, 40 resolved',
	'which begins at the threshold, and ends at the other one');
select is(pg_temp.play('{"comparison": ">=", "recovery_threshold": 8}', '0=9.9 10=10 20=8 30=7.9 40=8'), '10 firing, 30 resolved', 'for >=');
select is(pg_temp.play('{"comparison": "<", "recovery_threshold": 12}', '0=10 10=9 20=10 30=11.9 40=12 50=11'), '10 firing, 40 resolved', 'for <');
select is(pg_temp.play('{"comparison": "<=", "recovery_threshold": 12}', '0=10.1 10=10 20=12 30=12.1 40=11'), '10 firing, 30 resolved', 'for <=');
select is(pg_temp.play('{"recovery_threshold": 10}', '0=11 10=10 20=11'), '0 firing, 10 resolved, 20 firing', 'one like the threshold is none');
select is(pg_temp.play('{"recovery_threshold": 8, "for_duration": "20 seconds"}', '0=11 10=9 20=11 30=9 40=11 60=9'),
	'0 pending, 10 inactive, 20 pending, 30 inactive, 40 pending, 60 inactive', 'what is pending is held to the threshold');
select is(pg_temp.play('{"recovery_threshold": 8, "keep_firing_for": "20 seconds"}', '0=11 10=8 20=9 30=8 40=8 50=8'), '0 firing, 50 resolved',
	'what recovers is firing again as soon as it is beyond recovery_threshold');

-- What an event and an alert say
select pg_temp.clear();
select pg_temp.rule('{"for_duration": "20 seconds", "recovery_threshold": 8, "severity": "critical", "annotations": {"summary": "{{ value }} > {{ threshold }}"}}');
select pg_temp.go('0=11');
select results_eq($$ select tenant_id, name, severity, labels, annotations, state, reason, value, pg_temp.seconds(since), pg_temp.seconds(started_at),
		recovering_since, no_data_since, fired_event_id, notified_at from meshhook_metrics.alerts $$,
	$$ values ('11111111-1111-1111-1111-111111111111'::uuid, 'deep', 'critical', '{}'::jsonb, '{"summary": "11 > 10"}'::jsonb, 'pending', 'threshold', 11::float8,
		'0', '0', null::timestamptz, null::timestamptz, null::bigint, null::timestamptz) $$, 'what is pending is a row');
select pg_temp.go('10=13 20=12');
select results_eq($$ select a.state, a.value, pg_temp.seconds(a.since), pg_temp.seconds(a.started_at), pg_temp.seconds(a.notified_at), e.state, pg_temp.seconds(e.at)
		from meshhook_metrics.alerts a join meshhook_metrics.alert_events e on e.id = a.fired_event_id $$,
	$$ values ('firing', 12::float8, '20', '0', '20', 'firing', '20') $$, 'what fires knows the event with which it did');
select pg_temp.go('30=14 40=7');
select results_eq($$ select e.state, e.reason, e.value, e.threshold, pg_temp.seconds(e.at), pg_temp.seconds(e.started_at), e.annotations, f.state
		from meshhook_metrics.alert_events e left join meshhook_metrics.alert_events f on f.id = e.fired_event_id order by e.id $$,
	$$ values ('pending', 'threshold', 11::float8, 10::float8, '0', '0', '{"summary": "11 > 10"}'::jsonb, null),
		('firing', 'threshold', 12, 10, '20', '0', '{"summary": "12 > 10"}', null),
		('resolved', 'threshold', 7, 10, '40', '0', '{"summary": "7 > 10"}', 'firing') $$,
	'an event has its value and time, when it began, and the one that is resolved with which it had fired');
select results_eq('select count(distinct fingerprint), count(distinct name), count(distinct severity), count(distinct tenant_id) from meshhook_metrics.alert_events',
	'values (1::bigint, 1::bigint, 1::bigint, 1::bigint)', 'all are of one alert');
select is_empty('select from meshhook_metrics.alerts', 'nothing is left of it');
select pg_temp.go('50=11 60=9');
select results_eq('select state, fired_event_id from meshhook_metrics.alert_events order by id offset 3', $$ values ('pending', null::bigint), ('inactive', null) $$,
	'what was pending has not fired, and is not resolved');
select throws_ok($$ insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at, fired_event_id)
		select rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at, fired_event_id
		from meshhook_metrics.alert_events where state = 'resolved' $$,
	'23505', null, 'nobody resolves it a second time');

-- Groups
create function pg_temp.depths(seconds numeric, variadic depths float8[]) returns void
language sql as $$
	select pg_temp.sample('depth', pg_temp.t(seconds), d, jsonb_build_object('queue', chr(96 + i::int), 'host', 'h' || i))
	from unnest(depths) with ordinality u (d, i)
	where d is not null
	order by i;
	select pg_temp.evaluate(seconds);
$$;
create temp view by_queue as
select pg_temp.seconds(at) as at, labels ->> 'queue' as queue, state from meshhook_metrics.alert_events order by id;
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"], "for_duration": "20 seconds"}');
select pg_temp.depths(0, 11, 5, 11);
select pg_temp.depths(10, 11, 11, 5);
select pg_temp.depths(20, 11, 11, 11);
select pg_temp.depths(30, 5, 11, 11);
select pg_temp.depths(40, 5, 11, 11);
select bag_eq('select * from by_queue', $$ values ('0', 'a', 'pending'), ('0', 'c', 'pending'), ('10', 'b', 'pending'), ('10', 'c', 'inactive'),
	('20', 'a', 'firing'), ('20', 'c', 'pending'), ('30', 'a', 'resolved'), ('30', 'b', 'firing'), ('40', 'c', 'firing') $$,
	'each group has an alert of its own, with its own times');
select is((select count(distinct (labels, fingerprint))::text || '/' || count(distinct fingerprint) from meshhook_metrics.alert_events), '3/3', 'and its fingerprint');
select bag_eq('select labels from meshhook_metrics.alerts', $$ values ('{"queue": "b"}'::jsonb), ('{"queue": "c"}') $$, 'and the labels of group_by only');

select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue", "zone"]}');
select pg_temp.sample('depth', pg_temp.t(0), 11, labels)
from unnest(array['{}', '{"queue": "a"}', '{"zone": "z", "host": "1"}', '{"queue": "a", "zone": "z"}', '{"queue": ""}']::jsonb[]) labels;
select pg_temp.sample('depth', pg_temp.t(0), 6, labels)
from unnest(array['{"queue": "b", "host": "1"}', '{"queue": "b", "host": "2"}', '{"queue": "c"}']::jsonb[]) labels;
select is(pg_temp.evaluate(0), 6::bigint, 'series without a label of group_by are a group without it');
select bag_eq('select labels, value from meshhook_metrics.alerts',
	$$ values ('{}'::jsonb, 11::float8), ('{"queue": "a"}', 11), ('{"zone": "z"}', 11), ('{"queue": "a", "zone": "z"}', 11), ('{"queue": ""}', 11), ('{"queue": "b"}', 12) $$,
	'an empty label is another one than none; the series of a group are taken together');

-- Fingerprints
create temp table fingerprints as
select labels, fingerprint from meshhook_metrics.alerts;
update meshhook_metrics.alert_rules set name = 'called otherwise', threshold = 9, group_by = '{zone,queue}';
select is(pg_temp.evaluate(5), 0::bigint, 'renaming a rule changes no alert, nor does the order of group_by');
select pg_temp.evaluate(60);
update meshhook_metrics.alert_rules set threshold = 1000;
select pg_temp.sample('depth', pg_temp.t(70), case when labels = '{"queue": "c"}' then 6 else 11 end, labels)
from (select distinct labels from meshhook_metrics.series) s;
select pg_temp.evaluate(70);
update meshhook_metrics.alert_rules set threshold = 9;
select is(pg_temp.evaluate(70), 6::bigint, 'they were resolved, and fire again');
select bag_eq('select labels, fingerprint from meshhook_metrics.alerts', 'table fingerprints', 'with the fingerprints that they had');
select set_eq('select name from meshhook_metrics.alerts', array['called otherwise'], 'and the name that the rule has now');
select ok(bool_and(fingerprint ~ '^[0-9a-f]{32}$'), 'of 32 hexadecimal digits') from fingerprints;
select pg_temp.rule('{"name": "twin", "group_by": ["queue", "zone"]}');
select pg_temp.evaluate(71);
select is((select count(distinct fingerprint) from meshhook_metrics.alerts), 12::bigint, 'another rule with the same labels has others');

-- A clock that goes back
select is(pg_temp.play('{"for_duration": "1 minute"}', '100=11 50=11 109=11 110=11'), '100 pending, 110 firing',
	'when the clock is set back, for_duration is counted from where it is now');
select is(pg_temp.play('{"keep_firing_for": "1 minute"}', '90=11 100=10 50=10 109=10 110=10'), '90 firing, 110 resolved', 'and keep_firing_for');
select is(pg_temp.play('{}', '86400=11 0=11 10=10 20=11'), '86400 firing, 10 resolved, 20 firing', 'states go on');
select ok(bool_and(e.started_at <= e.at), 'nothing begins after it happens') from meshhook_metrics.alert_events e;
select is(pg_temp.play('{"for_duration": "1 minute"}', '0=11 86400=11 86410=5'), '0 pending, 86400 firing, 86410 resolved', 'a jump ahead is a long time');

-- What is returned, and noted
select pg_temp.clear();
select is(pg_temp.evaluate(0), 0::bigint, 'without rules there is nothing to do');
select results_eq('select pg_temp.seconds(evaluated_at), rules, rules_failing from meshhook_metrics.alert_state', $$ values ('0', 0::bigint, 0::bigint) $$, 'but it is noted');
select pg_temp.rule(jsonb_build_object('name', n, 'threshold', n)) from generate_series(1, 5) n;
select pg_temp.rule('{"name": "off", "enabled": false, "threshold": 0}');
select pg_temp.sample('depth', pg_temp.t(0), 3.5);
select is(pg_temp.evaluate(0), 3::bigint, 'returned is how many alerts changed');
select results_eq('select pg_temp.seconds(evaluated_at), rules, rules_failing from meshhook_metrics.alert_state', $$ values ('0', 5::bigint, 0::bigint) $$, 'noted is how many rules there are that are enabled');
select throws_ok('select meshhook_metrics.evaluate_alerts(null)', '22004', 'at is null', 'a time has to be given, or none');
select throws_ok($$ select meshhook_metrics.evaluate_alerts('infinity') $$, '22008', 'at is infinity', 'and has to be one');
select pg_temp.sample('depth', now(), 4.5);
select is(meshhook_metrics.evaluate_alerts(), 1::bigint, 'without one it is now');
select is((select evaluated_at from meshhook_metrics.alert_state), now(), 'of the transaction');
select * from finish();
rollback;
