-- What holds for every histogram, on random ones; each line says what, and in how many cases it did not hold
-- not under valgrind
set client_min_messages = warning;
create extension if not exists meshhook_metrics;
reset client_min_messages;
set search_path = meshhook_metrics, public;

select setseed(0.201);

create function pg_temp.random_integer(first int, last int) returns int
language sql volatile
return first + floor(random() * (last - first + 1))::int;

-- A histogram of any schema, with or without zero and overflow counts, in its
-- text form.  Sums are whole numbers, so that they add up the same in any order.
create function pg_temp.random_text() returns text
language plpgsql volatile as $$
declare
	schema int := pg_temp.random_integer(-4, 3);
	-- Ends of buckets at this schema that are powers of two: 2^(lowest * grid)
	grid int := case when schema < 0 then (2 ^ -schema)::int else 1 end;
	lowest int := pg_temp.random_integer(-40, 20) / grid;
	octaves int := pg_temp.random_integer(0, 40) / grid;
	zero bigint := case when random() < 0.5 then pg_temp.random_integer(1, 1000) else 0 end;
	overflow bigint := case when random() < 0.3 then pg_temp.random_integer(1, 1000) else 0 end;
	per_grid int := case when schema > 0 then (2 ^ schema)::int else 1 end;
	first int := lowest * per_grid + 1;
	buckets bigint[];
	filled int[];
	min float8;
	max float8;
begin
	select array_agg(case when random() < 0.6 then floor(exp(random() * 12))::bigint else 0 end)
	into buckets
	from generate_series(1, octaves * per_grid);
	select array_agg(i order by i) into filled from generate_subscripts(buckets, 1) i where buckets[i] > 0;

	if filled is null and zero = 0 and overflow = 0 then
		return format('{"schema":%s,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}', schema);
	end if;

	min := case
		when zero > 0 then 0
		when filled is null then 2 ^ ((lowest + octaves) * grid + 1)
		else 2 ^ ((first + filled[1] - 1.5) / 2.0 ^ schema)
	end;
	max := case
		when overflow > 0 then 2 ^ ((lowest + octaves) * grid + 1)
		when filled is null then 0
		else 2 ^ ((first + filled[cardinality(filled)] - 1.25) / 2.0 ^ schema)
	end;

	-- One observation is both
	if zero + overflow + (select coalesce(sum(b), 0) from unnest(buckets) b) = 1 then
		min := max;
	end if;

	return format('{"schema":%s,"count":%s,"sum":%s,"min":%s,"max":%s,"zero":%s%s,"offset":%s,"buckets":%s,"overflow":%s%s}',
		schema, zero + overflow + (select coalesce(sum(b), 0) from unnest(buckets) b), pg_temp.random_integer(0, 1000000),
		min, max,
		zero, case when zero > 0 then ',"zero_threshold":' || case when random() < 0.2 then 0 else 2.0::float8 ^ (lowest * grid) end end,
		first, coalesce(array_to_json(buckets), '[]'),
		overflow, case when overflow > 0 then ',"overflow_threshold":' || (2.0::float8 ^ ((lowest + octaves) * grid)) end);
end
$$;

create function pg_temp.merged(variadic histograms histogram[]) returns histogram
language sql immutable
return (select histogram_merge(h order by n) from unnest(histograms) with ordinality u (h, n));

create temporary table inputs as
select i, pg_temp.random_text() as input from generate_series(1, 1500) i;
create temporary table random as
select i, input::histogram as h from inputs;
create temporary table triples as
select a.i, a.h as a, b.h as b, c.h as c
from random a
join random b on b.i = a.i % 1500 + 1
join random c on c.i = (a.i * 7 + 13) % 1500 + 1;

-- The inputs are of every kind
select count(distinct h::json ->> 'schema') as schemas,
	count(*) filter (where (h::json ->> 'zero')::bigint > 0) > 250 as zeros,
	count(*) filter (where (h::json ->> 'overflow')::bigint > 0) > 250 as overflows,
	count(*) filter (where histogram_count(h) = 0) > 10 as empties
from random;
create temporary table merged as
select i, a, b, c, pg_temp.merged(a, b, c) as h
from triples;

-- Version 1 in the first byte: what one window could have recorded
select count(*) filter (where get_byte(histogram_send(h), 0) = 1) > 40 as of_one_window,
	count(*) filter (where get_byte(histogram_send(h), 0) = 2) > 1000 as of_many_windows,
	count(*) filter (where json_array_length(h::json -> 'zeros') > 1) > 40 as many_zeros,
	count(*) filter (where json_array_length(h::json -> 'overflows') > 1) > 40 as many_overflows
from merged;

select 'text comes back as it was read' as property, count(*) as cases,
	count(*) filter (where h::text::histogram::text <> h::text or histogram_send(h::text::histogram) <> histogram_send(h)
		or (h::json ->> 'count')::bigint <> histogram_count(h) or (h::json ->> 'sum')::float8 <> histogram_sum(h)) as failures
from random
union all
select 'text says what was given', count(*),
	count(*) filter (where (input::jsonb - 'offset' - 'buckets') <> (to_jsonb(h) - 'offset' - 'buckets'))
from random join inputs using (i);

select 'merging does not change one histogram' as property, count(*) as cases,
	count(*) filter (where histogram_send(pg_temp.merged(a)) <> histogram_send(a)) as failures
from triples
union all
select 'merging is commutative', count(*),
	count(*) filter (where histogram_send(pg_temp.merged(a, b)) <> histogram_send(pg_temp.merged(b, a)))
from triples
union all
select 'merging is associative', count(*),
	count(*) filter (where histogram_send(pg_temp.merged(pg_temp.merged(a, b), c)) <> histogram_send(pg_temp.merged(a, pg_temp.merged(b, c)))
		or histogram_send(pg_temp.merged(a, b, c)) <> histogram_send(pg_temp.merged(a, pg_temp.merged(b, c)))
		or histogram_send(pg_temp.merged(a, b, c)) <> histogram_send(pg_temp.merged(c, a, b)))
from triples
union all
select 'merging keeps count, sum, min and max', count(*),
	count(*) filter (where (histogram_count(m), histogram_sum(m), histogram_min(m), histogram_max(m))
		is distinct from (histogram_count(a) + histogram_count(b), histogram_sum(a) + histogram_sum(b),
			least(histogram_min(a), histogram_min(b)), greatest(histogram_max(a), histogram_max(b))))
from (select a, b, pg_temp.merged(a, b) as m from triples) s
union all
select 'what was merged is a histogram', count(*),
	count(*) filter (where histogram_send(m::text::histogram) <> histogram_send(m))
from (select pg_temp.merged(a, b, c) as m from triples) s;

-- The counts of both sides with their thresholds, and the buckets: as rows
create function pg_temp.parts(h histogram) returns table (part text, upto float8, count numeric)
language sql immutable as $$
	select case when b.lower = 0 then 'zero' when b.upper = 'infinity' then 'overflow' else 'bucket' end,
		case when b.upper = 'infinity' then b.lower else b.upper end, b.count
	from histogram_buckets(h) b
$$;

select 'where the schema is the same, merging adds up each part by itself' as property, count(*) > 100 as many,
	count(*) filter (where exists (
		select part, upto, sum(count) from (select * from pg_temp.parts(a) union all select * from pg_temp.parts(b)) s group by part, upto
		except
		select * from pg_temp.parts(pg_temp.merged(a, b)))
	or (select sum(count) from pg_temp.parts(pg_temp.merged(a, b))) is distinct from nullif(histogram_count(a) + histogram_count(b), 0)) as failures
from triples
where a::json ->> 'schema' = b::json ->> 'schema'
union all
select 'one window twice is written as one window', count(*) > 1000,
	count(*) filter (where get_byte(histogram_send(pg_temp.merged(a, a)), 0) <> 1)
from triples
union all
select 'zero is all of zeros, overflow all of overflows', count(*) > 400,
	count(*) filter (where
		(h::json -> 'zeros' is not null
			and ((h::json ->> 'zero')::numeric <> (select sum((e ->> 1)::numeric) from json_array_elements(h::json -> 'zeros') e)
				or (h::json ->> 'zero_threshold')::float8 <> (select max((e ->> 0)::float8) from json_array_elements(h::json -> 'zeros') e)))
		or (h::json -> 'overflows' is not null
			and ((h::json ->> 'overflow')::numeric <> (select sum((e ->> 1)::numeric) from json_array_elements(h::json -> 'overflows') e)
				or (h::json ->> 'overflow_threshold')::float8 <> (select min((e ->> 0)::float8) from json_array_elements(h::json -> 'overflows') e))))
from merged
where h::json -> 'zeros' is not null or h::json -> 'overflows' is not null;

-- Partial aggregation: what workers add up is what one process adds up
create table histogram_workers as
select i, h from random;
create table histogram_values as
select i, floor(exp(random() * 20)) / 1024 as x from generate_series(1, 20000) i;
analyze histogram_workers, histogram_values;

set max_parallel_workers_per_gather = 0;
create temporary table serial as
select g, histogram_merge(h) as h
from histogram_workers, lateral (values (i % 7), (100)) v (g)
group by g
union all
select 1000 + g, histogram_of(x)
from histogram_values, lateral (values (i % 7), (100)) v (g)
group by g;

set max_parallel_workers_per_gather = 2;
set parallel_setup_cost = 0;
set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0;
set enable_hashagg = off;
explain (costs off)
select histogram_merge(h) from histogram_workers;
create temporary table parallel as
select i % 7 as g, histogram_merge(h) as h from histogram_workers group by i % 7
union all
select 100, histogram_merge(h) from histogram_workers
union all
select 1000 + i % 7, histogram_of(x) from histogram_values group by i % 7
union all
select 1100, histogram_of(x) from histogram_values;
reset max_parallel_workers_per_gather;
reset parallel_setup_cost;
reset parallel_tuple_cost;
reset min_parallel_table_scan_size;
reset enable_hashagg;

select 'parallel aggregation adds up the same' as property, count(*) as cases,
	count(*) filter (where histogram_send(s.h) is distinct from histogram_send(p.h)) as failures
from serial s
full join parallel p using (g);
drop table histogram_workers, histogram_values;

-- Every count is that of the values in its bucket, whatever the schemas and
-- thresholds it was merged through.  A histogram of values gets the schema of an
-- empty one, and the thresholds of one that has only such counts.
create temporary table samples as
select s as set, p as part, floor(exp(random() * 30)) / 2 ^ 20 as x, false as shaping
from generate_series(1, 60) s, generate_series(1, 4) p, generate_series(1, 100)
union all
select s, p, 0, false
from generate_series(1, 60) s, generate_series(1, 2) p;
create temporary table shapes as
select s as set, p as part, pg_temp.random_integer(-4, 3) as schema,
	case when random() < 0.4 then 2.0::float8 ^ (16 * pg_temp.random_integer(-2, 0)) end as zero_threshold,
	case when random() < 0.4 then 2.0::float8 ^ (16 * pg_temp.random_integer(0, 2)) end as overflow_threshold
from generate_series(1, 60) s, generate_series(1, 4) p;
insert into samples
select set, part, zero_threshold, true from shapes where zero_threshold is not null
union all
select set, part, overflow_threshold * 2, true from shapes where overflow_threshold is not null;

create index on samples (set, part);
analyze samples;

create temporary table shaped as
select set, part, pg_temp.merged(
	format('{"schema":%s,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}', schema)::histogram,
	case when zero_threshold is not null then
		format('{"schema":%s,"count":1,"sum":%2$s,"min":%2$s,"max":%2$s,"zero":1,"zero_threshold":%2$s,"offset":0,"buckets":[],"overflow":0}',
			schema, zero_threshold)::histogram end,
	case when overflow_threshold is not null then
		format('{"schema":%s,"count":1,"sum":%2$s,"min":%2$s,"max":%2$s,"zero":0,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":%s}',
			schema, overflow_threshold * 2, overflow_threshold)::histogram end,
	(select histogram_of(x) from samples m where m.set = s.set and m.part = s.part and not shaping)) as h
from shapes s;

select 'a bucket counts the values that lie in it' as property, count(*) > 200 as many, count(*) filter (where count <> values) as failures
from (select set, histogram_merge(h) as h from shaped group by set) s,
	histogram_buckets(h) b,
	lateral (select count(*) as values from samples m
		where m.set = s.set and not shaping and m.x <= b.upper and (m.x > b.lower or b.upper = 0)) v
where b.upper < 'infinity' and (b.lower > 0 or b.upper = 0)
union all
select 'what is known to be beyond a threshold is', count(*) > 40, count(*) filter (where zeros <> small or overflows <> large)
from (select set, histogram_merge(h) as h from shaped group by set) s,
	lateral (select coalesce(sum(count) filter (where lower = 0 and upper > 0), 0) as zeros,
			coalesce(sum(count) filter (where upper = 'infinity'), 0) as overflows
		from histogram_buckets(h)) b,
	lateral (select count(*) filter (where m.x <= 1) as small, count(*) filter (where m.x > 1) as large
		from samples m where m.set = s.set and shaping) v
union all
select 'all values are counted', count(*) > 50, count(*) filter (where histogram_count(h) <> (select count(*) from samples m where m.set = s.set))
from (select set, histogram_merge(h) as h from shaped group by set) s;

-- Quantiles against the exact ones of known distributions
create temporary table distributions as
select name, case name
		when 'uniform' then random() * 1000
		when 'exponential' then -ln(1 - random()) * 0.25
		when 'lognormal' then exp(2 * sqrt(-2 * ln(1 - random())) * cos(2 * pi() * random()))
		when 'bimodal' then case when i % 10 = 0 then 5 + random() else 0.002 + random() / 1000 end
		when 'constant' then 0.042
		when 'heavy-tailed' then (1 - random()) ^ (-1 / 0.7)
		when 'integers' then floor(random() * 20)
		when 'tiny' then 5e-324 * floor(random() * 1e12)
	end as x
from unnest(array['uniform', 'exponential', 'lognormal', 'bimodal', 'constant', 'heavy-tailed', 'integers', 'tiny']) name,
	generate_series(1, 5000) i;

select name, count(*) as quantiles, count(*) filter (where not good) as failures
from (
	select name, estimate, exact,
		case when exact = 0 then estimate = 0 else abs(estimate / exact - 1) <= (2 ^ 0.125 - 1) / (2 ^ 0.125 + 1) * (1 + 1e-12) end as good
	from (select name, histogram_of(x) as h, percentile_disc((select array_agg(q order by q) from generate_series(0, 1, 0.001) q)::float8[])
			within group (order by x) as exacts
		from distributions
		group by name) s,
	lateral (select exact, histogram_quantile(h, q) as estimate
		from generate_series(0, 1, 0.001) with ordinality g (q, n), unnest(exacts) with ordinality e (exact, m)
		where n = m) q
) c
group by name
order by name;

-- Fractions: exact at the ends of buckets, one after the other, and never falling
select 'the fraction up to the end of a bucket is exact' as property, count(*) > 200 as many,
	count(*) filter (where abs(histogram_fraction(h, '-infinity', upper) * histogram_count(h) - below) > 1e-6) as failures
from (select name, histogram_of(x) as h from distributions group by name) s,
	lateral (select upper, sum(count) over (order by upper) as below from histogram_buckets(h)) b
union all
select 'fractions of neighbouring ranges add up', count(*) > 1000,
	count(*) filter (where abs(histogram_fraction(h, a, b) + histogram_fraction(h, b, c) - histogram_fraction(h, a, c)) > 1e-9
		or histogram_fraction(h, a, c) not between 0 and 1)
from (select h, histogram_min(h) * random() as a, histogram_min(h) * (1 + random()) as b, histogram_max(h) * (0.5 + random() * 2) as c
	from (select h from random union all select h from merged) r
	where histogram_count(h) > 0 and histogram_max(h) >= 4 * histogram_min(h)) s
union all
select 'everything lies between the infinities', count(*) > 1000,
	count(*) filter (where abs(histogram_fraction(h, '-infinity', 'infinity') - 1) > 1e-12
		or abs(histogram_fraction(h, '-infinity', histogram_max(h)) - 1) > 1e-12 or histogram_fraction(h, histogram_max(h), 'infinity') <> 0)
from (select h from random union all select h from merged) r
where histogram_count(h) > 0
union all
select 'exactly, for one window', count(*) > 1000,
	count(*) filter (where histogram_fraction(h, '-infinity', 'infinity') <> 1 or histogram_fraction(h, '-infinity', histogram_max(h)) <> 1)
from random
where histogram_count(h) > 0;

-- Quantiles rise, and stay between min and max
select 'quantiles rise from min to max' as property, count(*) > 20000 as many,
	count(*) filter (where quantile < coalesce(previous, histogram_min(h)) or quantile > histogram_max(h)
		or (q = 0 and quantile <> histogram_min(h)) or (q = 1 and quantile <> histogram_max(h))) as failures
from (select i, h, q, histogram_quantile(h, q) as quantile, lag(histogram_quantile(h, q)) over (partition by i order by q) as previous
	from (select i, h from random union all select 10000 + i, h from merged) r, generate_series(0.0, 1.0, 0.05) q
	where histogram_count(h) > 0) s;

-- What one window knew is not given up for another that did not: a bytes histogram of
-- which one server knew the window and another one did not
create function pg_temp.of_window(min_exponent int, x float8[]) returns histogram
language sql immutable
return format('{"schema":3,"count":%s,"sum":%s,"min":%s,"max":%s,"zero":%s%s,"offset":%s,"buckets":%s,"overflow":%s%s}',
	cardinality(x), (select sum(v) from unnest(x) v), (select min(v) from unnest(x) v), (select max(v) from unnest(x) v),
	(select count(*) from unnest(x) v where v <= 2.0 ^ min_exponent),
	case when exists (select from unnest(x) v where v <= 2.0 ^ min_exponent) then ',"zero_threshold":' || 2.0::float8 ^ min_exponent end,
	min_exponent * 8 + 1,
	(select json_agg(n order by i) from (
		select i, (select count(*) from unnest(x) v where v > 2 ^ ((i - 1) / 8.0::float8) and v <= 2 ^ (i / 8.0::float8)) as n
		from generate_series(min_exponent * 8 + 1, (min_exponent + 32) * 8) i) c),
	(select count(*) from unnest(x) v where v > 2.0 ^ (min_exponent + 32)),
	case when exists (select from unnest(x) v where v > 2.0 ^ (min_exponent + 32))
		then ',"overflow_threshold":' || 2.0::float8 ^ (min_exponent + 32) end)::histogram;

select name, count(*) as quantiles,
	count(*) filter (where abs(estimate / exact - 1) > 0.044) as failures
from (values
		('the same bytes of two windows', array[0, -20], array(select i * 1000 - 500.0 from generate_series(1, 100) i)),
		('the same durations of two windows', array[-20, 0], array(select i / 50.0 + 0.003 from generate_series(1, 100) i)),
		('of three', array[0, -20, -30], array(select i * i * 3.1 from generate_series(1, 100) i))
	) s (name, windows, x),
	lateral (select histogram_merge(pg_temp.of_window(w, x::float8[])) as h from unnest(windows) w) m,
	generate_series(0.005, 0.995, 0.01) q,
	lateral (select percentile_disc(q) within group (order by v) as exact, histogram_quantile(h, q) as estimate from unnest(x::float8[]) v) e
group by name
order by name;

-- Where nothing is known beyond a threshold, up to the maximum or down from the threshold, as with one window
select histogram_quantile(h, 0.25), histogram_quantile(h, 0.75), histogram_fraction(h, 0, 4096), histogram_fraction(h, 0, 100)
from (select histogram_merge(h) as h
	from (values (pg_temp.of_window(-20, array[100, 5000, 9000, 10000])), (pg_temp.of_window(-22, array[100, 2000, 100, 100]))) v (h)) s;

-- The minute, the hour and the day of it: the same in any order
select count(distinct histogram_send(h)) as results
from (
	select pg_temp.merged(pg_temp.merged(a, b), pg_temp.merged(b, a)) as h from (select pg_temp.of_window(0, array[3, 50000]) as a, pg_temp.of_window(-20, array[3, 50000]) as b) v
	union all
	select pg_temp.merged(a, a, b, b) from (select pg_temp.of_window(0, array[3, 50000]) as a, pg_temp.of_window(-20, array[3, 50000]) as b) v
) s;
