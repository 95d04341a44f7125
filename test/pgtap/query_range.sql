-- What query_range() answers, worked out by hand
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
\ir ../sql/include/migrations.sql
select no_plan();
set local timezone = 'UTC';

create table meshhook_metrics.rollup_1m_any partition of meshhook_metrics.rollup_1m default;
create table meshhook_metrics.rollup_5m_any partition of meshhook_metrics.rollup_5m default;
create table meshhook_metrics.rollup_1h_any partition of meshhook_metrics.rollup_1h default;
create table meshhook_metrics.rollup_1d_any partition of meshhook_metrics.rollup_1d default;

create function pg_temp.series(metric text, kind text, labels jsonb default '{}') returns bigint
language sql as $$
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
	values ('aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', metric, kind, labels)
	returning id
$$;

-- A row of a rollup table, a histogram's values included
create function pg_temp.row(target text, series bigint, bucket timestamptz, count bigint, sum float8,
	min float8 default null, max float8 default null, last float8 default null, "values" float8[] default null) returns void
language plpgsql as $$
begin
	execute format('insert into meshhook_metrics.%I values ($1, $2, $3, $4, $5, $6, $7, $8, (select meshhook_metrics.histogram_of(v) from unnest($9) v))', 'rollup_' || target)
	using 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa'::uuid, series, bucket, count, sum, min, max, last, "values";
end
$$;

-- A flush that brought one counter's or gauge's samples
create function pg_temp.live(series bigint, at timestamptz, seconds float8, count bigint, sum float8, last float8 default null) returns bigint
language sql as $$
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last)
	values ('aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', at, seconds, array[series], array[count], array[sum],
		case when last is not null then array[last] end, case when last is not null then array[last] end, case when last is not null then array[last] end)
	returning id
$$;
create function pg_temp.complete(target text, until timestamptz) returns void
language sql as $$
	update meshhook_metrics.rollup_state set complete_until = until where rollup_state.target = complete.target
$$;

-- Days, hours, five minutes, minutes and the open minute in one bucket
select pg_temp.series('runs_total', 'counter', '{"status": "ok"}') as ok \gset
select pg_temp.series('runs_total', 'counter', '{"status": "failed"}') as failed \gset
do $$begin
	perform pg_temp.row('1d', s.id, d, 1, 1000000) from meshhook_metrics.series s, generate_series('2026-03-01'::timestamptz, '2026-03-04', '1 day') d;
	perform pg_temp.row('1h', s.id, h, 1, 10000) from meshhook_metrics.series s, generate_series('2026-03-04'::timestamptz, '2026-03-05 09:00', '1 hour') h;
	perform pg_temp.row('5m', s.id, m, 1, 100) from meshhook_metrics.series s, generate_series('2026-03-05 09:00'::timestamptz, '2026-03-05 10:25', '5 minutes') m;
	perform pg_temp.row('1m', s.id, m, 1, 1) from meshhook_metrics.series s, generate_series('2026-03-05 10:20'::timestamptz, '2026-03-05 10:31', '1 minute') m;
	perform pg_temp.complete('1d', '2026-03-04');
	perform pg_temp.complete('1h', '2026-03-05 09:00');
	perform pg_temp.complete('5m', '2026-03-05 10:25');
	perform pg_temp.complete('1m', '2026-03-05 10:32');
end$$;
do $$begin perform pg_temp.live(id, '2026-03-05 10:31:59.999999', 5, 1, 0.1) from meshhook_metrics.series where labels @> '{"status": "ok"}'; end$$;
do $$begin
	perform pg_temp.live(s.id, '2026-03-05 10:32:04.999999', 5, 1, 0.25) from meshhook_metrics.series s;
	perform pg_temp.live(s.id, '2026-03-05 10:32:09.999999', 5, 1, 0.25) from meshhook_metrics.series s where s.labels @> '{"status": "ok"}';
	insert into meshhook_metrics.flush_state values (1, 1, '2026-03-05 10:32:09.999999');
end$$;
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-03 12:00', '2026-03-05 12:00', '1 day', '{"status": "ok"}') $$,
	$$ values ('2026-03-03'::timestamptz, 1000000::float8), ('2026-03-04', 240000), ('2026-03-05', 90000 + 1700 + 7 + 0.5) $$,
	'a day is rolled up, one is hours, one is everything');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 08:00', '2026-03-05 12:00', '1 hour', '{"status": "ok"}') $$,
	$$ values ('2026-03-05 08:00'::timestamptz, 10000::float8), ('2026-03-05 09:00', 1200), ('2026-03-05 10:00', 500 + 7 + 0.5) $$,
	'hours');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:17', '2026-03-05 12:00', '5 minutes', '{"status": "ok"}') $$,
	$$ values ('2026-03-05 10:15'::timestamptz, 100::float8), ('2026-03-05 10:20', 100), ('2026-03-05 10:25', 5), ('2026-03-05 10:30', 2 + 0.5) $$,
	'five minutes; the first is whole');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:30', '2026-03-05 12:00', '1 minute') $$,
	$$ values ('2026-03-05 10:30'::timestamptz, 2::float8), ('2026-03-05 10:31', 2), ('2026-03-05 10:32', 0.75) $$,
	'minutes');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:31:30', '2026-03-05 12:00', '5 seconds') $$,
	$$ values ('2026-03-05 10:31:55'::timestamptz, 0.1::float8), ('2026-03-05 10:32:00', 0.5), ('2026-03-05 10:32:05', 0.25) $$,
	'seconds: what a flush brought is of the time before it');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:00', '2026-03-05 10:25', '5 minutes', '{"status": "ok"}') $$,
	$$ select b, 100::float8 from generate_series('2026-03-05 10:00'::timestamptz, '2026-03-05 10:20', '5 minutes') b $$,
	'a bucket that begins at the end is not in the range');
select is((select count(*) from meshhook_metrics.query_range('runs_total', '2026-03-05 10:20:01', '2026-03-05 10:25:00.000001', '5 minutes', '{"status": "ok"}')),
	2::bigint, 'one that begins before it is, as a whole');
select is_empty($$ select * from meshhook_metrics.query_range('runs_total', '2026-03-05 10:20', '2026-03-05 10:20', '5 minutes') $$,
	'no time, no bucket');

-- The rate of the newest bucket is over the time that has passed
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:31', '2026-03-05 12:00', '1 minute', aggregate => 'rate') $$,
	$$ values ('2026-03-05 10:31'::timestamptz, 2::float8 / 60), ('2026-03-05 10:32', 0.75::float8 / 10) $$,
	'until the last flush');
update meshhook_metrics.flush_state set at = '2026-03-05 10:32:49.999999';
select is((select value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 12:00', '1 minute', aggregate => 'rate')),
	0.75::float8 / 50, 'also one that brought nothing of it');
delete from meshhook_metrics.flush_state;
select is((select value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 12:00', '1 minute', aggregate => 'rate')),
	0.75::float8 / 10, 'or, where it is not known, what is here');
insert into meshhook_metrics.flush_state values (1, 1, '2026-03-06');
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 12:00', '1 minute', aggregate => 'rate') $$,
	$$ values ('2026-03-05 10:32'::timestamptz, 0.75::float8 / 60) $$,
	'a bucket that is over has its whole length');
select is((select value from meshhook_metrics.query_range('runs_total', '2026-03-04', '2026-03-05', '1 day', aggregate => 'rate')),
	480000::float8 / 86400, 'a day is 86400 seconds');

-- What is steady is steady at any step: ten a second, flushed every 15 seconds. What
-- came is divided by the time that it took, whatever is asked for.
savepoint steady;
delete from meshhook_metrics.flush_state;
do $$
declare
	steady bigint := pg_temp.series('steady_total', 'counter');
	latency bigint := pg_temp.series('steady_seconds', 'histogram');
begin
	perform pg_temp.live(steady, '2026-03-05 10:40'::timestamptz + n * interval '15 seconds' - interval '1 microsecond', 15, 15, 150)
	from generate_series(1, 8) n;
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max)
	select 'aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', '2026-03-05 10:40'::timestamptz + n * interval '15 seconds' - interval '1 microsecond', 15,
		array[latency], array[150], array[75], array[n], array[n]
	from generate_series(1, 8) n;
end$$;
create function pg_temp.steady(metric text, step interval, aggregate text) returns table (bucket timestamptz, value float8)
language sql as $$
	select q.bucket, q.value
	from meshhook_metrics.query_range(metric, '2026-03-05 10:39', '2026-03-05 10:45', step, aggregate => aggregate) q
$$;
select results_eq(format($$ select * from pg_temp.steady(%L, %L, 'rate') $$, metric, step),
	format($$ select b, 10::float8 from generate_series('2026-03-05 10:40'::timestamptz, '2026-03-05 10:41:59', %L) b $$, step),
	format('ten of %s a second, at steps of %s', metric, step))
from unnest('{steady_total,steady_seconds}'::text[]) metric, unnest('{1 s,2 s,3 s,4 s,5 s,6 s,10 s,12 s,15 s,20 s,30 s,1 min}'::interval[]) step;
select is((select sum(value) from pg_temp.steady('steady_total', step, 'increase')), 1200::float8, format('1200 in all, at steps of %s', step))
from unnest('{1 s,4 s,10 s,20 s,1 min,1 day}'::interval[]) step;
select is((select array_agg(distinct value) from pg_temp.steady('steady_total', '10 s', 'increase')), '{100}'::float8[], 'a hundred in ten seconds');
select is((select array_agg(distinct value) from pg_temp.steady('steady_total', '10 s', 'count')), '{10}'::float8[], 'by ten calls');
select results_eq($$ select to_char(bucket, 'MI:SS'), value from pg_temp.steady('steady_seconds', '10 s', 'max') limit 4 $$,
	$$ values ('40:00', 1::float8), ('40:10', 2), ('40:20', 2), ('40:30', 3) $$, 'the greatest is of all that has to do with these seconds');
rollback to steady;

-- A flush that brought the samples of longer than its minute has them all in that; one
-- that says nothing sensible of its time, too
savepoint long;
do $$
declare
	outage bigint := pg_temp.series('outage_total', 'counter');
begin
	perform pg_temp.live(outage, '2026-03-05 10:50:09.999999', 600, 1, 6000);
	perform pg_temp.live(outage, '2026-03-05 10:51:09.999999', seconds, 1, 100)
	from unnest('{-1,NaN,Infinity,-Infinity,1e300,-1e300}'::float8[]) seconds;
	perform pg_temp.live(outage, '2026-03-05 10:52:09.999999', 0, 1, 7);
end$$;
select results_eq($$ select bucket, value from meshhook_metrics.query_range('outage_total', '2026-03-05 10:40', '2026-03-05 11:00', '5 seconds') $$,
	$$ values ('2026-03-05 10:50:00'::timestamptz, 3000::float8), ('2026-03-05 10:50:05', 3000),
		('2026-03-05 10:51:00', 300), ('2026-03-05 10:51:05', 300), ('2026-03-05 10:52:05', 7) $$,
	'all of it is in the minute in which it was flushed');
rollback to long;

-- An average that rounding would take out of its own extremes
savepoint rounded;
do $$
declare
	level bigint := pg_temp.series('rounded', 'gauge');
begin
	perform pg_temp.row('1m', level, '2026-03-05 10:30', 3, 0.1::float8 + 0.1::float8 + 0.1::float8, 0.1, 0.1, 0.1);
	perform pg_temp.row('1m', level, '2026-03-05 10:31', 10, 0.7 * 10 - 1e-15, 0.7, 0.7, 0.7);
	perform pg_temp.row('1m', level, '2026-03-05 10:29', 0, 0, 5, 5, 5);
end$$;
select results_eq($$ select value from meshhook_metrics.query_range('rounded', '2026-03-05 10:29', '2026-03-05 10:32', '1 minute', aggregate => 'avg') $$,
	$$ values (0.1::float8), (0.7) $$, 'an average is within its extremes, and of samples');
select is(meshhook_metrics.histogram_avg(meshhook_metrics.histogram_of(v)), 0.1::float8, 'also that of a histogram') from unnest('{0.1,0.1,0.1}'::float8[]) v;
rollback to rounded;

-- Labels are asked for as they were recorded: an empty value is no label
savepoint labelled;
do $$begin
	perform pg_temp.row('1m', pg_temp.series('seen_total', 'counter', labels), '2026-03-05 10:30', 1, value)
	from (values (jsonb '{"src": "x"}', 1), ('{"src": "x", "status": "ok"}', 10), ('{"status": "1"}', 100), ('{"status": "true"}', 1000), ('{}', 10000)) s (labels, value);
end$$;
select is((select value from meshhook_metrics.query_range('seen_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', labels)), expected::float8,
	format('asked for %s', labels))
from (values
	(jsonb '{"status": "", "src": "x"}', 1), ('{"status": ""}', 10001), ('{"src": "x", "none": ""}', 11), ('{"src": "", "status": ""}', 10000), ('{"": ""}', 11111),
	('{"status": 1}', 100), ('{"status": true}', 1000), ('{"status": 1.0}', null), ('{"status": "ok", "src": ""}', null), ('{}', 11111)) l (labels, expected);
select is(meshhook_metrics.query_range_matches(labels, wanted), expected, format('%s has %s', labels, wanted))
from (values
	(jsonb '{"a": "1"}', jsonb '{"a": "1"}', true), ('{"a": "1"}', '{"a": 1}', true), ('{"a": 1}', '{"a": "1"}', true), ('{"a": "1"}', '{"a": "10"}', false), ('{"a": "10"}', '{"a": "1"}', false),
	('{"a": ""}', '{"a": ""}', true), ('{"a": ""}', '{}', true), ('{}', '{"a": ""}', true), ('{"a": "1", "b": "2"}', '{"b": "2"}', true), ('{"b": "2"}', '{"a": "1", "b": "2"}', false),
	('{"a": ["1"]}', '{"a": "1"}', false), ('{"a": "1"}', '{"a": ["1"]}', false), ('{"a": "1"}', '{"a": null}', false), ('{"a": null}', '{"a": ""}', false),
	('{"a": {"b": "1"}}', '{"b": "1"}', false), ('[]', '{}', false), ('["a"]', '{"a": ""}', false), ('{}', '[]', false), ('"a"', '"a"', false), ('{}', '{}', true)) m (labels, wanted, expected);
rollback to labelled;

-- Groups
select results_eq(
	$$ select labels, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 10:33', '1 minute', group_by => '{status}') $$,
	$$ values ('{"status": "failed"}'::jsonb, 0.25::float8), ('{"status": "ok"}', 0.5) $$,
	'one for each value');
select results_eq(
	$$ select labels, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 10:33', '1 minute', group_by => '{none,status,status}', labels => '{"status": "ok"}') $$,
	$$ values ('{"status": "ok"}'::jsonb, 0.5::float8) $$,
	'a label that no series has is left out');
select results_eq(
	$$ select labels, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:32', '2026-03-05 10:33', '1 minute', group_by => '{}') $$,
	$$ values ('{}'::jsonb, 0.75::float8) $$,
	'no labels, one group');
select pg_temp.series('runs_total', 'counter', '{"overflow": "true"}') as overflow \gset
do $$begin perform pg_temp.row('1m', s.id, '2026-03-05 10:30', 1, 40) from meshhook_metrics.series s where s.labels @> '{"overflow": "true"}'; end$$;
select results_eq(
	$$ select labels, value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', group_by => '{status}') $$,
	$$ values ('{}'::jsonb, 40::float8), ('{"status": "failed"}', 1), ('{"status": "ok"}', 1) $$,
	'what overflowed is without the label');
select is((select value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute')), 42::float8,
	'and in the sum');
select is((select value from meshhook_metrics.query_range('runs_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', '{"overflow": true}')), 40::float8,
	'and can be asked for: true is taken as text');

-- A session's time zone, and its days of 23 and 25 hours, play no part
create temp table answers (zone text, answer jsonb);
create function pg_temp.answer_in(zone text) returns void
language plpgsql as $$
begin
	perform set_config('timezone', zone, true);
	insert into answers
	select zone, jsonb_agg(array[extract(epoch from q.bucket), q.value::numeric] order by step, q.bucket)
	from unnest(array['1 day', '12 hours', '2 days', '1 hour', '5 minutes', null]::interval[]) step,
		meshhook_metrics.query_range('runs_total', '2026-03-03 12:00+00', '2026-03-10 12:00+00', step) q;
	perform set_config('timezone', 'UTC', true);
end
$$;
do $$begin
	perform pg_temp.row('1d', s.id, d, 1, 5) from meshhook_metrics.series s, generate_series('2026-03-07'::timestamptz, '2026-03-09', '1 day') d;
	perform pg_temp.row('1h', s.id, h, 1, 7) from meshhook_metrics.series s, generate_series('2026-03-07'::timestamptz, '2026-03-09', '1 hour') h;
	perform pg_temp.answer_in(zone) from unnest(array['UTC', 'America/New_York', 'Asia/Kathmandu', 'Pacific/Kiritimati', 'Australia/Lord_Howe']) zone;
end$$;
select is(answer, (select answer from answers where zone = 'UTC'), 'in ' || zone)
from answers
where zone <> 'UTC';
select is(jsonb_array_length(answer) > 50, true, 'there was something to answer')
from answers
where zone = 'UTC';
-- the last minutes of days on which New York's clocks are put forward, and back
do $$begin
	perform pg_temp.complete('1m', '2026-11-03');
	perform pg_temp.row('1m', pg_temp.series('late_total', 'counter', jsonb_build_object('at', at)), at, 1, 1)
	from unnest('{2026-03-08 00:00, 2026-03-08 23:59, 2026-03-09 00:00, 2026-11-01 00:00, 2026-11-01 23:59, 2026-11-02 00:00}'::timestamptz[]) at;
end$$;
set local timezone = 'America/New_York';
select is((select array_agg(value) from meshhook_metrics.query_range('late_total', noon, noon, '1 day')), '{2}'::float8[], 'a day is 24 hours, also ' || noon)
from unnest('{2026-03-08 12:00+00, 2026-11-01 12:00+00}'::timestamptz[]) noon;
set local datestyle = 'SQL, DMY';
set local intervalstyle = 'postgres_verbose';
select results_eq(
	$$ select extract(epoch from bucket)::bigint from meshhook_metrics.query_range('runs_total', '2026-03-03 12:00+00', '2026-03-05 12:00+00', '1 day') $$,
	$$ select extract(epoch from d)::bigint from generate_series('2026-03-03 00:00+00'::timestamptz, '2026-03-05 00:00+00', '24 hours') d $$,
	'days are those of UTC, whatever dates look like');
set local datestyle = 'ISO, MDY';
set local intervalstyle = 'postgres';
set local timezone = 'UTC';
do $$begin perform pg_temp.complete('1m', '2026-03-05 10:32'); end$$;

-- Gauges: each series' last value, added up; nothing is carried on
select pg_temp.series('depth', 'gauge', '{"queue": "a"}') as a \gset
select pg_temp.series('depth', 'gauge', '{"queue": "b"}') as b \gset
do $$begin
	perform pg_temp.row('5m', s.id, '2026-03-05 10:00', 2, 30, 10, 20, 20) from meshhook_metrics.series s where s.labels @> '{"queue": "a"}';
	perform pg_temp.row('5m', s.id, '2026-03-05 10:05', 1, 3, 3, 3, 3) from meshhook_metrics.series s where s.labels @> '{"queue": "b"}';
	perform pg_temp.row('1m', s.id, '2026-03-05 10:30', 1, 8, 8, 8, 8) from meshhook_metrics.series s where s.metric = 'depth';
	perform pg_temp.row('1m', s.id, '2026-03-05 10:31', 1, 6, 6, 6, 6) from meshhook_metrics.series s where s.labels @> '{"queue": "a"}';
	perform pg_temp.live(s.id, '2026-03-05 10:32:05', 5, 2, -4, -2) from meshhook_metrics.series s where s.labels @> '{"queue": "b"}';
end$$;
select results_eq(
	$$ select bucket, value from meshhook_metrics.query_range('depth', '2026-03-05 10:00', '2026-03-05 11:00', '5 minutes') $$,
	$$ values ('2026-03-05 10:00'::timestamptz, 20::float8), ('2026-03-05 10:05', 3), ('2026-03-05 10:30', 6 - 2) $$,
	'last, with gaps where nothing came');
select results_eq(
	$$ select value from unnest(array['last', 'min', 'max', 'avg', 'count']) with ordinality a (aggregate, n),
		meshhook_metrics.query_range('depth', '2026-03-05 10:00', '2026-03-05 11:00', '1 hour', aggregate => aggregate) order by n $$,
	$$ values (6 - 2::float8), (-2), (20), ((30 + 3 + 8 + 8 + 6 - 4) / 8::float8), (8) $$,
	'over an hour from three tables');

-- Histograms are merged, quantiles are not averaged
select pg_temp.series('run_seconds', 'histogram', '{"path": "fast"}') as fast \gset
select pg_temp.series('run_seconds', 'histogram', '{"path": "slow"}') as slow \gset
do $$begin
	perform pg_temp.row('1m', s.id, '2026-03-05 10:30', 99, 99, 1, 1, null, array_fill(1::float8, array[99])) from meshhook_metrics.series s where s.labels @> '{"path": "fast"}';
	perform pg_temp.row('1m', s.id, '2026-03-05 10:30', 1, 1000, 1000, 1000, null, '{1000}') from meshhook_metrics.series s where s.labels @> '{"path": "slow"}';
	perform pg_temp.row('1m', s.id, '2026-03-05 10:31', 1, 1000, 1000, 1000, null, '{1000}') from meshhook_metrics.series s where s.labels @> '{"path": "slow"}';
end$$;
select results_eq(
	$$ select aggregate, value from unnest(array[null, 'p50', 'p99', 'p99.9', 'p0', 'p100', 'increase', 'rate', 'count', 'avg', 'min', 'max']) with ordinality a (aggregate, n),
		meshhook_metrics.query_range('run_seconds', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', aggregate => aggregate) order by n $$,
	$$ select aggregate, value::float8 from (values (null, 1.0), ('p50', 1), ('p99', 1), ('p99.9', 1000), ('p0', 1), ('p100', 1000), ('increase', 100), ('rate', 100.0 / 60),
		('count', 100), ('avg', 10.99), ('min', 1), ('max', 1000)) v (aggregate, value) $$,
	'of a hundred observations one is slow');
select results_eq(
	$$ select labels ->> 'path', value from meshhook_metrics.query_range('run_seconds', '2026-03-05 10:30', '2026-03-05 10:40', '5 minutes', aggregate => 'p95', group_by => '{path}') $$,
	$$ values ('fast', 1::float8), ('slow', 1000) $$,
	'each group has its own');

-- Labels can be any text
create temp table hostile (n serial, label text);
insert into hostile (label) values
	($$'; drop table meshhook_metrics.series; --$$), ('%s %I %L %1$s %'), ('$1'), ('"'), ('\'), ('\u0000'), ('{}'), ('null'), (''), (' '), ('1'), ('ÄÖ€ 統計 😀'),
	(E'\n\t\x01'), ('{a,b}'), ('"quoted"'), (repeat('x', 256)), ($$'||pg_sleep(1)||'$$);
do $$begin
	perform pg_temp.row('1m', pg_temp.series('hostile_total', 'counter', jsonb_build_object('value', h.label, h.label, 'key')), '2026-03-05 10:30', 1, h.n)
	from hostile h;
end$$;
select is(array_agg(q.value), array[h.n::float8], format('the series labelled %s is found', to_jsonb(h.label)))
from hostile h, meshhook_metrics.query_range('hostile_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', jsonb_build_object('value', h.label)) q
group by h.n, h.label;
select is(array_agg(q.labels || to_jsonb(q.value)), array[jsonb_build_array(jsonb_build_object(h.label, 'key'), h.n)], format('and its key %s', to_jsonb(h.label)))
from hostile h, meshhook_metrics.query_range('hostile_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', jsonb_build_object(h.label, 'key'), group_by => array[h.label]) q
group by h.n, h.label;
select results_eq(
	$$ select labels ->> 'value', value from meshhook_metrics.query_range('hostile_total', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', group_by => '{value}') order by value $$,
	$$ select label, n::float8 from hostile order by n $$,
	'and each is a group');
do $$begin perform pg_temp.row('1m', pg_temp.series($m$it's; "a" %s metric$m$, 'counter'), '2026-03-05 10:30', 1, 9); end$$;
select is((select value from meshhook_metrics.query_range($m$it's; "a" %s metric$m$, '2026-03-05 10:30', '2026-03-05 10:31', '1 minute')), 9::float8, 'a metric, too');

-- A name that was another kind of metric once
do $$begin
	perform pg_temp.row('1m', pg_temp.series('changed', 'counter'), '2026-03-05 10:30', 1, 100);
	perform pg_temp.row('1m', pg_temp.series('changed', 'gauge', '{"now": "yes"}'), '2026-03-05 10:30', 1, 5, 5, 5, 5);
end$$;
select is((select value from meshhook_metrics.query_range('changed', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute')), 5::float8, 'the newest series decides');
select throws_ok($$ select * from meshhook_metrics.query_range('changed', '2026-03-05 10:30', '2026-03-05 10:31', '1 minute', aggregate => 'rate') $$,
	'22023', '"changed" is a gauge, which has no rate', 'what it is');

-- A transaction that has been open for a while sees what was flushed since
do $$
begin
	while date_trunc('second', clock_timestamp()) <= date_trunc('second', now()) loop
	end loop;
	perform pg_temp.live(pg_temp.series('recent_total', 'counter'), clock_timestamp(), 0, 1, 3);
end
$$;
select is((select sum(value) from meshhook_metrics.query_range('recent_total', now() - interval '1 minute', step => '1 second')), 3::float8, 'to the last flush');
select is((select sum(value) from meshhook_metrics.query_range('recent_total', now() - interval '1 minute')), 3::float8, 'at every step');
select is_empty($$ select * from meshhook_metrics.query_range('recent_total', now() - interval '1 hour', now() - interval '30 minutes') $$, 'unless asked for the past');

-- The step that suits a range, and what is still kept
create function pg_temp.chosen(long interval, kept_1m interval default '7 days', kept_5m interval default '30 days', kept_1h interval default '400 days', ago interval default '0') returns interval
language sql as $$
	select meshhook_metrics.query_range_step(
		t - ago - long, t - ago, null, t - kept_1m, t - kept_5m, t - kept_1h)
	from (values ('2026-11-24 12:00+00'::timestamptz)) v (t)
$$;
select is(pg_temp.chosen(long), step, format('%s in steps of %s', long, step))
from (values
	('0'::interval, '1 minute'::interval), ('1 minute', '1 minute'), ('5 hours', '1 minute'), ('5:00:01', '5 minutes'), ('1 day', '5 minutes'), ('25 hours', '5 minutes'),
	('26 hours', '15 minutes'), ('3 days', '15 minutes'), ('4 days', '1 hour'), ('12 days', '1 hour'), ('13 days', '6 hours'), ('75 days', '6 hours'), ('76 days', '24 hours'),
	('300 days', '24 hours'), ('301 days', '168 hours'), ('2100 days', '168 hours'), ('3650 days', '720 hours'), ('9000 days', '720 hours'), ('30000 days', '2400 hours')) v (long, step);
select is(pg_temp.chosen('1 hour', ago => ago), step, format('an hour of %s ago in steps of %s', ago, step))
from (values
	('6 days'::interval, '1 minute'::interval), ('7 days', '5 minutes'), ('29 days', '5 minutes'), ('30 days', '1 hour'), ('399 days', '1 hour'), ('400 days', '24 hours'), ('4000 days', '24 hours')) v (ago, step);
select is(meshhook_metrics.query_range_step('2001-01-01', '2001-01-01 01:00', null, '-infinity', '-infinity', '-infinity'), '1 minute'::interval, 'nothing was ever dropped');
update meshhook_metrics.rollup_state set retained_from = '2026-03-05 10:00' where target = '1m';
select is((select array_agg(bucket) from meshhook_metrics.query_range('depth', '2026-03-05 09:59', '2026-03-05 10:31')),
	array['2026-03-05 10:00', '2026-03-05 10:05', '2026-03-05 10:30']::timestamptz[], 'a range of which minutes have been dropped is answered from what is coarser');
select is((select array_agg(bucket) from meshhook_metrics.query_range('depth', '2026-03-05 10:00', '2026-03-05 10:32')),
	array['2026-03-05 10:30', '2026-03-05 10:31']::timestamptz[], 'a later one from minutes');

-- Only the leaves in the range are read, through the primary key where that helps
create table meshhook_metrics.rollup_5m_20310303 partition of meshhook_metrics.rollup_5m for values from ('2031-03-03') to ('2031-03-10');
create table meshhook_metrics.rollup_5m_20310310 partition of meshhook_metrics.rollup_5m for values from ('2031-03-10') to ('2031-03-17');
create function pg_temp.plan(edges timestamptz[]) returns text
language plpgsql as $$
declare
	line text;
	lines text;
begin
	for line in execute 'explain (costs off) ' || meshhook_metrics.query_range_source('{sum}', false, '5 minutes', edges)
		using array['aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa']::uuid[], array[1, 2, 3]::bigint[], interval '5 minutes', edges, 'epoch'::timestamptz
	loop
		lines := concat_ws(E'\n', lines, line);
	end loop;
	return lines;
end
$$;
set local enable_seqscan = off;
set local enable_bitmapscan = off;
select matches(pg_temp.plan('{2031-03-11,2031-03-11,2031-03-11,2031-03-12,2031-03-12,2031-03-12}'),
	'Index Scan using rollup_5m_20310310_pkey.*Index Cond: \(\(tenant_id = ANY ', 'by tenant, series and time');
select doesnt_match(pg_temp.plan('{2031-03-11,2031-03-11,2031-03-11,2031-03-12,2031-03-12,2031-03-12}'),
	'rollup_5m_20310303|rollup_5m_any|rollup_1', 'and nothing else');
select matches(pg_temp.plan('{2031-03-09,2031-03-09,2031-03-09,2031-03-12,2031-03-12,2031-03-12}'),
	'rollup_5m_20310303(.|\n)*rollup_5m_20310310', 'in both weeks, where it is in both');

-- The labels that are grouped by: whatever they are, and however they are named
select is(meshhook_metrics.query_range_labels(labels, keys), (
		select coalesce(jsonb_object_agg(k, labels -> k), '{}')
		from unnest(keys) k
		where labels ? k), format('labels %s by %s', labels, keys))
from (
	values
		(jsonb '{"a": "1", "b": "2", "c": "3"}', '{b}'::text[]),
		('{"a": "1", "b": "2", "c": "3"}', '{c,a}'),
		('{"a": "1", "b": "2"}', '{x}'),
		('{"a": "1"}', '{}'),
		('{}', '{a}'),
		('{"a": "1", "b": "2"}', '{b,b,NULL,b}'),
		('{"a": "1", "b": "2"}', '{{a,b},{b,c}}'),
		('{"a": "1", "b": "2"}', '[7:8]={x,b}'),
		('{"": "empty", "ä": "ö", "a b": "\\ \" \u000a"}', '{"",ä,"a b"}'),
		('{"a": {"b": [1, {"c": null}]}, "n": null, "t": true, "x": [[]]}', '{a,n,t,x}'),
		('[]', '{a}'),
		('"a"', '{b}'),
		(jsonb_build_object(repeat('k', 5000), repeat('v', 50000)), array[repeat('k', 5000)])
	) l (labels, keys);
select is(meshhook_metrics.query_range_labels('["a"]', '{a}'), '{}', 'what is no object has no labels');
select is(meshhook_metrics.query_range_labels('{"a": "1"}', null), null, 'no keys are no grouping');

-- The newest bucket is not longer than until now, though a clock that was set back since has left times ahead
do $$begin perform pg_temp.series('ticks_total', 'counter'); end$$;
do $$begin perform pg_temp.row('1m', s.id, date_trunc('minute', now()), 1, 86400) from meshhook_metrics.series s where s.metric = 'ticks_total'; end$$;
select pg_temp.complete('1m', date_trunc('minute', now()) + interval '12 days');
insert into meshhook_metrics.flush_state values (2, 1, now() + interval '12 days');
create temp table rates as
select r.value, extract(epoch from now() - r.bucket) as at_least
from meshhook_metrics.query_range('ticks_total', date_trunc('day', now()), now() + interval '1 minute', '1 day', aggregate => 'rate') r
where r.bucket <= now();
select ok(86400 / value between at_least and extract(epoch from clock_timestamp() - date_trunc('day', now())), 'the rate of today is that of what has passed of it')
from rates;
select is((select count(*) from rates), 1::bigint, 'there is one');

select * from finish();
rollback;
