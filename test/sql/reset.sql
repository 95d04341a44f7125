-- reset() forgets the series that it is asked to, and says how many
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on
create function pg_temp.fill() returns void
language plpgsql as $$
begin
	perform meshhook_metrics.inc(metric, 1, jsonb_build_object('n', n), tenant)
	from unnest(array['reset_a_total', 'reset_b_total']) metric,
		generate_series(1, 3) n,
		unnest(array['00000000-0000-0000-0000-000000000000', '11111111-1111-1111-1111-111111111111', null]::uuid[]) tenant;
	perform meshhook_metrics.observe('reset_c_seconds', 1, '{}', '11111111-1111-1111-1111-111111111111');
end
$$;
create function pg_temp.left_over() returns table (tenant_id uuid, metric text, series bigint, count numeric)
language sql as $$
	select s.tenant_id, s.metric, count(*), sum(s.count)
	from meshhook_metrics.snapshot() s
	group by s.tenant_id, s.metric
	order by s.metric, s.tenant_id
$$;

select pg_temp.fill();
select * from pg_temp.left_over();

-- One metric, of all tenants
select meshhook_metrics.reset('reset_a_total');
select * from pg_temp.left_over();

-- One metric of one tenant
select meshhook_metrics.reset('reset_b_total', '11111111-1111-1111-1111-111111111111');
select * from pg_temp.left_over();

-- One tenant; the platform is one, and null is all of them
select pg_temp.fill();
select meshhook_metrics.reset(tenant => '11111111-1111-1111-1111-111111111111');
select * from pg_temp.left_over();
select meshhook_metrics.reset(null, '00000000-0000-0000-0000-000000000000');
select * from pg_temp.left_over();

-- All
select pg_temp.fill();
select meshhook_metrics.reset();
select * from pg_temp.left_over();
select series_used, histograms_used from meshhook_metrics.status();

-- What is not there
select meshhook_metrics.reset();
select meshhook_metrics.reset('reset_a_total');
select meshhook_metrics.reset('no such metric');
select meshhook_metrics.reset('');
select meshhook_metrics.reset(repeat('m', 1000000));
select meshhook_metrics.reset(null, 'ffffffff-ffff-ffff-ffff-ffffffffffff');
select meshhook_metrics.inc('reset_a_total');
select meshhook_metrics.reset('reset_a_total', 'ffffffff-ffff-ffff-ffff-ffffffffffff');
select meshhook_metrics.reset('reset_a_tota');
select * from pg_temp.left_over();

-- Series begin anew, also for a session that knew them
select meshhook_metrics.reset();
select meshhook_metrics.inc('reset_again_total', 5);
select meshhook_metrics.observe('reset_again_seconds', 5);
select meshhook_metrics.gauge_set('reset_again_depth', 5);
select meshhook_metrics.reset();
select meshhook_metrics.inc('reset_again_total', 2);
select meshhook_metrics.observe('reset_again_seconds', 2);
select meshhook_metrics.gauge_add('reset_again_depth', 2);
select metric, value, count, sum, min, max, meshhook_metrics.histogram_count(histogram)
from meshhook_metrics.snapshot()
order by metric;

-- The metric of a series that nobody described goes with its last series: it
-- can be another kind then
select meshhook_metrics.inc('reset_kind', 1, '{"n": 1}');
select meshhook_metrics.inc('reset_kind', 1, '{"n": 2}', '11111111-1111-1111-1111-111111111111');
select meshhook_metrics.reset('reset_kind', '11111111-1111-1111-1111-111111111111');
select pg_temp.brief_mistake($$ select meshhook_metrics.gauge_set('reset_kind', 1) $$);
select meshhook_metrics.reset('reset_kind');
select meshhook_metrics.gauge_set('reset_kind', 1);
select kind from meshhook_metrics.snapshot() where metric = 'reset_kind';

-- What was discarded stays counted
set client_min_messages = error;
set meshhook_metrics.on_error = warning;
select meshhook_metrics.inc('reset_total', -1);
reset meshhook_metrics.on_error;
reset client_min_messages;
select (discarded ->> 'invalid')::bigint as before from meshhook_metrics.status() \gset
select meshhook_metrics.reset() > 0;
select :before > 0, (discarded ->> 'invalid')::bigint - :before from meshhook_metrics.status();

-- reset() does not wait for a commit, nor go with a rollback
select meshhook_metrics.inc('reset_total');
begin;
select meshhook_metrics.reset('reset_total');
rollback;
select * from pg_temp.left_over();
