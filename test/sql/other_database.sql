-- Shared memory serves the database that meshhook_metrics.database names: in any
-- other one nobody but superusers gets at it, whoever owns the extension there
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all
\set here :DBNAME
select meshhook_metrics.inc('elsewhere_total', 1, tenant => '11111111-1111-1111-1111-111111111111');

create role regress_elsewhere_owner;
create database regress_elsewhere owner regress_elsewhere_owner template template0;
\c regress_elsewhere
\set ECHO none
\set mistake :folder /sql/include/mistake.sql
\set ECHO all
\pset format unaligned
\pset tuples_only on

-- The owner of a database can create the extension in it
set role regress_elsewhere_owner;
create extension meshhook_metrics;
\set ECHO none
\i :mistake
\set ECHO all
select current_setting('meshhook_metrics.database') <> current_database();

-- but neither records to what the database that is served recorded, nor reads it
select pg_temp.mistake($$ select meshhook_metrics.inc('elsewhere_total') $$) =
	format(E'42501: meshhook_metrics serves database "%s", not "regress_elsewhere"\n  hint: Connect to that database, or have meshhook_metrics.database changed; elsewhere only superusers may call.',
		current_setting('meshhook_metrics.database'));
select call, pg_temp.mistake(format('select meshhook_metrics.%s', call)) ~ '^42501: meshhook_metrics serves database'
from unnest(array[
	'inc(''elsewhere_total'')', 'gauge_set(''elsewhere_depth'', 1)', 'gauge_add(''elsewhere_depth'', 1)',
	'observe(''elsewhere_seconds'', 1)', 'observe_since(''elsewhere_seconds'', now())',
	'record(''[{"op": "inc", "metric": "elsewhere_total"}]'')', 'describe(''elsewhere_total'', ''counter'')',
	'reset()', 'snapshot()', 'status()', 'prometheus()']) call;
-- With warnings instead of errors nothing is recorded either
set meshhook_metrics.on_error = warning;
select pg_temp.mistake($$ select meshhook_metrics.inc('elsewhere_total') $$) ~ '^42501';
reset meshhook_metrics.on_error;

-- The type works everywhere
select meshhook_metrics.histogram_count(meshhook_metrics.histogram_of(v)) from unnest(array[1.0, 2.0]) v;

-- A superuser may do it all, and is not followed by who comes after in the session
reset role;
select tenant_id, metric, value from meshhook_metrics.snapshot();
select meshhook_metrics.inc('elsewhere_total', 1, tenant => '11111111-1111-1111-1111-111111111111');
set role regress_elsewhere_owner;
select pg_temp.mistake($$ select meshhook_metrics.inc('elsewhere_total') $$) ~ '^42501';
reset role;

\c :here
select metric, value from meshhook_metrics.snapshot();
drop database regress_elsewhere;
drop role regress_elsewhere_owner;
