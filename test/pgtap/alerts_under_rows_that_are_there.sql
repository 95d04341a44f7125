-- Events and notifications whose ids are ahead of their sequences, after a restore of data
-- alone or a change to a logical replica, keep no rule from being evaluated
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

create function pg_temp.ids() returns text
language sql as $$
	select format('events %s, notifications %s',
		(select string_agg(e.id || ' ' || e.state || coalesce(' of ' || e.fired_event_id, ''), ', ' order by e.id) from meshhook_metrics.alert_events e),
		(select string_agg(n.id::text, ' ' order by n.id) from meshhook_metrics.alert_notifications n))
$$;
create function pg_temp.set_ids(events bigint, notifications bigint) returns void
language sql as $$
	select setval('meshhook_metrics.alert_events_id_seq', events, false), setval('meshhook_metrics.alert_notifications_id_seq', notifications, false)
$$;
-- An alert that fires at 0, with ids from these on, and would be resolved at 20
create function pg_temp.start(events bigint, notifications bigint) returns void
language plpgsql as $$
begin
	perform pg_temp.clear(), pg_temp.set_ids(events, notifications), pg_temp.rule(), pg_temp.go('0=12'), pg_temp.sample('depth', pg_temp.t(20), 1);
end
$$;

select pg_temp.start(1, 1);
select pg_temp.evaluate(20);
select is(pg_temp.ids(), 'events 1 firing, 2 resolved of 1, notifications 1 2', 'what happens where ids follow each other');

-- The rows are there, the sequences are at their beginning
select pg_temp.start(1, 1);
select pg_temp.set_ids(1, 1);
select is(pg_temp.evaluate(20), 1::bigint, 'with sequences behind the rows an alert is resolved');
select is(pg_temp.ids(), 'events 1 firing, 2 resolved of 1, notifications 1 2', 'and ids go on after those that are there');

-- Far behind, one of them only
select pg_temp.start(1, 1001);
select pg_temp.set_ids(2, 1001);
select is(pg_temp.evaluate(20), 1::bigint, 'so it is with notifications alone');
select is(pg_temp.ids(), 'events 1 firing, 2 resolved of 1, notifications 1001 1002', 'whose ids go on there');

-- Events were truncated: alerts know with which they have fired
select pg_temp.start(7, 1);
truncate meshhook_metrics.alert_events restart identity;
select pg_temp.rule('{"name": "wide", "metric": "width"}');
select pg_temp.sample('depth', pg_temp.t(10), 12);
select pg_temp.sample('width', pg_temp.t(10), 12);
select pg_temp.evaluate(10);
select is(pg_temp.ids(), 'events 8 firing, notifications 1 2', 'an event has no id with which another alert has fired');
select pg_temp.sample('width', pg_temp.t(20), 1);
select is(pg_temp.evaluate(20), 2::bigint, 'so that both are resolved');

-- The migrations do so, too, and take none back
create function pg_temp.last_ids() returns text
language sql as $$
	select format('events %s, notifications %s', pg_sequence_last_value('meshhook_metrics.alert_events_id_seq'), pg_sequence_last_value('meshhook_metrics.alert_notifications_id_seq'))
$$;
select pg_temp.start(101, 201);
select pg_temp.set_ids(1, 1);
\ir ../sql/include/migrations.sql
select is(pg_temp.last_ids(), 'events 101, notifications 201', 'the migrations have the sequences go on');
select pg_temp.start(101, 201);
select nextval('meshhook_metrics.alert_events_id_seq'), nextval('meshhook_metrics.alert_notifications_id_seq') \g /dev/null
\ir ../sql/include/migrations.sql
select is(pg_temp.last_ids(), 'events 102, notifications 202', 'and take none back');

select * from finish();
rollback;
