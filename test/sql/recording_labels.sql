-- Which labels make which series
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- The order and the repetition of keys make no difference
select meshhook_metrics.inc('labels_total', 1, '{"b": "2", "a": "1", "long_key": "3"}');
select meshhook_metrics.inc('labels_total', 1, '{"long_key": "3", "a": "1", "b": "2"}');
select meshhook_metrics.inc('labels_total', 1, '{"a": "0", "b": "2", "long_key": "3", "a": "1"}');
select labels, value
from meshhook_metrics.snapshot();
select meshhook_metrics.reset();

-- Numbers and booleans are the same as their text
select meshhook_metrics.inc('labels_total', 1, '{"code": 200, "retry": true, "share": 0.50}');
select meshhook_metrics.inc('labels_total', 1, '{"code": "200", "retry": "true", "share": "0.50"}');
select meshhook_metrics.inc('labels_total', 1, '{"code": -1e3, "retry": false}');
select meshhook_metrics.inc('labels_total', 1, '{"code": "-1000", "retry": "false"}');
select labels, value
from meshhook_metrics.snapshot()
order by labels;
select meshhook_metrics.reset();

-- An empty value is the same as no label
select meshhook_metrics.inc('labels_total');
select meshhook_metrics.inc('labels_total', 1, '{}');
select meshhook_metrics.inc('labels_total', 1, '{"status": ""}');
select meshhook_metrics.inc('labels_total', 1, '{"status": "", "code": "200"}');
select meshhook_metrics.inc('labels_total', 1, '{"code": 200}');
select labels, value
from meshhook_metrics.snapshot()
order by labels;
select meshhook_metrics.reset();

-- What differs in one character, in case or in a blank is another series
select meshhook_metrics.inc('labels_total', 1, labels)
from unnest(array['{"a": "x"}', '{"a": "X"}', '{"A": "x"}', '{"a": "x "}', '{"a": "xy"}', '{"ax": "y"}',
	'{"a": "1.0"}', '{"a": "1"}', '{"a": "null"}', '{"a": "{}"}', '{"a": "\\"}', '{"a": "\""}', '{"a": "\n"}']::jsonb[]) labels;
select count(*), sum(value)
from meshhook_metrics.snapshot();
select meshhook_metrics.reset();

-- Ten labels, keys of 64 bytes, values of 256 bytes, also of many bytes a character
select jsonb_object_agg(rpad('key' || n, 64, 'k'), repeat(letter, 256 / octet_length(letter))) as largest
from generate_series(1, 10) with ordinality k (n),
	unnest(array['x', U&'\00e4', U&'\20ac', U&'\+01f41d']) with ordinality l (letter, bytes)
where bytes = n % 4 + 1 \gset
select meshhook_metrics.inc('labels_total', 1, :'largest');
select meshhook_metrics.inc('labels_total', 1, :'largest');
select labels = :'largest' as whole, value,
	(select min(octet_length(v)) || '-' || max(octet_length(v)) from jsonb_each_text(labels) e (k, v)) as bytes
from meshhook_metrics.snapshot();
select meshhook_metrics.reset();

-- Names: from one character to 128, with underscores and digits
select meshhook_metrics.inc(name)
from unnest(array['a', 'Z', '_', '__', '_9', repeat('m', 128)]) name;
select metric, value
from meshhook_metrics.snapshot()
order by length(metric), metric collate "C";

-- Keys that only look reserved
select meshhook_metrics.inc('labels_total', 1, '{"_le": 1, "Le": 2, "les": 3, "tenant_": 4, "tenants": 5, "quantiles": 6, "overflow_": 7, "_": 8, "l": 9}');
select labels
from meshhook_metrics.snapshot()
where metric = 'labels_total';
