-- Who sees what: a tenant its own rows, everybody else nothing

-- Others may have made operators and functions in a schema of the session's search_path
do $$
begin
	perform pg_catalog.set_config('meshhook.search_path', pg_catalog.current_setting('search_path'), false);
	perform pg_catalog.set_config('search_path', '', false);
end
$$;

-- What the migrations have made, as against what a site has added to the schema
do $$
begin
	-- In the order of who inserts a rule, and of who takes notifications
	perform pg_catalog.set_config('meshhook.tables',
		'alert_rules series live rollup_1m rollup_5m rollup_1h rollup_1d rollup_state flush_state metrics settings'
		' alert_state alert_gaps alerts alert_events alert_notifications alert_receivers', false);
	perform pg_catalog.set_config('meshhook.functions',
		'labels_digest check_settings tenant_ids rule series assign_alert_rule_columns'
		' check_alert_rule check_alert_annotations check_alert_receiver count_alert_rules', false);
end
$$;

-- A site may have a function of its own here, so one that exists is left alone, unless
-- its body is one that these migrations made: that is brought up to date.
do $do$
declare
	-- md5 of the bodies of former versions, their white space made one blank
	former constant text[] := array['6040cea8372fba4d1d2ab52786752cff'];
begin
	if exists (
		select
		from pg_catalog.pg_proc p
		where p.oid = pg_catalog.to_regprocedure('meshhook_metrics.tenant_ids()')
			and pg_catalog.md5(pg_catalog.regexp_replace(pg_catalog.btrim(p.prosrc, E' \t\r\n'), '\s+', ' ', 'g')) <> all (former))
	then
		return;
	end if;

	-- One that raised for one subscriber would end Realtime's stream for all of them, so
	-- what the caller's claims, or the site's function, do wrong means "no tenants".
	create or replace function meshhook_metrics.tenant_ids()
	returns setof uuid
	language plpgsql stable
	set search_path = ''
	as $$
	declare
		-- With their schema, or else temporary types of the caller's came first
		asked pg_catalog.text := 'request.jwt.claims';
		tenants pg_catalog.uuid[];
		claimed pg_catalog.jsonb;
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
			asked := 'public.user_project_ids()';
			-- It may name the site's tables without a schema. Nothing else is looked up in
			-- this path, which ends with the function, and in which a temporary table of the
			-- caller's comes last. All rows or none: so an array first.
			perform pg_catalog.set_config('search_path', 'pg_catalog, public, pg_temp', true);
			tenants := array(select public.user_project_ids());
		else
			claimed := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::pg_catalog.jsonb -> 'app_metadata' -> 'tenant_ids';
			if pg_catalog.jsonb_typeof(claimed) = 'array' then
				tenants := array(
					select element::pg_catalog.uuid
					from pg_catalog.jsonb_array_elements_text(claimed) element
					where element ~ '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$');
			end if;
		end if;
		return query select pg_catalog.unnest(tenants);
	exception when assert_failure or others then
		-- What says nothing about the claims or the function, and can be gone when it is
		-- tried again, is no answer: conflicts with other transactions, locks, lack of
		-- resources, an operator, the system. (others is without query_canceled.)
		if sqlstate ~ '^(40|53|57|58|72|XX)' or sqlstate = '55P03' then
			raise;
		end if;
		raise warning 'the caller has no tenants, because % failed: %', asked, pg_catalog.left(sqlerrm, 200)
			using errcode = sqlstate,
				hint = case asked
					when 'request.jwt.claims' then 'This setting has the claims of a token, a JSON object. See what the API server, or the session, sets it to.'
					else 'Where it is called, search_path is "pg_catalog, public, pg_temp". It must be callable by all who read metrics, and have no rows where it knows no user by the claims in request.jwt.claims.'
				end;
	end
	$$;

	comment on function meshhook_metrics.tenant_ids() is
	'The tenants whose metrics the caller may read; every policy asks it. The rows of public.user_project_ids() where that exists and belongs to the owner of this function or to a superuser; else the array app_metadata.tenant_ids of the claims in request.jwt.claims. Where either fails by what it is or is given, none, and a warning; errors that can be gone when it is tried again are raised.
The one function that a site replaces: CREATE OR REPLACE FUNCTION keeps policies and grants, and applying the migrations again keeps the function. One that raises ends Realtime''s stream for all subscribers.';
end
$do$;

-- The worker writes as the owner of the tables, who should not be a superuser. So
-- what a superuser has made, or made again, goes to whom the other tables belong, or
-- the schema.
do $$
declare
	keeper name;
	tables constant text[] := pg_catalog.string_to_array(pg_catalog.current_setting('meshhook.tables'), ' ');
	functions constant text[] := pg_catalog.string_to_array(pg_catalog.current_setting('meshhook.functions'), ' ');
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
			and c.relname = any (tables)
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
				c.relname = any (tables)
				or c.relname in (
					select l.leaf
					from meshhook_metrics.rollup_targets() t
					cross join lateral meshhook_metrics.leaves(t.target) l))
			and pg_catalog.pg_get_userbyid(c.relowner) <> keeper
		union all
		select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure)
		from pg_catalog.pg_proc p
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and p.proname = any (functions)
			and pg_catalog.pg_get_userbyid(p.proowner) <> keeper
	loop
		execute pg_catalog.format('alter %s owner to %I', strange, keeper);
	end loop;
end
$$;

-- A function of the site's that tenant_ids() does not ask is not passed over in silence
do $$
declare
	passed_over record;
begin
	for passed_over in
		select
			pg_catalog.pg_get_userbyid(p.proowner) as maker,
			pg_catalog.pg_get_userbyid(own.proowner) as keeper
		from pg_catalog.pg_proc p
		join pg_catalog.pg_roles r
			on r.oid = p.proowner
		join pg_catalog.pg_proc own
			on own.oid = 'meshhook_metrics.tenant_ids()'::pg_catalog.regprocedure
		where p.oid = pg_catalog.to_regprocedure('public.user_project_ids()')
			and p.prorettype = 'pg_catalog.uuid'::pg_catalog.regtype
			and not r.rolsuper
			and p.proowner <> own.proowner
			and own.prosrc like '%public.user_project_ids()%'
	loop
		raise warning 'metrics are shown by the claims of a token, not by public.user_project_ids(), which belongs to %', passed_over.maker
			using hint = pg_catalog.format('If it is to decide: ALTER FUNCTION public.user_project_ids() OWNER TO %I;', passed_over.keeper);
	end loop;
end
$$;

-- Policies. A tenant's rows are its own, and its rules are its users' to write; how far the rollups and flushes are is about
-- nobody in particular, and query_range() has to know. Settings show themselves to
-- nobody. An array lets an index on tenant_id be used, which IN does not.
do $$
declare
	policy record;
	own constant text := 'tenant_id = any (array(select meshhook_metrics.tenant_ids()))';
	former constant text := '(tenant_id IN ( SELECT meshhook_metrics.tenant_ids() AS tenant_ids))';
	made_here constant text[] := array[
		former,
		'(tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))',
		'(EXISTS ( SELECT FROM meshhook_metrics.series s WHERE ((s.metric = metrics.name) AND (s.tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids))))))',
		$q$(target = ANY (ARRAY['1m'::text, '5m'::text, '1h'::text, '1d'::text]))$q$,
		'(tick > 0)'];
	readers text := case
		when exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then 'authenticated'
		else 'public'
	end;
begin
	-- In the order of the flush worker, so that nobody waits in a circle
	lock table meshhook_metrics.alert_state, meshhook_metrics.flush_state, meshhook_metrics.rollup_state in access exclusive mode;
	for policy in
		select
			s.storage,
			s.name,
			s.shown,
			s.storage = 'alert_rules' as written,
			p.oid is not null as exists_already,
			p.polroles = '{0}' as for_everybody,
			-- All names in full, as no schema is searched, and in one line
			pg_catalog.regexp_replace(pg_catalog.pg_get_expr(p.polqual, p.polrelid), '\s+', ' ', 'g') as shows,
			pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as checks
		from (
			values
				('alerts', 'tenants_read_their_own', own),
				('alert_events', 'tenants_read_their_own', own),
				('series', 'tenants_read_their_own', own),
				('live', 'tenants_read_their_own', own),
				('rollup_1m', 'tenants_read_their_own', own),
				('rollup_5m', 'tenants_read_their_own', own),
				('rollup_1h', 'tenants_read_their_own', own),
				('rollup_1d', 'tenants_read_their_own', own),
				('metrics', 'tenants_read_those_they_have',
					$q$exists (
						select
						from meshhook_metrics.series s
						where s.metric = metrics.name
							and s.tenant_id = any (array(select meshhook_metrics.tenant_ids())))$q$),
				('rollup_state', 'readers_see_how_far_it_is', $q$target in ('1m', '5m', '1h', '1d')$q$),
				('flush_state', 'readers_see_how_far_it_is', 'tick > 0'),
				('alert_rules', 'tenants_manage_their_own', own)
		) s (storage, name, shown)
		left join pg_catalog.pg_policy p
			on p.polrelid = pg_catalog.format('meshhook_metrics.%I', s.storage)::pg_catalog.regclass
			and p.polname = s.name
	loop
		if not policy.exists_already then
			execute pg_catalog.format(
				case
					when policy.written then 'create policy %I on meshhook_metrics.%I for all to %s using (%s) with check (%4$s)'
					else 'create policy %I on meshhook_metrics.%I for select to %s using (%s)'
				end,
				policy.name, policy.storage, readers, policy.shown);
		end if;
		if policy.shows = former then
			execute pg_catalog.format('alter policy %I on meshhook_metrics.%I using (%s)', policy.name, policy.storage, policy.shown);
		end if;
		if policy.checks = former then
			execute pg_catalog.format('alter policy %I on meshhook_metrics.%I with check (%s)', policy.name, policy.storage, policy.shown);
		end if;
		-- Made before that role was there. It would hold for anon, too, which may not call
		-- what it calls.
		if policy.for_everybody and readers <> 'public' and policy.shows = any (made_here) then
			execute pg_catalog.format('alter policy %I on meshhook_metrics.%I to %s', policy.name, policy.storage, readers);
		end if;
	end loop;
end
$$;

-- What the roles of an API may do, and nothing else, with the schema, its tables, leaves
-- and sequences, the functions of the extension and those of the migrations; what a site
-- has added to the schema is its own. Default privileges, or somebody by hand, may have
-- given them more: that is taken back, also what other roles have granted where one may
-- act as they, and what is left is named.
do $$
declare
	-- The one list: what is not here, such as a leaf or a sequence, is nobody's. Names are
	-- patterns. All columns of rules, since who reads a row by an API sends all of it
	-- back; assign_alert_rule_columns() keeps those that are the server's.
	always constant text[] := array[
		-- kind, names, roles, privileges, columns
		['schema', 'meshhook_metrics', 'authenticated service_role', 'USAGE', ''],
		['table', 'series live rollup_1m rollup_5m rollup_1h rollup_1d metrics', 'authenticated service_role', 'SELECT', ''],
		-- Not live_id, which tells how much all tenants record
		['table', 'rollup_state', 'authenticated', 'SELECT', 'target complete_until retained_from'],
		['table', 'rollup_state', 'service_role', 'SELECT', ''],
		['table', 'flush_state', 'authenticated', 'SELECT', 'at'],
		['table', 'flush_state settings alert_state alert_gaps', 'service_role', 'SELECT', ''],
		['table', 'alerts alert_events', 'authenticated service_role', 'SELECT', ''],
		['table', 'alert_rules', 'authenticated service_role', 'SELECT INSERT UPDATE DELETE', ''],
		['table', 'alert_receivers', 'service_role', 'SELECT INSERT UPDATE DELETE', ''],
		['table', 'alert_notifications', 'service_role', 'SELECT', ''],
		['table', 'alert_notifications', 'service_role', 'UPDATE', 'attempts next_attempt_at last_error delivered_at dead_at'],
		['routine', 'histogram.* query_range.* tenant_ids rule series', 'authenticated service_role', 'EXECUTE', ''],
		['routine', 'inc gauge_set gauge_add observe observe_since record describe', 'service_role', 'EXECUTE', ''],
		['routine', 'snapshot status prometheus flush claim_notifications finish_notification', 'service_role', 'EXECUTE', '']];
	tables constant text[] := pg_catalog.string_to_array(pg_catalog.current_setting('meshhook.tables'), ' ');
	functions constant text[] := pg_catalog.string_to_array(pg_catalog.current_setting('meshhook.functions'), ' ');
	grantees constant text[] := array['public'] || array(
		select r.rolname::text
		from pg_catalog.pg_roles r
		where r.rolname in ('anon', 'authenticated', 'service_role'));
	-- Realtime sends a subscriber that may not read a table's key an empty event for each
	-- row of any tenant, and these use up what may be sent to all. One that may read the
	-- key, and for whom there is no policy, gets nothing. A policy for anon could call
	-- what anon may not; then, as with the key and not the schema, Realtime's check would
	-- raise, and nobody would get anything.
	keys_for_anon constant text[] := array(
		select t.name
		from pg_catalog.unnest(array['live', 'alert_events']) t (name)
		where not exists (
			select
			from pg_catalog.pg_policy p
			cross join pg_catalog.unnest(p.polroles) applies (role)
			join pg_catalog.pg_roles r
				on r.rolname = 'anon'
			where p.polrelid = pg_catalog.format('meshhook_metrics.%I', t.name)::pg_catalog.regclass
				and (applies.role = 0 or pg_catalog.pg_has_role(r.oid, applies.role, 'usage'))));
	listed constant text[] := always || case
		when keys_for_anon <> '{}' then array[
			['schema', 'meshhook_metrics', 'anon', 'USAGE', ''],
			['table', pg_catalog.array_to_string(keys_for_anon, ' '), 'anon', 'SELECT', 'id']]
		else '{}'
	end;
	-- The worker rolls up as the owner of the tables, who may apply this next time
	keeper constant name := (
		select pg_catalog.pg_get_userbyid(c.relowner)
		from pg_catalog.pg_class c
		where c.oid = 'meshhook_metrics.live'::pg_catalog.regclass);
	role_before constant text := pg_catalog.current_setting('role');
	kinds text[];
	oids oid[];
	identities text[];
	may_grant boolean;
	refused bigint := 0;
	-- "grantee privilege kind oid" and, of one, column
	allowed text[] := '{}';
	thing record;
	permitted record;
	excess record;
	step text;
	grantee text;
begin
	select
		pg_catalog.array_agg(o.kind order by o.place),
		pg_catalog.array_agg(o.oid order by o.place),
		pg_catalog.array_agg(i.identity order by o.place)
	into kinds, oids, identities
	from (
		select 'schema' as kind, 'pg_catalog.pg_namespace'::pg_catalog.regclass as catalog, 'meshhook_metrics'::pg_catalog.regnamespace::oid as oid, 0 as place
		union all
		select 'table', 'pg_catalog.pg_class', pg_catalog.format('meshhook_metrics.%I', t.name)::pg_catalog.regclass, t.place
		from pg_catalog.unnest(tables) with ordinality t (name, place)
		union all
		select 'table', 'pg_catalog.pg_class', pg_catalog.format('meshhook_metrics.%I', l.leaf)::pg_catalog.regclass, 100
		from meshhook_metrics.rollup_targets() t
		cross join lateral meshhook_metrics.leaves(t.target) l
		union all
		select 'sequence', 'pg_catalog.pg_class', pg_catalog.pg_get_serial_sequence('meshhook_metrics.' || s.name, 'id')::pg_catalog.regclass, 200
		from pg_catalog.unnest(array['series', 'live', 'alert_events', 'alert_notifications']) s (name)
		union all
		select 'routine', 'pg_catalog.pg_proc', p.oid, 300
		from pg_catalog.pg_proc p
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and (
				p.proname = any (functions)
				or exists (
					select
					from pg_catalog.pg_depend d
					join pg_catalog.pg_extension e
						on e.oid = d.refobjid
					where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
						and d.objid = p.oid
						and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
						and d.deptype = 'e'
						and e.extname = 'meshhook_metrics'))) o
	cross join lateral pg_catalog.pg_identify_object(o.catalog, o.oid, 0) i;

	for thing in
		select o.kind, o.oid, o.identity, pg_catalog.regexp_replace(o.identity, '^meshhook_metrics[.]|[(].*$', '', 'g') as name
		from rows from (pg_catalog.unnest(kinds), pg_catalog.unnest(oids), pg_catalog.unnest(identities)) o (kind, oid, identity)
	loop
		may_grant := thing.kind <> 'routine' or pg_catalog.has_function_privilege(thing.oid, 'execute with grant option');
		refused := refused + (not may_grant)::integer;
		if thing.kind = 'table' then
			-- A leaf that was attached by hand may lack it
			execute pg_catalog.format('alter table %s enable row level security', thing.identity);
		end if;
		if may_grant then
			foreach grantee in array grantees loop
				execute pg_catalog.format('revoke all on %s %s from %s cascade', thing.kind, thing.identity, grantee);
			end loop;
			if thing.kind = 'routine' and not pg_catalog.has_function_privilege(keeper, thing.oid, 'execute with grant option') then
				execute pg_catalog.format('grant execute on routine %s to %I with grant option', thing.identity, keeper);
			end if;
		end if;

		for permitted in
			select g.grantee, p.privilege, l.columns
			from (
				select
					pg_catalog.replace(listed[n][2], ' ', '|') as names,
					pg_catalog.string_to_array(listed[n][3], ' ') as roles,
					pg_catalog.string_to_array(listed[n][4], ' ') as privileges,
					pg_catalog.string_to_array(listed[n][5], ' ') as columns
				from pg_catalog.generate_subscripts(listed, 1) n
				where listed[n][1] = thing.kind) l
			cross join lateral pg_catalog.unnest(l.roles) g (grantee)
			cross join lateral pg_catalog.unnest(l.privileges) p (privilege)
			where thing.name ~ pg_catalog.format('^(%s)$', l.names)
				and g.grantee = any (grantees)
		loop
			if may_grant then
				execute pg_catalog.format('grant %s%s on %s %s to %s', permitted.privilege,
					' (' || nullif(pg_catalog.array_to_string(permitted.columns, ', '), '') || ')', thing.kind, thing.identity, permitted.grantee);
			end if;
			allowed := allowed || array(
				select pg_catalog.concat_ws(' ', permitted.grantee, permitted.privilege, thing.kind, thing.oid, c.name)
				from (values (1)) one
				left join pg_catalog.unnest(permitted.columns) c (name)
					on true);
		end loop;
	end loop;
	if refused > 0 then
		raise warning '% may not grant % functions of meshhook_metrics', current_user, refused
			using hint = 'Apply this migration as the owner of the extension.';
	end if;

	-- Only who has granted something can revoke it
	foreach step in array array['revoke', 'name'] loop
		for excess in
			select
				a.grantor,
				a.grantee,
				a.kind,
				a.privileges,
				pg_catalog.count(*) as objects,
				pg_catalog.string_agg(a.rights, ',') as rights,
				pg_catalog.format('revoke %s on %s %s from %s cascade', a.privileges, a.kind, pg_catalog.string_agg(a.identity, ', ' order by a.identity), a.grantee) as statement
			from (
				select
					pg_catalog.pg_get_userbyid(x.grantor) as grantor,
					coalesce(r.rolname, 'public') as grantee,
					o.kind,
					o.identity,
					pg_catalog.string_agg(pg_catalog.concat_ws(' ', x.privilege_type, '(' || pg_catalog.quote_ident(g.attname) || ')'), ', '
						order by x.privilege_type, g.attname) as privileges,
					pg_catalog.string_agg(pg_catalog.concat_ws(' ', coalesce(r.rolname, 'public'), x.privilege_type, o.kind, o.oid), ',') as rights
				from rows from (pg_catalog.unnest(kinds), pg_catalog.unnest(oids), pg_catalog.unnest(identities)) o (kind, oid, identity)
				cross join lateral (
					select n.nspacl as acl, null::name as attname
					from pg_catalog.pg_namespace n
					where o.kind = 'schema'
						and n.oid = o.oid
					union all
					select c.relacl, null
					from pg_catalog.pg_class c
					where o.kind in ('table', 'sequence')
						and c.oid = o.oid
					union all
					select a.attacl, a.attname
					from pg_catalog.pg_attribute a
					where o.kind = 'table'
						and a.attrelid = o.oid
						and not a.attisdropped
					union all
					select coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), null
					from pg_catalog.pg_proc p
					where o.kind = 'routine'
						and p.oid = o.oid) g
				cross join lateral pg_catalog.aclexplode(g.acl) x
				left join pg_catalog.pg_roles r
					on r.oid = x.grantee
				where (x.grantee = 0 or r.rolname = any (grantees))
					and (
						x.is_grantable
						or pg_catalog.concat_ws(' ', coalesce(r.rolname, 'public'), x.privilege_type, o.kind, o.oid, g.attname) <> all (allowed))
				group by x.grantor, r.rolname, o.kind, o.identity) a
			group by a.grantor, a.grantee, a.kind, a.privileges
			order by a.grantor, a.grantee, a.kind, a.privileges
		loop
			if step = 'name' then
				raise warning '% still has % on % % of meshhook_metrics, granted by %',
						excess.grantee, excess.privileges, excess.objects, excess.kind || case when excess.objects > 1 then 's' else '' end, excess.grantor
					using hint = pg_catalog.format('As %s: %s;', excess.grantor, excess.statement);
				allowed := allowed || pg_catalog.string_to_array(excess.rights, ',');
				continue;
			end if;
			begin
				perform pg_catalog.set_config('role', excess.grantor, true);
				execute excess.statement;
				perform pg_catalog.set_config('role', role_before, true);
			exception when insufficient_privilege then
				null;
			end;
		end loop;
	end loop;

	-- What they have as members of other roles, or as superusers
	for excess in
		select
			g.grantee,
			pg_catalog.string_agg(pg_catalog.format('%s on %s', e.privilege, o.identity), ', ' order by o.identity, e.privilege) as rights,
			(
				select pg_catalog.string_agg(distinct pg_catalog.quote_ident(r.rolname), ', ')
				from pg_catalog.pg_auth_members m
				join pg_catalog.pg_roles r
					on r.oid = m.roleid
				where m.member = pg_catalog.to_regrole(g.grantee)) as others
		from pg_catalog.unnest(grantees) g (grantee)
		cross join rows from (pg_catalog.unnest(kinds), pg_catalog.unnest(oids), pg_catalog.unnest(identities)) o (kind, oid, identity)
		cross join lateral pg_catalog.unnest(
			case o.kind
				when 'schema' then array['USAGE', 'CREATE']
				when 'table' then array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES', 'DELETE', 'TRUNCATE', 'TRIGGER']
					|| case when pg_catalog.current_setting('server_version_num')::integer >= 170000 then array['MAINTAIN'] end
				when 'sequence' then array['USAGE', 'SELECT', 'UPDATE']
				else array['EXECUTE']
			end) e (privilege)
		where g.grantee <> 'public'
			and case
				when o.kind = 'schema' then pg_catalog.has_schema_privilege(g.grantee, o.oid, e.privilege)
				when o.kind = 'sequence' then pg_catalog.has_sequence_privilege(g.grantee, o.oid, e.privilege)
				when o.kind = 'routine' then pg_catalog.has_function_privilege(g.grantee, o.oid, e.privilege)
				when e.privilege in ('DELETE', 'TRUNCATE', 'TRIGGER', 'MAINTAIN') then pg_catalog.has_table_privilege(g.grantee, o.oid, e.privilege)
				else pg_catalog.has_any_column_privilege(g.grantee, o.oid, e.privilege)
			end
			and not exists (
				select
				from pg_catalog.unnest(allowed) a (right_of)
				where pg_catalog.starts_with(a.right_of || ' ', pg_catalog.format('%s %s %s %s ', g.grantee, e.privilege, o.kind, o.oid))
					or pg_catalog.starts_with(a.right_of || ' ', pg_catalog.format('public %s %s %s ', e.privilege, o.kind, o.oid)))
		group by g.grantee
	loop
		raise warning '% has rights in meshhook_metrics that nobody has granted to it: %', excess.grantee,
				case when pg_catalog.length(excess.rights) > 1000 then pg_catalog.left(excess.rights, 1000) || ' and so on' else excess.rights end
			using hint = coalesce(
				'It is a member of ' || excess.others || ': revoke that from it, as a superuser.',
				'It is a superuser, or the owner: let it be another role, without these rights.');
	end loop;

	-- Rows, by no privilege: what they may read they see of all tenants
	for excess in
		select
			g.grantee,
			pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ' order by r.rolname) filter (where r.rolname <> g.grantee) as others
		from pg_catalog.unnest(grantees) g (grantee)
		join pg_catalog.pg_roles own
			on own.rolname = g.grantee
			and not own.rolsuper
		join pg_catalog.pg_roles r
			on (r.rolbypassrls or r.rolsuper or r.rolname = keeper)
			and pg_catalog.pg_has_role(own.oid, r.oid, 'member')
		where g.grantee in ('anon', 'authenticated')
		group by g.grantee
	loop
		raise warning 'row level security does not keep % to its own tenants', excess.grantee
			using hint = coalesce(
				'It can be ' || excess.others || ': revoke that from it, as a superuser.',
				pg_catalog.format('As a superuser: alter role %s nobypassrls;', excess.grantee));
	end loop;
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

do $$
begin
	perform pg_catalog.set_config('search_path', pg_catalog.current_setting('meshhook.search_path'), false);
end
$$;
