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
		kept := meshhook_metrics.retention('live');
		if kept is not null then
			delete from meshhook_metrics.live l
			using meshhook_metrics.rollup_state s
			where s.target = '1m'
				and l.id <= s.live_id
				-- Younger ones are those that close_minutes() deletes, and would wait for
				and l.at < pg_catalog.now() - kept - interval '2 minutes';
		end if;

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
end
$$;

comment on function meshhook_metrics.maintain() is
'Rolls up, creates partitions ahead, and deletes what is older than its retention (settings retention_live, retention_1m, retention_5m, retention_1h, retention_1d) and has been rolled up; events and notifications of alerts, too (retention_events, retention_notifications). A run drops partitions of one table at most, and a hundred; one that drops none compacts the index of one partition that is complete. So call it every hour, or more often. What another session has locked for 5 seconds is left for the next run, with a warning.
55000 if the storage is not there or not whole.';

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
		('meshhook_metrics_rollup', '*/5 * * * *', 'select meshhook_metrics.rollup()'),
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

create function meshhook_metrics.schedule()
returns void
language plpgsql
set search_path = ''
as $$
declare
	job record;
begin
	if not exists (select from pg_catalog.pg_extension e where e.extname = 'pg_cron') then
		raise notice 'pg_cron is not installed in this database: the worker of meshhook_metrics rolls up and maintains'
			using hint = 'With pg_cron installed later, call meshhook_metrics.schedule() again.';
		return;
	end if;
	if meshhook_metrics.scheduled_by_pg_cron() then
		return;
	end if;
	perform meshhook_metrics.unschedule();
	for job in
		select j.*
		from meshhook_metrics.scheduled_jobs() j
	loop
		execute 'select cron.schedule($1, $2, $3)' using job.name, job.schedule, job.command;
	end loop;
exception when insufficient_privilege then
	raise notice 'no jobs were scheduled: %', sqlerrm
		using hint = pg_catalog.format('The worker of meshhook_metrics rolls up and maintains; for pg_cron to do it, GRANT USAGE ON SCHEMA cron TO %I and call meshhook_metrics.schedule() again.', current_user);
end
$$;

comment on function meshhook_metrics.schedule() is
'Has pg_cron call rollup() every five minutes and maintain() every hour, where it is installed in this database and the caller may use it; elsewhere the worker does that, as a notice says. Can be called again.';

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
end
$$;

comment on function meshhook_metrics.unschedule() is
'Removes the jobs that schedule() created, those that the caller may see; the worker rolls up and maintains again.';
