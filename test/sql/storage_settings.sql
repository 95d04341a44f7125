-- The rows of meshhook_metrics.settings: what is refused, and with which words
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set migrations :folder /sql/include/migrations.sql
\set ECHO none
\i :prepare
begin;
set local client_min_messages = warning;
\i :migrations
set local client_min_messages = notice;
\set ECHO all
\pset format unaligned
\pset tuples_only on
create function pg_temp.refused(name text, value text, tenant uuid default '00000000-0000-0000-0000-000000000000') returns text
language sql as $$
	select pg_temp.mistake(format('insert into meshhook_metrics.settings values (%L, %L, %L)', name, tenant, value))
$$;

-- What there is
select pg_temp.refused('retention', '7 days');
select pg_temp.refused('retention_1M', '7 days');
select pg_temp.refused('', '');

-- Durations
select pg_temp.refused('retention_1m', 'a week');
select pg_temp.refused('retention_1m', '');
select pg_temp.refused('retention_1m', '7');
select pg_temp.refused('retention_1m', '99999999999 years');
select pg_temp.refused('retention_1m', '-7 days');
select pg_temp.refused('retention_1m', '0');
select pg_temp.refused('retention_1m', '23 hours 59 minutes');
select pg_temp.refused('retention_1m', '1001 years');
select pg_temp.refused('retention_live', '119 seconds');
select pg_temp.refused('retention_live', '61 minutes');
select pg_temp.refused('retention_5m', '47 hours');
select pg_temp.refused('retention_1h', '47 hours');
select pg_temp.refused('retention_1d', '6 days');
select pg_temp.refused('retention_events', 'a season');
select pg_temp.refused('retention_events', '23 hours 59 minutes');
select pg_temp.refused('retention_events', '1001 years');
select pg_temp.refused('retention_notifications', '7');
select pg_temp.refused('retention_notifications', '-7 days');
select pg_temp.refused('retention_notifications', '23 hours');
select pg_temp.refused('retention_alert_events', '7 days');
select pg_temp.refused('retention_1m', '7 days', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('retention_events', '7 days', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('retention_notifications', '7 days', '11111111-1111-1111-1111-111111111111');
select pg_temp.mistake($$ insert into meshhook_metrics.settings (name, value) values ('retention_1m', null) $$);
select pg_temp.mistake($$ insert into meshhook_metrics.settings (name, value) values (null, '7 days') $$);

-- Quotas
select pg_temp.refused('max_series', 'many', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_series', '-1', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_series', '1.5', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_series', ' 1', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_series', '', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_series', '1000000000', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_alert_rules', 'many', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_alert_rules', '-1', '11111111-1111-1111-1111-111111111111');
select pg_temp.refused('max_alert_rules', '1.5');
select pg_temp.refused('max_alert_rules', ' 1');
select pg_temp.refused('max_alert_rules', '');
select pg_temp.refused('max_alert_rules', E'1\n');
select pg_temp.refused('max_alert_rules', '1000000000');
select pg_temp.mistake($$ insert into meshhook_metrics.settings (name, value) values ('max_alert_rules', null) $$);

-- What is good
insert into meshhook_metrics.settings (name, value)
values ('retention_live', '2 minutes'), ('retention_1m', '1 day'), ('retention_5m', '2 days'), ('retention_1h', '2 days'), ('retention_1d', '7 days'), ('max_series', '0'),
	('retention_events', '1 day'), ('retention_notifications', '24 hours'), ('max_alert_rules', '0');
update meshhook_metrics.settings set value = '1 hour' where name = 'retention_live';
update meshhook_metrics.settings set value = '1000 years' where name = 'retention_1d';
update meshhook_metrics.settings set value = 'P400D' where name = 'retention_1h';
update meshhook_metrics.settings set value = '1000 years' where name = 'retention_events';
insert into meshhook_metrics.settings values ('max_series', '11111111-1111-1111-1111-111111111111', '999999999');
insert into meshhook_metrics.settings values ('max_alert_rules', '11111111-1111-1111-1111-111111111111', '999999999');
select name, tenant_id, value from meshhook_metrics.settings order by name, tenant_id;

-- A good one that is changed into one that is not
select pg_temp.mistake($$ update meshhook_metrics.settings set value = 'x' where name = 'retention_1h' $$);
select pg_temp.mistake($$ update meshhook_metrics.settings set tenant_id = '11111111-1111-1111-1111-111111111111' where name = 'retention_1h' $$);
select pg_temp.mistake($$ update meshhook_metrics.settings set name = 'retention_2h' where name = 'retention_1h' $$);
select pg_temp.mistake($$ update meshhook_metrics.settings set value = '1 hour' where name = 'retention_events' $$);
select pg_temp.mistake($$ update meshhook_metrics.settings set value = '1 day' where name = 'max_alert_rules' $$);
select pg_temp.brief_mistake($$ insert into meshhook_metrics.settings (name, value) values ('retention_1h', '2 days') $$);

-- Rows that got in while the trigger was off are read with a warning, and delete nothing
alter table meshhook_metrics.settings disable trigger check_settings;
update meshhook_metrics.settings set value = 'x' where name = 'retention_1h';
update meshhook_metrics.settings set value = '-1 second' where name = 'retention_live';
select coalesce(meshhook_metrics.retention('1h')::text, 'forever');
select coalesce(meshhook_metrics.retention('live')::text, 'forever');
update meshhook_metrics.settings set value = 'x' where name = 'retention_events';
update meshhook_metrics.settings set value = '0' where name = 'retention_notifications';
select coalesce(meshhook_metrics.retention('events')::text, 'forever');
select coalesce(meshhook_metrics.retention('notifications')::text, 'forever');
select meshhook_metrics.retention('1d');
delete from meshhook_metrics.settings;
select kept, meshhook_metrics.retention(kept) from unnest(array['live', '1m', '5m', '1h', '1d', 'events', 'notifications']) kept;

-- Jobs, where there is no pg_cron
select meshhook_metrics.schedule();
select meshhook_metrics.schedule();
select meshhook_metrics.scheduled_by_pg_cron();
select meshhook_metrics.unschedule();

-- A schema of that name is not pg_cron
create schema cron;
create table cron.job (jobid bigint, jobname text, active boolean, database name);
insert into cron.job values (1, 'meshhook_metrics_rollup', true, current_database()), (2, 'meshhook_metrics_maintain', true, current_database());
select meshhook_metrics.scheduled_by_pg_cron();
select meshhook_metrics.schedule();
select meshhook_metrics.unschedule();

-- Targets that do not exist
select pg_temp.mistake($$ select meshhook_metrics.rollup('1m') $$);
select pg_temp.mistake($$ select meshhook_metrics.rollup('week') $$);

-- Storage that is not there, or not whole
delete from meshhook_metrics.rollup_state;
select pg_temp.mistake('select meshhook_metrics.close_minutes()');
select pg_temp.mistake('select meshhook_metrics.rollup()');
drop table meshhook_metrics.rollup_state;
select pg_temp.mistake('select meshhook_metrics.close_minutes()');
select pg_temp.mistake('select meshhook_metrics.rollup()');
select pg_temp.mistake('select meshhook_metrics.maintain()');
rollback;
