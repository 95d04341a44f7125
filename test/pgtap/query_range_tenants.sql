-- query_range() shows its caller what row level security shows, and lets nothing else be guessed
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
select current_user as keeper \gset
\ir ../sql/include/meshhook.sql
\ir ../sql/include/migrations.sql
select no_plan();
set local timezone = 'UTC';

\set a 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa'
\set b 'bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb'
create table meshhook_metrics.rollup_1m_any partition of meshhook_metrics.rollup_1m default;

-- What each has, in a closed minute and in the open one: A 1 and 2, B 10 and 20; a
-- metric and labels of B's own, and a name that is a gauge at B, newer than A's counter
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
values
	(:'a', 'runs_total', 'counter', '{"status": "ok"}'),
	(:'a', 'differs', 'counter', '{}'),
	(:'b', 'runs_total', 'counter', '{"status": "ok"}'),
	(:'b', 'runs_total', 'counter', '{"status": "secret of B"}'),
	(:'b', 'secret_total', 'counter', '{}'),
	(:'b', 'differs', 'gauge', '{}');
insert into meshhook_metrics.rollup_1m
select tenant_id, id, '2026-03-05 10:30', 1, case tenant_id when :'a' then 1 else 10 end, 1, 1, 1
from meshhook_metrics.series;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select tenant_id, '2026-03-05 10:31:05', 5, array_agg(id), array_agg(1), array_agg(case tenant_id when :'a' then 2 else 20 end)
from meshhook_metrics.series
where kind = 'counter'
group by tenant_id;
update meshhook_metrics.rollup_state set complete_until = '2026-03-05 10:31' where target = '1m';
-- A row of A's that names a series of B's, which no series of A's is
insert into meshhook_metrics.rollup_1m
select :'a', id, '2026-03-05 10:29', 1, 1000
from meshhook_metrics.series
where metric = 'secret_total';

-- From here on the user has these projects, and no other
create function pg_temp.as_tenants(tenants uuid[]) returns void
language plpgsql as $$
begin
	delete from public.projects;
	insert into public.projects (id, owner, name)
	select t, 'cccccccc-0000-4000-8000-00000000000c', 'project of C'
	from unnest(tenants) t;
	perform set_config('request.jwt.claims', '{"sub": "cccccccc-0000-4000-8000-00000000000c", "role": "authenticated"}', true);
end
$$;
-- What somebody is answered: rows, or the error
create function pg_temp.answer(who name, question text) returns text
language plpgsql as $$
declare
	result text;
begin
	perform set_config('role', who, true);
	execute format($q$ select string_agg(format('%%s %%s %%s', to_char(q.bucket, 'HH24:MI'), q.labels, q.value), '; ' order by q.bucket, q.labels)
		from meshhook_metrics.query_range(%s) q $q$, question) into result;
	perform set_config('role', 'none', true);
	return result;
exception when others then
	perform set_config('role', 'none', true);
	return sqlstate || ' ' || sqlerrm;
end
$$;
\set range '''2026-03-05 10:00'', ''2026-03-05 11:00'', ''1 minute'''
create function pg_temp.ask(who name, metric text, more text default '') returns text
language sql as $$
	select pg_temp.answer(who, format('%L, ''2026-03-05 10:00'', ''2026-03-05 11:00'', ''1 minute''%s', metric, more))
$$;

-- A tenant
select pg_temp.as_tenants(array[:'a']::uuid[]);
select is(pg_temp.ask('authenticated', 'runs_total'), '10:30 {} 1; 10:31 {} 2', 'A sees its own');
select is(pg_temp.ask('authenticated', 'runs_total', ', group_by => ''{status}'''), '10:30 {"status": "ok"} 1; 10:31 {"status": "ok"} 2', 'and no labels of B');
select is(pg_temp.ask('authenticated', 'runs_total', format(', tenant => %L', :'a')), '10:30 {} 1; 10:31 {} 2', 'also by its id');
select is(pg_temp.ask('authenticated', 'runs_total', format(', tenant => %L', :'b')), null, 'asked for B, nothing');
select is(pg_temp.ask('authenticated', 'runs_total', ', labels => ''{"status": "secret of B"}'''), null, 'nor by a label of B');
select is(pg_temp.ask('authenticated', 'secret_total'), null, 'a metric of B is not there');
select is(pg_temp.ask('authenticated', 'secret_total', ', aggregate => ''last'''), pg_temp.ask('authenticated', 'no_such_metric', ', aggregate => ''last'''),
	'and is no counter: an error would tell that it exists');
select is(pg_temp.ask('authenticated', 'differs'), '10:30 {} 1; 10:31 {} 2', 'a name is what it is to A');
select is(pg_temp.ask('authenticated', 'differs', ', aggregate => ''last'''), '22023 "differs" is a counter, which has no last', 'whatever it is to B');
select is(pg_temp.ask('authenticated', 'differs', format(', tenant => %L, aggregate => ''rate''', :'b')), null, 'which is not to be found out');
set local role authenticated;
select is((select count(*) from meshhook_metrics.query_range_rows('secret_total', '2026-03-05 10:00', '2026-03-05 11:00', '1 minute', '{}', null, null, null) r (bucket timestamptz, labels jsonb, value float8)), 0::bigint,
	'nor by what query_range() is made of');
select is((select count(*) from meshhook_metrics.query_range_rows('runs_total', '2026-03-05 10:00', '2026-03-05 11:00', '1 minute', '{}', null, null, null) r (bucket timestamptz, labels jsonb, value float8)), 2::bigint,
	'which shows A its own');
reset role;

-- Others
select pg_temp.as_tenants(array[:'b']::uuid[]);
select is(pg_temp.ask('authenticated', 'runs_total'), '10:30 {} 20; 10:31 {} 40', 'B sees its own');
select is(pg_temp.ask('authenticated', 'differs'), '10:30 {} 1', 'and what the name is to B');
select pg_temp.as_tenants(array[:'a', :'b']::uuid[]);
select is(pg_temp.ask('authenticated', 'runs_total'), '10:30 {} 21; 10:31 {} 42', 'who has both sees both');
select is(pg_temp.ask('authenticated', 'runs_total', format(', tenant => %L', :'b')), '10:30 {} 20; 10:31 {} 40', 'or one');
select is(pg_temp.ask('authenticated', 'secret_total'), '10:30 {} 10; 10:31 {} 20', 'and of each only what is its own');
select pg_temp.as_tenants('{}');
select is(pg_temp.ask('authenticated', 'runs_total'), null, 'who has none sees nothing');
select set_config('request.jwt.claims', '', true);
select is(pg_temp.ask('authenticated', 'runs_total'), null, 'nor does who has no claims');
select matches(pg_temp.ask('anon', 'runs_total'), '^42501 ', 'anon may not ask');
select is(pg_temp.ask('service_role', 'runs_total'), '10:30 {} 21; 10:31 {} 42', 'service_role sees all');
select is(pg_temp.ask('service_role', 'runs_total', format(', tenant => %L', :'a')), '10:30 {} 1; 10:31 {} 2', 'or one tenant');

-- tenant_ids() is the site's to replace
savepoint replaced;
create or replace function meshhook_metrics.tenant_ids() returns setof uuid
language sql stable set search_path = '' as $$ select 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa'::uuid $$;
select is(pg_temp.ask('authenticated', 'runs_total'), '10:30 {} 1; 10:31 {} 2', 'its answer counts');
rollback to replaced;

-- Policies that a site adds count too, wider and narrower ones
create role regress_auditor nologin in role authenticated;
create policy auditors_read_all on meshhook_metrics.series for select to regress_auditor using (true);
create policy auditors_read_all on meshhook_metrics.rollup_1m for select to regress_auditor using (true);
create policy auditors_read_all on meshhook_metrics.live for select to regress_auditor using (true);
select is(pg_temp.ask('regress_auditor', 'runs_total'), '10:30 {} 21; 10:31 {} 42', 'a role that may read all reads all');
select is(pg_temp.ask('authenticated', 'runs_total'), null, 'others nothing more than before');
create policy not_all on meshhook_metrics.series as restrictive for select to authenticated using (labels ->> 'status' <> 'secret of B');
select is(pg_temp.ask('regress_auditor', 'runs_total'), '10:30 {} 11; 10:31 {} 22', 'a restriction restricts');
drop policy auditors_read_all on meshhook_metrics.series;
drop policy auditors_read_all on meshhook_metrics.rollup_1m;
drop policy auditors_read_all on meshhook_metrics.live;
select pg_temp.as_tenants(array[:'b']::uuid[]);
select is(pg_temp.ask('authenticated', 'runs_total'), '10:30 {} 10; 10:31 {} 20', 'also a tenant');

-- Where the policies are those of the migrations, a tenant's series are looked up by
-- its id, not among everybody's; query_range() tells these policies by their text
create function pg_temp.policy() returns text
language sql set search_path = '' as $$
	select pg_catalog.pg_get_expr(p.polqual, p.polrelid)
	from pg_catalog.pg_policy p
	where p.polrelid = 'meshhook_metrics.series'::pg_catalog.regclass
		and p.polpermissive
$$;
select is(pg_temp.policy(), '(tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))', 'the policy of series is the one that it knows');

-- It runs with the rights of who calls it
select is((select count(*) from pg_proc where pronamespace = 'meshhook_metrics'::regnamespace and proname like 'query\_range%' and (prosecdef or not 'search_path=pg_catalog, pg_temp' = any (proconfig))),
	0::bigint, 'with a search_path of its own');
create role regress_reader nologin;
grant usage on schema meshhook_metrics to regress_reader;
grant execute on function meshhook_metrics.query_range to regress_reader;
select matches(pg_temp.ask('regress_reader', 'runs_total'), '^42501 permission denied', 'who may not read the tables learns nothing from it');

select * from finish();
rollback;
