-- The extension is not created in a schema that somebody prepared for it
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
select no_plan();
drop extension meshhook_metrics;
drop schema meshhook_metrics;
create role regress_stranger nologin;
create role regress_owner nologin;
do $$begin execute format('grant create on database %I to regress_stranger, regress_owner', current_database()); end$$;

-- A schema of somebody else's: a superuser is warned, since it may be a dump that
-- is restored; its functions are granted to the superuser alone
savepoint before;
create schema meshhook_metrics authorization regress_stranger;
set local client_min_messages = error;
select lives_ok('create extension meshhook_metrics', 'a superuser may use the schema of somebody else');
select ok(not has_function_privilege('regress_stranger', 'meshhook_metrics.snapshot(uuid)', 'execute'),
	'and the schema''s owner may not call what is in it');
rollback to savepoint before;
create schema meshhook_metrics authorization regress_stranger;
select throws_ok('set local role regress_owner; create extension meshhook_metrics', '42501', null, 'who owns neither may not');
select lives_ok('set local role regress_stranger; create extension meshhook_metrics; reset role', 'who owns the schema may own the extension');
rollback to savepoint before;

-- One with functions of our names in it
create schema meshhook_metrics;
create function meshhook_metrics.inc(text) returns void language sql as $$ select $$;
select throws_ok('create extension meshhook_metrics', '42723',
	'function meshhook_metrics.inc(text) is there already, and is not the extension''s', 'functions that calls would prefer are in the way');
drop function meshhook_metrics.inc(text);
create function meshhook_metrics.histogram_quantile(text) returns void language sql as $$ select $$;
select throws_ok('create extension meshhook_metrics', '42723', null, 'those of histograms too');
drop function meshhook_metrics.histogram_quantile(text);
create function meshhook_metrics.query_range_of_mine() returns void language sql as $$ select $$;
select throws_ok('create extension meshhook_metrics', '42723', null, 'and those of query_range()');
drop function meshhook_metrics.query_range_of_mine();
do $$
declare
	routine text;
begin
	foreach routine in array array[
		'flush', 'rollup', 'maintain', 'schedule', 'unschedule', 'close_minutes', 'rollup_windows', 'rollup_targets', 'require_storage', 'leaves',
		'create_leaf', 'retention', 'scheduled_jobs', 'scheduled_by_pg_cron', 'delete_old_live', 'prune_series', 'unschedule_lost']
	loop
		execute format('create function meshhook_metrics.%I(a text, b text, c text, d text, e text) returns void language sql as %L', routine, 'select');
		begin
			create extension meshhook_metrics;
			raise '% is not in the way', routine;
		exception when duplicate_function then
			null;
		end;
		execute format('drop function meshhook_metrics.%I', routine);
	end loop;
end
$$;
select pass('of whatever name that the extension has');
create function meshhook_metrics.tenant_ids() returns setof uuid language sql as $$ select null::uuid $$;
select lives_ok('create extension meshhook_metrics', 'functions of other names are not');
rollback to savepoint before;

-- Given to the role that creates the extension, as the hint says
create schema meshhook_metrics authorization regress_stranger;
alter schema meshhook_metrics owner to regress_owner;
select lives_ok('set local role regress_owner; create extension meshhook_metrics; reset role', 'the hint helps');

select * from finish();
rollback;
