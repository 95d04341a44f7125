-- Telling of alerts: what is written to the outbox, and how it is taken from there.
--
-- evaluate_alerts() writes in its own transaction. Delivery is somebody else's: a
-- process outside of the database, with claim_notifications() and
-- finish_notification(), or pg_net, to which the worker hands over what has a url.
-- A notification is delivered at least once. Those of one rule go to a receiver one
-- after the other, so that no "resolved" overtakes its "firing".

create function meshhook_metrics.write_notifications(at timestamptz, resolved bigint[], tenants uuid[])
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set work_mem = '4MB'
set plan_cache_mode = force_custom_plan
as $$
declare
	-- More of them make further notifications
	alerts_each constant integer := 100;
	-- Of a rule and receiver; what is waiting beyond that gives way
	waiting_allowed constant integer := 20;
	-- Rules of which there is something to tell
	due uuid[];
	giving_way bigint[];
	written bigint;
begin
	due := array(
		select a.rule_id
		from meshhook_metrics.alerts a
		join meshhook_metrics.alert_rules r
			on r.id = a.rule_id
			and r.tenant_id = a.tenant_id
		where a.state = 'firing'
			and (write_notifications.tenants is null or a.tenant_id = any (write_notifications.tenants))
			and r.enabled
			and (r.silenced_until > write_notifications.at) is not true
			and (
				a.notified_at is null
				or write_notifications.at - a.notified_at >= r.repeat_interval
				-- A time that lies ahead is that of a clock that was set back
				or a.notified_at > write_notifications.at and r.repeat_interval is not null)
		union
		select e.rule_id
		from meshhook_metrics.alert_events e
		where e.id = any (write_notifications.resolved));
	if cardinality(due) = 0 then
		return 0;
	end if;

	with
		firing as materialized (
			select
				a.*,
				meshhook_metrics.alert_annotations(r.annotations, a.value, r.threshold,
					a.labels || jsonb_build_object('alertname', a.name, 'severity', a.severity, 'tenant_id', a.tenant_id)) as texts
			from meshhook_metrics.alerts a
			join meshhook_metrics.alert_rules r
				on r.id = a.rule_id
				and r.tenant_id = a.tenant_id
			where a.rule_id = any (due)
				and a.state = 'firing'
				and r.enabled
				and (r.silenced_until > write_notifications.at) is not true
		),
		told as materialized (
			select
				f.rule_id, f.tenant_id, f.fingerprint, 'firing' as status, f.name, f.severity, f.labels, f.texts,
				coalesce((
					select e.at
					from meshhook_metrics.alert_events e
					where e.id = f.fired_event_id), f.since) as starts_at,
				null::timestamptz as ends_at
			from firing f
			union all
			select
				e.rule_id, e.tenant_id, e.fingerprint, 'resolved', e.name, e.severity, e.labels, e.annotations,
				coalesce((
					select f.at
					from meshhook_metrics.alert_events f
					where f.id = e.fired_event_id), e.started_at),
				e.at
			from meshhook_metrics.alert_events e
			where e.id = any (write_notifications.resolved)
		),
		numbered as materialized (
			select
				t.*,
				t.labels || jsonb_build_object('alertname', t.name, 'severity', t.severity, 'tenant_id', t.tenant_id) as all_labels,
				(row_number() over (partition by t.rule_id order by t.status desc, t.fingerprint) - 1) / alerts_each as part
			from told t
		),
		parts as materialized (
			select
				n.rule_id,
				n.tenant_id,
				n.part,
				count(*) as alerts_count,
				min(n.status) as status,
				jsonb_agg(
					jsonb_build_object(
						'status', n.status,
						'labels', n.all_labels,
						'annotations', n.texts,
						-- It may have begun by a clock that was set back since
						'startsAt', to_char(least(n.starts_at, n.ends_at, write_notifications.at), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
						'endsAt', coalesce(to_char(n.ends_at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), '0001-01-01T00:00:00Z'),
						'generatorURL', '',
						'fingerprint', n.fingerprint)
					order by n.status desc, n.fingerprint) as alerts
			from numbered n
			group by n.rule_id, n.tenant_id, n.part
		),
		-- What all alerts of a notification have alike
		common as (
			select
				c.rule_id,
				c.tenant_id,
				c.part,
				coalesce(jsonb_object_agg(c.key, c.value) filter (where c.of = 'labels'), '{}') as labels,
				coalesce(jsonb_object_agg(c.key, c.value) filter (where c.of = 'annotations'), '{}') as annotations
			from (
				select n.rule_id, n.tenant_id, n.part, e.of, e.key, e.value
				from numbered n
				join parts p
					on p.rule_id = n.rule_id
					and p.tenant_id = n.tenant_id
					and p.part = n.part
				cross join lateral (
					select 'labels' as of, l.key, l.value
					from jsonb_each(n.all_labels) l
					union all
					select 'annotations', x.key, x.value
					from jsonb_each(n.texts) x) e
				group by n.rule_id, n.tenant_id, n.part, e.of, e.key, e.value, p.alerts_count
				having count(*) = p.alerts_count) c
			group by c.rule_id, c.tenant_id, c.part
		),
		outgoing as (
			insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload, created_at)
			select
				p.tenant_id,
				p.rule_id,
				coalesce(c.name, 'default'),
				jsonb_build_object(
					'version', '4',
					'groupKey', format('{}/{rule_id="%s"}:{tenant_id="%s"}', p.rule_id, p.tenant_id),
					'truncatedAlerts', 0,
					'status', p.status,
					'receiver', coalesce(c.name, 'default'),
					'groupLabels', jsonb_build_object('alertname', m.labels -> 'alertname', 'tenant_id', p.tenant_id),
					'commonLabels', m.labels,
					'commonAnnotations', m.annotations,
					'externalURL', '',
					'alerts', p.alerts),
				-- A time that lies ahead would keep it for ever
				least(write_notifications.at, clock_timestamp())
			from parts p
			join common m
				on m.rule_id = p.rule_id
				and m.tenant_id = p.tenant_id
				and m.part = p.part
			left join meshhook_metrics.alert_receivers c
				on c.tenant_id = p.tenant_id
			order by p.tenant_id, p.rule_id, p.part
			returning id
		),
		noted as (
			update meshhook_metrics.alerts a
			set
				notified_at = write_notifications.at,
				annotations = f.texts
			from firing f
			where a.rule_id = f.rule_id
				and a.fingerprint = f.fingerprint
		)
	select count(*)
	into written
	from outgoing;

	-- Nobody takes them, or not fast enough: where everything fires, the next one in which
	-- everything fires says it all, and the oldest are of the least interest
	giving_way := array(
		select o.id
		from (
			select
				o.id,
				o.attempts,
				o.only_fires,
				row_number() over (partition by o.tenant_id, o.rule_id, o.receiver order by o.id desc) as place,
				lead(o.only_fires) over following and lead(o.created_at) over following > o.created_at as is_repeated
			from (
				select
					n.id,
					n.tenant_id,
					n.rule_id,
					n.receiver,
					n.created_at,
					n.attempts,
					not n.payload -> 'alerts' @> '[{"status": "resolved"}]' as only_fires
				from meshhook_metrics.alert_notifications n
				where n.rule_id = any (due)
					and n.delivered_at is null
					and n.dead_at is null) o
			window following as (partition by o.tenant_id, o.rule_id, o.receiver order by o.id)) o
		where o.attempts = 0
			and (o.only_fires and o.is_repeated or o.place > waiting_allowed));
	-- What somebody takes just now he has locked for as long as he likes, and it is his
	giving_way := array(
		select n.id
		from meshhook_metrics.alert_notifications n
		where n.id = any (giving_way)
			and n.attempts = 0
		for update skip locked);
	update meshhook_metrics.alert_notifications n
	set
		dead_at = now(),
		last_error = 'gave way to a newer notification before it was taken'
	where n.id = any (giving_way);
	return written;
end
$$;

comment on function meshhook_metrics.write_notifications(timestamptz, bigint[], uuid[]) is
'Writes to the outbox what is to be told: of alerts that fire and were not told of, of those whose repeat_interval is over, and of these resolved events; none that is silenced, but for what was told of and is resolved. A notification for each receiver, rule and hundred alerts, with all that fires of the rule. One that nobody has taken yet gives way to the next of its rule and receiver if everything in both is firing, and where there are twenty newer ones; one that is being taken does not. Of some tenants, or (null) of all. Returns how many it wrote. For evaluate_alerts().';

create function meshhook_metrics.claim_notifications(n integer default 10, with_url boolean default false)
returns table (
	id bigint,
	tenant_id uuid,
	receiver text,
	url text,
	headers jsonb,
	payload jsonb,
	attempts integer)
language plpgsql
set search_path = pg_catalog, pg_temp
rows 10
as $$
#variable_conflict use_column
declare
	-- So that an index serves; where this was held up since, what others have taken
	-- meanwhile is looked at by the clock
	present constant timestamptz := clock_timestamp();
begin
	if n is null or n not between 1 and 1000 then
		raise exception 'n is %', coalesce(n::text, 'null')
			using
				errcode = case when n is null then 'null_value_not_allowed' else 'invalid_parameter_value' end,
				hint = 'Take from 1 to 1000 notifications.';
	end if;
	-- Row level security would hide them, and alerts would go nowhere in silence
	if row_security_active('meshhook_metrics.alert_notifications') then
		raise exception 'role "%" does not see all notifications', current_user
			using
				errcode = 'insufficient_privilege',
				hint = 'SET ROLE service_role, or another role that has BYPASSRLS of its own: members of it do not inherit that.';
	end if;
	-- No wait is that long: one that is, is of a clock that was set back since
	update meshhook_metrics.alert_notifications w
	set next_attempt_at = present
	from (
		select l.id
		from meshhook_metrics.alert_notifications l
		where l.delivered_at is null
			and l.dead_at is null
			and l.next_attempt_at > present + interval '11 minutes'
			and l.next_attempt_at > clock_timestamp() + interval '11 minutes'
		for update skip locked) l
	where w.id = l.id;

	-- Taken as often as finish_notification() allows, and never finished
	update meshhook_metrics.alert_notifications w
	set
		dead_at = clock_timestamp(),
		last_error = coalesce(w.last_error, format('it was taken %s times, and never finished', w.attempts))
	from (
		select l.id
		from meshhook_metrics.alert_notifications l
		where l.delivered_at is null
			and l.dead_at is null
			and l.attempts >= 12
			and l.next_attempt_at <= present
		for update skip locked) l
	where w.id = l.id;

	-- Tenants by turns, so that one with many does not keep the others waiting
	return query
	with
		heads as materialized (
			select
				w.id,
				row_number() over (partition by w.tenant_id order by w.next_attempt_at, w.id) as turn
			from meshhook_metrics.alert_notifications w
			where w.delivered_at is null
				and w.dead_at is null
				and w.next_attempt_at <= present
				and (
					not claim_notifications.with_url
					or exists (
						select
						from meshhook_metrics.alert_receivers c
						where c.tenant_id = w.tenant_id
							and c.name = w.receiver
							and c.url is not null))
				and not exists (
					select
					from meshhook_metrics.alert_notifications before
					where before.tenant_id = w.tenant_id
						and before.rule_id = w.rule_id
						and before.receiver = w.receiver
						and before.id < w.id
						and before.delivered_at is null
						and before.dead_at is null)
		),
		due as materialized (
			select w.id
			from meshhook_metrics.alert_notifications w
			join heads h
				on h.id = w.id
			-- Another may have taken it since
			where w.next_attempt_at <= present
				and w.delivered_at is null
				and w.dead_at is null
			order by h.turn, w.id
			limit claim_notifications.n
			for update of w skip locked
		),
		taken as (
			update meshhook_metrics.alert_notifications w
			set
				attempts = w.attempts + 1,
				next_attempt_at = clock_timestamp() + interval '1 minute'
			from due d
			where w.id = d.id
			returning w.id, w.tenant_id, w.receiver, w.payload, w.attempts
		)
	select t.id, t.tenant_id, t.receiver, c.url, coalesce(c.headers, '{}'), t.payload, t.attempts
	from taken t
	left join meshhook_metrics.alert_receivers c
		on c.tenant_id = t.tenant_id
		and c.name = t.receiver
	order by t.id;
end
$$;

comment on function meshhook_metrics.claim_notifications(integer, boolean) is
'Takes up to n notifications that are due, for delivery: the caller has a minute to call finish_notification(id) for each; after that they may be taken again. Callers at the same time get different ones. Of a rule and receiver the earliest that is not done, so that they arrive in order. url and headers: of the receiver, null and {} where it has none; with_url: only those that have one.
Errors: 22004, 22023 an n that is not from 1 to 1000, 42501 a role to which row level security applies.';

create function meshhook_metrics.finish_notification(id bigint, error text default null)
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
	-- Ten seconds, doubled each time up to ten minutes: about an hour in all
	attempts_allowed constant integer := 12;
	finished boolean;
begin
	-- Row level security would hide them, and alerts would go nowhere in silence
	if row_security_active('meshhook_metrics.alert_notifications') then
		raise exception 'role "%" does not see all notifications', current_user
			using
				errcode = 'insufficient_privilege',
				hint = 'SET ROLE service_role, or another role that has BYPASSRLS of its own: members of it do not inherit that.';
	end if;
	update meshhook_metrics.alert_notifications w
	set
		delivered_at = case when finish_notification.error is null then clock_timestamp() end,
		dead_at = case when finish_notification.error is not null and w.attempts >= attempts_allowed then clock_timestamp() end,
		last_error = coalesce(left(finish_notification.error, 1000), w.last_error),
		next_attempt_at = clock_timestamp()
			+ least(interval '10 seconds' * 2 ^ least(w.attempts - 1, 10), interval '10 minutes') * (0.9 + 0.2 * random())
	where w.id = finish_notification.id
		and w.attempts > 0
		and w.delivered_at is null
		and w.dead_at is null;
	finished := found;
	return finished;
end
$$;

comment on function meshhook_metrics.finish_notification(bigint, text) is
'Says what became of a notification that was claimed: delivered (error is null), or failed, and why. What failed is due again after 10 seconds, 20, 40 and so on up to 10 minutes, a tenth more or less; after 12 attempts, about an hour, it is given up (dead_at). False where there was nothing to finish: another has, it was not claimed, or it is not there.
Errors: 42501 a role to which row level security applies.';

create function meshhook_metrics.send_notifications(n integer default 100)
returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
	answered record;
	sending record;
	request bigint;
	sent bigint := 0;
begin
	if not exists (select from pg_extension e where e.extname = 'pg_net') then
		return 0;
	end if;
	-- pg_net lets everybody write to its tables, and what somebody hangs on them would run
	-- with our rights
	execute 'lock table net.http_request_queue in row exclusive mode';
	if exists (
			select
			from pg_trigger t
			where t.tgrelid = to_regclass('net.http_request_queue')
				and not t.tgisinternal
				and not exists (
					select
					from pg_depend d
					join pg_extension e
						on e.oid = d.refobjid
					where d.classid = 'pg_proc'::regclass
						and d.objid = t.tgfoid
						and d.refclassid = 'pg_extension'::regclass
						and d.deptype = 'e'
						and e.extname = 'pg_net'))
		or exists (
			select
			from pg_proc p
			join pg_namespace s
				on s.oid = p.pronamespace
			where s.nspname = 'net'
				and p.proname = 'http_post'
				and not exists (
					select
					from pg_depend d
					join pg_extension e
						on e.oid = d.refobjid
					where d.classid = 'pg_proc'::regclass
						and d.objid = p.oid
						and d.refclassid = 'pg_extension'::regclass
						and d.deptype = 'e'
						and e.extname = 'pg_net'))
	then
		raise exception 'nothing is sent, since somebody has put a trigger on net.http_request_queue, or a function of his own in place of net.http_post'
			using
				errcode = 'insufficient_privilege',
				hint = 'Find out who, and drop it. To keep others from it: REVOKE ALL ON ALL TABLES IN SCHEMA net FROM PUBLIC, '
					'then GRANT SELECT, INSERT ON net.http_request_queue and SELECT ON net._http_response to the owner of the tables of meshhook_metrics.';
	end if;

	for answered in
		execute
			'select w.id, '
			'case '
			'when r.timed_out then ''the receiver did not answer in time'' '
			'when r.error_msg is not null then r.error_msg '
			'when r.status_code between 200 and 299 then null '
			'else pg_catalog.format(''the receiver answered with status %s'', r.status_code) '
			'end as error '
			'from meshhook_metrics.alert_notifications w '
			'join net._http_response r on r.id = w.request_id '
			'where w.request_id is not null '
			'for update of w skip locked'
	loop
		perform meshhook_metrics.finish_notification(answered.id, answered.error);
		update meshhook_metrics.alert_notifications w
		set request_id = null
		where w.id = answered.id;
	end loop;

	-- pg_net posts JSON with a content type of application/json only
	for sending in
		select c.*
		from meshhook_metrics.claim_notifications(send_notifications.n, true) c
	loop
		begin
			execute 'select net.http_post(url => $1, body => $2, headers => $3, timeout_milliseconds => 10000)'
			into request
			using
				sending.url,
				sending.payload,
				(
					select coalesce(jsonb_object_agg(h.key, h.value), '{}') || '{"Content-Type": "application/json"}'
					from jsonb_each(sending.headers) h
					where lower(h.key) <> 'content-type');
			update meshhook_metrics.alert_notifications w
			set request_id = request
			where w.id = sending.id;
			sent := sent + 1;
		exception when others then
			perform meshhook_metrics.finish_notification(sending.id, sqlerrm);
		end;
	end loop;
	return sent;
end
$$;

comment on function meshhook_metrics.send_notifications(integer) is
'Hands up to n notifications that are due, and whose receiver has a url, to pg_net (https://supabase.com/docs/guides/database/extensions/pg_net), and finishes those that it has posted since: delivered where the receiver answered with 2xx. Returns how many it handed over; without pg_net 0. The worker calls it after evaluate_alerts().';
