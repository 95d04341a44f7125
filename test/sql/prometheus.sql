-- prometheus() writes the text exposition format 0.0.4, to the letter
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on

-- The order of series within a tenant is not promised
create function pg_temp.sorted_lines(tenant uuid) returns setof text
language sql as $$
	select line
	from regexp_split_to_table(meshhook_metrics.prometheus(tenant), '\n') line
	order by line collate "C"
$$;

-- Nothing but the extension's own health; its numbers are those of status()
select regexp_replace(meshhook_metrics.prometheus(), ' [0-9.e-]+$', ' ...', 'gn');

-- Families in the order of their names, within them tenants, platform first;
-- a header that nobody described says how
select meshhook_metrics.inc('exposed_b_total', 2, '{"status": "ok"}', '22222222-2222-2222-2222-222222222222');
select meshhook_metrics.gauge_set('exposed_a', 1.5);
select meshhook_metrics.inc('exposed_b_total', 3, '{"status": "ok", "code": 200}', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.inc('exposed_b_total');
select meshhook_metrics.gauge_set('exposed_a', -1, tenant => '22222222-2222-2222-2222-222222222222');
select split_part(meshhook_metrics.prometheus(), '# HELP meshhook_metrics_discarded_total', 1);

-- One tenant's only: neither another's nor the extension's health
select meshhook_metrics.prometheus('22222222-2222-2222-2222-222222222222');
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000');
select length(meshhook_metrics.prometheus('ffffffff-ffff-ffff-ffff-ffffffffffff'));
select meshhook_metrics.prometheus() ~ E'\nmeshhook_metrics_series ', meshhook_metrics.prometheus(null) ~ E'\nmeshhook_metrics_series ';
-- From here on the platform's
select meshhook_metrics.reset() > 0;

-- Every sort of number
select count(meshhook_metrics.gauge_set('exposed_number', value, jsonb_build_object('n', chr(96 + n::int))))
from unnest(array[0, '-0', 1, -1, 0.1, 1e15, 999999999999999, 1e16, 123456789012345678, 1e-7, 5e-324, -1.7976931348623157e308, 1.0 / 3]::float8[]) with ordinality v (value, n);
select pg_temp.sorted_lines('00000000-0000-0000-0000-000000000000');
select meshhook_metrics.reset() > 0;

-- Escapes in label values: backslash, quote and newline, and nothing else
select count(meshhook_metrics.inc('exposed_escapes_total', 1, jsonb_build_object('value', value)))
from unnest(array[E'\\', '"', E'\n', E'\\n', E'\t', U&'\00e4\20ac\+01f41d', '{a="b"} 1', '# HELP', ' ', '''', E'C:\\dir\\"file"\nnext']) value;
select pg_temp.sorted_lines('00000000-0000-0000-0000-000000000000');
select meshhook_metrics.reset() > 0;

-- Escapes in help texts: backslash and newline; a quote is itself there
select meshhook_metrics.describe('exposed_help_total', 'counter', E'Back\\slash, "quote",\nnew line, \u00e4.', E'\\"\n');
select meshhook_metrics.inc('exposed_help_total');
select meshhook_metrics.describe('exposed_unit', 'gauge', unit => 'seconds');
select meshhook_metrics.gauge_set('exposed_unit', 1);
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000');
select meshhook_metrics.reset() > 0;

-- A histogram has all buckets of its window, so that the set of time series
-- stays the same; its count is the last of them
select meshhook_metrics.describe('exposed_seconds', 'counter');
select meshhook_metrics.describe('exposed_seconds', 'histogram', 'Duration.', 'seconds');
select count(meshhook_metrics.observe('exposed_seconds', value, '{"step": "send \"it\""}'))
from unnest(array[0, 1e-7, 9.5367431640625e-07, 0.001, 0.25, 0.25000000000000006, 1, 1.5, 4096, 5000]) value;
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000');
select meshhook_metrics.reset() > 0;

-- Another window, without a zero or an overflow
select meshhook_metrics.describe('exposed_bytes', 'counter');
select meshhook_metrics.describe('exposed_bytes', 'histogram', 'Size.', 'bytes', 0);
select count(meshhook_metrics.observe('exposed_bytes', value)) from unnest(array[2, 1000, 1e9]) value;
select meshhook_metrics.prometheus('00000000-0000-0000-0000-000000000000');
select meshhook_metrics.reset() > 0;

-- The overflow series of a tenant that is over its quota
select count(meshhook_metrics.inc('exposed_quota_total', 1, jsonb_build_object('n', n), '11111111-1111-1111-1111-111111111111')) > 0
from generate_series(1, current_setting('meshhook_metrics.max_series_per_tenant')::int + 3) n;
select meshhook_metrics.gauge_set('exposed_quota', 7, '{"queue": "in"}', '11111111-1111-1111-1111-111111111111');
select line
from pg_temp.sorted_lines('11111111-1111-1111-1111-111111111111') line
where line ~ 'overflow|n="1"|#';
select meshhook_metrics.reset() > 0;

-- A metric without samples is not there, though it is described
select meshhook_metrics.describe('exposed_unused_total', 'counter', 'Nothing.');
select meshhook_metrics.prometheus() ~ 'exposed_unused';
