-- maintain() makes partitions ahead, and deletes what is old and has been rolled up
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select no_plan();
set local timezone = 'Pacific/Chatham';
set local datestyle = 'SQL, DMY';

create temp view leaves as
select t.target, l.leaf, l.lower_bound, l.upper_bound
from (values ('1m'), ('5m'), ('1h'), ('1d')) t (target)
cross join lateral meshhook_metrics.leaves(t.target) l;

-- A run drops leaves of one table, or compacts one: as many as there is something to do
create function pg_temp.maintain() returns void
language plpgsql as $$
declare
	before text[];
	after text[];
begin
	for run in 1..100 loop
		before := after;
		perform meshhook_metrics.maintain();
		after := array(
			select format('%s %s', l.leaf, c.relfilenode)
			from leaves l
			join pg_index i on i.indrelid = format('meshhook_metrics.%I', l.leaf)::regclass and i.indisprimary
			join pg_class c on c.oid = i.indexrelid
			order by l.leaf);
		if after = before then
			return;
		end if;
	end loop;
	raise exception 'it finds something to do again and again';
end
$$;

-- Partitions ahead
select is((select string_agg(format('%s: %s', target, n), ', ') from (select target, count(*) as n from leaves group by target order by target) c),
	'1d: 2, 1h: 3, 1m: 4, 5m: 3', 'there are leaves for now and the time to come');
select ok(min(lower_bound) <= now() and max(upper_bound) >= now() + ahead, target || ': from now on, as far as is wanted')
from leaves
join meshhook_metrics.rollup_targets() t using (target)
group by target, ahead
order by target;
select is_empty($$
	select leaf
	from (select *, lag(upper_bound) over (partition by target order by lower_bound) as before from leaves) l
	where before <> lower_bound $$, 'without gaps');
select is_empty($$
	select leaf
	from leaves
	join meshhook_metrics.rollup_targets() t using (target)
	where lower_bound <> date_trunc(t.leaf_unit, lower_bound, 'UTC')
		or upper_bound at time zone 'UTC' <> lower_bound at time zone 'UTC' + leaf_step $$, 'they are whole days, weeks, months and years of UTC');
select is_empty($$
	select leaf
	from leaves
	join meshhook_metrics.rollup_targets() t using (target)
	where leaf <> 'rollup_' || target || '_' || to_char(lower_bound at time zone 'UTC', t.leaf_name) $$, 'their names say when they begin');
create temp table first_leaves as table leaves;
select lives_ok('select pg_temp.maintain()', 'again');
select set_eq('table leaves', 'table first_leaves', 'nothing changes');

-- Old data: two minutes of one day for each of many ages
do $$
declare
	day timestamptz;
begin
	for day in
		select date_trunc('day', now() - age * interval '24 hours', 'UTC')
		from unnest(array[1, 6, 9, 20, 60, 300, 500, 3000, 4500]) age
	loop
		perform meshhook_metrics.create_leaf('1m', day);
		insert into meshhook_metrics.rollup_1m values
			(gen_random_uuid(), 1, day, 1, 1),
			(gen_random_uuid(), 1, day + interval '12 hours', 1, 1);
	end loop;
end
$$;
create temp view kept as
select '1m' as target, tenant_id, bucket from meshhook_metrics.rollup_1m
union all select '5m', tenant_id, bucket from meshhook_metrics.rollup_5m
union all select '1h', tenant_id, bucket from meshhook_metrics.rollup_1h
union all select '1d', tenant_id, bucket from meshhook_metrics.rollup_1d;

select lives_ok('select pg_temp.maintain()', 'with minutes that are not known to be complete');
select is((select count(*) from kept), 18::bigint, 'nothing is deleted, however old it is');
update meshhook_metrics.rollup_state set complete_until = date_trunc('day', now() - 400 * interval '24 hours', 'UTC') where target = '1m';
select lives_ok('select pg_temp.maintain()', 'with minutes that are complete up to 400 days ago');
select is((select count(*) from kept where target = '1m'), 12::bigint, 'what is older goes');
select is((select count(*) from kept where target = '1d'), 4::bigint, 'after it has become days, of which ten years are kept');
select is((select count(*) from kept where target in ('5m', '1h')), 0::bigint, 'five minutes and hours of that age are not');
select is((select retained_from from meshhook_metrics.rollup_state where target = '1m'),
	date_trunc('day', now() - 500 * interval '24 hours', 'UTC') + interval '12 hours 1 minute', 'it is noted from when on there are minutes');

update meshhook_metrics.rollup_state set complete_until = date_trunc('minute', now()) where target = '1m';
create temp table old_leaves as table leaves;
create temp table old_minutes as select bucket from meshhook_metrics.rollup_1m;
insert into old_leaves
select t.target, null, date_trunc(t.leaf_unit, m.bucket, 'UTC'),
	(date_trunc(t.leaf_unit, m.bucket, 'UTC') at time zone 'UTC' + t.leaf_step) at time zone 'UTC'
from meshhook_metrics.rollup_1m m, meshhook_metrics.rollup_targets() t
where t.target <> '1m';
select lives_ok('select pg_temp.maintain()', 'with all minutes complete');
select set_eq('select target, lower_bound, upper_bound from leaves', $$
	select distinct target, lower_bound, upper_bound
	from old_leaves
	join meshhook_metrics.rollup_targets() t using (target)
	where upper_bound > now() - retention $$, 'leaves that are as old as their retention are gone, all others are there');
select is((select count(*) from kept where target = '1d'), 16::bigint, 'the days of all ages are there');
select is((select count(*) from kept where target = '1m'), 4::bigint, 'and a week of minutes');
select is(s.retained_from, coalesce(gone.ends, '-infinity'), s.target || ' is retained from the end of the last row that went')
from meshhook_metrics.rollup_state s
join meshhook_metrics.rollup_targets() t using (target)
left join lateral (
	select max(date_bin(t.step, m.bucket, 'epoch')) + t.step as ends
	from old_leaves o
	join old_minutes m
		on m.bucket >= o.lower_bound
		and m.bucket < o.upper_bound
	where o.target = s.target and o.upper_bound <= now() - t.retention) gone on true
where s.target in ('1m', '5m')
order by s.target;
create temp table were_kept as table kept;
select lives_ok('select pg_temp.maintain()', 'again');
select set_eq('table kept', 'table were_kept', 'nothing else goes');

-- Nor is an empty leaf that goes: after a clock that was set back it can be of the time to come
create temp table were_retained as select target, retained_from from meshhook_metrics.rollup_state;
select meshhook_metrics.create_leaf('1m', now() - 8 * interval '24 hours');
select lives_ok('select pg_temp.maintain()', 'with an empty leaf');
select set_eq('table leaves', $$
	select t.target, l.leaf, l.lower_bound, l.upper_bound
	from meshhook_metrics.rollup_targets() t
	cross join lateral meshhook_metrics.leaves(t.target) l
	where l.upper_bound > now() - t.retention $$, 'it goes');
select set_eq('select target, retained_from from meshhook_metrics.rollup_state', 'table were_retained', 'and nothing is noted, since nothing was there');

-- One table in a run, at most a hundred of its leaves; then one leaf is compacted in a run
select meshhook_metrics.create_leaf('1m', now() - n * interval '24 hours') from generate_series(20, 129) n;
select meshhook_metrics.create_leaf('5m', now() - n * interval '24 hours') from generate_series(60, 80, 7) n;
create temp view old as
select t.target, count(l.leaf) as leaves
from meshhook_metrics.rollup_targets() t
left join leaves l on l.target = t.target and l.upper_bound <= now() - t.retention
group by t.target;
create temp view compact as
select count(*) as n
from leaves l
join pg_index i on i.indrelid = format('meshhook_metrics.%I', l.leaf)::regclass and i.indisprimary
join pg_class c on c.oid = i.indexrelid
where 'fillfactor=100' = any (c.reloptions);
create function pg_temp.run() returns text
language plpgsql as $$
declare
	made_compact bigint := (select -n from compact);
begin
	perform meshhook_metrics.maintain();
	made_compact := made_compact + (select n from compact);
	return (select format('1m %s, 5m %s, compacted %s', max(leaves) filter (where target = '1m'), max(leaves) filter (where target = '5m'), made_compact) from old);
end
$$;
select is(format('1m %s, 5m %s', (select leaves from old where target = '1m'), (select leaves from old where target = '5m')), '1m 110, 5m 3', 'with a good many old leaves');
create temp table loose_leaves as
select c.oid
from leaves l
join pg_index i on i.indrelid = format('meshhook_metrics.%I', l.leaf)::regclass and i.indisprimary
join pg_class c on c.oid = i.indexrelid
where l.upper_bound > now() - interval '7 days' and l.upper_bound <= now();
do $$
declare
	index oid;
begin
	for index in table loose_leaves loop
		execute format('alter index %s reset (fillfactor)', index::regclass);
	end loop;
end
$$;
select is(pg_temp.run(), '1m 10, 5m 3, compacted 0', 'a hundred go, of one table, and nothing is compacted');
select is(pg_temp.run(), '1m 0, 5m 3, compacted 0', 'then the others');
select is(pg_temp.run(), '1m 0, 5m 0, compacted 0', 'then those of another table');
select is(pg_temp.run(), '1m 0, 5m 0, compacted 1', 'then one leaf is compacted')
from loose_leaves;

-- The settings
insert into meshhook_metrics.settings (name, value)
values ('retention_1m', '1 day'), ('retention_5m', '2 days'), ('retention_1h', '1000 days'), ('retention_1d', '7 days');
select lives_ok('select pg_temp.maintain()', 'with settings');
select is((select count(*) from kept k where k.target = '1m' and bucket < date_trunc('day', now() - interval '24 hours', 'UTC')), 0::bigint,
	'a day of minutes is kept');
select is_empty($$ select leaf from leaves where target = '5m' and upper_bound <= now() - interval '48 hours' $$, 'two days of five minutes');
select ok(exists (select from kept k where k.target = '1h' and bucket < now() - interval '290 days'), 'hours are kept for longer');
select is_empty($$ select leaf from leaves where target = '1d' and upper_bound <= now() - interval '7 days' $$, 'days go whole years at a time');
select ok(exists (select from leaves where target = '1d' and lower_bound <= now() and upper_bound > now()), 'but not this year');

-- A setting that makes no sense, which only gets in where its trigger is off
alter table meshhook_metrics.settings disable trigger check_settings;
update meshhook_metrics.settings set value = 'a while' where name = 'retention_1h';
update meshhook_metrics.settings set value = '-1 day' where name = 'retention_1m';
update meshhook_metrics.settings set value = '90000 years' where name = 'retention_5m';
create temp table sensible as table kept;
set local client_min_messages = error;
select lives_ok('select pg_temp.maintain()', 'with settings that make no sense');
set local client_min_messages = warning;
select set_eq('table kept', 'table sensible', 'nothing is deleted');
delete from meshhook_metrics.settings;

-- What happened to alerts, and what was told: of several ages, in hours, since days
-- differ here; of which some fire yet
create function pg_temp.happened(at timestamptz, state text, fired_event_id bigint default null) returns bigint
language sql as $$
	insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at, fired_event_id)
	values ('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', happened.at::text, 'kept', 'info', '{}', '{}', happened.state,
		'threshold', happened.at, happened.at, happened.fired_event_id)
	returning id
$$;
insert into meshhook_metrics.alerts (rule_id, fingerprint, tenant_id, name, severity, labels, annotations, state, reason, since, started_at, fired_event_id)
select '11111111-0000-4000-8000-000000000001', age::text, '11111111-1111-1111-1111-111111111111', 'kept', 'info', '{}', '{}', 'firing', 'threshold',
	now() - age, now() - age, pg_temp.happened(now() - age, 'firing')
from unnest(array['9600 hours', '24 hours']::interval[]) age;
do $$
declare
	age interval;
begin
	foreach age in array array['2160:00:01', '2159:59:59', '72:00:00', '1 hour']::interval[] loop
		perform pg_temp.happened(now() - age, 'pending');
		perform pg_temp.happened(now() - age, 'inactive');
		perform pg_temp.happened(now() - age, 'resolved', pg_temp.happened(now() - age, 'firing'));
	end loop;
end
$$;
-- A long one that is over: the event with which it fired is older than the other
do $$begin perform pg_temp.happened(now() - interval '1920 hours', 'resolved', pg_temp.happened(now() - interval '2400 hours', 'firing')); end$$;
create temp view told as select id, created_at, delivered_at is not null as done from meshhook_metrics.alert_notifications;
insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload, created_at, delivered_at)
select '11111111-1111-1111-1111-111111111111', '11111111-0000-4000-8000-000000000001', 'default', '{}', now() - age, case when done then now() - age end
from unnest(array['168:00:01', '167:59:59', '1 hour']::interval[]) age, unnest(array[true, false]) done;
create temp table happened as table meshhook_metrics.alert_events;
create temp table were_told as table told;
select lives_ok('select pg_temp.maintain()', 'with alerts');
select set_eq('table meshhook_metrics.alert_events', $$
	select *
	from happened
	where at >= now() - interval '2160 hours' or id in (select fired_event_id from meshhook_metrics.alerts) $$,
	'events stay for 90 days, and for longer if what fired with them fires yet');
select is((select string_agg(format('%s %s', state, n), ', ' order by state) from (select state, count(*) as n from meshhook_metrics.alert_events group by state) e),
	'firing 5, inactive 3, pending 3, resolved 4', 'all others are gone');
select set_eq('table told', $$ select * from were_told where created_at >= now() - interval '168 hours' $$, 'notifications stay for 7 days, delivered or not');
select is((select count(*) from told), 4::bigint, 'those that are older are gone');
insert into meshhook_metrics.settings (name, value) values ('retention_events', '2 days'), ('retention_notifications', '1 day');
select lives_ok('select pg_temp.maintain()', 'with settings for them');
select set_eq('table meshhook_metrics.alert_events', $$
	select *
	from happened
	where at >= now() - interval '48 hours' or id in (select fired_event_id from meshhook_metrics.alerts) $$, 'two days of events');
select set_eq('table told', $$ select * from were_told where created_at >= now() - interval '24 hours' $$, 'and one of notifications');
alter table meshhook_metrics.settings disable trigger check_settings;
update meshhook_metrics.settings set value = '-1 day';
create temp table happened_lately as table meshhook_metrics.alert_events;
set local client_min_messages = error;
select lives_ok('select pg_temp.maintain()', 'with settings that make no sense for them');
set local client_min_messages = warning;
select set_eq('table meshhook_metrics.alert_events', 'table happened_lately', 'no event is deleted');
select is((select count(*) from told), 2::bigint, 'and nothing that is told');
alter table meshhook_metrics.settings enable trigger check_settings;
delete from meshhook_metrics.settings;
-- An alert that is over no longer keeps its event
delete from meshhook_metrics.alerts where fingerprint = interval '9600 hours'::text;
select lives_ok('select pg_temp.maintain()', 'after the alert');
select is((select count(*) from meshhook_metrics.alert_events where at < now() - interval '9000 hours'), 0::bigint, 'its event goes');
-- Without them
alter table meshhook_metrics.alert_events rename to elsewhere;
select lives_ok('select pg_temp.maintain()', 'where alerting is not installed');
alter table meshhook_metrics.elsewhere rename to alert_events;

-- Indexes of complete leaves are compacted once
do $$
begin
	perform meshhook_metrics.create_leaf('1m', now() - interval '48 hours');
	for minute in 0..299 loop
		insert into meshhook_metrics.rollup_1m
		select '11111111-1111-1111-1111-111111111111', n, date_trunc('day', now() - interval '48 hours', 'UTC') + minute * interval '1 minute', 1, 1
		from generate_series(1, 50) n;
	end loop;
end
$$;
create temp view indexes as
select l.target, l.leaf, l.upper_bound, c.oid, c.relfilenode, coalesce('fillfactor=100' = any (c.reloptions), false) as compact, pg_relation_size(c.oid) as size
from leaves l
join pg_index i on i.indrelid = format('meshhook_metrics.%I', l.leaf)::regclass and i.indisprimary
join pg_class c on c.oid = i.indexrelid;
create temp table loose as table indexes;
update meshhook_metrics.rollup_state set complete_until = date_trunc('day', now() - interval '48 hours', 'UTC') + interval '23 hours' where target = '1m';
select lives_ok('select pg_temp.maintain()', 'with a leaf that is not complete');
select is((select i.relfilenode from indexes i join loose l using (oid) where not l.compact and l.upper_bound < now() and l.target = '1m' order by l.upper_bound limit 1),
	(select l.relfilenode from loose l where not l.compact and l.upper_bound < now() and l.target = '1m' order by l.upper_bound limit 1), 'its index stays');
update meshhook_metrics.rollup_state set complete_until = date_trunc('minute', now()) where target = '1m';
select lives_ok('select pg_temp.maintain()', 'with one that is');
select ok(i.size < 0.7 * l.size and i.compact and not l.compact, format('its index shrinks, from %s to %s bytes', l.size, i.size))
from indexes i
join loose l using (oid)
where l.size = (select max(size) from loose);
select is_empty($$
	select i.leaf
	from indexes i
	join meshhook_metrics.rollup_state s using (target)
	where i.compact <> (i.upper_bound <= s.complete_until) $$, 'that holds for all leaves that are complete, and for no others');
create temp table compacted as table indexes;
select lives_ok('select pg_temp.maintain()', 'again');
select set_eq('table indexes', 'table compacted', 'nothing is written a second time');

-- Leaves are protected, whatever default privileges there are
create role regress_reader nologin;
alter default privileges in schema meshhook_metrics grant all on tables to public;
select lives_ok($$ select meshhook_metrics.create_leaf('5m', '2040-01-01 00:00:00+00') $$, 'a leaf is created');
select is((select format('security %s, %s others have rights', c.relrowsecurity, (select count(*) from aclexplode(c.relacl) a where a.grantee <> c.relowner))
		from pg_class c
		where c.oid = 'meshhook_metrics.rollup_5m_20391226'::regclass), 'security t, 0 others have rights', 'and closed to everybody else');

-- Leaves have what their table has, whatever its owner adds to it
create table regress_listed (id bigint primary key);
insert into regress_listed values (1);
alter table meshhook_metrics.rollup_1h add constraint sane check (count >= 0);
alter table meshhook_metrics.rollup_1h add foreign key (series_id) references regress_listed;
select lives_ok($$ select meshhook_metrics.create_leaf('1h', '2040-06-01 00:00:00+00') $$, 'a leaf is created of a table with a constraint of its owner''s');
select throws_ok($$ insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum) values (gen_random_uuid(), 1, '2040-06-02 00:00:00+00', -1, 0) $$,
	'23514', null, 'which it checks');
select throws_ok($$ insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum) values (gen_random_uuid(), 2, '2040-06-02 00:00:00+00', 1, 0) $$,
	'23503', null, 'as it does a foreign key');
alter table meshhook_metrics.rollup_1m add column mean double precision generated always as (sum / nullif(count, 0)) stored,
	add column noted text not null default 'as ever';
select lives_ok($$ select meshhook_metrics.create_leaf('1m', '2040-06-01 00:00:00+00') $$, 'and of one with a generated column');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum) values (gen_random_uuid(), 1, '2040-06-01 10:00:00+00', 2, 5);
select is((select format('%s %s', mean, noted) from meshhook_metrics.rollup_1m where bucket > '2040-01-01'), '2.5 as ever', 'which it computes');
alter table meshhook_metrics.rollup_5m alter column histogram set compression pglz, alter column histogram set storage external;
select lives_ok($$ select meshhook_metrics.create_leaf('5m', '2041-01-01 00:00:00+00') $$, 'and of one whose values are stored otherwise');
select is((select format('%s %s', a.attcompression, a.attstorage) from pg_attribute a where a.attrelid = 'meshhook_metrics.rollup_5m_20401231'::regclass and a.attname = 'histogram'),
	'p e', 'as it stores them');
create table meshhook_metrics.as_a_partition_is partition of meshhook_metrics.rollup_1h for values from ('2050-01-01 00:00:00+00') to ('2050-02-01 00:00:00+00');
select set_eq($$
	select a.attname, a.attnotnull, a.attgenerated, a.attidentity, a.attstorage, a.attcompression, pg_get_expr(d.adbin, d.adrelid)
	from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	where a.attrelid = 'meshhook_metrics.rollup_1h_204006'::regclass and a.attnum > 0 $$, $$
	select a.attname, a.attnotnull, a.attgenerated, a.attidentity, a.attstorage, a.attcompression, pg_get_expr(d.adbin, d.adrelid)
	from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
	where a.attrelid = 'meshhook_metrics.as_a_partition_is'::regclass and a.attnum > 0 $$, 'its columns are those of a partition that PostgreSQL makes');
select set_eq($$ select contype, coninhcount, conislocal, convalidated, conkey, confrelid from pg_constraint where conrelid = 'meshhook_metrics.rollup_1h_204006'::regclass and contype <> 'c' $$,
	$$ select contype, coninhcount, conislocal, convalidated, conkey, confrelid from pg_constraint where conrelid = 'meshhook_metrics.as_a_partition_is'::regclass and contype <> 'c' $$,
	'so are its constraints');
select is((select format('security %s, %s others have rights', c.relrowsecurity, (select count(*) from aclexplode(c.relacl) a where a.grantee <> c.relowner))
		from pg_class c
		where c.oid = 'meshhook_metrics.rollup_1h_204006'::regclass), 'security t, 0 others have rights', 'and it is closed to everybody else as well');
drop table meshhook_metrics.as_a_partition_is;

-- Series without data, after more than a week without samples
truncate meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d, meshhook_metrics.series;
alter table meshhook_metrics.rollup_1h drop constraint rollup_1h_series_id_fkey;
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, last_day)
select '11111111-1111-1111-1111-111111111111', 'churn_total', 'counter', jsonb_build_object('n', n, 'age', age), (now() at time zone 'UTC')::date - age
from generate_series(1, 6) n, unnest(array[0, 8, 9, 400]) age;
-- n tells in which table there is data of it, 5 and 6: in none
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum) select tenant_id, id, date_trunc('hour', now()), 1, 1 from meshhook_metrics.series where labels->>'n' = '1';
insert into meshhook_metrics.rollup_5m (tenant_id, series_id, bucket, count, sum) select tenant_id, id, date_trunc('hour', now()), 1, 1 from meshhook_metrics.series where labels->>'n' = '2';
insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum) select tenant_id, id, date_trunc('hour', now()), 1, 1 from meshhook_metrics.series where labels->>'n' = '3';
insert into meshhook_metrics.rollup_1d (tenant_id, series_id, bucket, count, sum) select tenant_id, id, date_trunc('day', now(), 'UTC'), 1, 1 from meshhook_metrics.series where labels->>'n' = '4';
create temp view left_of_series as select (labels->>'age')::int as age, string_agg(labels->>'n', ' ' order by labels->>'n') as n from meshhook_metrics.series group by 1;
-- What is not rolled up yet may be of any of them
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum) values ('11111111-1111-1111-1111-111111111111', now() - interval '168 hours', 5, array[1], array[1], array[1]);
select is(meshhook_metrics.prune_series(), 0::bigint, 'as long as there are old rows of live, no series goes');
truncate meshhook_metrics.live;
-- Of a series that came back after just a week, before the server was away for two days
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select tenant_id, now() - interval '48 hours', 5, array[id], array[1], array[1] from meshhook_metrics.series where labels @> '{"n": 5, "age": 9}';
select is(meshhook_metrics.prune_series(), 0::bigint, 'nor while there are rows of days ago that are in no minute yet');
truncate meshhook_metrics.live;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum) values ('11111111-1111-1111-1111-111111111111', now(), 5, array[1], array[1], array[1]);
select is(meshhook_metrics.prune_series(3) <= 3, true, 'a call looks at so many');
select lives_ok('select pg_temp.maintain()', 'with series without data');
select set_eq('select * from left_of_series', $$ values (0, '1 2 3 4 5 6'), (8, '1 2 3 4 5 6'), (9, '1 2 3 4'), (400, '1 2 3 4') $$,
	'those go that have none in any table, and have had no sample for longer than a week');
truncate meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d;
select is(meshhook_metrics.prune_series(), 8::bigint, 'and others go as their data goes');
delete from meshhook_metrics.series;
select is(meshhook_metrics.prune_series(), 0::bigint, 'without series there is nothing to do');

-- What it notes its progress in is lost: nothing is deleted
create temp table whole as table kept;
delete from meshhook_metrics.rollup_state where target = '5m';
select throws_ok('select meshhook_metrics.maintain()', '55000', 'meshhook_metrics.rollup_state has lost its row 5m', 'a lost row is an error');
select set_eq('table kept', 'table whole', 'and nothing is deleted');
drop table meshhook_metrics.rollup_state;
select throws_ok('select meshhook_metrics.maintain()', '55000', 'the tables of meshhook_metrics are not installed in this database', 'a lost table, too');

select * from finish();
rollback;
