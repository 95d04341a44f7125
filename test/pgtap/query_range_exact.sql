-- Wherever the tables meet, query_range() says what the raw events say: each is
-- counted once, wherever it is kept by now, and divided among buckets that share the
-- time of its flush. Random events, flushes, watermarks and questions
-- against answers that are worked out from the events alone; what must not be read
-- (rows beyond a watermark, sources that have been rolled up) holds nonsense.
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
\ir ../sql/include/migrations.sql
select no_plan();
select setseed(0.3);
set local timezone = 'America/New_York';

create table meshhook_metrics.rollup_1m_any partition of meshhook_metrics.rollup_1m default;
create table meshhook_metrics.rollup_5m_any partition of meshhook_metrics.rollup_5m default;
create table meshhook_metrics.rollup_1h_any partition of meshhook_metrics.rollup_1h default;
create table meshhook_metrics.rollup_1d_any partition of meshhook_metrics.rollup_1d default;

insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
select tenant, metric, kind, labels
from (
	values
		('runs_total', 'counter'),
		('depth', 'gauge'),
		('run_seconds', 'histogram')
) m (metric, kind),
	unnest(array['aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', 'bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb', 'cccccccc-cccc-cccc-cccc-cccccccccccc']::uuid[]) tenant,
	unnest(array[
		'{}',
		'{"status": "ok", "region": "eu"}',
		'{"status": "ok", "region": "us"}',
		'{"status": "failed", "region": "eu"}',
		'{"status": "failed"}',
		'{"overflow": "true"}']::jsonb[]) labels
order by random();

create temp table flushes (id int primary key, at timestamptz, seconds float8);
create temp table events (id int, flush int, series_id bigint, value float8);
grant select on flushes, events to authenticated;

create function pg_temp.whole(first int, last int) returns int
language sql volatile
return first + floor(random() * (last - first + 1))::int;

create function pg_temp.one_of(choices anyarray) returns anyelement
language sql volatile as $$
	select choices[pg_temp.whole(1, cardinality(choices))]
$$;

-- The start of the bin of t, without date_bin
create function pg_temp.bin(t timestamptz, seconds int) returns timestamptz
language sql immutable
return to_timestamp(floor(extract(epoch from t) / seconds) * seconds);

-- Flushes and what came with them; only now and then exactly on a boundary
create function pg_temp.happen(gap int) returns void
language plpgsql as $$
declare
	moment timestamptz := '2026-03-07 21:00:00+00'::timestamptz + make_interval(secs => pg_temp.whole(0, 200000));
	before timestamptz;
begin
	truncate flushes, events;
	for flush in 1 .. 150 loop
		before := moment;
		moment := moment + make_interval(secs => random() ^ 2 * 3 * gap);
		if random() < 0.1 then
			moment := greatest(before, pg_temp.bin(moment, 60)) + interval '1 microsecond' * (pg_temp.whole(0, 1) + case when moment < before then 1 else 0 end);
		end if;
		insert into flushes values (flush, moment, extract(epoch from moment - before));
		insert into events
		select flush * 1000 + n, flush, s.id, case when random() < 0.05 then 0 else pg_temp.whole(1, 1000) end
		from meshhook_metrics.series s, generate_series(1, 3) n
		where random() < 0.1;
	end loop;
end
$$;

-- What the worker would have written: each flush a row for a tenant, or two
create function pg_temp.flush() returns void
language plpgsql as $$
begin
	truncate meshhook_metrics.live restart identity;
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
	select
		v.tenant_id, v.at, v.seconds, array_agg(v.series_id), array_agg(v.count), array_agg(v.sum),
		case when count(v.min) > 0 then array_agg(v.min) end,
		case when count(v.max) > 0 then array_agg(v.max) end,
		case when count(v.last) > 0 then array_agg(v.last) end,
		case when count(v.histogram) > 0 then array_agg(v.histogram) end
	from (
		select
			f.id, s.tenant_id, f.at, f.seconds, s.id as series_id, s.id % pg_temp.whole(1, 2) as half,
			count(*) as count,
			sum(e.value) as sum,
			min(e.value) filter (where s.kind <> 'counter') as min,
			max(e.value) filter (where s.kind <> 'counter') as max,
			(array_agg(e.value order by e.id desc) filter (where s.kind = 'gauge'))[1] as last,
			meshhook_metrics.histogram_of(e.value) filter (where s.kind = 'histogram') as histogram
		from flushes f
		join events e on e.flush = f.id
		join meshhook_metrics.series s on s.id = e.series_id
		group by f.id, s.id
	) v
	group by v.id, v.tenant_id, v.at, v.seconds, v.half
	order by v.id, random();
end
$$;

-- Rolls one table up into the next, as far as ends
create function pg_temp.roll_up(source text, target text, seconds int, ends timestamptz) returns void
language plpgsql as $$
begin
	execute format(
		'insert into meshhook_metrics.%I
		select tenant_id, series_id, pg_temp.bin(bucket, %s), sum(count), sum(sum), min(min), max(max),
			(array_agg(last order by bucket desc) filter (where last is not null))[1], meshhook_metrics.histogram_merge(histogram)
		from meshhook_metrics.%I
		where bucket < $1
		group by 1, 2, 3', target, seconds, source) using ends;
end
$$;

-- Nonsense where the watermarks say that nothing is to be read
create function pg_temp.spoil(spoilt text, since timestamptz, until timestamptz, seconds int) returns void
language plpgsql as $$
begin
	execute format('update meshhook_metrics.%I set count = 1000000007, sum = 1000000007, min = -1e9, max = 1e9, last = 1e9,
		histogram = (select meshhook_metrics.histogram_of(1e9) from generate_series(1, 1000)) where bucket >= $1 and bucket < $2', spoilt)
	using since, until;
	execute format('insert into meshhook_metrics.%I
		select tenant_id, id, b, 1000000007, 1000000007
		from meshhook_metrics.series, (select pg_temp.bin(at, %s) as b from flushes group by 1) f
		where b >= $1 and b < $2 and random() < 0.3
		on conflict do nothing', spoilt, seconds)
	using since, until;
end
$$;

-- Any watermarks that rollup() could have left
create function pg_temp.keep(base int) returns void
language plpgsql as $$
declare
	windows constant int[] := array[86400, 3600, 300, 60];
	targets constant text[] := array['1d', '1h', '5m', '1m'];
	reached timestamptz;
	complete timestamptz[];
begin
	truncate meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d;
	perform pg_temp.flush();

	-- Minutes are closed up to any; nothing yet, and all that there is, too
	select case pg_temp.whole(1, 6)
		when 1 then '-infinity'
		when 2 then pg_temp.bin(max(at), 60) + interval '1 minute'
		else pg_temp.bin(min(at) + random() * (max(at) - min(at)), 60)
	end
	into reached
	from meshhook_metrics.live;
	insert into meshhook_metrics.rollup_1m
	select
		l.tenant_id, e.series_id, pg_temp.bin(l.at, 60), sum(e.count), sum(e.sum), min(e.min), max(e.max),
		(array_agg(e.last order by l.id desc) filter (where e.last is not null))[1], meshhook_metrics.histogram_merge(e.histogram)
	from meshhook_metrics.live l
	cross join lateral unnest(l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram) e (series_id, count, sum, min, max, last, histogram)
	group by 1, 2, 3;
	complete[4] := reached;

	for i in reverse 3 .. 1 loop
		reached := case
			when reached = '-infinity' or random() < 0.2 then '-infinity'
			when random() < 0.4 then pg_temp.bin(reached, windows[i])
			else greatest(
				pg_temp.bin((select min(at) from flushes), windows[i]),
				pg_temp.bin(reached - (reached - (select min(at) from flushes)) * random(), windows[i]))
		end;
		complete[i] := reached;
		perform pg_temp.roll_up('rollup_' || targets[i + 1], 'rollup_' || targets[i], windows[i], reached);
	end loop;

	update meshhook_metrics.rollup_state
	set complete_until = complete[array_position(targets, target)];

	-- Beyond its watermark a table holds what is out of date, before that of a
	-- coarser one what has been dropped; a table coarser than the question anything
	for i in 1 .. 4 loop
		if i < base then
			perform pg_temp.spoil('rollup_' || targets[i], '-infinity', 'infinity', windows[i]);
		else
			perform pg_temp.spoil('rollup_' || targets[i], complete[i], 'infinity', windows[i]);
			if i > base then
				perform pg_temp.spoil('rollup_' || targets[i], '-infinity', (select max(c) from unnest(complete[base:i - 1]) c), windows[i]);
			end if;
		end if;
	end loop;
	-- What is in the minutes may be gone from live
	if base < 5 then
		delete from meshhook_metrics.live where at < complete[4] and random() < 0.5;
	end if;
	analyze meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.live, meshhook_metrics.series;
end
$$;

-- Microseconds since 1970
create function pg_temp.us(t timestamptz) returns bigint
language sql immutable
return (extract(epoch from t) * 1000000)::bigint;

-- The buckets that a flush has to do with, and which part of its samples each gets: from
-- a minute on a flush is in one, below it is taken apart by microseconds
create temp table divided (step int, flush int, bucket timestamptz, share float8);
create function pg_temp.divide(steps int[]) returns void
language plpgsql as $$
declare
	f record;
	step bigint;
	first bigint;
	last bigint;
begin
	truncate divided;
	foreach step in array steps loop
		for f in select * from flushes loop
			if step >= 60 then
				insert into divided values (step, f.id, pg_temp.bin(f.at, step::int), 1);
				continue;
			end if;
			last := pg_temp.us(f.at);
			first := least(last, greatest(pg_temp.us(pg_temp.bin(f.at, 60)), last + 1 - round(f.seconds * 1000000)::bigint));
			insert into divided
			select step, f.id, to_timestamp(b / 1000000), (least(last + 1, b + step * 1000000) - greatest(first, b))::float8 / (last + 1 - first)
			from generate_series(first / 1000000 / step * step * 1000000, last, step * 1000000) b;
		end loop;
	end loop;
	analyze flushes, events, divided;
end
$$;

-- The answer, from the events
create function pg_temp.answer(metric text, since timestamptz, until timestamptz, step int, filter jsonb, aggregate text, keys text[], tenants uuid[])
returns table (bucket timestamptz, labels jsonb, value float8)
language sql as $$
	-- A minute that has been closed is over, whenever the last flush was
	with flushed as (
		select s.complete_until as until
		from meshhook_metrics.rollup_state s
		where s.target = '1m'
	),
	matched as (
		select e.id, e.value, e.series_id, s.kind, f.bucket, f.share, coalesce((select jsonb_object_agg(k, s.labels ->> k) from unnest(keys) k where s.labels ->> k is not null), '{}') as labels
		from events e
		join divided f on f.flush = e.flush and f.step = answer.step
		join meshhook_metrics.series s on s.id = e.series_id
		where s.metric = answer.metric
			and s.labels @> filter
			and s.tenant_id = any (tenants)
			and f.bucket >= pg_temp.bin(since, step)
			and f.bucket < until
	),
	latest as (
		select m.bucket, m.labels, sum(m.value) as last
		from (
			select distinct on (m.bucket, m.series_id) m.*
			from matched m
			order by m.bucket, m.series_id, m.id desc
		) m
		group by m.bucket, m.labels
	)
	select
		m.bucket, m.labels,
		case
			when aggregate = 'increase' and min(m.kind) = 'counter' then sum(m.value * m.share)
			when aggregate = 'increase' then sum(m.share)
			when aggregate = 'rate' then case when min(m.kind) = 'counter' then sum(m.value * m.share) else sum(m.share) end
				/ least(step, extract(epoch from (select greatest(flushed.until, (select max(at) from flushes) + interval '1 microsecond') from flushed) - m.bucket)::float8)
			when aggregate = 'avg' then sum(m.value * m.share) / sum(m.share)
			when aggregate = 'count' then sum(m.share)
			when aggregate = 'min' then min(m.value)
			when aggregate = 'max' then max(m.value)
			when aggregate = 'last' then min(l.last)
			else meshhook_metrics.histogram_quantile(meshhook_metrics.histogram_of(m.value), (substr(aggregate, 2)::numeric / 100)::float8)
		end
	from matched m
	join latest l using (bucket, labels)
	group by 1, 2
$$;

-- Sums of parts may differ in the last digits, and what they are parts of is the same
create function pg_temp.same(a jsonb, b jsonb) returns boolean
language sql as $$
	select coalesce(bool_and(x.value is not null and y.value is not null
		and x.value - 'value' = y.value - 'value'
		and abs((x.value ->> 'value')::float8 - (y.value ->> 'value')::float8) <= 1e-9 * abs((y.value ->> 'value')::float8)), true)
	from jsonb_array_elements(a) with ordinality x (value, n)
	full join jsonb_array_elements(b) with ordinality y (value, n) using (n)
$$;

create function pg_temp.rounds(base int, steps int[], gaps int[]) returns setof text
language plpgsql as $$
declare
	who constant uuid[] := array['aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa', 'bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb', 'cccccccc-cccc-cccc-cccc-cccccccccccc'];
	question record;
	whole record;
	seen uuid[];
	questions int := 0;
	rows int := 0;
	wrong int := 0;
	example text;
	expected jsonb;
	got jsonb;
begin
	for round in 1 .. 8 loop
		perform pg_temp.happen(pg_temp.one_of(gaps));
		perform pg_temp.divide(steps);
		perform pg_temp.keep(base);
		update meshhook_metrics.flush_state set at = (select max(at) from flushes);
		-- All buckets together are all that has happened
		for whole in
			select s.step, a.aggregate, sum(q.value) as found, case a.aggregate when 'count' then all_of.count else all_of.sum end as expected
			from unnest(steps) s (step)
			cross join (values ('increase'), ('count')) a (aggregate)
			cross join (select count(*), sum(e.value) from events e join meshhook_metrics.series s on s.id = e.series_id where s.metric = 'runs_total') all_of
			cross join (select min(at) - make_interval(secs => max(seconds)) as since, max(at) + interval '1 microsecond' as until from flushes) f
			cross join lateral meshhook_metrics.query_range('runs_total', f.since, f.until, make_interval(secs => s.step), aggregate => a.aggregate) q
			group by s.step, a.aggregate, all_of.count, all_of.sum
		loop
			if abs(whole.found - whole.expected) > 1e-9 * whole.expected then
				wrong := wrong + 1;
				example := coalesce(example, whole::text);
			end if;
		end loop;
		for n in 1 .. 15 loop
			select
				m.metric,
				first.at - make_interval(secs => case when random() < 0.3 then step * 2 else -random() * extract(epoch from newest.at - first.at) end) as since,
				case when random() < 0.5 then newest.at + interval '1 minute' else first.at + random() * (newest.at - first.at) end as until,
				step,
				pg_temp.one_of(array['{}', '{}', '{"status": "ok"}', '{"region": "eu"}', '{"overflow": "true"}']::jsonb[]) as filter,
				pg_temp.one_of(case m.metric
					when 'runs_total' then array['increase', 'rate', 'avg', 'count']
					when 'depth' then array['avg', 'min', 'max', 'last', 'last', 'count']
					else array['increase', 'rate', 'avg', 'min', 'max', 'count', 'p0', 'p50', 'p95', 'p99.9', 'p100']
				end) as aggregate,
				case pg_temp.whole(1, 4) when 1 then '{status}'::text[] when 2 then '{region,status}' when 3 then '{none}' end as keys,
				case when random() < 0.3 then pg_temp.one_of(who) end as tenant,
				case pg_temp.whole(1, 3) when 1 then who[1:1] when 2 then who[1:2] end as claimed
			into question
			from
				(select pg_temp.one_of(array['runs_total', 'depth', 'run_seconds']) as metric, pg_temp.one_of(steps) as step) m,
				(select at from flushes order by id limit 1) first,
				(select max(at) as at from flushes) newest;
			continue when question.since > question.until;

			seen := coalesce(question.claimed, who);
			seen := case when question.tenant is null then seen else array(select t from unnest(seen) t where t = question.tenant) end;
			select coalesce(jsonb_agg(to_jsonb(a) order by a.bucket, a.labels), '[]')
			into expected
			from pg_temp.answer(question.metric, question.since, question.until, question.step, question.filter, question.aggregate, question.keys, seen) a;

			-- as a user with claims, or as who row level security does not hold
			if question.claimed is not null then
				perform set_config('request.jwt.claims', jsonb_build_object('app_metadata', jsonb_build_object('tenant_ids', question.claimed))::text, true);
				set local role authenticated;
			end if;
			select coalesce(jsonb_agg(to_jsonb(q)), '[]')
			into got
			from meshhook_metrics.query_range(
				question.metric, question.since, question.until, make_interval(secs => question.step), question.filter,
				question.aggregate, question.keys, question.tenant) q;
			reset role;

			questions := questions + 1;
			rows := rows + jsonb_array_length(expected);
			if got <> expected and not (question.step < 60 and pg_temp.same(got, expected)) then
				wrong := wrong + 1;
				example := coalesce(example, format(E'%s\nstate %s\nexpected %s\ngot %s', to_jsonb(question),
					(select jsonb_agg(to_jsonb(s)) from meshhook_metrics.rollup_state s), expected, got));
			end if;
		end loop;
	end loop;

	return next is(wrong, 0, format('steps of %s s: %s questions, all answered as the events do', steps, questions));
	if wrong > 0 then
		return next diag(example);
	end if;
	return next ok(rows > questions, format('and not with nothing: %s rows', rows));
end
$$;

insert into meshhook_metrics.flush_state values (1, 1, now());
select * from pg_temp.rounds(1, array[86400, 2 * 86400, 7 * 86400], array[1800, 7200]);
select * from pg_temp.rounds(2, array[3600, 2 * 3600, 6 * 3600, 12 * 3600], array[300, 1800]);
select * from pg_temp.rounds(3, array[300, 600, 900, 1800], array[20, 120, 600]);
select * from pg_temp.rounds(4, array[60, 120, 180, 240, 480, 540], array[10, 60]);
select * from pg_temp.rounds(5, array[1, 2, 10, 15, 30], array[1, 5]);

select * from finish();
rollback;
