-- describe() fixes what a metric is, before its first use and after
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on

-- The header that prometheus() writes for a metric
create function pg_temp.header(name text) returns setof text
language sql as $$
	select line
	from regexp_split_to_table(meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000'), '\n') with ordinality l (line, n)
	where line ~ ('^# (HELP|TYPE) ' || name || ' ')
	order by n
$$;

-- A metric that is described is of that kind before anything is recorded
select meshhook_metrics.describe('described_depth', 'gauge', 'Deliveries that wait.', 'deliveries');
select count(*) from meshhook_metrics.snapshot();
select count(*) from pg_temp.header('described_depth');
select pg_temp.mistake($$ select meshhook_metrics.inc('described_depth') $$);
select meshhook_metrics.gauge_set('described_depth', 3);
select pg_temp.header('described_depth');

-- Nulls leave what is there, empty texts take it away, others replace it
select meshhook_metrics.describe('described_depth', 'gauge');
select pg_temp.header('described_depth');
select meshhook_metrics.describe('described_depth', 'gauge', unit => 'requests');
select pg_temp.header('described_depth');
select meshhook_metrics.describe('described_depth', 'gauge', help => 'Requests that wait.');
select pg_temp.header('described_depth');
select meshhook_metrics.describe('described_depth', 'gauge', unit => '');
select pg_temp.header('described_depth');
select meshhook_metrics.describe('described_depth', 'gauge', help => '');
select pg_temp.header('described_depth');

-- After the first use too
select meshhook_metrics.inc('described_total');
select pg_temp.header('described_total');
select meshhook_metrics.describe('described_total', 'counter', 'Deliveries.');
select pg_temp.header('described_total');
select value from meshhook_metrics.snapshot() where metric = 'described_total';

-- The longest texts there may be, in bytes
select meshhook_metrics.describe('described_total', 'counter', repeat(U&'\+01f41d', 256), repeat(U&'\00e4', 32));
select length(line), octet_length(line) from pg_temp.header('described_total') line;
select meshhook_metrics.describe('described_total', 'counter', '', '');

-- The description outlives a reset, and so does the kind
select meshhook_metrics.describe('described_depth', 'gauge', 'Deliveries that wait.', 'deliveries');
select meshhook_metrics.reset();
select pg_temp.brief_mistake($$ select meshhook_metrics.inc('described_depth') $$);
select meshhook_metrics.gauge_set('described_depth', 3);
select pg_temp.header('described_depth');

-- Without series a metric can become another kind, and begins without texts
select meshhook_metrics.reset('described_depth');
select meshhook_metrics.describe('described_depth', 'counter');
select meshhook_metrics.inc('described_depth');
select pg_temp.header('described_depth');
select meshhook_metrics.reset('described_depth');
select meshhook_metrics.describe('described_depth', 'histogram');
select meshhook_metrics.observe('described_depth', 1);
select pg_temp.header('described_depth');
select meshhook_metrics.reset('described_depth');
select meshhook_metrics.describe('described_depth', 'gauge');

-- min_exponent moves the window of 32 octaves
select meshhook_metrics.describe('described_bytes', 'counter');
select meshhook_metrics.describe('described_bytes', 'histogram', min_exponent => 0);
select count(meshhook_metrics.observe('described_bytes', 2 ^ n)) from generate_series(-1, 33) n;
select b.*
from meshhook_metrics.snapshot() s, meshhook_metrics.histogram_buckets(s.histogram) b
where s.metric = 'described_bytes' and (b.lower < 2 or b.upper >= 2 ^ 31 or b.count > 1);
select histogram::json ->> 'zero_threshold', histogram::json ->> 'overflow_threshold'
from meshhook_metrics.snapshot()
where metric = 'described_bytes';
-- the same again is no change
select meshhook_metrics.describe('described_bytes', 'histogram', 'Size.', 'bytes', 0);
select pg_temp.header('described_bytes');
-- without series the window can change, and a null leaves it
select meshhook_metrics.reset('described_bytes');
select meshhook_metrics.describe('described_bytes', 'histogram', min_exponent => -4);
select meshhook_metrics.describe('described_bytes', 'histogram');
select count(meshhook_metrics.observe('described_bytes', value)) from unnest(array[0.0625, 0.07, 2 ^ 28, 2 ^ 28 + 1]) value;
select b.*
from meshhook_metrics.snapshot() s, meshhook_metrics.histogram_buckets(s.histogram) b
where s.metric = 'described_bytes';

-- The lowest and the highest window reach the smallest and the largest number
select meshhook_metrics.describe('described_lowest', 'counter');
select meshhook_metrics.describe('described_lowest', 'histogram', min_exponent => -1022);
select count(meshhook_metrics.observe('described_lowest', value)) from unnest(array[5e-324, 2.2250738585072014e-308, 2.3e-308]) value;
select meshhook_metrics.describe('described_highest', 'counter');
select meshhook_metrics.describe('described_highest', 'histogram', min_exponent => 991);
select count(meshhook_metrics.observe('described_highest', value)) from unnest(array[1, 2e298, 1e303, 1e305]) value;
select s.metric, b.*
from meshhook_metrics.snapshot() s, meshhook_metrics.histogram_buckets(s.histogram) b
where s.metric in ('described_lowest', 'described_highest')
order by s.metric, b.lower;
