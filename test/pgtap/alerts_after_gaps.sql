-- Where nothing was flushed for long, only the whole of what came then is known: rules whose
-- windows begin in such a gap are not judged, and go on as they were.
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

create function pg_temp.known(time_window interval, seconds numeric, aggregate text default 'increase', metric text default 'runs_total') returns text
language plpgsql as $$
declare
	made uuid := pg_temp.rule(jsonb_build_object('name', gen_random_uuid(), 'metric', metric, 'aggregate', aggregate, 'time_window', time_window));
begin
	return (select case when known then coalesce(value::text, 'none') else 'not known' end from meshhook_metrics.alert_values(pg_temp.t(seconds), array[made]));
end
$$;
select pg_temp.sample('runs_total', pg_temp.t(1200), 1000);
select pg_temp.sample('depth', pg_temp.t(1200), 7);
insert into meshhook_metrics.alert_gaps (begins, ends) values (pg_temp.t(600), pg_temp.t(1200));
select is(pg_temp.known(w, at), expected, format('%s at %s s', w, at))
from (
	values
		(interval '10 s', 600, '0'), ('10 s', 610, '0'), ('10 s', 610.000001, 'not known'), ('10 s', 1200, 'not known'), ('10 s', 1210, 'not known'), ('10 s', 1210.000001, '0'),
		('5 min', 1200, 'not known'), ('5 min', 1499, 'not known'), ('5 min', 1501, '0'),
		('10 min', 1200, '1000'), ('10 min', 1201, 'not known'), ('15 min', 1201, '1000'),
		('901 s', 1502, '1000'), ('901 s', 1562, 'not known'), ('901 s', 2161, '0')) s (w, at, expected);
select is(pg_temp.known('10 s', 1205, 'last', 'depth'), '7', 'a level that has been set since is known');
select is(pg_temp.known('10 s', 1205, 'max', 'depth'), 'not known', 'of how many samples there were it is not');

-- States: nothing fires, nothing is resolved, nothing begins to wait
create function pg_temp.after_gap(columns jsonb, variadic at numeric[]) returns text
language plpgsql as $$
declare
	made uuid;
begin
	perform pg_temp.clear();
	delete from meshhook_metrics.alert_gaps;
	made := pg_temp.rule('{"metric": "runs_total", "aggregate": "increase", "threshold": 100, "time_window": "1 minute"}' || columns);
	perform pg_temp.sample('runs_total', pg_temp.t(0), 1);
	-- An outage of half an hour, in which much came
	perform pg_temp.evaluate(10);
	perform pg_temp.sample('runs_total', pg_temp.t(1800), 1000);
	insert into meshhook_metrics.alert_gaps (begins, ends) values (pg_temp.t(10), pg_temp.t(1800));
	for i in 1 .. cardinality(at) loop
		perform pg_temp.evaluate(at[i]);
	end loop;
	return (select string_agg(pg_temp.seconds(e.at) || ' ' || e.state, ', ' order by e.id) from meshhook_metrics.alert_events e where e.rule_id = made);
end
$$;
select is(pg_temp.after_gap('{}', 1800, 1830, 1860, 1861), null, 'what came during an outage does not fire');
select is(pg_temp.after_gap('{"aggregate": "rate", "threshold": 1}', 1800, 1830, 1860, 1861), null, 'nor as a rate');
select is(pg_temp.after_gap('{"threshold": 0}', 1800, 1830, 1860, 1861), '10 firing, 1861 resolved', 'what fires goes on, and ends when there is a whole window again');
select is(pg_temp.after_gap('{"threshold": 0, "for_duration": "30 minutes"}', 1800, 1830, 1860, 1861), '10 pending, 1861 inactive', 'what is pending goes on');
select is(pg_temp.after_gap('{"comparison": "<", "threshold": 1, "labels": {"x": 1}, "metric": "depth", "aggregate": "last", "no_data": "firing"}', 1800), '10 firing', 'a gap does not end a lack of data');
select is(pg_temp.after_gap('{"threshold": 0, "time_window": "10 minutes", "no_data": "ok"}', 1800, 2399), '10 firing', 'not even where no data are good news');
select is(pg_temp.after_gap('{"threshold": 500, "time_window": "1 hour"}', 1800, 1830), '1800 firing', 'a window that has all of the outage is judged');
select pg_temp.clear();
delete from meshhook_metrics.alert_gaps;
select pg_temp.sample('beat', pg_temp.t(0), 1);
select pg_temp.rule('{"name": "gone", "metric": "beat", "aggregate": "count", "comparison": "<", "threshold": 1, "time_window": "1 minute"}');
select pg_temp.rule('{"name": "silent", "metric": "beat", "aggregate": "last", "threshold": 5, "time_window": "1 minute", "no_data": "firing"}');
insert into meshhook_metrics.alert_gaps (begins, ends) values (pg_temp.t(30), pg_temp.t(1800));
select is(pg_temp.evaluate(1800) + pg_temp.evaluate(1830) + pg_temp.evaluate(1860), 0::bigint, 'after a restart nobody is taken for gone who could not be heard');
select is(pg_temp.evaluate(1861), 2::bigint, 'until there was time to be');
select * from finish();
rollback;
