-- What PostgREST embeds: the rule of an alert or an event, the series of a rollup, with the SQL
-- that it makes of a request. Each tenant sees what it may read itself.
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

-- As PostgREST finds relationships that are functions
create temp view relationships as
select p.oid, p.proname::text as name, arg.typname::text as of, ret.typname::text as to, not p.proretset or p.prorows = 1 as to_one
from pg_proc p
join pg_type arg on arg.oid = p.proargtypes[0]
join pg_type ret on ret.oid = p.prorettype
where p.pronargs = 1
	and p.pronamespace = 'meshhook_metrics'::regnamespace
	and arg.oid in (select reltype from pg_class where relkind in ('r', 'p', 'v', 'm', 'f'))
	and ret.oid in (select reltype from pg_class where relkind in ('r', 'p', 'v', 'm', 'f'));
select bag_eq('select name, of, "to", to_one from relationships', $$ values
	('rule', 'alerts', 'alert_rules', true), ('rule', 'alert_events', 'alert_rules', true),
	('series', 'rollup_1m', 'series', true), ('series', 'rollup_5m', 'series', true), ('series', 'rollup_1h', 'series', true), ('series', 'rollup_1d', 'series', true) $$,
	'an alert and an event have a rule, rollups a series');

-- GET /alerts?select=name,rule(id,tenant_id,metric): the rows as JSON
create function pg_temp.embed(of text, columns text, name text, embedded text) returns text
language sql as $$
	select format('select coalesce(json_agg(_postgrest_t), ''[]'') from (
			select %2$s, row_to_json("%1$s_%3$s_1".*)::jsonb as "%3$s"
			from "meshhook_metrics"."%1$s"
			left join lateral (
				select %4$s
				from "meshhook_metrics"."%3$s"("%1$s"::"meshhook_metrics"."%1$s")
			) as "%1$s_%3$s_1" on true
			limit 1000
		) _postgrest_t',
		embed.of,
		(select string_agg(format('"meshhook_metrics"."%s"."%s"', embed.of, c), ', ') from unnest(string_to_array(embed.columns, ',')) c),
		embed.name,
		(select string_agg(format('"%s"."%s"', embed.name, c), ', ') from unnest(string_to_array(embed.embedded, ',')) c))
$$;
create temp table requests as
select r.of, r.name, pg_temp.embed(r.of, case r.name when 'rule' then 'tenant_id,rule_id,name' else 'tenant_id,series_id' end, r.name,
	case r.name when 'rule' then 'id,tenant_id,name' else 'id,tenant_id,metric' end) as request
from relationships r;

-- All of A's rows have what belongs to them, and nobody sees another's
create function pg_temp.rows(role name, claims text, request text) returns jsonb
language plpgsql as $$
declare
	answer jsonb;
begin
	perform set_config('role', role, true), set_config('request.jwt.claims', claims, true);
	execute request into answer;
	perform set_config('role', 'none', true);
	return answer;
end
$$;
select ok(jsonb_array_length(answer) > 0 and not exists (
		select
		from jsonb_array_elements(answer) r (row)
		where (row -> name ->> 'id') is distinct from coalesce(row ->> 'rule_id', row ->> 'series_id')
			or row ->> 'tenant_id' <> tenant
			or (row -> name ->> 'tenant_id') is distinct from tenant), format('%s(%s) as %s', name, of, left(tenant, 1)))
from requests, (values (:'a', :'claims_a'), (:'b', :'claims_b')) c (tenant, claims), pg_temp.rows('authenticated', claims, request) answer;
select ok((select count(distinct row -> name ->> 'tenant_id') from jsonb_array_elements(answer) r (row)) = 3, format('the service role gets each of %s(%s)', name, of))
from requests, pg_temp.rows('service_role', :'claims_service', request) answer;
select is(pg_temp.rows('authenticated', '{}', request), '[]', format('%s(%s) without a tenant', name, of)) from requests;
select matches(pg_temp.ask('anon', null, request), '^42501', format('anon does not ask for %s(%s)', name, of)) from requests;

-- A rule that was deleted is none: its alerts and events stay
delete from meshhook_metrics.alert_rules where name = 'own' and tenant_id = :'a';
select is((select row -> 'rule' from jsonb_array_elements(pg_temp.rows('authenticated', :'claims_a', request)) r (row) where row ->> 'name' = 'own'), 'null', 'the rule of a deleted one is null: ' || of)
from requests
where name = 'rule';

-- Nobody gets at others by a row that he makes up
select is(pg_temp.ask_as_a(format('select name from meshhook_metrics.rule(jsonb_populate_record(null::meshhook_metrics.%I, ''{"rule_id": "22222222-0000-4000-8000-000000000002"}''))', of)), '', 'no rule of B''s by a made up row of ' || of)
from relationships where name = 'rule';
select is(pg_temp.ask_as_a(format('select metric from meshhook_metrics.series(jsonb_populate_record(null::meshhook_metrics.%I, ''{"series_id": %s}''))', of, s.id)), '', 'no series of B''s by one of ' || of)
from relationships, meshhook_metrics.series s
where name = 'series' and s.metric = 'secret_total';

-- It is a join that the planner makes: no function is called for each row, the policy asks for the tenants once
create function pg_temp.plan(role name, claims text, request text) returns text
language plpgsql as $$
declare
	line text;
	answer text := '';
begin
	perform set_config('role', role, true), set_config('request.jwt.claims', claims, true);
	for line in execute 'explain (costs off, verbose) ' || request loop
		answer := answer || line || E'\n';
	end loop;
	perform set_config('role', 'none', true);
	return answer;
end
$$;
select doesnt_match(plan, 'Function Scan on meshhook_metrics.' || name, format('%s(%s) is part of the plan', name, of)) from requests, pg_temp.plan('authenticated', :'claims_a', request) plan;
select matches(plan, case name when 'rule' then 'Scan .*on meshhook_metrics.alert_rules' else 'Scan .*on meshhook_metrics.series' end, format('%s(%s) is a scan of the table', name, of))
from requests, pg_temp.plan('authenticated', :'claims_a', request) plan;
-- Whatever operators come first in somebody's search_path
create schema tenancy_planted;
grant usage, create on schema tenancy_planted to authenticated;
set local role authenticated;
create function tenancy_planted.always(uuid, uuid) returns boolean language sql as 'select true';
create function tenancy_planted.always(bigint, bigint) returns boolean language sql as 'select true';
create operator tenancy_planted.= (leftarg = uuid, rightarg = uuid, function = tenancy_planted.always);
create operator tenancy_planted.= (leftarg = bigint, rightarg = bigint, function = tenancy_planted.always);
reset role;
set local search_path = tenancy_planted, pg_catalog, public, pg_temp;
select ok(not exists (
		select
		from jsonb_array_elements(answer) r (row)
		where (row -> q.name ->> 'id') operator(pg_catalog.<>) coalesce(row ->> 'rule_id', row ->> 'series_id')), format('%s(%s) under another search_path', q.name, q.of))
from requests q, pg_temp.rows('authenticated', :'claims_b', q.request) answer;
set local search_path to default;

-- Columns that a site has added, and a table that comes anew
alter table meshhook_metrics.alert_rules add column added_by_site integer default 4711;
select is(pg_temp.ask_as_b('select distinct r.added_by_site from meshhook_metrics.alerts a cross join lateral meshhook_metrics.rule(a) r'), '(4711)', 'a column that was added comes along');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
