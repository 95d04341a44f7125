-- Each recording function does what its name says, at once
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- A counter adds up; 1 unless given
select meshhook_metrics.inc('recording_total');
select meshhook_metrics.inc('recording_total', 2.5);
select meshhook_metrics.inc('recording_total', 0);
select metric, kind, labels, value, count, sum, min, max, histogram
from meshhook_metrics.snapshot();

-- A gauge has the last value, whichever way it came
select meshhook_metrics.gauge_add('recording_depth', 3);
select meshhook_metrics.gauge_set('recording_depth', 10);
select meshhook_metrics.gauge_add('recording_depth', -14.5);
select metric, kind, value, count, sum, min, max, histogram
from meshhook_metrics.snapshot()
where metric = 'recording_depth';
select meshhook_metrics.gauge_set('recording_depth', -1e308);
select meshhook_metrics.gauge_set('recording_depth', 5e-324);
select meshhook_metrics.gauge_set('recording_depth', '-0');
select value, count, min, max
from meshhook_metrics.snapshot()
where metric = 'recording_depth';

-- A histogram counts what is zero, small, within its window, and large
select meshhook_metrics.observe('recording_seconds', value)
from unnest(array[0, 5e-324, 2 ^ -20, 1, 1, 2 ^ 12, 1e9]) value;
select metric, kind, value, count, sum, min, max
from meshhook_metrics.snapshot()
where metric = 'recording_seconds';
select b.*
from meshhook_metrics.snapshot() s, meshhook_metrics.histogram_buckets(s.histogram) b
where s.metric = 'recording_seconds';

-- observe_since() takes the seconds that have passed by the clock, and never
-- less than none
begin;
select clock_timestamp() as started \gset
select meshhook_metrics.observe_since('recording_since_seconds', :'started');
select max > 0 and max <= extract(epoch from clock_timestamp() - :'started') as in_between
from meshhook_metrics.snapshot()
where metric = 'recording_since_seconds';
commit;
select meshhook_metrics.observe_since('recording_since_seconds', clock_timestamp() - interval '1 hour');
select meshhook_metrics.observe_since('recording_since_seconds', clock_timestamp() + interval '1 hour');
select count, min, max between 3600 and 3660 as an_hour
from meshhook_metrics.snapshot()
where metric = 'recording_since_seconds';
select meshhook_metrics.observe_since('recording_ages_seconds', '4714-11-24 00:00:00+00 bc');
select meshhook_metrics.observe_since('recording_ages_seconds', '294276-12-31 23:59:59.999999+00');
select count, min, max between 2.1e11 and 2.2e11 as all_of_history
from meshhook_metrics.snapshot()
where metric = 'recording_ages_seconds';

-- Arguments by name, in any order
select meshhook_metrics.inc(labels => '{"status": "ok"}', metric => 'recording_named_total');
select meshhook_metrics.observe(tenant => '11111111-1111-1111-1111-111111111111', value => 1, metric => 'recording_named_seconds');
select tenant_id, metric, labels, count
from meshhook_metrics.snapshot()
where metric like 'recording_named%'
order by metric;

-- Counted at once, also by those who look from within the transaction, and
-- whatever becomes of it
begin;
select meshhook_metrics.inc('recording_aborted_total', 5);
select value
from meshhook_metrics.snapshot()
where metric = 'recording_aborted_total';
rollback;
begin;
savepoint before;
select meshhook_metrics.inc('recording_aborted_total', 5);
rollback to savepoint before;
commit;
do $$
begin
	perform meshhook_metrics.inc('recording_aborted_total', 5);
	perform 1 / 0;
exception when division_by_zero then
	null;
end
$$;
select value, count
from meshhook_metrics.snapshot()
where metric = 'recording_aborted_total';

-- In a read-only transaction
begin transaction read only;
select meshhook_metrics.inc('recording_read_only_total');
commit;
select value
from meshhook_metrics.snapshot()
where metric = 'recording_read_only_total';

-- Once a row, where the planner knows nothing better
select count(meshhook_metrics.inc('recording_rows_total', n))
from generate_series(1, 1000) n;
select value, count
from meshhook_metrics.snapshot()
where metric = 'recording_rows_total';

-- What would make a counter or a gauge infinite is left out, and counted as discarded
select (discarded ->> 'out_of_range')::bigint as before
from meshhook_metrics.status() \gset
select meshhook_metrics.inc('recording_large_total', 1e300);
select meshhook_metrics.inc('recording_large_total', 1.7976931348623157e308);
select meshhook_metrics.gauge_set('recording_large', 1.7976931348623157e308);
select meshhook_metrics.gauge_add('recording_large', 1.7976931348623157e308);
select meshhook_metrics.observe('recording_large_bytes', 1.7976931348623157e308);
select metric, value, count
from meshhook_metrics.snapshot()
where metric like 'recording_large%'
order by metric;
select (discarded ->> 'out_of_range')::bigint - :before as discarded
from meshhook_metrics.status();

-- When it was last recorded to, to the second
select bool_and(updated_at between now() - interval '10 minutes' and clock_timestamp()) as just_now
from meshhook_metrics.snapshot();
