-- The migrations of version 0.1.0, as they were, for tests of what becomes of its tables.
-- Its extension is not among them: the tests have the present one.

-- The tables in which metrics are kept. Everything here may be run again: what is
-- there stays as it is, what is missing is made. They are no members of the
-- extension, because pg_dump leaves out too much of tables that are.

-- Each transaction of the flush worker begins with one of these tables: who has them may
-- lock the others, and nobody waits in a circle
do $$
declare
	storage text;
begin
	foreach storage in array array['alert_state', 'flush_state', 'rollup_state'] loop
		if pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', storage)) is not null then
			execute pg_catalog.format('lock table meshhook_metrics.%I in access exclusive mode', storage);
		end if;
	end loop;
end
$$;

-- Labels can be longer than an entry of an index, their digest cannot
create or replace function meshhook_metrics.labels_digest(labels jsonb)
returns bytea
language plpgsql immutable strict parallel safe
set search_path = ''
as $$
begin
	return pg_catalog.sha256(pg_catalog.convert_to(labels::pg_catalog.text, 'UTF8'));
end
$$;

comment on function meshhook_metrics.labels_digest(jsonb) is
'SHA-256 of labels as text in UTF-8. jsonb is canonical, so equal labels, and only those, have equal digests.';

create table if not exists meshhook_metrics.series (
	id bigint generated always as identity primary key,
	tenant_id uuid not null,
	metric text not null,
	kind text not null check (kind in ('counter', 'gauge', 'histogram')),
	labels jsonb not null,
	created_at timestamptz not null default pg_catalog.now()
);

create unique index if not exists series_key
on meshhook_metrics.series (tenant_id, metric, meshhook_metrics.labels_digest(labels));

create index if not exists series_metric
on meshhook_metrics.series (metric, tenant_id);

comment on table meshhook_metrics.series is
'Every combination of tenant, metric and labels that has been recorded. Stays when its rollups are gone.';

create table if not exists meshhook_metrics.live (
	id bigint generated always as identity primary key,
	tenant_id uuid not null,
	at timestamptz not null,
	seconds double precision not null,
	series_id bigint[] not null,
	count bigint[] not null,
	sum double precision[] not null,
	min double precision[],
	max double precision[],
	last double precision[],
	histogram meshhook_metrics.histogram[]
);

create index if not exists live_tenant
on meshhook_metrics.live (tenant_id, id);

-- Alert rules look at the beginning of their windows
create index if not exists live_tenant_at
on meshhook_metrics.live (tenant_id, at);

comment on table meshhook_metrics.live is
'What each flush brought: a row for a tenant, or several where it has many series, with arrays over the series that changed. A row is about the seconds before "at".
count and sum are what was added; min, max and histogram are of these seconds, last is a gauge''s value at their end. An array without any value is null. Deleted soon after it is in rollup_1m (setting retention_live).';

create table if not exists meshhook_metrics.rollup_1m (
	tenant_id uuid not null,
	series_id bigint not null,
	bucket timestamptz not null,
	count bigint not null,
	sum double precision not null,
	min double precision,
	max double precision,
	last double precision,
	histogram meshhook_metrics.histogram,
	primary key (tenant_id, series_id, bucket)
) partition by range (bucket);

create table if not exists meshhook_metrics.rollup_5m (
	tenant_id uuid not null,
	series_id bigint not null,
	bucket timestamptz not null,
	count bigint not null,
	sum double precision not null,
	min double precision,
	max double precision,
	last double precision,
	histogram meshhook_metrics.histogram,
	primary key (tenant_id, series_id, bucket)
) partition by range (bucket);

create table if not exists meshhook_metrics.rollup_1h (
	tenant_id uuid not null,
	series_id bigint not null,
	bucket timestamptz not null,
	count bigint not null,
	sum double precision not null,
	min double precision,
	max double precision,
	last double precision,
	histogram meshhook_metrics.histogram,
	primary key (tenant_id, series_id, bucket)
) partition by range (bucket);

create table if not exists meshhook_metrics.rollup_1d (
	tenant_id uuid not null,
	series_id bigint not null,
	bucket timestamptz not null,
	count bigint not null,
	sum double precision not null,
	min double precision,
	max double precision,
	last double precision,
	histogram meshhook_metrics.histogram,
	primary key (tenant_id, series_id, bucket)
) partition by range (bucket);

-- DROP EXTENSION ... CASCADE takes the columns of its type with it
do $$
declare
	missing record;
begin
	for missing in
		select s.storage, s.type
		from (
			values
				('live', 'meshhook_metrics.histogram[]'),
				('rollup_1m', 'meshhook_metrics.histogram'),
				('rollup_5m', 'meshhook_metrics.histogram'),
				('rollup_1h', 'meshhook_metrics.histogram'),
				('rollup_1d', 'meshhook_metrics.histogram')
		) s (storage, type)
		where not exists (
			select
			from pg_catalog.pg_attribute a
			where a.attrelid = pg_catalog.format('meshhook_metrics.%I', s.storage)::pg_catalog.regclass
				and a.attname = 'histogram'
				and not a.attisdropped)
	loop
		execute pg_catalog.format('alter table meshhook_metrics.%I add column histogram %s', missing.storage, missing.type);
	end loop;
end
$$;

-- Rows come in the order of time, so the newest ones are found by these tiny indexes
create index if not exists rollup_1m_bucket
on meshhook_metrics.rollup_1m using brin (bucket) with (pages_per_range = 32, autosummarize = on);

create index if not exists rollup_5m_bucket
on meshhook_metrics.rollup_5m using brin (bucket) with (pages_per_range = 32, autosummarize = on);

create index if not exists rollup_1h_bucket
on meshhook_metrics.rollup_1h using brin (bucket) with (pages_per_range = 32, autosummarize = on);

create index if not exists rollup_1d_bucket
on meshhook_metrics.rollup_1d using brin (bucket) with (pages_per_range = 32, autosummarize = on);

comment on table meshhook_metrics.rollup_1m is
'Each series'' minutes, UTC, in a partition for each day. A counter''s row: count of calls, sum of what they added. A gauge''s: last, min, max, and sum / count is the mean of its samples. A histogram''s: count, sum, min, max and the histogram itself.';

comment on table meshhook_metrics.rollup_5m is
'Each series'' five minutes, UTC, in a partition for each week from Monday; columns as in rollup_1m.';

comment on table meshhook_metrics.rollup_1h is
'Each series'' hours, UTC, in a partition for each month; columns as in rollup_1m.';

comment on table meshhook_metrics.rollup_1d is
'Each series'' days, UTC, in a partition for each year; columns as in rollup_1m.';

create table if not exists meshhook_metrics.rollup_state (
	target text primary key check (target in ('1m', '5m', '1h', '1d')),
	live_id bigint not null default 0,
	complete_until timestamptz not null default '-infinity',
	retained_from timestamptz not null default '-infinity'
) with (fillfactor = 50);

comment on table meshhook_metrics.rollup_state is
'How far each rollup table is. live_id: the rows of live up to this one are in rollup_1m (the row 1m only). complete_until: the table has all windows before this. retained_from: what there was before this may have been dropped.';

-- A row that was lost is derived from the data, so that nothing is counted twice
insert into meshhook_metrics.rollup_state (target, live_id, complete_until)
select
	'1m',
	coalesce((
		select pg_catalog.max(l.id)
		from meshhook_metrics.live l
		where l.at < newest.bucket + interval '1 minute'), 0),
	coalesce(newest.bucket + interval '1 minute', '-infinity')
from (
	select pg_catalog.max(r.bucket) as bucket
	from meshhook_metrics.rollup_1m r
	where not exists (
		select
		from meshhook_metrics.rollup_state s
		where s.target = '1m')) newest
on conflict (target) do nothing;

insert into meshhook_metrics.rollup_state (target)
values ('5m'), ('1h'), ('1d')
on conflict (target) do nothing;

-- Ids go on where they were, also in a table that was made anew: what is flushed into
-- live must not look as if it had been rolled up, and a new series not like one that
-- has rollups
do $$
declare
	live_ids constant text := pg_catalog.pg_get_serial_sequence('meshhook_metrics.live', 'id');
	series_ids constant text := pg_catalog.pg_get_serial_sequence('meshhook_metrics.series', 'id');
begin
	perform pg_catalog.setval(live_ids, s.live_id)
	from meshhook_metrics.rollup_state s
	where s.target = '1m'
		and s.live_id > 0
		and s.live_id > coalesce(pg_catalog.pg_sequence_last_value(live_ids::pg_catalog.regclass), 0);

	if not exists (select from meshhook_metrics.series) then
		perform pg_catalog.setval(series_ids, used.id)
		from (
			select pg_catalog.max(u.id) as id
			from (
				select pg_catalog.max(r.series_id) as id
				from meshhook_metrics.rollup_1m r
				union all
				select pg_catalog.max(r.series_id)
				from meshhook_metrics.rollup_5m r
				union all
				select pg_catalog.max(r.series_id)
				from meshhook_metrics.rollup_1h r
				union all
				select pg_catalog.max(r.series_id)
				from meshhook_metrics.rollup_1d r
				union all
				select pg_catalog.max(e.id)
				from meshhook_metrics.live l
				cross join lateral pg_catalog.unnest(l.series_id) e (id)) u) used
		where used.id > coalesce(pg_catalog.pg_sequence_last_value(series_ids::pg_catalog.regclass), 0);
	end if;
end
$$;

create table if not exists meshhook_metrics.flush_state (
	region_id bigint primary key,
	tick bigint not null,
	at timestamptz not null
) with (fillfactor = 50);

comment on table meshhook_metrics.flush_state is
'The last flush of each region of shared memory, written in the transaction of the flush: after a crash it tells whether that was committed. Only the worker writes here.';

create table if not exists meshhook_metrics.settings (
	name text not null,
	tenant_id uuid not null default '00000000-0000-0000-0000-000000000000',
	value text not null,
	primary key (name, tenant_id)
);

comment on table meshhook_metrics.settings is
'How long data is kept, and how many series and alert rules a tenant may have; a default holds where there is no row.
retention_live (15 minutes; from 2 minutes to 1 hour), retention_1m (7 days; from 1 day), retention_5m (30 days; from 2 days), retention_1h (400 days; from 2 days), retention_1d (10 years; from 7 days), retention_events (of alert_events, 90 days; from 1 day), retention_notifications (7 days; from 1 day): an interval, for all tenants. max_series, max_alert_rules: a whole number, for the tenant in tenant_id; without a row the setting meshhook_metrics.max_series_per_tenant holds, and 100.';

create or replace function meshhook_metrics.check_settings()
returns trigger
language plpgsql
set search_path = ''
as $$
declare
	allowed record;
	duration interval;
begin
	if new.name in ('max_series', 'max_alert_rules') then
		if new.value !~ '^[0-9]{1,9}$' then
			raise exception '% cannot be "%"', new.name, new.value
				using
					errcode = 'invalid_parameter_value',
					hint = pg_catalog.format('It is a whole number from 0 to 999999999: how many %s the tenant may have.',
						case new.name when 'max_series' then 'series' else 'alert rules' end);
		end if;
		return new;
	end if;

	select limits.*
	into allowed
	from (
		values
			('retention_live', interval '2 minutes', interval '1 hour', '2 minutes to 1 hour'),
			('retention_1m', interval '1 day', interval '1000 years', '1 day to 1000 years'),
			('retention_5m', interval '2 days', interval '1000 years', '2 days to 1000 years'),
			('retention_1h', interval '2 days', interval '1000 years', '2 days to 1000 years'),
			('retention_1d', interval '7 days', interval '1000 years', '7 days to 1000 years'),
			('retention_events', interval '1 day', interval '1000 years', '1 day to 1000 years'),
			('retention_notifications', interval '1 day', interval '1000 years', '1 day to 1000 years')
	) limits (name, shortest, longest, range)
	where limits.name = new.name;
	if not found then
		raise exception 'there is no setting "%"', new.name
			using
				errcode = 'invalid_parameter_value',
				hint = 'The settings are retention_live, retention_1m, retention_5m, retention_1h, retention_1d, retention_events, retention_notifications, max_series and max_alert_rules.';
	end if;

	if new.tenant_id <> '00000000-0000-0000-0000-000000000000' then
		raise exception '% cannot be set for one tenant', new.name
			using
				errcode = 'invalid_parameter_value',
				detail = 'The data of all tenants is in the same partitions, which are dropped as a whole.',
				hint = 'Leave tenant_id out.';
	end if;

	begin
		duration := new.value::interval;
	exception when data_exception then
		raise exception '% cannot be "%"', new.name, new.value
			using
				errcode = 'invalid_datetime_format',
				detail = sqlerrm,
				hint = 'Write it like ''7 days'' or ''15 minutes''.';
	end;
	if not pg_catalog.isfinite(duration) or duration < allowed.shortest or duration > allowed.longest then
		raise exception '% cannot be "%"', new.name, new.value
			using
				errcode = 'invalid_parameter_value',
				hint = pg_catalog.format('It can be from %s.', allowed.range);
	end if;
	return new;
end
$$;

comment on function meshhook_metrics.check_settings() is
'Refuses settings that make no sense: 22023 an unknown name, a value out of range or for one tenant alone, 22007 what is not an interval.';

create or replace trigger check_settings
before insert or update on meshhook_metrics.settings
for each row
execute function meshhook_metrics.check_settings();

-- Nobody but the owner sees a row before there are policies
do $$
declare
	storage text;
begin
	foreach storage in array array[
		'flush_state', 'rollup_state', 'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'settings']
	loop
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
	end loop;
end
$$;

-- The tables of alerting: rules, what is active of them, what has happened, and what is
-- to be told. Everything here may be run again, as with the tables of metrics.

-- Who evaluates the rules holds the row of alert_state. Nobody else changes alerts and
-- events, so who has this table may lock the others.
do $$
begin
	if pg_catalog.to_regclass('meshhook_metrics.alert_state') is not null then
		lock table meshhook_metrics.alert_state in access exclusive mode;
	end if;
end
$$;

create table if not exists meshhook_metrics.alert_state (
	only_row boolean primary key default true check (only_row),
	evaluated_at timestamptz not null default '-infinity',
	rules bigint not null default 0,
	rules_failing bigint not null default 0,
	alerts_left_out bigint not null default 0
) with (fillfactor = 50);

comment on table meshhook_metrics.alert_state is
'One row: when the rules were evaluated last, how many there were, how many of them could not be, and how many alerts were left out because their tenant has 1000 active ones. Who evaluates holds it.';

insert into meshhook_metrics.alert_state
default values
on conflict (only_row) do nothing;

create table if not exists meshhook_metrics.alert_suspensions (
	tenant_id uuid primary key,
	until timestamptz not null,
	failures integer not null,
	error text not null
);

comment on table meshhook_metrics.alert_suspensions is
'Tenants for whom evaluating failed, most likely because it took too long, and who are left alone until then, so that they hold nobody up: a minute, doubled each time up to an hour. Their alerts stay as they are, and are not told of.';

create table if not exists meshhook_metrics.alert_rules (
	id uuid primary key default pg_catalog.gen_random_uuid(),
	tenant_id uuid not null,
	name text not null,
	metric text not null,
	labels jsonb not null default '{}',
	aggregate text not null,
	denominator_metric text,
	denominator_labels jsonb not null default '{}',
	denominator_min double precision not null default 0,
	group_by text[],
	comparison text not null default '>',
	threshold double precision not null,
	recovery_threshold double precision,
	time_window interval not null default '5 minutes',
	for_duration interval not null default '0',
	keep_firing_for interval not null default '0',
	no_data text not null default 'keep_last',
	no_data_for interval not null default '0',
	severity text not null default 'warning',
	annotations jsonb not null default '{}',
	repeat_interval interval default '4 hours',
	enabled boolean not null default true,
	silenced_until timestamptz,
	created_at timestamptz not null default pg_catalog.now(),
	updated_at timestamptz not null default pg_catalog.now(),
	last_error text,
	last_error_at timestamptz,
	unique (tenant_id, name)
);

comment on table meshhook_metrics.alert_rules is
'What shall be told of: an aggregate of a metric over time_window, compared with a threshold. Written by the users of the tenant that it belongs to; the platform''s rules have the nil UUID.
metric, labels: the series, those whose labels contain these. aggregate: as of query_range(). denominator_...: where it is set, the value is a ratio, and known only while the denominator is above 0 and at least denominator_min. group_by: an alert for each combination of these labels'' values. comparison: value, comparison, threshold, from left to right. recovery_threshold: what is firing goes on until the comparison with this one is false as well. for_duration: how long it has to hold before it fires; keep_firing_for: how long it has to have ceased before it is resolved. no_data: what becomes of it while there is no value: ok (as if the comparison were false), firing (as if it were true), keep_last (nothing changes); the first two once there has been none for no_data_for, which the third has no use for. annotations: texts with {{ value }}, {{ threshold }} and {{ labels.x }}; runbook_url is a link. repeat_interval: how often it is told of again while it is firing, null: never. silenced_until: until then it is not told of, but for the end of what was told of before.
last_error: why the rule could not be evaluated when it was tried last, at last_error_at; until that is mended its alerts stay as they are.';

create index if not exists alert_rules_failing
on meshhook_metrics.alert_rules (last_error_at)
where last_error is not null;

create table if not exists meshhook_metrics.alerts (
	rule_id uuid not null,
	fingerprint text not null,
	tenant_id uuid not null,
	name text not null,
	severity text not null,
	labels jsonb not null,
	annotations jsonb not null,
	state text not null check (state in ('pending', 'firing')),
	reason text not null check (reason in ('threshold', 'no_data')),
	value double precision,
	since timestamptz not null,
	started_at timestamptz not null,
	recovering_since timestamptz,
	no_data_since timestamptz,
	fired_event_id bigint,
	notified_at timestamptz,
	primary key (rule_id, fingerprint)
) with (fillfactor = 70);

create index if not exists alerts_tenant
on meshhook_metrics.alerts (tenant_id);

comment on table meshhook_metrics.alerts is
'What is pending or firing now, a row a rule and group of labels; no row is inactive. Only evaluate_alerts() writes here.
since: when this state began; started_at: when what it is about did. reason: the threshold, or that there is no data. recovering_since: the comparison has ceased to hold, and keep_firing_for runs. no_data_since: there is no value. value: the last one. fired_event_id: the event with which it fired. notified_at: when it was told of last.';

create table if not exists meshhook_metrics.alert_events (
	id bigint generated always as identity primary key,
	rule_id uuid not null,
	tenant_id uuid not null,
	fingerprint text not null,
	name text not null,
	severity text not null,
	labels jsonb not null,
	annotations jsonb not null,
	state text not null check (state in ('pending', 'firing', 'resolved', 'inactive')),
	reason text not null check (reason in ('threshold', 'no_data', 'disabled', 'deleted', 'group_gone')),
	value double precision,
	threshold double precision,
	at timestamptz not null,
	started_at timestamptz not null,
	fired_event_id bigint,
	check ((state = 'resolved') = (fired_event_id is not null))
);

create index if not exists alert_events_tenant
on meshhook_metrics.alert_events (tenant_id, id);

create index if not exists alert_events_at
on meshhook_metrics.alert_events (at);

-- What has fired is resolved once, whoever writes
create unique index if not exists alert_events_resolved
on meshhook_metrics.alert_events (fired_event_id);

comment on table meshhook_metrics.alert_events is
'Every change of state of an alert, written in the transaction that changes it, and streamed by Realtime. Kept for retention_events.
state: the new one; inactive is what was pending and has not fired. reason: the threshold, or no_data; or why it ended without either: the rule was disabled or deleted, or the group is none of the rule''s any more. fired_event_id: of a resolved one, the event with which it had fired; each is resolved once.';

create table if not exists meshhook_metrics.alert_receivers (
	tenant_id uuid not null,
	name text not null,
	url text,
	headers jsonb not null default '{}',
	created_at timestamptz not null default pg_catalog.now(),
	primary key (tenant_id, name)
);

comment on table meshhook_metrics.alert_receivers is
'Who is told of a tenant''s alerts; a tenant without a row has one receiver, default, without a url. url and headers: where the notification is posted to. Not for tenants'' users, since the server sends requests to what is written here.';

create table if not exists meshhook_metrics.alert_notifications (
	id bigint generated always as identity primary key,
	tenant_id uuid not null,
	rule_id uuid not null,
	receiver text not null,
	payload jsonb not null,
	created_at timestamptz not null default pg_catalog.now(),
	attempts integer not null default 0,
	next_attempt_at timestamptz not null default pg_catalog.now(),
	last_error text,
	delivered_at timestamptz,
	dead_at timestamptz,
	request_id bigint
) with (fillfactor = 70);

-- Those of one rule and receiver go out one after the other
create index if not exists alert_notifications_waiting
on meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, id)
where delivered_at is null and dead_at is null;

create index if not exists alert_notifications_due
on meshhook_metrics.alert_notifications (next_attempt_at)
where delivered_at is null and dead_at is null;

create index if not exists alert_notifications_requested
on meshhook_metrics.alert_notifications (request_id)
where request_id is not null;

comment on table meshhook_metrics.alert_notifications is
'The outbox: what is to be delivered, written in the transaction of the events it tells of. Taken with claim_notifications() and finish_notification(), or handed to pg_net by send_notifications(). Kept for retention_notifications.
payload: Alertmanager''s webhook, version 4. attempts: how often it was taken; next_attempt_at: from when on it may be taken (again). delivered_at, dead_at: it was delivered, or given up. request_id: pg_net''s, while it is under way.';

-- In a table that was made anew, no event is taken for one with which an alert has fired
do $$
declare
	event_ids constant text := pg_catalog.pg_get_serial_sequence('meshhook_metrics.alert_events', 'id');
begin
	perform pg_catalog.setval(event_ids, fired.id)
	from (
		select pg_catalog.max(a.fired_event_id) as id
		from meshhook_metrics.alerts a) fired
	where fired.id > coalesce(pg_catalog.pg_sequence_last_value(event_ids::pg_catalog.regclass), 0);
end
$$;

-- Rules are written by people, and errors are sentences
create or replace function meshhook_metrics.check_alert_rule()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
	key_pattern constant text := '^[a-zA-Z_][a-zA-Z0-9_]{0,63}$';
	checked record;
begin
	if tg_op = 'UPDATE' and (new.id, new.tenant_id) <> (old.id, old.tenant_id) then
		raise exception 'rule "%" cannot be given another % than it has', old.name, case when new.id <> old.id then 'id' else 'tenant' end
			using
				errcode = 'invalid_parameter_value',
				hint = 'Insert a new rule, and delete this one.';
	end if;
	if new.name !~ '^[^[:cntrl:]]{1,128}$' or new.name ~ '^[[:space:]]*$' then
		raise exception 'a rule cannot be called "%"', pg_catalog.left(new.name, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'A name has 1 to 128 characters, not only blanks, and no line breaks or other control characters.';
	end if;

	for checked in
		select m.name, m.value
		from (values ('metric', new.metric), ('denominator_metric', new.denominator_metric)) m (name, value)
		where m.value !~ '^[a-zA-Z_][a-zA-Z0-9_]{0,127}$'
	loop
		raise exception '% cannot be "%"', checked.name, pg_catalog.left(checked.value, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'A metric''s name has letters, digits and underscores, at most 128, and does not begin with a digit.';
	end loop;
	new.labels := meshhook_metrics.query_range_filter(new.labels);
	new.denominator_labels := meshhook_metrics.query_range_filter(new.denominator_labels);
	if pg_catalog.octet_length(new.labels::pg_catalog.text) > 4000
		or pg_catalog.octet_length(new.denominator_labels::pg_catalog.text) > 4000
	then
		raise exception 'labels of rule "%" are too long', new.name
			using
				errcode = 'invalid_parameter_value',
				hint = 'No series has more than 10 labels with values of 256 bytes; look for those that matter.';
	end if;
	perform meshhook_metrics.query_range_aggregate(new.aggregate, null, new.metric);

	if new.denominator_metric is null and (new.denominator_labels <> '{}' or new.denominator_min <> 0) then
		raise exception 'there is no denominator_metric for denominator_labels or denominator_min'
			using
				errcode = 'invalid_parameter_value',
				hint = 'Set denominator_metric to have the value divided by it, or leave the others out.';
	end if;
	if new.denominator_metric is not null and new.aggregate not in ('increase', 'rate', 'count', 'avg', 'last') then
		raise exception 'a ratio of "%" says nothing', new.aggregate
			using
				errcode = 'invalid_parameter_value',
				hint = 'With denominator_metric the aggregate is increase, rate, count, avg or last.';
	end if;
	for checked in
		select n.name, n.value
		from (
			values
				('threshold', new.threshold),
				('recovery_threshold', new.recovery_threshold),
				('denominator_min', new.denominator_min)
		) n (name, value)
		where n.value in ('NaN', 'Infinity', '-Infinity')
			or n.name = 'denominator_min' and n.value < 0
	loop
		raise exception '% cannot be %', checked.name, checked.value
			using
				errcode = 'invalid_parameter_value',
				hint = case checked.name when 'denominator_min' then 'It is a number from 0 on.' else 'It is a finite number.' end;
	end loop;

	if pg_catalog.cardinality(new.group_by) = 0 then
		new.group_by := null;
	end if;
	for checked in
		select k.key
		from pg_catalog.unnest(new.group_by) k (key)
		where (k.key ~ key_pattern) is not true
			or k.key in ('alertname', 'severity', 'tenant_id')
		limit 1
	loop
		raise exception 'group_by cannot have %', coalesce('"' || pg_catalog.left(checked.key, 200) || '"', 'a null')
			using
				errcode = 'invalid_parameter_value',
				hint = 'It lists names of labels, such as ''{queue}''. An alert has labels alertname, severity and tenant_id of its own.';
	end loop;
	if pg_catalog.array_ndims(new.group_by) > 1 then
		raise exception 'group_by has % dimensions', pg_catalog.array_ndims(new.group_by)
			using
				errcode = 'invalid_parameter_value',
				hint = 'It is a list of names of labels, such as ''{queue,status}''.';
	end if;
	if pg_catalog.cardinality(new.group_by) > 10
		or pg_catalog.cardinality(new.group_by) > (select pg_catalog.count(distinct k) from pg_catalog.unnest(new.group_by) k)
	then
		raise exception 'group_by has a label twice, or more than 10'
			using
				errcode = 'invalid_parameter_value',
				hint = 'It lists names of labels, each once, such as ''{queue,status}''.';
	end if;

	for checked in
		select e.name, e.value, e.allowed
		from (
			values
				('comparison', new.comparison, array['>', '>=', '<', '<=', '=', '<>']),
				('no_data', new.no_data, array['ok', 'firing', 'keep_last']),
				('severity', new.severity, array['info', 'warning', 'critical'])
		) e (name, value, allowed)
		where e.value <> all (e.allowed)
	loop
		raise exception '% cannot be "%"', checked.name, pg_catalog.left(checked.value, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = pg_catalog.format('It is one of %s.', pg_catalog.array_to_string(checked.allowed, ', '));
	end loop;
	if new.recovery_threshold is not null and new.comparison in ('=', '<>') then
		raise exception 'a rule with comparison % has no recovery_threshold', new.comparison
			using
				errcode = 'invalid_parameter_value',
				hint = 'It is resolved when the comparison with the threshold ceases to hold; leave recovery_threshold out.';
	end if;
	if new.comparison in ('>', '>=') and new.recovery_threshold > new.threshold
		or new.comparison in ('<', '<=') and new.recovery_threshold < new.threshold
	then
		raise exception 'recovery_threshold % is on the wrong side of threshold %', new.recovery_threshold, new.threshold
			using
				errcode = 'invalid_parameter_value',
				detail = pg_catalog.format('What fires with a value %s %s could be resolved at once.', new.comparison, new.threshold),
				hint = case when new.comparison in ('>', '>=') then 'It is at most the threshold.' else 'It is at least the threshold.' end;
	end if;

	for checked in
		select d.name, d.value, d.shortest
		from (
			values
				('time_window', new.time_window, interval '10 seconds'),
				('for_duration', new.for_duration, interval '0'),
				('keep_firing_for', new.keep_firing_for, interval '0'),
				('no_data_for', new.no_data_for, interval '0'),
				('repeat_interval', new.repeat_interval, interval '1 minute')
		) d (name, value, shortest)
		where not pg_catalog.isfinite(d.value)
			or d.value not between d.shortest and interval '31 days'
			or extract(year from d.value) <> 0
			or extract(month from d.value) <> 0
			or d.name = 'time_window' and extract(epoch from d.value) % 1 <> 0
	loop
		raise exception '% cannot be "%"', checked.name, checked.value
			using
				errcode = 'invalid_parameter_value',
				hint = pg_catalog.format('It is from %s to 31 days, %s.',
					case checked.shortest when '0' then '0' when '10 seconds' then '10 seconds' else '1 minute' end,
					case checked.name when 'time_window' then 'in whole seconds, without months' else 'without months' end);
	end loop;
	if new.no_data = 'keep_last' and new.no_data_for <> interval '0' then
		raise exception 'no_data_for is for rules whose no_data is ok or firing'
			using
				errcode = 'invalid_parameter_value',
				hint = 'With keep_last nothing changes, however long there are no data; leave no_data_for 0, or set no_data.';
	end if;

	perform meshhook_metrics.check_alert_annotations(new.annotations);
	new.updated_at := pg_catalog.now();
	-- It may be mended, so it is the next to be tried; apart from others, as long as it
	-- has an error
	if new.last_error is not null then
		new.last_error_at := '-infinity';
	end if;
	return new;
end
$$;

comment on function meshhook_metrics.check_alert_rule() is
'Refuses alert rules that make no sense, with 22023 and what is wrong.';

create or replace function meshhook_metrics.check_alert_annotations(annotations jsonb)
returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	wrong record;
begin
	if pg_catalog.jsonb_typeof(annotations) <> 'object' then
		raise exception 'annotations are not an object, but %', pg_catalog.jsonb_typeof(annotations)
			using
				errcode = 'invalid_parameter_value',
				hint = 'Give texts by name, like {"summary": "error rate is {{ value }}"}.';
	end if;
	if (select pg_catalog.count(*) from pg_catalog.jsonb_object_keys(annotations)) > 20
		or pg_catalog.octet_length(annotations::pg_catalog.text) > 4000
	then
		raise exception 'annotations are too long'
			using
				errcode = 'invalid_parameter_value',
				detail = 'There are more than 20, or they have more than 4000 bytes in all.',
				hint = 'Put longer instructions behind runbook_url.';
	end if;
	if pg_catalog.regexp_count(annotations::pg_catalog.text, '[{]{2}') > 20 then
		raise exception 'annotations have more than 20 {{ }}'
			using
				errcode = 'invalid_parameter_value',
				hint = 'Name what matters, and put the rest behind runbook_url.';
	end if;

	for wrong in
		select a.key, pg_catalog.jsonb_typeof(a.value) as type
		from pg_catalog.jsonb_each(annotations) a
		where pg_catalog.jsonb_typeof(a.value) <> 'string'
			or a.key !~ '^[a-zA-Z_][a-zA-Z0-9_]{0,63}$'
	loop
		raise exception 'annotation "%" %', pg_catalog.left(wrong.key, 200),
				case
					when wrong.type <> 'string' then 'is not a text, but ' || wrong.type
					else 'has a strange name'
				end
			using
				errcode = 'invalid_parameter_value',
				hint = 'Names have letters, digits and underscores, at most 64; give each a text.';
	end loop;

	for wrong in
		select a.key, m.found[1] as placeholder
		from pg_catalog.jsonb_each_text(annotations) a
		cross join lateral pg_catalog.regexp_matches(a.value, '[{]{2}(.*?(?:[}]{2}|$))', 'g') m (found)
		where m.found[1] !~ '^[[:space:]]*(value|threshold|labels[.][a-zA-Z_][a-zA-Z0-9_]*)[[:space:]]*[}]{2}$'
		limit 1
	loop
		raise exception 'annotation "%" has {{%, which is not known', wrong.key, pg_catalog.left(wrong.placeholder, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'A text can have {{ value }}, {{ threshold }} and {{ labels.x }} for the label x, each with }} at its end.';
	end loop;

	if annotations ->> 'runbook_url' !~ '^https?://[^[:space:]]+$' then
		raise exception 'runbook_url cannot be "%"', pg_catalog.left(annotations ->> 'runbook_url', 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'It is a link that begins with https:// or http://.';
	end if;
end
$$;

comment on function meshhook_metrics.check_alert_annotations(jsonb) is
'Refuses annotations of an alert rule that are not texts, or have placeholders that do not exist, with 22023 and what is wrong.';

-- Whoever inserts need not be allowed to read the settings. After the insertion, when
-- row level security has decided that the tenant is the user's: else one could learn
-- of another's quota.
create or replace function meshhook_metrics.count_alert_rules()
returns trigger
language plpgsql
security definer
-- pg_temp last, or a type of the caller's there would be taken for one of PostgreSQL's
set search_path = pg_catalog, pg_temp
as $$
declare
	allowed bigint;
begin
	-- A snapshot from before would not show what others have inserted since
	if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
		raise exception 'alert rules are inserted in transactions that are READ COMMITTED'
			using
				errcode = 'invalid_transaction_state',
				hint = 'Begin with BEGIN ISOLATION LEVEL READ COMMITTED.';
	end if;
	-- One at a time for a tenant, so that none overlooks another's
	perform pg_advisory_xact_lock(hashtext('meshhook_metrics.alert_rules'), hashtext(new.tenant_id::pg_catalog.text));
	allowed := coalesce(
		(select s.value::pg_catalog.int8
		from meshhook_metrics.settings s
		where s.name = 'max_alert_rules'
			and s.tenant_id = new.tenant_id
			and s.value ~ '^[0-9]{1,9}$'),
		100);
	if (select count(*) from meshhook_metrics.alert_rules r where r.tenant_id = new.tenant_id) > allowed then
		raise exception 'this tenant has % alert rules already, as many as it may have', allowed
			using
				errcode = 'configuration_limit_exceeded',
				hint = 'Delete a rule that is not needed, let one rule stand for several with group_by, or ask the administrator for more (setting max_alert_rules).';
	end if;
	return null;
end
$$;

comment on function meshhook_metrics.count_alert_rules() is
'Refuses a rule beyond the tenant''s quota, max_alert_rules in table settings or else 100, with 53400. With the owner''s rights, since settings show themselves to nobody else.';

create or replace trigger check_alert_rule
before insert or update of
	id, tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_labels, denominator_min, group_by, comparison,
	threshold, recovery_threshold, time_window, for_duration, keep_firing_for, no_data, no_data_for, severity, annotations,
	repeat_interval, enabled, silenced_until
on meshhook_metrics.alert_rules
for each row
execute function meshhook_metrics.check_alert_rule();

create or replace trigger count_alert_rules
after insert on meshhook_metrics.alert_rules
for each row
execute function meshhook_metrics.count_alert_rules();

create or replace function meshhook_metrics.check_alert_receiver()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
	if new.name !~ '^[^[:cntrl:]]{1,128}$' or new.name ~ '^[[:space:]]*$' then
		raise exception 'a receiver cannot be called "%"', pg_catalog.left(new.name, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'A name has 1 to 128 characters, not only blanks, and no line breaks or other control characters.';
	end if;
	if new.url !~ '^https?://[^[:space:]]+$' then
		raise exception 'receiver "%" cannot have url "%"', new.name, pg_catalog.left(new.url, 200)
			using
				errcode = 'invalid_parameter_value',
				hint = 'It begins with https:// or http://; null where a process outside the database delivers.';
	end if;
	if pg_catalog.jsonb_typeof(new.headers) <> 'object'
		or exists (
			select
			from pg_catalog.jsonb_each(new.headers) h
			where pg_catalog.jsonb_typeof(h.value) <> 'string'
				or h.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$'
				or h.value #>> '{}' ~ E'[\r\n]')
	then
		raise exception 'receiver "%" has headers that are none', new.name
			using
				errcode = 'invalid_parameter_value',
				hint = 'Give an object of texts, like {"Authorization": "Bearer ..."}, without line breaks.';
	end if;
	return new;
end
$$;

comment on function meshhook_metrics.check_alert_receiver() is
'Refuses receivers whose name, url or headers cannot be, with 22023 and what is wrong.';

create or replace trigger check_alert_receiver
before insert or update on meshhook_metrics.alert_receivers
for each row
execute function meshhook_metrics.check_alert_receiver();

do $$
declare
	storage text;
begin
	foreach storage in array array[
		'alert_state', 'alert_suspensions', 'alert_rules', 'alerts', 'alert_events', 'alert_notifications', 'alert_receivers']
	loop
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
	end loop;
end
$$;

-- Who sees what: a tenant its own rows, everybody else nothing

-- A site may have a function of its own here, so one that exists is left alone
do $do$
begin
	if pg_catalog.to_regprocedure('meshhook_metrics.tenant_ids()') is not null then
		return;
	end if;

	create function meshhook_metrics.tenant_ids()
	returns setof uuid
	language plpgsql stable
	set search_path = ''
	as $$
	declare
		tenants jsonb;
	begin
		-- Anybody who may create in public could make a function of that name
		if exists (
			select
			from pg_catalog.pg_proc p
			join pg_catalog.pg_roles r
				on r.oid = p.proowner
			where p.oid = pg_catalog.to_regprocedure('public.user_project_ids()')
				and p.prorettype = 'pg_catalog.uuid'::pg_catalog.regtype
				and (
					r.rolsuper
					or p.proowner = (
						select own.proowner
						from pg_catalog.pg_proc own
						where own.oid = 'meshhook_metrics.tenant_ids()'::pg_catalog.regprocedure)))
		then
			return query execute 'select public.user_project_ids()';
			return;
		end if;

		tenants := nullif(pg_catalog.current_setting('request.jwt.claims', true), '')::jsonb -> 'app_metadata' -> 'tenant_ids';
		if pg_catalog.jsonb_typeof(tenants) = 'array' then
			return query
			select element::uuid
			from pg_catalog.jsonb_array_elements_text(tenants) element
			where element ~ '^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$';
		end if;
	end
	$$;

	comment on function meshhook_metrics.tenant_ids() is
	'The tenants whose metrics the caller may read; every policy asks it. The rows of public.user_project_ids() where that exists and belongs to the owner of this function or to a superuser; else the array app_metadata.tenant_ids of the claims in request.jwt.claims.
The one function that a site replaces: CREATE OR REPLACE FUNCTION keeps policies and grants, and applying the migrations again keeps the function.';
end
$do$;

-- The worker writes as the owner of the tables, who should not be a superuser. So
-- what a superuser has made, or made again, goes to whom the other tables belong, or
-- the schema.
do $$
declare
	keeper name;
	own_storage text[] := array[
		'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'settings',
		'alert_state', 'alert_suspensions', 'alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications'];
	own_functions text[] := array[
		'labels_digest', 'check_settings', 'tenant_ids',
		'check_alert_rule', 'check_alert_annotations', 'check_alert_receiver', 'count_alert_rules'];
	strange text;
begin
	select owners.name
	into keeper
	from (
		select r.rolname as name, r.rolsuper, c.oid::bigint as age
		from pg_catalog.pg_class c
		join pg_catalog.pg_roles r
			on r.oid = c.relowner
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and c.relname = any (own_storage)
		union all
		select r.rolname, r.rolsuper, 'infinity'::double precision
		from pg_catalog.pg_namespace n
		join pg_catalog.pg_roles r
			on r.oid = n.nspowner
		where n.nspname = 'meshhook_metrics') owners
	where not owners.rolsuper
	order by owners.age
	limit 1;
	if keeper is null or not pg_catalog.pg_has_role(keeper, 'member') then
		return;
	end if;

	for strange in
		select pg_catalog.format('table %s', c.oid::pg_catalog.regclass)
		from pg_catalog.pg_class c
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and (
				c.relname = any (own_storage)
				or c.relname in (
					select l.leaf
					from meshhook_metrics.rollup_targets() t
					cross join lateral meshhook_metrics.leaves(t.target) l))
			and pg_catalog.pg_get_userbyid(c.relowner) <> keeper
		union all
		select pg_catalog.format('function %s', p.oid::pg_catalog.regprocedure)
		from pg_catalog.pg_proc p
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and p.proname = any (own_functions)
			and pg_catalog.pg_get_userbyid(p.proowner) <> keeper
	loop
		execute pg_catalog.format('alter %s owner to %I', strange, keeper);
	end loop;
end
$$;

-- Policies. A tenant's rows are its own, and its rules are its users' to write; how far the rollups and flushes are is about
-- nobody in particular, and query_range() has to know. Settings show themselves to
-- nobody.
do $$
declare
	policy record;
	readers text := case
		when exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then 'authenticated'
		else 'public'
	end;
begin
	-- In the order of the flush worker, so that nobody waits in a circle
	lock table meshhook_metrics.alert_state, meshhook_metrics.flush_state, meshhook_metrics.rollup_state in access exclusive mode;
	for policy in
		select s.storage, s.name, s.shown
		from (
			values
				('alerts', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('alert_events', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('series', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('live', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1m', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_5m', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1h', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_1d', 'tenants_read_their_own', 'tenant_id in (select meshhook_metrics.tenant_ids())'),
				('rollup_state', 'readers_see_how_far_it_is', $q$target in ('1m', '5m', '1h', '1d')$q$),
				('flush_state', 'readers_see_how_far_it_is', 'tick > 0')
		) s (storage, name, shown)
		where not exists (
			select
			from pg_catalog.pg_policy p
			where p.polrelid = pg_catalog.format('meshhook_metrics.%I', s.storage)::pg_catalog.regclass
				and p.polname = s.name)
	loop
		execute pg_catalog.format('create policy %I on meshhook_metrics.%I for select to %s using (%s)',
			policy.name, policy.storage, readers, policy.shown);
	end loop;

	if not exists (
		select
		from pg_catalog.pg_policy p
		where p.polrelid = 'meshhook_metrics.alert_rules'::pg_catalog.regclass
			and p.polname = 'tenants_manage_their_own')
	then
		execute pg_catalog.format(
			'create policy tenants_manage_their_own on meshhook_metrics.alert_rules for all to %s '
			'using (tenant_id in (select meshhook_metrics.tenant_ids())) '
			'with check (tenant_id in (select meshhook_metrics.tenant_ids()))',
			readers);
	end if;
end
$$;

-- Grants on tables. Default privileges may have given the API's roles rights on all
-- that is created; here they get what is listed, and nothing else. What a site has
-- added to the schema is its own.
do $$
declare
	storage text;
	api_role name;
	-- In the order of who inserts a rule, and of who takes notifications
	tables text[] := array[
		'alert_rules', 'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'settings',
		'alert_state', 'alert_suspensions', 'alerts', 'alert_events', 'alert_notifications', 'alert_receivers'];
	for_tenants text[] := array[
		'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state',
		'alert_rules', 'alerts', 'alert_events'];
	-- The rest of a rule is the server's: id, times, errors
	written_by_people constant text :=
		'tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_labels, denominator_min, group_by, comparison, threshold, '
		'recovery_threshold, time_window, for_duration, keep_firing_for, no_data, no_data_for, severity, annotations, '
		'repeat_interval, enabled, silenced_until';
	api_roles name[] := array(
		select r.rolname
		from pg_catalog.pg_roles r
		where r.rolname in ('anon', 'authenticated', 'service_role'));
begin
	revoke all on schema meshhook_metrics from public;
	foreach api_role in array api_roles loop
		execute pg_catalog.format('revoke all on schema meshhook_metrics from %I', api_role);
		if api_role <> 'anon' then
			execute pg_catalog.format('grant usage on schema meshhook_metrics to %I', api_role);
		end if;
	end loop;

	for storage in
		select pg_catalog.unnest(tables)
		union all
		select l.leaf
		from meshhook_metrics.rollup_targets() t
		cross join lateral meshhook_metrics.leaves(t.target) l
	loop
		-- A leaf that was attached by hand may lack it
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
		execute pg_catalog.format('revoke all on meshhook_metrics.%I from public', storage);
		foreach api_role in array api_roles loop
			execute pg_catalog.format('revoke all on meshhook_metrics.%I from %I', storage, api_role);
			if api_role = 'service_role' and storage = any (tables)
				or api_role = 'authenticated' and storage = any (for_tenants)
			then
				execute pg_catalog.format('grant select on meshhook_metrics.%I to %I', storage, api_role);
			elsif api_role = 'authenticated' and storage = 'flush_state' then
				grant select (at) on meshhook_metrics.flush_state to authenticated;
			end if;
			if api_role <> 'anon' and storage = 'alert_rules' then
				execute pg_catalog.format('grant insert (%1$s), update (%1$s), delete on meshhook_metrics.alert_rules to %2$I',
					written_by_people, api_role);
			elsif api_role = 'service_role' and storage = 'alert_receivers' then
				grant insert, update, delete on meshhook_metrics.alert_receivers to service_role;
			elsif api_role = 'service_role' and storage = 'alert_notifications' then
				grant update (attempts, next_attempt_at, last_error, delivered_at, dead_at) on meshhook_metrics.alert_notifications to service_role;
			end if;
		end loop;
	end loop;

	foreach storage in array array['series', 'live', 'alert_events', 'alert_notifications'] loop
		execute pg_catalog.format('revoke all on sequence %s from public',
			pg_catalog.pg_get_serial_sequence('meshhook_metrics.' || storage, 'id'));
		foreach api_role in array api_roles loop
			execute pg_catalog.format('revoke all on sequence %s from %I',
				pg_catalog.pg_get_serial_sequence('meshhook_metrics.' || storage, 'id'), api_role);
		end loop;
	end loop;
end
$$;

-- Grants on functions: those of the extension, and those of the migrations
do $$
declare
	routine record;
	api_role name;
	refused bigint := 0;
	recording text[] := array[
		'inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since', 'record', 'describe',
		'snapshot', 'status', 'prometheus', 'flush', 'claim_notifications', 'finish_notification'];
begin
	for routine in
		select
			p.oid,
			p.proname as name,
			p.oid::pg_catalog.regprocedure as signature,
			pg_catalog.pg_get_userbyid(live.relowner) as keeper
		from pg_catalog.pg_proc p
		cross join pg_catalog.pg_class live
		where p.pronamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and live.oid = 'meshhook_metrics.live'::pg_catalog.regclass
			and (
				p.proname in (
					'labels_digest', 'check_settings', 'tenant_ids',
					'check_alert_rule', 'check_alert_annotations', 'check_alert_receiver', 'count_alert_rules')
				or exists (
					select
					from pg_catalog.pg_depend d
					join pg_catalog.pg_extension e
						on e.oid = d.refobjid
					where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
						and d.objid = p.oid
						and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
						and d.deptype = 'e'
						and e.extname = 'meshhook_metrics'))
	loop
		if not pg_catalog.has_function_privilege(routine.oid, 'execute with grant option') then
			refused := refused + 1;
			continue;
		end if;

		execute pg_catalog.format('revoke execute on routine %s from public', routine.signature);
		-- The worker rolls up as the owner of the tables
		if not pg_catalog.has_function_privilege(routine.keeper, routine.oid, 'execute') then
			execute pg_catalog.format('grant execute on routine %s to %I', routine.signature, routine.keeper);
		end if;
		for api_role in
			select r.rolname
			from pg_catalog.pg_roles r
			where r.rolname in ('anon', 'authenticated', 'service_role')
		loop
			execute pg_catalog.format('revoke execute on routine %s from %I', routine.signature, api_role);
			if api_role <> 'anon' and routine.name ~ '^(histogram|query_range|tenant_ids$|check_alert_annotations$)'
				or api_role = 'service_role' and routine.name = any (recording)
			then
				execute pg_catalog.format('grant execute on routine %s to %I', routine.signature, api_role);
			end if;
		end loop;
	end loop;
	if refused > 0 then
		raise warning '% may not grant % functions of meshhook_metrics', current_user, refused
			using hint = 'Apply this migration as the owner of the extension.';
	end if;
end
$$;

-- Realtime streams the tables of this publication
do $$
declare
	streamed text;
begin
	for streamed in
		select t.name
		from pg_catalog.unnest(array['live', 'alert_events']) t (name)
		where exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime')
			and not exists (
				select
				from pg_catalog.pg_publication_tables
				where pubname = 'supabase_realtime'
					and schemaname = 'meshhook_metrics'
					and tablename = t.name)
	loop
		begin
			execute pg_catalog.format('alter publication supabase_realtime add table meshhook_metrics.%I', streamed);
		exception when insufficient_privilege then
			raise notice 'meshhook_metrics.% is not in the publication supabase_realtime, which belongs to another role', streamed
				using hint = pg_catalog.format('As its owner: ALTER PUBLICATION supabase_realtime ADD TABLE meshhook_metrics.%I;', streamed);
		end;
	end loop;
end
$$;
