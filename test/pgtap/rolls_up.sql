-- rollup() gives the same answer whenever and however often it runs, and touches
-- nothing whose source is gone
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select no_plan();
-- Hours and days are those of UTC, wherever the session is
set local timezone = 'Asia/Kathmandu';
set local datestyle = 'German';

\set a '11111111-1111-1111-1111-111111111111'

-- What each table should hold: its rows from minute rows, directly
create function pg_temp.expected(minutes regclass, step interval)
returns table (tenant_id uuid, series_id bigint, bucket timestamptz, count numeric, sum float8, min float8, max float8, last float8, histogram text)
language plpgsql as $$
begin
	return query execute format($q$
		select m.tenant_id, m.series_id, to_timestamp(floor(extract(epoch from m.bucket) / %1$s) * %1$s) as window,
			sum(m.count), sum(m.sum), min(m.min), max(m.max),
			(array_agg(m.last order by m.bucket desc) filter (where m.last is not null))[1],
			meshhook_metrics.histogram_merge(m.histogram)::text
		from %2$s m
		group by 1, 2, 3 $q$, extract(epoch from step), minutes);
end
$$;
-- Rows of a table that differ from those, before the time until which it is complete
create function pg_temp.differences(target text, step interval) returns bigint
language plpgsql as $$
declare
	n bigint;
begin
	execute format($q$
		select count(*)
		from (
			select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text from meshhook_metrics.rollup_%s r) r
		full join pg_temp.expected('meshhook_metrics.rollup_1m', %L) e using (tenant_id, series_id, bucket)
		where bucket < (select complete_until from meshhook_metrics.rollup_state where target = %L)
			and row (r.count, r.sum, r.min, r.max, r.last, r.histogram) is distinct from row (e.count, e.sum, e.min, e.max, e.last, e.histogram) $q$,
		target, step, target)
	into n;
	return n;
end
$$;

-- Nothing there
select is(meshhook_metrics.rollup(), 0::bigint, 'without data there is nothing to do');
select throws_ok(format('select meshhook_metrics.rollup(%L)', target), '22023', format('there is no rollup "%s"', target), 'a target that does not exist: ' || target)
from unnest(array['1m', '', '5M', 'minutes', '1h ', '2d', '''']) target;

-- Minutes of some days around the ends of a week, a month and a year, in random order
-- with gaps, as the worker would bring them; sums are whole numbers, so that they are
-- the same in every order
select setseed(0.42);
create temp table brought as
select
	('11111111-1111-1111-1111-11111111111' || 1 + n % 2)::uuid as tenant_id,
	(n % 5)::bigint as series_id,
	timestamptz '2026-12-30 20:00:00+00' + floor(random() * 4 * 1440) * interval '1 minute' + random() * interval '59 seconds' as at,
	1 + floor(random() * 9)::bigint as count,
	floor(random() * 1000)::float8 as sum
from generate_series(1, 4000) n;
create function pg_temp.bring(since timestamptz, until timestamptz) returns void
language sql as $$
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	select
		b.tenant_id, b.at, 5, array_agg(b.series_id), array_agg(b.count), array_agg(b.sum),
		array_agg(case when b.series_id > 0 then b.sum / b.count end),
		array_agg(case when b.series_id > 0 then b.sum end),
		array_agg(case when b.series_id in (1, 2) and b.count <> 3 then b.sum end),
		array_agg(case when b.series_id > 2 then (select meshhook_metrics.histogram_of(b.sum + 0 * g) from generate_series(1, b.count) g) end)
	from brought b
	where b.at >= since and b.at < until
	group by b.tenant_id, b.at
	order by b.at
$$;

-- Run as it should be: every five minutes, for an hour and a bit
do $$
declare
	clock timestamptz := '2026-12-30 20:00:00+00';
begin
	while clock < '2026-12-30 21:10:00+00' loop
		perform pg_temp.bring(clock, clock + interval '5 minutes');
		clock := clock + interval '5 minutes';
		perform meshhook_metrics.close_minutes(clock);
		perform meshhook_metrics.rollup();
	end loop;
end
$$;
select is((select string_agg(target || ' ' || to_char(complete_until at time zone 'UTC', 'MM-DD HH24:MI'), ', ' order by complete_until desc, target)
		from meshhook_metrics.rollup_state),
	'1m 12-30 21:10, 5m 12-30 21:10, 1h 12-30 21:00, 1d 12-30 00:00', 'each table is complete up to its last whole window');
select ok((select count(*) from meshhook_metrics.rollup_5m) > 20, 'there are five minutes');
select is((select string_agg(distinct to_char(bucket at time zone 'UTC', 'HH24:MI'), ', ') from meshhook_metrics.rollup_1h), '20:00', 'an hour');
select is((select count(*) from meshhook_metrics.rollup_1d), 0::bigint, 'and no day yet');
select is(pg_temp.differences('5m', '5 minutes') + pg_temp.differences('1h', '1 hour'), 0::bigint, 'with what was recorded in them');
select is(meshhook_metrics.rollup(), 0::bigint, 'again, there is nothing to do');

-- Run irregularly: late, skipped, one target at a time, several times; and with the
-- clock going back now and then, so that minutes that were closed get more
do $$
declare
	clock timestamptz := '2026-12-30 21:10:00+00';
	fed timestamptz := clock;
	late bigint := 0;
begin
	while clock < '2027-01-03 20:00:00+00' loop
		clock := clock + random() * random() * interval '5 hours';
		perform pg_temp.bring(fed, clock);
		fed := clock;
		if random() < 0.25 then
			insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last)
			select '11111111-1111-1111-1111-111111111111', clock - random() * interval '30 hours', 5, array[1, n], array[1, 1], array[n, n], array[n, null], array[n, null], array[n, null]
			from generate_series(7, 9) n;
			late := late + 6;
			perform meshhook_metrics.close_minutes(clock - interval '20 hours');
		end if;
		perform meshhook_metrics.close_minutes(clock);
		if random() < 0.6 then
			perform meshhook_metrics.rollup((array['5m', '1h', '1d', null, null])[1 + floor(random() * 5)::int]) from generate_series(1, 1 + (random() * 2)::int);
		end if;
		if random() < 0.05 then
			if pg_temp.differences('5m', '5 minutes') + pg_temp.differences('1h', '1 hour') + pg_temp.differences('1d', '1 day') > 0 then
				raise 'on the way, at %', clock;
			end if;
		end if;
	end loop;
	perform meshhook_metrics.close_minutes('2027-01-05 00:00:00+00');
	create temp table recorded as
	select late, (select sum(count) from brought) as in_time;
end
$$;
select cmp_ok((select late from recorded), '>', 20::bigint, 'the clock went back some times');
select is((select sum(count) from meshhook_metrics.rollup_1m), (select late + in_time from recorded), 'minutes: every sample once');
select lives_ok('select meshhook_metrics.rollup()', 'all of it is rolled up');
select is(pg_temp.differences(target, step), 0::bigint, target || ': as if computed from the minutes in one go')
from (values ('5m', interval '5 minutes'), ('1h', '1 hour'), ('1d', '1 day')) t (target, step);
select is((select string_agg(target || ' ' || to_char(complete_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), ', ' order by target) from meshhook_metrics.rollup_state),
	'1d 2027-01-05 00:00, 1h 2027-01-05 00:00, 1m 2027-01-05 00:00, 5m 2027-01-05 00:00', 'to the end');
select is((select string_agg(distinct to_char(bucket at time zone 'UTC', 'MM-DD HH24:MI'), ', ') from meshhook_metrics.rollup_1d),
	'01-01 00:00, 01-02 00:00, 01-03 00:00, 12-30 00:00, 12-31 00:00', 'days are those of UTC');

-- From nothing, in one go, and then a hundred times
create temp table before as
select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_5m' as "table" from meshhook_metrics.rollup_5m
union all select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_1h' from meshhook_metrics.rollup_1h
union all select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_1d' from meshhook_metrics.rollup_1d;
truncate meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d;
update meshhook_metrics.rollup_state set complete_until = '-infinity' where target <> '1m';
select is(meshhook_metrics.rollup(), (select count(*) from before), 'from nothing, the same rows');
create temp view after as
select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_5m' as "table" from meshhook_metrics.rollup_5m
union all select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_1h' from meshhook_metrics.rollup_1h
union all select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text, 'rollup_1d' from meshhook_metrics.rollup_1d;
select is_empty('(table before except table after) union all (table after except table before)', 'in every column');
do $$
begin
	for run in 1..100 loop
		-- all of it again from the eleventh on
		if run > 10 and run % 10 = 0 then
			update meshhook_metrics.rollup_state set complete_until = '-infinity' where target <> '1m';
		end if;
		perform meshhook_metrics.rollup();
	end loop;
end
$$;
select is_empty('(table before except table after) union all (table after except table before)', 'and after a hundred runs');

-- A window whose source is gone, or partly gone, stays as it is
update meshhook_metrics.rollup_state set retained_from = '2027-01-01 10:02:00+00' where target = '1m';
delete from meshhook_metrics.rollup_1m where bucket < '2027-01-01 10:02:00+00';
update meshhook_metrics.rollup_1m set count = count + 1000000 where bucket < '2027-01-01 10:30:00+00';
update meshhook_metrics.rollup_state set complete_until = '-infinity' where target = '5m';
select cmp_ok(meshhook_metrics.rollup('5m'), '>', 0::bigint, 'the windows that are left are computed again');
select is_empty($$ (select * from before where "table" = 'rollup_5m' and bucket < '2027-01-01 10:05:00+00')
	except table after $$, 'those before stay, and the one whose source is cut in two');
select ok((select bool_and(count >= 1000000) and count(*) > 0 from meshhook_metrics.rollup_5m where bucket >= '2027-01-01 10:05:00+00' and bucket < '2027-01-01 10:30:00+00'),
	'the first whole one is new');
select is_empty($$ (select * from before where "table" = 'rollup_5m' and bucket >= '2027-01-01 10:30:00+00')
	except table after $$, 'those after are what they were');
-- with whole leaves gone, the hours and days that were made of them stay, too
do $$
begin
	execute (
		select string_agg(format('drop table meshhook_metrics.%I', l.leaf), ';')
		from unnest(array['1m', '5m']) target, meshhook_metrics.leaves(target) l
		where l.upper_bound <= '2027-01-04+00');
end
$$;
update meshhook_metrics.rollup_state set retained_from = '2027-01-04 00:00:00+00' where target in ('1m', '5m');
update meshhook_metrics.rollup_state set complete_until = '2026-12-30 00:00:00+00' where target in ('1h', '1d');
select is(meshhook_metrics.rollup('1h') , 0::bigint, 'where nothing is left, nothing is computed');
select is_empty($$ (select * from before where "table" <> 'rollup_5m') except table after $$, 'and nothing is lost');
select is((select to_char(complete_until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') from meshhook_metrics.rollup_state where target = '1h'), '2027-01-05 00:00',
	'the table is as complete as it gets');

-- A late minute in a leaf that is gone does not overwrite what was rolled up of it
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum) values (:'a', '2027-01-02 10:00:00+00', 5, array[1], array[1], array[1]);
select is(meshhook_metrics.close_minutes('2027-01-05 00:01:00+00'), 1::bigint, 'a minute comes after its leaf is gone');
select lives_ok('select meshhook_metrics.rollup()', 'it has nowhere to go');
select is_empty($$ (select * from before where "table" <> 'rollup_5m') except table after $$, 'and replaces nothing');

-- A clock was so far ahead that minutes of the time to come were dropped, and is right
-- since 10:17: what docs/operations.md says brings back what was recorded since
update meshhook_metrics.rollup_state set retained_from = '3027-02-25 00:00:00+00' where target in ('1m', '5m');
update meshhook_metrics.rollup_state set complete_until = '3027-03-04 00:00:00+00';
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', '2027-02-10+00'::timestamptz + at, 5, array[777], array[1], array[1]
from unnest(array['10:18', '10:22', '10:23', '11:07']::interval[]) at;
select is(meshhook_metrics.close_minutes('2027-02-10 11:08:00+00'), 4::bigint, 'minutes come after a clock was set right');
select is(meshhook_metrics.rollup(), 0::bigint, 'they are taken for dropped already');
update meshhook_metrics.rollup_state s
set retained_from = case when s.retained_from > now() then right_since else s.retained_from end,
    complete_until = case when s.target = '1m' then s.complete_until
                          else least(s.complete_until, date_bin(t.step, right_since, 'epoch')) end
from meshhook_metrics.rollup_targets() t,
     (values (timestamptz '2027-02-10 10:17+00')) clock (right_since)
where t.target = s.target;
select lives_ok('select meshhook_metrics.rollup()', 'until the time is put in');
select results_eq($$
	select "table", to_char(bucket at time zone 'UTC', 'MM-DD HH24:MI'), count
	from after
	where series_id = 777
	order by "table", bucket $$,
	$$ values ('rollup_1d', '02-10 00:00', 1::bigint), ('rollup_1h', '02-10 11:00', 1), ('rollup_5m', '02-10 10:20', 2), ('rollup_5m', '02-10 11:05', 1) $$,
	'then there are all windows that begin after it');
select is_empty($$ (select * from before where "table" <> 'rollup_5m') except table after $$, 'and those of before are what they were');

-- What it notes its progress in is lost
delete from meshhook_metrics.rollup_state where target = '1d';
select throws_ok('select meshhook_metrics.rollup()', '55000', 'meshhook_metrics.rollup_state has lost its row 1d', 'a lost row is an error');
delete from meshhook_metrics.rollup_state where target = '1m';
select throws_ok('select meshhook_metrics.rollup()', '55000', 'meshhook_metrics.rollup_state has lost its row 1m', 'that of a source, too');
drop table meshhook_metrics.rollup_state;
select throws_ok('select meshhook_metrics.rollup()', '55000', 'the tables of meshhook_metrics are not installed in this database', 'a lost table, too');

select * from finish();
rollback;
