-- close_minutes() brings each live row into rollup_1m exactly once, whatever the clock does
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select no_plan();
-- The answers must not depend on where the session is
set local timezone = 'America/St_Johns';
set local datestyle = 'German';

-- Two tenants, whose series are a counter (1), a gauge (2) and a histogram (3)
\set a '11111111-1111-1111-1111-111111111111'
\set b '22222222-2222-2222-2222-222222222222'
create function pg_temp.bring(tenant uuid, at timestamptz, amount float8) returns void
language sql as $$
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	values (tenant, at, 5, array[1, 2, 3], array[1, 2, 3], array[amount, 3 * amount, 6 * amount],
		array[null, amount, amount], array[null, 2 * amount, 3 * amount], array[null, amount, null],
		array[null, null, (select meshhook_metrics.histogram_of(v * amount) from generate_series(1, 3) v)])
$$;
create temp view minutes as
select
	left(tenant_id::text, 1) as tenant,
	series_id as series,
	to_char(bucket at time zone 'UTC', 'MM-DD HH24:MI:SS') as bucket,
	count, sum, min, max, last, meshhook_metrics.histogram_count(histogram) as observations
from meshhook_metrics.rollup_1m;
create function pg_temp.complete_until(target text) returns text
language sql as $$
	select to_char(s.complete_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS')
	from meshhook_metrics.rollup_state s
	where s.target = complete_until.target
$$;

-- Nothing has been flushed
select is(meshhook_metrics.close_minutes('2026-11-24 09:59:30+00'), 0::bigint, 'without live rows there is nothing to write');
select is(pg_temp.complete_until('1m'), '2026-11-24 09:59:00', 'but the minutes before now are complete');

-- A minute is closed by the next one
select pg_temp.bring(:'a', '2026-11-24 10:00:00+00', 1);
select pg_temp.bring(:'b', '2026-11-24 10:00:00+00', 10);
select pg_temp.bring(:'a', '2026-11-24 10:00:30+00', 2);
select pg_temp.bring(:'a', '2026-11-24 10:00:59.999999+00', 0.5);
select is(meshhook_metrics.close_minutes('2026-11-24 10:00:59.999999+00'), 0::bigint, 'the minute that is not over stays in live');
select is_empty('select * from minutes', 'and is not in rollup_1m');
select pg_temp.bring(:'a', '2026-11-24 10:01:00+00', 100);
select is(meshhook_metrics.close_minutes('2026-11-24 10:01:00+00'), 6::bigint, 'when it is over, each of its series is a row');
select set_eq('select * from minutes', $$ values
	('1', 1::bigint, '11-24 10:00:00', 3::bigint, 3.5::float8, null::float8, null::float8, null::float8, null::bigint),
	('1', 2, '11-24 10:00:00', 6, 10.5, 0.5, 4, 0.5, null),
	('1', 3, '11-24 10:00:00', 9, 21, 0.5, 6, null, 9),
	('2', 1, '11-24 10:00:00', 1, 10, null, null, null, null),
	('2', 2, '11-24 10:00:00', 2, 30, 10, 20, 10, null),
	('2', 3, '11-24 10:00:00', 3, 60, 10, 30, null, 3) $$,
	'counts and sums are added, extremes kept, the newest last is the last, histograms are merged');
select is((select r.histogram::text from meshhook_metrics.rollup_1m r where r.tenant_id = :'a' and r.series_id = 3),
	(select meshhook_metrics.histogram_of(v * amount)::text from generate_series(1, 3) v, unnest(array[1, 2, 0.5]) amount),
	'exactly');
select is(pg_temp.complete_until('1m'), '2026-11-24 10:01:00', 'the minutes before now are complete');
select is((select live_id from meshhook_metrics.rollup_state where target = '1m'),
	(select max(id) from meshhook_metrics.live where at < '2026-11-24 10:01:00+00'), 'it is noted which rows are in');
select is(meshhook_metrics.close_minutes('2026-11-24 10:01:30+00'), 0::bigint, 'once is enough');
select is((select sum(sum) from minutes), 135::float8, 'and nothing is added again');

-- Several minutes at once, as after a pause
select pg_temp.bring(:'a', '2026-11-24 10:03:59+00', 1000);
select pg_temp.bring(:'b', '2026-11-25 00:00:00+00', 7);
select is(meshhook_metrics.close_minutes('2026-11-26 12:00:00+00'), 9::bigint, 'after a pause, all minutes that have passed are closed');
select set_eq($$ select tenant, bucket, sum from minutes where series = 1 $$, $$ values
	('1', '11-24 10:00:00', 3.5::float8), ('2', '11-24 10:00:00', 10), ('1', '11-24 10:01:00', 100), ('1', '11-24 10:03:00', 1000),
	('2', '11-25 00:00:00', 7) $$, 'each in its own');

-- Arrays without values are null as a whole
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
values (:'a', '2026-11-26 12:00:10+00', 5, array[1, 11], array[2, 3], array[4, 5]);
select is(meshhook_metrics.close_minutes('2026-11-26 12:01:00+00'), 2::bigint, 'a flush of counters alone');
select set_eq($$ select series, count, sum, min, max, last, observations from minutes where bucket = '11-26 12:00:00' $$,
	$$ values (1::bigint, 2::bigint, 4::float8, null::float8, null::float8, null::float8, null::bigint), (11, 3, 5, null, null, null, null) $$,
	'has nothing else');

-- The clock goes back: what it brings is added, the coarser tables learn of it
update meshhook_metrics.rollup_state set complete_until = '2026-11-26 12:00:00+00' where target in ('5m', '1h');
update meshhook_metrics.rollup_state set complete_until = '2026-11-26 00:00:00+00' where target = '1d';
select pg_temp.bring(:'a', '2026-11-25 23:58:10+00', 3);
select is(meshhook_metrics.close_minutes('2026-11-25 23:58:20+00'), 0::bigint, 'an earlier minute waits for its end like any other');
select is(pg_temp.complete_until('1m'), '2026-11-26 12:01:00', 'what was complete stays so');
select is(meshhook_metrics.close_minutes('2026-11-25 23:59:00+00'), 3::bigint, 'then it is closed');
select is(pg_temp.complete_until('1m'), '2026-11-26 12:01:00', 'and the next one will be known for late, too');
select is(pg_temp.complete_until('5m') || ', ' || pg_temp.complete_until('1h') || ', ' || pg_temp.complete_until('1d'),
	'2026-11-25 23:55:00, 2026-11-25 23:00:00, 2026-11-25 00:00:00', 'and the windows that hold it will be computed again');
select pg_temp.bring(:'a', '2026-11-25 23:58:40+00', 5);
select pg_temp.bring(:'a', '2026-11-24 10:00:40+00', 0.25);
select is(meshhook_metrics.close_minutes('2026-11-26 12:02:00+00'), 6::bigint, 'minutes that were closed are opened for what comes late');
select set_eq($$ select series, count, sum, min, max, last, observations from minutes where tenant = '1' and bucket in ('11-25 23:58:00', '11-24 10:00:00') $$, $$ values
	(1::bigint, 2::bigint, 8::float8, null::float8, null::float8, null::float8, null::bigint),
	(2, 4, 24, 3, 10, 5, null),
	(3, 6, 48, 3, 15, null, 6),
	(1, 4, 3.75, null, null, null, null),
	(2, 8, 11.25, 0.25, 4, 0.25, null),
	(3, 12, 22.5, 0.25, 6, null, 12) $$, 'which is added to them, the newest last being that of the newest row');
select is(pg_temp.complete_until('5m') || ', ' || pg_temp.complete_until('1h') || ', ' || pg_temp.complete_until('1d'),
	'2026-11-24 10:00:00, 2026-11-24 10:00:00, 2026-11-24 00:00:00', 'and the coarser tables go back as far as it needs');

-- A late flush of counters and gauges alone leaves the histogram of the minute alone
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
values (:'a', '2026-11-24 10:00:50+00', 5, array[3], array[0], array[0]);
select is(meshhook_metrics.close_minutes('2026-11-26 12:03:00+00'), 1::bigint, 'nothing late');
select is((select observations from minutes where tenant = '1' and series = 3 and bucket = '11-24 10:00:00'), 12::bigint, 'takes no observation away');

-- Leaves are made when rows need them, and nobody else can read them
select pg_temp.bring(:'a', '2031-02-28 23:59:59+00', 1);
select is(meshhook_metrics.close_minutes('2031-03-01 00:00:00+00'), 3::bigint, 'a day without a leaf gets one');
select is((select string_agg(format('%s from %s, security %s, rights %s', c.relname, l.lower_bound at time zone 'UTC', c.relrowsecurity,
			(select count(*) from aclexplode(c.relacl) a where a.grantee <> c.relowner)), '; ')
		from meshhook_metrics.leaves('1m') l
		join pg_class c on c.relname = l.leaf
		where l.lower_bound > '2031-01-01'
			and l.lower_bound < '2032-01-01'),
	'rollup_1m_20310228 from 28.02.2031 00:00:00, security t, rights 0', 'which is protected like the others');
select is((select tableoid::regclass::text from meshhook_metrics.rollup_1m where bucket > '2031-01-01' limit 1),
	'meshhook_metrics.rollup_1m_20310228', 'and holds the rows');

-- A partition that somebody has made by hand is as good
create table meshhook_metrics.by_hand partition of meshhook_metrics.rollup_1m for values from ('2032-01-01 00:00:00+00') to ('2032-02-01 00:00:00+00');
select pg_temp.bring(:'a', '2032-01-15 10:00:00+00', 1);
select is(meshhook_metrics.close_minutes('2032-01-15 10:01:00+00'), 3::bigint, 'a partition of another size serves');
select is((select tableoid::regclass::text from meshhook_metrics.rollup_1m where bucket > '2032-01-01' limit 1),
	'meshhook_metrics.by_hand', 'and is used');
create table meshhook_metrics.rollup_1m_20330101 (id int);
select pg_temp.bring(:'a', '2033-01-01 10:00:00+00', 1);
select throws_ok($$ select meshhook_metrics.close_minutes('2033-01-01 10:01:00+00') $$, '55000',
	'table meshhook_metrics.rollup_1m_20330101 is there, but is no partition of meshhook_metrics.rollup_1m', 'a table in the way is named');
drop table meshhook_metrics.rollup_1m_20330101;
select is(meshhook_metrics.close_minutes('2033-01-01 10:01:00+00'), 3::bigint, 'and when it is gone, nothing was lost');

-- What is far behind is closed in steps, between which the worker flushes: 500 rows and
-- the rest of a minute. After each, what is complete is in rollup_1m, and the rest is not.
truncate meshhook_metrics.live;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', '2033-06-01 10:00:00+00' :: timestamptz + n * interval '1 second', 1, array[21], array[1], array[1]
from generate_series(0, 3599) n;
create temp table steps (written bigint, complete_until timestamptz, counted numeric);
create function pg_temp.step(now timestamptz) returns void
language plpgsql as $$
declare
	written bigint := meshhook_metrics.close_minutes(now);
begin
	insert into steps
	select written, s.complete_until, (select coalesce(sum(r.count), 0) from meshhook_metrics.rollup_1m r where r.series_id = 21)
	from meshhook_metrics.rollup_state s
	where s.target = '1m';
end
$$;
select pg_temp.step('2033-06-01 11:00:10+00') from generate_series(1, 8);
select is((select string_agg(format('%s: %s, %s', written, to_char(complete_until at time zone 'UTC', 'HH24:MI'), counted), '; ' order by counted) from steps where written > 0),
	'9: 10:09, 540; 9: 10:18, 1080; 9: 10:27, 1620; 9: 10:36, 2160; 9: 10:45, 2700; 9: 10:54, 3240; 6: 11:00, 3600',
	'an hour of seconds is closed in steps of whole minutes');
select is((select count(*) from steps where written = 0), 1::bigint, 'then there is nothing more to do');
select is((select live_id from meshhook_metrics.rollup_state where target = '1m'), (select max(id) from meshhook_metrics.live), 'and all rows are in');
-- A minute of more rows is one step
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', '2033-06-01 11:00:00+00' :: timestamptz + n * interval '50 ms', 1, array[22], array[1], array[1]
from generate_series(0, 2399) n;
select is(meshhook_metrics.close_minutes('2033-06-01 11:02:00+00'), 1::bigint, 'a minute is not split');
select is((select count from minutes where series = 22), 1200::bigint, 'however many rows it has');
select is(meshhook_metrics.close_minutes('2033-06-01 11:02:00+00'), 1::bigint, 'the next one is another step');
-- The clock was set back while it was behind: what comes later in the order of ids is earlier in time
truncate steps;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', '2033-06-01 12:00:00+00' :: timestamptz + n * interval '1 second' - case when n >= 1200 then interval '15 minutes' else interval '0' end, 1, array[23], array[1], array[1]
from generate_series(0, 2399) n;
update meshhook_metrics.rollup_state set complete_until = '2033-06-01 11:00:00+00' where target in ('5m', '1h');
create temp table promised (complete_until timestamptz, missing bigint);
create function pg_temp.promise() returns void
language sql as $$
	insert into promised
	select s.complete_until, count(l.id)
	from meshhook_metrics.rollup_state s
	left join meshhook_metrics.live l on l.id > s.live_id and l.at < s.complete_until
	where s.target = '1m'
	group by s.complete_until
$$;
do $$begin
	for step in 1..10 loop
		perform meshhook_metrics.close_minutes('2033-06-01 12:50:00+00'), pg_temp.promise();
	end loop;
end$$;
select is((select sum(count) from minutes where series = 23), 2400::numeric, 'with a clock that was set back meanwhile, each row is added once');
select ok((select count(distinct complete_until) > 2 from promised), 'in steps');
select is((select sum(missing) from promised), 0::numeric, 'of which none promises more than it has done');
select is(pg_temp.complete_until('1m'), '2033-06-01 12:50:00', 'to the end');

-- Rows of live go when they are old and in rollup_1m, not before, the earliest first
truncate meshhook_metrics.live;
select pg_temp.bring(:'a', '2034-01-01 10:00:00+00' :: timestamptz + n * interval '1 minute', 1) from generate_series(0, 30) n;
select is(meshhook_metrics.delete_old_live(100, '2034-01-01 10:30:59+00'), 0::bigint, 'what is not closed is not deleted');
select is(meshhook_metrics.close_minutes('2034-01-01 10:30:59+00'), 90::bigint, 'half an hour is closed');
select is((select count(*) from meshhook_metrics.live), 31::bigint, 'closing deletes nothing');
select is(meshhook_metrics.delete_old_live(10, '2034-01-01 10:30:59+00'), 10::bigint, 'as many are deleted as are wanted');
select is((select to_char(min(at) at time zone 'UTC', 'HH24:MI') from meshhook_metrics.live), '10:10', 'the earliest');
select is(meshhook_metrics.delete_old_live(10, '2034-01-01 10:30:59+00'), 6::bigint, 'then what is left of them');
select is((select to_char(min(at) at time zone 'UTC', 'HH24:MI') || ' to ' || to_char(max(at) at time zone 'UTC', 'HH24:MI') from meshhook_metrics.live),
	'10:16 to 10:30', 'a quarter of an hour stays');
insert into meshhook_metrics.settings (name, value) values ('retention_live', '5 minutes');
select is(meshhook_metrics.delete_old_live(100, '2034-01-01 10:30:59+00'), 10::bigint, 'the setting is followed');
select is((select to_char(min(at) at time zone 'UTC', 'HH24:MI') from meshhook_metrics.live), '10:26', 'at once');
select is(meshhook_metrics.close_minutes('2034-01-01 09:00:30+00'), 3::bigint, 'the clock goes back');
select is(meshhook_metrics.delete_old_live(100, '2034-01-01 09:00:30+00'), 0::bigint, 'and nothing is deleted that is newer than it says');
-- However many rows of times that are still to come it has left
savepoint ahead;
delete from meshhook_metrics.live;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', '2034-06-01 00:00:00+00', 5, array[24], array[1], array[1] from generate_series(1, 10001);
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
values (:'a', '2034-01-01 10:31:00+00', 5, array[24], array[1], array[1]);
update meshhook_metrics.rollup_state set live_id = (select max(id) from meshhook_metrics.live) where target = '1m';
select is(meshhook_metrics.delete_old_live(100, '2034-01-01 11:00:00+00'), 1::bigint, 'and rows of times that are still to come keep no old ones');
rollback to ahead;

-- A setting that makes no sense, which only gets in where its trigger is off
alter table meshhook_metrics.settings disable trigger check_settings;
set local client_min_messages = error;
update meshhook_metrics.settings set value = 'five' where name = 'retention_live';
select is(meshhook_metrics.delete_old_live(100, '2034-02-01 10:00:00+00'), 0::bigint, 'nothing is deleted for a setting that makes no sense');
update meshhook_metrics.settings set value = '90000 years' where name = 'retention_live';
select is(meshhook_metrics.delete_old_live(100, '2034-02-01 10:00:00+00'), 0::bigint, 'nor with one beyond the calendar');
update meshhook_metrics.settings set value = '-1 day' where name = 'retention_live';
select is(meshhook_metrics.delete_old_live(100, '2034-02-01 10:00:00+00'), 0::bigint, 'or below zero');
set local client_min_messages = warning;
delete from meshhook_metrics.settings where name = 'retention_live';

-- Rows whose end cannot be noted are not added, since they would be again
create function pg_temp.keep() returns trigger language plpgsql as $$ begin return null; end $$;
create trigger keep before update on meshhook_metrics.rollup_state for each row execute function pg_temp.keep();
select pg_temp.bring(:'a', '2035-01-01 10:00:00+00', 1);
select throws_ok($$ select meshhook_metrics.close_minutes('2035-01-01 10:01:00+00') $$, '22000', 'table meshhook_metrics.rollup_state did not take how far its row 1m is',
	'what cannot be noted is an error');
drop trigger keep on meshhook_metrics.rollup_state;
select is(meshhook_metrics.close_minutes('2035-01-01 10:01:00+00'), 3::bigint, 'and when it can, nothing was added twice');

-- What it notes its progress in is lost: it does not guess
delete from meshhook_metrics.rollup_state where target = '1m';
select throws_ok('select meshhook_metrics.close_minutes()', '55000', 'meshhook_metrics.rollup_state has lost its row 1m', 'a lost row is an error');
drop table meshhook_metrics.rollup_state;
select throws_ok('select meshhook_metrics.delete_old_live(1)', '55000', 'the tables of meshhook_metrics are not installed in this database', 'a lost table, too');
select throws_ok('select meshhook_metrics.close_minutes()', '55000', 'the tables of meshhook_metrics are not installed in this database', 'a lost table, too');

select * from finish();
rollback;
