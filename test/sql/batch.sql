-- A batch counts what its elements say, all of them or none
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- Every operation, with and without what can be left out
select meshhook_metrics.record('[
	{"op": "inc", "metric": "batch_total"},
	{"op": "inc", "metric": "batch_total", "value": 2.5},
	{"op": "inc", "metric": "batch_total", "labels": {}},
	{"op": "inc", "metric": "batch_total", "labels": {"status": "ok"}},
	{"op": "inc", "metric": "batch_total", "labels": {"status": "ok"}, "tenant": "11111111-1111-1111-1111-111111111111", "value": 4},
	{"op": "inc", "metric": "batch_total", "tenant": null, "value": 8},
	{"op": "gauge_set", "metric": "batch_depth", "value": 7},
	{"op": "gauge_add", "metric": "batch_depth", "value": -10},
	{"op": "observe", "metric": "batch_seconds", "value": 0.25},
	{"op": "observe", "metric": "batch_seconds", "value": 1e-3}]');
select tenant_id, metric, kind, labels, value, count, sum, min, max
from meshhook_metrics.snapshot()
order by metric, tenant_id, labels;

-- The series are those of the functions
select meshhook_metrics.inc('batch_total', 100, '{"status": "ok"}');
select value, count
from meshhook_metrics.snapshot()
where metric = 'batch_total' and labels = '{"status": "ok"}' and tenant_id = '00000000-0000-0000-0000-000000000000';

-- Elements count in their order
select meshhook_metrics.record('[
	{"op": "gauge_set", "metric": "batch_order", "value": 1},
	{"op": "gauge_add", "metric": "batch_order", "value": 1},
	{"op": "gauge_set", "metric": "batch_order", "value": 5},
	{"op": "gauge_add", "metric": "batch_order", "value": 0.5}]');
select value, count
from meshhook_metrics.snapshot()
where metric = 'batch_order';

-- Labels as the functions take them
select meshhook_metrics.record('[
	{"op": "inc", "metric": "batch_labels_total", "labels": {"code": 200, "retry": true, "empty": ""}},
	{"op": "inc", "metric": "batch_labels_total", "labels": {"retry": "true", "code": "200"}}]');
select labels, value
from meshhook_metrics.snapshot()
where metric = 'batch_labels_total';

-- Numbers that a float8 has to round, to the nearest and at last to 0
select meshhook_metrics.record('[
	{"op": "gauge_set", "metric": "batch_rounded", "value": 0.1000000000000000055511151231257827021181583404541015625, "labels": {"n": 1}},
	{"op": "gauge_set", "metric": "batch_rounded", "value": 9007199254740993, "labels": {"n": 2}},
	{"op": "gauge_set", "metric": "batch_rounded", "value": 1e-400, "labels": {"n": 3}}]');
select labels, value
from meshhook_metrics.snapshot()
where metric = 'batch_rounded'
order by labels;

-- Nothing to count
select meshhook_metrics.record('[]');

-- One element, and ten thousand
select meshhook_metrics.record('[{"op": "inc", "metric": "batch_one_total"}]');
select meshhook_metrics.reset();
select meshhook_metrics.record(jsonb_agg(jsonb_build_object(
	'op', case n % 3 when 0 then 'inc' when 1 then 'gauge_add' else 'observe' end,
	'metric', (array['batch_many_total', 'batch_many_depth', 'batch_many_seconds'])[n % 3 + 1],
	'value', n,
	'labels', jsonb_build_object('part', n % 100))))
from generate_series(1, 10000) n;
select metric, count(*) as series, sum(count) as count, sum(sum) filter (where kind <> 'gauge') as sum,
	sum(value) as value, min(min), max(max)
from meshhook_metrics.snapshot()
group by metric
order by metric;

-- While on_commit is on, a batch waits as a whole
set meshhook_metrics.on_commit = on;
begin;
select meshhook_metrics.record('[{"op": "inc", "metric": "batch_waits_total"}, {"op": "observe", "metric": "batch_waits_seconds", "value": 1}]');
select count(*)
from meshhook_metrics.snapshot()
where metric like 'batch_waits%';
commit;
select metric, count
from meshhook_metrics.snapshot()
where metric like 'batch_waits%'
order by metric;
reset meshhook_metrics.on_commit;
