-- What describe() refuses, and what it says
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on
select pg_temp.mistake($$ select meshhook_metrics.describe(null, 'counter') $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', null) $$);

-- Kinds, exactly as they are written
select pg_temp.mistake(format('select meshhook_metrics.describe(''refused_total'', %L)', kind))
from unnest(array['', 'count', 'Counter', 'counters', ' counter', 'summary', 'untyped']) kind;

-- Names, as for the recording functions
select pg_temp.mistake(format('select meshhook_metrics.describe(%L, ''counter'')', name))
from unnest(array['', '9', 'refused-total', repeat('m', 129), 'meshhook_metrics_series']) name;

-- Texts, in bytes
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'counter', repeat('h', 1025)) $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'counter', repeat(U&'\00e4', 512) || 'h') $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'counter', 'help', repeat('u', 65)) $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'counter', repeat('h', 1000000), repeat('u', 1000000)) $$);

-- Windows
select pg_temp.mistake(format('select meshhook_metrics.describe(''refused_seconds'', ''histogram'', min_exponent => %s)', min_exponent))
from unnest(array[-1023, 992, -2147483648, 2147483647]) min_exponent;
select pg_temp.mistake(format('select meshhook_metrics.describe(''refused_depth'', %L, min_exponent => 0)', kind))
from unnest(array['counter', 'gauge']) kind;

-- A window or a kind that series have already
select meshhook_metrics.observe('refused_seconds', 1);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_seconds', 'histogram', min_exponent => 0) $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_seconds', 'histogram', min_exponent => -20) $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_seconds', 'gauge') $$);
select meshhook_metrics.inc('refused_total');
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'histogram') $$);

-- The hint helps: the same call is good afterwards
select meshhook_metrics.reset('refused_total');
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_total', 'histogram') $$);
select meshhook_metrics.describe('refused_total', 'counter');

-- Names that a histogram's samples have, both ways round
select pg_temp.mistake(format('select meshhook_metrics.describe(''refused_seconds_%s'', %L)', suffix, kind))
from unnest(array['bucket', 'sum', 'count']) suffix,
	unnest(array['counter', 'gauge', 'histogram']) kind;
select meshhook_metrics.describe('refused_items_count', 'gauge');
select meshhook_metrics.describe('refused_items', 'gauge', 'Items.');
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_items', 'histogram') $$);
select pg_temp.mistake($$ select meshhook_metrics.observe('refused_items', 1) $$);
-- a described name stands in the way although it has no series
select pg_temp.mistake($$ select meshhook_metrics.describe('refused_rows_count', 'counter') $$);
select pg_temp.mistake($$ select meshhook_metrics.observe('refused_rows', 1) $$);

-- Whatever was refused left things as they were
select metric, kind, count from meshhook_metrics.snapshot() order by metric;
select pg_temp.brief_mistake($$ select meshhook_metrics.inc('refused_items') $$);
select meshhook_metrics.gauge_set('refused_items', 1);
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000') ~ '# HELP refused_items Items.\n# TYPE refused_items gauge';
