-- Keeping house: partitions ahead, retention behind, and who calls that when. The
-- functions run with the rights of the caller, who owns the tables, and speak UTC.

create function meshhook_metrics.retention(name text)
returns interval
language plpgsql stable
set search_path = ''
as $$
declare
	setting text;
	kept interval := case retention.name
		when 'live' then interval '15 minutes'
		when 'events' then interval '90 days'
		when 'notifications' then interval '7 days'
		else (select t.retention from meshhook_metrics.rollup_targets() t where t.target = retention.name)
	end;
begin
	select s.value
	into setting
	from meshhook_metrics.settings s
	where s.name = 'retention_' || retention.name
		and s.tenant_id = '00000000-0000-0000-0000-000000000000';
	if setting is not null then
		kept := setting::interval;
		-- The trigger on settings refuses these; it may have been disabled
		if not kept between interval '2 minutes' and interval '1000 years' then
			raise data_exception;
		end if;
	end if;
	return kept;
exception when data_exception then
	raise warning 'nothing of % is deleted, because retention_% is "%"',
		case
			when retention.name = 'live' then 'live'
			when retention.name in ('events', 'notifications') then 'alert_' || retention.name
			else 'rollup_' || retention.name
		end, retention.name, setting
		using hint = 'Correct it in meshhook_metrics.settings.';
	return null;
end
$$;

comment on function meshhook_metrics.retention(text) is
'How long live, 1m, 5m, 1h, 1d, events or notifications are kept: the setting, or the default where there is none; null, with a warning, where it makes no sense.';

-- What is deleted here must have no data, not even data that is being written now.
-- If the flush worker knows that a series' last_day is more than a week ago, it sets it
-- before it writes data of the series, in the same transaction (flushseries.c). So all
-- that it writes without that is too young for this function, by a day at least. Rows are
-- locked first, and then data is looked for, by another statement: what was committed
-- before the lock is seen. A flush that comes later waits for the lock, finds that the
-- row is gone, and gives the series a new id. One that came earlier and has not ended has
-- the row locked, which then stays.
create function meshhook_metrics.prune_series(at_most integer default 10000)
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
-- Whatever the planner believes: by the primary keys
set enable_hashjoin = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
declare
	cutoff constant date := pg_catalog.now()::date - 8;
	without_data text;
	start bigint;
	ids bigint[];
	deleted bigint := 0;
begin
	perform meshhook_metrics.require_storage();
	-- Arrays would have to be looked through. What is in no minute yet can be of a series
	-- whose last_day is a week earlier.
	if exists (
		select
		from meshhook_metrics.live l
		where l.at < cutoff + 2
			or l.at < cutoff + 7
				and l.id > (select s.live_id from meshhook_metrics.rollup_state s where s.target = '1m'))
	then
		return 0;
	end if;
	-- From anywhere on, so that those that have data do not hide the others for ever
	select (pg_catalog.random() * pg_catalog.max(s.id))::bigint
	into start
	from meshhook_metrics.series s;
	ids := array(
		(select s.id from meshhook_metrics.series s where s.last_day < cutoff and s.id >= start order by s.id limit prune_series.at_most)
		union all
		(select s.id from meshhook_metrics.series s where s.last_day < cutoff and s.id < start order by s.id limit prune_series.at_most)
		limit prune_series.at_most);
	if ids = '{}' then
		return 0;
	end if;

	select pg_catalog.string_agg(
		pg_catalog.format(
			'not exists (select from meshhook_metrics.%I r where r.tenant_id = s.tenant_id and r.series_id = s.id)',
			'rollup_' || t.target),
		' and ' order by t.step desc)
	into without_data
	from meshhook_metrics.rollup_targets() t;
	execute 'select pg_catalog.array_agg(s.id) from meshhook_metrics.series s where s.id = any ($1) and ' || without_data
	into ids
	using ids;
	if ids is null then
		return 0;
	end if;
	-- As series_leave() does, but before any row is locked: a flush has it first
	lock table only meshhook_metrics.flush_state in share row exclusive mode;
	ids := array(
		select s.id
		from meshhook_metrics.series s
		where s.id = any (ids)
			and s.last_day < cutoff
		order by s.id
		for update skip locked);
	execute 'delete from meshhook_metrics.series s where s.id = any ($1) and ' || without_data
	using ids;
	get diagnostics deleted = row_count;
	return deleted;
end
$$;

comment on function meshhook_metrics.prune_series(integer) is
'Deletes series that have had no sample for more than a week and have no data in any rollup table any more, and returns how many. A call looks at so many of those without samples at most. maintain() calls it.
55000 if the storage is not there.';

create function meshhook_metrics.maintain()
returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
set lock_timeout = '5s'
as $$
declare
	-- Each costs a handful of locks, for which there is not room without end
	dropped_at_most constant integer := 100;
	-- Each of which may wait for 5 s
	tries constant integer := 3;
	this record;
	part record;
	old_targets text[];
	old_leaves text[];
	old_bounds timestamptz[];
	begins timestamptz;
	kept interval;
	considered text;
	locked_out boolean;
	has_table boolean;
	dropping text;
	held text;
	dropped integer := 0;
	failures integer := 0;
	compacting boolean := false;
begin
	perform meshhook_metrics.require_storage();
	begin
		perform meshhook_metrics.rollup();
	exception when lock_not_available or deadlock_detected then
		raise warning 'nothing was rolled up: %', sqlerrm
			using hint = 'Another session is rolling up; the next run catches up.';
	end;

	-- Before leaves are made: where the clock was set back, those for times that are
	-- still to come can be old
	select
		pg_catalog.array_agg(t.target order by t.step, l.lower_bound),
		pg_catalog.array_agg(l.leaf order by t.step, l.lower_bound),
		pg_catalog.array_agg(l.upper_bound order by t.step, l.lower_bound)
	into old_targets, old_leaves, old_bounds
	from meshhook_metrics.rollup_targets() t
	cross join lateral meshhook_metrics.retention(t.target) r (retention)
	cross join lateral meshhook_metrics.leaves(t.target) l
	where l.upper_bound <= pg_catalog.now() - r.retention;

	for this in
		select t.*
		from meshhook_metrics.rollup_targets() t
		order by t.step
	loop
		begins := pg_catalog.now();
		while begins <= pg_catalog.now() + this.ahead loop
			perform meshhook_metrics.create_leaf(this.target, begins);
			begins := begins + this.leaf_step;
		end loop;
	end loop;

	begin
		-- What is active keeps the event with which it fired
		if pg_catalog.to_regclass('meshhook_metrics.alert_events') is not null
			and pg_catalog.to_regclass('meshhook_metrics.alerts') is not null
			and pg_catalog.to_regclass('meshhook_metrics.alert_notifications') is not null
		then
			kept := meshhook_metrics.retention('events');
			delete from meshhook_metrics.alert_events e
			where e.at < pg_catalog.now() - kept
				and not exists (
					select
					from meshhook_metrics.alerts a
					where a.fired_event_id = e.id);
			-- One tenant does not fill the disk
			delete from meshhook_metrics.alert_events e
			using (
				select n.id, row_number() over (partition by n.tenant_id order by n.id desc) as place
				from meshhook_metrics.alert_events n) n
			where n.id = e.id
				and n.place > 100000
				and not exists (
					select
					from meshhook_metrics.alerts a
					where a.fired_event_id = e.id);
			kept := meshhook_metrics.retention('notifications');
			delete from meshhook_metrics.alert_notifications n
			where n.created_at < pg_catalog.now() - kept;
		end if;
	exception when lock_not_available or deadlock_detected then
		raise warning 'old rows were not deleted: %', sqlerrm
			using hint = 'Another session uses them; the next run tries again.';
	end;

	-- From here on readers wait, to the end of the transaction. So that none waits in a
	-- circle, whatever it reads in which order, a run locks out the readers of one table
	-- by dropping leaves of it, or those of one leaf by rebuilding its index.
	for part in
		select t.target, t.step, o.leaf, o.upper_bound
		from unnest(old_targets, old_leaves, old_bounds) o (target, leaf, upper_bound)
		join meshhook_metrics.rollup_targets() t
			on t.target = o.target
		where not exists (
			select
			from meshhook_metrics.rollup_targets() coarser
			left join meshhook_metrics.rollup_state s
				on s.target = coarser.target
			where coarser.source = o.target
				and (s.complete_until >= o.upper_bound) is not true)
		order by t.step, o.upper_bound
	loop
		if part.target is distinct from considered then
			exit when dropping is not null;
			considered := part.target;
			locked_out := false;
		end if;
		exit when dropped = dropped_at_most;
		continue when locked_out;
		held := dropping;
		has_table := false;
		begin
			-- The table first, as everybody does who locks both: a minute that is being closed
			-- is waited for here, and not by its row
			execute pg_catalog.format('lock table only meshhook_metrics.%I in access exclusive mode', 'rollup_' || part.target);
			perform
			from meshhook_metrics.rollup_state s
			where s.target = part.target
			for update nowait;
			-- Looked at again now that close_minutes() cannot lower it
			if exists (
				select
				from meshhook_metrics.rollup_targets() coarser
				left join meshhook_metrics.rollup_state s
					on s.target = coarser.target
				where coarser.source = part.target
					and (s.complete_until >= part.upper_bound) is not true)
			then
				raise undefined_table;
			end if;
			has_table := true;
			dropping := part.target;
			-- The leaf soon or not: readers of the table wait already, and who holds the leaf
			-- may be the next one
			perform pg_catalog.set_config('lock_timeout', '100ms', true);
			execute pg_catalog.format('lock table meshhook_metrics.%I in access exclusive mode', part.leaf);
			perform pg_catalog.set_config('lock_timeout', '5s', true);
			-- Somebody may have detached it to keep it, or given its name to something else.
			-- This function looks at the present, and not through the transaction's snapshot.
			if pg_catalog.pg_partition_root(pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', part.leaf)))
				is distinct from pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', 'rollup_' || part.target))
			then
				raise undefined_table;
			end if;
			-- What is noted is what was there, not when the leaf ends: it may be of a clock
			-- that was ahead. Mostly there is something at its end, which an index finds.
			execute pg_catalog.format(
				'select $2 + coalesce('
				'(select pg_catalog.max(r.bucket) from meshhook_metrics.%1$I r where r.bucket >= $1 - $2), '
				'(select pg_catalog.max(r.bucket) from meshhook_metrics.%1$I r))', part.leaf)
			into begins
			using part.upper_bound, part.step;
			execute pg_catalog.format('drop table meshhook_metrics.%I', part.leaf);
			update meshhook_metrics.rollup_state s
			set retained_from = greatest(s.retained_from, begins)
			where s.target = part.target;
			dropped := dropped + 1;
		-- Its locks are gone with what was done of it
		exception
			-- Nothing of that name is to be dropped (any more)
			when undefined_table then
				dropping := held;
			when lock_not_available or deadlock_detected or object_in_use or dependent_objects_still_exist or insufficient_privilege then
				dropping := held;
				locked_out := not has_table;
				raise warning 'meshhook_metrics.% was not dropped: %', part.leaf, sqlerrm
					using hint = 'The next run tries again; until then it stays. See who or what uses it, and whose it is.';
		end;
	end loop;

	-- A leaf that will not change any more: an index that was filled in the order of time
	-- is half empty
	for part in
		select l.leaf, c.relname as index
		from meshhook_metrics.rollup_targets() t
		join meshhook_metrics.rollup_state s
			on s.target = t.target
		cross join lateral meshhook_metrics.leaves(t.target) l
		join pg_catalog.pg_index i
			on i.indrelid = pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', l.leaf))
			and i.indisprimary
		join pg_catalog.pg_class c
			on c.oid = i.indexrelid
			and c.relkind = 'i'
		where dropping is null
			and l.upper_bound <= s.complete_until
			and l.upper_bound <= pg_catalog.now()
			and not coalesce('fillfactor=100' = any (c.reloptions), false)
		order by l.lower_bound, t.step
	loop
		begin
			execute pg_catalog.format('alter index meshhook_metrics.%I set (fillfactor = 100)', part.index);
			execute pg_catalog.format('reindex index meshhook_metrics.%I', part.index);
			compacting := true;
			exit;
		exception when lock_not_available or deadlock_detected or object_in_use or undefined_table or undefined_object
			or insufficient_privilege or insufficient_resources
		then
			-- What was refused at once is no reason to leave the others
			failures := failures + case when sqlstate = '42501' then 0 else 1 end;
			raise warning 'meshhook_metrics.% was not made compact: %', part.leaf, sqlerrm
				using hint = 'The next run tries again. See who uses it, whose it is, and whether there is room for another index.';
			exit when failures = tries;
		end;
	end loop;

	-- It reads all tables, which who has locked out readers of one should not wait for.
	-- Nor can rows of series be kept locked for long.
	if dropping is null and not compacting then
		begin
			-- It locks flush_state, which the migrations lock before rollup_state, of which this
			-- has rows: so it gives up long before they would be ended for waiting in a circle
			perform pg_catalog.set_config('lock_timeout', '100ms', true);
			perform meshhook_metrics.prune_series();
		exception when lock_not_available or deadlock_detected then
			raise warning 'series without data were not deleted: %', sqlerrm
				using hint = 'Another session uses them or their data; the next run tries again.';
		end;
	end if;
end
$$;

comment on function meshhook_metrics.maintain() is
'Rolls up, creates partitions ahead, and deletes what is older than its retention (settings retention_1m, retention_5m, retention_1h, retention_1d) and has been rolled up; events and notifications of alerts (retention_events, retention_notifications) and series without data, too. A run drops partitions of one table at most, and a hundred; one that drops none compacts the index of one partition that is complete; one that does neither deletes series. So call it every hour, or more often. What another session has locked for 5 seconds is left for the next run, with a warning.
55000 if the storage is not there or not whole.';

-- A minute is closed when it is over, so five minutes are complete a moment after their end
create function meshhook_metrics.scheduled_jobs(
	out name text,
	out schedule text,
	out command text)
returns setof record
language sql immutable parallel safe
set search_path = ''
rows 2
as $$
	values
		('meshhook_metrics_rollup', '1-59/5 * * * *', 'select meshhook_metrics.rollup()'),
		('meshhook_metrics_maintain', '23 * * * *', 'select meshhook_metrics.maintain()')
$$;

comment on function meshhook_metrics.scheduled_jobs() is
'The jobs of pg_cron that schedule() creates.';

create function meshhook_metrics.scheduled_by_pg_cron()
returns boolean
language plpgsql stable
set search_path = ''
as $$
declare
	active bigint;
begin
	if not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
		return false;
	end if;
	execute
		'select pg_catalog.count(distinct j.jobname) '
		'from cron.job j '
		'join meshhook_metrics.scheduled_jobs() ours on ours.name = j.jobname '
		'where j.active and j.database = pg_catalog.current_database()'
	into active;
	return active = 2;
exception when others then
	return false;
end
$$;

comment on function meshhook_metrics.scheduled_by_pg_cron() is
'Whether pg_cron has both jobs of schedule(), active and for this database, as far as the caller may see. Never an error.';

create function meshhook_metrics.unschedule_lost()
returns void
language plpgsql
set search_path = ''
as $$
declare
	other text;
begin
	if not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
		return;
	end if;
	execute
		'select cron.unschedule(j.jobid) '
		'from cron.job j '
		'join meshhook_metrics.scheduled_jobs() ours on ours.name = j.jobname '
		'where j.database not in (select d.datname from pg_catalog.pg_database d)';
	-- It may be another one's, or that of a database which had this one's name before
	for other in
		execute
			'select distinct j.database '
			'from cron.job j '
			'join meshhook_metrics.scheduled_jobs() ours on ours.name = j.jobname '
			'where j.database <> pg_catalog.current_database()'
	loop
		raise notice 'pg_cron has jobs of meshhook_metrics for database "%"', other
			using hint = pg_catalog.format(
				'If they are not wanted: SELECT cron.unschedule(jobid) FROM cron.job WHERE database = %L AND jobname ~ ''^meshhook_metrics_'';', other);
	end loop;
end
$$;

comment on function meshhook_metrics.unschedule_lost() is
'Removes jobs of schedule() for databases that are no longer there, and says which are for another one. For schedule() and unschedule().';

create function meshhook_metrics.schedule()
returns void
language plpgsql
set search_path = ''
as $$
declare
	job record;
	there boolean;
begin
	if not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
		raise notice 'pg_cron is not installed in this database: the worker of meshhook_metrics rolls up and maintains'
			using hint = 'With pg_cron installed later, call meshhook_metrics.schedule() again.';
		return;
	end if;
	if meshhook_metrics.scheduled_by_pg_cron() then
		perform meshhook_metrics.unschedule_lost();
		-- As it was in an earlier version, it came before the minute was closed
		execute
			'select cron.unschedule(j.jobid) '
			'from cron.job j '
			'where j.jobname = ''meshhook_metrics_rollup'' and j.schedule = ''*/5 * * * *'' and j.database = pg_catalog.current_database()';
	else
		perform meshhook_metrics.unschedule();
	end if;
	for job in
		select j.*
		from meshhook_metrics.scheduled_jobs() j
	loop
		execute 'select exists (select from cron.job j where j.jobname = $1 and j.active and j.database = pg_catalog.current_database())'
		into there
		using job.name;
		if not there then
			execute 'select cron.schedule($1, $2, $3)' using job.name, job.schedule, job.command;
		end if;
	end loop;
exception when insufficient_privilege then
	raise notice 'no jobs were scheduled: %', sqlerrm
		using hint = pg_catalog.format('The worker of meshhook_metrics rolls up and maintains; for pg_cron to do it, GRANT USAGE ON SCHEMA cron TO %I and call meshhook_metrics.schedule() again.', current_user);
end
$$;

comment on function meshhook_metrics.schedule() is
'Has pg_cron call rollup() every five minutes and maintain() every hour, where it is installed in this database and the caller may use it; elsewhere the worker does that, as a notice says. Jobs for a database that is no longer there, as after a change of its name, are removed. Can be called again.';

create function meshhook_metrics.unschedule()
returns void
language plpgsql
set search_path = ''
as $$
begin
	if exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
		execute
			'select cron.unschedule(j.jobid) '
			'from cron.job j '
			'join meshhook_metrics.scheduled_jobs() ours on ours.name = j.jobname '
			'where j.database = pg_catalog.current_database()';
	end if;
	perform meshhook_metrics.unschedule_lost();
end
$$;

comment on function meshhook_metrics.unschedule() is
'Removes the jobs that schedule() created, those that the caller may see, also for a database that has another name now; the worker rolls up and maintains again.';
