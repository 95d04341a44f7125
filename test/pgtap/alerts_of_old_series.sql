-- A metric one of whose labels has new values every day keeps its alerts: a rule sees the
-- series that have had samples lately, and what has rested for longer as a zero.
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

-- A hundred a day for a year
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at, last_day)
select :'a', 'runs_total', 'counter', jsonb_build_object('run', d * 100 + n), pg_temp.t(0) - d * interval '1 day', '2024-01-16'::date - d
from generate_series(1, 365) d, generate_series(1, 100) n;
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at, last_day)
select :'a', 'runs_total', 'counter', jsonb_build_object('run', n), pg_temp.t(0), '2024-01-16' from generate_series(1, 100) n;
analyze meshhook_metrics.series;

select pg_temp.rule('{"name": "many", "metric": "runs_total", "aggregate": "increase", "threshold": 50}');
select pg_temp.rule('{"name": "month", "metric": "runs_total", "aggregate": "increase", "threshold": 50, "time_window": "31 days"}');
select pg_temp.rule('{"name": "each", "metric": "runs_total", "aggregate": "increase", "threshold": 5, "group_by": ["run"]}');
select pg_temp.sample('runs_total', pg_temp.t(0), 1, jsonb_build_object('run', n)) from generate_series(1, 99) n;
select pg_temp.sample('runs_total', pg_temp.t(0), 10, '{"run": 100}');
select pg_temp.evaluate(0);
select is_empty('select name, last_error from meshhook_metrics.alert_rules where last_error is not null', 'no rule fails by what was a year ago');
select results_eq('select name, value from meshhook_metrics.alerts order by name', $$ values ('each', 10::float8), ('many', 109), ('month', 109) $$, 'and each sees what there is now');

-- How far back: the days that the window, or a day, reaches back to, and one that the note may be late
create function pg_temp.seen(last_day date, time_window interval) returns boolean
language plpgsql as $$
declare
	made uuid := pg_temp.rule(jsonb_build_object('name', gen_random_uuid(), 'metric', 'seen', 'aggregate', 'last', 'time_window', time_window, 'group_by', array['n']));
begin
	update meshhook_metrics.series set last_day = seen.last_day where metric = 'seen';
	return exists (select from meshhook_metrics.alert_values(pg_temp.t(0), array[made]) where labels is not null);
end
$$;
select pg_temp.sample('seen', pg_temp.t(0), 1, '{"n": 1}');
select is(pg_temp.seen(day, w), expected, format('%s, window %s', day, w))
from (
	values
		(date '2024-01-16', interval '10 s', true), ('2024-01-15', '10 s', true), ('2024-01-14', '10 s', true), ('2024-01-13', '10 s', false),
		('2024-01-13', '2 days', true), ('2024-01-12', '2 days', false), ('2024-02-01', '10 s', true)) s (day, w, expected);

-- What has rested for a month has an increase of 0, not nothing; and its kind
select pg_temp.clear();
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, last_day) values
	(:'a', 'runs_total', 'counter', '{"queue": "x"}', '2023-12-01'), (:'a', 'runs_total', 'counter', '{"queue": "y"}', '2023-11-01');
select pg_temp.rule('{"name": "none", "metric": "runs_total", "aggregate": "increase", "comparison": "<", "threshold": 1}');
select pg_temp.rule('{"name": "none of y", "metric": "runs_total", "labels": {"queue": "y"}, "aggregate": "increase", "comparison": "<", "threshold": 1}');
select pg_temp.rule('{"name": "none of z", "metric": "runs_total", "labels": {"queue": "z"}, "aggregate": "increase", "comparison": "<", "threshold": 1}');
select pg_temp.rule('{"name": "p95", "metric": "runs_total", "aggregate": "p95"}');
select pg_temp.evaluate(0);
select results_eq('select name, value from meshhook_metrics.alerts order by name', $$ values ('none', 0::float8), ('none of y', 0) $$, 'what has rested for long has an increase of 0, what never was has none');
select results_eq('select name, last_error from meshhook_metrics.alert_rules where last_error is not null', $$ values ('p95', '"runs_total" is a counter, which has no p95') $$, 'its kind is known');
select * from finish();
rollback;
