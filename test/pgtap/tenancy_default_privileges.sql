-- Where default privileges give the API's roles all rights on whatever is created, as
-- in old projects of Supabase, they have none on what is created here: neither by the
-- migrations nor by the worker afterwards
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create function pg_temp.give_everything(how text) returns void
language plpgsql as $$
declare
	maker name;
	class text;
begin
	foreach maker in array array[current_user, 'tenancy_owner'] loop
		foreach class in array array['tables', 'sequences', 'functions'] loop
			execute format('alter default privileges for role %I %s grant all on %s to public, anon, authenticated, service_role', maker, how, class);
		end loop;
		if how = '' then
			execute format('alter default privileges for role %I grant all on schemas to public, anon, authenticated, service_role', maker);
		end if;
	end loop;
end
$$;
create function pg_temp.install_anew(how text) returns void
language plpgsql as $$
begin
	drop extension meshhook_metrics cascade;
	drop schema meshhook_metrics cascade;
	perform pg_temp.give_everything(how);
end
$$;
-- What goes beyond the rights that tenancy_tables and tenancy_functions have decided on
create temp view excess as
select role, s.name, p.privilege
from storage s,
	unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role,
	unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p (privilege)
where s.relkind <> 'S'
	and has_table_privilege(role, s.oid, p.privilege)
	and not (p.privilege = 'SELECT' and s.object !~ 'leaf'
		and (role = 'service_role'
			or role = 'authenticated' and s.name not in ('settings', 'flush_state', 'rollup_state', 'alert_state', 'alert_gaps', 'alert_receivers', 'alert_notifications')))
	and not (p.privilege in ('INSERT', 'UPDATE', 'DELETE') and s.name = 'alert_rules' and role in ('authenticated', 'service_role'))
	and not (p.privilege in ('INSERT', 'UPDATE', 'DELETE') and s.name = 'alert_receivers' and role = 'service_role')
union all
-- Of columns, where there is no right on the whole
select role, s.name || '.' || a.attname, p.privilege
from storage s
join pg_attribute a on a.attrelid = s.oid and a.attnum > 0,
	unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role,
	unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) p (privilege)
where s.relkind <> 'S'
	and has_column_privilege(role, s.oid, a.attnum, p.privilege)
	and not has_table_privilege(role, s.oid, p.privilege)
	and not (role = 'anon' and s.name in ('live', 'alert_events') and a.attname = 'id' and p.privilege = 'SELECT')
	and not (role = 'authenticated' and s.name = 'flush_state' and a.attname = 'at' and p.privilege = 'SELECT')
	and not (role = 'authenticated' and s.name = 'rollup_state' and a.attname in ('target', 'complete_until', 'retained_from') and p.privilege = 'SELECT')
	and not (role = 'service_role' and s.name = 'alert_notifications' and p.privilege = 'UPDATE'
		and a.attname in ('attempts', 'next_attempt_at', 'last_error', 'delivered_at', 'dead_at'))
union all
select role, s.name, p.privilege
from storage s, unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role, unnest(array['SELECT', 'UPDATE', 'USAGE']) p (privilege)
where s.relkind = 'S'
	and has_sequence_privilege(role, s.oid, p.privilege)
union all
select role, p.proname, 'EXECUTE'
from pg_proc p, unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role
where p.pronamespace = to_regnamespace('meshhook_metrics')
	and has_function_privilege(role, p.oid, 'EXECUTE')
	and not (role in ('authenticated', 'service_role') and p.proname ~ '^(histogram|query_range|(tenant_ids|rule|series)$)'
		or role = 'service_role' and p.proname ~ '^(inc|gauge_set|gauge_add|observe|observe_since|record|describe|snapshot|status|prometheus|flush|claim_notifications|finish_notification)$')
union all
select role, 'schema', p.privilege
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role, unnest(array['USAGE', 'CREATE']) p (privilege)
where has_schema_privilege(role, 'meshhook_metrics', p.privilege)
	and not (p.privilege = 'USAGE' and role in ('anon', 'authenticated', 'service_role'));

select is_empty('select * from excess', 'without default privileges nothing is in excess');
select cmp_ok(count(*), '>', 5::bigint, 'where leaves are') from storage where object ~ 'leaf';

-- Default privileges that come after the migrations: leaves are still made
select pg_temp.give_everything(how) from unnest(array['', 'in schema meshhook_metrics']) how;
create temp table given (n integer);
select ok(has_table_privilege('anon', 'given', 'select'), 'whatever is created now, anon can read');
set local role tenancy_owner;
select meshhook_metrics.create_leaf('1m', now() + interval '30 days');
select meshhook_metrics.create_leaf('1d', now() + interval '5 years');
reset role;
select is_empty('select * from excess', 'but not leaves that are created now');
select is(pg_temp.ask('authenticated', :'claims_a', format('select 1 from meshhook_metrics.%I', 'rollup_1m_' || to_char((now() + interval '30 days') at time zone 'UTC', 'YYYYMMDD'))),
	format('42501: permission denied for table %s', 'rollup_1m_' || to_char((now() + interval '30 days') at time zone 'UTC', 'YYYYMMDD')), 'as one is told who tries');
select is_empty($$ select name from storage join pg_class using (oid) where object ~ 'leaf' and not relrowsecurity $$, 'and row level security is on in them');
-- Also when a superuser calls
select meshhook_metrics.create_leaf('1m', now() + interval '40 days');
select is_empty('select * from excess', 'nor leaves that a superuser has created');
select is_empty($$ select name from storage join pg_class using (oid) where relowner <> 'tenancy_owner'::regrole $$, 'which belong to the owner of the table');
-- When the migrations come again
set local role tenancy_owner;
\ir ../sql/include/migrations.sql
reset role;
select is_empty('select * from excess', 'nor after the migrations have come again');

-- Rights that somebody gave by hand are taken back by the migrations
grant all on all tables in schema meshhook_metrics to public, anon, authenticated, service_role;
grant all on all sequences in schema meshhook_metrics to public, anon, authenticated, service_role;
grant all on schema meshhook_metrics to anon, authenticated, service_role;
grant update (last_error) on meshhook_metrics.alert_rules to authenticated;
grant update (payload) on meshhook_metrics.alert_notifications to service_role;
grant select (url) on meshhook_metrics.alert_receivers to authenticated;
grant execute on function meshhook_metrics.count_alert_rules to authenticated;
select isnt_empty('select * from excess', 'somebody has granted all');
set local role tenancy_owner;
\ir ../sql/include/migrations.sql
reset role;
select is_empty('select * from excess', 'the migrations take it back');

-- Default privileges that were there before the extension
select pg_temp.install_anew('');
set local role tenancy_owner;
\ir ../sql/include/migrations.sql
reset role;
select is_empty('select * from excess', 'default privileges that were there before give nobody more');
select is_empty($$ select name from storage join pg_class using (oid) where storage.relkind <> 'S' and not relrowsecurity $$, 'row level security is on');
select matches(pg_temp.ask(role, :'claims_a', 'select * from meshhook_metrics.snapshot()'), '^42501', role || ' reads nothing from shared memory')
from unnest(array['anon', 'authenticated', 'tenancy_stranger']) role;
select matches(pg_temp.ask(role, :'claims_a', 'select meshhook_metrics.reset()'), '^42501', role || ' forgets nothing')
from unnest(array['anon', 'authenticated', 'service_role', 'tenancy_stranger']) role;

-- The same where a superuser installs it
select pg_temp.install_anew('');
\ir ../sql/include/migrations.sql
select is_empty('select * from excess', 'nor where a superuser has installed it');
select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
