-- What is in shared memory is of all tenants, so tenants do not read it; who does can
-- ask for one tenant, and gets that one's alone
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

create temp table readers (function text);
insert into readers values ('prometheus'), ('snapshot'), ('status');
select is(pg_temp.ask(role, :'claims_a', format('select * from meshhook_metrics.%s(%s)', function, argument)),
	format('42501: permission denied for %s', case role when 'tenancy_stranger' then 'schema meshhook_metrics' else 'function ' || function end),
	format('%s does not call %s(%s)', role, function, left(argument, 2)))
from readers,
	unnest(array['anon', 'authenticated', 'tenancy_stranger']) role,
	unnest(array['', quote_literal(:'a'), quote_literal(:'b')]) argument
where argument = ''
	or function <> 'status'
order by role, function, argument;

-- All of it
create function pg_temp.exposition(tenant uuid default null) returns text
language sql as $$
	select pg_temp.ask('service_role', '{"role": "service_role"}',
		case when tenant is null then 'select meshhook_metrics.prometheus() as t' else format('select meshhook_metrics.prometheus(%L) as t', tenant) end)
$$;
create temp view lines as
select
	who.name as asker,
	line,
	substring(line, '^(?:# (?:HELP|TYPE|UNIT) )?"?\(?"?(\w+)') as metric,
	substring(replace(line, '""', '"'), 'tenant="([^"]*)"') as tenant
from (
	values
		('all', null),
		('a', '11111111-1111-1111-1111-111111111111'::uuid),
		('b', '22222222-2222-2222-2222-222222222222'),
		('platform', '00000000-0000-0000-0000-000000000000'),
		('nobody', '33333333-3333-3333-3333-333333333333')
) who (name, tenant),
	regexp_split_to_table(btrim(pg_temp.exposition(who.tenant), '()"'), '\n') line
where line not in ('', '"', '""');

select cmp_ok((select count(*) from lines where asker = 'all'), '>', 100::bigint, 'without a tenant the exposition is of everything');
select set_eq($$ select distinct tenant from lines where asker = 'all' and tenant is not null $$,
	array[:'a', :'b'] || (select coalesce(array_agg(distinct tenant), '{}') from lines where asker = 'platform' and tenant is not null), 'of all tenants');
select matches(pg_temp.exposition(), 'value_secret', 'their labels included');
select matches(pg_temp.exposition(), 'meshhook_metrics_series', 'and of the extension''s health');

-- One tenant's
select is_empty($$ select * from lines where asker = 'a' and line ~ 'secret|2222|31337|313\.37|platform|00000000-' $$, 'A''s exposition has nothing of others');
select set_eq($$ select distinct metric from lines where asker = 'a' and line ~ '^# TYPE' $$,
	array['own_total', 'shared_total', 'shared_depth', 'shared_seconds'], 'it names A''s metrics only, in comments too');
select is_empty($$ select * from lines where asker = 'b' and line ~ '1111|own_|"a"|platform|00000000-' $$, 'B''s has nothing of A''s');
select set_eq($$ select distinct metric from lines where asker = 'b' and line ~ '^# TYPE' $$,
	array['secret_total', 'secret_depth', 'secret_seconds', 'shared_total', 'shared_depth', 'shared_seconds'], 'it names B''s metrics');
select is_empty($$ select * from lines where asker = 'platform' and line ~ 'secret|1111|2222|own_' $$, 'the platform''s own has nothing of tenants');
select is_empty($$ select * from lines where asker <> 'all' and line ~ 'meshhook_metrics_' $$, 'how the extension is doing is in no tenant''s');
select is_empty($$ select * from lines where asker = 'nobody' $$, 'who has no series gets nothing, names included');
select is_empty($$ select * from lines where asker = 'all' and tenant is not null and tenant not in
	('11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222', '00000000-0000-0000-0000-000000000000') $$,
	'tenants are who they are');

-- The same of snapshot()
select is(pg_temp.ask('service_role', null, 'select string_agg(distinct left(tenant_id::text, 1), '''') from meshhook_metrics.snapshot()'), '(012)',
	'snapshot() is of all tenants');
select is(pg_temp.ask('service_role', null, format('select string_agg(distinct tenant_id::text, '''') from meshhook_metrics.snapshot(%L)', tenant)), format('(%s)', tenant),
	'snapshot(' || left(tenant, 1) || ') of that one')
from unnest(array[:'a', :'b', :'nil']) tenant;
select is(pg_temp.ask('service_role', null, $$ select * from meshhook_metrics.snapshot('11111111-1111-1111-1111-111111111111') $$) ~ 'secret|2222|31337|313\.37|platform', false,
	'without anything of B''s');
select is(pg_temp.ask('service_role', null, $$ select * from meshhook_metrics.snapshot('33333333-3333-3333-3333-333333333333') $$), '', 'and of nobody, nothing');
select is(pg_temp.ask('service_role', null, 'select * from meshhook_metrics.status()') ~ 'secret|1111|2222|platform', false, 'status() names no tenant and no metric');

-- Labels that look like the syntax cannot make a line of another tenant's
do $$begin perform meshhook_metrics.inc('own_total', 9,
	jsonb_build_object('mine', E'x",tenant="22222222-2222-2222-2222-222222222222"} 5\nshared_total{tenant="22222222-2222-2222-2222-222222222222"} 6\n# HELP secret_total'),
	'11111111-1111-1111-1111-111111111111'); end$$;
select is_empty(
	$$ select line from regexp_split_to_table(meshhook_metrics.prometheus('11111111-1111-1111-1111-111111111111'), '\n') line
		where line ~ '^(shared|secret)_total\{tenant="2222|^# HELP secret|[{,]tenant="2222' and line !~ 'mine="x\\",tenant=\\"2222' $$,
	'a label''s value stays a value');
select is((select count(*) from regexp_split_to_table(meshhook_metrics.prometheus('11111111-1111-1111-1111-111111111111'), '\n') line where line ~ '^own_total.* 9$'),
	1::bigint, 'in one line');
select throws_ok($$ select meshhook_metrics.inc('own_total', 1, '{"tenant": "22222222-2222-2222-2222-222222222222"}', '11111111-1111-1111-1111-111111111111') $$,
	'42939', null, 'and no label can be called tenant');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
