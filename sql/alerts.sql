-- Evaluating alert rules: what becomes of each rule and group at one moment.
--
-- The states are inactive (no row in alerts), pending, firing, and firing while it
-- recovers (recovering_since); resolved and inactive are events at the end of a row.
-- The values come from alert_values(), the telling is notifications.sql's. One
-- transaction does all of it, and holds the row of alert_state, so evaluations come
-- one after the other, and no change is lost or told twice.
--
-- Rules are evaluated many at a time, since that is fast, and not more than a bounded
-- amount of memory is enough for (alert_pieces()). The worker gives a transaction to many
-- tenants, to fewer where that fails, and at last to one, which is then tried again later
-- (alertduty.c).
--
-- Rules are read and not locked: somebody who keeps one locked holds nobody up.

create function meshhook_metrics.alert_text(template text, value double precision, threshold double precision, labels jsonb)
returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
-- Planned once: as SQL, or as evaluations plan their statements, it is for each text
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_variable
begin
	-- One pass: what a label brings is text, whatever it looks like
	return (
		select left(string_agg(
			case
				when t.token[1] !~ '^[{]{2}' then t.token[1]
				when p.name = 'value' then coalesce(n.shown, 'no data')
				when p.name = 'threshold' then threshold::text
				when p.name ~ '^labels[.]' then coalesce(labels ->> substr(p.name, 8), '')
				else t.token[1]
			end, '' order by t.position), 2000)
		from regexp_matches(template, '[{]{2}[[:space:]]*[a-zA-Z0-9_.]+[[:space:]]*[}]{2}|(?:(?![{]{2}).)+|[{]', 'g') with ordinality t (token, position)
		cross join lateral (select btrim(t.token[1], E'{} \t\r\n') as name) p
		-- Six digits are enough for people
		cross join (
			select
				case
					when value = 0 then '0'
					when abs(value) < 1e-4 or abs(value) >= 1e15 then value::text
					else trim_scale(round(value::numeric, greatest(0, 5 - floor(log(abs(value)))::integer)))::text
				end as shown) n);
end
$$;

comment on function meshhook_metrics.alert_text(text, double precision, double precision, jsonb) is
'A text of an alert with {{ value }} (six digits; "no data" where there is none), {{ threshold }} and {{ labels.x }} put in; a label that is not there is empty. What is put in is not looked through again. At most 2000 characters.';

create function meshhook_metrics.alert_annotations(
	annotations jsonb,
	value double precision,
	threshold double precision,
	labels jsonb)
returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
	return (
		select coalesce(
			jsonb_object_agg(a.key,
				case
					when a.value ~ '[{]{2}' then coalesce(
						meshhook_metrics.alert_text(a.value, alert_annotations.value, alert_annotations.threshold, alert_annotations.labels), '')
					else a.value
				end),
			'{}')
		from jsonb_each_text(alert_annotations.annotations) a);
end
$$;

comment on function meshhook_metrics.alert_annotations(jsonb, double precision, double precision, jsonb) is
'The annotations of an alert: those of its rule, each with alert_text().';

create function meshhook_metrics.alert_values_apart(at timestamptz, rules uuid[])
returns table (
	rule_id uuid,
	version xid,
	labels jsonb,
	value double precision,
	known boolean,
	error text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
rows 10000
as $$
declare
	middle constant integer := cardinality(rules) / 2;
begin
	begin
		-- All or nothing: alert_values() has come to its end before the first row is taken
		return query
		select v.*
		from meshhook_metrics.alert_values(alert_values_apart.at, alert_values_apart.rules) v;
		return;
	-- Of what a rule or its data are the cause; others are everybody's
	exception when data_exception or data_corrupted or program_limit_exceeded then
		if middle = 0 then
			return query
			select rules[1], null::xid, null::jsonb, null::double precision, true, sqlerrm;
			return;
		end if;
	end;
	return query
	select v.*
	from meshhook_metrics.alert_values_apart(alert_values_apart.at, rules[:middle]) v
	union all
	select v.*
	from meshhook_metrics.alert_values_apart(alert_values_apart.at, rules[middle + 1:]) v;
end
$$;

comment on function meshhook_metrics.alert_values_apart(timestamptz, uuid[]) is
'As alert_values(), but a rule for which that is an error has a row that says so, and the others have their values: by halves, until the rule is found.';

create function meshhook_metrics.evaluate_alert_rules(
	at timestamptz,
	rules uuid[],
	enabled boolean,
	out changes bigint,
	out resolved bigint[],
	out left_out bigint)
returns record
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set jit = off
set work_mem = '4MB'
-- Planning takes longer than most evaluations
set plan_cache_mode = force_generic_plan
set enable_nestloop = off
as $$
declare
	active_of_a_tenant constant integer := 1000;
	rule_ids uuid[];
	versions xid[];
	groups jsonb[];
	results double precision[];
	knowns boolean[];
	errors text[];
begin
	if enabled then
		select array_agg(v.rule_id), array_agg(v.version), array_agg(v.labels), array_agg(v.value), array_agg(v.known), array_agg(v.error)
		into rule_ids, versions, groups, results, knowns, errors
		from meshhook_metrics.alert_values_apart(evaluate_alert_rules.at, evaluate_alert_rules.rules) v;
	end if;

	with
		values_found as materialized (
			select v.*
			from unnest(rule_ids, versions, groups, results, knowns, errors) v (rule_id, version, labels, value, known, error)
		),
		erring as materialized (
			select distinct v.rule_id
			from values_found v
			where v.error is not null
		),
		-- What has been changed since is for the next time
		evaluated as materialized (
			select distinct v.rule_id
			from values_found v
			join meshhook_metrics.alert_rules r
				on r.id = v.rule_id
				and r.xmin = v.version
			where v.rule_id not in (select e.rule_id from erring e)
		),
		-- What is active, and what may become it
		observed as (
			select
				a::meshhook_metrics.alerts as alert,
				coalesce(v.rule_id, a.rule_id) as rule_id,
				coalesce(v.labels, a.labels) as labels,
				v.value,
				coalesce(v.known, true) as known,
				v.rule_id is not null as has_group,
				r as rule,
				-- Whether the comparison holds: what fires does so until the recovery threshold
				v.value > t.threshold and r.comparison in ('>', '>=', '<>')
					or v.value = t.threshold and r.comparison in ('>=', '=', '<=')
					or v.value < t.threshold and r.comparison in ('<', '<=', '<>') as holds
			from (
				select v.*
				from values_found v
				where v.labels is not null
					and v.rule_id in (select e.rule_id from evaluated e)
					-- The id was another tenant's, whose alerts end first, and without these values
					and v.rule_id not in (
						select o.rule_id
						from meshhook_metrics.alerts o
						join meshhook_metrics.alert_rules k
							on k.id = o.rule_id
						where k.tenant_id <> o.tenant_id)) v
			full join (
				select a.*
				from meshhook_metrics.alerts a
				where a.rule_id in (select unnest(evaluate_alert_rules.rules))) a
				on a.rule_id = v.rule_id
				and a.labels = v.labels
			-- A rule of another tenant that has got the id of a deleted one is none of the alert's
			left join meshhook_metrics.alert_rules r
				on r.id = coalesce(v.rule_id, a.rule_id)
				and (a.tenant_id is null or r.tenant_id = a.tenant_id)
			cross join lateral (
				select
					case
						when a.state = 'firing' and a.reason = 'threshold' then coalesce(r.recovery_threshold, r.threshold)
						else r.threshold
					end as threshold) t
		),
		-- No data counts once it has lasted; until then, and for keep_last, nothing changes
		judged as materialized (
			select
				o.*,
				d.no_data_since,
				case
					when (o.rule).id is null then 'deleted'
					when not (o.rule).enabled then 'disabled'
					when not o.has_group and o.rule_id in (select e.rule_id from evaluated e) then 'group_gone'
					when o.value is null then 'no_data'
					else 'threshold'
				end as reason,
				case
					when (o.rule).id is null or not (o.rule).enabled then false
					-- It has not been evaluated this time
					when not o.has_group and o.rule_id not in (select e.rule_id from evaluated e) then null
					when not o.has_group then false
					when not o.known then null
					when o.value is not null then o.holds
					when (o.rule).no_data = 'keep_last' or evaluate_alert_rules.at - d.no_data_since < (o.rule).no_data_for then null
					else (o.rule).no_data = 'firing'
				end as met
			from observed o
			cross join lateral (
				select
					case
						when not o.has_group or not o.known then (o.alert).no_data_since
						when o.value is null then least((o.alert).no_data_since, evaluate_alert_rules.at)
					end as no_data_since) d
			where (o.alert).rule_id is not null
				or o.holds
				or o.value is null and o.known and (o.rule).no_data = 'firing'
		),
		-- Times that lie ahead are those of a clock that was set back
		timed as materialized (
			select
				j.*,
				case
					-- A value after there was none, or the reverse, begins anew
					when (j.alert).state = 'pending' and j.met and (j.alert).reason <> j.reason then evaluate_alert_rules.at
					else least((j.alert).started_at, evaluate_alert_rules.at)
				end as started_at,
				case
					when j.met is false and (j.alert).state = 'firing' then least((j.alert).recovering_since, evaluate_alert_rules.at)
					when j.met is null then (j.alert).recovering_since
				end as recovering_since
			from judged j
		),
		-- What the tenants' other rules have active
		elsewhere as materialized (
			select a.tenant_id, count(*) as active
			from meshhook_metrics.alerts a
			where a.tenant_id in (select (t.rule).tenant_id from timed t where (t.alert).rule_id is null)
				and a.rule_id <> all (evaluate_alert_rules.rules)
			group by a.tenant_id
		),
		decided as materialized (
			select
				t.*,
				case
					when (t.alert).rule_id is null then
						case
							when t.reason = 'no_data' and t.met then 'firing'
							when t.reason = 'no_data' then 'pending'
							when (t.rule).for_duration <= interval '0' then 'firing'
							else 'pending'
						end
					when t.met is null then (t.alert).state
					when (t.alert).state = 'pending' and not t.met then 'inactive'
					when (t.alert).state = 'pending' and t.reason = 'no_data' then 'firing'
					when (t.alert).state = 'pending' and evaluate_alert_rules.at - t.started_at >= (t.rule).for_duration then 'firing'
					when (t.alert).state = 'firing' and not t.met
						and (
							t.reason in ('deleted', 'disabled', 'group_gone')
							or evaluate_alert_rules.at - t.recovering_since >= (t.rule).keep_firing_for)
						then 'resolved'
					else (t.alert).state
				end as state,
				coalesce((t.rule).name, (t.alert).name) as name,
				coalesce((t.rule).severity, (t.alert).severity) as severity,
				coalesce((t.alert).fingerprint,
					left(encode(sha256(convert_to(t.rule_id || ' ' || t.labels::text, 'UTF8')), 'hex'), 32)) as fingerprint,
				coalesce(e.active, 0) + row_number() over (
					partition by coalesce((t.alert).tenant_id, (t.rule).tenant_id)
					order by (t.alert).rule_id is null, t.rule_id) as of_tenant
			from timed t
			left join elsewhere e
				on e.tenant_id = (t.rule).tenant_id
		),
		told as materialized (
			select
				d.*,
				d.state is distinct from (d.alert).state as changes,
				case
					when d.state is not distinct from (d.alert).state or (d.rule).id is null then (d.alert).annotations
					else meshhook_metrics.alert_annotations((d.rule).annotations, d.value, (d.rule).threshold,
						d.labels || jsonb_build_object('alertname', d.name, 'severity', d.severity, 'tenant_id', (d.rule).tenant_id))
				end as annotations
			from decided d
			where (d.alert).rule_id is not null
				or d.of_tenant <= active_of_a_tenant
		),
		events as (
			insert into meshhook_metrics.alert_events (
				rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, value, threshold, at,
				started_at, fired_event_id)
			select
				t.rule_id, coalesce((t.alert).tenant_id, (t.rule).tenant_id), t.fingerprint, t.name, t.severity, t.labels,
				t.annotations, t.state, t.reason, t.value, (t.rule).threshold, evaluate_alert_rules.at, t.started_at,
				case when t.state = 'resolved' then (t.alert).fired_event_id end
			from told t
			where t.changes
			order by t.rule_id, t.fingerprint
			returning id, rule_id, fingerprint, state
		),
		ended as (
			delete from meshhook_metrics.alerts a
			using told t
			where t.state in ('resolved', 'inactive')
				and a.rule_id = t.rule_id
				and a.fingerprint = t.fingerprint
		),
		stored as (
			insert into meshhook_metrics.alerts as a (
				rule_id, fingerprint, tenant_id, name, severity, labels, annotations, state, reason, value, since, started_at,
				recovering_since, no_data_since, fired_event_id, notified_at)
			select
				t.rule_id, t.fingerprint, coalesce((t.alert).tenant_id, (t.rule).tenant_id), t.name, t.severity, t.labels,
				t.annotations, t.state,
				case when t.met or (t.alert).rule_id is null then t.reason else (t.alert).reason end,
				case when t.has_group and t.known then t.value else (t.alert).value end,
				case when t.changes then evaluate_alert_rules.at else (t.alert).since end,
				t.started_at, t.recovering_since, t.no_data_since,
				coalesce((t.alert).fired_event_id, e.id),
				(t.alert).notified_at
			from told t
			left join events e
				on e.rule_id = t.rule_id
				and e.fingerprint = t.fingerprint
				and e.state = 'firing'
			where t.state in ('pending', 'firing')
			on conflict (rule_id, fingerprint) do update
			set
				name = excluded.name,
				severity = excluded.severity,
				annotations = excluded.annotations,
				state = excluded.state,
				reason = excluded.reason,
				value = excluded.value,
				since = excluded.since,
				started_at = excluded.started_at,
				recovering_since = excluded.recovering_since,
				no_data_since = excluded.no_data_since,
				fired_event_id = excluded.fired_event_id
			where a is distinct from excluded
		)
	select
		count(*),
		array_agg(e.id) filter (where e.state = 'resolved' and (t.alert).notified_at is not null),
		(select count(*) from decided) - (select count(*) from told)
	into changes, resolved, left_out
	from events e
	join told t
		on t.rule_id = e.rule_id
		and t.fingerprint = e.fingerprint;

	-- Who changes a rule just now keeps it locked; then it is marked the next time
	update meshhook_metrics.alert_rules r
	set
		last_error = e.error,
		last_error_at = case when e.error is not null then evaluate_alert_rules.at end
	from (
		select l.id, max(v.error) as error
		from (
			select l.id, l.xmin as version
			from meshhook_metrics.alert_rules l
			where l.id in (
				select v.rule_id
				from unnest(rule_ids, errors) v (rule_id, error)
				where v.error is not null
				union all
				select k.id
				from meshhook_metrics.alert_rules k
				where cardinality(evaluate_alert_rules.rules) = 1
					and k.id = any (evaluate_alert_rules.rules)
					and k.last_error is not null)
			for update skip locked) l
		join unnest(rule_ids, versions, errors) v (rule_id, version, error)
			on v.rule_id = l.id
			-- It may have been mended since
			and (v.version is null or v.version = l.version)
		group by l.id) e
	where r.id = e.id
		and (e.error is not null or r.last_error is not null);
end
$$;

comment on function meshhook_metrics.evaluate_alert_rules(timestamptz, uuid[], boolean) is
'Evaluates some alert rules for a moment: writes what becomes of their alerts, the events of that, and last_error of the rules. Without enabled, they are rules that have alerts and are disabled or deleted, or their ids are another tenant''s by now: these alerts end. changes: how many alerts changed their state; resolved: events of what was told of and has ended; left_out: alerts that would be beyond the 1000 of a tenant. For evaluate_tenant_alerts(), which holds alert_state.';

create function meshhook_metrics.evaluate_tenant_alerts(at timestamptz, tenants uuid[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set jit = off
set plan_cache_mode = force_custom_plan
as $$
declare
	-- Rules that failed are tried apart, some at a time, so that they do not cost much
	failed_at_a_time constant integer := 20;
	last timestamptz;
	sets record;
	done record;
	changes bigint := 0;
	resolved bigint[] := '{}';
	left_out bigint := 0;
	told bigint;
begin
	perform meshhook_metrics.require_storage();
	if at is null or not isfinite(at) then
		raise exception 'at is %', coalesce(at::text, 'null')
			using
				errcode = case when at is null then 'null_value_not_allowed' else 'datetime_field_overflow' end,
				hint = 'Give the time for which the rules are to be evaluated, or leave it out for now.';
	end if;
	if to_regclass('meshhook_metrics.alert_state') is null then
		raise exception 'the tables of alerting are not installed in this database'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations that come with the extension again.';
	end if;
	-- A dump that is being restored has a table's primary key after its rows
	if exists (
		select
		from pg_class c
		where c.relnamespace = 'meshhook_metrics'::regnamespace
			and c.relkind in ('r', 'p')
			and c.relname = any (array[
				'series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d', 'rollup_state', 'settings',
				'alert_state', 'alert_gaps', 'alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications'])
			and not exists (
				select
				from pg_index i
				where i.indrelid = c.oid
					and i.indisprimary
					and i.indisvalid))
	then
		raise exception 'a table of meshhook_metrics has no primary key yet'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Wait until the dump is restored; else apply the migrations again.';
	end if;
	-- First of all tables, as the migrations do
	select s.evaluated_at
	into last
	from meshhook_metrics.alert_state s
	for update;
	if not found then
		raise exception 'meshhook_metrics.alert_state has lost its row'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations again.';
	end if;

	if (select count(*) from meshhook_metrics.rollup_state s where s.target in ('1m', '5m', '1h', '1d')) < 4 then
		raise exception 'meshhook_metrics.rollup_state lacks rows'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations again: they derive it from the data.';
	end if;
	perform meshhook_metrics.mend_alert_ids();
	-- Who had to wait for another comes with a time that is no longer the present
	if at between now() and clock_timestamp() and last > at and last <= clock_timestamp() then
		at := last;
	end if;

	-- What ends makes room for what begins
	for sets in
		select array_agg(distinct a.rule_id) as rules, false as enabled
		from meshhook_metrics.alerts a
		left join meshhook_metrics.alert_rules r
			on r.id = a.rule_id
			and r.tenant_id = a.tenant_id
			and r.enabled
		where r.id is null
			and (tenants is null or a.tenant_id = any (tenants))
		having count(*) > 0
		union all
		select p.piece, true
		from meshhook_metrics.alert_pieces(tenants) p
		union all
		select array[f.id], true
		from (
			select r.id
			from meshhook_metrics.alert_rules r
			where r.enabled
				and r.last_error is not null
				and (tenants is null or r.tenant_id = any (tenants))
			order by least(r.last_error_at, evaluate_tenant_alerts.at), r.id
			limit failed_at_a_time
			for update skip locked) f
	loop
		select e.*
		into done
		from meshhook_metrics.evaluate_alert_rules(evaluate_tenant_alerts.at, sets.rules, sets.enabled) e;
		changes := changes + done.changes;
		resolved := resolved || done.resolved;
		left_out := left_out + done.left_out;
	end loop;

	told := meshhook_metrics.write_notifications(evaluate_tenant_alerts.at, resolved, tenants);
	update meshhook_metrics.alert_state s
	set
		evaluated_at = evaluate_tenant_alerts.at,
		rules = c.rules,
		rules_failing = c.failing,
		alerts_left_out = left_out + case when tenants is null then 0 else s.alerts_left_out end
	from (
		select count(*) as rules, count(r.last_error) as failing
		from meshhook_metrics.alert_rules r
		where r.enabled) c
	where s.only_row;

	-- It says nothing, since anybody may listen
	if changes > 0 or told > 0 then
		perform pg_notify('meshhook_metrics_alerts', 'changed');
	end if;
	return changes;
end
$$;

comment on function meshhook_metrics.evaluate_tenant_alerts(timestamptz, uuid[]) is
'evaluate_alerts() for the rules and alerts of some tenants, or (null) of all. The worker calls it for many tenants at a time, and for fewer where that fails.';

create function meshhook_metrics.evaluate_alerts(at timestamptz default pg_catalog.now())
returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
	select meshhook_metrics.evaluate_tenant_alerts(evaluate_alerts.at, null)
$$;

comment on function meshhook_metrics.evaluate_alerts(timestamptz) is
'Evaluates all enabled alert rules for a moment, and returns how many alerts changed their state: writes alerts, a row of alert_events for each change, and alert_notifications for what is to be told, all in one transaction, and notifies channel meshhook_metrics_alerts if there is anything. Counts what was flushed. The worker calls it after a flush, at most every meshhook_metrics.alert_interval; another call waits for the one before, and if its at was the present when it began, it counts for the time of that one.
A rule that cannot be evaluated gets last_error, its alerts stay as they are, and the others are evaluated.
Errors: 22004, 22008 an at that is null or infinite, 55000 if the storage is not there or not whole.';

create function meshhook_metrics.note_alert_failure(at timestamptz, tenant uuid, error text)
returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
	update meshhook_metrics.alert_rules r
	set
		last_error = format('the rules of this tenant were not evaluated: %s', note_alert_failure.error),
		last_error_at = note_alert_failure.at
	from (
		select l.id
		from meshhook_metrics.alert_rules l
		where l.tenant_id = tenant
			and l.enabled
		for update skip locked) l
	where r.id = l.id
$$;

comment on function meshhook_metrics.note_alert_failure(timestamptz, uuid, text) is
'Says in last_error of a tenant''s rules that evaluating them has failed; its alerts stay as they are. For the worker, which tries again after ten seconds, doubled each time up to an hour.';
