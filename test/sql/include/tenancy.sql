-- What the tests of tenancy begin with: the roles of an API server, MeshHook's schema,
-- storage that belongs to the same role, which is no superuser, and in every table of it
-- rows of two tenants, A and B, and of the platform. The worker must see the tables, so
-- all of this is committed; tenancy_end.sql takes it away again. Functions that let a
-- role ask.

-- Grants that give nothing are tried, too, and warn
set client_min_messages = error;
-- If somebody is to give up in a deadlock, it is the worker, which tries again
set deadlock_timeout = '60s';

\set a '11111111-1111-1111-1111-111111111111'
\set b '22222222-2222-2222-2222-222222222222'
\set nil '00000000-0000-0000-0000-000000000000'

drop extension if exists meshhook_metrics cascade;
drop schema if exists meshhook_metrics cascade;
drop publication if exists supabase_realtime;

create temp table made_roles (name name);
do $$
declare
	role name;
begin
	foreach role in array array['anon', 'authenticated', 'service_role', 'tenancy_owner', 'tenancy_stranger'] loop
		if not exists (select from pg_roles where rolname = role) then
			execute format('create role %I nologin', role);
			insert into made_roles values (role);
		end if;
	end loop;
	alter role service_role bypassrls;
	execute format('grant create on database %I to tenancy_owner', current_database());
end
$$;

\set keeper tenancy_owner
\ir meshhook.sql

set role tenancy_owner;
create publication supabase_realtime;
\ir migrations.sql
reset role;

-- What is recorded: the same names with different labels, and names of one's own.
-- What is B's alone, in names, keys or values, has the word secret, or the number
-- 31337; the platform's has the word platform.
do $$
declare
	a constant uuid := '11111111-1111-1111-1111-111111111111';
	b constant uuid := '22222222-2222-2222-2222-222222222222';
begin
	perform
		meshhook_metrics.reset(),
		meshhook_metrics.inc('shared_total', 3, '{"status": "ok"}', a),
		meshhook_metrics.inc('shared_total', 2, '{"status": "failed"}', a),
		meshhook_metrics.inc('shared_total', 31337, '{"status": "ok", "key_secret": "value_secret"}', b),
		meshhook_metrics.inc('shared_total', 7, '{"status": "ok", "host": "platform_host"}'),
		meshhook_metrics.gauge_set('shared_depth', 4, '{}', a),
		meshhook_metrics.gauge_set('shared_depth', 31337, '{"queue": "queue_secret"}', b),
		meshhook_metrics.observe('shared_seconds', 0.5, '{}', a),
		meshhook_metrics.observe('shared_seconds', 313.37, '{"step": "step_secret"}', b),
		meshhook_metrics.inc('own_total', 1, '{"mine": "a"}', a),
		meshhook_metrics.inc('secret_total', 31337, '{"status": "ok"}', b),
		meshhook_metrics.gauge_set('secret_depth', 31337, '{}', b),
		meshhook_metrics.observe('secret_seconds', 313.37, '{}', b),
		meshhook_metrics.describe('secret_total', 'counter', 'help_secret', 'unit_secret'),
		meshhook_metrics.inc('platform_total', 5);
end
$$;
do $$begin perform meshhook_metrics.flush(); end$$;

-- The same again a few days ago, so that it is in minutes, hours and days as well
set role tenancy_owner;
do $$
begin
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	select l.tenant_id, l.at - interval '3 days', l.seconds, l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram
	from meshhook_metrics.live l;
	perform meshhook_metrics.close_minutes(clock_timestamp() + interval '1 minute');
	perform meshhook_metrics.maintain();
	insert into meshhook_metrics.settings (name, tenant_id, value)
	values
		('max_series', '11111111-1111-1111-1111-111111111111', '100'),
		('max_series', '22222222-2222-2222-2222-222222222222', '31337'),
		('retention_1m', default, '6 days');
end
$$;

-- Rules that fire, of a metric that all have and of one's own, and what is told of them.
-- Their windows are long, so whatever the worker makes of them meanwhile is the same.
do $$
declare
	a constant uuid := '11111111-1111-1111-1111-111111111111';
	b constant uuid := '22222222-2222-2222-2222-222222222222';
	nil constant uuid := '00000000-0000-0000-0000-000000000000';
begin
	insert into meshhook_metrics.alert_receivers (tenant_id, name, headers)
	values
		(a, 'default', '{"Authorization": "Bearer of_a"}'),
		(b, 'receiver_secret', '{"Authorization": "Bearer bearer_secret"}'),
		(nil, 'platform_receiver', default);
	insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, threshold, time_window, group_by, annotations)
	values
		('11111111-0000-4000-8000-000000000001', a, 'shared', 'shared_total', 'increase', 1, '1 day', '{status}',
			'{"summary": "{{ value }} were {{ labels.status }}"}'),
		('22222222-0000-4000-8000-000000000001', b, 'shared', 'shared_total', 'increase', 1, '1 day', '{status,key_secret}',
			'{"summary": "summary_secret {{ value }}"}'),
		('00000000-0000-4000-8000-000000000001', nil, 'shared', 'shared_total', 'increase', 1, '1 day', '{status,host}',
			'{"summary": "on {{ labels.host }}"}'),
		('11111111-0000-4000-8000-000000000002', a, 'own', 'own_total', 'increase', 0, '1 day', null, default),
		('22222222-0000-4000-8000-000000000002', b, 'rule_secret', 'secret_total', 'increase', 31336, '1 day', null, default),
		('00000000-0000-4000-8000-000000000002', nil, 'platform_rule', 'platform_total', 'increase', 0, '1 day', null, default);
	perform meshhook_metrics.evaluate_alerts(clock_timestamp());
end
$$;
reset role;

-- Does a statement as somebody, and undoes it: what it answers, a line a row, or its
-- error. Claims of null are those of a session without a request.
create function pg_temp.ask(role name, claims text, statement text) returns text
language plpgsql as $$
declare
	line text;
	answer text := '';
	detail text;
	hint text;
begin
	perform set_config('role', ask.role, true);
	if claims is not null then
		perform set_config('request.jwt.claims', claims, true);
	end if;
	if statement ~ '^\s*(select|explain|table|with|show)\M' then
		for line in execute
			case when statement ~ '^\s*explain' then statement else format('select t::text from (%s) t', statement) end
		loop
			answer := answer || case when answer = '' then '' else E'\n' end || line;
		end loop;
	else
		execute statement;
		answer := 'done';
	end if;
	raise exception using errcode = 'ZZ999', message = 'undo';
exception when others then
	if sqlstate = 'ZZ999' then
		return answer;
	end if;
	get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
	return concat_ws(E'\n', sqlstate || ': ' || sqlerrm, nullif(detail, ''), nullif(hint, ''));
end
$$;

-- As tenant A would through an API, and as tenant B
create function pg_temp.ask_as_a(statement text) returns text
language sql as $$
	select pg_temp.ask('authenticated', '{"sub": "aaaaaaaa-0000-4000-8000-00000000000a", "role": "authenticated"}', statement)
$$;
create function pg_temp.ask_as_b(statement text) returns text
language sql as $$
	select pg_temp.ask('authenticated', '{"sub": "bbbbbbbb-0000-4000-8000-00000000000b", "role": "authenticated"}', statement)
$$;

-- All that is kept, and by what name it is decided about
create temp view storage as
select
	c.oid,
	c.relname::text as name,
	case
		when c.relispartition then 'leaf of ' || (select i.inhparent::regclass::text from pg_inherits i where i.inhrelid = c.oid)
		else c.relname::text
	end as object,
	c.relkind
from pg_class c
where c.relnamespace = to_regnamespace('meshhook_metrics')
	and c.relkind not in ('i', 'I');
