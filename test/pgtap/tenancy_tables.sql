-- Who may do what with each table, partition and sequence, and which rows he sees
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

-- The decisions. An object that is not here, or a right that is not, fails.
create temp table decided (object text, authenticated text, service_role text, anon text default '');
insert into decided values
	('series', 'SELECT', 'SELECT'),
	('live', 'SELECT', 'SELECT'),
	('rollup_1m', 'SELECT', 'SELECT'),
	('rollup_5m', 'SELECT', 'SELECT'),
	('rollup_1h', 'SELECT', 'SELECT'),
	('rollup_1d', 'SELECT', 'SELECT'),
	('rollup_state', 'SELECT(complete_until),SELECT(retained_from),SELECT(target)', 'SELECT'),
	('flush_state', 'SELECT(at)', 'SELECT'),
	('metrics', 'SELECT', 'SELECT'),
	('settings', '', 'SELECT'),
	('alert_state', '', 'SELECT'),
	('alert_gaps', '', 'SELECT'),
	('alerts', 'SELECT', 'SELECT'),
	('alert_events', 'SELECT', 'SELECT'),
	('alert_rules', 'DELETE,INSERT,SELECT,UPDATE', 'DELETE,INSERT,SELECT,UPDATE'),
	('alert_receivers', '', 'DELETE,INSERT,SELECT,UPDATE'),
	('leaf of meshhook_metrics.rollup_1m', '', ''),
	('leaf of meshhook_metrics.rollup_5m', '', ''),
	('leaf of meshhook_metrics.rollup_1h', '', ''),
	('leaf of meshhook_metrics.rollup_1d', '', ''),
	('series_id_seq', '', ''),
	('live_id_seq', '', ''),
	('alert_events_id_seq', '', ''),
	('alert_notifications_id_seq', '', '');
-- What is written of a notification, by who delivers it; the rest is the server's
create temp table written (object text, attname text);
insert into written
select 'alert_notifications', name
from unnest(array['attempts', 'next_attempt_at', 'last_error', 'delivered_at', 'dead_at']) name;
insert into decided
select object, '', string_agg(format('UPDATE(%s)', attname), ',' order by attname)
from written
where object = 'alert_notifications'
group by object;
update decided set service_role = 'SELECT,' || service_role where object = 'alert_notifications';
-- Where anon could not read the key, Realtime would send it an event for each row of all
update decided set anon = 'SELECT(id)' where object in ('live', 'alert_events');

select set_eq('select object from storage', 'select object from decided', 'every table, view, partition and sequence has been decided about');
select cmp_ok(count(*), '>=', 2::bigint, 'there are several partitions, each a ' || object)
from storage
where object like 'leaf of %'
group by object
order by object;

-- What the catalogue says, of tables, their columns and sequences
create function pg_temp.rights(role name, relation oid, kind "char") returns text
language sql as $$
	select coalesce(string_agg(r.privilege, ',' order by r.privilege), '')
	from (
		select p.privilege
		from unnest(case when kind = 'S' then array['SELECT', 'UPDATE', 'USAGE']
			else array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
				|| case when current_setting('server_version_num')::integer >= 170000 then array['MAINTAIN'] end
			end) p (privilege)
		where case
			when kind = 'S' then has_sequence_privilege(role, relation, p.privilege)
			else has_table_privilege(role, relation, p.privilege)
		end
		union all
		select format('%s(%s)', p.privilege, a.attname)
		from pg_attribute a, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p (privilege)
		where kind <> 'S'
			and a.attrelid = relation
			and a.attnum > 0
			and not a.attisdropped
			and has_column_privilege(role, relation, a.attnum, p.privilege)
			and not has_table_privilege(role, relation, p.privilege)) r
$$;
select is(pg_temp.rights(role, s.oid, s.relkind),
	case role when 'authenticated' then d.authenticated when 'service_role' then d.service_role when 'anon' then d.anon else '' end,
	format('rights of %s on %s', role, s.name))
from storage s
left join decided d using (object), unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role
order by s.name, role;
select is_empty(
	$$ select s.name, a.* from storage s join pg_class c using (oid), aclexplode(c.relacl) a where a.grantee = 0 or a.is_grantable and a.grantee <> c.relowner $$,
	'PUBLIC has no right on anything, and nobody but the owner can grant');
select is_empty(
	$$ select s.name, a.attname from storage s join pg_attribute a on a.attrelid = s.oid
		where a.attacl is not null
			and (s.name, a.attname) not in (values ('flush_state', 'at'), ('rollup_state', 'target'), ('rollup_state', 'complete_until'), ('rollup_state', 'retained_from'),
				('live', 'id'), ('alert_events', 'id'))
			and (s.name, a.attname) not in (select object, attname from written) $$,
	'no column has rights of its own, but how far rollups and flushes are, keys that are streamed, and what is written of notifications');
select is_empty($$ select name, relowner::regrole from storage join pg_class using (oid) where relowner <> 'tenancy_owner'::regrole $$,
	'all of it belongs to the role that applied the migrations');
select is_empty($$ select name from storage join pg_class using (oid) where storage.relkind <> 'S' and not relrowsecurity $$,
	'row level security is on everywhere, partitions included');
select set_eq(
	$$ select concat_ws(' ', c.relname, p.polname, p.polcmd, p.polpermissive, p.polroles::regrole[]::text, pg_get_expr(p.polqual, p.polrelid),
			'check ' || pg_get_expr(p.polwithcheck, p.polrelid))
		from pg_policy p join pg_class c on c.oid = p.polrelid where c.relnamespace = 'meshhook_metrics'::regnamespace $$,
	$$ select name || ' tenants_read_their_own r t {authenticated} (tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))'
		from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'alerts', 'alert_events']) name
		union all
		values
			('alert_rules tenants_manage_their_own * t {authenticated} (tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids))) '
				'check (tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))'),
			('metrics tenants_read_those_they_have r t {authenticated} (EXISTS ( SELECT' || E'\n   FROM meshhook_metrics.series s\n'
				'  WHERE ((s.metric = metrics.name) AND (s.tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids))))))'),
			('rollup_state readers_see_how_far_it_is r t {authenticated} (target = ANY (ARRAY[''1m''::text, ''5m''::text, ''1h''::text, ''1d''::text]))'),
			('flush_state readers_see_how_far_it_is r t {authenticated} (tick > 0)') $$,
	'policies let tenants read their own, and write rules of their own, and nothing else');

-- The schema and its types
select set_eq(
	$$ select r.role, p.privilege from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) r (role),
			unnest(array['USAGE', 'CREATE']) p (privilege)
		where has_schema_privilege(r.role, 'meshhook_metrics', p.privilege) $$,
	$$ values ('anon', 'USAGE'), ('authenticated', 'USAGE'), ('service_role', 'USAGE') $$,
	'only the roles of the API reach into the schema, and nobody creates in it');
select set_eq(
	$$ select typname::text from pg_type where typnamespace = 'meshhook_metrics'::regnamespace and typrelid = 0 and typelem = 0 $$,
	array['histogram'], 'the one type that is not a table''s is histogram');

-- What they get when they ask. Rows of both tenants and of the platform are there.
create temp view readable as
select name
from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'alert_rules', 'alerts', 'alert_events']) name;
create function pg_temp.tenants(role name, claims text, storage text) returns text
language sql as $$
	select pg_temp.ask(role, claims, format('select string_agg(distinct left(tenant_id::text, 1), '''') from meshhook_metrics.%I', storage))
$$;
select is(pg_temp.tenants('tenancy_owner', null, name), '(012)', 'the owner sees all of ' || name) from readable;
select is(pg_temp.tenants('service_role', null, name), '(012)', 'service_role sees all of ' || name) from readable;
select is(pg_temp.tenants('authenticated', :'claims_a', name), '(1)', 'tenant A sees its own of ' || name) from readable;
select is(pg_temp.tenants('authenticated', :'claims_b', name), '(2)', 'tenant B sees its own of ' || name) from readable;
select is(pg_temp.tenants('authenticated', null, name), '()', 'without claims nobody sees anything of ' || name) from readable;
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.%I where tenant_id <> %L', name, :'a')), '(0)',
	'who asks for the others in ' || name || ' gets nothing')
from readable;
select is(pg_temp.ask_as_a(format('select (tableoid::regclass)::text <> %L, tenant_id from meshhook_metrics.%I order by ctid limit 1', name, name)),
	format('(t,%s)', :'a'), 'system columns of ' || name || ' are of one''s own rows')
from readable;

select is(pg_temp.ask('tenancy_stranger', :'claims_a', format('select 1 from meshhook_metrics.%I limit 1', name)),
	'42501: permission denied for schema meshhook_metrics', 'a stranger does not reach ' || name)
from storage
order by name;
select is(pg_temp.ask(role, :'claims_a', format('select 1 from meshhook_metrics.%I limit 1', s.name)),
	format('42501: permission denied for %s %s', case s.relkind when 'S' then 'sequence' else 'table' end, s.name),
	format('%s does not read %s', role, s.name))
from storage s
join decided d using (object), unnest(array['anon', 'authenticated', 'service_role']) role
where case role when 'anon' then d.anon when 'authenticated' then d.authenticated else d.service_role end !~ '\mSELECT\M'
order by s.name, role;

-- anon may read keys, and finds none, without a function being called: whatever its claims
select is(pg_temp.ask('anon', claims, format(question, name)), answer, format('anon: ' || question, name))
from unnest(array['live', 'alert_events']) name,
	(values
		('select count(*), max(id) from meshhook_metrics.%I', '(0,)'),
		('select 1 from meshhook_metrics.%I', ''),
		('select exists (select 1 from meshhook_metrics.%I where id = 1)', '(f)')) q (question, answer),
	unnest(array[:'claims_a', :'claims_service', '', 'x', '{"sub": "x"}']) claims;
select is(pg_temp.ask('anon', :'claims_a', format('select %s from meshhook_metrics.%I', c, name)), '42501: permission denied for table ' || name,
	format('anon does not read %s of %s', c, name))
from unnest(array['live', 'alert_events']) name, unnest(array['tenant_id', '*', 'ctid', 'tableoid', name]) c;
-- Of descriptions, a tenant sees those of the metrics that it has
insert into meshhook_metrics.metrics (name, kind, help)
values ('everybodys_total', 'counter', 'x'), ('as_own_total', 'counter', 'x'), ('bs_secret_total', 'counter', 'x'), ('nobodys_total', 'counter', 'x');
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
values (:'a', 'everybodys_total', 'counter', '{"n": 1}'), (:'b', 'everybodys_total', 'counter', '{"n": 2}'), (:'a', 'as_own_total', 'counter', '{}'),
	(:'b', 'bs_secret_total', 'counter', '{}');
select is(pg_temp.ask_as_a('select name from meshhook_metrics.metrics order by name'), E'(as_own_total)\n(everybodys_total)', 'tenant A sees what describes its metrics');
select is(pg_temp.ask('authenticated', :'claims_b', 'select name from meshhook_metrics.metrics order by name'), E'(bs_secret_total)\n(everybodys_total)\n(secret_total)', 'tenant B its own');
select is(pg_temp.ask('authenticated', null, 'select count(*) from meshhook_metrics.metrics'), '(0)', 'who is nobody, nothing');
select is(pg_temp.ask('service_role', null, 'select count(*) from meshhook_metrics.metrics'), '(5)', 'service_role all');
select matches(pg_temp.ask(role, :'claims_a', statement), '^42501', role || ' does not write: ' || statement)
from unnest(array['authenticated', 'service_role']) role,
	unnest(array[$$ insert into meshhook_metrics.metrics (name, kind) values ('x_total', 'counter') returning 1 $$,
		$$ update meshhook_metrics.metrics set help = 'y' returning 1 $$, $$ delete from meshhook_metrics.metrics returning 1 $$]) statement;

-- How far it is, tenants may know, and nothing of who brought it there
select is(pg_temp.ask_as_a('select target, complete_until is not null and retained_from is not null from meshhook_metrics.rollup_state order by target'),
	E'(1d,t)\n(1h,t)\n(1m,t)\n(5m,t)', 'tenants see how far the rollups are');
select is(pg_temp.ask_as_a(format('select %s from meshhook_metrics.rollup_state', c)), '42501: permission denied for table rollup_state',
	'but not its ' || c)
from unnest(array['live_id', '*', 'ctid', 'xmin', 'rollup_state']) c;
select is(pg_temp.ask_as_a('select at > now() - interval ''1 hour'' from meshhook_metrics.flush_state'), '(t)', 'and when the last flush was');
select is(pg_temp.ask_as_a(format('select %s from meshhook_metrics.flush_state', c)), '42501: permission denied for table flush_state',
	'but not its ' || c)
from unnest(array['region_id', 'tick', '*', 'ctid', 'flush_state']) c;

-- Realtime: of a row that is deleted, subscribers of all tenants see the key
select is(
	(select array_agg(a.attname order by a.attnum) from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
		where i.indrelid = format('meshhook_metrics.%I', name)::regclass and i.indisprimary),
	array['id']::name[], format('the key of %s says nothing about a tenant', name))
from unnest(array['live', 'alert_events']) name;
select is((select relreplident from pg_class where oid = format('meshhook_metrics.%I', name)::regclass), 'd'::"char",
	'and is all that a deletion shows of ' || name)
from unnest(array['live', 'alert_events']) name;
select set_eq(
	$$ select schemaname || '.' || tablename from pg_publication_tables where pubname = 'supabase_realtime' $$,
	array['meshhook_metrics.live', 'meshhook_metrics.alert_events'],
	'no other table is published');

-- Statistics: PostgreSQL shows those of columns whose rows one could read
analyze meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.settings,
	meshhook_metrics.alert_rules, meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_receivers,
	meshhook_metrics.alert_notifications, meshhook_metrics.alert_state;
select cmp_ok((select count(*) from pg_stats where schemaname = 'meshhook_metrics'), '>', 20::bigint, 'there are statistics');
select is(pg_temp.ask(role, :'claims_a', $$ select * from pg_stats where schemaname = 'meshhook_metrics' $$), '',
	'which ' || role || ' does not see')
from unnest(array['anon', 'authenticated', 'tenancy_stranger']) role;
select matches(pg_temp.ask(role, null, 'select * from pg_statistic'), '^42501', role || ' does not read pg_statistic')
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_owner']) role;

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
