-- Whose rows one may read on MeshHook's database: those of the user's projects, whatever
-- the token, the session or what others have put into public
\ir ../sql/include/tenancy.sql
\set told `psql -X -q -A -t -c 'set role authenticated' -c "set request.jwt.claims = '{\"sub\": \"x\"}'" -c 'select count(*) from meshhook_metrics.series' 2>&1`
-- A function of another role's is not asked, which the migrations say
alter function public.user_project_ids() owner to tenancy_stranger;
\set warned `PGOPTIONS='-c role=tenancy_owner -c client_min_messages=warning' psql -X -q -v ON_ERROR_STOP=1 -f migrations/20261124190200_meshhook_metrics_security.sql 2>&1 | sed 's/^psql:[^ ]* //'`
alter function public.user_project_ids() owner to tenancy_owner;
\set silent `PGOPTIONS='-c role=tenancy_owner -c client_min_messages=warning' psql -X -q -v ON_ERROR_STOP=1 -f migrations/20261124190200_meshhook_metrics_security.sql 2>&1`
begin;
select no_plan();
select is(:'warned'::text, E'WARNING:  metrics are shown by the claims of a token, not by public.user_project_ids(), which belongs to tenancy_stranger\nHINT:  If it is to decide: ALTER FUNCTION public.user_project_ids() OWNER TO tenancy_owner;',
	'that MeshHook''s function belongs to another role is told when the migrations are applied');
select is(:'silent'::text, '', 'and nothing where it does not');

create function pg_temp.tenants(claims text) returns text
language sql as $$
	select pg_temp.ask('authenticated', claims,
		'select string_agg(distinct left(tenant_id::text, 1), '''' order by left(tenant_id::text, 1)) from meshhook_metrics.series')
$$;

-- What MeshHook's own policies show, ours show
create temp table users (who text, claims text, hosts text, ours text);
insert into users values
	('A', :'claims_a', '("project of A",1)', '(1)'),
	('B', :'claims_b', '("project of B",1)', '(2)'),
	('a user of no project', :'claims_nobody', '(,0)', '()'),
	('a token without a user', '{"role": "authenticated"}', '(,0)', '()'),
	('a request without a token', '', '(,0)', '()'),
	('a session without a request', null, '(,0)', '()');
select is(pg_temp.ask('authenticated', claims, $$ select string_agg(p.name, ', '), (select count(*) from public.secrets) from public.projects p $$), hosts, 'MeshHook shows ' || who)
from users;
select is(pg_temp.tenants(claims), ours, 'the metrics show ' || who) from users;
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.query_range(%L, now() - interval ''5 days'', tenant => %L)', 'shared_total', tenant)) <> '(0)', shown,
	'query_range() shows A: ' || left(tenant, 1))
from (values (:'a', true), (:'b', false), (:'nil', false)) t (tenant, shown);
select is(pg_temp.tenants((:'claims_a'::jsonb || format('{"app_metadata": {"tenant_ids": ["%s"]}}', :'b')::jsonb)::text), '(1)', 'what a token says of tenants does not count');

-- Tokens that make auth.uid() raise: nobody, and no error
create temp table hostile (claims text);
insert into hostile
select format('{"role": "authenticated", "sub": %s, "app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}', sub)
from unnest(array[
	'"x"', '""', '" "', 'null', '"null"', '0', 'true', '[]', '{}', '["aaaaaaaa-0000-4000-8000-00000000000a"]', '{"id": "aaaaaaaa-0000-4000-8000-00000000000a"}',
	'"aaaaaaaa-0000-4000-8000-00000000000"', '"aaaaaaaa-0000-4000-8000-00000000000a0"', '" aaaaaaaa-0000-4000-8000-00000000000a"',
	'"aaaaaaaa-0000-4000-8000-00000000000a'' or true --"', '"*"', '"%"', '"\u0000"',
	to_jsonb(repeat('x', 1000000))::text]) sub
union all
select claims
from unnest(array['{', 'x', ' ', 'null', '{}', '[]', '"x"', '5', 'true', '[{"sub": "aaaaaaaa-0000-4000-8000-00000000000a"}]', '{"SUB": "aaaaaaaa-0000-4000-8000-00000000000a"}',
	'{"user_metadata": {"sub": "aaaaaaaa-0000-4000-8000-00000000000a"}}', '{"app_metadata": []}', '{"app_metadata": 1}', '{"app_metadata": {"tenant_ids": {}}}',
	repeat('[', 1000000)]) claims;
select is(pg_temp.tenants(claims), '()', 'nobody: ' || left(claims, 100)) from hostile;
select is(pg_temp.ask('authenticated', claims, format('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (%L, ''x'', ''x'', ''last'', 1)', :'a')),
	'42501: new row violates row-level security policy for table "alert_rules"', 'who writes no rule: ' || left(claims, 100))
from hostile;
select is(pg_temp.ask('authenticated', claims, format('%s returning name', change)), 'done', 'nor finds one to ' || left(change, 6))
from (select claims from hostile limit 1) h,
	unnest(array['update meshhook_metrics.alert_rules set enabled = false where true', 'delete from meshhook_metrics.alert_rules where true']) change;
select is((select count(*) from meshhook_metrics.alert_rules where enabled), 6::bigint, 'all rules are as they were');
select is(:'told'::text, E'WARNING:  the caller has no tenants, because public.user_project_ids() failed: invalid input syntax for type uuid: "x"\nHINT:  Where it is called, search_path is "pg_catalog, public, pg_temp". It must be callable by all who read metrics, and have no rows where it knows no user by the claims in request.jwt.claims.\n0',
	'the session is told why, once a statement');
-- PostgREST's older way to say who it is
select set_config('request.jwt.claim.sub', 'x', true);
select is(pg_temp.tenants(:'claims_a'), '()', 'nobody by a setting that is no uuid');
select set_config('request.jwt.claim.sub', 'bbbbbbbb-0000-4000-8000-00000000000b', true);
select is(pg_temp.tenants(:'claims_a'), '(2)', 'the user whom auth.uid() names counts');
select set_config('request.jwt.claim.sub', '', true);

-- In each kind of transaction, and not in a parallel plan, in which PostgreSQL before 17
-- can start no subtransaction
create function pg_temp.tenants_so(setup text, claims text) returns text
language plpgsql as $$
declare
	answer text;
begin
	execute setup;
	answer := pg_temp.tenants(claims);
	raise exception using errcode = 'ZZ998', message = 'undo';
exception when sqlstate 'ZZ998' then
	return answer;
end
$$;
select is(pg_temp.tenants_so('set transaction read only', claims), answer, 'where nothing may be written: ' || answer)
from (values (:'claims_a', '(1)'), ('{"sub": "x"}', '()')) c (claims, answer);
select is(pg_temp.ask('authenticated', :'claims_a', format('explain (costs off) select count(*) from meshhook_metrics.%I', name)) !~ 'Gather', true, 'no parallel plan of ' || name)
from (values ('series'), ('rollup_1m')) s (name),
	(select set_config('parallel_setup_cost', '0', true), set_config('parallel_tuple_cost', '0', true), set_config('min_parallel_table_scan_size', '0', true),
		set_config('max_parallel_workers_per_gather', '4', true)) settings;
select is((select proparallel from pg_proc where oid = 'meshhook_metrics.tenant_ids()'::regprocedure), 'u'::"char", 'as tenant_ids() cannot be called in one');

-- The caller's temporary tables, views and search_path decide nothing
grant create on schema public to authenticated, tenancy_stranger;
create schema tenancy_attack;
grant usage, create on schema tenancy_attack to authenticated;
set local role authenticated;
create table tenancy_attack.projects as select '22222222-2222-2222-2222-222222222222'::uuid as id, 'aaaaaaaa-0000-4000-8000-00000000000a'::uuid as owner;
grant select on tenancy_attack.projects to public;
create temp table projects as table tenancy_attack.projects;
grant select on projects to public;
create function pg_temp.user_project_ids() returns setof uuid language sql as $$ select id from pg_temp.projects $$;
create function tenancy_attack.user_project_ids() returns setof uuid language sql as $$ select id from pg_temp.projects $$;
create function tenancy_attack.unnest(uuid[]) returns setof uuid language sql as $$ select id from pg_temp.projects $$;
reset role;
select is(pg_temp.tenants_so('set local search_path = ' || path, :'claims_a'), '(1)', 'with projects of A''s own, and search_path ' || path)
from unnest(array['public', 'pg_temp, public', 'tenancy_attack, public', 'tenancy_attack, pg_temp, pg_catalog', '''''', 'pg_catalog', '"$user", public, auth']) path;
select is(pg_temp.ask_as_a(format('set local search_path = tenancy_attack, pg_temp, public; %s', 'do $x$ begin if (select count(*) from meshhook_metrics.series where tenant_id <> ''11111111-1111-1111-1111-111111111111'') > 0 then raise ''leaked''; end if; end $x$')),
	'done', 'also when it is set in the same request');
-- Where the path is wide, nothing but the site's function is looked up in it
set local role tenancy_stranger;
do $$
declare
	routine record;
begin
	-- For what is nowhere exactly PostgreSQL's own: arrays, and oid with a type that is cast to it
	for routine in
		select l.type as leftarg, r.type as rightarg, o.name
		from (values ('oid', array['regclass', 'regproc', 'regprocedure', 'regtype', 'regnamespace', 'regrole']),
				('uuid[]', '{uuid[]}'), ('text[]', '{text[]}'), ('oid[]', '{oid[]}'), ('name[]', '{name[]}')) l (type, rights)
		cross join unnest(l.rights) r (type)
		cross join unnest(array['=', '<>']) o (name)
	loop
		execute format($x$create or replace function public.planted(%s, %s) returns boolean language plpgsql as 'begin raise ''planted''; end'$x$, routine.leftarg, routine.rightarg);
		execute format('create operator public.%s (function = public.planted, leftarg = %s, rightarg = %s)', routine.name, routine.leftarg, routine.rightarg);
	end loop;
end
$$;
create function public.unnest(uuid[]) returns setof uuid language plpgsql as $$ begin raise 'planted'; end $$;
create function public.unnest(text[]) returns setof text language plpgsql as $$ begin raise 'planted'; end $$;
create table public.pg_proc (oid oid);
create table public.pg_roles (oid oid);
reset role;
select is(pg_temp.tenants_so('set local search_path = public', :'claims_a'), '(1)', 'nor do operators, functions and tables of a stranger in public');
set local search_path = public;
\ir ../sql/include/migrations.sql
select public.is(current_setting('search_path'), 'public', 'nor do the migrations call them, with such a path');
set local search_path = default;
drop owned by tenancy_stranger cascade;
select is(pg_temp.ask_as_a('select string_agg(distinct left(tenant_id::text, 1), '''') || '', '' || current_setting(''search_path'') from meshhook_metrics.series'),
	(select t::text from (select '1, ' || current_setting('search_path')) t), 'search_path is afterwards what it was');

-- What is missing: nobody, until it is there again
create function pg_temp.without(what text) returns text
language sql as $$
	select pg_temp.tenants_so(what, '{"sub": "aaaaaaaa-0000-4000-8000-00000000000a", "app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}')
$$;
select is(pg_temp.without('alter function public.user_project_ids() set search_path = public, pg_temp'), '(1)', 'a path that the function has of its own is kept');
drop table pg_temp.projects cascade;
select is(pg_temp.without(what), '()', 'nobody: ' || what)
from unnest(array['alter table public.projects rename to old_projects', 'alter table public.projects rename column owner to owner_id',
	'alter function auth.uid() rename to user_id', 'alter schema auth rename to old_auth',
	'revoke usage on schema auth from tenancy_owner', 'revoke execute on function auth.uid() from public', 'revoke execute on function public.user_project_ids() from public',
	'alter table public.projects owner to tenancy_stranger', 'alter function public.user_project_ids() set search_path = pg_catalog']) what;
select is(pg_temp.without('drop function public.user_project_ids() cascade'), '(1)', 'without the function the claims decide');
select is(pg_temp.tenants(:'claims_a'), '(1)', 'all is well again');

-- anon has the keys of both tables only while no policy holds for it
create function pg_temp.rights_of_anon() returns text
language sql as $$
	select concat_ws(' ',
		case when has_schema_privilege('anon', 'meshhook_metrics', 'usage') then 'schema' end,
		case when has_column_privilege('anon', 'meshhook_metrics.live', 'id', 'select') then 'live' end,
		case when has_column_privilege('anon', 'meshhook_metrics.alert_events', 'id', 'select') then 'alert_events' end)
$$;
select is(pg_temp.rights_of_anon(), 'schema live alert_events', 'as a rule it has them');
create policy of_the_site on meshhook_metrics.live for select to public using (tenant_id in (select public.user_project_ids()));
\ir ../sql/include/migrations.sql
select is(pg_temp.rights_of_anon(), 'schema alert_events', 'not of a table that has a policy for everybody');
create role regress_visitors nologin;
grant regress_visitors to anon;
create policy of_the_site on meshhook_metrics.alert_events to regress_visitors using (true);
\ir ../sql/include/migrations.sql
select is(pg_temp.rights_of_anon(), '', 'nor the schema, where both have one that holds for it');
drop policy of_the_site on meshhook_metrics.live;
drop policy of_the_site on meshhook_metrics.alert_events;
\ir ../sql/include/migrations.sql
select is(pg_temp.rights_of_anon(), 'schema live alert_events', 'until these are gone');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
