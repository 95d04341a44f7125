-- What the recording functions refuse, and what they say
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on

-- Nulls
select pg_temp.mistake('select meshhook_metrics.inc(null)');
select pg_temp.brief_mistake('select meshhook_metrics.' || call)
from unnest(array[
	'inc(null)', 'inc(''errors_total'', null)', 'inc(''errors_total'', 1, null)',
	'gauge_set(null, 1)', 'gauge_set(''errors_depth'', null)', 'gauge_set(''errors_depth'', 1, null)',
	'gauge_add(null, 1)', 'gauge_add(''errors_depth'', null)', 'gauge_add(''errors_depth'', 1, null)',
	'observe(null, 1)', 'observe(''errors_seconds'', null)', 'observe(''errors_seconds'', 1, null)',
	'observe_since(null, now())', 'observe_since(''errors_seconds'', null)', 'observe_since(''errors_seconds'', now(), null)']) call;

-- Values
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 'nan') $$);
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', -1) $$);
select pg_temp.mistake($$ select meshhook_metrics.observe('errors_seconds', -1) $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.%s(''errors_%1$s'', %L)', operation, value))
from unnest(array['inc', 'gauge_set', 'gauge_add', 'observe']) operation,
	unnest(array['nan', 'infinity', '-infinity', '-1', '-5e-324']) value;
select pg_temp.mistake(format('select meshhook_metrics.observe_since(''errors_seconds'', %L)', started))
from unnest(array['infinity', '-infinity']) started;

-- A name that is cut off within a message is cut between two characters
select convert_from(convert_to(pg_temp.mistake(format('select meshhook_metrics.inc(%L, -1)', 'x' || repeat(U&'\00e4', 200))), 'UTF8'), 'UTF8') ~ 'cannot be incremented';
select convert_from(convert_to(pg_temp.mistake(format('select meshhook_metrics.observe_since(%L, ''infinity'')', 'x' || repeat(U&'\00e4', 200))), 'UTF8'), 'UTF8') ~ 'cannot have started';
select convert_from(convert_to(pg_temp.mistake(format('select meshhook_metrics.inc(%L)', 'x' || repeat(U&'\00e4', 200))), 'UTF8'), 'UTF8') ~ 'is too long';
select convert_from(convert_to(pg_temp.mistake(format('select meshhook_metrics.inc(''errors_total'', 1, jsonb_build_object(%L, 1))', 'x' || repeat(U&'\00e4', 200))), 'UTF8'), 'UTF8') ~ 'is too long';
select convert_from(convert_to(pg_temp.mistake(format('select meshhook_metrics.inc(''errors_total'', 1, jsonb_build_object(''key'', %L))', 'x' || repeat(U&'\00e4', 200))), 'UTF8'), 'UTF8') ~ 'is too long';

-- Names of metrics
select pg_temp.mistake($$ select meshhook_metrics.inc('9') $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.inc(%L)', name))
from unnest(array['', ' ', '9', '9_total', 'errors-total', 'errors.total', 'errors:total', 'errors total', 'errors_total ', 'errors"total',
	U&'err\00f6rs', E'errors\ntotal', repeat('m', 129), repeat('m', 1000000), 'meshhook_metrics_', 'meshhook_metrics_series']) name;

-- Names of labels
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 1, '{"9": 1}') $$);
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 1, '{"le": 1}') $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.inc(''errors_total'', 1, jsonb_build_object(%L, 1))', key))
from unnest(array['', ' ', '9', '9a', 'a-b', 'a.b', 'a:b', U&'\00e4', 'a"', repeat('k', 65), repeat('k', 1000000),
	'le', 'quantile', 'tenant', 'overflow', '__', '__name__']) key;

-- Values of labels
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 1, '{"key": null}') $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.inc(''errors_total'', 1, jsonb_build_object(''key'', %L::jsonb))', value))
from unnest(array['null', '{}', '[]', '{"a": 1}', '[1]', '1e256', '1e-256']) value;
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 1, jsonb_build_object('key', repeat('v', 257))) $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.inc(''errors_total'', 1, jsonb_build_object(''key'', %L))', value))
from unnest(array[repeat('v', 257), repeat(U&'\00e4', 128) || 'v', repeat(U&'\20ac', 86), repeat(U&'\+01f41d', 65), repeat('v', 1000000)]) value;

-- Labels as a whole
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_total', 1, '[]') $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.inc(''errors_total'', 1, %L)', labels))
from unnest(array['null', '1', '"status"', 'true', '[]', '["status"]', '[{}]']) labels;
select pg_temp.mistake(format('select meshhook_metrics.inc(''errors_total'', 1, %L)', jsonb_object_agg('k' || n, 1)))
from generate_series(1, 11) n;
select pg_temp.mistake(format('select meshhook_metrics.inc(''errors_total'', 1, %L)', jsonb_object_agg('k' || n, '')))
from generate_series(1, 100000) n;

-- The same from every recording function
select pg_temp.brief_mistake(format('select meshhook_metrics.%s', call))
from unnest(array[
	'gauge_set(''9'', 1)', 'gauge_add(''9'', 1)', 'observe(''9'', 1)', 'observe_since(''9'', now())',
	'gauge_set(''errors_depth'', 1, ''{"le": 1}'')', 'gauge_add(''errors_depth'', 1, ''{"le": 1}'')',
	'observe(''errors_seconds'', 1, ''{"le": 1}'')', 'observe_since(''errors_seconds'', now(), ''{"le": 1}'')']) call;

-- Of all those nothing was recorded but what gauges may be
select metric, count
from meshhook_metrics.snapshot()
order by metric;

-- A metric has one kind
select meshhook_metrics.inc('errors_total');
select meshhook_metrics.gauge_set('errors_depth', 1);
select meshhook_metrics.observe('errors_seconds', 1);
select pg_temp.brief_mistake(format('select meshhook_metrics.%s(%L, %s)', operation, metric,
	case operation when 'observe_since' then 'now()' else '1' end))
from unnest(array['errors_total', 'errors_depth', 'errors_seconds']) metric,
	unnest(array['inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since']) operation;
select pg_temp.mistake($$ select meshhook_metrics.gauge_set('errors_total', 1, '{"other": "labels"}', '11111111-1111-1111-1111-111111111111') $$);
select metric, count
from meshhook_metrics.snapshot()
order by metric;

-- A histogram's samples have names, which no other metric may have
select pg_temp.mistake($$ select meshhook_metrics.inc('errors_seconds_sum') $$);
select pg_temp.brief_mistake(format('select meshhook_metrics.%s(''errors_seconds_%s'', 1)', operation, suffix))
from unnest(array['bucket', 'sum', 'count']) suffix,
	unnest(array['inc', 'gauge_set', 'gauge_add', 'observe']) operation;

-- The other way round; and the session has not kept what the names were before
select meshhook_metrics.reset() > 0;
select meshhook_metrics.inc('errors_seconds_sum');
select meshhook_metrics.gauge_set('errors_sizes_count', 1);
select meshhook_metrics.observe('errors_times_bucket', 1);
select pg_temp.mistake(format('select meshhook_metrics.observe(%L, 1)', metric))
from unnest(array['errors_seconds', 'errors_sizes', 'errors_times']) metric;
select meshhook_metrics.inc('errors_seconds');
select meshhook_metrics.gauge_set('errors_sizes', 1);
select meshhook_metrics.inc('errors_times');
select meshhook_metrics.inc('_sum');
select meshhook_metrics.inc('_count');
select meshhook_metrics.inc('errors_summary');
select meshhook_metrics.inc('errors_times_bucket_bucket2');
select meshhook_metrics.inc('errors_seconds_sum_count');
select count(*)
from meshhook_metrics.snapshot();

-- Nor what their kinds were
select meshhook_metrics.reset() > 0;
select meshhook_metrics.inc('errors_total');
select meshhook_metrics.gauge_set('errors_depth', 1);
select meshhook_metrics.reset() = 2;
select meshhook_metrics.inc('errors_depth');
select meshhook_metrics.gauge_set('errors_total', 1);
select pg_temp.brief_mistake($$ select meshhook_metrics.inc('errors_total') $$);
select pg_temp.brief_mistake($$ select meshhook_metrics.gauge_add('errors_depth', 1) $$);
select pg_temp.brief_mistake($$ select meshhook_metrics.record('[{"op": "inc", "metric": "errors_total"}, {"op": "inc", "metric": "errors_depth"}]') $$);
select metric, kind, count
from meshhook_metrics.snapshot()
order by metric;

-- What psql shows
\set VERBOSITY default
select meshhook_metrics.inc('errors_total', -1);
select meshhook_metrics.inc('9');
select meshhook_metrics.inc('errors_total', 1, '{"key": null}');
-- The transaction is the caller's to roll back
begin;
select meshhook_metrics.inc('errors_total', 'nan');
select 1;
rollback;
