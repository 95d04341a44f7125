-- Nobody but the owner changes anything: neither rows, nor tables, nor who may do what.
-- But tenants' users write rules of their own, and the service role those of all, and
-- receivers; of which tenancy_alerts.sql has the rest.
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create temp view tables as
select name, object, relkind, s.oid
from storage s
where relkind in ('r', 'p');

-- Where everybody may create tables and functions of his own
create schema tenancy_attack;
grant all on schema tenancy_attack to public;

-- Statements on a table, with %1$s for its name and %2$I, %3$I for its first columns
create temp table changes (what text, statement text);
insert into changes values
	('insert into', 'insert into %1$s default values'),
	('insert a row of one''s own into', 'insert into %1$s overriding system value select * from %1$s limit 1'),
	('update', 'update %1$s set %3$I = %3$I'),
	('update with a condition', 'update %1$s set %3$I = %3$I where %3$I is null'),
	('delete from', 'delete from %1$s'),
	('merge into', 'merge into %1$s t using (select) s on true when matched then delete'),
	('truncate', 'truncate %1$s'),
	('truncate and restart', 'truncate %1$s restart identity cascade'),
	('lock', 'lock table %1$s in row exclusive mode'),
	('lock all of', 'lock table %1$s in access exclusive mode'),
	('lock rows of', 'do $x$ begin perform from %1$s for update; end $x$'),
	('share rows of', 'do $x$ begin perform from %1$s for key share; end $x$'),
	('alter', 'alter table %1$s add column more text'),
	('disable security of', 'alter table %1$s disable row level security'),
	('force security of', 'alter table %1$s force row level security'),
	('own', 'alter table %1$s owner to current_user'),
	('rename', 'alter table %1$s rename to other'),
	('take away', 'alter table %1$s set schema public'),
	('drop', 'drop table %1$s cascade'),
	('hang a trigger on', 'create trigger t after insert on %1$s for each statement execute function suppress_redundant_updates_trigger()'),
	('disable triggers of', 'alter table %1$s disable trigger all'),
	('make a rule for', 'create rule r as on insert to %1$s do also select 1'),
	('make a policy for', 'create policy p on %1$s using (true)'),
	('index', 'create index on %1$s (%2$I)'),
	('inherit from', 'create table tenancy_attack.child () inherits (%1$s)'),
	('replicate', 'create publication p for table %1$s'),
	('comment on', 'comment on table %1$s is ''mine'''),
	('gather statistics of', 'create statistics tenancy_attack.s on %2$I, %3$I from %1$s'),
	('cluster', 'cluster %1$s'),
	('grant on', 'grant all on %1$s to anon');

create function pg_temp.change(role name, claims text, statement text, oid oid) returns text
language sql as $$
	select pg_temp.ask(role, claims, format(statement, oid::regclass::text,
		(select a.attname from pg_attribute a where a.attrelid = change.oid and a.attnum = 1),
		(select a.attname from pg_attribute a where a.attrelid = change.oid and a.attnum = 2)))
$$;
-- What writing rules and receivers, and delivering notifications, takes. Who may delete
-- may lock a table as well.
create temp table allowed (role name, name text, what text, answer text);
insert into allowed
select role, name, unnest(array['update', 'update with a condition', 'delete from', 'lock', 'lock all of', 'lock rows of', 'share rows of']), '^done$'
from (values ('authenticated', 'alert_rules'), ('service_role', 'alert_rules'), ('service_role', 'alert_receivers')) w (role, name)
union all
values
	('service_role', 'alert_rules', 'merge into', '^done$'),
	('service_role', 'alert_receivers', 'merge into', '^done$'),
	('service_role', 'alert_rules', 'insert into', '^23502: null value in column "tenant_id"'),
	('service_role', 'alert_receivers', 'insert into', '^23502: null value in column "tenant_id"'),
	('service_role', 'alert_receivers', 'insert a row of one''s own into', '^23505: .*"alert_receivers_pkey"'),
	('service_role', 'alert_rules', 'insert a row of one''s own into', '^23505: .*"alert_rules_pkey"'),
	('authenticated', 'alert_rules', 'insert a row of one''s own into', '^23505: .*"alert_rules_pkey"'),
	('service_role', 'alert_notifications', 'lock rows of', '^done$'),
	('service_role', 'alert_notifications', 'share rows of', '^done$');

-- A grant by somebody who may not grant is a warning only, and no table inherits from one
-- that has partitions, or is one
create temp table refused as
select role, name, what, pg_temp.change(role, :'claims_a', statement, oid) as answer
from tables, changes, unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role;
select cmp_ok(count(*), '>', 2000::bigint, 'much is tried')
from refused;
select is((select string_agg(format('%s: %s', r.what, r.answer), E'\n') from refused r
		where r.role = t.role and r.name = t.name and r.answer !~ '^42501'
			and not exists (select from allowed a where a.role = r.role and a.name = r.name and a.what = r.what)
			and not (r.what = 'grant on' and r.answer = 'done') and not (r.what = 'inherit from' and r.answer ~ '^42809')),
	null, format('%s changes nothing about %s', t.role, t.name)
		|| case when exists (select from allowed a where a.role = t.role and a.name = t.name) then ' but what it may' else '' end)
from (select distinct role, name from refused) t
order by t.role, t.name;
select matches(r.answer, a.answer, format('%s: %s %s', a.role, a.what, a.name))
from allowed a
left join refused r using (role, name, what)
order by a.role, a.name, a.what;
select is(pg_temp.ask(role, :'claims_a', format('grant all on %s to anon; do $x$ begin if has_table_privilege(''anon'', %L, ''select'') then raise ''granted''; end if; end $x$',
		oid::regclass, oid::regclass)) ~ '^(done|42501)', true, format('what %s grants on %s is nothing', role, name))
from tables, unnest(array['authenticated', 'service_role']) role
order by name, role;
select matches(pg_temp.ask(role, :'claims_a', format('create table tenancy_attack.reference (id bigint references meshhook_metrics.%I)', name)), '^42501',
	format('%s does not refer to %s, and so hold up who deletes there', role, name))
from unnest(array['series', 'live', 'alert_events']) name, unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role;
select matches(pg_temp.ask(role, :'claims_a', 'create table tenancy_attack.reference (id uuid references meshhook_metrics.alert_rules)'), '^42501',
	role || ' does not refer to alert_rules either')
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role;

-- The owner may, and the same statements work
select is((select string_agg(distinct substr(answer, 1, 5), ' ') from (
		select pg_temp.change('tenancy_owner', null, statement, oid) as answer
		from tables, changes
		where name in ('series', 'live', 'settings', 'rollup_1m', 'alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications', 'alert_state', 'alert_gaps')
			and what in ('update', 'delete from', 'truncate', 'lock', 'alter', 'make a policy for', 'hang a trigger on', 'drop', 'grant on')) o), 'done',
	'the owner may do all of that');

-- Sequences
select is(pg_temp.ask(role, :'claims_a', format('select %s', format(call, 'meshhook_metrics.' || sequence))),
	case when role = 'tenancy_stranger' then '42501: permission denied for schema meshhook_metrics'
		else '42501: permission denied for sequence ' || sequence end, format('%s: %s', role, format(call, sequence)))
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role,
	unnest(array['series_id_seq', 'live_id_seq', 'alert_events_id_seq', 'alert_notifications_id_seq']) sequence,
	unnest(array['nextval(%L)', 'setval(%L, 1)', 'currval(%L)']) call
order by role, sequence, call;
select matches(pg_temp.ask(role, :'claims_a', format('alter sequence meshhook_metrics.%I restart', sequence)), '^42501', format('%s does not restart %s', role, sequence))
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role,
	unnest(array['series_id_seq', 'live_id_seq', 'alert_events_id_seq', 'alert_notifications_id_seq']) sequence
order by role, sequence;

-- The schema, its functions and types, the publication, the extension
select matches(pg_temp.ask(role, :'claims_a', statement), '^42501', format('%s: %s', role, left(statement, 60)))
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role,
	unnest(array[
		'create table meshhook_metrics.planted ()',
		'create view meshhook_metrics.planted as select 1',
		'create sequence meshhook_metrics.planted',
		'create type meshhook_metrics.planted as (a integer)',
		'create domain meshhook_metrics.planted as text',
		'create function meshhook_metrics.planted() returns integer language sql return 1',
		'create function meshhook_metrics.query_range(metric text, since timestamptz) returns integer language sql return 1',
		'create operator meshhook_metrics.= (function = pg_catalog.texteq, leftarg = text, rightarg = text)',
		'create table tenancy_attack.planted partition of meshhook_metrics.rollup_1m default',
		'drop schema meshhook_metrics cascade',
		'alter schema meshhook_metrics rename to other',
		'alter schema meshhook_metrics owner to current_user',
		'grant usage on schema meshhook_metrics to tenancy_stranger; do $x$ begin if not has_schema_privilege(''tenancy_stranger'', ''meshhook_metrics'', ''usage'') then raise insufficient_privilege; end if; end $x$',
		'create or replace function meshhook_metrics.tenant_ids() returns setof uuid language sql return null',
		'alter function meshhook_metrics.tenant_ids() security definer',
		'alter function meshhook_metrics.tenant_ids() set search_path = public',
		'drop function meshhook_metrics.tenant_ids()',
		'create or replace function meshhook_metrics.labels_digest(labels jsonb) returns bytea language sql immutable return null',
		'create or replace function meshhook_metrics.close_minutes(now timestamptz default clock_timestamp()) returns bigint language sql return 1',
		'create or replace function meshhook_metrics.check_alert_rule() returns trigger language plpgsql as $x$ begin return new; end $x$',
		'create or replace function meshhook_metrics.count_alert_rules() returns trigger language plpgsql as $x$ begin return null; end $x$',
		'alter function meshhook_metrics.count_alert_rules() set search_path = public',
		'alter function meshhook_metrics.check_alert_rule() security definer',
		'drop trigger count_alert_rules on meshhook_metrics.alert_rules',
		'alter table meshhook_metrics.alert_rules disable trigger count_alert_rules',
		'alter policy tenants_manage_their_own on meshhook_metrics.alert_rules using (true)',
		'drop policy tenants_manage_their_own on meshhook_metrics.alert_rules',
		'drop type meshhook_metrics.histogram cascade',
		'alter publication supabase_realtime drop table meshhook_metrics.live',
		'alter publication supabase_realtime drop table meshhook_metrics.alert_events',
		'alter publication supabase_realtime add table meshhook_metrics.series',
		'alter publication supabase_realtime add table meshhook_metrics.alert_notifications',
		'drop publication supabase_realtime',
		'drop extension meshhook_metrics cascade',
		'alter extension meshhook_metrics drop function meshhook_metrics.status()',
		'comment on schema meshhook_metrics is ''mine''']) statement
order by role, statement;
-- The owner of the tables owns none of the extension's functions either: those run with
-- the rights of whoever calls them, and only a superuser may change what they do
select matches(pg_temp.ask('tenancy_owner', null, statement), '^42501', 'the owner: ' || left(statement, 60))
from unnest(array[
	'create or replace function meshhook_metrics.close_minutes(now timestamptz default clock_timestamp()) returns bigint language sql return 1',
	'alter function meshhook_metrics.rollup(text) security definer',
	'alter function meshhook_metrics.maintain() owner to current_user',
	'alter function meshhook_metrics.query_range(text, timestamptz, timestamptz, interval, jsonb, text, text[], uuid) set search_path = public',
	'alter type meshhook_metrics.histogram rename to other']) statement;

-- After all that, everything is as it was
select is((select count(*) from storage join pg_class using (oid) where storage.relkind <> 'S' and (not relrowsecurity or relowner <> 'tenancy_owner'::regrole)), 0::bigint,
	'nothing has changed');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
