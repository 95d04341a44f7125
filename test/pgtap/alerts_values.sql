-- What an alert rule compares is what its samples say, wherever they are kept by now:
-- random samples, flushed and rolled up as the worker does, and answers that are worked
-- out from the samples alone
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
select setseed(0.4);
set local timezone = 'America/New_York';

-- Three tenants with the same metrics
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at)
select tenant, metric, kind, labels, pg_temp.t(-4 * 86400)
from (values ('runs_total', 'counter'), ('depth', 'gauge'), ('run_seconds', 'histogram')) m (metric, kind),
	unnest(array[:'a', :'b', '00000000-0000-0000-0000-000000000000']::uuid[]) tenant,
	unnest(array[
		'{}', '{"code": "200", "region": "eu"}', '{"code": "200", "region": "us"}', '{"code": "500", "region": "eu"}', '{"code": "500"}',
		'{"code": "503", "region": "us", "host": "1"}', '{"code": "503", "region": "us", "host": "2"}', '{"code": "", "flag": "true"}']::jsonb[]) labels
order by random();

create temp table flushes (n int generated always as identity, at timestamptz, is_recorded boolean default false);
create temp table samples (id int generated always as identity, flush int, at timestamptz, tenant_id uuid, metric text, series_id bigint, value float8);
create index on samples (tenant_id, metric, at);

-- Flushes until a time, each with some samples: a row for a tenant, or two
create function pg_temp.record(until timestamptz, share float8 default 0.03) returns void
language sql as $$
	insert into samples (flush, at, tenant_id, metric, series_id, value)
	select f.n, f.at, s.tenant_id, s.metric, s.id, floor(random() * 1000)
	from flushes f, meshhook_metrics.series s, generate_series(1, 2)
	where f.at < until and not f.is_recorded and random() < share and s.metric <> 'filler'
	order by f.n;
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	select tenant_id, at, 0.000001, array_agg(series_id), array_agg(count), array_agg(sum), array_agg(min), array_agg(max), array_agg(last), array_agg(histogram)
	from (
		select x.flush, x.tenant_id, x.at, s.id % (x.flush % 2 + 1) as half, s.id as series_id, count(*) as count, sum(x.value) as sum,
			min(x.value) filter (where s.kind <> 'counter') as min,
			max(x.value) filter (where s.kind <> 'counter') as max,
			(array_agg(x.value order by x.id desc) filter (where s.kind = 'gauge'))[1] as last,
			meshhook_metrics.histogram_of(x.value) filter (where s.kind = 'histogram') as histogram
		from flushes f
		join samples x on x.flush = f.n
		join meshhook_metrics.series s on s.id = x.series_id
		where not f.is_recorded
		group by x.flush, x.tenant_id, x.at, half, s.id) v
	group by v.flush, v.tenant_id, v.at, v.half
	order by v.flush;
	update flushes set is_recorded = true where at < until and not is_recorded;
$$;

-- Rules: each aggregate of each metric with each window, filters, groups and ratios as it comes
insert into meshhook_metrics.settings (name, tenant_id, value)
select 'max_alert_rules', tenant, '1000' from (select distinct tenant_id as tenant from meshhook_metrics.series) s;
create function pg_temp.one_of(choices anyarray) returns anyelement
language sql volatile as $$
	select choices[1 + floor(random() * cardinality(choices))::int]
$$;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, labels, group_by, denominator_metric, denominator_labels, denominator_min, comparison, threshold, time_window)
select tenant, row_number() over () || ' ' || m.metric, m.metric, aggregate, filter, keys,
	case when ratio then m.metric end, case when ratio then pg_temp.one_of(array['{}', '{"region": "eu"}', '{"code": 500}']::jsonb[]) else '{}' end,
	case when ratio then pg_temp.one_of(array[0, 1, 500]) else 0 end, pg_temp.one_of(array['>', '<=']), 500, time_window
from (
	select
		m.*, w.time_window, aggregate,
		pg_temp.one_of(array[:'a', :'a', :'b', '00000000-0000-0000-0000-000000000000']::uuid[]) as tenant,
		pg_temp.one_of(array['{}', '{}', '{"code": 500}', '{"region": "us", "code": "503"}', '{"code": ""}', '{"flag": true}', '{"region": "moon"}']::jsonb[]) as filter,
		case floor(random() * 5) when 0 then '{code}'::text[] when 1 then '{region,code}' when 2 then '{host}' end as keys,
		aggregate in ('increase', 'rate', 'count', 'avg', 'last') and random() < 0.3 as ratio
	from unnest(array[
			'10 s', '30 s', '1 min', '61 s', '90 s', '5 min', '10 min', '11 min', '15 min', '901 s', '20 min', '1 h', '2 h', '12 h', '12 h 1 s', '13 h', '2 days'
		]::interval[]) w (time_window),
		(values
			('runs_total', array['increase', 'rate', 'count', 'avg']),
			('depth', array['last', 'avg', 'min', 'max', 'count']),
			('run_seconds', array['increase', 'rate', 'count', 'avg', 'min', 'max', 'p50', 'p99.9'])) m (metric, aggregates),
		unnest(m.aggregates) aggregate
	offset 0) m;

-- The answers. Windows up to 15 minutes are exact, longer ones begin at a whole minute,
-- above 12 hours at a whole hour. A rate is of the time up to the newest flush, if that is
-- no older than flush_interval.
-- A label with an empty value is none
create function pg_temp.has(labels jsonb, wanted jsonb) returns boolean
language sql as $$
	select coalesce(bool_and(coalesce(labels ->> w.key, '') = w.value), true)
	from jsonb_each_text(wanted) w
$$;
create function pg_temp.answers(now timestamptz) returns table (rule_id uuid, labels jsonb, value float8)
language sql as $$
	with newest as (
		select l.at
		from meshhook_metrics.live l
		where l.at <= now
		order by l.id desc
		limit 1
	),
	begun as (
		select r.*, extract(epoch from coalesce((select n.at from newest n where n.at >= now - interval '5 s' and n.at > begins), now) - begins)::float8 as seconds
		from (
			select r.*, r.time_window > '15 min' as from_whole,
				case
					when r.time_window <= '15 min' then now - r.time_window
					else date_trunc(case when r.time_window <= '12 h' then 'minute' else 'hour' end, now - r.time_window, 'UTC')
				end as begins
			from meshhook_metrics.alert_rules r) r
	),
	matched as (
		select r.id, p.part, s.id as series_id, s.kind, coalesce((select jsonb_object_agg(k, s.labels -> k) from unnest(r.group_by) k where s.labels ? k), '{}') as labels
		from meshhook_metrics.alert_rules r
		cross join (values (1), (2)) p (part)
		join meshhook_metrics.series s
			on s.tenant_id = r.tenant_id
			and s.metric = case p.part when 1 then r.metric else r.denominator_metric end
			and pg_temp.has(s.labels, case p.part when 1 then r.labels else r.denominator_labels end)
	),
	parts as (
		select r.id, m.part, m.labels,
			case r.aggregate
				when 'increase' then case m.kind when 'counter' then coalesce(sum(x.value), 0) else count(x.value) end
				when 'rate' then case m.kind when 'counter' then coalesce(sum(x.value), 0) else count(x.value) end
					/ r.seconds
				when 'count' then count(x.value)
				when 'avg' then sum(x.value) / nullif(count(x.value), 0)
				when 'min' then min(x.value)
				when 'max' then max(x.value)
				when 'last' then sum(x.value) filter (where x.newest = 1)
				else meshhook_metrics.histogram_quantile(meshhook_metrics.histogram_of(x.value) filter (where x.value is not null),
					case when r.aggregate ~ '^p' then substr(r.aggregate, 2)::float8 / 100 end)
			end as value
		from matched m
		join begun r on r.id = m.id
		left join lateral (
			select x.*, row_number() over (order by x.at desc, x.id desc) as newest
			from samples x
			where x.tenant_id = r.tenant_id and x.metric = r.metric and x.series_id = m.series_id and (x.at > r.begins or r.from_whole and x.at = r.begins) and x.at <= now) x
			on true
		group by r.id, r.aggregate, r.seconds, m.part, m.labels, m.kind
	)
	select r.id, coalesce(p.labels, '{}'),
		case
			when r.denominator_metric is null then p.numerator
			when p.denominator > 0 and p.denominator >= r.denominator_min then
				coalesce(p.numerator, case when r.aggregate in ('increase', 'rate', 'count') then 0 end) / p.denominator
		end
	from meshhook_metrics.alert_rules r
	left join (
		select id, labels, max(value) filter (where part = 1) as numerator, max(value) filter (where part = 2) as denominator
		from parts
		group by id, labels) p
		on p.id = r.id
	where p.id is not null or r.group_by is null
$$;

-- Compares the rules whose windows live can divide, if the time is past
create function pg_temp.compare(now timestamptz, longest interval) returns text
language plpgsql as $$
declare
	rules constant uuid[] := array(select id from meshhook_metrics.alert_rules where time_window <= longest);
	differences bigint;
	example text;
	answers bigint;
	known bigint;
begin
	select count(*) filter (where a.value is distinct from v.value or v.error is not null or a.rule_id is null or v.rule_id is null),
		min(format('%s: %s instead of %s %s', to_jsonb(r) - 'annotations', v.value, a.value, v.error))
			filter (where a.value is distinct from v.value or v.error is not null or a.rule_id is null or v.rule_id is null),
		count(*), count(a.value)
	into differences, example, answers, known
	from (select * from pg_temp.answers(now) a where a.rule_id = any (rules)) a
	full join (select * from meshhook_metrics.alert_values(now, rules) v where v.labels is not null or v.error is not null) v on v.rule_id = a.rule_id and v.labels = a.labels
	join meshhook_metrics.alert_rules r on r.id = coalesce(v.rule_id, a.rule_id);
	if differences > 0 then
		return format('%s of %s are wrong, such as %s', differences, answers, example);
	elsif known < cardinality(rules) / 2 then
		return format('only %s of %s rules have a value', known, cardinality(rules));
	end if;
	return 'all as the samples say';
end
$$;
-- Both ways of reading: all rows of a time, and those of each series, where there are many others
create function pg_temp.both(now timestamptz, said text, longest interval default '31 days') returns setof text
language plpgsql as $$
begin
	return next is(pg_temp.compare(now, longest), 'all as the samples say', said);
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels) select '22222222-2222-2222-2222-222222222222', 'filler', 'counter', jsonb_build_object('n', n) from generate_series(1, 6000) n;
	analyze meshhook_metrics.series;
	return next is(pg_temp.compare(now, longest), 'all as the samples say', said || ', series by series');
	delete from meshhook_metrics.series where metric = 'filler';
	update pg_class set reltuples = (select count(*) from meshhook_metrics.series) where oid = 'meshhook_metrics.series'::regclass;
end
$$;

-- Three days, now and then
insert into flushes (at)
select pg_temp.t(-random()::numeric * 3 * 86400) from generate_series(1, 300) order by 1;
select pg_temp.record(pg_temp.t(0));
select meshhook_metrics.close_minutes(pg_temp.t(2)) > 0;
select meshhook_metrics.rollup() > 0;

-- 70 minutes, a flush each five seconds, not to the microsecond; minutes are closed, and
-- once there is a rollup
insert into flushes (at)
select pg_temp.t(s + random()::numeric * 2 + 0.000001) from generate_series(0, 70 * 60 - 5, 5) s order by s;
do $$
begin
	for minute in 1 .. 68 loop
		perform pg_temp.record(pg_temp.t(minute * 60 + 2 * (minute % 3)));
		perform meshhook_metrics.close_minutes(pg_temp.t(minute * 60 + 2 * (minute % 3)));
		if minute = 37 then
			perform meshhook_metrics.rollup();
		end if;
	end loop;
end
$$;
select pg_temp.record(pg_temp.t(4200));
analyze meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.series;
select ok(count(*) > 50, 'there are rows in no minute yet') from meshhook_metrics.live where id > (select live_id from meshhook_metrics.rollup_state where target = '1m');

-- Which way is which: as alert_values() chooses
select ok(5 * min(wanted) >= 72 and 5 * max(wanted) < 6000, 'few series make all rules read all rows of a time, many none of them')
from (
	select r.time_window, count(*) as wanted
	from meshhook_metrics.alert_rules r
	join meshhook_metrics.series s on s.tenant_id = r.tenant_id and s.metric in (r.metric, r.denominator_metric) and pg_temp.has(s.labels, r.labels)
	group by r.time_window) w;

select pg_temp.both(pg_temp.t(4203.2), 'in the middle of a minute');
select pg_temp.both(pg_temp.t(4200), 'at a whole minute');
select pg_temp.both(pg_temp.t(4199.999999), 'just before one');
select pg_temp.both(pg_temp.t(3927.5), 'in the past, in a minute that has been closed', '10 min');
select pg_temp.both(pg_temp.t(3900), 'at a whole minute in the past', '10 min');
select meshhook_metrics.rollup() > 0;
select pg_temp.both(pg_temp.t(4203.2), 'after a rollup');
select meshhook_metrics.close_minutes(pg_temp.t(4202)) > 0;
select meshhook_metrics.rollup() > 0;
select pg_temp.both(pg_temp.t(4203.2), 'with all minutes closed');
select pg_temp.both(pg_temp.t(4320.5), 'when nothing has come for two minutes');

-- The clock goes back: flushes of minutes that are closed, and of one of the hour before.
-- They are from the end of five minutes, so that it is clear what is last in them.
insert into flushes (at)
select pg_temp.t(s) from unnest(array[4199.99, 3899.99, 3599.99, 4199.995]) s;
select pg_temp.record(pg_temp.t(4200), 0.3);
select is(count(*), 4::bigint, 'rows of minutes that are closed') from (select distinct at from meshhook_metrics.live where id > (select live_id from meshhook_metrics.rollup_state where target = '1m')) l;
select pg_temp.both(pg_temp.t(4203.2), 'when they are in live');
select pg_temp.both(pg_temp.t(3960), 'also before what was there', '10 min');
select meshhook_metrics.close_minutes(pg_temp.t(4262)) > 0;
select pg_temp.both(pg_temp.t(4263.2), 'when they are in minutes, and five minutes are to be done again');
select meshhook_metrics.rollup() > 0;
select pg_temp.both(pg_temp.t(4263.2), 'and when that is done');
select * from finish();
rollback;
