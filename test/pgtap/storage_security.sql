-- The storage as a linter sees it, whom it belongs to, and which tenants a caller is
begin;
set local client_min_messages = warning;
select no_plan();
\ir ../sql/include/api_roles.sql
create role regress_owner nologin;
create role regress_other nologin;
do $$begin execute format('grant create on database %I to regress_owner', current_database()); end$$;
drop extension if exists meshhook_metrics cascade;
drop schema if exists meshhook_metrics cascade;

-- A superuser's default privileges, and the owner's, give everybody everything
alter default privileges grant all on tables to public, anon, authenticated, service_role;
alter default privileges grant all on sequences to public, anon, authenticated, service_role;
alter default privileges for role regress_owner grant all on tables to public, anon, authenticated, service_role;
alter default privileges for role regress_owner grant all on sequences to public, anon, authenticated, service_role;
alter default privileges for role regress_owner grant all on functions to public, anon, authenticated, service_role;

-- Somebody who is no superuser installs it all
set local role regress_owner;
\ir ../sql/include/migrations.sql
\ir ../sql/include/migrations.sql
reset role;

-- The functions that the migrations make
\set made '{tenant_ids,labels_digest,check_settings,rule,series,assign_alert_rule_columns,check_alert_rule,check_alert_annotations,check_alert_receiver,count_alert_rules}'
create temp view tables as
select c.*, c.oid::regclass::text as name
from pg_class c
where c.relnamespace = to_regnamespace('meshhook_metrics') and c.relkind in ('r', 'p');
create temp view own_functions as
select p.*, p.oid::regprocedure::text as name, l.lanname
from pg_proc p
join pg_language l on l.oid = p.prolang
where p.pronamespace = to_regnamespace('meshhook_metrics');

select is_empty($$ select name from tables where relowner <> 'regress_owner'::regrole $$, 'every table belongs to who applied the migrations');
select is((select count(*) from own_functions where proname = any (:'made') and proowner = 'regress_owner'::regrole), 14::bigint, 'every function of theirs, too');

-- What Supabase's linter looks for
select is_empty($$ select name from tables where not relrowsecurity $$, 'row level security is on, for every table and every leaf');
select is_empty($$
	select t.name
	from tables t
	where t.relispartition and exists (select from pg_policy p where p.polrelid = t.oid) $$, 'leaves show nothing to anybody but their owner');
select is_empty($$
	select polname, polrelid::regclass
	from pg_policy
	join tables t on t.oid = polrelid
	where coalesce(pg_get_expr(polqual, polrelid), 'true') in ('true', '(true)')
		or (polwithcheck is not null or polcmd <> 'r') and polrelid <> 'meshhook_metrics.alert_rules'::regclass $$,
	'policies are for reading, but that of alert rules, and none is always true');
select is((select string_agg(format('%s %s', polcmd, pg_get_expr(polqual, polrelid) = pg_get_expr(polwithcheck, polrelid)), ', ') from pg_policy
		where polrelid = 'meshhook_metrics.alert_rules'::regclass), '* t', 'which lets one write what one may read, and nothing else');
select is_empty($$
	select polname, polrelid::regclass
	from pg_policy
	join tables t on t.oid = polrelid
	where polroles <> array['authenticated'::regrole::oid] $$, 'where there is a role for tenants, policies are for that');
select is_empty($$
	select polname, polrelid::regclass
	from pg_policy
	join tables t on t.oid = polrelid
	where regexp_replace(pg_get_expr(polqual, polrelid), '\( *SELECT [^()]*\(\)[^()]*\)', '', 'g') ~ '\(\)' $$, 'functions in policies are called in a sub-select, once a statement');
select is_empty($$
	select polrelid
	from pg_policy
	join tables t on t.oid = polrelid
	group by polrelid, polcmd
	having count(*) > 1 $$, 'a table has one policy, not several');
select is((select string_agg(format('%s of %s, %s, for %s', proname, proowner::regrole, proconfig, proacl), '; ') from own_functions where prosecdef),
	'count_alert_rules of regress_owner, {"search_path=pg_catalog, pg_temp"}, for {regress_owner=X/regress_owner}',
	'no function is SECURITY DEFINER but the trigger that counts rules, which nobody calls, and nothing temporary comes before the catalogue in it');
select is_empty($$
	select name
	from own_functions
	where lanname in ('sql', 'plpgsql') and proname not in ('rule', 'series')
		and not exists (select from unnest(proconfig) s where s ~ '^search_path=("")?(pg_catalog, pg_temp)?$') $$,
	'every function that needs one has a fixed search_path');
select is_empty($$
	select name, prosrc
	from own_functions
	where proname in ('rule', 'series')
		and regexp_replace(prosrc, 'meshhook_metrics[.]|operator[(]pg_catalog[.]=[)]|\m[rs][.]|[$]1[.]', '', 'g') ~ '[.=]' $$,
	'those that are to be made a join of have none, and whatever they name is qualified');
select is_empty($$ select oid::regclass from pg_class where relnamespace = 'meshhook_metrics'::regnamespace and relkind in ('v', 'm', 'f') $$,
	'there are no views or foreign tables');
select is_empty($$
	select a.attrelid::regclass, a.attname
	from pg_attribute a
	join tables t on t.oid = a.attrelid
	where a.attnum > 0 and a.atttypid::regtype::text ~ '^reg' $$, 'no column is of a reg type, which pg_upgrade refuses');
select is_empty($$
	select d.objid
	from pg_depend d
	where d.refclassid = 'pg_class'::regclass and d.classid = 'pg_class'::regclass and d.deptype = 'e' and d.refobjid in (select oid from tables) $$,
	'tables are no members of the extension');
select is_empty($$
	select conrelid::regclass
	from pg_constraint o
	where connamespace = 'meshhook_metrics'::regnamespace and contype = 'f' $$, 'nothing has an unindexed foreign key');
select is_empty($$
	select t.name
	from tables t
	where not exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary) $$, 'every table has a primary key');
select is_empty($$
	select i.indrelid::regclass, pg_get_indexdef(i.indexrelid)
	from pg_index i
	join tables t on t.oid = i.indrelid
	where exists (select from pg_index o where o.indrelid = i.indrelid and o.indexrelid <> i.indexrelid and o.indkey = i.indkey and o.indexprs is null and i.indexprs is null) $$,
	'no two indexes are the same');

-- What default privileges would have given
select is_empty($$
	select t.name, a.grantee::regrole, a.privilege_type
	from tables t, aclexplode(t.relacl) a
	where a.grantee not in ('regress_owner'::regrole, 'service_role'::regrole, 'authenticated'::regrole)
		or a.grantee <> 'regress_owner'::regrole and a.is_grantable
		or a.grantee <> 'regress_owner'::regrole and a.privilege_type <> 'SELECT'
			and not (t.relname = 'alert_rules' and a.privilege_type in ('INSERT', 'UPDATE', 'DELETE'))
			and not (t.relname = 'alert_receivers' and a.grantee = 'service_role'::regrole and a.privilege_type in ('INSERT', 'UPDATE', 'DELETE'))
		or t.relispartition and a.grantee <> 'regress_owner'::regrole $$, 'on tables: reading at most, but rules and receivers, and of a leaf not even that');
select is((select string_agg(format('%s %s %s', g.grantee, g.relname, g.privileges), '; ' order by g.grantee, g.relname)
		from (
			select a.grantee::regrole::text as grantee, t.relname, string_agg(distinct a.privilege_type, ' ') || ' ' || count(distinct c.attname) as privileges
			from tables t
			join pg_attribute c on c.attrelid = t.oid
			cross join aclexplode(c.attacl) a
			where t.relname not in ('flush_state', 'rollup_state') and a.grantee <> 'anon'::regrole
			group by a.grantee, t.relname) g),
	'service_role alert_notifications UPDATE 5', 'on columns: those of a notification that tell whether it arrived');
select is((select string_agg(relname, ' ' order by relname) from tables where not relispartition and has_table_privilege('authenticated', oid, 'select')),
	'alert_events alert_rules alerts live metrics rollup_1d rollup_1h rollup_1m rollup_5m series', 'tenants read these');
select is((select string_agg(relname, ' ' order by relname) from tables where not relispartition and has_table_privilege('service_role', oid, 'select')),
	'alert_events alert_gaps alert_notifications alert_receivers alert_rules alert_state alerts flush_state live metrics rollup_1d rollup_1h rollup_1m rollup_5m rollup_state series settings', 'the service role reads all');
select is((select string_agg(attname, ' ') from pg_attribute where attrelid = 'meshhook_metrics.flush_state'::regclass and attnum > 0
		and has_column_privilege('authenticated', attrelid, attnum, 'select')), 'at', 'of the flushes tenants know the time');
select is((select string_agg(attname, ' ' order by attnum) from pg_attribute where attrelid = 'meshhook_metrics.rollup_state'::regclass and attnum > 0
		and has_column_privilege('authenticated', attrelid, attnum, 'select')), 'target complete_until retained_from', 'of the rollups how far they are, and not how much came');
select is_empty($$ select oid::regclass from pg_class
	where relnamespace = 'meshhook_metrics'::regnamespace and relkind = 'S'
		and (has_sequence_privilege('authenticated', oid, 'usage, select, update') or has_sequence_privilege('service_role', oid, 'usage, select, update')) $$,
	'sequences are closed');
select is((select string_agg(distinct regexp_replace(proname, '^(histogram|query_range).*', '\1'), ' ') from own_functions where has_function_privilege('authenticated', oid, 'execute')),
	'histogram query_range rule series tenant_ids', 'tenants may call these');
select is((select string_agg(distinct regexp_replace(proname, '^(histogram|query_range).*', '\1'), ' ') from own_functions where has_function_privilege('service_role', oid, 'execute')),
	'claim_notifications describe finish_notification flush gauge_add gauge_set histogram inc observe observe_since prometheus query_range record rule series snapshot status tenant_ids', 'the service role these');
select is_empty($$ select name from own_functions where has_function_privilege('anon', oid, 'execute') $$, 'anon none');
select is((select string_agg(format('%s(%s)', t.relname, a.attname), ' ' order by t.relname)
		from tables t
		join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and has_column_privilege('anon', t.oid, a.attnum, 'select, insert, update, references')), 'alert_events(id) live(id)',
	'anon has the right to the keys of what is streamed, and to nothing else');
select ok(has_schema_privilege('anon', 'meshhook_metrics', 'usage'), 'with the schema, without which Realtime''s check would raise');
select is_empty($$
	select polrelid::regclass
	from pg_policy, unnest(polroles) role
	where role = 0 or pg_has_role('anon', role, 'usage') $$, 'and no policy that would show it a row, or call a function for it');
select ok(not has_schema_privilege('anon', 'meshhook_metrics', 'create') and not has_schema_privilege('authenticated', 'meshhook_metrics', 'create') and not has_schema_privilege('service_role', 'meshhook_metrics', 'create'),
	'in which nobody else creates');

-- A superuser who applies the migrations again, over tables that are missing, leaves
-- them to the owner of the others
drop table meshhook_metrics.series, meshhook_metrics.metrics, meshhook_metrics.rollup_1h, meshhook_metrics.settings, meshhook_metrics.alert_rules, meshhook_metrics.alert_events,
	meshhook_metrics.alert_receivers cascade;
drop function meshhook_metrics.labels_digest(jsonb), meshhook_metrics.check_settings(), meshhook_metrics.count_alert_rules(), meshhook_metrics.check_alert_rule(),
	meshhook_metrics.check_alert_receiver();
do $$begin execute (select format('drop table meshhook_metrics.%I', leaf) from meshhook_metrics.leaves('1m') order by leaf desc limit 1); end$$;
\ir ../sql/include/migrations.sql
select is_empty($$ select name from tables where relowner <> 'regress_owner'::regrole $$, 'what a superuser mends belongs to the owner');
select is((select count(*) from tables where not relispartition), 17::bigint, 'all of it');
select is((select count(*) from own_functions where proname = any (:'made') and proowner = 'regress_owner'::regrole), 14::bigint, 'functions, too');
-- and who applies all of them for the owner of the schema, does that for him
drop extension meshhook_metrics cascade;
drop schema meshhook_metrics cascade;
set local role regress_owner;
create extension meshhook_metrics;
reset role;
\ir ../sql/include/migrations.sql
select is_empty($$ select name from tables where relowner <> 'regress_owner'::regrole $$, 'a superuser who applies them for the first time makes them the schema''s owner''s');
set local role regress_owner;
select lives_ok('select meshhook_metrics.close_minutes(), meshhook_metrics.rollup(), meshhook_metrics.maintain()', 'who can work with them');
reset role;
-- A role that owns the schema, and not the extension
drop extension meshhook_metrics cascade;
drop schema meshhook_metrics cascade;
create extension meshhook_metrics;
alter schema meshhook_metrics owner to regress_owner;
\ir ../sql/include/migrations.sql
select is_empty($$ select name from tables where relowner <> 'regress_owner'::regrole $$, 'also where the extension is a superuser''s');
set local role regress_owner;
select lives_ok('select meshhook_metrics.close_minutes(), meshhook_metrics.rollup(), meshhook_metrics.maintain()', 'the owner is given its functions');
reset role;

-- Which tenants a caller is: by the claims of its token
set local role authenticated;
select is_empty('select meshhook_metrics.tenant_ids()', 'without claims, none');
set local request.jwt.claims = '';
select is_empty('select meshhook_metrics.tenant_ids()', 'with empty ones, none');
set local request.jwt.claims = '{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-22222222222A"]}}';
select set_eq('select meshhook_metrics.tenant_ids()', array['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-22222222222a']::uuid[], 'those that app_metadata names');
set local request.jwt.claims = '{"tenant_ids": ["11111111-1111-1111-1111-111111111111"], "user_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}';
select is_empty('select meshhook_metrics.tenant_ids()', 'nothing that a user could write himself');
set local request.jwt.claims = '{"app_metadata": {"tenant_ids": ["", "x", null, 7, {"a": 1}, ["11111111-1111-1111-1111-111111111111"], "11111111-1111-1111-1111-1111111111111", "11111111-1111-1111-1111-111111111111\n", "33333333-3333-3333-3333-333333333333"]}}';
select set_eq('select meshhook_metrics.tenant_ids()', array['33333333-3333-3333-3333-333333333333']::uuid[], 'what is no uuid is ignored');
select is_empty(format($$ select meshhook_metrics.tenant_ids() from (select set_config('request.jwt.claims', %L, true)) s $$, claims), 'nothing can be made of ' || claims)
from unnest(array['{}', '[]', '"x"', '1', 'null', '{"app_metadata": null}', '{"app_metadata": "x"}', '{"app_metadata": []}', '{"app_metadata": {"tenant_ids": null}}',
	'{"app_metadata": {"tenant_ids": "11111111-1111-1111-1111-111111111111"}}', '{"app_metadata": {"tenant_ids": {"11111111-1111-1111-1111-111111111111": 1}}}']) claims;
set local request.jwt.claims = 'not json';
select is_empty('select meshhook_metrics.tenant_ids()', 'nor of what is not JSON');
set local request.jwt.claims = '{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}';
reset role;

-- By user_project_ids(), if it is somebody's who could replace tenant_ids() as well
\set keeper regress_owner
\ir ../sql/include/meshhook.sql
select set_config('request.jwt.claims', (:'claims_a'::jsonb || '{"app_metadata": {"tenant_ids": ["33333333-3333-3333-3333-333333333333"]}}')::text, true);
create function pg_temp.asked() returns text
language plpgsql as $$
declare
	answer text;
begin
	set local role authenticated;
	answer := (select string_agg(left(t::text, 1), ' ') from meshhook_metrics.tenant_ids() t);
	reset role;
	return answer;
end
$$;
select is(pg_temp.asked(), '1', 'one of the same owner');
alter function public.user_project_ids() owner to regress_other;
select is(pg_temp.asked(), '3', 'not one that somebody else has planted');
alter function public.user_project_ids() owner to current_user;
select is(pg_temp.asked(), '1', 'one of a superuser');
drop function public.user_project_ids() cascade;
create function public.user_project_ids() returns setof text language sql stable as $$ select 'x' $$;
select is(pg_temp.asked(), '3', 'not one that gives something else');
drop function public.user_project_ids();
create function public.user_project_ids(a int default 1) returns setof uuid language sql stable as $$ select '55555555-5555-5555-5555-555555555555'::uuid $$;
select is(pg_temp.asked(), '3', 'nor one with arguments');

select * from finish();
rollback;
