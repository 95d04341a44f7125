-- evaluate_alerts() ends the alerts of groups that go, and those alone, and counts no others
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select no_plan();
set local timezone = 'UTC';

\set a '11111111-1111-1111-1111-111111111111'
\set b '22222222-2222-2222-2222-222222222222'
\set c '33333333-3333-3333-3333-333333333333'
\set d '44444444-4444-4444-4444-444444444444'
-- A tenant's series are a month old, and have rested since
create function pg_temp.add_series(tenant uuid, metric text, first integer, last integer) returns void
language sql as $$
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at)
	select tenant, metric, 'counter', jsonb_build_object('queue', 'q' || n), '2026-10-01'
	from generate_series(first, last) n
$$;
create function pg_temp.bring(tenant uuid, metric text, queue text, at timestamptz) returns void
language sql as $$
	insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
	select tenant, bring.at, 5, array[s.id], array[1], array[1]
	from meshhook_metrics.series s
	where s.tenant_id = tenant and s.metric = bring.metric and s.labels = jsonb_build_object('queue', bring.queue)
$$;
create function pg_temp.states(tenant uuid) returns text
language sql as $$
	select coalesce(string_agg(a.state || case when a.recovering_since is not null then ' recovering' else '' end, ', ' order by a.labels), 'none')
	from meshhook_metrics.alerts a
	where a.tenant_id = tenant
$$;

-- The only group of a rule
select pg_temp.add_series(:'a', 'jobs', 1, 1);
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, group_by, threshold, time_window, keep_firing_for)
values (:'a', 'the only group', 'jobs', 'increase', '{queue}', 0, '1 minute', '30 days');
select pg_temp.bring(:'a', 'jobs', 'q1', '2026-11-25 10:00:05');
select meshhook_metrics.evaluate_alerts('2026-11-25 10:00:06');
select is(pg_temp.states(:'a'), 'firing', 'a group fires');
select meshhook_metrics.close_minutes('2026-11-25 10:02:00');
select meshhook_metrics.evaluate_alerts('2026-11-25 10:02:06');
select is(pg_temp.states(:'a'), 'firing recovering', 'and rests');
select meshhook_metrics.evaluate_alerts('2026-11-27 10:02:06');
select is(pg_temp.states(:'a'), 'none', 'a rule''s only group goes a day after its last sample');
select pg_temp.bring(:'a', 'jobs', 'q1', '2026-11-27 11:00:05');
select meshhook_metrics.evaluate_alerts('2026-11-27 11:00:06');
delete from meshhook_metrics.series where tenant_id = :'a';
select meshhook_metrics.evaluate_alerts('2026-11-27 11:00:16');
select is(pg_temp.states(:'a'), 'none', 'and with its series');

-- A last sample that is in no minute yet
select pg_temp.add_series(:'b', 'jobs', 1, 2);
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, group_by, threshold, time_window, keep_firing_for)
values (:'b', 'a short window', 'jobs', 'increase', '{queue}', 0, '10 seconds', '1 hour');
select pg_temp.bring(:'b', 'jobs', 'q1', '2026-11-27 12:00:05');
select pg_temp.bring(:'b', 'jobs', 'q2', '2026-11-27 12:00:05');
select meshhook_metrics.evaluate_alerts('2026-11-27 12:00:06');
select pg_temp.bring(:'b', 'jobs', 'q2', '2026-11-27 12:00:15');
select meshhook_metrics.evaluate_alerts('2026-11-27 12:00:16');
select is(pg_temp.states(:'b'), 'firing recovering, firing', 'a group whose last sample is eleven seconds old has not gone');

-- Those that have gone do not count
select pg_temp.add_series(:'c', 'jobs', 1, 101);
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, group_by, threshold, time_window)
values (:'c', 'many have been', 'jobs', 'increase', '{queue}', 0, '1 minute');
select pg_temp.bring(:'c', 'jobs', 'q1', '2026-11-27 12:00:35');
select meshhook_metrics.evaluate_alerts('2026-11-27 12:00:36');
select is(pg_temp.states(:'c'), 'firing', 'a rule can have had any number of groups that have gone');

-- A ratio's groups are those of its denominator
insert into meshhook_metrics.series (tenant_id, metric, kind, labels, created_at)
select :'d', 'jobs', 'counter', jsonb_build_object('queue', 'q' || n), '2026-11-27 12:00:00'
from generate_series(1, 101) n;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, denominator_metric, aggregate, group_by, threshold, no_data)
values (:'d', 'many', 'errors', 'jobs', 'increase', '{queue}', 0, 'firing');
select meshhook_metrics.evaluate_alerts('2026-11-27 12:00:56');
select is(last_error, 'group_by makes 101 alerts of this rule; it can have 100', 'a ratio can have no more groups than other rules')
from meshhook_metrics.alert_rules
where tenant_id = :'d';

select * from finish();
rollback;
