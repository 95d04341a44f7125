-- What the type histogram refuses, and what it says
set client_min_messages = warning;
create extension if not exists meshhook_metrics;
reset client_min_messages;
set search_path = meshhook_metrics, public;

select '{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[2],"overflow":0}'::histogram;

-- A good histogram with one part changed; what comes of it
create function pg_temp.refusal(key text, value jsonb) returns text
language plpgsql as $$
declare
	good constant jsonb := '{"schema":3,"count":5,"sum":9,"min":0.5,"max":4,"zero":1,"zero_threshold":0.5,"offset":-7,"buckets":[1,0,0,0,0,0,0,1,1],"overflow":1,"overflow_threshold":2.0}';
	changed jsonb := case when value is null then good - key else good || jsonb_build_object(key, value) end;
	hint text;
begin
	perform changed::text::histogram;
	return 'accepted';
exception when others then
	get stacked diagnostics hint = pg_exception_hint;
	return sqlstate || ' ' || sqlerrm || case when hint like 'A histogram looks like%' then '' else ' / ' || hint end;
end
$$;

select pg_temp.refusal('sum', '9');

-- A part that is missing
select key, pg_temp.refusal(key, null)
from unnest(array['schema', 'count', 'sum', 'min', 'max', 'zero', 'zero_threshold', 'offset', 'buckets', 'overflow', 'overflow_threshold']) key;

-- A part of the wrong type or out of its range
select pg_temp.refusal(key, value)
from unnest(array['schema', 'count', 'sum', 'min', 'zero', 'zero_threshold', 'offset', 'overflow']) key,
	unnest(array['"1"', 'null', 'true', '-1', '1.5', '[1]', '{}', '1e400', '1e-400', '9223372036854775808']::jsonb[]) with ordinality v (value, n)
where pg_temp.refusal(key, value) <> 'accepted'
order by key, n;
select pg_temp.refusal('buckets', value)
from unnest(array['null', '1', '"[1]"', '{}', '[-1]', '[1.5]', '[1, "2"]', '[[1]]', '[null]', '[9223372036854775808]',
	'[9223372036854775807]']::jsonb[]) value;
select pg_temp.refusal('sum', to_jsonb(repeat('ä', 100)));
select pg_temp.refusal('colour', '"blue"');
select pg_temp.refusal(repeat('a', 100), '1');

-- A schema that cannot be stored
select pg_temp.refusal('schema', '4');
select pg_temp.refusal('schema', '-5');

-- Thresholds that are no powers of two, or without a count
select pg_temp.refusal('zero_threshold', '0.3');
select pg_temp.refusal('overflow_threshold', '3');
select pg_temp.refusal('zero', '0');
select pg_temp.refusal('overflow', '0');

-- Buckets that no double falls into; beyond a threshold they may lie
select pg_temp.refusal('offset', '8193');
select pg_temp.refusal('offset', '8185');
select pg_temp.refusal('offset', '-8593');
select pg_temp.refusal('offset', '-8');
select pg_temp.refusal('offset', '1');
select pg_temp.refusal('buckets', jsonb_agg(0)) from generate_series(1, 16786);

-- Several thresholds of a side
select pg_temp.refusal('zeros', value)
from unnest(array['1', '{}', '[]', '[[0.5, 1]]', '[[0.5, 1], 1]', '[[0.25, 1], [0.5]]', '[[0.25, 1], [0.5, 0]]', '[[0.25, 1], [0.5, 1]]',
	'[[0.25, -1], [0.5, 2]]', '[[0.5, 1], [0.25, 1]]', '[[0.3, 1], [0.5, 1]]', '[[0.25, 9223372036854775807], [0.5, 9223372036854775807]]']::jsonb[]) value;

-- Parts that contradict each other
select pg_temp.refusal('count', '6');
select pg_temp.refusal('min', '0.6');
select pg_temp.refusal('max', '2');
select pg_temp.refusal('min', '5');

create function pg_temp.refusal(input text) returns text
language plpgsql as $$
declare
	hint text;
begin
	perform input::histogram;
	return 'accepted';
exception when others then
	get stacked diagnostics hint = pg_exception_hint;
	return sqlstate || ' ' || sqlerrm || case when hint like 'A histogram looks like%' then '' else ' / ' || hint end;
end
$$;

select pg_temp.refusal(replace(input, 'GOOD', '{"schema":3,"count":2,"sum":0.5,"min":0.1,"max":0.4,"zero":2,"zero_threshold":0.5,"offset":0,"buckets":[],"overflow":0'))
from unnest(array['GOOD,"zeros":[[0.25,1],[0.5,1]]}', 'GOOD,"zeros":[[0.125,1],[0.25,1]]}', 'GOOD,"zeros":[[0.5,1],[0.5,1]]}', 'GOOD,"overflows":[[4,1],[8,1]]}']) input;

select pg_temp.refusal(input)
from unnest(array[
	'{"schema":3,"count":0,"sum":1,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}',
	'{"schema":3,"count":0,"sum":0,"min":0,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}',
	'{"schema":3,"count":1,"sum":1,"min":1,"max":null,"zero":0,"offset":0,"buckets":[1],"overflow":0}',
	'{"schema":3,"count":1,"sum":1,"min":0.9,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}',
	'{"schema":3,"count":1,"sum":1,"min":0.99,"max":0.98,"zero":0,"offset":0,"buckets":[1],"overflow":0}',
	'{"schema":3,"count":1,"sum":1,"min":0.95,"max":0.96,"zero":0,"offset":0,"buckets":[1],"overflow":0}',
	'{"schema":3,"count":2,"sum":2,"min":0.95,"max":1.01,"zero":0,"offset":0,"buckets":[2],"overflow":0}',
	'{"schema":3,"count":2,"sum":1,"min":0,"max":1,"zero":1,"zero_threshold":0,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":1}',
	'{"schema":3,"count":2,"sum":1,"min":0,"max":9,"zero":1,"zero_threshold":4,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":1}',
	'{"schema":3,"count":2,"sum":1,"min":0,"max":9,"zero":1,"zero_threshold":0,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":0}',
	'{"schema":-2,"count":1,"sum":1,"min":0,"max":0,"zero":1,"zero_threshold":2,"offset":0,"buckets":[],"overflow":0}',
	'{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[9223372036854775807,1],"overflow":0}',
	'[]', '1', '"histogram"', 'null', '[{}]', '{}']) input;

-- What is no JSON is refused by the JSON parser
select left(pg_temp.refusal(input), 5) as sqlstate
from unnest(array['', '{', 'NaN', '{"schema":3,}', '{"schema":3}}', repeat('[', 1000)]) input;

-- From PostgreSQL 16 the same is found without an error
create function pg_temp.valid(input text) returns boolean
language plpgsql as $$
declare
	valid boolean := false;
begin
	if current_setting('server_version_num')::int >= 160000 then
		execute 'select pg_input_is_valid($1, ''meshhook_metrics.histogram'')' into valid using input;
	else
		valid := pg_temp.refusal(input) = 'accepted';
	end if;
	return valid;
end
$$;

select input, pg_temp.valid(input)
from unnest(array['{', '[]', '{"schema":3}', '{"colour":3}', '{"buckets":[-1]}', '{"sum":1e400}', '{"sum":1e999999}',
	'{"schema":9,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}',
	'{"schema":3,"count":1,"sum":0,"min":0,"max":1,"zero":1,"zero_threshold":0,"offset":0,"buckets":[],"overflow":0}',
	'{"schema":3,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}']) input;

-- Quantiles, fractions and values that there are not
select histogram_quantile(histogram_of(x), 1.5) from generate_series(1, 3) x;
select histogram_quantile(histogram_of(x), -0.1) from generate_series(1, 3) x;
select histogram_quantile(histogram_of(x), 'NaN') from generate_series(1, 3) x;
select histogram_fraction(histogram_of(x), 'NaN', 1) from generate_series(1, 3) x;
select histogram_fraction(histogram_of(x), 1, 'NaN') from generate_series(1, 3) x;
select histogram_of('NaN'::float8);
select histogram_of('infinity'::float8);
select histogram_of(-1::float8);

-- A count that a bigint could not hold
select histogram_merge(h)
from (values ('{"schema":3,"count":9223372036854775807,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[9223372036854775807],"overflow":0}'::histogram),
	('{"schema":3,"count":1,"sum":1,"min":1,"max":1,"zero":0,"offset":0,"buckets":[1],"overflow":0}')) v (h);

-- The aggregates' support functions are not for use by hand
select histogram_final(null);
