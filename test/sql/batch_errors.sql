-- What a batch refuses: the message names the element, and nothing of the batch is counted
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on

-- What is not an array
select pg_temp.mistake('select meshhook_metrics.record(null)');
select pg_temp.mistake(format('select meshhook_metrics.record(%L)', batch))
from unnest(array['null', '1', '"inc"', 'true', '{}', '{"op": "inc", "metric": "batch_errors_total"}']) batch;

-- What is not a sample comes with an example of one
select pg_temp.mistake($$ select meshhook_metrics.record('[1]') $$);
create function pg_temp.batch_mistake(batch text) returns text
return regexp_replace(pg_temp.mistake(format('select meshhook_metrics.record(%L)', batch)), '\n  hint: Write elements as in .*', '');

-- Each bad element between two good ones
select pg_temp.batch_mistake(format('[{"op": "inc", "metric": "batch_errors_total"}, %s, {"op": "inc", "metric": "batch_errors_total"}]', element))
from unnest(array[
	-- no objects
	'null', '1', '"inc"', 'true', '[]', '[{"op": "inc", "metric": "batch_errors_total"}]',
	-- fields that are missing, unknown or of another type
	'{}',
	'{"metric": "batch_errors_total"}',
	'{"op": null, "metric": "batch_errors_total"}',
	'{"op": 1, "metric": "batch_errors_total"}',
	'{"op": ["inc"], "metric": "batch_errors_total"}',
	'{"op": "", "metric": "batch_errors_total"}',
	'{"op": "Inc", "metric": "batch_errors_total"}',
	'{"op": "observe_since", "metric": "batch_errors_seconds", "value": 1}',
	'{"op": "inc"}',
	'{"op": "inc", "metric": null}',
	'{"op": "inc", "metric": 1}',
	'{"op": "inc", "metric": ["batch_errors_total"]}',
	'{"op": "inc", "metric": "batch_errors_total", "value": null}',
	'{"op": "inc", "metric": "batch_errors_total", "value": "1"}',
	'{"op": "inc", "metric": "batch_errors_total", "value": true}',
	'{"op": "inc", "metric": "batch_errors_total", "value": [1]}',
	'{"op": "gauge_set", "metric": "batch_errors_depth"}',
	'{"op": "gauge_add", "metric": "batch_errors_depth"}',
	'{"op": "observe", "metric": "batch_errors_seconds"}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": null}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": "status"}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": []}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": ["status"]}',
	'{"op": "inc", "metric": "batch_errors_total", "tenant": 1}',
	'{"op": "inc", "metric": "batch_errors_total", "tenant": ""}',
	'{"op": "inc", "metric": "batch_errors_total", "tenant": "acme"}',
	'{"op": "inc", "metric": "batch_errors_total", "tenant": {}}',
	'{"op": "inc", "metric": "batch_errors_total", "label": {}}',
	'{"Op": "inc", "metric": "batch_errors_total"}',
	'{"op": "inc", "metric": "batch_errors_total", "": 1}',
	-- values
	'{"op": "inc", "metric": "batch_errors_total", "value": -1}',
	'{"op": "observe", "metric": "batch_errors_seconds", "value": -0.5}',
	'{"op": "inc", "metric": "batch_errors_total", "value": 1e400}',
	'{"op": "gauge_set", "metric": "batch_errors_depth", "value": -1e400}',
	-- names and labels
	'{"op": "inc", "metric": ""}',
	'{"op": "inc", "metric": "batch errors"}',
	'{"op": "inc", "metric": "meshhook_metrics_series"}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": {"tenant": "acme"}}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": {"9": 1}}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": {"status": null}}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": {"status": ["ok"]}}',
	'{"op": "inc", "metric": "batch_errors_total", "labels": {"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1}}',
	-- kinds
	'{"op": "gauge_set", "metric": "batch_errors_total", "value": 1}',
	'{"op": "observe", "metric": "batch_errors_total", "value": 1}'
]) element;
select pg_temp.batch_mistake(jsonb_build_array(jsonb_build_object('op', 'inc', 'metric', 'batch_errors_total'), element)::text)
from unnest(array[
	jsonb_build_object('op', repeat('x', 1000), 'metric', 'batch_errors_total'),
	jsonb_build_object('op', 'inc', 'metric', repeat('m', 129)),
	jsonb_build_object('op', 'inc', 'metric', 'batch_errors_total', repeat('f', 1000), 1),
	jsonb_build_object('op', 'inc', 'metric', 'batch_errors_total', 'labels', jsonb_build_object('key', repeat('v', 257)))
]) element;

-- The first bad one is named, wherever it is
select pg_temp.batch_mistake('[{"op": "inc", "metric": "batch_errors_total"}, 1, 2]');
select pg_temp.batch_mistake(jsonb_agg(jsonb_build_object('op', 'inc', 'metric', 'batch_errors_total')) || '[{"op": "inc"}]')
from generate_series(1, 10000);

-- Two elements that do not agree on a kind
select pg_temp.batch_mistake('[{"op": "inc", "metric": "batch_errors_both"}, {"op": "observe", "metric": "batch_errors_both", "value": 1}]');

-- A batch that is refused does not say what its metrics are
select pg_temp.batch_mistake('[{"op": "inc", "metric": "batch_errors_open"}, {"op": "inc"}]');
select meshhook_metrics.gauge_set('batch_errors_open', 1);
select meshhook_metrics.reset('batch_errors_open');

-- Of all those batches nothing was counted
select count(*)
from meshhook_metrics.snapshot();

-- What psql shows of it
\set VERBOSITY default
select meshhook_metrics.record('[{"op": "inc", "metric": "batch_errors_total"}, {"op": "inc", "metric": "batch_errors_total", "value": -1}]');
