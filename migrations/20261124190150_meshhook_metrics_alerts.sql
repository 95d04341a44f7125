-- The tables of alerting: rules, what is active of them, what has happened, and what is
-- to be told. Everything here may be run again, as with the tables of metrics.

-- Others may have made operators and functions in a schema of the session's search_path
do $$
begin
	perform pg_catalog.set_config('meshhook.search_path', pg_catalog.current_setting('search_path'), false);
	perform pg_catalog.set_config('search_path', '', false);
end
$$;

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

-- Nobody is left alone any more
do $$
begin
	if pg_catalog.to_regclass('meshhook_metrics.alert_suspensions') is not null then
		drop table meshhook_metrics.alert_suspensions;
	end if;
end
$$;

create table if not exists meshhook_metrics.alert_gaps (
	ends timestamptz primary key,
	begins timestamptz not null
);

comment on table meshhook_metrics.alert_gaps is
'Times without a flush, from begins to ends, longer than three times flush_interval: storage or the server was away. What came then is in the row of live, and the minute, at their end, so only the whole of it is known; alert rules do not judge by a window that begins in one. The worker writes it with the flush. Kept for 32 days.';

create table if not exists meshhook_metrics.alert_rules (
	id uuid primary key default '00000000-0000-0000-0000-000000000000',
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

-- Ids go on where they were, also in a table that was made anew or filled by others: no
-- event is taken for one with which an alert has fired
do $$
begin
	perform meshhook_metrics.mend_alert_ids();
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
	new.labels := meshhook_metrics.query_range_filter('labels', new.labels);
	new.denominator_labels := meshhook_metrics.query_range_filter('denominator_labels', new.denominator_labels);
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

-- Once it was called by check_alert_rule(), with the rights of whoever writes a rule
do $$
begin
	if pg_catalog.to_regprocedure('meshhook_metrics.check_alert_annotations(jsonb)') is not null then
		drop function meshhook_metrics.check_alert_annotations(jsonb);
	end if;
end
$$;

create or replace function meshhook_metrics.check_alert_annotations()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
	annotations constant jsonb := new.annotations;
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
	return new;
end
$$;

comment on function meshhook_metrics.check_alert_annotations() is
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

-- An API takes whole rows back, so people may name all columns: this keeps those that are
-- the server's. An id that is not of a rule the user sees is refused, whether or not
-- there is such a rule, so nobody learns of another tenant's, and nobody gets the id of
-- one that was deleted. The default stands for no id, which a trigger cannot see.
create or replace function meshhook_metrics.assign_alert_rule_columns()
returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
	no_id constant uuid := '00000000-0000-0000-0000-000000000000';
	is_new boolean := tg_op = 'INSERT' and coalesce(new.id, no_id) = no_id;
begin
	if is_new then
		new.id := pg_catalog.gen_random_uuid();
	end if;
	-- The owner restores dumps, and notes why a rule could not be evaluated
	if pg_catalog.pg_has_role((select c.relowner from pg_catalog.pg_class c where c.oid = tg_relid), 'usage') then
		return new;
	end if;

	if tg_op = 'UPDATE' then
		new.id := old.id;
		new.created_at := old.created_at;
		new.updated_at := old.updated_at;
		new.last_error := old.last_error;
		new.last_error_at := old.last_error_at;
		return new;
	end if;
	if not is_new and not exists (select from meshhook_metrics.alert_rules r where r.id = new.id) then
		raise exception 'there is no rule % to change, and a new rule gets its id from the server', new.id
			using
				errcode = 'invalid_parameter_value',
				hint = 'Leave id out to make a new rule; what is returned says which id it has.';
	end if;
	new.created_at := pg_catalog.now();
	new.updated_at := pg_catalog.now();
	new.last_error := null;
	new.last_error_at := null;
	return new;
end
$$;

comment on function meshhook_metrics.assign_alert_rule_columns() is
'Keeps id, created_at, updated_at, last_error and last_error_at of alert rules as they are, whatever anybody but the owner writes there, and gives new rules an id. Refuses an id that is not of a rule the writer sees, with 22023.';

-- Before check_alert_rule, by its name
create or replace trigger assign_alert_rule_columns
before insert or update of id, created_at, updated_at, last_error, last_error_at
on meshhook_metrics.alert_rules
for each row
execute function meshhook_metrics.assign_alert_rule_columns();

alter table meshhook_metrics.alert_rules alter column id set default '00000000-0000-0000-0000-000000000000';

create or replace trigger check_alert_rule
before insert or update of
	id, tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_labels, denominator_min, group_by, comparison,
	threshold, recovery_threshold, time_window, for_duration, keep_firing_for, no_data, no_data_for, severity, annotations,
	repeat_interval, enabled, silenced_until
on meshhook_metrics.alert_rules
for each row
execute function meshhook_metrics.check_alert_rule();

create or replace trigger check_alert_annotations
before insert or update of annotations on meshhook_metrics.alert_rules
for each row
execute function meshhook_metrics.check_alert_annotations();

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

-- What PostgREST embeds: a row's rule, a rollup's series. Functions, since foreign keys would
-- cost each flush, and a rule may be deleted before its alerts end. Without a setting
-- of search_path, which would keep the planner from making a join of them; so all names
-- and operators in them are qualified. With the rights of who asks.
create or replace function meshhook_metrics.rule(meshhook_metrics.alerts)
returns setof meshhook_metrics.alert_rules
language sql stable parallel safe rows 1
as $$
select r.*
from meshhook_metrics.alert_rules r
where r.id operator(pg_catalog.=) $1.rule_id
$$;

create or replace function meshhook_metrics.rule(meshhook_metrics.alert_events)
returns setof meshhook_metrics.alert_rules
language sql stable parallel safe rows 1
as $$
select r.*
from meshhook_metrics.alert_rules r
where r.id operator(pg_catalog.=) $1.rule_id
$$;

comment on function meshhook_metrics.rule(meshhook_metrics.alerts) is
'The rule of an alert, as a relationship that PostgREST embeds. None where it was deleted, or is not the caller''s.';

comment on function meshhook_metrics.rule(meshhook_metrics.alert_events) is
'The rule of an event, as a relationship that PostgREST embeds. None where it was deleted, or is not the caller''s.';

do $do$
declare
	rollup text;
begin
	foreach rollup in array array['rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d'] loop
		execute pg_catalog.format(
			$$
			create or replace function meshhook_metrics.series(meshhook_metrics.%1$I)
			returns setof meshhook_metrics.series
			language sql stable parallel safe rows 1
			as 'select s.* from meshhook_metrics.series s where s.id operator(pg_catalog.=) $1.series_id';

			comment on function meshhook_metrics.series(meshhook_metrics.%1$I) is
			'The series of a row of %1$s, as a relationship that PostgREST embeds.'
			$$,
			rollup);
	end loop;
end
$do$;

do $$
declare
	storage text;
begin
	foreach storage in array array[
		'alert_state', 'alert_gaps', 'alert_rules', 'alerts', 'alert_events', 'alert_notifications', 'alert_receivers']
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
