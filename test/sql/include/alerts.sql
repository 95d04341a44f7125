-- What the tests of alert rules are written with: samples and rules of one tenant, a
-- clock that is given in seconds after ten o'clock, and what became of them as a line.

\set a '11111111-1111-1111-1111-111111111111'
\set b '22222222-2222-2222-2222-222222222222'

create function pg_temp.t(seconds numeric) returns timestamptz
language sql immutable
return timestamptz '2024-01-16 10:00:00+00' + interval '1 microsecond' * (seconds * 1000000)::float8;

create function pg_temp.seconds(at timestamptz) returns text
language sql immutable
return trim_scale(extract(epoch from at - timestamptz '2024-01-16 10:00:00+00'))::text;

-- A row of live with one sample, about that moment only; its series is made when it is
-- needed. What the metric is called says what it is.
create function pg_temp.sample(metric text, at timestamptz, value float8, labels jsonb default '{}',
	tenant uuid default '11111111-1111-1111-1111-111111111111') returns void
language plpgsql as $$
declare
	kind text := case when metric like '%\_total' then 'counter' when metric like '%\_seconds' then 'histogram' else 'gauge' end;
	series_id bigint;
begin
	select s.id into series_id
	from meshhook_metrics.series s
	where s.tenant_id = sample.tenant and s.metric = sample.metric and s.labels = sample.labels;
	if not found then
		insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at) values (tenant, metric, kind, labels, at)
		returning id into series_id;
	end if;
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	values (tenant, at, 0.000001, array[series_id], array[1], array[value],
		case when kind <> 'counter' then array[value] end, case when kind <> 'counter' then array[value] end,
		case when kind = 'gauge' then array[value] end,
		case when kind = 'histogram' then array[(select meshhook_metrics.histogram_of(v) from unnest(array[value]) v)] end);
end
$$;

-- A rule: depth > 10, looked at for ten seconds, with the columns that are given
create function pg_temp.rule(columns jsonb default '{}') returns uuid
language plpgsql as $$
declare
	written jsonb := '{"tenant_id": "11111111-1111-1111-1111-111111111111", "name": "deep", "metric": "depth", "aggregate": "last", "threshold": 10, "time_window": "10 seconds"}'
		|| columns;
	listed text := (select string_agg(quote_ident(k), ', ') from jsonb_object_keys(written) k);
	made uuid;
begin
	execute format('insert into meshhook_metrics.alert_rules (%1$s) select %1$s from jsonb_populate_record(null::meshhook_metrics.alert_rules, $1) returning id', listed)
	into made using written;
	return made;
end
$$;

create function pg_temp.clear() returns void
language sql as $$
	truncate meshhook_metrics.alert_rules, meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_notifications,
		meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m
$$;

-- All that an evaluation can change
create function pg_temp.everything() returns jsonb
language sql as $$
	select jsonb_build_array(
		(select jsonb_agg(to_jsonb(a) order by a.rule_id, a.fingerprint) from meshhook_metrics.alerts a),
		(select count(*) from meshhook_metrics.alert_events),
		(select count(*) from meshhook_metrics.alert_notifications),
		(select jsonb_agg(to_jsonb(r) - 'last_error_at' order by r.id) from meshhook_metrics.alert_rules r))
$$;

-- Evaluates, and once more at the same time, when nothing may be left to do
create function pg_temp.evaluate(seconds numeric) returns bigint
language plpgsql as $$
declare
	at constant timestamptz := pg_temp.t(seconds);
	changed constant bigint := meshhook_metrics.evaluate_alerts(at);
	afterwards constant jsonb := pg_temp.everything();
begin
	if meshhook_metrics.evaluate_alerts(at) <> 0 or pg_temp.everything() <> afterwards then
		raise exception 'at % the second evaluation changed % to %', seconds, afterwards, pg_temp.everything();
	end if;
	return changed;
end
$$;

-- "10=12" is depth 12 at 10 seconds, "10=-" no sample, and each is evaluated then;
-- "10=1/5" is a sample of the metric and one of its denominator
create function pg_temp.go(steps text, metric text default 'depth', denominator text default 'runs_total') returns void
language plpgsql as $$
declare
	step text[];
begin
	foreach step slice 1 in array array(select regexp_match(s, '^(.*)=([^/]*)/?(.*)$') from regexp_split_to_table(steps, '\s+') s) loop
		perform pg_temp.sample(v.metric, pg_temp.t(step[1]::numeric), v.value::float8)
		from (values (go.metric, step[2]), (denominator, step[3])) v (metric, value)
		where v.value not in ('', '-');
		perform pg_temp.evaluate(step[1]::numeric);
	end loop;
end
$$;

-- What has happened: when, the new state, and why where it was not the threshold
create function pg_temp.events() returns text
language sql as $$
	select coalesce(string_agg(pg_temp.seconds(e.at) || ' ' || e.state || case when e.reason <> 'threshold' then '(' || e.reason || ')' else '' end,
		', ' order by e.id), '')
	from meshhook_metrics.alert_events e
$$;

-- The same of a rule and samples of its own
create function pg_temp.play(columns jsonb, steps text) returns text
language plpgsql as $$
begin
	perform pg_temp.clear(), pg_temp.rule(columns), pg_temp.go(steps, coalesce(columns ->> 'metric', 'depth'));
	return pg_temp.events();
end
$$;

-- Rolls up the minutes that are over at a time, as the worker does
create function pg_temp.close(seconds numeric) returns void
language sql as $$
	select meshhook_metrics.close_minutes(pg_temp.t(seconds))
$$;
