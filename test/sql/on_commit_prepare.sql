-- A transaction that recorded with on_commit = on cannot be prepared, and says so
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on
set meshhook_metrics.on_commit = on;
begin;
select meshhook_metrics.inc('prepared_total');
prepare transaction 'prepared';
rollback;
select count(*) from meshhook_metrics.snapshot();
select count(*) from pg_prepared_xacts where gid = 'prepared';

-- Also when a subtransaction recorded that was released
begin;
savepoint a;
select meshhook_metrics.inc('prepared_total');
release savepoint a;
prepare transaction 'prepared';
rollback;

-- Its code and its words
\set VERBOSITY sqlstate
begin;
select meshhook_metrics.inc('prepared_total');
prepare transaction 'prepared';
\set VERBOSITY default
select count(*) from meshhook_metrics.snapshot();

-- The next transaction is none the worse for it
begin;
select meshhook_metrics.inc('prepared_total', 2);
commit;
select value, count from meshhook_metrics.snapshot();
