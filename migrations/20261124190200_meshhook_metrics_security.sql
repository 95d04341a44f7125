-- Who sees what: a tenant its own rows, everybody else nothing

-- A site may have a function of its own here, so one that exists is left alone
do $do$
begin
	if pg_catalog.to_regprocedure('meshhook_metrics.tenant_ids()') is not null then
		return;
	end if;

	create function meshhook_metrics.tenant_ids()
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

	comment on function meshhook_metrics.tenant_ids() is
	'The tenants whose metrics the caller may read; every policy asks it. The rows of public.user_project_ids() where that exists and belongs to the owner of this function or to a superuser; else the array app_metadata.tenant_ids of the claims in request.jwt.claims.
The one function that a site replaces: CREATE OR REPLACE FUNCTION keeps policies and grants, and applying the migrations again keeps the function.';
end
$do$;

-- Policies: one a table that tenants may read, none on the others
do $$
declare
	storage text;
	readers text := case
		when exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then 'authenticated'
		else 'public'
	end;
begin
	foreach storage in array array[
		'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'settings']
	loop
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
		if storage not in ('rollup_state', 'flush_state', 'settings') and not exists (
			select
			from pg_catalog.pg_policy p
			where p.polrelid = pg_catalog.format('meshhook_metrics.%I', storage)::pg_catalog.regclass
				and p.polname = 'tenants_read_their_own')
		then
			execute pg_catalog.format(
				'create policy tenants_read_their_own on meshhook_metrics.%I for select to %s '
				'using (tenant_id in (select meshhook_metrics.tenant_ids()))', storage, readers);
		end if;
	end loop;
end
$$;

-- Grants. Default privileges may have given the API's roles rights on all that is
-- created; here they get what is listed, and nothing else.
do $$
declare
	api_role text;
	granted text;
	reading text[] := array['query_range', 'tenant_ids'];
	recording text[] := array[
		'inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since', 'record', 'describe',
		'snapshot', 'status', 'prometheus', 'flush'];
begin
	execute 'revoke all on all tables in schema meshhook_metrics from public';
	execute 'revoke all on all sequences in schema meshhook_metrics from public';
	execute 'revoke execute on function meshhook_metrics.tenant_ids(), meshhook_metrics.labels_digest(jsonb), meshhook_metrics.check_settings() from public';

	for api_role in
		select r.rolname
		from pg_catalog.pg_roles r
		where r.rolname in ('anon', 'authenticated', 'service_role')
	loop
		execute pg_catalog.format('revoke all on all tables in schema meshhook_metrics from %I', api_role);
		execute pg_catalog.format('revoke all on all sequences in schema meshhook_metrics from %I', api_role);
		execute pg_catalog.format('revoke all on all routines in schema meshhook_metrics from %I', api_role);
		execute pg_catalog.format('revoke all on schema meshhook_metrics from %I', api_role);
		continue when api_role = 'anon';

		execute pg_catalog.format('grant usage on schema meshhook_metrics to %I', api_role);
		execute pg_catalog.format(
			'grant select on meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m, '
			'meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d to %I', api_role);
		if api_role = 'service_role' then
			execute pg_catalog.format(
				'grant select on meshhook_metrics.rollup_state, meshhook_metrics.flush_state, meshhook_metrics.settings to %I', api_role);
		end if;

		for granted in
			select p.oid::pg_catalog.regprocedure
			from pg_catalog.pg_proc p
			where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
				and (
					p.proname like 'histogram%'
					or p.proname = any (reading)
					or (p.proname = any (recording) and api_role = 'service_role'))
		loop
			execute pg_catalog.format('grant execute on routine %s to %I', granted, api_role);
		end loop;
	end loop;
end
$$;

-- Realtime streams the tables of this publication
do $$
begin
	if exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime')
		and not exists (
			select
			from pg_catalog.pg_publication_tables
			where pubname = 'supabase_realtime'
				and schemaname = 'meshhook_metrics'
				and tablename = 'live')
	then
		begin
			alter publication supabase_realtime add table meshhook_metrics.live;
		exception when insufficient_privilege then
			raise notice 'meshhook_metrics.live is not in the publication supabase_realtime, which belongs to another role'
				using hint = 'As its owner: ALTER PUBLICATION supabase_realtime ADD TABLE meshhook_metrics.live;';
		end;
	end if;
end
$$;
