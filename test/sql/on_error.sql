-- With on_error = warning a mistake warns, its sample is discarded and counted, and the transaction goes on
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on
create function pg_temp.invalid() returns bigint
language sql as $$
	select (discarded ->> 'invalid')::bigint
	from meshhook_metrics.status()
$$;
set meshhook_metrics.on_error = warning;

-- One transaction with every sort of mistake and good samples in between
begin;
select pg_temp.invalid() as before \gset
select meshhook_metrics.inc('warning_total');
select meshhook_metrics.inc(null);
select meshhook_metrics.inc('warning_total', null);
select meshhook_metrics.inc('warning_total', 1, null);
select meshhook_metrics.inc('warning_total', 'nan');
select meshhook_metrics.inc('warning_total', -1);
select meshhook_metrics.observe('warning_seconds', -1);
select meshhook_metrics.observe_since('warning_seconds', 'infinity');
select meshhook_metrics.observe_since('warning_seconds', null);
select meshhook_metrics.inc('warning-total');
select meshhook_metrics.inc(repeat('m', 129));
select meshhook_metrics.inc('meshhook_metrics_total');
select meshhook_metrics.inc('warning_total', 1, '[]');
select meshhook_metrics.inc('warning_total', 1, '{"9": 1}');
select meshhook_metrics.inc('warning_total', 1, '{"le": 1}');
select meshhook_metrics.inc('warning_total', 1, jsonb_build_object(repeat('k', 65), 1));
select meshhook_metrics.inc('warning_total', 1, '{"key": null}');
select meshhook_metrics.inc('warning_total', 1, '{"key": {}}');
select meshhook_metrics.inc('warning_total', 1, jsonb_build_object('key', repeat('v', 257)));
select meshhook_metrics.inc('warning_total', 1, '{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1}');
select meshhook_metrics.gauge_set('warning_total', 1);
select meshhook_metrics.gauge_add('warning_total', 1);
select meshhook_metrics.observe('warning_seconds', 1);
select meshhook_metrics.inc('warning_seconds_count');
select meshhook_metrics.inc('warning_total');
commit;
select pg_temp.invalid() - :before;
select metric, count
from meshhook_metrics.snapshot()
order by metric;

-- A batch is discarded as a whole, each of its samples is counted, and the
-- warning tells which element is to blame
\set SHOW_CONTEXT always
select pg_temp.invalid() as before \gset
select meshhook_metrics.record('[{"op": "inc", "metric": "warning_total"}, {"op": "inc", "metric": "warning_total", "value": -1}, {"op": "inc", "metric": "warning_total"}]');
select pg_temp.invalid() - :before;
select meshhook_metrics.record('[{"op": "inc"}, {"op": "inc"}]');
select meshhook_metrics.record('[{"op": "inc", "metric": "warning_total"}, {"op": "observe", "metric": "warning_total", "value": 1}]');
select pg_temp.invalid() - :before;
select meshhook_metrics.record('{}');
select meshhook_metrics.record(null);
select pg_temp.invalid() - :before;
select metric, count
from meshhook_metrics.snapshot()
order by metric;

\set SHOW_CONTEXT errors

-- describe() is not recording: its mistakes are errors whatever the setting
select meshhook_metrics.describe('warning_total', 'count');
select meshhook_metrics.describe('warning-total', 'counter');
select meshhook_metrics.describe(null, 'counter');

-- What is wrong with the call itself is not for this setting
select meshhook_metrics.inc('warning_total', 'many');

-- Errors again
reset meshhook_metrics.on_error;
select pg_temp.invalid() as before \gset
select meshhook_metrics.inc('warning_total', -1);
select meshhook_metrics.record('[{"op": "inc"}]');
select pg_temp.invalid() - :before;
