-- Names of metrics, labels, numbers and counts of another tenant stay hidden, however
-- they are asked for. What is B's alone has the word secret or the number 31337 in it.
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create temp table since as
select format('now() - interval ''%s''', d) as text
from unnest(array['30 minutes', '5 days']) d;
grant select on since to public;

-- Everything that a tenant can read, in one text
create temp table questions (question text);
insert into questions
select format('select * from meshhook_metrics.%I', name)
from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'alert_rules', 'alerts', 'alert_events']) name
union all
select 'select at from meshhook_metrics.flush_state'
union all
select format('select * from meshhook_metrics.query_range(%L, %s, now(), %L, %L, %s, %s, %s)',
	metric, since.text, step, labels, aggregate, keys, tenant)
from since,
	unnest(array['shared_total', 'shared_depth', 'shared_seconds', 'secret_total', 'secret_depth', 'secret_seconds', 'own_total', 'no_total', '%', '']) metric,
	unnest(array[null, '5 minutes', '1 day']) step,
	unnest(array['{}', '{"key_secret": "value_secret"}', '{"queue": "queue_secret"}']) labels,
	unnest(array['null', '''count''', '''p95''', '''no''']) aggregate,
	unnest(array['null', '''{}''', '''{status,key_secret,queue,step,mine}''']) keys,
	unnest(array['null', '''11111111-1111-1111-1111-111111111111''', '''22222222-2222-2222-2222-222222222222''',
		'''00000000-0000-0000-0000-000000000000''']) tenant;

create temp table answers as
select question, pg_temp.ask_as_a(question) as to_a
from questions;
-- The names that were asked for are in messages about them
create temp view told as
select question, regexp_replace(to_a, '"secret_(total|depth|seconds)"', '', 'g') as to_a
from answers;

select cmp_ok(count(*), '>', 5000::bigint, 'tenant A asks many questions')
from answers;
select cmp_ok(count(*), '>', 100::bigint, 'and gets answers to many')
from answers
where to_a <> ''
	and to_a !~ '^[0-9A-Z]{5}: ';
select is_empty($$ select * from told where to_a ~ 'secret|22222222|31337|313\.37' $$, 'of which none has anything of tenant B''s');
select is_empty($$ select * from told where to_a ~ 'platform|00000000-' $$, 'or of the platform''s');
-- Would it be noticed? The same search of what B gets, and who may see all
select cmp_ok(count(*), '>', 10::bigint, role || ' is told, by the same questions')
from (values ('authenticated', :'claims_b'), ('service_role', null), ('tenancy_owner', null)) asker (role, claims), questions
where question !~ 'secret_'
	and question ~ 'series$|rollup_1[mhd]$|alert_rules$|alerts$|alert_events$|''1 day'', ''\{\}'', null'
	and pg_temp.ask(role, claims, question) ~ 'value_secret|queue_secret|step_secret|31337|313\.37'
group by role;

-- A metric of B's is to A as one that nobody has: the same answers, the same errors,
-- also to an aggregate that its kind does not have
select is_empty(
	$$ select s.question, s.to_a, n.to_a
		from answers n
		cross join unnest(array['secret_total', 'secret_depth', 'secret_seconds']) metric
		join answers s on s.question = replace(n.question, 'no_total', metric)
		where n.question ~ '''no_total'''
			and s.to_a is distinct from n.to_a $$,
	'a metric of B''s alone is to tenant A as one that does not exist');
select matches(pg_temp.ask_as_b($$ select * from meshhook_metrics.query_range('secret_total', now() - interval '1 hour', aggregate => 'p95') $$),
	'^22023: "secret_total" is a counter', 'while B is told of which kind it is');
-- What A asks for by tenant B, by the platform or by a tenant that nobody is
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.query_range(''shared_total'', now() - interval ''5 days'', tenant => %L)', tenant)),
	'(0)', 'tenant => ' || left(tenant, 1) || ' shows nothing to A')
from unnest(array[:'b', :'nil', '33333333-3333-3333-3333-333333333333']) tenant;
select is(
	pg_temp.ask_as_a($$ select bucket, labels, value from meshhook_metrics.query_range('shared_total', now() - interval '5 days', now(), '1 day', aggregate => 'count', group_by => '{status}') $$),
	pg_temp.ask('tenancy_owner', null, format($$ select bucket, labels, value from meshhook_metrics.query_range('shared_total', now() - interval '5 days', now(), '1 day', aggregate => 'count', group_by => '{status}', tenant => %L) $$, :'a')),
	'sums over all tenants are over those that one may see');
select is(
	pg_temp.ask_as_a($$ select sum(value) from meshhook_metrics.query_range('shared_total', now() - interval '1 hour', now(), '1 minute') $$), '(5)',
	'A''s share of a metric that others have, too, is A''s');

-- A function of the tenant's own that the planner thinks cheap sees no row that its
-- owner may not see; nor does an operator, or an error that tells a value
create schema tenancy_attack;
grant usage, create on schema tenancy_attack to authenticated;
set local role authenticated;
create temp table leaked (what text);
create function tenancy_attack.leak(anything anyelement) returns boolean
language plpgsql cost 0.0000001 as $$
begin
	insert into leaked values (anything::text);
	return true;
end
$$;
create function tenancy_attack.same(text, text) returns boolean
language sql cost 0.0000001 as 'select tenancy_attack.leak($1)';
create operator tenancy_attack.=== (function = tenancy_attack.same, leftarg = text, rightarg = text, commutator = operator(tenancy_attack.===));
select set_config('request.jwt.claims', :'claims_a', true);
create function pg_temp.leak_by(condition text, storage text) returns text
language plpgsql as $$
begin
	delete from leaked;
	execute format('select count(*) from meshhook_metrics.%I t where %s', storage, condition);
	return (select coalesce(max('something'), 'nothing') from leaked) || ', '
		|| (select coalesce(string_agg(what, ' ' order by what), '') from leaked where what !~ '11111111' or what ~ 'secret|2222|31337|313.37|platform');
end
$$;
select is(pg_temp.leak_by('tenancy_attack.leak(t)', name), 'something, ', 'a function in WHERE sees only A''s rows of ' || name)
from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'alert_rules', 'alerts', 'alert_events']) name;
select is(pg_temp.leak_by(format('tenancy_attack.leak(t) and tenant_id = %L', :'b'), name), 'nothing, ', 'also beside a condition of B''s in ' || name)
from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'alert_rules', 'alerts', 'alert_events']) name;
select is(pg_temp.leak_by('tenancy_attack.leak(t) or metric <> ''x''', 'series'), 'something, ', 'nor with OR');
select is(pg_temp.leak_by('metric operator(tenancy_attack.===) ''x'' and tenancy_attack.leak(tenant_id)', 'series'), 'something, own_total shared_depth shared_seconds shared_total shared_total',
	'nor an operator');
select is(pg_temp.leak_by('exists (select from meshhook_metrics.rollup_1m r where r.series_id = t.id and tenancy_attack.leak(r))', 'series'), 'something, ',
	'nor in a join');
reset role;
select set_eq(
	format($$ select pg_temp.ask_as_a(%L) ~ 'secret|31337|platform' $$, statement), array[false], 'no error tells: ' || statement)
from unnest(array[
	'select metric::numeric from meshhook_metrics.series order by tenant_id desc',
	'select count(*) from meshhook_metrics.series where metric::numeric > 0',
	'select count(*) from meshhook_metrics.series where (labels ->> ''key_secret'')::numeric > 0',
	'select count(*) from meshhook_metrics.series where labels::text::xml is not null',
	'select count(*) from meshhook_metrics.live where 1 / (sum[1] - 31337)::integer > 0',
	'select count(*) from meshhook_metrics.alert_rules where name::numeric > 0',
	'select count(*) from meshhook_metrics.alert_rules where 1 / (threshold - 31336)::integer > 0',
	'select count(*) from meshhook_metrics.alerts where (annotations ->> ''summary'')::numeric > 0',
	'select count(*) from meshhook_metrics.alert_events where 1 / (value - 31337)::integer > 0',
	'update meshhook_metrics.alert_rules set threshold = name::numeric',
	'delete from meshhook_metrics.alert_rules where name::numeric > 0 returning name',
	'select count(*) from meshhook_metrics.rollup_1d where (sum::text || ''x'')::numeric > 0',
	'select * from meshhook_metrics.series where metric = (select 1 / 0)::text']) statement;
select matches(pg_temp.ask_as_a('select count(*) from meshhook_metrics.series where metric::numeric > 0'), '^22P02: .*"(own|shared)_', 'though A''s own rows are in errors');
select matches(pg_temp.ask_as_a('select count(*) from meshhook_metrics.live where tenant_id = ''22222222-2222-2222-2222-222222222222'' and 1 / (series_id[1] - series_id[1]) > 0'),
	'^\(0\)$', 'and B''s rows never reach a division by zero');

-- What plans show. PostgreSQL tells how many rows a filter removed, not what was in them.
select is(pg_temp.ask_as_a(format('explain (analyze, verbose, costs off, timing off, summary off) select * from meshhook_metrics.%I', name))
		~ 'secret|22222222|31337|platform', false, 'a plan over ' || name || ' has nothing of B''s')
from unnest(array['series', 'live', 'rollup_1m', 'rollup_1d', 'alert_rules', 'alerts', 'alert_events']) name;

-- Numbers that are given out: an id shows that there were others before it, and that is
-- all. It leads to no row.
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.%I where %s = any (%L)', name, case name when 'series' then 'id' else 'series_id' end, ids)), '(0)',
	'ids of B''s series lead nowhere in ' || name)
from (select array_agg(id) as ids from meshhook_metrics.series where tenant_id = :'b') b,
	unnest(array['series', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d']) name;
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.live where id = any (%L)', (select array_agg(id) from meshhook_metrics.live where tenant_id <> :'a'))),
	'(0)', 'nor ids of rows of live');
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.alert_events where id = any (%1$L) or fired_event_id = any (%1$L)',
	(select array_agg(id) from meshhook_metrics.alert_events where tenant_id <> :'a'))), '(0)', 'nor ids of events');
select is(pg_temp.ask_as_a(format('select count(*) from meshhook_metrics.%I where %s::text !~ ''^11111111''', name, id)), '(0)', 'nor those of rules in ' || name)
from (values ('alert_rules', 'id'), ('alerts', 'rule_id'), ('alert_events', 'rule_id')) r (name, id);
select matches(pg_temp.ask_as_a(format('select %s(%L)', function, 'meshhook_metrics.' || sequence)), '^(42501|55000)', format('%s(%s) tells nothing', function, sequence))
from unnest(array['nextval', 'currval']) function, unnest(array['series_id_seq', 'live_id_seq', 'alert_events_id_seq', 'alert_notifications_id_seq']) sequence;
select is(pg_temp.ask_as_a($$ select last_value from pg_sequences where schemaname = 'meshhook_metrics' and last_value is not null $$), '', 'nor does pg_sequences');

-- Views of the system that show statements, settings and tables of others
select is_empty(
	format($$ select %L where pg_temp.ask_as_a(%L) ~ '_secret|secret_|31337|platform_(host|total)' $$, relation, 'select * from pg_catalog.' || relation),
	relation || ' shows A nothing of B''s')
from unnest(array['pg_stats', 'pg_stats_ext', 'pg_description', 'pg_settings', 'pg_stat_activity', 'pg_class', 'pg_attrdef', 'pg_constraint', 'pg_locks',
	'pg_publication_tables', 'pg_stat_user_tables', 'pg_policies']) relation;

-- Copies, cursors and views of A's own show A's rows
select matches(pg_temp.ask_as_a('create temp table copy as select * from meshhook_metrics.series; do $x$ begin if exists (select from copy where tenant_id <> ''11111111-1111-1111-1111-111111111111'') or not exists (select from copy) then raise ''leaked''; end if; end $x$'),
	'^done$', 'a copy has A''s rows');
set local role authenticated;
create view tenancy_attack.series as select * from meshhook_metrics.series;
grant select on tenancy_attack.series to service_role;
reset role;
grant usage on schema tenancy_attack to service_role;
select is(pg_temp.ask_as_a('select count(*) from tenancy_attack.series where tenant_id <> ''11111111-1111-1111-1111-111111111111'''), '(0)', 'a view of a tenant''s has its rows');
select is(pg_temp.ask('service_role', :'claims_a', 'select count(*) from tenancy_attack.series where tenant_id <> ''11111111-1111-1111-1111-111111111111'''), '(0)',
	'whoever reads it');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
