-- What version 0.1.0 made is brought up to date by the migrations; what a site has put in
-- its place, or changed, is left alone
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create function pg_temp.tenants(claims text) returns text
language sql as $$
	select pg_temp.ask('authenticated', claims,
		'select string_agg(distinct left(tenant_id::text, 1), '''' order by left(tenant_id::text, 1)) from meshhook_metrics.series')
$$;
create function pg_temp.policies(text_of_it text) returns text
language sql set search_path = '' as $$
	select pg_catalog.string_agg(p.polrelid::pg_catalog.regclass::text, ' ' order by p.polrelid::pg_catalog.regclass::text collate "C")
	from pg_catalog.pg_policy p
	where pg_catalog.pg_get_expr(p.polqual, p.polrelid) = text_of_it
		and (p.polwithcheck is null or pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) = text_of_it)
$$;
\set former '(tenant_id IN ( SELECT meshhook_metrics.tenant_ids() AS tenant_ids))'
\set present '(tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))'
\set tables 'meshhook_metrics.alert_events meshhook_metrics.alert_rules meshhook_metrics.alerts meshhook_metrics.live meshhook_metrics.rollup_1d meshhook_metrics.rollup_1h meshhook_metrics.rollup_1m meshhook_metrics.rollup_5m meshhook_metrics.series'

-- As 0.1.0 had it
create procedure pg_temp.as_before()
language plpgsql as $before$
declare
	storage text;
begin
	set local role tenancy_owner;
	create or replace function meshhook_metrics.tenant_ids()
	returns setof uuid
	language plpgsql stable
	set search_path = ''
	as $$
	declare
		tenants jsonb;
	begin
		-- Anybody who may create in public could make a function of that name
		if exists (
			select
			from pg_catalog.pg_proc p
			join pg_catalog.pg_roles r
				on r.oid = p.proowner
			where p.oid = pg_catalog.to_regprocedure('public.user_project_ids()')
				and p.prorettype = 'pg_catalog.uuid'::pg_catalog.regtype
				and (
					r.rolsuper
					or p.proowner = (
						select own.proowner
						from pg_catalog.pg_proc own
						where own.oid = 'meshhook_metrics.tenant_ids()'::pg_catalog.regprocedure)))
		then
			return query execute 'select public.user_project_ids()';
			return;
		end if;

		tenants := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' -> 'tenant_ids';
		if pg_catalog.jsonb_typeof(tenants) = 'array' then
			return query
			select element::uuid
			from pg_catalog.jsonb_array_elements_text(tenants) element
			where element ~ '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$';
		end if;
	end
	$$;
	foreach storage in array array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'alerts', 'alert_events'] loop
		execute format('alter policy tenants_read_their_own on meshhook_metrics.%I using (tenant_id in (select meshhook_metrics.tenant_ids()))', storage);
	end loop;
	alter policy tenants_manage_their_own on meshhook_metrics.alert_rules
	using (tenant_id in (select meshhook_metrics.tenant_ids())) with check (tenant_id in (select meshhook_metrics.tenant_ids()));
	revoke all on schema meshhook_metrics from anon;
	revoke all on meshhook_metrics.live, meshhook_metrics.alert_events from anon;
	reset role;
end
$before$;
create procedure pg_temp.migrate_body(change text)
language plpgsql as $$
declare
	definition text := pg_get_functiondef('meshhook_metrics.tenant_ids()'::regprocedure);
begin
	call pg_temp.as_before();
	execute (select regexp_replace(pg_get_functiondef('meshhook_metrics.tenant_ids()'::regprocedure), split_part(change, ' => ', 1), split_part(change, ' => ', 2), 'g'));
end
$$;

create temp table present as
select p.prosrc, p.proacl::text, p.proowner, obj_description(p.oid) as comment from pg_proc p where p.oid = 'meshhook_metrics.tenant_ids()'::regprocedure;
select is(pg_temp.policies(:'present'), :'tables', 'policies compare with an array');
call pg_temp.as_before();
select is(pg_temp.policies(:'former'), :'tables', 'they did with IN');
select matches(pg_temp.tenants(:'claims_a'), '^42P01', 'and MeshHook''s function raised');
-- With a search_path in which its name is shown without the schema
set local role tenancy_owner;
set local search_path = meshhook_metrics, public;
\ir ../sql/include/migrations.sql
set local search_path = default;
reset role;
select is(pg_temp.policies(:'present'), :'tables', 'the migrations alter the policies');
select is(pg_temp.tenants(:'claims_a'), '(1)', 'and the function');
select results_eq($$ select p.prosrc, p.proacl::text, p.proowner, obj_description(p.oid) from pg_proc p where p.oid = 'meshhook_metrics.tenant_ids()'::regprocedure $$,
	'table present', 'which is as in a new database, with its rights and its owner');
select is(has_schema_privilege('anon', 'meshhook_metrics', 'usage') and has_column_privilege('anon', 'meshhook_metrics.live', 'id', 'select')
	and has_column_privilege('anon', 'meshhook_metrics.alert_events', 'id', 'select'), true, 'anon has its keys');

-- White space and attributes do not make it another
call pg_temp.migrate_body(E'\n\t+ => \r\n  ');
alter function meshhook_metrics.tenant_ids() set search_path = public;
alter function meshhook_metrics.tenant_ids() security definer;
\ir ../sql/include/migrations.sql
select is((select format('%s %s %s', p.prosrc = f.prosrc, p.proconfig, p.prosecdef) from present f, pg_proc p where p.oid = 'meshhook_metrics.tenant_ids()'::regprocedure),
	't {"search_path=\"\""} f', 'one with other white space, path and rights is ours');
-- A word does
call pg_temp.migrate_body('tenant_ids''; => my_tenants'';');
create temp table of_the_site as select prosrc from pg_proc where oid = 'meshhook_metrics.tenant_ids()'::regprocedure;
select is((select prosrc ~ 'my_tenants' from of_the_site), true, 'the site reads another claim');
\ir ../sql/include/migrations.sql
select is((select p.prosrc = s.prosrc from of_the_site s, pg_proc p where p.oid = 'meshhook_metrics.tenant_ids()'::regprocedure), true, 'and goes on to');

-- Policies of the site's
call pg_temp.as_before();
alter policy tenants_read_their_own on meshhook_metrics.live using (tenant_id in (select meshhook_metrics.tenant_ids()) and seconds > 0);
alter policy tenants_manage_their_own on meshhook_metrics.alert_rules with check (tenant_id in (select meshhook_metrics.tenant_ids()) and severity <> 'critical');
create policy of_the_site on meshhook_metrics.series for select to tenancy_stranger using (tenant_id in (select meshhook_metrics.tenant_ids()));
create temp table former_policies as
select polrelid, polname, polroles, pg_get_expr(polqual, polrelid) as shows, pg_get_expr(polwithcheck, polrelid) as checks from pg_policy;
\ir ../sql/include/migrations.sql
select set_eq($$
	select f.polrelid::regclass::text, f.polname::text, p.oid is not null and pg_get_expr(p.polqual, p.polrelid) = f.shows as shows, pg_get_expr(p.polwithcheck, p.polrelid) = f.checks as checks
	from former_policies f
	left join pg_policy p on p.polrelid = f.polrelid and p.polname = f.polname and p.polroles = f.polroles
	where f.polrelid::regclass::text in ('meshhook_metrics.live', 'meshhook_metrics.alert_rules', 'meshhook_metrics.series') $$,
	$$ values
		('meshhook_metrics.live', 'tenants_read_their_own', true, null::boolean),
		('meshhook_metrics.alert_rules', 'tenants_manage_their_own', false, true),
		('meshhook_metrics.series', 'tenants_read_their_own', false, null),
		('meshhook_metrics.series', 'of_the_site', true, null) $$,
	'what a site has changed or added is as it was, what is ours is altered');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
