-- Shared memory serves databases of every encoding: what is not ASCII is kept
-- from UTF8 ones only, and shown byte by byte in others
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

select meshhook_metrics.describe('encoding_total', 'counter', U&'D\00e9j\00e0 vu.', U&'\20ac');
select meshhook_metrics.inc('encoding_total', 1, jsonb_build_object('city', U&'Z\00fcrich \6771\4eac', 'code', 200));

create database regress_encoding encoding 'LATIN1' locale_provider libc lc_collate 'C' lc_ctype 'C' template template0;
\set utf8 :DBNAME
\c regress_encoding
\set ECHO none
set client_min_messages = warning;
create extension meshhook_metrics;
reset client_min_messages;
\set mistake :folder /sql/include/mistake.sql
\i :mistake
\set ECHO all
\pset format unaligned
\pset tuples_only on

-- What was recorded there is shown here
select labels, value from meshhook_metrics.snapshot();
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000');

-- ASCII is the same series everywhere
select meshhook_metrics.inc('encoding_ascii_total', 1, '{"status": "ok"}');

-- What is not ASCII is refused
select pg_temp.mistake($$ select meshhook_metrics.inc('encoding_total', 1, jsonb_build_object('city', 'Z' || chr(252) || 'rich')) $$);
select pg_temp.mistake($$ select meshhook_metrics.record(jsonb_build_array(jsonb_build_object('op', 'inc', 'metric', 'encoding_total', 'labels', jsonb_build_object('city', chr(252))))) $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('encoding_total', 'counter', 'D' || chr(233) || 'j' || chr(224) || ' vu.') $$);
select pg_temp.mistake($$ select meshhook_metrics.describe('encoding_total', 'counter', unit => chr(176) || 'C') $$);
select pg_temp.mistake($$ select meshhook_metrics.inc('encoding_total', 1, jsonb_build_object(chr(252), 1)) $$) ~ '^42602: ';
select pg_temp.mistake($$ select meshhook_metrics.inc(chr(252)) $$) ~ '^42602: ';

\c :utf8
\pset format unaligned
\pset tuples_only on
select metric, labels, value from meshhook_metrics.snapshot() order by metric;
select meshhook_metrics.inc('encoding_ascii_total', 1, '{"status": "ok"}');
select value from meshhook_metrics.snapshot() where metric = 'encoding_ascii_total';
drop database regress_encoding;
