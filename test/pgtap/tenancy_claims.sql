-- Whose rows one may read, by the claims of a request or by a function of the site
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create function pg_temp.tenants(claims text) returns text
language sql as $$
	select pg_temp.ask('authenticated', claims,
		'select string_agg(distinct left(tenant_id::text, 1), '''' order by left(tenant_id::text, 1)) from meshhook_metrics.series')
$$;
-- The claims, with this for tenant_ids
create function pg_temp.of(ids text) returns text
language sql as $$
	select pg_temp.tenants(format('{"role": "authenticated", "app_metadata": {"provider": "email", "tenant_ids": %s}}', ids))
$$;

-- As they should be
select is(pg_temp.of(format('["%s"]', :'a')), '(1)', 'one tenant');
select is(pg_temp.of(format('["%s", "%s"]', :'a', :'b')), '(12)', 'several tenants');
select is(pg_temp.of(format('["%s", "%1$s"]', :'b')), '(2)', 'the same twice');
select is(pg_temp.of(upper(format('["%s"]', :'a'))), '(1)', 'in capitals');
select is(pg_temp.of('["aaaaaaaa-0000-0000-0000-AAAAAAAAAAAA"]'), '()', 'a tenant without rows');
select is(pg_temp.of('[]'), '()', 'no tenant');
select is(pg_temp.of((select jsonb_agg(gen_random_uuid()) || to_jsonb(array[:'b']) from generate_series(1, 20000))::text), '(2)', 'a huge list');

-- As they should not be: what is no UUID is nobody, what is no list has nobody
select is(pg_temp.of(ids), '()', 'nobody: ' || ids)
from unnest(array[
	'null', 'true', '0', '""', '{}', '"11111111-1111-1111-1111-111111111111"',
	'{"11111111-1111-1111-1111-111111111111": true}', '{"id": "11111111-1111-1111-1111-111111111111"}',
	'[["11111111-1111-1111-1111-111111111111"]]', '[{"id": "11111111-1111-1111-1111-111111111111"}]', '[[[]]]',
	'[null]', '[true]', '[11111111]', '[""]', '["*"]', '["%"]', '["null"]', '["all"]',
	'["11111111"]', '["11111111-1111-1111-1111-11111111111"]', '["11111111-1111-1111-1111-1111111111111"]',
	'["11111111-1111-1111-1111-11111111111g"]', '[" 11111111-1111-1111-1111-111111111111"]',
	'["11111111-1111-1111-1111-111111111111 "]', '["11111111-1111-1111-1111-111111111111\n"]', '["\n11111111-1111-1111-1111-111111111111"]',
	'["x\n11111111-1111-1111-1111-111111111111\nx"]',
	'["11111111-1111-1111-1111-111111111111,22222222-2222-2222-2222-222222222222"]',
	'["11111111-1111-1111-1111-111111111111'' or true --"]',
	'["\uff11\uff11111111-1111-1111-1111-111111111111"]']) ids;
select is(pg_temp.of(format('[null, 1, {}, ["%s"], "x", "%s", ""]', :'b', :'a')), '(1)', 'what is nobody does not spoil who is somebody');

-- Claims without the list
select is(pg_temp.tenants(claims), '()', 'nobody: ' || claims)
from unnest(array[
	'', 'null', '{}', '[]', '"x"', '5', 'true',
	'{"app_metadata": null}', '{"app_metadata": "tenant_ids"}', '{"app_metadata": []}', '{"app_metadata": ["tenant_ids"]}', '{"app_metadata": {}}',
	'{"app_metadata": [{"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}]}',
	'{"app_metadata": {"TENANT_IDS": ["11111111-1111-1111-1111-111111111111"]}}',
	-- What users can change themselves, or what is elsewhere, does not count
	'{"user_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}',
	'{"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}',
	'{"sub": "11111111-1111-1111-1111-111111111111"}',
	'{"app_metadata": {"tenant_id": "11111111-1111-1111-1111-111111111111"}}',
	'[{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}]']) claims;
select is(pg_temp.tenants(null), '()', 'nobody: a session that never had claims');
select matches(pg_temp.tenants(claims), '^22P0[25]: ', 'claims that are not JSON are an error: ' || claims)
from unnest(array['{', 'x', ' ', '{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}']) claims;
select is(pg_temp.ask('service_role', claims, 'select string_agg(distinct left(tenant_id::text, 1), '''') from meshhook_metrics.series'), '(012)',
	'service_role sees all, whatever its claims: ' || claims)
from unnest(array['', '{}', :'claims_a', 'x']) claims;
select matches(pg_temp.ask('anon', :'claims_a', 'select count(*) from meshhook_metrics.series'), '^42501', 'anon sees nothing with good claims either');
select is(pg_temp.ask('tenancy_stranger', :'claims_a', 'select count(*) from meshhook_metrics.series'), '42501: permission denied for schema meshhook_metrics',
	'nor does any other role');
select is(pg_temp.ask('authenticated', claims, $$ select count(*) from meshhook_metrics.query_range('shared_total', now() - interval '5 days') $$), '(0)',
	'query_range() has nothing for ' || claims)
from unnest(array['', '{}', '{"app_metadata": {"tenant_ids": null}}']) claims;

-- A request does not see the claims of the one before it in the same session
select is(pg_temp.tenants(:'claims_b'), '(2)', 'B''s request');
select is(pg_temp.tenants('{}'), '()', 'is over when the next comes');
select set_config('request.jwt.claims', :'claims_b', true);
set local role authenticated;
prepare mine as select coalesce(string_agg(distinct left(tenant_id::text, 1), ''), 'nobody') from meshhook_metrics.series;
select is((select string_agg(distinct left(tenant_id::text, 1), '') from meshhook_metrics.series), '2', 'a plan that was made for B');
select results_eq('mine', array['2'::text], 'and kept');
select set_config('request.jwt.claims', :'claims_a', true);
select results_eq('mine', array['1'::text], 'shows A''s rows to A');
reset role;
select results_eq('mine', array['012'::text], 'and all of them to who sees all');

-- A function of the site's, which MeshHook has
create function pg_temp.with_function(maker name, definition text, claims text) returns text
language plpgsql as $$
declare
	answer text;
begin
	perform set_config('role', maker, true);
	execute definition;
	perform set_config('role', 'none', true);
	answer := pg_temp.tenants(claims);
	raise exception using errcode = 'ZZ998', message = 'undo';
exception when sqlstate 'ZZ998' then
	return answer;
end
$$;
grant create on schema public to tenancy_owner, tenancy_stranger, authenticated, service_role;
\set function_of_b 'create function public.user_project_ids() returns setof uuid language sql stable as $x$ select ''22222222-2222-2222-2222-222222222222''::uuid $x$'
select is(pg_temp.with_function(role, :'function_of_b', :'claims_a'), '(1)', 'a function that ' || role || ' has planted is ignored')
from unnest(array['tenancy_stranger', 'authenticated', 'service_role']) role;
select is(pg_temp.with_function('tenancy_owner', :'function_of_b', :'claims_a'), '(2)', 'that of the owner of tenant_ids() counts, not the claims');
select is(pg_temp.with_function(current_user, :'function_of_b', :'claims_a'), '(2)', 'so does a superuser''s');
select is(pg_temp.with_function('tenancy_owner', definition, :'claims_a'), '(1)', 'one of another type does not: ' || substring(definition, 'user_\w+\(.*'))
from unnest(array[
	'create function public.user_project_ids() returns setof text language sql as $x$ select ''22222222-2222-2222-2222-222222222222'' $x$',
	'create function public.user_project_ids() returns uuid[] language sql as $x$ select array[''22222222-2222-2222-2222-222222222222'']::uuid[] $x$',
	'create function public.user_project_ids(integer default 1) returns setof uuid language sql as $x$ select ''22222222-2222-2222-2222-222222222222''::uuid $x$',
	'create function pg_temp.user_project_ids() returns setof uuid language sql as $x$ select ''22222222-2222-2222-2222-222222222222''::uuid $x$',
	'create function public.user_project_id() returns setof uuid language sql as $x$ select ''22222222-2222-2222-2222-222222222222''::uuid $x$']) definition;
select is(pg_temp.with_function('tenancy_owner', 'create function public.user_project_ids() returns setof uuid language sql as $x$ select null::uuid $x$', :'claims_a'), '()',
	'one that says nobody lets nobody see anything');
select matches(pg_temp.with_function('tenancy_owner', 'create function public.user_project_ids() returns setof uuid language plpgsql as $x$ begin raise ''broken''; end $x$', :'claims_a'),
	'^P0001: broken', 'one that fails does not fall back on the claims');
select matches(pg_temp.with_function('tenancy_owner', :'function_of_b' || '; revoke all on function public.user_project_ids() from public', :'claims_a'),
	'^42501: permission denied for function user_project_ids', 'nor one that may not be called');
-- In the shape that it has on Supabase
create table public.tenancy_members (project_id uuid, user_id uuid);
insert into public.tenancy_members values (:'b', '44444444-4444-4444-4444-444444444444');
alter table public.tenancy_members owner to tenancy_owner;
\set function_of_members 'create function public.user_project_ids() returns setof uuid language sql stable security definer set search_path = '''' as $x$ select m.project_id from public.tenancy_members m where m.user_id = (nullif(current_setting(''request.jwt.claims'', true), '''')::jsonb ->> ''sub'')::uuid $x$'
select is(pg_temp.with_function('tenancy_owner', :'function_of_members', claims), expected, 'members by sub: ' || claims)
from (values
	('{"sub": "44444444-4444-4444-4444-444444444444"}', '(2)'),
	('{"sub": "55555555-5555-5555-5555-555555555555", "app_metadata": {"tenant_ids": ["22222222-2222-2222-2222-222222222222"]}}', '()'),
	('{}', '()'), ('', '()')) c (claims, expected);

-- A function that a site has put in its place stays, with the grants, when the
-- migrations come again
set local role tenancy_owner;
create or replace function meshhook_metrics.tenant_ids() returns setof uuid
language sql stable set search_path = '' as $$ select '22222222-2222-2222-2222-222222222222'::uuid $$;
reset role;
select is(pg_temp.tenants(:'claims_a'), '(2)', 'a site replaces tenant_ids()');
set local role tenancy_owner;
\ir ../sql/include/migrations.sql
reset role;
select is(pg_temp.tenants(:'claims_a'), '(2)', 'and keeps it through the migrations');
select matches(pg_temp.ask('anon', null, 'select meshhook_metrics.tenant_ids()'), '^42501', 'to which anon has no right still');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
