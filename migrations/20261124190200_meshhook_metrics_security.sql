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

-- The worker writes as the owner of the tables, who should not be a superuser. So
-- what a superuser has made, or made again, goes to whom the other tables belong, or
-- the schema.
do $$
declare
	keeper name;
	own_storage text[] := array[
		'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'settings',
		'alert_state', 'alert_gaps', 'alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications'];
	own_functions text[] := array[
		'labels_digest', 'check_settings', 'tenant_ids',
		'check_alert_rule', 'check_alert_annotations', 'check_alert_receiver', 'count_alert_rules'];
	strange text;
begin
	select owners.name
	into keeper
	from (
		select r.rolname as name, r.rolsuper, c.oid::bigint as age
		from pg_catalog.pg_class c
		join pg_catalog.pg_roles r
			on r.oid = c.relowner
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and c.relname = any (own_storage)
		union all
		select r.rolname, r.rolsuper, 'infinity'::double precision
		from pg_catalog.pg_namespace n
		join pg_catalog.pg_roles r
			on r.oid = n.nspowner
		where n.nspname = 'meshhook_metrics') owners
	where not owners.rolsuper
	order by owners.age
	limit 1;
	if keeper is null or not pg_catalog.pg_has_role(keeper, 'member') then
		return;
	end if;

	for strange in
		select pg_catalog.format('table %s', c.oid::pg_catalog.regclass)
		from pg_catalog.pg_class c
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and (
				c.relname = any (own_storage)
				or c.relname in (
					select l.leaf
					from meshhook_metrics.rollup_targets() t
					cross join lateral meshhook_metrics.leaves(t.target) l))
			and pg_catalog.pg_get_userbyid(c.relowner) <> keeper
		union all
		select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure)
		from pg_catalog.pg_proc p
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and p.proname = any (own_functions)
			and pg_catalog.pg_get_userbyid(p.proowner) <> keeper
	loop
		execute pg_catalog.format('alter %s owner to %I', strange, keeper);
	end loop;
end
$$;

-- Policies. A tenant's rows are its own, and its rules are its users' to write; how far the rollups and flushes are is about
-- nobody in particular, and query_range() has to know. Settings show themselves to
-- nobody.
do $$
declare
	policy record;
	readers text := case
		when exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then 'authenticated'
		else 'public'
	end;
begin
	-- In the order of the flush worker, so that nobody waits in a circle
	lock table meshhook_metrics.alert_state, meshhook_metrics.flush_state, meshhook_metrics.rollup_state in access exclusive mode;
	for policy in
		select s.storage, s.name, s.shown
		from (
			values
				('alerts', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('alert_events', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('series', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('live', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1m', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_5m', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1h', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1d', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_state', 'readers_see_how_far_it_is', $q$target in ('1m', '5m', '1h', '1d')$q$),
				('flush_state', 'readers_see_how_far_it_is', 'tick > 0')
		) s (storage, name, shown)
		where not exists (
			select
			from pg_catalog.pg_policy p
			where p.polrelid = pg_catalog.format('meshhook_metrics.%I', s.storage)::pg_catalog.regclass
				and p.polname = s.name)
	loop
		execute pg_catalog.format('create policy %I on meshhook_metrics.%I for select to %s using (%s)',
			policy.name, policy.storage, readers, policy.shown);
	end loop;

	if not exists (
		select
		from pg_catalog.pg_policy p
		where p.polrelid = 'meshhook_metrics.alert_rules'::pg_catalog.regclass
			and p.polname = 'tenants_manage_their_own')
	then
		execute pg_catalog.format(
			'create policy tenants_manage_their_own on meshhook_metrics.alert_rules for all to %s '
			'using (tenant_id in (select meshhook_metrics.tenant_ids())) '
			'with check (tenant_id in (select meshhook_metrics.tenant_ids()))',
			readers);
	end if;
end
$$;

-- Grants on tables. Default privileges may have given the API's roles rights on all
-- that is created; here they get what is listed, and nothing else. What a site has
-- added to the schema is its own.
do $$
declare
	storage text;
	api_role name;
	-- In the order of who inserts a rule, and of who takes notifications
	tables text[] := array[
		'alert_rules', 'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'settings',
		'alert_state', 'alert_gaps', 'alerts', 'alert_events', 'alert_notifications', 'alert_receivers'];
	for_tenants text[] := array[
		'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state',
		'alert_rules', 'alerts', 'alert_events'];
	-- The rest of a rule is the server's: id, times, errors
	written_by_people constant text :=
		'tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_labels, denominator_min, group_by, comparison, threshold, '
		'recovery_threshold, time_window, for_duration, keep_firing_for, no_data, no_data_for, severity, annotations, '
		'repeat_interval, enabled, silenced_until';
	api_roles name[] := array(
		select r.rolname
		from pg_catalog.pg_roles r
		where r.rolname in ('anon', 'authenticated', 'service_role'));
begin
	revoke all on schema meshhook_metrics from public;
	foreach api_role in array api_roles loop
		execute pg_catalog.format('revoke all on schema meshhook_metrics from %I', api_role);
		if api_role <> 'anon' then
			execute pg_catalog.format('grant usage on schema meshhook_metrics to %I', api_role);
		end if;
	end loop;

	for storage in
		select pg_catalog.unnest(tables)
		union all
		select l.leaf
		from meshhook_metrics.rollup_targets() t
		cross join lateral meshhook_metrics.leaves(t.target) l
	loop
		-- A leaf that was attached by hand may lack it
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
		execute pg_catalog.format('revoke all on meshhook_metrics.%I from public', storage);
		foreach api_role in array api_roles loop
			execute pg_catalog.format('revoke all on meshhook_metrics.%I from %I', storage, api_role);
			if api_role = 'service_role' and storage = any (tables)
				or api_role = 'authenticated' and storage = any (for_tenants)
			then
				execute pg_catalog.format('grant select on meshhook_metrics.%I to %I', storage, api_role);
			elsif api_role = 'authenticated' and storage = 'flush_state' then
				grant select (at) on meshhook_metrics.flush_state to authenticated;
			end if;
			if api_role <> 'anon' and storage = 'alert_rules' then
				execute pg_catalog.format('grant insert (%1$s), update (%1$s), delete on meshhook_metrics.alert_rules to %2$I',
					written_by_people, api_role);
			elsif api_role = 'service_role' and storage = 'alert_receivers' then
				grant insert, update, delete on meshhook_metrics.alert_receivers to service_role;
			elsif api_role = 'service_role' and storage = 'alert_notifications' then
				grant update (attempts, next_attempt_at, last_error, delivered_at, dead_at) on meshhook_metrics.alert_notifications to service_role;
			end if;
		end loop;
	end loop;

	foreach storage in array array['series', 'live', 'alert_events', 'alert_notifications'] loop
		execute pg_catalog.format('revoke all on sequence %s from public',
			pg_catalog.pg_get_serial_sequence('meshhook_metrics.' || storage, 'id'));
		foreach api_role in array api_roles loop
			execute pg_catalog.format('revoke all on sequence %s from %I',
				pg_catalog.pg_get_serial_sequence('meshhook_metrics.' || storage, 'id'), api_role);
		end loop;
	end loop;
end
$$;

-- Grants on functions: those of the extension, and those of the migrations
do $$
declare
	routine record;
	api_role name;
	refused bigint := 0;
	recording text[] := array[
		'inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since', 'record', 'describe',
		'snapshot', 'status', 'prometheus', 'flush', 'claim_notifications', 'finish_notification'];
begin
	for routine in
		select
			p.oid,
			p.proname as name,
			p.oid::pg_catalog.regprocedure as signature,
			pg_catalog.pg_get_userbyid(live.relowner) as keeper
		from pg_catalog.pg_proc p
		cross join pg_catalog.pg_class live
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and live.oid = 'meshhook_metrics.live'::pg_catalog.regclass
			and (
				p.proname in (
					'labels_digest', 'check_settings', 'tenant_ids',
					'check_alert_rule', 'check_alert_annotations', 'check_alert_receiver', 'count_alert_rules')
				or exists (
					select
					from pg_catalog.pg_depend d
					join pg_catalog.pg_extension e
						on e.oid = d.refobjid
					where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
						and d.objid = p.oid
						and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
						and d.deptype = 'e'
						and e.extname = 'meshhook_metrics'))
	loop
		if not pg_catalog.has_function_privilege(routine.oid, 'execute with grant option') then
			refused := refused + 1;
			continue;
		end if;

		execute pg_catalog.format('revoke execute on routine %s from public', routine.signature);
		-- The worker rolls up as the owner of the tables
		if not pg_catalog.has_function_privilege(routine.keeper, routine.oid, 'execute') then
			execute pg_catalog.format('grant execute on routine %s to %I', routine.signature, routine.keeper);
		end if;
		for api_role in
			select r.rolname
			from pg_catalog.pg_roles r
			where r.rolname in ('anon', 'authenticated', 'service_role')
		loop
			execute pg_catalog.format('revoke execute on routine %s from %I', routine.signature, api_role);
			if api_role <> 'anon' and routine.name ~ '^(histogram|query_range|tenant_ids$|check_alert_annotations$)'
				or api_role = 'service_role' and routine.name = any (recording)
			then
				execute pg_catalog.format('grant execute on routine %s to %I', routine.signature, api_role);
			end if;
		end loop;
	end loop;
	if refused > 0 then
		raise warning '% may not grant % functions of meshhook_metrics', current_user, refused
			using hint = 'Apply this migration as the owner of the extension.';
	end if;
end
$$;

-- Realtime streams the tables of this publication
do $$
declare
	streamed text;
begin
	for streamed in
		select t.name
		from pg_catalog.unnest(array['live', 'alert_events']) t (name)
		where exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime')
			and not exists (
				select
				from pg_catalog.pg_publication_tables
				where pubname = 'supabase_realtime'
					and schemaname = 'meshhook_metrics'
					and tablename = t.name)
	loop
		begin
			execute pg_catalog.format('alter publication supabase_realtime add table meshhook_metrics.%I', streamed);
		exception when insufficient_privilege then
			raise notice 'meshhook_metrics.% is not in the publication supabase_realtime, which belongs to another role', streamed
				using hint = pg_catalog.format('As its owner: ALTER PUBLICATION supabase_realtime ADD TABLE meshhook_metrics.%I;', streamed);
		end;
	end loop;
end
$$;
