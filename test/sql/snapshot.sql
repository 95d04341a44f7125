-- snapshot() shows every series that was recorded to, one a row
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- Columns
select a.attname, a.atttypid::regtype
from pg_proc p, unnest(p.proargnames, p.proallargtypes, p.proargmodes::text[]) with ordinality a (attname, atttypid, mode, n)
where p.oid = 'meshhook_metrics.snapshot(uuid)'::regprocedure and a.mode = 'o'
order by a.n;
select * from meshhook_metrics.snapshot();

-- One series of every kind
select meshhook_metrics.inc('snapshot_total', 2, '{"status": "ok"}', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.gauge_set('snapshot_depth', -2, '{"queue": "in", "worker": 3}');
select meshhook_metrics.observe('snapshot_seconds', value, '{"step": "\"\\ \u00e4"}', '22222222-2222-2222-2222-222222222222')
from unnest(array[0.5, 0.5, 1]) value;
\x on
select tenant_id, metric, kind, labels, value, count, sum, min, max, histogram
from meshhook_metrics.snapshot()
order by metric;
\x off

-- A histogram agrees with its count, sum, min and max, and with histogram_of()
select count = meshhook_metrics.histogram_count(histogram) as count,
	sum = meshhook_metrics.histogram_sum(histogram) as sum,
	min = meshhook_metrics.histogram_min(histogram) as min,
	max = meshhook_metrics.histogram_max(histogram) as max
from meshhook_metrics.snapshot()
where kind = 'histogram';
select meshhook_metrics.observe('snapshot_many_seconds', 1.001 ^ n) from generate_series(-9000, 8000, 17) n \g /dev/null
select (select array_agg(b order by b.lower) from meshhook_metrics.histogram_buckets(s.histogram) b) =
	(select array_agg(b order by b.lower)
	from (select meshhook_metrics.histogram_of(1.001 ^ n) as h from generate_series(-9000, 8000, 17) n) o, meshhook_metrics.histogram_buckets(o.h) b) as same,
	count
from meshhook_metrics.snapshot() s
where metric = 'snapshot_many_seconds';

-- One tenant's, the platform's, nobody's
select metric from meshhook_metrics.snapshot('11111111-1111-1111-1111-111111111111');
select metric from meshhook_metrics.snapshot(tenant => '00000000-0000-0000-0000-000000000000') order by metric;
select metric from meshhook_metrics.snapshot('ffffffff-ffff-ffff-ffff-ffffffffffff');
select count(*) from meshhook_metrics.snapshot(null);

-- The session's tenant is of those who record; who reads says whose
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111';
select count(*) from meshhook_metrics.snapshot();
reset meshhook_metrics.tenant;

-- A series that nothing was recorded to is not there yet: one of a transaction
-- that may not commit, or of a batch that was refused
begin;
set local meshhook_metrics.on_commit = on;
select meshhook_metrics.inc('snapshot_unused_total');
select count(*) from meshhook_metrics.snapshot() where metric like 'snapshot_unused%';
rollback;
select count(*) from meshhook_metrics.snapshot() where metric like 'snapshot_unused%';
select meshhook_metrics.record('[{"op": "inc", "metric": "snapshot_unused_total"}, {"op": "inc", "metric": "9"}]');
select count(*) from meshhook_metrics.snapshot() where metric like 'snapshot_unused%';
-- but a zero is something
select meshhook_metrics.inc('snapshot_unused_total', 0);
select meshhook_metrics.gauge_set('snapshot_unused_depth', 0);
select metric, value, count from meshhook_metrics.snapshot() where metric like 'snapshot_unused%' order by metric;

-- A tenant over its quota has an overflow series for each of its metrics, and
-- what went there is counted by reason
select meshhook_metrics.reset() > 0 as reset;
select (discarded ->> 'tenant_limit')::bigint as before from meshhook_metrics.status() \gset
select count(meshhook_metrics.inc('snapshot_quota_total', 1, jsonb_build_object('n', n), '11111111-1111-1111-1111-111111111111'))
	- current_setting('meshhook_metrics.max_series_per_tenant')::int as over
from generate_series(1, current_setting('meshhook_metrics.max_series_per_tenant')::int + 3) n;
select meshhook_metrics.gauge_set('snapshot_quota_depth', 7, '{"queue": "in"}', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.inc('snapshot_quota_total', 1, '{"n": "1"}', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.inc('snapshot_quota_total', 1, '{"n": "1"}', '22222222-2222-2222-2222-222222222222');
select tenant_id, metric, labels, value, count
from meshhook_metrics.snapshot()
where labels ? 'overflow' or labels = '{"n": "1"}'
order by metric, tenant_id, labels;
select (discarded ->> 'tenant_limit')::bigint - :before as discarded,
	series_used - current_setting('meshhook_metrics.max_series_per_tenant')::int as others
from meshhook_metrics.status();

-- A series that goes makes room
select meshhook_metrics.reset('snapshot_quota_depth', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.reset('snapshot_quota_total', '11111111-1111-1111-1111-111111111111')
	- current_setting('meshhook_metrics.max_series_per_tenant')::int as overflow;
select meshhook_metrics.gauge_set('snapshot_quota_depth', 7, '{"queue": "in"}', '11111111-1111-1111-1111-111111111111');
select labels, value from meshhook_metrics.snapshot() where metric = 'snapshot_quota_depth';

-- In a join, a cursor, and with nobody who reads it to its end
select count(*) from meshhook_metrics.snapshot() a join meshhook_metrics.snapshot() b using (tenant_id, metric, labels);
begin;
declare series cursor for select metric from meshhook_metrics.snapshot();
select meshhook_metrics.reset() > 0 as reset;
rollback;
select count(*) from (select from meshhook_metrics.snapshot() limit 1) s;
