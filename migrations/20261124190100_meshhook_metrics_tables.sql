-- The tables in which metrics are kept. Everything here may be run again: what is
-- there stays as it is, what is missing is made. They are no members of the
-- extension, because pg_dump leaves out too much of tables that are.

-- Others may have made operators and functions in a schema of the session's search_path
do $$
begin
	perform pg_catalog.set_config('meshhook.search_path', pg_catalog.current_setting('search_path'), false);
	perform pg_catalog.set_config('search_path', '', false);
end
$$;

-- After a restore it may belong to another role than applies this. Then it ends here and
-- says what to do, and not half-way for a permission that is missing.
do $$
declare
	strange record;
begin
	select pg_catalog.pg_get_userbyid(o.owner) as owner, r.rolsuper as of_superuser, o.what
	into strange
	from (
		select n.nspowner as owner, 'schema meshhook_metrics' as what, 0 as place
		from pg_catalog.pg_namespace n
		where n.nspname = 'meshhook_metrics'
			and not pg_catalog.has_schema_privilege(n.oid, 'create')
		union all
		select c.relowner, pg_catalog.format('table meshhook_metrics.%I', c.relname), 1
		from pg_catalog.pg_class c
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and c.relname in (
				'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'flush_state', 'metrics', 'settings',
				'alert_state', 'alert_gaps', 'alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications')
			and not pg_catalog.pg_has_role(c.relowner, 'usage')) o
	join pg_catalog.pg_roles r
		on r.oid = o.owner
	order by o.place, o.what
	limit 1;
	if found then
		raise exception '% belongs to %, and % may not change it', strange.what, strange.owner, current_user
			using
				errcode = 'insufficient_privilege',
				hint = case
					when strange.of_superuser then pg_catalog.format(
						'As a superuser: alter schema meshhook_metrics owner to %I; then apply the migrations once as the superuser, which gives it the tables as well.',
						current_user)
					else pg_catalog.format('Apply the migrations as %s.', strange.owner)
				end;
	end if;
	if not pg_catalog.has_function_privilege('meshhook_metrics.rollup_targets()', 'execute') then
		raise exception '% may not call the functions of the extension meshhook_metrics', current_user
			using
				errcode = 'insufficient_privilege',
				detail = 'The extension belongs to another role, as after a restore by a superuser into a database of another owner.',
				hint = 'Apply the migrations once as a superuser, which lets the owner of the tables call them, and grant them further.';
	end if;
end
$$;

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

alter table meshhook_metrics.series add column if not exists last_day date not null default (pg_catalog.now() at time zone 'UTC')::pg_catalog.date;

-- Room on each page for the days that the worker writes: no index has that column
alter table meshhook_metrics.series set (fillfactor = 90);

alter table meshhook_metrics.series add column if not exists reset_at timestamptz;

comment on column meshhook_metrics.series.reset_at is
'When a gauge was reset of which nothing has been flushed since: the level that it had before does not come back.';

-- The worker remembers ids. ALWAYS: rows are gone as well for a session that is a replica. (The
-- apply worker of a subscription calls triggers of rows only; see docs/operations.md.)
create or replace trigger series_leave
before delete or update of id, tenant_id, metric, labels on meshhook_metrics.series
for each statement
execute function meshhook_metrics.series_leave();

alter table meshhook_metrics.series enable always trigger series_leave;

comment on table meshhook_metrics.series is
'Every combination of tenant, metric and labels that has been recorded. last_day: the UTC day of the newest flush that had samples of it; it may lag behind by up to a day. Goes when its rollups are gone.';

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

create table if not exists meshhook_metrics.metrics (
	name text primary key check (name ~ '^[a-zA-Z_][a-zA-Z0-9_]{0,127}$'),
	kind text not null check (kind in ('counter', 'gauge', 'histogram')),
	help text check (pg_catalog.octet_length(help) <= 1024),
	unit text check (pg_catalog.octet_length(unit) <= 64),
	min_exponent integer check (min_exponent is null or kind = 'histogram' and min_exponent between -1022 and 991)
);

comment on table meshhook_metrics.metrics is
'What describe() said of each metric: its kind, help, unit and, of a histogram, where its window begins (2^min_exponent). Written by the worker with the flush after describe() or reset(metric), and read by it when the server starts, so that a new server, or one that was promoted, upgraded or restored, records in the same buckets. Tenants see the metrics that they have series of. Only the worker writes here.';

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
		'flush_state', 'rollup_state', 'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'metrics', 'settings']
	loop
		execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', storage);
	end loop;
end
$$;

do $$
begin
	perform pg_catalog.set_config('search_path', pg_catalog.current_setting('meshhook.search_path'), false);
end
$$;
