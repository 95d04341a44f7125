-- What becomes of an alert while there is no value: gaps, metrics that never were,
-- denominators that are too small, and groups that are gone
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
set local timezone = 'America/St_Johns';

-- A gap is the same to all that have no value without a sample: it is played with each
create function pg_temp.gap(columns jsonb, steps text) returns text
language sql as $$
	select string_agg(distinct events, ' <> ')
	from (
		select pg_temp.play(columns, steps) as events
		union all
		select pg_temp.play(columns || '{"aggregate": "p95", "metric": "run_seconds"}', steps)
		union all
		select pg_temp.play(columns || '{"aggregate": "increase", "metric": "failed_total", "denominator_metric": "runs_total"}',
			regexp_replace(steps, '(=[0-9]+)', '\1/1', 'g'))) p
$$;

-- keep_last
select is(pg_temp.gap('{}', '0=11 10=- 20=- 30=11 40=- 50=5'), '0 firing, 50 resolved', 'keep_last, which is the default: firing goes on through a gap');
select is(pg_temp.gap('{}', '0=5 10=- 20=- 30=5'), '', 'nothing comes of a gap');
select is(pg_temp.gap('{"for_duration": "30 seconds"}', '0=11 10=- 30=- 40=- 50=11'), '0 pending, 50 firing', 'pending waits for a value');
select is(pg_temp.gap('{"for_duration": "30 seconds"}', '0=11 10=- 30=- 40=- 50=5'), '0 pending, 50 inactive', 'whatever it is');
select is(pg_temp.gap('{"keep_firing_for": "30 seconds"}', '0=11 10=5 20=- 40=- 50=- 60=5'), '0 firing, 60 resolved', 'what recovers waits, too');
select is(pg_temp.gap('{}', '0=11 10=- 30=- 86400=-'), '0 firing', 'however long it lasts');

-- ok
select is(pg_temp.gap('{"no_data": "ok"}', '0=11 10=- 20=- 30=11'), '0 firing, 10 resolved(no_data), 30 firing', 'ok: a gap resolves');
select is(pg_temp.gap('{"no_data": "ok", "for_duration": "20 seconds"}', '0=11 10=- 20=11 30=11 40=11'), '0 pending, 10 inactive(no_data), 20 pending, 40 firing', 'pending begins anew');
select is(pg_temp.gap('{"no_data": "ok", "no_data_for": "30 seconds"}', '0=11 10=- 20=- 39.999999=- 40=-'), '0 firing, 40 resolved(no_data)', 'once there has been none for no_data_for');
select is(pg_temp.gap('{"no_data": "ok", "no_data_for": "30 seconds"}', '0=11 10=- 30=11 40=- 60=- 70=-'), '0 firing, 70 resolved(no_data)', 'each gap for itself');
select is(pg_temp.gap('{"no_data": "ok", "no_data_for": "30 seconds", "for_duration": "1 minute"}', '0=11 10=- 30=- 35=11 60=11'), '0 pending, 60 firing', 'shorter ones are none');
select is(pg_temp.gap('{"no_data": "ok", "keep_firing_for": "20 seconds"}', '0=11 10=- 20=- 30=-'), '0 firing, 30 resolved(no_data)', 'keep_firing_for holds for a gap');
select is(pg_temp.gap('{"no_data": "ok", "keep_firing_for": "20 seconds"}', '0=11 10=- 20=11 30=- 40=- 50=-'), '0 firing, 50 resolved(no_data)', 'which a value ends');
select is(pg_temp.gap('{"no_data": "ok", "keep_firing_for": "20 seconds"}', '0=11 10=5 20=- 30=-'), '0 firing, 30 resolved(no_data)', 'a value and then a gap recover together');
select is(pg_temp.gap('{"no_data": "ok", "no_data_for": "20 seconds", "keep_firing_for": "20 seconds"}', '0=11 10=- 30=- 40=- 50=-'), '0 firing, 50 resolved(no_data)',
	'no_data_for comes first, then keep_firing_for');
select is(pg_temp.gap('{"no_data": "ok"}', '0=- 10=- 20=5 30=-'), '', 'and nothing comes of what is not there');

-- firing
select is(pg_temp.gap('{"no_data": "firing"}', '0=5 10=- 20=- 30=5'), '10 firing(no_data), 30 resolved', 'firing: a gap fires, and a value ends it');
select is(pg_temp.gap('{"no_data": "firing"}', '0=5 10=- 20=11 30=11 40=5'), '10 firing(no_data), 40 resolved', 'unless the comparison holds for it');
select is(pg_temp.gap('{"no_data": "firing"}', '0=11 10=- 20=- 30=11 40=5'), '0 firing, 40 resolved', 'what fires goes on');
select is(pg_temp.gap('{"no_data": "firing", "for_duration": "1 hour"}', '0=5 10=-'), '10 firing(no_data)', 'for_duration is nothing to a gap');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "30 seconds"}', '0=5 10=- 20=- 39.999999=- 40=- 50=5'), '10 pending(no_data), 40 firing(no_data), 50 resolved',
	'no_data_for is, until it has lasted so long');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "30 seconds"}', '0=5 10=- 30=5 40=- 60=- 70=-'),
	'10 pending(no_data), 30 inactive, 40 pending(no_data), 70 firing(no_data)', 'each gap for itself');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "30 seconds"}', '0=5 10=- 20=11 30=5'), '10 pending(no_data), 20 firing, 30 resolved', 'a value for which it holds fires as always');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "30 seconds", "for_duration": "20 seconds"}', '0=5 10=- 20=- 30=11 40=11 50=11'),
	'10 pending(no_data), 50 firing', 'and when it has held for for_duration: the gap does not count');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "20 seconds", "for_duration": "1 hour"}', '0=11 10=- 20=- 30=-'), '0 pending, 30 firing(no_data)', 'what is pending fires as well');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "20 seconds", "for_duration": "30 seconds"}', '0=11 10=- 20=11 30=11'), '0 pending, 30 firing', 'a gap that is shorter is none');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "20 seconds", "for_duration": "30 seconds"}', '0=11 10=- 20=- 29=5 40=-'), '0 pending, 29 inactive, 40 pending(no_data)',
	'nor keeps it what is over');
select is(pg_temp.gap('{"no_data": "firing", "keep_firing_for": "20 seconds"}', '0=5 10=- 20=5 30=- 40=5 60=5'), '10 firing(no_data), 60 resolved', 'what a gap fired is kept as well');
select is(pg_temp.gap('{"no_data": "firing", "recovery_threshold": 8}', '0=5 10=- 20=9 30=8'), '10 firing(no_data), 20 resolved', 'and is over at the threshold, whatever the recovery_threshold');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "20 seconds"}', '0=- 10=- 20=-'), '0 pending(no_data), 20 firing(no_data)', 'what never was is a gap');
select is(pg_temp.gap('{"no_data": "firing", "no_data_for": "30 seconds"}', '100=- 50=- 79.999999=- 80=-'), '100 pending(no_data), 80 firing(no_data)',
	'when the clock is set back, a gap is counted from where it is now');
select is(pg_temp.gap('{"no_data": "ok", "no_data_for": "30 seconds"}', '90=11 100=- 50=- 79.999999=- 80=-'), '90 firing, 80 resolved(no_data)', 'also where it is ok');
select is(pg_temp.play('{"no_data": "firing"}', '0=-') || '; ' || pg_temp.play('{"no_data": "firing", "aggregate": "increase", "metric": "runs_total"}', '0=-')
	|| '; ' || pg_temp.play('{"no_data": "firing", "aggregate": "count", "metric": "run_seconds"}', '0=-'),
	'0 firing(no_data); 0 firing(no_data); 0 firing(no_data)', 'a metric that never was has no value, whatever is asked of it');

select is((
	select string_agg(distinct pg_temp.play(c || '{"no_data": "firing", "no_data_for": "20 seconds"}', '0=5 10=- 20=- 30=- 40=11 50=5'), ' <> ')
	from unnest(array['{"aggregate": "min"}', '{"aggregate": "max"}', '{"aggregate": "avg"}', '{"aggregate": "avg", "metric": "runs_total"}',
		'{"aggregate": "avg", "metric": "run_seconds"}', '{"aggregate": "min", "metric": "run_seconds"}', '{"aggregate": "p0", "metric": "run_seconds"}']::jsonb[]) c),
	'10 pending(no_data), 30 firing(no_data), 50 resolved', 'a gap is the same to whatever has no value without a sample');

-- What is shown of it
select pg_temp.clear();
select pg_temp.rule('{"no_data": "firing", "no_data_for": "20 seconds", "annotations": {"summary": "depth is {{ value }}"}}');
select pg_temp.go('0=5 10=-');
select results_eq('select state, reason, value, annotations, pg_temp.seconds(no_data_since) from meshhook_metrics.alerts',
	$$ values ('pending', 'no_data', null::float8, '{"summary": "depth is no data"}'::jsonb, '10') $$, 'an alert says that there is no data, and since when');
select pg_temp.go('20=- 30=- 35=11');
select results_eq('select state, reason, value, pg_temp.seconds(since), pg_temp.seconds(no_data_since) from meshhook_metrics.alerts',
	$$ values ('firing', 'threshold', 11::float8, '30', null::text) $$, 'and when it is another reason');
select pg_temp.clear();
select pg_temp.rule();
select pg_temp.go('0=11 10=- 20=-');
select results_eq('select state, reason, value, pg_temp.seconds(no_data_since) from meshhook_metrics.alerts', $$ values ('firing', 'threshold', null::float8, '10') $$, 'also where nothing comes of it');

-- What rests is 0
select is(pg_temp.play(c || '{"comparison": "<", "threshold": 0.05}', '0=5 10=- 20=5 30=- 40=-'), '10 firing, 20 resolved, 30 firing', format('%s: what rests has 0', c))
from unnest(array[
	'{"metric": "runs_total", "aggregate": "increase"}', '{"metric": "runs_total", "aggregate": "rate"}', '{"metric": "runs_total", "aggregate": "count"}',
	'{"metric": "run_seconds", "aggregate": "increase"}', '{"metric": "run_seconds", "aggregate": "rate"}', '{"metric": "run_seconds", "aggregate": "count"}',
	'{"metric": "depth", "aggregate": "count"}']::jsonb[]) c;
select is(pg_temp.play('{"metric": "runs_total", "aggregate": "increase", "comparison": "<", "threshold": 1, "no_data": "firing"}', '0=- 10=5 20=-'),
	'0 firing(no_data), 10 resolved, 20 firing', 'which is something else than no data');
select is(pg_temp.play('{"metric": "runs_total", "aggregate": "increase", "comparison": "<", "threshold": 1}', '0=0'), '0 firing', 'increments of 0 are no increase');

-- Ratios
create function pg_temp.ratio(columns jsonb, steps text) returns text
language sql
return pg_temp.play('{"metric": "failed_total", "aggregate": "increase", "denominator_metric": "runs_total", "threshold": 0.5}' || columns, steps);
select is(pg_temp.ratio('{}', '0=5/10 10=6/10 20=5/10'), '10 firing, 20 resolved', 'a ratio is compared');
select is(pg_temp.ratio('{"denominator_min": 20}', '0=19/19 10=20/20 20=19.999/19.999 30=1/20 40=5/5'), '10 firing, 30 resolved', 'and has no value while the denominator is below denominator_min');
select is(pg_temp.ratio('{"denominator_min": 20, "no_data": "ok"}', '0=19/19 10=20/20 20=5/5'), '10 firing, 20 resolved(no_data)', 'so no_data decides');
select is(pg_temp.ratio('{"no_data": "firing"}', '0=1/0 10=1/2 20=0/0'), '0 firing(no_data), 10 resolved, 20 firing(no_data)', 'nor where it is 0');
select is(pg_temp.ratio('{"no_data": "firing"}', '0=1/- 10=1/2 20=1/-'), '0 firing(no_data), 10 resolved, 20 firing(no_data)', 'or was not recorded');
select is(pg_temp.ratio('{"no_data": "firing"}', '0=1/-3'), '0 firing(no_data)', 'or is below 0');
select is(pg_temp.ratio('{"comparison": "<", "no_data": "firing"}', '0=-/10 10=6/10 20=-/10'), '0 firing, 10 resolved, 20 firing', 'what never was above it is 0, and so is what rests');
select is((select max(value) from meshhook_metrics.alert_events where state = 'firing'), 0::float8, 'exactly');
select is(pg_temp.ratio('{"comparison": "<", "no_data": "firing"}', '0=-/-'), '0 firing(no_data)', 'nothing of nothing is no data');
select is(pg_temp.ratio('{"aggregate": "avg", "no_data": "firing", "threshold": 5}', '0=-/10 10=6/10 20=-/10'), '0 firing(no_data), 10 resolved, 20 firing(no_data)',
	'an avg of nothing is none');
select is(pg_temp.ratio('{"denominator_labels": {"status": "none"}, "no_data": "firing"}', '0=1/10'), '0 firing(no_data)', 'a denominator that its labels leave nothing of is none');

-- Groups
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"], "no_data": "ok", "no_data_for": "20 seconds"}');
select pg_temp.sample('depth', pg_temp.t(0), 11, jsonb_build_object('queue', q)) from unnest(array['a', 'b']) q;
select pg_temp.evaluate(0);
select pg_temp.sample('depth', pg_temp.t(s), 11, '{"queue": "a"}') from unnest(array[10, 20, 30]) s;
select pg_temp.evaluate(s) from unnest(array[10, 20, 30]) s;
select results_eq($$ select pg_temp.seconds(at), labels, state, reason from meshhook_metrics.alert_events where pg_temp.seconds(at) <> '0' $$,
	$$ values ('30', '{"queue": "b"}'::jsonb, 'resolved', 'no_data') $$, 'a gap of one group is nothing to the others');

-- A group is gone a day after its last sample
create function pg_temp.day_later(columns jsonb, at_zero float8, seconds numeric[]) returns text
language plpgsql as $$
declare
	metric text := coalesce(columns ->> 'metric', 'depth');
	second numeric;
begin
	perform pg_temp.clear(), pg_temp.rule(columns);
	-- Another group goes on, so that the rule has one
	perform pg_temp.sample(metric, pg_temp.t(s), 5, '{"queue": "b"}') from generate_series(0, 90000, 10000) s;
	perform pg_temp.sample(metric, pg_temp.t(0), at_zero, '{"queue": "a"}');
	update meshhook_metrics.series set created_at = pg_temp.t(0) - interval '1 month';
	perform pg_temp.close(90060);
	foreach second in array seconds loop
		perform pg_temp.evaluate(second);
	end loop;
	return (select string_agg(pg_temp.seconds(at) || ' ' || state || case when reason <> 'threshold' then '(' || reason || ')' else '' end, ', ' order by id)
		from meshhook_metrics.alert_events where labels <> '{"queue": "b"}');
end
$$;
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 minutes"}', 11, array[60, 80000, 86400, 86401, 86500]), '60 firing, 86401 resolved(group_gone)', 'a group is gone a day after its last sample');
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 minutes", "no_data": "firing", "keep_firing_for": "1 hour"}', 5, array[60, 80000, 86400, 86401, 86500]),
	'80000 firing(no_data), 86401 resolved(group_gone)', 'and no gap any more, nor kept firing');
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 minutes", "no_data": "firing"}', 5, array[60, 86401, 86500]), null, 'it does not begin then');
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 minutes", "for_duration": "2 days"}', 11, array[60, 86400, 86401]), '60 pending, 86401 inactive(group_gone)', 'pending neither');
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 minutes", "metric": "runs_total", "aggregate": "increase", "comparison": "<", "threshold": 1}', 5, array[60, 80000, 86400, 86401, 86500]),
	'80000 firing, 86401 resolved(group_gone)', 'what has rested for a day is gone as well');
select is(pg_temp.day_later('{"time_window": "2 minutes", "labels": {"queue": "a"}}', 11, array[60, 80000, 86401]), '60 firing', 'without group_by nothing is ever gone');
select is(pg_temp.day_later('{"time_window": "2 minutes", "labels": {"queue": "a"}, "no_data": "firing"}', 5, array[60, 86401]), '86401 firing(no_data)', 'but without data');
select is(pg_temp.day_later('{"group_by": ["queue"], "time_window": "2 days"}', 11, array[60, 90000]), '60 firing', 'a window that has the sample has the group');

-- It comes back with its next sample, which is in no minute yet
select pg_temp.clear();
select pg_temp.rule('{"group_by": ["queue"]}');
select pg_temp.rule('{"name": "kept", "group_by": ["queue"], "keep_firing_for": "1 minute", "no_data": "ok"}');
select pg_temp.sample('depth', pg_temp.t(-200000), 5, '{"queue": "a"}');
select pg_temp.close(0);
select pg_temp.sample('depth', pg_temp.t(1), 11, '{"queue": "a"}');
select pg_temp.sample('depth', pg_temp.t(s), 5, '{"queue": "b"}') from generate_series(0, 75, 5) s;
select pg_temp.evaluate(s) from unnest(array[0, 5, 15, 50]) s;
select pg_temp.close(60);
select pg_temp.evaluate(s) from unnest(array[65, 75]) s;
select results_eq($$ select name, pg_temp.seconds(at), state, reason from meshhook_metrics.alert_events order by name, id $$,
	$$ values ('deep', '5', 'firing', 'threshold'), ('kept', '5', 'firing', 'threshold'), ('kept', '75', 'resolved', 'no_data') $$, 'a group that comes back is there for a day again, also while that is in no minute yet');
select * from finish();
rollback;
