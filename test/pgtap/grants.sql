-- Who may call what: nobody but the extension's owner, who can grant it on
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
select no_plan();

create temp view routines as
select p.oid, p.oid::regprocedure::text as signature, p.proacl, p.prokind
from pg_depend d
join pg_proc p on p.oid = d.objid
where d.classid = 'pg_proc'::regclass
	and d.refclassid = 'pg_extension'::regclass
	and d.refobjid = (select oid from pg_extension where extname = 'meshhook_metrics')
	and d.deptype = 'e';

-- What a caller calls, one example of each function
create temp table calls (routine text, call text);
insert into calls values
	('inc', $$ meshhook_metrics.inc('grants_total') $$),
	('gauge_set', $$ meshhook_metrics.gauge_set('grants_depth', 1) $$),
	('gauge_add', $$ meshhook_metrics.gauge_add('grants_depth', 1) $$),
	('observe', $$ meshhook_metrics.observe('grants_seconds', 1) $$),
	('observe_since', $$ meshhook_metrics.observe_since('grants_seconds', pg_catalog.now()) $$),
	('record', $$ meshhook_metrics.record('[{"op": "inc", "metric": "grants_total"}]') $$),
	('describe', $$ meshhook_metrics.describe('grants_total', 'counter') $$),
	('reset', $$ meshhook_metrics.reset('grants_total') $$),
	('snapshot', $$ meshhook_metrics.snapshot() $$),
	('status', $$ meshhook_metrics.status() $$),
	('prometheus', $$ meshhook_metrics.prometheus() $$),
	('flush', $$ meshhook_metrics.flush('0 s') $$),
	('query_range', $$ meshhook_metrics.query_range('grants_total', pg_catalog.now()) $$),
	('rollup', $$ meshhook_metrics.rollup() $$),
	('maintain', $$ meshhook_metrics.maintain() $$),
	('close_minutes', $$ meshhook_metrics.close_minutes() $$),
	('delete_old_live', $$ meshhook_metrics.delete_old_live(1) $$),
	('prune_series', $$ meshhook_metrics.prune_series() $$),
	('unschedule_lost', $$ meshhook_metrics.unschedule_lost() $$),
	('schedule', $$ meshhook_metrics.schedule() $$),
	('unschedule', $$ meshhook_metrics.unschedule() $$),
	('scheduled_by_pg_cron', $$ meshhook_metrics.scheduled_by_pg_cron() $$),
	('scheduled_jobs', $$ meshhook_metrics.scheduled_jobs() $$),
	('rollup_targets', $$ meshhook_metrics.rollup_targets() $$),
	('rollup_windows', $$ meshhook_metrics.rollup_windows('5m', pg_catalog.now(), pg_catalog.now()) $$),
	('require_storage', $$ meshhook_metrics.require_storage() $$),
	('leaves', $$ meshhook_metrics.leaves('1m') $$),
	('create_leaf', $$ meshhook_metrics.create_leaf('1m', pg_catalog.now()) $$),
	('retention', $$ meshhook_metrics.retention('1m') $$),
	('evaluate_alerts', $$ meshhook_metrics.evaluate_alerts() $$),
	('evaluate_tenant_alerts', $$ meshhook_metrics.evaluate_tenant_alerts(pg_catalog.now(), '{}') $$),
	('note_alert_failure', $$ meshhook_metrics.note_alert_failure(pg_catalog.now(), pg_catalog.gen_random_uuid(), 'late') $$),
	('alert_values', $$ meshhook_metrics.alert_values(pg_catalog.now(), '{}') $$),
	('evaluate_alert_rules', $$ meshhook_metrics.evaluate_alert_rules(pg_catalog.now(), '{}', true) $$),
	('alert_pieces', $$ meshhook_metrics.alert_pieces('{}') $$),
	('alert_values_apart', $$ meshhook_metrics.alert_values_apart(pg_catalog.now(), '{}') $$),
	('alert_spans', $$ meshhook_metrics.alert_spans(pg_catalog.now(), '{1 hour}') $$),
	('alert_totals', $$ meshhook_metrics.alert_totals(pg_catalog.now(), '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}') $$),
	('alert_text', $$ meshhook_metrics.alert_text('{{ value }}', 1, 2, '{}') $$),
	('alert_annotations', $$ meshhook_metrics.alert_annotations('{}', 1, 2, '{}') $$),
	('write_notifications', $$ meshhook_metrics.write_notifications(pg_catalog.now(), '{}', '{}') $$),
	('claim_notifications', $$ meshhook_metrics.claim_notifications() $$),
	('finish_notification', $$ meshhook_metrics.finish_notification(1) $$),
	('send_notifications', $$ meshhook_metrics.send_notifications() $$),
	('histogram_count', $$ meshhook_metrics.histogram_count(%s) $$),
	('histogram_sum', $$ meshhook_metrics.histogram_sum(%s) $$),
	('histogram_avg', $$ meshhook_metrics.histogram_avg(%s) $$),
	('histogram_min', $$ meshhook_metrics.histogram_min(%s) $$),
	('histogram_max', $$ meshhook_metrics.histogram_max(%s) $$),
	('histogram_quantile', $$ meshhook_metrics.histogram_quantile(%s, 0.5) $$),
	('histogram_fraction', $$ meshhook_metrics.histogram_fraction(%s, 0, 1) $$),
	('histogram_buckets', $$ meshhook_metrics.histogram_buckets(%s) $$),
	('histogram_json', $$ meshhook_metrics.histogram_json(%s) $$),
	('histogram_merge', $$ meshhook_metrics.histogram_merge(%s) $$),
	('histogram_of', $$ meshhook_metrics.histogram_of(1.0) $$);
update calls
set call = replace(call, '%s', $$'{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}'::meshhook_metrics.histogram$$);

-- What the catalogue says
select ok(count(*) >= 30, 'the extension has its functions') from routines;
select ok(proacl is not null
	and not exists (select from aclexplode(proacl) a where a.grantee = 0),
	'PUBLIC has nothing on ' || signature)
from routines
order by signature;
select ok(exists (
		select
		from aclexplode(proacl) a
		where a.grantee = (select extowner from pg_extension where extname = 'meshhook_metrics')
			and a.privilege_type = 'EXECUTE'
			and a.is_grantable),
	'the owner can grant ' || signature)
from routines
order by signature;
select ok(not exists (select from aclexplode(nspacl) a where a.grantee = 0), 'PUBLIC has nothing on the schema')
from pg_namespace
where nspname = 'meshhook_metrics';

-- Roles as an API server has them
create role regress_anon nologin;
create role regress_authenticated nologin;
create role regress_service_role nologin bypassrls;
create role regress_worker nologin;

select throws_ok(format('set local role %I; select %s', role, call), '42501', 'permission denied for schema meshhook_metrics',
	format('%s does not reach %s()', role, routine))
from calls, unnest(array['regress_anon', 'regress_authenticated', 'regress_service_role']) role;

grant usage on schema meshhook_metrics to regress_anon, regress_authenticated, regress_service_role, regress_worker;
select throws_ok(format('set local role %I; select %s', role, call), '42501',
	format('permission denied for %s %s', case when r.prokind = 'a' then 'aggregate' else 'function' end, routine),
	format('%s may not call %s()', role, routine))
from calls
join routines r on r.signature like 'meshhook_metrics.' || routine || '(%',
	unnest(array['regress_anon', 'regress_authenticated', 'regress_service_role']) role;
select throws_ok(
	$$ set local role regress_anon;
	select '{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}'::meshhook_metrics.histogram::json $$,
	'42501', 'permission denied for function histogram_json', 'the cast to json is a function too');

-- One function granted is one function
grant execute on function meshhook_metrics.inc to regress_worker;
select lives_ok(format('set local role regress_worker; select %s; reset role', call), 'a role that was granted inc() calls it')
from calls
where routine = 'inc';
select throws_ok(format('set local role regress_worker; select %s', call), '42501', null, 'but not ' || routine || '()')
from calls
where routine <> 'inc';
-- a grant by somebody who may not is a warning only
set local role regress_worker;
set local client_min_messages = error;
grant execute on function meshhook_metrics.inc to regress_anon;
set local client_min_messages = warning;
reset role;
select ok(not has_function_privilege('regress_anon', oid, 'execute'), 'nor can it grant inc()')
from routines
where signature like 'meshhook_metrics.inc(%';

-- A grant to everybody is somebody's decision, and holds for that function only
grant execute on function meshhook_metrics.observe to public;
select lives_ok(format('set local role regress_anon; select %s; reset role', call), 'what is granted to PUBLIC, everybody calls')
from calls
where routine = 'observe';
select throws_ok(format('set local role regress_anon; select %s', call), '42501', null, 'and nothing else')
from calls
where routine = 'inc';

-- Somebody who is no superuser installs the extension, and grants
drop extension meshhook_metrics cascade;
drop schema meshhook_metrics;
create role regress_owner nologin;
do $$begin execute format('grant create on database %I to regress_owner', current_database()); end$$;
select lives_ok('set local role regress_owner; create extension meshhook_metrics; reset role', 'trusted: no superuser is needed');
select is((select extowner::regrole::text from pg_extension where extname = 'meshhook_metrics'), 'regress_owner', 'who creates it owns it');
select is((select nspowner::regrole::text from pg_namespace where nspname = 'meshhook_metrics'), 'regress_owner', 'with its schema');
select is((select count(*) from routines
	where not exists (
		select
		from aclexplode(proacl) a
		where a.grantee = 'regress_owner'::regrole and a.privilege_type = 'EXECUTE' and a.is_grantable)),
	0::bigint, 'and can grant every function');
select is((select count(*) from routines, aclexplode(proacl) a where a.grantee = 0), 0::bigint, 'of which PUBLIC has none again');
set local role regress_owner;
\ir ../sql/include/migrations.sql
reset role;
-- flush() is not asked here: the worker does not see what is not committed
select lives_ok(format('set local role regress_owner; select %s; reset role', call), 'the owner calls ' || routine || '()')
from calls
where routine <> 'flush';
select throws_ok(format('set local role regress_worker; select %s', call), '42501', 'permission denied for schema meshhook_metrics',
	'the grants of the extension before are gone')
from calls
where routine = 'inc';
select lives_ok($$
	set local role regress_owner;
	grant usage on schema meshhook_metrics to regress_worker;
	grant execute on function meshhook_metrics.inc, meshhook_metrics.record to regress_worker;
	reset role $$, 'the owner grants');
select lives_ok(format('set local role regress_worker; select %s; reset role', call), 'the grantee calls ' || routine || '()')
from calls
where routine in ('inc', 'record');
select throws_ok(format('set local role regress_worker; select %s', call), '42501', 'permission denied for function ' || routine,
	'and is refused ' || routine || '()')
from calls
where routine in ('reset', 'describe', 'snapshot', 'prometheus', 'status', 'flush', 'query_range', 'rollup', 'maintain', 'close_minutes', 'delete_old_live', 'prune_series', 'schedule', 'create_leaf',
	'evaluate_alerts', 'evaluate_tenant_alerts', 'note_alert_failure', 'evaluate_alert_rules', 'alert_values', 'write_notifications', 'claim_notifications', 'finish_notification', 'send_notifications');

select * from finish();
rollback;
