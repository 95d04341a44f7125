-- What PostgREST offers under /rpc, and describes: functions of the contract, nothing
-- that they are made of, though those who call them may execute that as well
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
\ir ../sql/include/migrations.sql
select no_plan();

-- As its schema cache asks: no triggers, aggregates or procedures; arguments that all have
-- names, or one without, which then takes the body. With columns that are returned (OUT,
-- TABLE), an argument without a name has an empty one, and that is a name.
create temp view offered as
select p.oid, p.proname::text as name
from pg_proc p
cross join lateral (
	select count(*) - count(a.name) as unnamed, (array_agg(a.type))[1] as first_type
	from unnest(p.proargnames, p.proargtypes, p.proargmodes) a (name, type, mode)
	where a.type is not null) arguments
where p.pronamespace = 'meshhook_metrics'::regnamespace
	and p.prokind = 'f'
	and p.prorettype <> 'trigger'::regtype
	and (arguments.unnamed = 0
		or arguments.unnamed = 1 and arguments.first_type in ('bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'text'::regtype, 'xml'::regtype));
create function pg_temp.offered_to(role name) returns text
language sql as $$
	select string_agg(o.name, ' ' order by o.name)
	from offered o
	where has_function_privilege(role, o.oid, 'execute')
$$;

select is(pg_temp.offered_to('anon'), null, 'nothing to anon');
select is(pg_temp.offered_to('authenticated'), 'histogram_buckets histogram_fraction histogram_quantile query_range tenant_ids',
	'reading to tenants');
select is(pg_temp.offered_to('service_role'),
	'claim_notifications describe finish_notification flush gauge_add gauge_set histogram_buckets histogram_fraction histogram_quantile inc observe observe_since '
	'prometheus query_range record snapshot status tenant_ids',
	'recording and delivering to the service role, too');
-- Or the view would show nothing, whatever there is
create function meshhook_metrics.one_body(jsonb) returns void language sql as 'select';
create function meshhook_metrics.two_bodies(jsonb, jsonb) returns void language sql as 'select';
create function meshhook_metrics.two_of_a_row(jsonb, jsonb, out a int, out b int) language sql as 'select 1, 2';
select set_eq($$ select name from offered where name ~ '^(one|two)_' $$, array['one_body', 'two_of_a_row'], 'one without a name is offered, two are not, unless columns have some');

select * from finish();
rollback;
