-- Rolling up: live rows into minutes, minutes into five minutes, hours and days; the
-- partitions ahead, and retention behind.
--
-- The tables are not the extension's (migrations/ makes them), so these functions
-- find them when they run, with the rights of who calls them: their owner. They
-- speak UTC.
--
-- Locks are always taken in this order, so that none waits for another in a circle:
-- rows of rollup_state (1m, 5m, 1h, 1d), then leaves to create, then rows.
-- maintain() is the exception, and does not wait for rows of rollup_state.

create function meshhook_metrics.rollup_targets(
	out target text,
	out source text,
	out step interval,
	out leaf_unit text,
	out leaf_name text,
	out leaf_step interval,
	out ahead interval,
	out retention interval)
returns setof record
language sql immutable parallel safe
set search_path = ''
rows 4
as $$
	values
		('1m', null, interval '1 minute', 'day', 'YYYYMMDD', interval '1 day', interval '3 days', interval '7 days'),
		('5m', '1m', interval '5 minutes', 'week', 'YYYYMMDD', interval '7 days', interval '14 days', interval '30 days'),
		('1h', '5m', interval '1 hour', 'month', 'YYYYMM', interval '1 month', interval '2 months', interval '400 days'),
		('1d', '1h', interval '1 day', 'year', 'YYYY', interval '1 year', interval '1 year', interval '10 years')
$$;

comment on function meshhook_metrics.rollup_targets() is
'The rollup tables: what each is rolled up from, the length of its windows, what a leaf holds and how its name ends, how far ahead leaves are created, and how long data is kept unless settings say otherwise.';

create function meshhook_metrics.require_storage()
returns void
language plpgsql stable
set search_path = ''
as $$
begin
	if pg_catalog.to_regclass('meshhook_metrics.rollup_state') is null then
		raise exception 'the tables of meshhook_metrics are not installed in this database'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations that come with the extension.';
	end if;
end
$$;

comment on function meshhook_metrics.require_storage() is
'55000 where the storage tables do not exist.';

create function meshhook_metrics.leaves(
	target text,
	out leaf text,
	out lower_bound timestamptz,
	out upper_bound timestamptz)
returns setof record
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
begin
	return query
	select *
	from (
		select
			c.relname::text,
			pg_catalog.substring(b.bounds, 'FROM \(''([^'']+)''\)')::timestamptz as bound,
			pg_catalog.substring(b.bounds, 'TO \(''([^'']+)''\)')::timestamptz
		from pg_catalog.pg_inherits i
		join pg_catalog.pg_class c
			on c.oid = i.inhrelid
		cross join lateral pg_catalog.pg_get_expr(c.relpartbound, c.oid) b (bounds)
		where i.inhparent = pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.rollup_%s', leaves.target))
			and c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace) l
	where l.bound is not null
	order by l.bound;
end
$$;

comment on function meshhook_metrics.leaves(text) is
'The partitions of a rollup table, the earliest first: rows from lower_bound up to, but not including, upper_bound.';

create function meshhook_metrics.create_leaf(target text, at timestamptz)
returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
declare
	parent text := 'rollup_' || create_leaf.target;
	lower_bound timestamptz;
	upper_bound timestamptz;
	leaf text;
	attached boolean;
	api_role name;
	parent_owner name;
begin
	select
		pg_catalog.date_trunc(t.leaf_unit, create_leaf.at),
		pg_catalog.date_trunc(t.leaf_unit, create_leaf.at) + t.leaf_step,
		parent || '_' || pg_catalog.to_char(pg_catalog.date_trunc(t.leaf_unit, create_leaf.at), t.leaf_name)
	into strict lower_bound, upper_bound, leaf
	from meshhook_metrics.rollup_targets() t
	where t.target = create_leaf.target;

	-- Looked for again under the lock, which another session may have held
	for attempt in 1..2 loop
		select c.relispartition
		into attached
		from pg_catalog.pg_class c
		where c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and c.relname = leaf;
		if attached then
			return;
		end if;
		if attempt = 1 then
			execute pg_catalog.format('lock table only meshhook_metrics.%I in share update exclusive mode', parent);
		end if;
	end loop;
	if attached is not null then
		raise exception 'table meshhook_metrics.% is there, but is no partition of meshhook_metrics.%', leaf, parent
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Attach it again, or rename or drop it.';
	end if;

	-- Attaching a table locks nobody out, creating a partition would
	execute pg_catalog.format('create table meshhook_metrics.%I (like meshhook_metrics.%I)', leaf, parent);
	select pg_catalog.pg_get_userbyid(c.relowner)
	into parent_owner
	from pg_catalog.pg_class c
	where c.oid = pg_catalog.format('meshhook_metrics.%I', parent)::pg_catalog.regclass;
	if parent_owner <> current_user then
		execute pg_catalog.format('alter table meshhook_metrics.%I owner to %I', leaf, parent_owner);
	end if;

	-- A leaf is a table of its own to whoever names it
	execute pg_catalog.format('alter table meshhook_metrics.%I enable row level security', leaf);
	execute pg_catalog.format('revoke all on meshhook_metrics.%I from public', leaf);
	for api_role in
		select r.rolname
		from pg_catalog.pg_roles r
		where r.rolname in ('anon', 'authenticated', 'service_role')
	loop
		execute pg_catalog.format('revoke all on meshhook_metrics.%I from %I', leaf, api_role);
	end loop;

	execute pg_catalog.format('alter table meshhook_metrics.%I attach partition meshhook_metrics.%I for values from (%L) to (%L)',
		parent, leaf, lower_bound, upper_bound);
end
$$;

comment on function meshhook_metrics.create_leaf(text, timestamptz) is
'Makes sure that a rollup table has a partition for this time, which nobody but its owner can read. 55000 if a table of its name is in the way.';

create function meshhook_metrics.retention(name text)
returns interval
language plpgsql stable
set search_path = ''
as $$
declare
	setting text;
	kept interval := case retention.name
		when 'live' then interval '15 minutes'
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
	end if;
	return kept;
exception when data_exception then
	raise warning 'nothing of % is deleted, because retention_% is "%"',
		case retention.name when 'live' then 'live' else 'rollup_' || retention.name end, retention.name, setting
		using hint = 'That is not an interval; correct it in meshhook_metrics.settings.';
	return null;
end
$$;

comment on function meshhook_metrics.retention(text) is
'How long live, 1m, 5m, 1h or 1d is kept: the setting, or the default where there is none; null, with a warning, where it makes no sense.';

create function meshhook_metrics.close_minutes(now timestamptz default pg_catalog.clock_timestamp())
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
set jit = off
set work_mem = '64MB'
as $$
declare
	open_minute timestamptz := pg_catalog.date_trunc('minute', close_minutes.now);
	state record;
	closed_id bigint;
	earliest timestamptz;
	day timestamptz;
	kept interval;
	written bigint := 0;
begin
	perform meshhook_metrics.require_storage();
	select s.live_id, s.complete_until
	into state
	from meshhook_metrics.rollup_state s
	where s.target = '1m'
	for update;
	if not found then
		raise exception 'meshhook_metrics.rollup_state has lost its row 1m'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations again: they derive it from the data.';
	end if;

	select pg_catalog.max(l.id)
	into closed_id
	from meshhook_metrics.live l
	where l.id > state.live_id
		and pg_catalog.date_trunc('minute', l.at) <> open_minute;

	if closed_id is not null then
		select pg_catalog.date_trunc('minute', pg_catalog.min(l.at))
		into earliest
		from meshhook_metrics.live l
		where l.id > state.live_id
			and l.id <= closed_id;

		-- The clock went back: what was rolled up from this minute is to be done again
		if earliest < state.complete_until then
			perform
			from meshhook_metrics.rollup_state s
			where s.target <> '1m'
			order by pg_catalog.array_position(array['5m', '1h', '1d'], s.target)
			for update;
			update meshhook_metrics.rollup_state s
			set complete_until = pg_catalog.date_bin(t.step, earliest, timestamptz 'epoch')
			from meshhook_metrics.rollup_targets() t
			where t.target = s.target
				and s.target <> '1m'
				and s.complete_until > earliest;
		end if;

		for day in
			select distinct pg_catalog.date_trunc('day', l.at)
			from meshhook_metrics.live l
			where l.id > state.live_id
				and l.id <= closed_id
			order by 1
		loop
			perform meshhook_metrics.create_leaf('1m', day);
		end loop;

		-- The newest value is the greatest array, because it has the greatest id. The
		-- parser knows unnest() of several arrays by its bare name only.
		insert into meshhook_metrics.rollup_1m as r (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
		select
			l.tenant_id,
			e.series_id,
			pg_catalog.date_trunc('minute', l.at) as bucket,
			pg_catalog.sum(e.count)::bigint,
			pg_catalog.sum(e.sum),
			pg_catalog.min(e.min),
			pg_catalog.max(e.max),
			(pg_catalog.max(array[l.id::double precision, e.last]) filter (where e.last is not null))[2],
			meshhook_metrics.histogram_merge(e.histogram)
		from meshhook_metrics.live l
		cross join lateral unnest(l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram)
			e (series_id, count, sum, min, max, last, histogram)
		where l.id > state.live_id
			and l.id <= closed_id
		group by l.tenant_id, e.series_id, bucket
		order by l.tenant_id, e.series_id, bucket
		on conflict (tenant_id, series_id, bucket) do update
		set
			count = r.count + excluded.count,
			sum = r.sum + excluded.sum,
			min = least(r.min, excluded.min),
			max = greatest(r.max, excluded.max),
			last = coalesce(excluded.last, r.last),
			histogram = (
				select meshhook_metrics.histogram_merge(part.histogram)
				from (values (r.histogram), (excluded.histogram)) part (histogram));
		get diagnostics written = row_count;
	end if;

	update meshhook_metrics.rollup_state s
	set
		live_id = coalesce(closed_id, s.live_id),
		complete_until = greatest(s.complete_until, open_minute)
	where s.target = '1m'
		and (closed_id is not null or s.complete_until < open_minute);

	kept := meshhook_metrics.retention('live');
	if kept is not null then
		delete from meshhook_metrics.live l
		where l.id <= coalesce(closed_id, state.live_id)
			and l.at < close_minutes.now - kept;
	end if;
	return written;
end
$$;

comment on function meshhook_metrics.close_minutes(timestamptz) is
'Adds the rows of live up to the last one that is of another minute than now to rollup_1m, each exactly once, deletes those that are older than retention_live, and returns the number of minute rows. The worker calls it when a minute is over, in a transaction of its own.
55000 if the storage is not there or not whole.';

create function meshhook_metrics.rollup(target text default null)
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
set jit = off
set work_mem = '64MB'
as $$
declare
	this record;
	state record;
	source record;
	part record;
	begins timestamptz;
	ends timestamptz;
	leaf_begins timestamptz;
	part_written bigint;
	written bigint := 0;
begin
	if rollup.target not in ('5m', '1h', '1d') then
		raise exception 'there is no rollup "%"', rollup.target
			using
				errcode = 'invalid_parameter_value',
				hint = 'The targets are 5m, 1h and 1d; NULL is all of them, in this order.';
	end if;
	perform meshhook_metrics.require_storage();

	for this in
		select t.*
		from meshhook_metrics.rollup_targets() t
		where t.source is not null
			and t.target = coalesce(rollup.target, t.target)
		order by t.step
	loop
		select s.complete_until
		into state
		from meshhook_metrics.rollup_state s
		where s.target = this.target
		for update;
		if not found then
			raise exception 'meshhook_metrics.rollup_state has lost its row %', this.target
				using
					errcode = 'object_not_in_prerequisite_state',
					hint = 'Apply the migrations again.';
		end if;
		select s.complete_until, s.retained_from
		into source
		from meshhook_metrics.rollup_state s
		where s.target = this.source;

		-- A window whose source is partly gone stays as it is
		begins := pg_catalog.date_bin(this.step, source.retained_from, timestamptz 'epoch');
		if begins < source.retained_from then
			begins := begins + this.step;
		end if;
		begins := greatest(begins, state.complete_until);
		ends := pg_catalog.date_bin(this.step, source.complete_until, timestamptz 'epoch');
		continue when not ends > state.complete_until;

		-- Leaf by leaf, so that days of catching up need no more memory than one
		for part in
			select
				greatest(l.lower_bound, begins) as begins,
				least(l.upper_bound, ends) as ends
			from meshhook_metrics.leaves(this.source) l
			where l.lower_bound < ends
				and l.upper_bound > begins
			order by l.lower_bound
		loop
			leaf_begins := pg_catalog.date_trunc(this.leaf_unit, part.begins);
			while leaf_begins < part.ends loop
				perform meshhook_metrics.create_leaf(this.target, leaf_begins);
				leaf_begins := leaf_begins + this.leaf_step;
			end loop;

			execute pg_catalog.format(
				$statement$
					insert into meshhook_metrics.%I (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
					select
						s.tenant_id,
						s.series_id,
						pg_catalog.date_bin(%L, s.bucket, timestamptz 'epoch') as window,
						pg_catalog.sum(s.count)::bigint,
						pg_catalog.sum(s.sum),
						pg_catalog.min(s.min),
						pg_catalog.max(s.max),
						(pg_catalog.max(array[pg_catalog.date_part('epoch', s.bucket), s.last]) filter (where s.last is not null))[2],
						meshhook_metrics.histogram_merge(s.histogram)
					from meshhook_metrics.%I s
					where s.bucket >= %L
						and s.bucket < %L
					group by s.tenant_id, s.series_id, 3
					on conflict (tenant_id, series_id, bucket) do update
					set
						count = excluded.count,
						sum = excluded.sum,
						min = excluded.min,
						max = excluded.max,
						last = excluded.last,
						histogram = excluded.histogram
				$statement$,
				'rollup_' || this.target, this.step, 'rollup_' || this.source, part.begins, part.ends);
			get diagnostics part_written = row_count;
			written := written + part_written;
		end loop;

		update meshhook_metrics.rollup_state s
		set complete_until = ends
		where s.target = this.target;
	end loop;
	return written;
end
$$;

comment on function meshhook_metrics.rollup(text) is
'Computes the windows of rollup_5m, rollup_1h and rollup_1d (or of one of them: 5m, 1h, 1d) that have become complete in the table before, and returns how many rows it wrote. It can run at any time, any number of times. A window whose source has been deleted is left as it is.
Errors: 22023 another target, 55000 if the storage is not there or not whole.';

create function meshhook_metrics.maintain()
returns void
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
set lock_timeout = '5s'
as $$
declare
	this record;
	part record;
	begins timestamptz;
	kept interval;
begin
	perform meshhook_metrics.require_storage();
	begin
		perform meshhook_metrics.rollup();
	exception when lock_not_available then
		raise warning 'nothing was rolled up: %', sqlerrm
			using hint = 'Another session is rolling up; the next run catches up.';
	end;

	-- Leaves that will not change any more: an index that was filled in the order of
	-- time is half empty
	for part in
		select l.leaf, c.relname as index
		from meshhook_metrics.rollup_targets() t
		join meshhook_metrics.rollup_state s
			on s.target = t.target
		cross join lateral meshhook_metrics.leaves(t.target) l
		join pg_catalog.pg_index i
			on i.indrelid = pg_catalog.format('meshhook_metrics.%I', l.leaf)::pg_catalog.regclass
			and i.indisprimary
		join pg_catalog.pg_class c
			on c.oid = i.indexrelid
		where l.upper_bound <= s.complete_until
			and l.upper_bound <= pg_catalog.now()
			and not coalesce('fillfactor=100' = any (c.reloptions), false)
		order by l.lower_bound
	loop
		begin
			execute pg_catalog.format('alter index meshhook_metrics.%I set (fillfactor = 100)', part.index);
			execute pg_catalog.format('reindex index meshhook_metrics.%I', part.index);
		exception when lock_not_available then
			raise warning 'meshhook_metrics.% was not made compact: %', part.leaf, sqlerrm
				using hint = 'Another session uses it; the next run tries again.';
		end;
	end loop;

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

	kept := meshhook_metrics.retention('live');
	if kept is not null then
		delete from meshhook_metrics.live l
		using meshhook_metrics.rollup_state s
		where s.target = '1m'
			and l.id <= s.live_id
			and l.at < pg_catalog.now() - kept;
	end if;

	-- Dropping comes last: it locks the whole table until the end of the transaction
	for part in
		select t.target, l.leaf, l.upper_bound
		from meshhook_metrics.rollup_targets() t
		cross join lateral meshhook_metrics.retention(t.target) r (retention)
		cross join lateral meshhook_metrics.leaves(t.target) l
		where l.upper_bound <= pg_catalog.now() - r.retention
			and not exists (
				select
				from meshhook_metrics.rollup_targets() coarser
				join meshhook_metrics.rollup_state s
					on s.target = coarser.target
				where coarser.source = t.target
					and s.complete_until < l.upper_bound)
		order by t.step, l.lower_bound
	loop
		begin
			perform
			from meshhook_metrics.rollup_state s
			where s.target = part.target
			for update nowait;
			execute pg_catalog.format('drop table meshhook_metrics.%I', part.leaf);
			update meshhook_metrics.rollup_state s
			set retained_from = greatest(s.retained_from, part.upper_bound)
			where s.target = part.target;
		exception when lock_not_available then
			raise warning 'meshhook_metrics.% was not dropped: %', part.leaf, sqlerrm
				using hint = 'Another session uses it; the next run tries again.';
		end;
	end loop;
end
$$;

comment on function meshhook_metrics.maintain() is
'Rolls up, compacts the indexes of partitions that are complete, creates partitions ahead, and deletes what is older than its retention (settings retention_live, retention_1m, retention_5m, retention_1h, retention_1d) and has been rolled up. What another session has locked for 5 seconds is left for the next run, with a warning.
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
