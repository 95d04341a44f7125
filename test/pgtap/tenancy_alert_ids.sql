-- What a tenant's user could do to others with rules of his own
\ir ../sql/include/tenancy.sql

-- A snapshot from before would let somebody insert more rules than the quota allows
\set inserting 'insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (gen_random_uuid(), $$isolated$$, $$m$$, $$rate$$, 1)'
\setenv INSERTING :inserting
\set repeatable `psql -X -q -A -t -v VERBOSITY=sqlstate -c 'begin isolation level repeatable read' -c "$INSERTING" -c 'rollback' 2>&1`
\set serializable `psql -X -q -A -t -v VERBOSITY=sqlstate -c 'begin isolation level serializable' -c "$INSERTING" -c 'rollback' 2>&1`
\set committed `psql -X -q -A -t -v VERBOSITY=sqlstate -c 'begin isolation level read committed' -c "$INSERTING" -c 'rollback' 2>&1`
begin;
select no_plan();
select is(:'repeatable'::text, 'ERROR:  25000', 'no rule is inserted in a transaction that is REPEATABLE READ');
select is(:'serializable'::text, 'ERROR:  25000', 'or SERIALIZABLE');
select is(:'committed'::text, '', 'but in one that is READ COMMITTED');
\set id 'cccccccc-0000-0000-0000-000000000001'

-- Whoever knows the id of another tenant's rule that was deleted can try to give it to
-- a rule of his own before the next evaluation
insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, threshold, no_data)
values (:'id', :'b', 'of B', 'never_recorded_total', 'increase', 1, 'firing');
do $$begin perform meshhook_metrics.evaluate_alerts(now()); end$$;
select is((select string_agg(a.name || ' ' || a.state, ', ') from meshhook_metrics.alerts a where a.tenant_id = :'b' and a.rule_id = :'id'), 'of B firing', 'B has an alert');
delete from meshhook_metrics.alert_rules r where r.name = 'of B';
select set_config('request.jwt.claims', :'claims_a', true) \g /dev/null
set local role authenticated;
do $$
begin
	insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, threshold, no_data, repeat_interval)
	values (
		'cccccccc-0000-0000-0000-000000000001', '11111111-1111-1111-1111-111111111111', 'of A', 'never_recorded_total',
		'increase', 1, 'firing', '1 minute');
-- That it is refused would be as good
exception when insufficient_privilege or invalid_parameter_value then
	null;
end
$$;
reset role;
do $$begin perform meshhook_metrics.evaluate_alerts(now() + interval '2 minutes'); end$$;
select is((select string_agg(distinct n.payload -> 'commonLabels' ->> 'alertname', ', ') from meshhook_metrics.alert_notifications n where n.tenant_id = :'b' and n.rule_id = :'id'), 'of B',
	'what B is told of is B''s');
select is((select count(*) from meshhook_metrics.alerts a where a.tenant_id = :'b' and a.rule_id = :'id'), 0::bigint, 'B''s alert has gone with its rule');
select is((select string_agg(e.state || ' ' || e.reason, ', ' order by e.id) from meshhook_metrics.alert_events e where e.tenant_id = :'b' and e.rule_id = :'id'),
	'firing no_data, resolved deleted', 'and is resolved');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
