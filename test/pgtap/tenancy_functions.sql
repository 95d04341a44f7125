-- Who may call which function: tenants read, service_role records and reads, the owner
-- does everything, everybody else nothing
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

-- The decisions, with an example of a call; internal ones cannot be called with SQL. A
-- function that is not here fails.
create temp table decided (function text, callers text, call text);
\set histogram '\'{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}\'::meshhook_metrics.histogram'
insert into decided values
	('inc(text,double precision,jsonb,uuid)', 'service_role', 'inc(''functions_total'')'),
	('gauge_set(text,double precision,jsonb,uuid)', 'service_role', 'gauge_set(''functions_depth'', 1)'),
	('gauge_add(text,double precision,jsonb,uuid)', 'service_role', 'gauge_add(''functions_depth'', 1)'),
	('observe(text,double precision,jsonb,uuid)', 'service_role', 'observe(''functions_seconds'', 1)'),
	('observe_since(text,timestamp with time zone,jsonb,uuid)', 'service_role', 'observe_since(''functions_seconds'', now())'),
	('record(jsonb)', 'service_role', 'record(''[{"op": "inc", "metric": "functions_total"}]'')'),
	('describe(text,text,text,text,integer)', 'service_role', 'describe(''functions_total'', ''counter'')'),
	('flush(interval)', 'service_role', 'flush()'),
	('snapshot(uuid)', 'service_role', 'snapshot()'),
	('status()', 'service_role', 'status()'),
	('prometheus(uuid)', 'service_role', 'prometheus()'),
	('reset(text,uuid)', '', 'reset(''functions_total'')'),
	('tenant_ids()', 'authenticated service_role', 'tenant_ids()'),
	('query_range(text,timestamp with time zone,timestamp with time zone,interval,jsonb,text,text[],uuid)',
		'authenticated service_role', 'query_range(''shared_total'', now() - interval ''1 hour'')'),
	('query_range_rows(text,timestamp with time zone,timestamp with time zone,interval,jsonb,text,text[],uuid)', 'authenticated service_role', null),
	('query_range_aggregate(text,text,text)', 'authenticated service_role', 'query_range_aggregate(''p95'', ''histogram'', ''m'')'),
	('query_range_applies(text,text)', 'authenticated service_role', 'query_range_applies(''p95'', ''histogram'')'),
	('query_range_labels(jsonb,text[])', 'authenticated service_role', 'query_range_labels(''{"a": 1}'', ''{a}'')'),
	('query_range_filter(text,jsonb)', 'authenticated service_role', 'query_range_filter(''labels'', ''{"a": 1}'')'),
	('query_range_matches(jsonb,jsonb)', 'authenticated service_role', 'query_range_matches(''{"a": "1"}'', ''{"a": 1}'')'),
	('query_range_check(text,timestamp with time zone,timestamp with time zone,text[])', 'authenticated service_role', 'query_range_check(''m'', now(), now(), null)'),
	('query_range_edges(interval,timestamp with time zone,timestamp with time zone,timestamp with time zone[])', 'authenticated service_role',
		'query_range_edges(''1 hour'', now(), now(), array[now(), now(), now(), now()])'),
	('query_range_statement(text,text,boolean,interval,timestamp with time zone[])', 'authenticated service_role',
		'query_range_statement(''avg'', ''gauge'', false, ''1 hour'', array[now(), now(), now(), now(), now(), now()])'),
	('query_range_live(text[],text,interval)', 'authenticated service_role', 'query_range_live(''{sum}'', ''1'', ''1 hour'')'),
	('query_range_source(text[],boolean,interval,timestamp with time zone[])', 'authenticated service_role',
		'query_range_source(''{sum}'', false, ''1 hour'', array[now(), now(), now(), now(), now(), now()])'),
	('query_range_step(timestamp with time zone,timestamp with time zone,interval,timestamp with time zone,timestamp with time zone,timestamp with time zone)',
		'authenticated service_role', 'query_range_step(now(), now(), null, now(), now(), now())'),
	('histogram_count(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_count(%s)', :'histogram')),
	('histogram_sum(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_sum(%s)', :'histogram')),
	('histogram_avg(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_avg(%s)', :'histogram')),
	('histogram_min(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_min(%s)', :'histogram')),
	('histogram_max(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_max(%s)', :'histogram')),
	('histogram_quantile(meshhook_metrics.histogram,double precision)', 'authenticated service_role', format('histogram_quantile(%s, 0.5)', :'histogram')),
	('histogram_fraction(meshhook_metrics.histogram,double precision,double precision)', 'authenticated service_role',
		format('histogram_fraction(%s, 0, 1)', :'histogram')),
	('histogram_buckets(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_buckets(%s)', :'histogram')),
	('histogram_json(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_json(%s)', :'histogram')),
	('histogram_merge(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_merge(%s)', :'histogram')),
	('histogram_of(double precision)', 'authenticated service_role', 'histogram_of(1)'),
	('histogram_in(cstring)', 'authenticated service_role', format('histogram_in(meshhook_metrics.histogram_out(%s))', :'histogram')),
	('histogram_out(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_out(%s)', :'histogram')),
	('histogram_send(meshhook_metrics.histogram)', 'authenticated service_role', format('histogram_send(%s)', :'histogram')),
	('histogram_recv(internal)', 'authenticated service_role', null),
	('histogram_combine(internal,internal)', 'authenticated service_role', null),
	('histogram_deserialize(bytea,internal)', 'authenticated service_role', null),
	('histogram_final(internal)', 'authenticated service_role', null),
	('histogram_merge_transition(internal,meshhook_metrics.histogram)', 'authenticated service_role', null),
	('histogram_of_transition(internal,double precision)', 'authenticated service_role', null),
	('histogram_serialize(internal)', 'authenticated service_role', null),
	('close_minutes(timestamp with time zone)', '', 'close_minutes()'),
	('mend_state()', '', 'mend_state()'),
	('mend_series_ids(bigint)', '', 'mend_series_ids(0)'),
	('mend_alert_ids()', '', 'mend_alert_ids()'),
	('gauge_levels(bigint[])', '', 'gauge_levels(''{1}'')'),
	('series_leave()', '', null),
	('add_within_range(double precision,double precision)', '', 'add_within_range(1, 2)'),
	('sum_within_range(double precision)', '', null),
	('delete_old_live(bigint,timestamp with time zone)', '', 'delete_old_live(1)'),
	('prune_series(integer)', '', 'prune_series()'),
	('unschedule_lost()', '', 'unschedule_lost()'),
	('rollup(text)', '', 'rollup()'),
	('rollup_windows(text,timestamp with time zone,timestamp with time zone)', '', 'rollup_windows(''5m'', now(), now())'),
	('rollup_targets()', '', 'rollup_targets()'),
	('maintain()', '', 'maintain()'),
	('schedule()', '', 'schedule()'),
	('unschedule()', '', 'unschedule()'),
	('scheduled_jobs()', '', 'scheduled_jobs()'),
	('scheduled_by_pg_cron()', '', 'scheduled_by_pg_cron()'),
	('require_storage()', '', 'require_storage()'),
	('leaves(text)', '', 'leaves(''1m'')'),
	('create_leaf(text,timestamp with time zone)', '', 'create_leaf(''1m'', now())'),
	('retention(text)', '', 'retention(''1m'')'),
	('labels_digest(jsonb)', '', 'labels_digest(''{}'')'),
	('check_settings()', '', null),
	('evaluate_alerts(timestamp with time zone)', '', 'evaluate_alerts()'),
	('evaluate_tenant_alerts(timestamp with time zone,uuid[])', '', 'evaluate_tenant_alerts(now(), ''{}'')'),
	('note_alert_failure(timestamp with time zone,uuid,text)', '', 'note_alert_failure(now(), gen_random_uuid(), ''late'')'),
	('alert_values(timestamp with time zone,uuid[])', '', 'alert_values(now(), ''{}'')'),
	('evaluate_alert_rules(timestamp with time zone,uuid[],boolean)', '', 'evaluate_alert_rules(now(), ''{}'', true)'),
	('alert_pieces(uuid[])', '', 'alert_pieces(''{}'')'),
	('alert_values_apart(timestamp with time zone,uuid[])', '', 'alert_values_apart(now(), ''{}'')'),
	('alert_spans(timestamp with time zone,interval[])', '', 'alert_spans(now(), ''{1 hour}'')'),
	('alert_totals(timestamp with time zone,uuid[],bigint[],integer[],integer[],boolean[],timestamp with time zone[],timestamp with time zone[],timestamp with time zone[],timestamp with time zone[],timestamp with time zone[],text[],boolean[])',
		'', 'alert_totals(now(), ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'', ''{}'')'),
	('alert_text(text,double precision,double precision,jsonb)', '', 'alert_text(''{{ value }}'', 1, 2, ''{}'')'),
	('alert_annotations(jsonb,double precision,double precision,jsonb)', '', 'alert_annotations(''{}'', 1, 2, ''{}'')'),
	('write_notifications(timestamp with time zone,bigint[],uuid[])', '', 'write_notifications(now(), ''{}'', ''{}'')'),
	('send_notifications(integer)', '', 'send_notifications()'),
	('claim_notifications(integer,boolean)', 'service_role', 'claim_notifications()'),
	('finish_notification(bigint,text)', 'service_role', 'finish_notification(1)'),
	('check_alert_rule()', '', null),
	('check_alert_annotations()', '', null),
	('count_alert_rules()', '', null),
	('assign_alert_rule_columns()', '', null),
	('check_alert_receiver()', '', null),
	('rule(meshhook_metrics.alerts)', 'authenticated service_role', 'rule(null::meshhook_metrics.alerts)'),
	('rule(meshhook_metrics.alert_events)', 'authenticated service_role', 'rule(null::meshhook_metrics.alert_events)'),
	('series(meshhook_metrics.rollup_1m)', 'authenticated service_role', 'series(null::meshhook_metrics.rollup_1m)'),
	('series(meshhook_metrics.rollup_5m)', 'authenticated service_role', 'series(null::meshhook_metrics.rollup_5m)'),
	('series(meshhook_metrics.rollup_1h)', 'authenticated service_role', 'series(null::meshhook_metrics.rollup_1h)'),
	('series(meshhook_metrics.rollup_1d)', 'authenticated service_role', 'series(null::meshhook_metrics.rollup_1d)');

create temp view functions as
select p.oid, p.proname::text as name, replace(p.oid::regprocedure::text, 'meshhook_metrics.' || p.proname || '(', p.proname || '(') as function,
	p.prokind, p.proacl, p.prosecdef, p.proconfig, p.prolang, p.proowner
from pg_proc p
where p.pronamespace = 'meshhook_metrics'::regnamespace;

select set_eq('select function from functions', 'select function from decided', 'every function has been decided about');

-- What the catalogue says
select is(has_function_privilege(role, f.oid, 'execute'), role = 'tenancy_owner' or role = any (string_to_array(d.callers, ' ')),
	format('whether %s may call %s()', role, f.name))
from functions f
join decided d using (function), unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger', 'tenancy_owner']) role
order by f.function, role;
select is_empty($$ select function, a.* from functions, aclexplode(proacl) a where a.grantee = 0 $$, 'PUBLIC may call nothing');
select is_empty($$ select function from functions where proacl is null $$, 'nor what has no grants yet');
select is_empty(
	$$ select function, a.* from functions, aclexplode(proacl) a where a.is_grantable and a.grantee not in (proowner, 'tenancy_owner'::regrole) $$,
	'nobody but the owner grants');
-- The one exception counts a tenant's rules for whoever inserts one. As it may have been
-- called by somebody with temporary objects of his own, those come last for it.
select set_eq('select function from functions where prosecdef', array['count_alert_rules()'], 'none runs with its owner''s rights, but count_alert_rules()');
select is_empty(
	$$ select function, proacl from functions
		where prosecdef and (proowner <> 'tenancy_owner'::regrole or proacl <> array[makeaclitem(proowner, proowner, 'EXECUTE', false)]) $$,
	'who may call that is its owner, who is no superuser, and nobody else');
select is_empty($$ select function, proconfig from functions where prosecdef and proconfig is distinct from array['search_path=pg_catalog, pg_temp'] $$,
	'and its search_path is fixed, with nothing temporary before the catalogue');
select is_empty(
	$$ select function from functions
		where prolang in (select oid from pg_language where lanname in ('sql', 'plpgsql'))
			and name not in ('rule', 'series')
			and not coalesce(proconfig && array['search_path=""', 'search_path=pg_catalog, pg_temp'], false) $$,
	'each that is not in C has a fixed search_path, but those that are to be made a join of');
select is_empty(
	$$ select p.oid::regprocedure from pg_proc p join pg_depend d on d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e'
		join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
		where e.extname = 'meshhook_metrics' and p.pronamespace <> 'meshhook_metrics'::regnamespace $$,
	'none is in another schema');
select set_eq(
	$$ select function from functions where proowner = 'tenancy_owner'::regrole $$, array['labels_digest(jsonb)', 'check_settings()', 'tenant_ids()',
		'check_alert_rule()', 'check_alert_annotations()', 'check_alert_receiver()', 'count_alert_rules()', 'assign_alert_rule_columns()',
		'rule(meshhook_metrics.alerts)', 'rule(meshhook_metrics.alert_events)', 'series(meshhook_metrics.rollup_1m)', 'series(meshhook_metrics.rollup_5m)',
		'series(meshhook_metrics.rollup_1h)', 'series(meshhook_metrics.rollup_1d)'],
	'the owner of the tables owns the functions of the migrations, and could change no other');

-- What they get when they call
select is(pg_temp.ask('tenancy_stranger', :'claims_a', 'select meshhook_metrics.' || d.call), '42501: permission denied for schema meshhook_metrics',
	format('a stranger does not reach %s()', f.name))
from functions f
join decided d using (function)
where d.call is not null
order by f.function;
-- The examples call histogram_in() with what histogram_out() says
select matches(pg_temp.ask(role, :'claims_a', 'select meshhook_metrics.' || d.call),
	format('^42501: permission denied for (function|aggregate) %s$', case f.name when 'histogram_in' then 'histogram_out' else f.name end),
	format('%s may not call %s()', role, f.name))
from functions f
join decided d using (function), unnest(array['anon', 'authenticated', 'service_role']) role
where d.call is not null
	and role <> all (string_to_array(d.callers, ' '))
order by f.function, role;
select is(pg_temp.ask(role, :'claims_a', format('select coalesce(sum(1), 1) > 0 from (select meshhook_metrics.%s) c', d.call)), '(t)',
	format('%s calls %s()', role, f.name))
from functions f
join decided d using (function), unnest(array['authenticated', 'service_role', 'tenancy_owner']) role
where d.call is not null
	and (role = 'tenancy_owner' or role = any (string_to_array(d.callers, ' ')))
order by f.function, role;

-- Reached by another way than their name
select is(pg_temp.ask('anon', null, format('select %s::json', :'histogram')), '42501: permission denied for function histogram_json',
	'anon has no use for the type');
create temp table mine (name text, tenant_id uuid, value text);
alter table mine owner to authenticated;
select is(pg_temp.ask_as_a(format('create trigger t before insert on pg_temp.mine for each row execute function meshhook_metrics.%I()', name)),
	'42501: permission denied for function meshhook_metrics.' || name, format('nor do tenants hang %s() on a table of their own', name))
from unnest(array['check_settings', 'check_alert_rule', 'check_alert_receiver', 'count_alert_rules', 'assign_alert_rule_columns']) name;

-- What tenants call tells them nothing of others, whoever they ask for
select is(pg_temp.ask_as_a('select * from meshhook_metrics.tenant_ids()'), format('(%s)', :'a'), 'tenant A is tenant A');
select is(pg_temp.ask_as_a(format('select * from meshhook_metrics.query_range(''shared_total'', now() - interval ''5 days'', tenant => %L)', :'b')), '',
	'and reads nothing of tenant B');
select isnt(pg_temp.ask_as_b(format('select * from meshhook_metrics.query_range(''shared_total'', now() - interval ''5 days'', tenant => %L)', :'b')), '',
	'who does');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
