-- What is active when its rule, or the series that it is about, are changed or go: it
-- ends once, and says why
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

-- A rule that is firing, and one that is pending, to which something happens at 40
-- seconds; what was told of it then and at 50 seconds
create function pg_temp.change(statement text, columns jsonb default '{}', depth text default '11') returns text
language plpgsql as $$
declare
	told text := '';
begin
	for kind in 0 .. 1 loop
		perform pg_temp.clear();
		perform pg_temp.rule(columns || case kind when 0 then '{}' else '{"for_duration": "1 hour"}' end::jsonb);
		perform pg_temp.go('20=11 30=11');
		execute statement;
		perform pg_temp.go(format('40=%s 50=%1$s', depth));
		told := told || case kind when 0 then '' else '; ' end || pg_temp.events();
		if (select count(*) from meshhook_metrics.alert_events where state = 'resolved')
			<> (select count(*) from meshhook_metrics.alert_events e join meshhook_metrics.alert_events f on f.id = e.fired_event_id and f.state = 'firing' and f.fingerprint = e.fingerprint)
		then
			raise exception 'what is resolved had not fired';
		end if;
	end loop;
	return told;
end
$$;

select is(pg_temp.change('select'), '20 firing; 20 pending', 'while nothing is changed, nothing ends');

-- The rule goes
select is(pg_temp.change('update meshhook_metrics.alert_rules set enabled = false'), '20 firing, 40 resolved(disabled); 20 pending, 40 inactive(disabled)',
	'a rule that is disabled');
select is(pg_temp.change('delete from meshhook_metrics.alert_rules'), '20 firing, 40 resolved(deleted); 20 pending, 40 inactive(deleted)', 'that is deleted');
select is(pg_temp.change('update meshhook_metrics.alert_rules set enabled = false', '{"keep_firing_for": "1 hour"}'),
	'20 firing, 40 resolved(disabled); 20 pending, 40 inactive(disabled)', 'keep_firing_for or not');
select is(pg_temp.change('delete from meshhook_metrics.alert_rules', '{"keep_firing_for": "1 hour"}'),
	'20 firing, 40 resolved(deleted); 20 pending, 40 inactive(deleted)', 'either way');
select is(pg_temp.change('update meshhook_metrics.alert_rules set enabled = false', '{}', '-'), '20 firing, 40 resolved(disabled); 20 pending, 40 inactive(disabled)',
	'also while there is no data');
select is(pg_temp.change('delete from meshhook_metrics.alert_rules', '{"no_data": "firing"}', '-'), '20 firing, 40 resolved(deleted); 20 pending, 40 inactive(deleted)',
	'whatever is said of that');
select pg_temp.clear();
select pg_temp.rule('{"severity": "critical", "annotations": {"summary": "{{ value }}"}}');
select pg_temp.go('0=11');
delete from meshhook_metrics.alert_rules;
select pg_temp.go('10=11');
select results_eq('select name, severity, labels, annotations, value, threshold, pg_temp.seconds(started_at) from meshhook_metrics.alert_events where state = ''resolved''',
	$$ values ('deep', 'critical', '{}'::jsonb, '{"summary": "11"}'::jsonb, null::float8, null::float8, '0') $$, 'what is left of a deleted rule is what its alert had');
select is_empty('select from meshhook_metrics.alerts', 'and nothing in the end');

-- And comes back
select is(pg_temp.change('update meshhook_metrics.alert_rules set enabled = false; update meshhook_metrics.alert_rules set enabled = true'),
	'20 firing; 20 pending', 'what nobody has evaluated in between was not disabled');
select pg_temp.clear();
select pg_temp.rule();
select pg_temp.go('0=11');
update meshhook_metrics.alert_rules set enabled = false;
select pg_temp.go('10=11 20=11');
update meshhook_metrics.alert_rules set enabled = true;
select pg_temp.go('30=11 40=5');
select is(pg_temp.events(), '0 firing, 10 resolved(disabled), 30 firing, 40 resolved', 'a rule that is enabled again is evaluated again');
select is((select count(distinct fingerprint) from meshhook_metrics.alert_events), 1::bigint, 'and its alert is the same');

-- What it compares
select is(pg_temp.change('update meshhook_metrics.alert_rules set threshold = 12'), '20 firing, 40 resolved; 20 pending, 40 inactive', 'another threshold holds at once');
select is(pg_temp.change('update meshhook_metrics.alert_rules set threshold = 5'), '20 firing; 20 pending', 'and changes nothing where the comparison goes on to hold');
select is(pg_temp.change('update meshhook_metrics.alert_rules set threshold = 12', '{"keep_firing_for": "5 seconds"}'), '20 firing, 50 resolved; 20 pending, 40 inactive',
	'what fires is kept as for a value');
select is(pg_temp.change('update meshhook_metrics.alert_rules set threshold = 12, recovery_threshold = 8'), '20 firing; 20 pending, 40 inactive',
	'also by a recovery_threshold that is new');
select is(pg_temp.change('update meshhook_metrics.alert_rules set recovery_threshold = null', '{"recovery_threshold": 8}', '9'),
	'20 firing, 40 resolved; 20 pending, 40 inactive', 'or is no more');
select is(pg_temp.change('update meshhook_metrics.alert_rules set comparison = ''<'''), '20 firing, 40 resolved; 20 pending, 40 inactive', 'the other comparison');
select is(pg_temp.change('update meshhook_metrics.alert_rules set for_duration = ''10 seconds'''), '20 firing; 20 pending, 40 firing', 'a shorter for_duration');
select is(pg_temp.change('update meshhook_metrics.alert_rules set for_duration = ''1 hour'''), '20 firing; 20 pending', 'a longer one is nothing to what fires');
select is(pg_temp.change('update meshhook_metrics.alert_rules set metric = ''no_such''', '{"no_data": "ok"}'),
	'20 firing, 40 resolved(no_data); 20 pending, 40 inactive(no_data)', 'another metric, which has no data');
select pg_temp.clear();
select pg_temp.rule();
select pg_temp.go('0=11');
update meshhook_metrics.alert_rules set threshold = 5, severity = 'info', name = 'deeper', annotations = '{"summary": "{{ value }}"}';
select pg_temp.go('10=11');
select results_eq('select name, severity, annotations from meshhook_metrics.alerts', $$ values ('deeper', 'info', '{}'::jsonb) $$,
	'name and severity are the rule''s of now, the texts those of when it fired');
update meshhook_metrics.alert_rules set threshold = 20;
select pg_temp.go('20=11');
select results_eq('select state, name, severity, annotations, threshold from meshhook_metrics.alert_events order by id',
	$$ values ('firing', 'deep', 'warning', '{}'::jsonb, 10::float8), ('resolved', 'deeper', 'info', '{"summary": "11"}', 20) $$,
	'an event has what the rule was then');

-- Groups
select is(pg_temp.change('update meshhook_metrics.alert_rules set group_by = ''{queue}'''), '20 firing; 20 pending', 'series without the label are the same group as without group_by');
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"]}');
select pg_temp.rule('{"group_by": ["queue"], "name": "later", "for_duration": "1 hour"}');
select pg_temp.sample('depth', pg_temp.t(s), 11, labels)
from generate_series(0, 50, 10) s, unnest(array['{"queue": "a", "host": "1"}', '{"queue": "b", "host": "1"}']::jsonb[]) labels;
select pg_temp.evaluate(0);
update meshhook_metrics.alert_rules set group_by = '{host}';
select is(pg_temp.evaluate(10), 6::bigint, 'with another group_by');
select bag_eq('select name, labels, state, reason from meshhook_metrics.alert_events where pg_temp.seconds(at) = ''10''',
	$$ values ('deep', '{"queue": "a"}'::jsonb, 'resolved', 'group_gone'), ('deep', '{"queue": "b"}', 'resolved', 'group_gone'), ('deep', '{"host": "1"}', 'firing', 'threshold'),
		('later', '{"queue": "a"}', 'inactive', 'group_gone'), ('later', '{"queue": "b"}', 'inactive', 'group_gone'), ('later', '{"host": "1"}', 'pending', 'threshold') $$,
	'the groups that were are gone, and others there');
update meshhook_metrics.alert_rules set group_by = null;
select is(pg_temp.evaluate(20), 4::bigint, 'without group_by, too');
select bag_eq('select name, labels, state from meshhook_metrics.alerts', $$ values ('deep', '{}'::jsonb, 'firing'), ('later', '{}', 'pending') $$, 'one alert is left of each rule');
update meshhook_metrics.alert_rules set labels = '{"queue": "a"}', group_by = '{queue}';
select pg_temp.evaluate(30);
update meshhook_metrics.alert_rules set labels = '{"queue": "b"}', keep_firing_for = '1 hour';
select pg_temp.evaluate(40);
select bag_eq('select name, labels, state, reason from meshhook_metrics.alert_events where pg_temp.seconds(at) = ''40''',
	$$ values ('deep', '{"queue": "a"}'::jsonb, 'resolved', 'group_gone'), ('deep', '{"queue": "b"}', 'firing', 'threshold'),
		('later', '{"queue": "a"}', 'inactive', 'group_gone'), ('later', '{"queue": "b"}', 'pending', 'threshold') $$,
	'series that other labels leave out: their group is gone, and is not kept firing');

-- Series
delete from meshhook_metrics.series where labels ->> 'queue' = 'b';
select pg_temp.evaluate(50);
select bag_eq('select name, labels, state, reason from meshhook_metrics.alert_events where pg_temp.seconds(at) = ''50''',
	$$ values ('deep', '{"queue": "b"}'::jsonb, 'resolved', 'group_gone'), ('later', '{"queue": "b"}', 'inactive', 'group_gone') $$,
	'a group whose series were deleted is gone, also if it was the only one');
select is_empty('select from meshhook_metrics.alerts', 'nothing is left of it');
select is(pg_temp.change('delete from meshhook_metrics.series', '{}', '-'), '20 firing; 20 pending', 'without group_by it is as if there were no data: with keep_last nothing ends');
select is(pg_temp.change('delete from meshhook_metrics.series', '{"no_data": "ok"}', '-'), '20 firing, 40 resolved(no_data); 20 pending, 40 inactive(no_data)', 'with ok it does');
select is(pg_temp.change('delete from meshhook_metrics.series', '{"no_data": "firing"}', '-'), '20 firing; 20 pending, 40 firing(no_data)', 'with firing it begins');

-- The kind of a metric: its newest series decides
select pg_temp.clear();
select pg_temp.rule('{"aggregate": "avg", "group_by": ["queue"], "no_data": "ok"}');
select pg_temp.sample('depth', pg_temp.t(s), 11, '{"queue": "a"}') from generate_series(0, 20, 10) s;
select pg_temp.evaluate(0);
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values (:'a', 'depth', 'histogram', '{"queue": "b"}');
select pg_temp.evaluate(10);
select results_eq('select labels, state, reason from meshhook_metrics.alert_events order by id', $$ values ('{"queue": "a"}'::jsonb, 'firing', 'threshold'), ('{"queue": "a"}', 'resolved', 'group_gone') $$,
	'a group of a kind that the metric is no more is gone');

-- Of many rules each ends for itself
select pg_temp.clear();
select pg_temp.rule(jsonb_build_object('name', 'rule ' || n)) from generate_series(1, 20) n;
select pg_temp.go('0=11');
delete from meshhook_metrics.alert_rules where substr(name, 6)::int between 1 and 5;
update meshhook_metrics.alert_rules set enabled = false where substr(name, 6)::int between 6 and 10;
update meshhook_metrics.alert_rules set threshold = 11 where substr(name, 6)::int between 11 and 15;
select pg_temp.go('10=11 20=11');
select results_eq($$ select (substr(name, 6)::int + 4) / 5, state, reason, count(*) from meshhook_metrics.alert_events where pg_temp.seconds(at) <> '0' group by 1, 2, 3 order by 1 $$,
	$$ values (1, 'resolved', 'deleted', 5::bigint), (2, 'resolved', 'disabled', 5), (3, 'resolved', 'threshold', 5) $$, 'many at once');
select is((select count(*) from meshhook_metrics.alerts), 5::bigint, 'and the others go on');
select * from finish();
rollback;
