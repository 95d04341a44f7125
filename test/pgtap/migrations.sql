-- The migrations: applied again they change nothing, over broken storage they mend it
begin;
set local client_min_messages = warning;
select no_plan();
set local check_function_bodies = off;

\ir ../sql/include/storage_listing.sql
create function pg_temp.alert_data() returns setof text
language sql as $$
	select 'rule ' || r::text from meshhook_metrics.alert_rules r
	union all select 'alert ' || a::text from meshhook_metrics.alerts a
	union all select 'event ' || e::text from meshhook_metrics.alert_events e
	union all select 'receiver ' || c::text from meshhook_metrics.alert_receivers c
	union all select 'notification ' || n::text from meshhook_metrics.alert_notifications n
	union all select 'gap ' || u::text from meshhook_metrics.alert_gaps u
	union all select 'evaluation ' || s::text from meshhook_metrics.alert_state s
$$;
create function pg_temp.data() returns setof text
language sql as $$
	select 'series ' || s::text from meshhook_metrics.series s
	union all select 'live ' || l::text from meshhook_metrics.live l
	union all select '1m ' || r::text from meshhook_metrics.rollup_1m r
	union all select '5m ' || r::text from meshhook_metrics.rollup_5m r
	union all select 'state ' || s::text from meshhook_metrics.rollup_state s
	union all select 'flush ' || f::text from meshhook_metrics.flush_state f
	union all select 'setting ' || s::text from meshhook_metrics.settings s
	union all select 'metric ' || m::text from meshhook_metrics.metrics m
	union all select pg_temp.alert_data()
$$;
create function pg_temp.fill() returns void
language sql as $$
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'kept_seconds', 'histogram', '{"a": "b"}');
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, histogram)
	values
		('11111111-1111-1111-1111-111111111111', date_trunc('minute', now()) - interval '8 minutes', 5, array[1], array[2], array[3], array(select meshhook_metrics.histogram_of(1))),
		('11111111-1111-1111-1111-111111111111', date_trunc('minute', now()) - interval '7 minutes', 5, array[1], array[3], array[3], array(select meshhook_metrics.histogram_of(2)));
	select meshhook_metrics.close_minutes(now());
	-- The migrations do so as well, and each run makes one leaf compact that is over
	select count(meshhook_metrics.maintain()::text) from generate_series(1, 8);
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, histogram)
	values ('11111111-1111-1111-1111-111111111111', now(), 5, array[1], array[4], array[3], array(select meshhook_metrics.histogram_of(3)));
	insert into meshhook_metrics.flush_state values (1, 2, now());
	insert into meshhook_metrics.settings (name, value) values ('retention_1m', '14 days');
	insert into meshhook_metrics.metrics values ('kept_seconds', 'histogram', 'How long it is kept.', 'seconds', -20);
	-- Rules of which one fires, one is pending, one has fired and is resolved, one fails
	insert into meshhook_metrics.alert_receivers (tenant_id, name, url) values ('11111111-1111-1111-1111-111111111111', 'duty', 'https://duty.example/');
	insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, group_by, threshold, time_window, for_duration)
	values
		('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', 'firing', 'kept_seconds', 'count', '{a}', 1, '1 hour', '0'),
		('11111111-0000-4000-8000-000000000002', '11111111-1111-1111-1111-111111111111', 'pending', 'kept_seconds', 'avg', null, 0, '1 hour', '1 hour'),
		('11111111-0000-4000-8000-000000000003', '11111111-1111-1111-1111-111111111111', 'resolved', 'kept_seconds', 'count', null, 1, '1 hour', '0'),
		('11111111-0000-4000-8000-000000000004', '11111111-1111-1111-1111-111111111111', 'failing', 'kept_seconds', 'last', null, 1, '1 hour', '0');
	select meshhook_metrics.evaluate_alerts(now());
	update meshhook_metrics.alert_rules set threshold = 100 where name = 'resolved';
	select meshhook_metrics.evaluate_alerts(now() + interval '1 second');
	select from meshhook_metrics.claim_notifications(1);
$$;

-- A plain server, without the roles and the publication of Supabase
\ir ../sql/include/migrations.sql
do $$begin perform pg_temp.fill(); end$$;
create temp table storage as select pg_temp.storage() as line;
create temp table data as select pg_temp.data() as line;
select cmp_ok(count(*), '>', 150::bigint, 'there is something to compare') from storage;
select cmp_ok(count(*), '>=', 23::bigint, 'and data') from data;
select is((select string_agg(format('%s %s', name, state), ', ' order by name) from meshhook_metrics.alerts), 'firing firing, pending pending', 'with alerts');
select is((select string_agg(format('%s %s', name, state), ', ' order by name, id) from meshhook_metrics.alert_events),
	'firing firing, pending pending, resolved firing, resolved resolved', 'with what has happened');
select is((select string_agg(name, ', ') from meshhook_metrics.alert_rules where last_error is not null), 'failing', 'with a rule that fails');
select is((select format('%s, %s taken', count(*), sum(attempts)) from meshhook_metrics.alert_notifications), '3, 1 taken', 'and with what is to be told');
select is_empty($$ select line from storage where line ~ ' =[a-zA-Z*]+/' $$, 'everybody has no right on it');
\ir ../sql/include/migrations.sql
\ir ../sql/include/migrations.sql
select set_eq('select pg_temp.storage()', 'table storage', 'applied three times, the storage is what it was');
select set_eq('select pg_temp.data()', 'table data', 'and so is the data');

-- On which roles and publication appear
\ir ../sql/include/api_roles.sql
set local client_min_messages = error; -- wal_level is no matter here
create publication supabase_realtime;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select set_eq('select pg_temp.data()', 'table data', 'the data stays');
select is((select string_agg(format('%I.%I', schemaname, tablename), ', ' order by tablename) from pg_publication_tables where pubname = 'supabase_realtime'),
	'meshhook_metrics.alert_events, meshhook_metrics.live', 'live and alert_events, and nothing else, are published');
select is_empty($$ select polrelid::regclass from pg_policy join pg_class c on c.oid = polrelid
		where c.relnamespace = 'meshhook_metrics'::regnamespace and polroles <> array['authenticated'::regrole::oid] $$,
	'policies that were for everybody are for authenticated');
drop table storage;
create temp table storage as select pg_temp.storage() as line;
\ir ../sql/include/migrations.sql
select set_eq('select pg_temp.storage()', 'table storage', 'again, nothing changes');

-- A publication of all tables has it already
drop publication supabase_realtime;
set local client_min_messages = error;
create publication supabase_realtime for all tables;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select is((select count(*) from pg_publication_tables where pubname = 'supabase_realtime' and schemaname = 'meshhook_metrics' and tablename in ('live', 'alert_events')),
	2::bigint, 'a publication of all tables is left alone');
drop publication supabase_realtime;
set local client_min_messages = error;
create publication supabase_realtime for table meshhook_metrics.live, meshhook_metrics.alert_events;
set local client_min_messages = warning;

-- The extension goes, and takes the columns of its type
drop extension meshhook_metrics cascade;
select hasnt_column('meshhook_metrics'::name, 'live'::name, 'histogram'::name, 'without the extension there are no histograms');
\ir ../sql/include/migrations.sql
select set_eq('select pg_temp.storage()', 'table storage', 'they come back, with all rights on functions');
select set_eq(
	$$ select regexp_replace(d, '"\{[^}]*\}"|\([^()]*\)\)$', '') from (select pg_temp.data()) t (d) where d !~ '^(live|1m|5m)' $$,
	$$ select regexp_replace(line, '"\{[^}]*\}"|\([^()]*\)\)$', '') from data where line !~ '^(live|1m|5m)' $$, 'what else there was is there');
select set_eq('select pg_temp.alert_data()', $$ select line from data where line ~ '^(rule|alert|event|receiver|notification|gap|evaluation) ' $$,
	'rules, alerts, events and notifications to the letter');
select is((select sum(c) from meshhook_metrics.live, unnest(count) c), 9::numeric, 'the rows of live');
select is((select sum(count) from meshhook_metrics.rollup_1m), 5::numeric, 'and the minutes');
select lives_ok($$ update meshhook_metrics.rollup_5m set histogram = (select meshhook_metrics.histogram_of(1)) $$, 'whose type is that of the extension');

-- Tables, leaves, policies, grants, triggers and functions that were dropped
drop table meshhook_metrics.flush_state, meshhook_metrics.settings, meshhook_metrics.rollup_1h, meshhook_metrics.alert_state, meshhook_metrics.alerts,
	meshhook_metrics.alert_events, meshhook_metrics.alert_notifications, meshhook_metrics.alert_gaps cascade;
-- Or else the last month's hours would be taken for made, just after it
update meshhook_metrics.rollup_state set complete_until = '-infinity' where target = '1h';
drop policy tenants_read_their_own on meshhook_metrics.live;
drop policy tenants_manage_their_own on meshhook_metrics.alert_rules;
drop index meshhook_metrics.live_tenant, meshhook_metrics.series_key, meshhook_metrics.rollup_1m_bucket, meshhook_metrics.alert_rules_failing;
drop trigger check_alert_rule on meshhook_metrics.alert_rules;
alter table meshhook_metrics.alert_rules disable trigger count_alert_rules;
drop function meshhook_metrics.check_alert_receiver() cascade;
alter function meshhook_metrics.count_alert_rules() security invoker;
create or replace function meshhook_metrics.check_alert_annotations() returns trigger language plpgsql as $$begin return new; end$$;
drop function meshhook_metrics.tenant_ids() cascade;
revoke select on meshhook_metrics.rollup_1m from authenticated;
revoke insert (name), delete on meshhook_metrics.alert_rules from authenticated;
grant update (last_error, created_at) on meshhook_metrics.alert_rules to authenticated;
grant all on meshhook_metrics.alert_receivers to authenticated;
grant all on meshhook_metrics.live to anon, authenticated;
grant execute on function meshhook_metrics.rollup to authenticated;
grant usage on sequence meshhook_metrics.series_id_seq to service_role;
grant create on schema meshhook_metrics to anon;
alter table meshhook_metrics.series disable row level security;
alter table meshhook_metrics.alert_rules disable row level security;
do $$begin execute (select format('alter table meshhook_metrics.%I disable row level security; grant select on meshhook_metrics.%1$I to anon', leaf) from meshhook_metrics.leaves('1m') limit 1); end$$;
\ir ../sql/include/migrations.sql
insert into meshhook_metrics.settings (name, value) values ('retention_1m', '14 days');
select set_eq('select pg_temp.storage()', 'table storage', 'whatever is missing is made, whatever is too much is taken away');
select ok(not has_schema_privilege('anon', 'meshhook_metrics', 'create'), 'from the schema, too');
select is((select string_agg(name, ' ' order by name) from meshhook_metrics.alert_rules), 'failing firing pending resolved', 'rules and receivers, which nobody dropped, are there');
select is((select count(*) from meshhook_metrics.alert_receivers), 1::bigint, 'all of them');

-- Alerts that were lost fire anew; what is lost of the other tables does not keep them from that
select is(meshhook_metrics.evaluate_alerts(now() + interval '1 minute'), 2::bigint, 'one fires, and one is pending');
delete from meshhook_metrics.alert_state;
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', 'meshhook_metrics.alert_state has lost its row', 'without the row of alert_state none is evaluated');
\ir ../sql/include/migrations.sql
select is((select format('%s %s', only_row, evaluated_at) from meshhook_metrics.alert_state), 't -infinity', 'it is back');
select is(meshhook_metrics.evaluate_alerts(now() + interval '2 minutes'), 0::bigint, 'and no alert changes for it');
select is((select format('%s, %s failing', rules, rules_failing) from meshhook_metrics.alert_state), '4, 1 failing', 'nor what is known of the rules');
drop table meshhook_metrics.alert_events cascade;
\ir ../sql/include/migrations.sql
update meshhook_metrics.alert_rules set threshold = 1 where name = 'resolved';
select is(meshhook_metrics.evaluate_alerts(now() + interval '3 minutes'), 1::bigint, 'where events are lost, alerts go on');
select is((select count(distinct fired_event_id) from meshhook_metrics.alerts where state = 'firing'), 2::bigint,
	'and a new event is not taken for the one with which an alert fired before');
update meshhook_metrics.alert_rules set threshold = 100;
select lives_ok($$ select meshhook_metrics.evaluate_alerts(now() + interval '4 minutes') $$, 'so that all can be resolved');

-- The note of what was rolled up is lost: nothing is counted twice
select is((select sum(count) from meshhook_metrics.rollup_1m), 5::numeric, 'before');
delete from meshhook_metrics.rollup_state;
\ir ../sql/include/migrations.sql
select is((select count(*) from meshhook_metrics.rollup_state), 4::bigint, 'the rows are back');
select is((select meshhook_metrics.close_minutes(now() + interval '2 minutes')), 1::bigint, 'the row of live that was not rolled up is');
select is((select sum(count) from meshhook_metrics.rollup_1m), 9::numeric, 'and no other');
truncate meshhook_metrics.rollup_1m;
delete from meshhook_metrics.rollup_state;
\ir ../sql/include/migrations.sql
select is((select live_id from meshhook_metrics.rollup_state where target = '1m'), 0::bigint, 'if there are no minutes, all of live is to be rolled up');

-- Tables that are made anew: their ids go on where they were
select is(meshhook_metrics.close_minutes(now() + interval '20 minutes') > 0, true, 'a minute is closed');
drop table meshhook_metrics.live;
\ir ../sql/include/migrations.sql
select cmp_ok(pg_sequence_last_value('meshhook_metrics.live_id_seq'::regclass), '>=', (select live_id from meshhook_metrics.rollup_state where target = '1m'),
	'live goes on after what was rolled up');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
values ('11111111-1111-1111-1111-111111111111', now() + interval '21 minutes', 5, array[4711], array[4], array[3]);
select is(meshhook_metrics.close_minutes(now() + interval '23 minutes'), 1::bigint, 'so that what comes is rolled up');
drop table meshhook_metrics.series cascade;
\ir ../sql/include/migrations.sql
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'kept_seconds', 'histogram', '{"a": "b"}');
select is((select id from meshhook_metrics.series), 4712::bigint, 'and a new series is not taken for one that has rollups');
\ir ../sql/include/migrations.sql
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'kept_seconds', 'histogram', '{"a": "c"}');
select is((select max(id) from meshhook_metrics.series), 4713::bigint, 'once more, nothing is skipped');

-- tenant_ids() is the site's to replace, and what the site adds to the schema is its own
create or replace function meshhook_metrics.tenant_ids() returns setof uuid language sql stable set search_path = '' as $$ select '11111111-1111-1111-1111-111111111111'::uuid $$;
create view meshhook_metrics.of_the_site with (security_invoker = true) as select metric from meshhook_metrics.series;
create function meshhook_metrics.of_the_site() returns int language sql as 'select 1';
create policy of_the_site on meshhook_metrics.settings for select to authenticated using (tenant_id in (select meshhook_metrics.tenant_ids()));
grant select on meshhook_metrics.of_the_site to authenticated, anon;
grant execute on function meshhook_metrics.of_the_site to authenticated;
drop table storage;
create temp table storage as select pg_temp.storage() as line;
\ir ../sql/include/migrations.sql
select set_eq('select pg_temp.storage()', 'table storage', 'all that stays');

-- A row of each table under the wrong conditions
select throws_ok($$ insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'kept_seconds', 'counter', '{"a": "b"}') $$,
	'23505', null, 'a series is there once');
select lives_ok(format($$ insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
	values ('11111111-1111-1111-1111-111111111111', %L, 'counter', (select jsonb_object_agg('k' || n, repeat(chr(256 + n * 7), 256)) from generate_series(1, 10) n)) $$, repeat('m', 128)),
	'labels may be as long as they get');
select throws_ok($$ insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'x', 'summary', '{}') $$,
	'23514', null, 'of a kind that there is');
select throws_ok($$ insert into meshhook_metrics.rollup_state (target) values ('2h') $$, '23514', null, 'targets are four');
select throws_ok($$ insert into meshhook_metrics.alert_state (only_row) values (false) $$, '23514', null, 'the state of evaluation is one');
select throws_ok($$ insert into meshhook_metrics.alert_state default values $$, '23505', null, 'row');
select throws_ok($$ insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
	values ('11111111-1111-1111-1111-111111111111', 'firing', 'm', 'count', 1) $$, '23505', null, 'a tenant has a name of a rule once');
select throws_ok(format($$ insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at, fired_event_id)
		values ('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', 'f', 'n', 'info', '{}', '{}', %L, 'threshold', now(), now(), %L) $$, state, fired)
	, '23514', null, format('an event that is %s %s the one with which it fired', state, case when fired is null then 'has' else 'has no' end))
from (values ('resolved', null), ('firing', 1), ('pending', 1), ('inactive', 1), ('recovering', null)) e (state, fired);
prepare resolve as insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at, fired_event_id)
	values ('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', 'f', 'n', 'info', '{}', '{}', 'resolved', 'threshold', now(), now(), 4711);
select lives_ok('resolve', 'what has fired is resolved');
select throws_ok('resolve', '23505', null, 'once, whoever writes');

select * from finish();
rollback;
