-- What is in the search_path makes no difference to what the functions do
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
\ir ../sql/include/migrations.sql
select no_plan();
do $$begin perform meshhook_metrics.reset(); end$$;

-- The same calls, under a search_path; everything they mention is qualified
create function pg_temp.use(path text) returns text
language plpgsql as $$
declare
	result text;
begin
	perform pg_catalog.set_config('search_path', path, true);
	perform meshhook_metrics.reset();
	perform meshhook_metrics.describe('path_total', 'counter', 'Help.', 'unit');
	perform meshhook_metrics.inc('path_total', 2, '{"code": 200, "retry": true, "share": 0.5}');
	perform meshhook_metrics.gauge_set('path_depth', 3, '{}', '11111111-1111-1111-1111-111111111111');
	perform meshhook_metrics.gauge_add('path_depth', 4, '{}', '11111111-1111-1111-1111-111111111111');
	perform meshhook_metrics.observe('path_seconds', 5);
	perform meshhook_metrics.observe_since('path_since_seconds', pg_catalog.clock_timestamp() + '1 hour'::pg_catalog.interval);
	perform meshhook_metrics.record('[{"op": "inc", "metric": "path_total", "value": 6, "labels": {"code": 200}, "tenant": "{11111111111111111111111111111111}"}]');
	select pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.tenant_id, s.metric, s.labels, s.value, s.count, s.histogram), '; ' order by s.metric, s.tenant_id)
	into result
	from meshhook_metrics.snapshot() s;
	-- what is about the extension itself changes while the worker flushes
	result := result || ' / ' || pg_catalog.md5((
		select pg_catalog.string_agg(line, ' ')
		from pg_catalog.regexp_split_to_table(meshhook_metrics.prometheus(), E'\n') line
		where line !~ 'meshhook_metrics_'));
	result := result || ' / ' || pg_catalog.to_jsonb('{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}'::meshhook_metrics.histogram);
	result := result || ' / ' || (select pg_catalog.concat_ws(' ', meshhook_metrics.histogram_quantile(h, 0.5), meshhook_metrics.histogram_fraction(h, 0, 2), h::pg_catalog.json)
		from (select meshhook_metrics.histogram_of(v) as h from pg_catalog.unnest(array[1.0, 2.0, 3.0]) v) o);
	result := result || ' / ' || (select s.series_used from meshhook_metrics.status() s);
	-- Storage
	truncate meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d, meshhook_metrics.settings;
	delete from meshhook_metrics.rollup_state;
	insert into meshhook_metrics.rollup_state (target) values ('1m'), ('5m'), ('1h'), ('1d');
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('11111111-1111-1111-1111-111111111111', 'path_kept', 'histogram', '{"a": "b"}');
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, histogram)
	select s.tenant_id, pg_catalog.date_trunc('day', pg_catalog.now(), 'UTC') - m * '1 hour'::pg_catalog.interval, 5, array[s.id], array[3], array[6], array[1], array[3],
		array(select meshhook_metrics.histogram_of(v) from pg_catalog.unnest(array[1.0, 2.0, 3.0]) v)
	from meshhook_metrics.series s, pg_catalog.generate_series(0, 50) m;
	insert into meshhook_metrics.settings (name, value) values ('retention_1m', '1 day');
	result := result || ' / ' || meshhook_metrics.close_minutes(pg_catalog.now());
	result := result || ' / ' || meshhook_metrics.rollup();
	perform meshhook_metrics.maintain();
	perform meshhook_metrics.schedule();
	perform meshhook_metrics.unschedule();
	result := result || ' / ' || meshhook_metrics.scheduled_by_pg_cron();
	result := result || ' / ' || (select pg_catalog.count(*) from meshhook_metrics.rollup_1m)
		|| ' / ' || (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.bucket, r.count, r.histogram), '; ' order by r.bucket) from meshhook_metrics.rollup_1d r)
		|| ' / ' || (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', q.bucket, q.labels, q.value), '; ' order by q.bucket)
			from meshhook_metrics.query_range('path_kept', pg_catalog.now() - '3 days'::pg_catalog.interval, pg_catalog.now(), '1 day', group_by => '{a}') q);
	perform pg_catalog.set_config('request.jwt.claims', '{"app_metadata": {"tenant_ids": ["11111111-1111-1111-1111-111111111111"]}}', true);
	result := result || ' / ' || (select pg_catalog.string_agg(t::pg_catalog.text, ' ') from meshhook_metrics.tenant_ids() t)
		|| ' / ' || meshhook_metrics.labels_digest('{"a": 1}');
	-- Alerts
	truncate meshhook_metrics.alert_rules, meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_receivers,
		meshhook_metrics.alert_notifications restart identity;
	insert into meshhook_metrics.settings values ('max_alert_rules', '11111111-1111-1111-1111-111111111111', '2');
	insert into meshhook_metrics.alert_receivers (tenant_id, name, headers) values ('11111111-1111-1111-1111-111111111111', 'path', '{"X-Key": "1"}');
	insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, denominator_metric, group_by, threshold, time_window, annotations)
	values
		('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', 'high', 'path_kept', 'p95', null, '{a}', 2, '1 day',
			'{"summary": "{{ value }} of {{ labels.a }}"}'),
		('11111111-0000-4000-8000-000000000002', '11111111-1111-1111-1111-111111111111', 'ratio', 'path_kept', 'count', 'path_kept', null, 0, '1 day', '{}');
	begin
		insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
		values ('11111111-1111-1111-1111-111111111111', 'third', 'path_kept', 'count', 0);
	exception when configuration_limit_exceeded then
		result := result || ' / ' || sqlerrm;
	end;
	result := result || ' / ' || meshhook_metrics.evaluate_alerts();
	update meshhook_metrics.alert_rules set threshold = 100;
	result := result || ' / ' || meshhook_metrics.evaluate_alerts(pg_catalog.now() + '1 hour'::pg_catalog.interval);
	result := result || ' / ' || (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', e.name, e.state, e.value, e.labels, e.annotations, e.fingerprint), '; '
			order by e.id)
		from meshhook_metrics.alert_events e)
		|| ' / ' || (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', n.receiver, n.payload), '; ' order by n.id) from meshhook_metrics.alert_notifications n);
	update meshhook_metrics.alert_notifications set next_attempt_at = '-infinity';
	result := result || ' / ' || (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.id, c.receiver, c.headers, c.attempts), '; ' order by c.id)
		from meshhook_metrics.claim_notifications() c);
	result := result || ' / ' || meshhook_metrics.finish_notification(1, 'no') || meshhook_metrics.finish_notification(2) || meshhook_metrics.send_notifications();
	perform pg_catalog.set_config('search_path', 'public', true);
	return result;
end
$$;

select matches(pg_temp.use('public'), ' / 2 / 2 / high firing .* / 1 path .*2 path .* / truetrue0$', 'they do something');
select is(pg_temp.use(''), pg_temp.use('meshhook_metrics, public'), 'an empty one');
select is(pg_temp.use('pg_catalog'), pg_temp.use('meshhook_metrics, public'), 'without the schema');
select is(pg_temp.use('no_such_schema'), pg_temp.use('meshhook_metrics, public'), 'a schema that does not exist');

-- One in which somebody has put other things under the names of the catalogue
create schema regress_hostile;
create function regress_hostile.jsonb_in(text) returns jsonb language sql as $$ select '{"hostile": true}'::jsonb $$;
create function regress_hostile.numeric_out(numeric) returns text language sql as $$ select 'hostile'::text $$;
create function regress_hostile.histogram_json(meshhook_metrics.histogram) returns json language sql as $$ select '"hostile"'::json $$;
create function regress_hostile.inc(text) returns void language sql as $$ select 1 / 0 $$;
create domain regress_hostile.uuid as text;
create domain regress_hostile.jsonb as text;
create function regress_hostile.date_bin(interval, timestamptz, timestamptz) returns timestamptz language sql as $$ select $2 + 1 / 0 * '1 day'::interval $$;
create function regress_hostile.date_trunc(text, timestamptz) returns timestamptz language sql as $$ select $2 + 1 / 0 * '1 day'::interval $$;
create function regress_hostile.unnest(anyarray) returns setof anyelement language sql as $$ select $1[1] $$;
create function regress_hostile.sha256(bytea) returns bytea language sql as $$ select null::bytea $$;
create function regress_hostile.differ(timestamptz, timestamptz) returns boolean language sql as $$ select 1 / 0 = 1 $$;
create function regress_hostile.hashtext(text) returns integer language sql as $$ select 1 / 0 $$;
create function regress_hostile.now() returns timestamptz language sql as $$ select '-infinity'::timestamptz + 1 / 0 * '1 day'::interval $$;
create function regress_hostile.format(text) returns text language sql as $$ select 'hostile'::text $$;
create operator regress_hostile.< (leftarg = timestamptz, rightarg = timestamptz, procedure = regress_hostile.differ);
create operator regress_hostile.<= (leftarg = timestamptz, rightarg = timestamptz, procedure = regress_hostile.differ);
create aggregate regress_hostile.max(float8) (sfunc = float8smaller, stype = float8);
create aggregate regress_hostile.sum(float8) (sfunc = float8smaller, stype = float8);
select is(pg_temp.use('regress_hostile, pg_catalog'), pg_temp.use('meshhook_metrics, public'), 'a hostile one');

-- Also while the extension is created: its script names what it uses
create function regress_hostile.format(text, variadic "any") returns text language internal as 'text_format';
create operator regress_hostile.= (leftarg = oid, rightarg = oid, procedure = oidne);
select lives_ok($$
	drop extension meshhook_metrics cascade;
	set local search_path = regress_hostile, pg_catalog;
	create extension meshhook_metrics;
	set local search_path = public $$, 'the extension is created under the hostile one');
select ok(not exists (
		select
		from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
		where p.pronamespace = 'meshhook_metrics'::regnamespace and a.grantee = 0),
	'and keeps PUBLIC out all the same');

select * from finish();
rollback;
