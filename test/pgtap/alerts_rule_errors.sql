-- A rule that cannot be evaluated says so, and is tried again; its alerts stay as they
-- are, and the other rules are evaluated
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
set local timezone = 'America/St_Johns';

create temp view failing as
select name, last_error, case when isfinite(last_error_at) then pg_temp.seconds(last_error_at) else last_error_at::text end as since from meshhook_metrics.alert_rules where last_error is not null;
create temp view active as
select name, state, value from meshhook_metrics.alerts;

-- An aggregate that the metric does not have
select pg_temp.rule('{"name": "bad", "metric": "runs_total", "aggregate": "increase"}');
select pg_temp.rule('{"name": "bad and pending", "metric": "runs_total", "aggregate": "increase", "for_duration": "30 seconds"}');
select pg_temp.rule('{"name": "good"}');
select pg_temp.sample('runs_total', pg_temp.t(s), 11) from generate_series(0, 50, 10) s;
select pg_temp.go('0=11');
update meshhook_metrics.alert_rules set aggregate = 'p95' where name ~ 'bad';
select pg_temp.go('10=5');
select set_eq('select * from failing', $$ values ('bad', '"runs_total" is a counter, which has no p95', '10'), ('bad and pending', '"runs_total" is a counter, which has no p95', '10') $$,
	'a rule with an aggregate that the metric does not have says that');
select set_eq('select * from active', $$ values ('bad', 'firing', 11::float8), ('bad and pending', 'pending', 11) $$, 'its alerts stay, those of the others do not');
select pg_temp.go('20=11 40=11');
select set_eq('select * from active', $$ values ('bad', 'firing', 11::float8), ('bad and pending', 'pending', 11), ('good', 'firing', 11) $$, 'as long as it lasts, also when for_duration is over');
select is((select max(since) from failing), '40', 'when it was tried last is noted');
select results_eq('select rules, rules_failing from meshhook_metrics.alert_state', 'values (3::bigint, 2::bigint)', 'and how many there are of them');
update meshhook_metrics.alert_rules set aggregate = 'increase' where name ~ 'bad';
select set_eq('select * from failing', $$ values ('bad', '"runs_total" is a counter, which has no p95', '-infinity'), ('bad and pending', '"runs_total" is a counter, which has no p95', '-infinity') $$,
	'a change may have mended it, which the next evaluation tries first');
select pg_temp.go('50=11');
select is_empty('select * from failing', 'it has');
select set_eq('select * from active', $$ values ('bad', 'firing', 11::float8), ('bad and pending', 'firing', 11), ('good', 'firing', 11) $$, 'and it is evaluated, with the times that it had');
select is((select count(*) from meshhook_metrics.alert_events where name = 'bad'), 1::bigint, 'nothing was told of in between');
update meshhook_metrics.alert_rules set aggregate = 'p95' where name ~ 'bad';
select pg_temp.go('60=11');
update meshhook_metrics.alert_rules set enabled = false where name = 'bad';
delete from meshhook_metrics.alert_rules where name = 'bad and pending';
select pg_temp.go('70=11');
select set_eq('select name, state, reason from meshhook_metrics.alert_events where pg_temp.seconds(at) = ''70''', $$ values ('bad', 'resolved', 'disabled'), ('bad and pending', 'resolved', 'deleted') $$,
	'what is disabled or deleted ends, although it could not be evaluated');
select results_eq('select rules, rules_failing from meshhook_metrics.alert_state', 'values (1::bigint, 0::bigint)', 'and does not count');

-- ... until it has
select pg_temp.clear();
select pg_temp.rule('{"name": "slow", "metric": "run_seconds", "aggregate": "p95", "threshold": 1}');
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values (:'a', 'run_seconds', 'gauge', '{"old": "1"}');
select pg_temp.evaluate(0);
select set_eq('select * from failing', $$ values ('slow', '"run_seconds" is a gauge, which has no p95', '0') $$, 'a metric of another kind');
select pg_temp.sample('run_seconds', pg_temp.t(10), 3);
select pg_temp.evaluate(10);
select is_empty('select * from failing', 'with a series of the right kind, the rule fails no more');
select set_eq('select name, state from active', $$ values ('slow', 'firing') $$, 'and fires in the same evaluation');
select pg_temp.rule('{"name": "ratio", "aggregate": "increase", "metric": "failed_total", "denominator_metric": "depth"}');
select pg_temp.go('20=3');
select set_eq('select * from failing', $$ values ('ratio', '"depth" is a gauge, which has no increase', '20') $$, 'the denominator has to have it as well');
select is(
	(select string_agg(kind || ': ' || aggregates, '; ' order by kind)
	from (
		select kind, string_agg(aggregate, ' ' order by aggregate) as aggregates
		from unnest(array['counter', 'gauge', 'histogram']) kind, unnest(array['increase', 'rate', 'count', 'avg', 'min', 'max', 'last', 'p50']) aggregate
		where meshhook_metrics.query_range_applies(aggregate, kind)
		group by kind) k),
	'counter: avg count increase rate; gauge: avg count last max min; histogram: avg count increase max min p50 rate', 'these are all that there are');

-- Numbers that do not fit
select pg_temp.clear();
select pg_temp.rule('{"name": "huge", "metric": "huge_total", "aggregate": "increase", "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "huge mean", "metric": "huge_total", "aggregate": "avg", "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "huge ratio", "metric": "huge_total", "aggregate": "increase", "denominator_metric": "runs_total", "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "of huge", "metric": "runs_total", "aggregate": "increase", "denominator_metric": "huge_total", "comparison": "<", "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "by a tiny one", "metric": "great_total", "aggregate": "increase", "denominator_metric": "tiny_total", "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "one of them", "metric": "huge_total", "aggregate": "increase", "group_by": ["n"], "threshold": 1e305, "time_window": "20 seconds"}');
select pg_temp.rule('{"name": "good"}');
select pg_temp.sample('huge_total', pg_temp.t(10), 2 ^ 1014, jsonb_build_object('n', n)) from generate_series(1, 1060) n;
select pg_temp.sample('runs_total', pg_temp.t(10), 1);
select pg_temp.sample('great_total', pg_temp.t(10), 1e10);
select pg_temp.sample('tiny_total', pg_temp.t(10), 4.9e-324);
select pg_temp.go('10=11');
select set_eq('select name, last_error from failing', $$ values
	('huge', 'the value is beyond what a double can hold'),
	('huge mean', 'the value is beyond what a double can hold'),
	('huge ratio', 'the value is beyond what a double can hold'),
	('of huge', 'the value is beyond what a double can hold'),
	('by a tiny one', 'value out of range: overflow'),
	('one of them', 'group_by makes 1060 alerts of this rule; it can have 100') $$, 'sums that a double cannot hold are errors of the rule');
select set_eq('select name from active', $$ values ('good') $$, 'and of no other one');
delete from meshhook_metrics.series where metric = 'huge_total' and (labels ->> 'n')::int > 100;
select pg_temp.go('20=11');
select is_empty($$ select * from failing where name <> 'by a tiny one' $$, 'a sum that fits again is none');
select set_eq('select name, count(*), min(value), max(value) from active group by name', $$ values
	('good', 1::bigint, 11::float8, 11::float8), ('huge', 1, 100 * 2 ^ 1014, 100 * 2 ^ 1014), ('huge mean', 1, 2 ^ 1014, 2 ^ 1014),
	('huge ratio', 1, 100 * 2 ^ 1014, 100 * 2 ^ 1014), ('of huge', 1, 1 / (100 * 2 ^ 1014), 1 / (100 * 2 ^ 1014)), ('one of them', 100, 2 ^ 1014, 2 ^ 1014) $$, 'nor are 100 groups');
select pg_temp.go('40=11');
select is_empty('select * from failing', 'and what is out of the window hurts nobody');

-- More than 100 groups
select pg_temp.clear();
select pg_temp.rule('{"name": "wide ratio", "metric": "failed_total", "aggregate": "increase", "denominator_metric": "runs_total", "group_by": ["n"], "comparison": ">=", "threshold": 0}');
select pg_temp.sample('runs_total', pg_temp.t(0), 1, jsonb_build_object('n', n)) from generate_series(1, 100) n;
select pg_temp.sample('failed_total', pg_temp.t(0), 1, jsonb_build_object('n', n)) from generate_series(1, 3) n;
select is(pg_temp.evaluate(0), 100::bigint, 'a ratio can have 100 groups as well');
select pg_temp.sample('runs_total', pg_temp.t(10), 1, '{"n": 0}');
select is(pg_temp.evaluate(10), 0::bigint, 'but not 101');
select set_eq('select name, last_error from failing', $$ values ('wide ratio', 'group_by makes 101 alerts of this rule; it can have 100') $$, 'it says so');
select is((select count(*) from active), 100::bigint, 'and those that there are stay');

-- More than 10,000 series
select pg_temp.clear();
select pg_temp.rule('{"name": "wide", "aggregate": "max"}');
select pg_temp.rule('{"name": "narrow", "aggregate": "max", "labels": {"kind": "old"}}');
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
select :'a', 'depth', 'gauge', jsonb_build_object('n', n, 'kind', 'old') from generate_series(1, 10000) n;
select pg_temp.sample('depth', pg_temp.t(0), 11, '{"n": 7, "kind": "old"}');
select is(pg_temp.evaluate(0), 2::bigint, 'a rule can match 10,000 series');
select pg_temp.go('10=12');
select set_eq('select * from failing', $$ values ('wide', 'it matches more than 10000 series that have had samples lately', '10') $$, 'but not more');
select set_eq('select name, state from active', $$ values ('wide', 'firing'), ('narrow', 'firing') $$, 'its alerts stay');

-- A window that reaches beyond what is kept
select pg_temp.clear();
select pg_temp.rule('{"name": "minutes", "time_window": "10 minutes", "aggregate": "max"}');
select pg_temp.rule('{"name": "five minutes", "time_window": "11 minutes", "aggregate": "max"}');
select pg_temp.rule('{"name": "hours", "time_window": "13 hours", "aggregate": "max"}');
update meshhook_metrics.rollup_state set retained_from = pg_temp.t(-660) where target = '1m';
update meshhook_metrics.rollup_state set retained_from = pg_temp.t(-659.999999) where target = '5m';
update meshhook_metrics.rollup_state set retained_from = '2024-01-16 00:00:00+00' where target = '1h';
select pg_temp.go('0=11');
select set_eq('select name, last_error from failing', $$ values
	('five minutes', 'time_window reaches back to 2024-01-16 09:49:00+00, but rollup_5m is kept from 2024-01-16 09:49:00.000001+00 on only'),
	('hours', 'time_window reaches back to 2024-01-15 21:00:00+00, but rollup_1h is kept from 2024-01-16 00:00:00+00 on only') $$,
	'a window that reaches beyond what is kept is one that cannot be known');
set local datestyle = 'German';
select pg_temp.go('0.000001=11');
select is((select max(last_error) from failing), 'time_window reaches back to 2024-01-15 21:00:00+00, but rollup_1h is kept from 2024-01-16 00:00:00+00 on only', 'it says so in the same way to everybody');
reset datestyle;
update meshhook_metrics.rollup_state set retained_from = '2024-01-15 22:00:00+00' where target = '1h';
select pg_temp.evaluate(3599);
select set_eq('select name from failing', $$ values ('hours') $$, 'the window of a few minutes has passed that');
select pg_temp.evaluate(3600);
select is_empty('select * from failing', 'and so does that of hours, when it begins at the hour that is kept');

-- Data that are damaged are an error of who has them
select pg_temp.clear();
select pg_temp.rule('{"name": "a", "metric": "x_total", "aggregate": "increase"}');
select pg_temp.rule('{"name": "a too"}');
select pg_temp.rule(jsonb_build_object('name', 'b', 'tenant_id', :'b'));
select pg_temp.sample('x_total', pg_temp.t(0), 11);
select pg_temp.sample('depth', pg_temp.t(0), 11, tenant => :'b');
update meshhook_metrics.live set count = '{{1},{2}}' where tenant_id = :'a';
select pg_temp.go('0=11');
select set_eq('select name, last_error from failing', $$ values ('a', 'table meshhook_metrics.live has an array that is none of the worker''s'), ('a too', 'table meshhook_metrics.live has an array that is none of the worker''s') $$,
	'a row that is none is an error of the tenant whose it is');
select set_eq('select name from active', $$ values ('b') $$, 'other tenants do not notice');

-- Many rules that fail
select pg_temp.clear();
select pg_temp.rule(jsonb_build_object('name', 'bad ' || n, 'metric', 'runs_total', 'aggregate', 'p95')) from generate_series(1, 70) n;
select pg_temp.rule(jsonb_build_object('name', 'good ' || n)) from generate_series(1, 5) n;
select pg_temp.sample('runs_total', pg_temp.t(0), 11);
select pg_temp.go('0=11');
select is((select count(*) from failing), 70::bigint, 'many rules can fail at once');
select is((select count(*) from active), 5::bigint, 'and the others are evaluated');
select results_eq('select rules, rules_failing from meshhook_metrics.alert_state', 'values (75::bigint, 70::bigint)', 'they are counted');
delete from meshhook_metrics.series where metric = 'runs_total';
do $$
begin
	for second in 10 .. 13 loop
		perform meshhook_metrics.evaluate_alerts(pg_temp.t(second));
	end loop;
end
$$;
select is_empty('select * from failing', 'all are tried again, some at a time');

-- Storage that is not whole is nobody's fault but the server's
savepoint whole;
delete from meshhook_metrics.rollup_state where target = '1m';
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', null, 'without a row of rollup_state there is no evaluation');
rollback to whole;
delete from meshhook_metrics.rollup_state where target = '5m';
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', null, 'whichever');
rollback to whole;
delete from meshhook_metrics.alert_state;
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', 'meshhook_metrics.alert_state has lost its row', 'nor without that of alert_state');
rollback to whole;
drop table meshhook_metrics.alert_state;
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', 'the tables of alerting are not installed in this database', 'or the table');
rollback to whole;
drop table meshhook_metrics.rollup_state;
select throws_ok('select meshhook_metrics.evaluate_alerts()', '55000', 'the tables of meshhook_metrics are not installed in this database', 'or any');
rollback to whole;
select is((select count(*) from meshhook_metrics.alert_rules where last_error is not null), 0::bigint, 'no rule is marked because of that');

-- Tables of somebody's own are nobody's business, ours without their primary keys are
select pg_temp.clear();
select pg_temp.rule();
create table meshhook_metrics.series_backup as table meshhook_metrics.series;
create table meshhook_metrics.rollup_1m_archive (like meshhook_metrics.rollup_1m);
create table meshhook_metrics.alerts_seen (alert text);
select pg_temp.sample('depth', pg_temp.t(0), 11);
select is(pg_temp.evaluate(0), 1::bigint, 'tables of somebody''s own in the schema keep no rule from being evaluated');
drop table meshhook_metrics.series_backup, meshhook_metrics.rollup_1m_archive, meshhook_metrics.alerts_seen;
select * from finish();
rollback;
