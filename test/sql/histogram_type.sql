-- The type histogram: its forms, its accessors and its aggregates
set client_min_messages = warning;
create extension if not exists meshhook_metrics;
reset client_min_messages;
set search_path = meshhook_metrics, public;

-- Every part of the text form comes back, in one order whatever the input's
select '{"schema":3,"count":12,"sum":1.5,"min":0.09,"max":0.12,"zero":0,"offset":-27,"buckets":[1,0,3,8],"overflow":0}'::histogram;
select '{"overflow":2,"overflow_threshold":16,"buckets":[0,0,1,5,0],"offset":-3,"zero":4,"zero_threshold":0.25,
	"max":1e3,"min":0,"sum":2000.25,"count":12,"schema":0}'::histogram;

-- An empty histogram, at any schema
select '{"schema":3,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}'::histogram;
select '{"schema":-4,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":7,"buckets":[0,0],"overflow":0}'::histogram;

-- Exact zeros have the threshold 0
select '{"schema":3,"count":3,"sum":0,"min":0,"max":0,"zero":3,"zero_threshold":0,"offset":0,"buckets":[],"overflow":0}'::histogram;

-- The whole range of float8 and of the count
select histogram_of(x) from (values (5e-324::float8)) v (x);
select histogram_of(x) from (values (1.7976931348623157e308::float8)) v (x);
select '{"schema":3,"count":9223372036854775807,"sum":1.7976931348623157e308,"min":1,"max":1,"zero":0,"offset":0,"buckets":[9223372036854775807],"overflow":0}'::histogram;

-- A value equal to the end of a bucket belongs to it
select lower, upper, count
from (select histogram_of(x) as h from (values (0::float8), (1), (1.0000000000000002), (2), (3), (4)) v (x)) s,
	histogram_buckets(h)
order by lower, upper;

-- As JSON it is an object
select to_jsonb(histogram_of(x)) from generate_series(1, 3) x;
select h::json -> 'buckets' as buckets, row_to_json(s) -> 'h' ->> 'count' as count
from (select histogram_of(x) as h from generate_series(1, 3) x) s;
select array_to_json(array[h, h]) -> 1 ->> 'max' as max
from (select histogram_of(x) as h from generate_series(1, 3) x) s;

-- Accessors
select histogram_count(h), histogram_sum(h), histogram_avg(h), histogram_min(h), histogram_max(h)
from (select histogram_of(x) as h from generate_series(0, 10) x) s;
select histogram_count(h), histogram_sum(h), histogram_avg(h), histogram_min(h), histogram_max(h),
	histogram_quantile(h, 0.5), histogram_fraction(h, 0, 1), (select count(*) from histogram_buckets(h)) as buckets
from (select '{"schema":3,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}'::histogram as h) s;
select histogram_count(null), histogram_quantile(null, 0.5), (select count(*) from histogram_buckets(null)) as buckets;

-- Quantiles: the first rank is min, the last is max, others are the middle of a bucket
select q, round(histogram_quantile(h, q)::numeric, 6) as quantile
from (select histogram_of(x) as h from generate_series(1, 1000) x) s,
	unnest(array[0, 0.001, 0.0011, 0.5, 0.95, 0.99, 0.999, 0.9991, 1]) q
order by q;

-- … in the zero count half its threshold, in the overflow count between threshold and max
select q, histogram_quantile(h, q) as quantile
from (select '{"schema":3,"count":8,"sum":100,"min":0.125,"max":64,"zero":4,"zero_threshold":1,"offset":0,"buckets":[],"overflow":4,"overflow_threshold":16}'::histogram as h) s,
	unnest(array[0, 0.25, 0.5, 0.75, 1]) q
order by q;

-- … never outside of min and max
select histogram_quantile(histogram_of(x), 0.5) from (values (1.01::float8), (1.01), (1.01)) v (x);

-- Fractions: exact at the ends of buckets, log-linear within, linear in the zero count
select lower, upper, round(histogram_fraction(h, lower, upper)::numeric, 6) as fraction
from (select histogram_of(x) as h from generate_series(1, 1024) x) s,
	(values ('-infinity'::float8, 'infinity'::float8), (0, 1024), (1, 2), (2, 4), (-5, 512), (512, 'infinity'), (768, 1024),
		(4, 4), (5, 4), (2000, 3000), (-2, -1), ('infinity', '-infinity')) v (lower, upper);
select round(histogram_fraction(h, 2, 4)::numeric, 6) as log_linear
from (select '{"schema":-1,"count":4,"sum":8,"min":1.1,"max":4,"zero":0,"offset":1,"buckets":[4],"overflow":0}'::histogram as h) s;
select histogram_fraction(h, '-infinity', 0.25) as linear
from (select '{"schema":3,"count":4,"sum":2,"min":0,"max":1,"zero":4,"zero_threshold":1,"offset":0,"buckets":[],"overflow":0}'::histogram as h) s;

-- Zero comes first and overflow last
select b.*
from histogram_buckets('{"schema":0,"count":12,"sum":2000.25,"min":0,"max":1000,"zero":4,"zero_threshold":0.25,"offset":-1,"buckets":[1,5],"overflow":2,"overflow_threshold":16}') b;

-- Aggregates skip NULLs, and are NULL for nothing
select histogram_of(x) from (values (1::float8), (null), (2)) v (x);
select histogram_merge(h) from (values ((select histogram_of(x) from generate_series(1, 2) x)), (null)) v (h);
select histogram_of(x) is null as of_nothing, histogram_merge(null) is null as merge_of_null from (values (null::float8)) v (x);
select histogram_merge(h) is null as merge_of_nothing from (select null::histogram as h where false) s;
select histogram_of(x) filter (where x > 2) from generate_series(1, 3) x;
select histogram_of('-0'::float8);

-- As window functions they go on after a result
select x, histogram_count(histogram_of(x) over (order by x)) as count, histogram_max(histogram_of(x) over (order by x)) as max
from generate_series(1, 3) x;

-- Merging takes the lower schema: buckets 2i - 1 and 2i become bucket i
select histogram_merge(h)
from (values ('{"schema":1,"count":5,"sum":6,"min":0.6,"max":2.8,"zero":0,"offset":-1,"buckets":[1,1,1,1,1],"overflow":0}'::histogram),
	('{"schema":0,"count":1,"sum":4,"min":4,"max":4,"zero":0,"offset":2,"buckets":[1],"overflow":0}')) v (h);

-- … and keeps what each of them knew, also beyond the thresholds of the other
select histogram_merge(h)
from (values ('{"schema":0,"count":6,"sum":64,"min":0.5,"max":32,"zero":0,"offset":-1,"buckets":[1,1,1,1,1,0,1],"overflow":0}'::histogram),
	('{"schema":0,"count":2,"sum":17,"min":1,"max":16,"zero":1,"zero_threshold":1,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":8}')) v (h);

-- … with thresholds rounded outwards to the ends of the coarser buckets
select histogram_merge(h)
from (values ('{"schema":-2,"count":3,"sum":64,"min":1,"max":60,"zero":0,"offset":0,"buckets":[1,1,1],"overflow":0}'::histogram),
	('{"schema":0,"count":2,"sum":17,"min":1,"max":200,"zero":1,"zero_threshold":2,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":128}')) v (h);

-- … where zero of one and overflow of the other overlap, too
select histogram_merge(h), histogram_quantile(histogram_merge(h), 0.75)
from (values ('{"schema":3,"count":2,"sum":1,"min":0.5,"max":0.5,"zero":2,"zero_threshold":16,"offset":0,"buckets":[],"overflow":0}'::histogram),
	('{"schema":3,"count":2,"sum":20,"min":4,"max":16,"zero":0,"offset":16,"buckets":[1],"overflow":1,"overflow_threshold":8}')) v (h);

-- Of several thresholds of a side each has its count; what holds for all of them is said as well
select histogram_merge(h)
from (values ('{"schema":3,"count":2,"sum":9000,"min":0,"max":9000,"zero":1,"zero_threshold":1,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":4096}'::histogram),
	('{"schema":3,"count":3,"sum":70000,"min":0,"max":70000,"zero":2,"zero_threshold":0,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":65536}'),
	('{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}')) v (h);
select b.*
from histogram_buckets('{"schema":3,"count":6,"sum":79001,"min":0,"max":70000,"zero":3,"zero_threshold":1,"zeros":[[0,2],[1,1]],"offset":0,"buckets":[1],"overflow":2,"overflow_threshold":4096,"overflows":[[4096,1],[65536,1]]}') b;
-- where a threshold is rounded to above all numbers nothing is known but the extremes
select histogram_merge(h)
from (values ('{"schema":3,"count":2,"sum":1,"min":0,"max":1e300,"zero":2,"zero_threshold":8.98846567431158e307,"offset":0,"buckets":[],"overflow":0}'::histogram),
	('{"schema":-4,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}')) v (h);

-- The sum stays at the largest float8
select histogram_sum(histogram_of(x)) from (values (1.7e308::float8), (1.7e308)) v (x);

-- Stored small, and whole after compression
create temporary table kept as
select histogram_of(exp(i / 1000.0 * 4) / 1000) as h from generate_series(1, 1000) i;
select pg_column_size(h) < 110 as small, (select count(*) from histogram_buckets(h)) as buckets from kept;
insert into kept
select histogram_of(x) from (select 1.09::float8 ^ i as x from generate_series(-8000, 8000) i) s;
select histogram_count(h) as count, round(log(histogram_min(h))) as min, round(log(histogram_quantile(h, 1))) as max
from kept
order by count;

drop table kept;
