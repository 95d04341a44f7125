-- Whose rows one may read by the claims of a request, on a site without
-- user_project_ids(), and when such a function, or one in place of tenant_ids(), counts
\ir ../sql/include/tenancy.sql
drop function public.user_project_ids() cascade;
\set told `psql -X -q -A -t -c 'set role authenticated' -c "set request.jwt.claims = '{'" -c 'select count(*) from meshhook_metrics.series' 2>&1`
-- A session that has types of these names of its own from the start
\set typed `psql -X -q -A -t -v ON_ERROR_STOP=1 -c 'set role authenticated; create domain pg_temp.jsonb as pg_catalog.text check (false); create domain pg_temp.uuid as pg_catalog.text check (false)' -c "set request.jwt.claims = '{\"app_metadata\": {\"tenant_ids\": [\"11111111-1111-1111-1111-111111111111\"]}}'" -c 'select count(*) > 0 from meshhook_metrics.series' 2>&1`
begin;
select no_plan();
\set claims_a '{"role": "authenticated", "app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}'
\set claims_b '{"role": "authenticated", "app_metadata": {"tenant_ids": ["22222222-2222-2222-2222-222222222222"]}}'

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
select is(pg_temp.tenants(claims), '()', 'nobody: ' || left(claims, 80))
from unnest(array['{', 'x', ' ', '{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}',
	'{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111", "\u0000"]}}',
	-- The parser's stack ends before these do
	repeat('[', 1000000), repeat('{"app_metadata":', 1000000)]) claims;
select is(:'typed'::text, 't', 'temporary types are not taken for PostgreSQL''s');
select is(:'told'::text, E'WARNING:  the caller has no tenants, because request.jwt.claims failed: invalid input syntax for type json\nHINT:  This setting has the claims of a token, a JSON object. See what the API server, or the session, sets it to.\n0',
	'who has such claims is told why, once a statement');
select is(pg_temp.ask('authenticated', claims, statement), answer, format('with claims %s: %s', claims, left(statement, 60)))
from unnest(array['x', '{}', '']) claims,
	(values
		('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (''11111111-1111-1111-1111-111111111111'', ''x'', ''x'', ''last'', 1)',
			'42501: new row violates row-level security policy for table "alert_rules"'),
		('select count(*) from meshhook_metrics.alert_rules', '(0)')) w (statement, answer);
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
-- One that fails by what it is, or is given: nobody, not whom the claims name, nor any
-- of whom it named before
create sequence public.tenancy_sequence;
grant usage on sequence public.tenancy_sequence to authenticated;
create function pg_temp.with_function_that(does text) returns text
language plpgsql as $$
begin
	return pg_temp.with_function('tenancy_owner', format('create function public.user_project_ids() returns setof uuid language plpgsql stable as $x$
			begin return next ''22222222-2222-2222-2222-222222222222''; %s; end $x$', does),
		'{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}');
exception when query_canceled or others then
	return sqlstate || ': ' || sqlerrm;
end
$$;
select is(pg_temp.with_function_that('null'), '(2)', 'a function that does nothing else names somebody');
select is(pg_temp.with_function_that(failure), '()', 'nobody, where it fails with ' || failure)
from unnest(array[
	'raise ''broken''', 'raise exception using errcode = ''22023''', 'assert false', 'perform 1 / 0', 'perform ''x''::uuid',
	'perform ''{''::jsonb', 'perform 1 from no_table', 'perform no_function()', 'perform no_column from public.projects', 'perform 1 from no_schema.t',
	'return query select 1', 'perform 1 from meshhook_metrics.settings', 'delete from public.projects', 'create table t ()', 'set role tenancy_owner',
	'perform set_config(''no such setting'', '''', true)', 'perform set_config(''work_mem'', ''0'', true)',
	'commit', 'perform public.user_project_ids()', 'return next repeat(''x'', 1000)', 'perform currval(''public.tenancy_sequence'')']) failure;
select is(pg_temp.with_function('tenancy_owner', :'function_of_b' || '; revoke all on function public.user_project_ids() from public', :'claims_a'), '()',
	'nobody, where it may not be called');
select is(pg_temp.with_function('tenancy_owner', 'create function public.user_project_ids() returns setof uuid language sql stable as $x$ select t::uuid from unnest(array[''22222222-2222-2222-2222-222222222222'', ''x'']) t $x$', :'claims_a'), '()',
	'nobody, where one of its rows is nobody');
-- What can be gone when it is tried again is no answer
select matches(pg_temp.with_function_that(format('raise exception using errcode = %L', code)), '^' || code, code || ' is raised')
from unnest(array['40001', '40P01', '53000', '53100', '53200', '53300', '55P03', '57014', '57P01', '57P03', '58000', '58030', '72000', 'XX000', 'XX001', 'XX002']) code;
set local statement_timeout = '1s';
select is(pg_temp.with_function_that('perform pg_sleep(600)'), '57014: canceling statement due to statement timeout', 'what takes too long is canceled');
reset statement_timeout;
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
