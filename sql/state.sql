-- What the worker relies on in tables that others may restore, truncate or replicate:
-- where it stands, which ids come next, which rows of series there are.

create function meshhook_metrics.series_leave()
returns trigger
as 'MODULE_PATHNAME', 'mhm_series_leave'
language c;

comment on function meshhook_metrics.series_leave() is
'Trigger of table series, before rows are deleted or are given another key: waits for the flush under way, holds up the next one until the transaction ends, and has the worker look ids up again.';

create function meshhook_metrics.mend_state()
returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
as $$
declare
	known_id bigint;
	ids regclass;
	highest_id bigint;
begin
	select s.live_id
	into known_id
	from meshhook_metrics.rollup_state s
	where s.target = '1m';

	-- Nothing was ever rolled up by this state. So what rollup_1m has came with a
	-- restore, and with it rows of live that are in it already
	if known_id = 0
		and exists (select from meshhook_metrics.live)
		and exists (select from meshhook_metrics.rollup_1m)
	then
		update meshhook_metrics.rollup_state s
		set
			live_id = coalesce((
				select pg_catalog.max(l.id)
				from meshhook_metrics.live l
				where l.at < newest.bucket + interval '1 minute'), 0),
			complete_until = greatest(s.complete_until, newest.bucket + interval '1 minute')
		from (
			select pg_catalog.max(r.bucket) as bucket
			from meshhook_metrics.rollup_1m r
			where r.bucket >= (
				select pg_catalog.date_trunc('minute', pg_catalog.min(l.at))
				from meshhook_metrics.live l)) newest
		where s.target = '1m'
			and s.live_id = 0
			and newest.bucket is not null
		returning s.live_id
		into known_id;
	end if;

	-- A row whose id lies behind the watermark would look as if it had been rolled up
	ids := pg_catalog.pg_get_serial_sequence('meshhook_metrics.live', 'id');
	highest_id := greatest(known_id, (select pg_catalog.max(l.id) from meshhook_metrics.live l));
	if highest_id > coalesce(pg_catalog.pg_sequence_last_value(ids), 0) then
		perform pg_catalog.setval(ids, highest_id);
	end if;
end
$$;

comment on function meshhook_metrics.mend_state() is
'Before rows are added to live: has ids go on beyond the watermark and beyond those that are there, after TRUNCATE ... RESTART IDENTITY, setval() or a change to a logical replica; and derives the watermark where it is 0 although rollup_1m has minutes of what is in live, which a restore brought.';

create function meshhook_metrics.mend_series_ids(seen bigint)
returns void
language plpgsql
set search_path = ''
as $$
declare
	ids constant regclass := pg_catalog.pg_get_serial_sequence('meshhook_metrics.series', 'id');
	last_id constant bigint := coalesce(pg_catalog.pg_sequence_last_value(ids), 0);
	highest_id bigint;
begin
	select greatest(mend_series_ids.seen, pg_catalog.max(s.id))
	into highest_id
	from meshhook_metrics.series s;

	-- Begun anew, while there is data of series that are gone: a number that no sequence
	-- has come to spares reading all of it
	if last_id = 0
		and (
			exists (select from meshhook_metrics.live)
			or exists (select from meshhook_metrics.rollup_1m)
			or exists (select from meshhook_metrics.rollup_5m)
			or exists (select from meshhook_metrics.rollup_1h)
			or exists (select from meshhook_metrics.rollup_1d))
	then
		highest_id := greatest(highest_id, (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000)::bigint);
	end if;
	if highest_id > last_id then
		perform pg_catalog.setval(ids, highest_id);
	end if;
end
$$;

comment on function meshhook_metrics.mend_series_ids(bigint) is
'Before rows are added to series: has ids go on beyond those that are there and beyond seen, the highest one that the worker remembers. Where the sequence was begun anew and data has ids of series that are gone, ids go on at the milliseconds since 1970.';

create function meshhook_metrics.mend_alert_ids()
returns void
language plpgsql
set search_path = ''
as $$
begin
	perform pg_catalog.setval(u.ids, u.id)
	from (
		select
			pg_catalog.pg_get_serial_sequence('meshhook_metrics.alert_events', 'id')::regclass as ids,
			-- Each of these is resolved once, so no other event may have its id
			greatest(
				(select pg_catalog.max(e.id) from meshhook_metrics.alert_events e),
				(select pg_catalog.max(a.fired_event_id) from meshhook_metrics.alerts a)) as id
		union all
		select
			pg_catalog.pg_get_serial_sequence('meshhook_metrics.alert_notifications', 'id')::regclass,
			(select pg_catalog.max(n.id) from meshhook_metrics.alert_notifications n)) u
	where u.id > coalesce(pg_catalog.pg_sequence_last_value(u.ids), 0);
end
$$;

comment on function meshhook_metrics.mend_alert_ids() is
'Before rows are added to alert_events and alert_notifications: has ids go on beyond those that are there, and beyond the events with which alerts have fired, after a restore of data alone, TRUNCATE ... RESTART IDENTITY, setval() or a change to a logical replica.';

create function meshhook_metrics.gauge_levels(
	ids bigint[],
	out series_id bigint,
	out level double precision)
returns setof record
language sql stable
set search_path = ''
set enable_seqscan = off
-- Of a table that is new the planner expects few rows, and would compare each with each
set enable_nestloop = off
set jit = off
as $$
	with wanted as materialized (
		select
			s.id,
			s.tenant_id,
			coalesce(s.reset_at, '-infinity') as since
		from meshhook_metrics.series s
		where s.id = any (gauge_levels.ids)
	),
	recent as materialized (
		select distinct on (w.id)
			w.id,
			e.last
		from meshhook_metrics.live l
		cross join lateral unnest(l.series_id, l.last) e (series_id, last)
		join wanted w
			on w.id = e.series_id
			and w.tenant_id = l.tenant_id
		where l.tenant_id = any (array(select w.tenant_id from wanted w))
			and l.id > (select s.live_id from meshhook_metrics.rollup_state s where s.target = '1m')
			and l.last is not null
			and e.last is not null
			and l.at >= w.since
		order by w.id, l.id desc
	)
	select
		w.id,
		coalesce(
			r.last,
			(
				select p.last
				from meshhook_metrics.rollup_1m p
				where p.tenant_id = w.tenant_id and p.series_id = w.id and p.last is not null and p.bucket >= w.since
				order by p.bucket desc
				limit 1),
			(
				select p.last
				from meshhook_metrics.rollup_5m p
				where p.tenant_id = w.tenant_id and p.series_id = w.id and p.last is not null and p.bucket >= w.since
				order by p.bucket desc
				limit 1),
			(
				select p.last
				from meshhook_metrics.rollup_1h p
				where p.tenant_id = w.tenant_id and p.series_id = w.id and p.last is not null and p.bucket >= w.since
				order by p.bucket desc
				limit 1),
			(
				select p.last
				from meshhook_metrics.rollup_1d p
				where p.tenant_id = w.tenant_id and p.series_id = w.id and p.last is not null and p.bucket >= w.since
				order by p.bucket desc
				limit 1))
	from wanted w
	left join recent r
		on r.id = w.id
$$;

comment on function meshhook_metrics.gauge_levels(bigint[]) is
'The last value that storage has of gauges, by their ids in series; null where there is none since the gauge was reset. For the worker, when it meets a gauge that it does not know and that nobody has set.';
