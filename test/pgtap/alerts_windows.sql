-- What a rule's window has, to the microsecond, and whose series it looks at
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
set local timezone = 'America/New_York';

-- Increments of 1, 2, 4, 8 and so on at these seconds: their sum says which were counted
create function pg_temp.increments(variadic seconds numeric[]) returns void
language sql as $$
	select pg_temp.clear();
	update meshhook_metrics.rollup_state set live_id = 0, complete_until = '-infinity';
	select pg_temp.sample('x_total', pg_temp.t(s), 2 ^ (i - 1)) from unnest(seconds) with ordinality u (s, i) order by i
$$;
-- The sum that a window has at a time, as it is and with each of these minutes closed
create function pg_temp.counted(time_window interval, seconds numeric, variadic closed numeric[] default '{}') returns text
language plpgsql as $$
declare
	made uuid := pg_temp.rule(jsonb_build_object('name', 'counted', 'metric', 'x_total', 'aggregate', 'increase', 'time_window', time_window));
	counted text := (select value from meshhook_metrics.alert_values(pg_temp.t(seconds), array[made]));
	until numeric;
begin
	foreach until in array closed loop
		perform pg_temp.close(until);
		counted := counted || ' ' || (select value from meshhook_metrics.alert_values(pg_temp.t(seconds), array[made]));
	end loop;
	delete from meshhook_metrics.alert_rules where id = made;
	return counted;
end
$$;

select pg_temp.increments(20.499999, 20.5, 20.500001, 30.499999, 30.5, 30.500001);
select is(pg_temp.counted('10 seconds', 30.5), '28', 'a window has what came after its beginning, up to its end');
select is(pg_temp.counted('10 seconds', 30.5, 60), '28 28', 'also when the minute of both is closed');
select pg_temp.increments(-100, 50.499999, 50.5, 50.500001, 59.999999, 60, 60.500001);
select is(pg_temp.counted('10 seconds', 60.5, 60, 120), '56 56 56', 'when a minute begins in it');
select pg_temp.increments(29.5, 30.499999, 30.5, 30.500001, 59.999999, 60, 119.999999, 120, 130.5, 130.500001);
select is(pg_temp.counted('100 seconds', 130.5, 60, 120, 180), '504 504 504 504', 'and when there is a whole one');
select pg_temp.increments(59.999999, 60, 60.000001, 119.999999, 120, 120.000001);
select is(pg_temp.counted('1 minute', 120, 60, 120, 180), '28 28 28 28', 'a window that is a minute has that minute, and nothing of the one before');
select pg_temp.increments(-0.000001, 0, 0.000001, 300, 600, 600.000001);
select is(pg_temp.counted('10 minutes', 600, 0, 300, 600, 660), '28 28 28 28 28', 'as has one of ten minutes');
select pg_temp.increments(0, 60);
select is(pg_temp.counted('31 days', 0) || '/' || pg_temp.counted('31 days', 59.999999) || '/' || pg_temp.counted('31 days', 60), '1/1/3', 'what comes later does not count yet');

-- Longer ones begin at a whole minute, or hour
select pg_temp.increments(-0.000001, 0, 30, 30.5, 31, 930.5, 930.500001);
select pg_temp.close(60);
select is(pg_temp.counted('15 minutes', 930.5), '48', 'fifteen minutes are exact');
select is(pg_temp.counted('901 seconds', 930.5), '62', 'a second more begins at a whole minute');
select pg_temp.increments(-3600.000001, -3600, -0.000001, 0, 1800, 43199, 43230);
select pg_temp.close(43200);
select is(pg_temp.counted('12 hours', 43230) || '/' || pg_temp.counted('12 hours 10 minutes', 43230), '120/126', 'twelve hours begin at a whole minute, more at a whole hour');
insert into meshhook_metrics.settings (name, value) values ('retention_live', '1 hour');
select pg_temp.increments(-0.000001, 0, 30, 30.5, 31, 931.5);
select pg_temp.close(60);
select is(pg_temp.counted('901 seconds', 931.5), '48', 'with a longer retention_live longer ones are exact');
update meshhook_metrics.settings set value = '2 minutes' where name = 'retention_live';
select is(pg_temp.counted('900 seconds', 931.5), '62', 'with a shorter one only shorter ones');
delete from meshhook_metrics.settings;

-- A rate is for a second of what the window is
select pg_temp.increments(0, 90, 930.5);
select pg_temp.close(960);
create function pg_temp.value(columns jsonb, seconds numeric) returns float8
language plpgsql as $$
declare
	made uuid := pg_temp.rule(columns || jsonb_build_object('name', gen_random_uuid()));
begin
	return (select value from meshhook_metrics.alert_values(pg_temp.t(seconds), array[made]));
end
$$;
insert into meshhook_metrics.settings (name, tenant_id, value) values ('max_alert_rules', :'a', '1000');
create function pg_temp.rate(time_window interval, seconds numeric) returns float8
language sql
return pg_temp.value(jsonb_build_object('metric', 'x_total', 'aggregate', 'rate', 'time_window', time_window), seconds);
select is(pg_temp.rate('10 seconds', 930.5), 0.4::float8, 'a rate is for a second');
select is(pg_temp.rate('901 seconds', 930.5), 7 / 930.5::float8, 'of the time from where it begins');

-- A steady ten a second, flushed every 15 seconds: whatever the window is, and whether or not
-- its minutes are closed, and wherever it ends, it has its part of what came
create function pg_temp.parts(at numeric, expected numeric) returns setof text
language sql as $$
	select is(
		string_agg(format('%s: %s %s %s', w, round(pg_temp.value(d.columns || '{"aggregate": "rate"}', at)::numeric, 6),
			round(pg_temp.value(d.columns || '{"aggregate": "increase"}', at)::numeric, 3),
			round(pg_temp.value(d.columns || '{"aggregate": "count"}', at)::numeric, 3)), ', ' order by w),
		string_agg(format('%s: 10.000000 %s %s', w, round(10 * (extract(epoch from w) - at + expected), 3), round(extract(epoch from w) - at + expected, 3)), ', ' order by w),
		format('at %s s', at))
	from unnest('{10 s,20 s,25 s,30 s,40 s,100 s}'::interval[]) w
	cross join lateral (select jsonb_build_object('metric', 'steady_total', 'time_window', w) as columns) d
$$;
select pg_temp.clear();
update meshhook_metrics.rollup_state set live_id = 0, complete_until = '-infinity';
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values (:'a', 'steady_total', 'counter', '{}');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', pg_temp.t(g * 15 - 0.000001), 15, array[s.id], array[15], array[150]
from meshhook_metrics.series s, generate_series(1, 16) g;
select pg_temp.parts(at, at) from unnest(array[225, 232.5, 236, 239.999999]) at;
select pg_temp.parts(243, 239.999999);
select pg_temp.close(120);
select pg_temp.parts(225, 225);
select pg_temp.close(240);
select pg_temp.parts(at, at) from unnest(array[225, 232.5, 236, 239.999999]) at;
select pg_temp.parts(243, 239.999999);
-- Nothing has come since, which is known: the last minute is not stretched
select is(round(pg_temp.value('{"metric": "steady_total", "aggregate": "rate", "time_window": "1 minute"}', 270)::numeric, 4), 5.0000, 'what rests counts as time');
-- A flush is about its minute only, as the minute in rollup_1m is
select pg_temp.clear();
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values (:'a', 'steady_total', 'counter', '{}');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', pg_temp.t(70), 40, array[s.id], array[10], array[100] from meshhook_metrics.series s;
select is(pg_temp.value(jsonb_build_object('metric', 'steady_total', 'aggregate', 'increase', 'time_window', w), 70)::numeric, 100::numeric, format('all of a row is in its minute: %s', w))
from unnest('{10 s 1 us,11 s,60 s,100 s}'::interval[]) w where extract(epoch from w) % 1 = 0;

-- Whose series, and which
select pg_temp.clear();
select pg_temp.sample('depth', pg_temp.t(0), 2 ^ (n - 1), labels::jsonb, tenant)
from (values
	(1, '{}', uuid :'a'), (2, '{"code": "500"}', :'a'), (3, '{"code": "500", "ok": "true"}', :'a'), (4, '{"code": "5"}', :'a'), (5, '{"ok": "false"}', :'a'),
	(6, '{"code": "500"}', :'b'), (7, '{"code": "500"}', '00000000-0000-0000-0000-000000000000')) s (n, labels, tenant);
create function pg_temp.seen(labels jsonb, tenant uuid) returns float8
language sql
return pg_temp.value(jsonb_build_object('labels', labels, 'tenant_id', tenant), 0);
select is(pg_temp.seen(labels::jsonb, :'a'), sum::float8, format('%s: series whose labels contain these, an empty one being none', labels))
from (values ('{}', 31), ('{"code": "500"}', 6), ('{"code": 500}', 6), ('{"code": 5e2}', 6), ('{"code": 500, "ok": true}', 4), ('{"ok": false}', 16), ('{"code": ""}', 17), ('{"none": 1}', null)) s (labels, sum);
select is(pg_temp.seen('{}', :'b'), 32::float8, 'another tenant has its own');
select is(pg_temp.seen('{}', '00000000-0000-0000-0000-000000000000'), 64::float8, 'and so has the platform');
select is(pg_temp.seen('{}', 'ffffffff-ffff-ffff-ffff-ffffffffffff'), null::float8, 'one without series has no value');
select is((select count(*) from meshhook_metrics.alert_values(pg_temp.t(0), array[gen_random_uuid()])), 0::bigint, 'there is no value of a rule that does not exist');
select is((select count(*) from meshhook_metrics.alert_values(pg_temp.t(0), '{}')), 0::bigint, 'nor of none');

-- Series of which a flush brought several samples, and rows of live without some arrays
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"], "time_window": "1 minute", "comparison": "<>", "threshold": 0}');
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values
	(:'a', 'depth', 'gauge', '{"queue": "x", "n": "1"}'), (:'a', 'depth', 'gauge', '{"queue": "x", "n": "2"}'), (:'a', 'depth', 'gauge', '{"queue": "y"}');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, last)
select :'a', pg_temp.t(second), 5, array_agg(s.id order by s.id), array_agg(7), array_agg(0), array_agg(case when s.labels ->> 'n' = '2' then null else second end order by s.id)
from meshhook_metrics.series s, unnest(array[10, 20]) second
group by second;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum) select :'a', pg_temp.t(30), 5, array_agg(s.id), array_agg(1), array_agg(1) from meshhook_metrics.series s;
select pg_temp.sample('depth', pg_temp.t(5), 100, '{"queue": "x", "n": "2"}');
select results_eq(format('select labels, value from meshhook_metrics.alert_values(pg_temp.t(40), %L) where labels is not null or error is not null order by labels', array(select id from meshhook_metrics.alert_rules)),
	$$ values ('{"queue": "x"}'::jsonb, 120::float8), ('{"queue": "y"}', 20) $$, 'the last value of each series is added up, whenever it was');
select * from finish();
rollback;
