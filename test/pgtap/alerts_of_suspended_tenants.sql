-- What one tenant's rules cost does not hold up the others: tenants are evaluated apart,
-- left alone for a while, and have at most a thousand active alerts
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

create function pg_temp.states() returns text
language sql as $$
	select coalesce(string_agg(left(a.tenant_id::text, 1) || ' ' || a.state || ' ' || a.value, ', ' order by a.tenant_id), '')
	from meshhook_metrics.alerts a
$$;
create function pg_temp.samples(seconds numeric, value float8) returns void
language sql as $$
	select pg_temp.sample('depth', pg_temp.t(seconds), value, tenant => tenant)
	from unnest(array['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222']::uuid[]) tenant
$$;

-- Some tenants
select pg_temp.rule(jsonb_build_object('tenant_id', tenant, 'repeat_interval', '1 minute')) from unnest(array[:'a', :'b']) tenant;
select pg_temp.rule(jsonb_build_object('tenant_id', tenant, 'name', 'bad', 'metric', 'runs_total', 'aggregate', 'p95')) from unnest(array[:'a', :'b']) tenant;
select pg_temp.sample('runs_total', pg_temp.t(0), 1, tenant => tenant::uuid) from unnest(array[:'a', :'b']) tenant;
select pg_temp.samples(0, 11);
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(0), array[:'b']::uuid[]), 1::bigint, 'the rules of one tenant are evaluated');
select is(pg_temp.states(), '2 firing 11', 'and of no other');
select set_eq('select tenant_id, last_error from meshhook_metrics.alert_rules where last_error is not null',
	format('values (%L::uuid, %L)', :'b', '"runs_total" is a counter, which has no p95'), 'only they can fail');
select is((select string_agg(distinct left(tenant_id::text, 1), '') from meshhook_metrics.alert_notifications), '2', 'only of them is told');
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(0), '{}'), 0::bigint, 'of no tenants none is');
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(0), array[:'a', :'b']::uuid[]), 1::bigint, 'there can be several');
select is(pg_temp.states(), '1 firing 11, 2 firing 11', 'each with its own');
select pg_temp.samples(70, 12);
delete from meshhook_metrics.alert_rules where name = 'bad';
select meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(70), array[:'a']::uuid[]);
select is(pg_temp.states(), '1 firing 12, 2 firing 11', 'alerts of the others stay as they are');
select is((select string_agg(left(tenant_id::text, 1), '' order by id) from meshhook_metrics.alert_notifications), '211', 'nothing is repeated of them');
delete from meshhook_metrics.alert_rules;
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(70), array[:'a']::uuid[]), 1::bigint, 'of deleted rules');
select is(pg_temp.states(), '2 firing 11', 'the tenant''s alerts end');
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(70), null), 1::bigint, 'null is all');
select is(pg_temp.states(), '', 'of whom nothing is left');

-- A suspension
select pg_temp.clear();
select pg_temp.rule(jsonb_build_object('tenant_id', tenant)) from unnest(array[:'a', :'b']) tenant;
select pg_temp.samples(0, 11);
select pg_temp.evaluate(0);
select meshhook_metrics.suspend_alerts(pg_temp.t(10), :'a', 'too slow');
select results_eq('select tenant_id, pg_temp.seconds(until), failures, error from meshhook_metrics.alert_suspensions',
	format('values (%L::uuid, %L, 1, %L)', :'a', '70', 'too slow'), 'a tenant is left alone for a minute');
select results_eq('select tenant_id, last_error, pg_temp.seconds(last_error_at) from meshhook_metrics.alert_rules where last_error is not null',
	format('values (%L::uuid, %L, %L)', :'a', 'the rules of this tenant are not evaluated until 2024-01-16 10:01:10 UTC, since evaluating them failed: too slow', '10'),
	'its rules say so, and why');
select pg_temp.samples(20, 5);
select is(pg_temp.evaluate(20), 1::bigint, 'until then others are evaluated');
select is(pg_temp.states(), '1 firing 11', 'and its alerts stay');
-- Whatever has become of the rule
savepoint changed;
delete from meshhook_metrics.alert_rules where tenant_id = :'a';
select is(pg_temp.evaluate(25), 0::bigint, 'also those of a rule that is deleted');
select is(meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(25), array[:'a']::uuid[]), 0::bigint, 'when it is evaluated apart as well');
select is(pg_temp.evaluate(70), 1::bigint, 'until it is over');
select is(pg_temp.states(), '', 'then they end');
rollback to changed;
savepoint changed;
update meshhook_metrics.alert_rules set repeat_interval = '1 minute';
select pg_temp.evaluate(65);
select is((select count(*) from meshhook_metrics.alert_notifications where tenant_id = :'a'), 1::bigint, 'nor is it told of them again');
rollback to changed;
select pg_temp.samples(69, 5);
select is(pg_temp.evaluate(69.999999), 0::bigint, 'to the microsecond');
select is((select count(*) from meshhook_metrics.alert_rules where last_error is not null), 1::bigint, 'as does what its rules say');
select is(pg_temp.evaluate(70), 1::bigint, 'then it is evaluated again');
select is(pg_temp.states(), '', 'with what has been meanwhile');
select is((select count(*) from meshhook_metrics.alert_rules where last_error is not null), 0::bigint, 'and nothing fails');
select is((select count(*) from meshhook_metrics.alert_suspensions), 1::bigint, 'that it was suspended is remembered');
create temp table waits (failures int, minutes float8);
do $$
begin
	for failure in 2 .. 9 loop
		perform meshhook_metrics.suspend_alerts(pg_temp.t(1000 * failure), '11111111-1111-1111-1111-111111111111', 'again');
		insert into waits select s.failures, extract(epoch from s.until - pg_temp.t(1000 * failure)) / 60 from meshhook_metrics.alert_suspensions s;
	end loop;
end
$$;
select results_eq('select * from waits order by failures', $$ values (2, 2::float8), (3, 4), (4, 8), (5, 16), (6, 32), (7, 60), (8, 60), (9, 60) $$, 'each time it is twice as long, up to an hour');
select is((select error from meshhook_metrics.alert_suspensions), 'again', 'the last error is kept');
select pg_temp.evaluate(12600 + 86400);
select is((select count(*) from meshhook_metrics.alert_suspensions), 1::bigint, 'for a day');
select pg_temp.evaluate(12600.000001 + 86400);
select is((select count(*) from meshhook_metrics.alert_suspensions), 0::bigint, 'then it is forgotten');
select meshhook_metrics.suspend_alerts(pg_temp.t(200000), :'a', 'anew');
select is((select pg_temp.seconds(until) from meshhook_metrics.alert_suspensions), '200060', 'and begins with a minute again');

-- By a clock that was set back since
select meshhook_metrics.suspend_alerts(clock_timestamp() + interval '12 days', :'a', 'ahead');
select pg_temp.evaluate(200100);
select is((select count(*) from meshhook_metrics.alert_suspensions), 0::bigint, 'nobody is left alone for longer than that, by whatever clock');
select is((select count(*) from meshhook_metrics.alert_rules where last_error is not null), 0::bigint, 'and the rules are evaluated');
select meshhook_metrics.suspend_alerts(clock_timestamp(), :'a', 'now');
select pg_temp.evaluate(200100);
select is((select count(*) from meshhook_metrics.alert_suspensions), 1::bigint, 'but for that, whatever time is evaluated');

-- A thousand active alerts of a tenant
select pg_temp.clear();
delete from meshhook_metrics.alert_suspensions;
select pg_temp.rule(jsonb_build_object('name', 'rule ' || n, 'group_by', array['queue'])) from generate_series(1, 11) n;
select pg_temp.rule(jsonb_build_object('tenant_id', :'b'));
select pg_temp.sample('depth', pg_temp.t(0), 11, jsonb_build_object('queue', n)) from generate_series(1, 100) n;
select pg_temp.sample('depth', pg_temp.t(0), 11, tenant => :'b');
select is(pg_temp.evaluate(0), 1001::bigint, 'a tenant has a thousand active alerts, and others theirs');
select results_eq('select tenant_id, count(*) from meshhook_metrics.alerts group by tenant_id order by tenant_id', format('values (%L::uuid, 1000::bigint), (%L, 1)', :'a', :'b'), 'each tenant for itself');
select is((select alerts_left_out from meshhook_metrics.alert_state), 100::bigint, 'how many were left out is noted');
select meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(0), array[:'b']::uuid[]);
select is((select alerts_left_out from meshhook_metrics.alert_state), 100::bigint, 'also where another tenant is evaluated apart');
update meshhook_metrics.alert_state set alerts_left_out = 0;
select meshhook_metrics.evaluate_tenant_alerts(pg_temp.t(0), array[tenant]::uuid[]) from unnest(array[:'a', :'b']) tenant;
select is((select alerts_left_out from meshhook_metrics.alert_state), 100::bigint, 'and where all are, one by one');
select is((select count(*) from meshhook_metrics.alert_rules where last_error is not null), 0::bigint, 'that is no error of a rule');
create temp table active as select rule_id, fingerprint from meshhook_metrics.alerts;
select pg_temp.sample('depth', pg_temp.t(10), 11, jsonb_build_object('queue', n)) from generate_series(1, 100) n;
select pg_temp.evaluate(10);
select set_eq('select rule_id, fingerprint from meshhook_metrics.alerts where tenant_id = ''11111111-1111-1111-1111-111111111111''',
	'select a.rule_id, a.fingerprint from active a join meshhook_metrics.alert_rules r on r.id = a.rule_id and r.tenant_id = ''11111111-1111-1111-1111-111111111111''', 'what is active stays, and does not give way');
select * from finish();
rollback;
