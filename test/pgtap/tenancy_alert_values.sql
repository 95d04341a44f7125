-- What the rules of a tenant see are its own samples, also of metrics and labels that
-- others have, and what they lead to is told to nobody else
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

-- The same metrics with the same labels, of A, B and the platform; each has other values
-- and another number of them. Long ago they are in minutes and hours, now in live.
create temp table samples as
select t.tenant_id, m.metric, m.kind, now() - a.age as at, n * t.factor + extract(epoch from a.age) / 1000 * t.factor as value
from (values (:'a'::uuid, 1, 3), (:'b'::uuid, 31337, 5), (:'nil'::uuid, 77, 7)) t (tenant_id, factor, samples),
	(values ('same_total', 'counter'), ('same_depth', 'gauge'), ('same_seconds', 'histogram')) m (metric, kind),
	unnest(array['20 seconds', '20 minutes', '5 hours']::interval[]) a (age),
	generate_series(1, t.samples) n;
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
select distinct tenant_id, metric, kind, '{"queue": "in", "status": "ok"}'::jsonb
from samples;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram)
select s.tenant_id, s.at, 5, array_agg(i.id), array_agg(s.count), array_agg(s.sum), array_agg(s.min), array_agg(s.max), array_agg(s.last), array_agg(s.histogram)
from (
	select tenant_id, metric, kind, at, count(*) as count, sum(value) as sum, min(value) as min, max(value) as max,
		case when kind = 'gauge' then max(value) end as last,
		case when kind = 'histogram' then meshhook_metrics.histogram_of(value) end as histogram
	from samples
	group by tenant_id, metric, kind, at) s
join meshhook_metrics.series i using (tenant_id, metric)
where i.labels = '{"queue": "in", "status": "ok"}'
group by s.tenant_id, s.at
order by s.at;
do $$begin perform meshhook_metrics.close_minutes(now()), meshhook_metrics.rollup(); end$$;
select is((select count(distinct (r.series_id, r.bucket)) from meshhook_metrics.rollup_1m r join meshhook_metrics.series s on s.id = r.series_id where s.metric ~ '^same_')
	>= 18, true, 'what is long ago is in minutes');

-- Rules over all of that, the same for each, and what they should see
delete from meshhook_metrics.alert_rules;
truncate meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_notifications;
create temp table asked as
select m.metric, m.aggregate, w.time_window, g.group_by, f.labels
from (values
		('same_total', 'increase'), ('same_total', 'rate'), ('same_total', 'count'), ('same_total', 'avg'),
		('same_depth', 'last'), ('same_depth', 'min'), ('same_depth', 'max'), ('same_depth', 'avg'),
		('same_seconds', 'p95'), ('same_seconds', 'p0'), ('same_seconds', 'max'), ('same_seconds', 'increase')) m (metric, aggregate),
	unnest(array['1 minute', '30 minutes', '1 day']::interval[]) w (time_window),
	(values (null, '{}'), ('{queue,none}', '{}'), ('{status}', '{"queue": "in"}')) g (group_by, labels),
	lateral (select g.labels::jsonb) f (labels);
insert into meshhook_metrics.settings (name, tenant_id, value)
select 'max_alert_rules', tenant_id, '1000'
from unnest(array[:'a', :'b', :'nil']::uuid[]) tenant_id;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, time_window, group_by, labels, threshold, annotations)
select tenant_id, concat_ws(' ', metric, aggregate, time_window, group_by), metric, aggregate, time_window, group_by::text[], labels, -1,
	'{"summary": "{{ value }} in {{ labels.queue }}{{ labels.status }} of {{ labels.tenant_id }}"}'
from asked, unnest(array[:'a', :'b', :'nil']::uuid[]) tenant_id;
create temp table expected as
select r.id, r.tenant_id, r.name,
	case when r.group_by is null then '{}' else (select jsonb_object_agg(k, s.labels -> k) from unnest(r.group_by) k where s.labels ? k) end as labels,
	case r.aggregate
		when 'increase' then case s.kind when 'histogram' then count(v.value) else sum(v.value) end
		-- What is longer than retention_live begins at a whole minute, above 12 hours at a whole hour
		when 'rate' then sum(v.value) / extract(epoch from now() - case r.time_window
			when '1 minute' then now() - r.time_window
			when '30 minutes' then date_trunc('minute', now() - r.time_window)
			else date_trunc('hour', now() - r.time_window, 'UTC') end)
		when 'count' then count(v.value)
		when 'avg' then avg(v.value)
		when 'min' then min(v.value)
		when 'max' then max(v.value)
		when 'last' then (array_agg(v.value order by v.at desc, v.value desc))[1]
		else meshhook_metrics.histogram_quantile(meshhook_metrics.histogram_of(v.value), substr(r.aggregate, 2)::float8 / 100)
	end::float8 as value
from meshhook_metrics.alert_rules r
join meshhook_metrics.series s on s.tenant_id = r.tenant_id and s.metric = r.metric
join samples v on v.tenant_id = r.tenant_id and v.metric = r.metric and v.at > now() - r.time_window
group by r.id, s.id;
select is(count(*), 324::bigint, 'there are many rules, each of which has a value') from expected;
select is((select count(distinct value) from expected e where e.name = same.name), 3::bigint, 'of each three that differ: ' || same.name)
from (select distinct name from expected) same
where name !~ 'increase 00:01:00' or name ~ 'total'
order by name;
create temp view seen as
select e.tenant_id, e.name, e.value as expected, v.value, v.labels is distinct from e.labels or abs(v.value - e.value) > 1e-9 * abs(e.value) or v.value is null as wrong
from expected e
left join meshhook_metrics.alert_values(now(), array(select id from meshhook_metrics.alert_rules)) v on v.rule_id = e.id and (v.labels is not null or v.error is not null);

-- All rows of a time are read, or those of each series are looked for
create temp table tuples as select reltuples from pg_class where oid = 'meshhook_metrics.series'::regclass;
update pg_class set reltuples = 1 where oid = 'meshhook_metrics.series'::regclass;
select is_empty('select * from seen where wrong', 'reading all, each rule sees its own tenant''s samples');
update pg_class set reltuples = 1e6 where oid = 'meshhook_metrics.series'::regclass;
select is_empty('select * from seen where wrong', 'looking for each series, too');
update pg_class set reltuples = (select reltuples from tuples) where oid = 'meshhook_metrics.series'::regclass;
-- Others' series beside one's own
select is_empty(format($$
	select e.name, e.value, v.value
	from expected e
	left join meshhook_metrics.alert_values(now(), array(select id from meshhook_metrics.alert_rules where tenant_id = %1$L)) v on v.rule_id = e.id and (v.labels is not null or v.error is not null)
	where e.tenant_id = %1$L and abs(v.value - e.value) > 1e-9 * abs(e.value) is not false $$, tenant), 'alone, the rules of ' || left(tenant, 1) || ' see the same')
from unnest(array[:'a', :'b', :'nil']) tenant;

-- What becomes of it, now: for the worker's time, had it evaluated since this transaction began
update meshhook_metrics.alert_state set evaluated_at = '-infinity';
select is(meshhook_metrics.evaluate_alerts(now()), 324::bigint, 'all of them fire');
select is_empty($$
	select e.name, e.value, t.value, t.annotations
	from expected e
	left join (
		select 'alert' as what, rule_id, tenant_id, labels, value, annotations from meshhook_metrics.alerts
		union all
		select 'event', rule_id, tenant_id, labels, value, annotations from meshhook_metrics.alert_events where state = 'firing') t on t.rule_id = e.id
	where t.tenant_id is distinct from e.tenant_id
		or t.labels is distinct from e.labels
		or abs(t.value - e.value) > 1e-9 * abs(e.value) is not false
		or t.annotations ->> 'summary' !~ (' of ' || e.tenant_id || '$') $$, 'alerts and events are each of one tenant, with its value');
create temp view told as
select n.tenant_id, n.rule_id, n.receiver, n.payload, a.*
from meshhook_metrics.alert_notifications n,
	jsonb_to_recordset(n.payload -> 'alerts') a (labels jsonb, annotations jsonb, fingerprint text)
where n.rule_id in (select id from expected);
select is(count(*), 324::bigint, 'of each one is told') from told;
select is_empty($$
	select t.*
	from told t
	left join meshhook_metrics.alert_rules r on r.id = t.rule_id
	left join meshhook_metrics.alerts a on a.rule_id = t.rule_id and a.fingerprint = t.fingerprint
	where r.tenant_id is distinct from t.tenant_id
		or t.labels ->> 'tenant_id' <> t.tenant_id::text
		or t.payload #>> '{groupLabels,tenant_id}' <> t.tenant_id::text
		or t.annotations is distinct from a.annotations
		or not exists (select from meshhook_metrics.alert_receivers c where c.tenant_id = t.tenant_id and c.name = t.receiver)
		or t.payload #>> '{receiver}' <> t.receiver $$, 'a payload has one tenant''s alerts, for one of its receivers');
select is_empty($$
	select n.payload
	from meshhook_metrics.alert_notifications n, regexp_matches(n.payload::text, '(?:0{8}-0{4}-0|1{8}-1{4}-1|2{8}-2{4}-2)\d{3}', 'g') m (found)
	where m.found[1] <> left(n.tenant_id::text, length(m.found[1])) $$, 'and names no other tenant');

-- Metrics and labels that only others have are to a rule as if nobody had them
select matches(pg_temp.ask_as_b('select count(*) from meshhook_metrics.series where metric = ''secret_total'''), '1', 'B has them');
create temp table foreign_rules (no integer, metric text, aggregate text, denominator text, labels text, keys text[]);
insert into foreign_rules values
	(0, '?_total', 'increase', null, '{}', null),
	(1, '?_total', 'p95', null, '{}', null),
	(2, '?_depth', 'increase', null, '{}', null),
	(3, '?_seconds', 'last', null, '{}', null),
	(4, 'own_total', 'increase', '?_total', '{}', null),
	(5, '?_total', 'increase', 'own_total', '{}', null),
	(6, '?_total', 'increase', null, '{}', '{status}'),
	(7, 'shared_total', 'increase', null, '{"key_?": "value_?"}', null),
	(8, 'shared_depth', 'last', null, '{"queue": "queue_?"}', null);
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, denominator_metric, labels, group_by, threshold, no_data)
select :'a', which || ' ' || no, replace(metric, '?', which), aggregate, replace(denominator, '?', which), replace(labels, '?', which)::jsonb, keys, 0, 'firing'
from foreign_rules, unnest(array['secret', 'absent']) which;
select is((select string_agg(concat_ws(' ', v.labels, v.value, v.error), '; ' order by v.labels) from meshhook_metrics.alert_values(now(), array[s.id]) v),
	(select string_agg(concat_ws(' ', v.labels, v.value, v.error), '; ' order by v.labels) from meshhook_metrics.alert_values(now(), array[n.id]) v),
	'A''s rule over what B alone has, as over what nobody has: ' || no)
from foreign_rules
join meshhook_metrics.alert_rules s on s.name = 'secret ' || no
join meshhook_metrics.alert_rules n on n.name = 'absent ' || no
order by no;
select lives_ok('select meshhook_metrics.evaluate_alerts(now() + interval ''1 second'')', 'they are evaluated');
select is((select string_agg(concat_ws(' ', f.no, r.last_error), '; ' order by no) from foreign_rules f join meshhook_metrics.alert_rules r on r.name = 'secret ' || no),
	'0; 1; 2; 3; 4; 5; 6; 7; 8', 'and not told of which kind B''s are');
select is((select string_agg(s.state || ' ' || coalesce(s.value::text, ''), '; ' order by no) from foreign_rules f left join meshhook_metrics.alerts s on s.name = 'secret ' || no),
	(select string_agg(s.state || ' ' || coalesce(s.value::text, ''), '; ' order by no) from foreign_rules f left join meshhook_metrics.alerts s on s.name = 'absent ' || no),
	'the alerts are the same');
-- All that A gets to see
select is_empty(
	$$ select line from unnest(array['alert_rules', 'alerts', 'alert_events']) name, regexp_split_to_table(pg_temp.ask_as_a('select * from meshhook_metrics.' || name), '\n') line
		where regexp_replace(line, '"?secret [0-9]"?|(secret|absent)_(total|depth|seconds)|"(key|value|queue)_secret|""(key|value|queue)_secret""', '', 'g') ~ 'secret|22222222|platform|31337' $$,
	'nothing of it is in what A reads');

-- An error of one tenant's rule is in that rule alone
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (:'b', 'erring_secret', 'shared_total', 'p95', 0);
select is(meshhook_metrics.evaluate_alerts(now() + interval '2 seconds'), 0::bigint, 'a rule of B''s fails');
select is((select string_agg(concat_ws(' ', tenant_id, name, last_error), '; ') from meshhook_metrics.alert_rules where last_error is not null),
	'22222222-2222-2222-2222-222222222222 erring_secret "shared_total" is a counter, which has no p95', 'and says so');
select is(pg_temp.ask_as_a('select count(*) from meshhook_metrics.alert_rules where last_error is not null or last_error_at is not null'), '(0)', 'A is told nothing of it');

-- A tenant's series are deleted: its groups go, others' do not
truncate meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_notifications;
delete from meshhook_metrics.alert_rules;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, group_by, threshold, time_window)
select tenant_id, 'groups', 'same_total', 'increase', '{queue}', 0, '1 day' from unnest(array[:'a', :'b']::uuid[]) tenant_id;
select is(meshhook_metrics.evaluate_alerts(now() + interval '3 seconds'), 2::bigint, 'A and B have a group each');
create temp table deleted as select * from meshhook_metrics.series where tenant_id = :'a' and metric = 'same_total';
delete from meshhook_metrics.series where id in (select id from deleted);
select is(meshhook_metrics.evaluate_alerts(now() + interval '4 seconds'), 1::bigint, 'where the series of A''s are deleted, one ends');
select is((select string_agg(concat_ws(' ', left(tenant_id::text, 1), state, reason), '; ' order by id) from meshhook_metrics.alert_events where state <> 'firing'),
	'1 resolved group_gone', 'A''s, since its group is gone');

-- A rule that is deleted, and another tenant's with the same id: two rules
truncate meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_notifications;
delete from meshhook_metrics.alert_rules;
create temp table reused as select format('11111111-0000-4000-8000-00000000002%s', n)::uuid as id, keys::text[] from (values (1, null), (2, '{status}')) k (n, keys);
insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, group_by, threshold)
select id, :'a', 'a''s ' || coalesce(keys::text, ''), 'shared_total', 'increase', keys, 1 from reused;
select is(meshhook_metrics.evaluate_alerts(now() + interval '5 seconds'), 3::bigint, 'rules of A''s fire');
delete from meshhook_metrics.alert_rules where id in (select id from reused);
insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, group_by, threshold, annotations)
select id, :'b', 'secret ' || coalesce(keys::text, ''), 'shared_total', 'increase', keys, 1, '{"summary": "summary_secret {{ value }}"}' from reused;
select lives_ok('select meshhook_metrics.evaluate_alerts(now() + interval ''6 seconds'')', 'are deleted, and B has rules with the same ids');
select is(pg_temp.ask_as_a('select name, labels, value, annotations from meshhook_metrics.alerts'), '', 'A has no alert any more');
select is(pg_temp.ask_as_a('select string_agg(distinct state || '' '' || reason, ''; '' order by state || '' '' || reason) from meshhook_metrics.alert_events'),
	'("firing threshold; resolved deleted")', 'what fired is resolved, since the rule was deleted');
select is(pg_temp.ask_as_a('select * from meshhook_metrics.alert_events union all select * from meshhook_metrics.alert_events') ~ 'secret|31337|22222222', false, 'and nothing of B''s is in that');
select is_empty(format($$ select payload from meshhook_metrics.alert_notifications where tenant_id = %L and payload::text ~ 'secret|31337|22222222' $$, :'a'),
	'nor in what A''s receivers are told');
-- Once the id's former alerts have ended
do $$begin perform meshhook_metrics.evaluate_alerts(now() + interval '5 seconds'); end$$;
select is(pg_temp.ask_as_b('select name, state, value from meshhook_metrics.alerts order by name'), E'("secret ",firing,31337)\n("secret {status}",firing,31337)', 'B has its own');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
