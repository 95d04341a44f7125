-- Rolling up: live rows into minutes, minutes into five minutes, hours and days.
--
-- The tables are not the extension's (migrations/ makes them), so these functions
-- find them when they run, with the rights of who calls them: their owner. They
-- speak UTC.
--
-- Locks are always taken in this order, so that none waits for another in a circle:
-- rows of rollup_state (1m, 5m, 1h, 1d), then leaves to create, then rows.
-- maintain() is the exception, and does not wait for rows of rollup_state. Rows of
-- series come last of all: the flush worker, which takes some of them first, takes
-- nothing after them that maintain() could hold.

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
		('1h', '1m', interval '1 hour', 'month', 'YYYYMM', interval '1 month', interval '2 months', interval '400 days'),
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
			pg_catalog.substring(b.bounds, 'FROM [(]''([^'']+)''[)]')::timestamptz as bound,
			pg_catalog.substring(b.bounds, 'TO [(]''([^'']+)''[)]')::timestamptz
		from pg_catalog.pg_inherits i
		join pg_catalog.pg_class c
			on c.oid = i.inhrelid
		-- With the leaf's oid it would wait for who has that locked
		cross join lateral pg_catalog.pg_get_expr(c.relpartbound, 0) b (bounds)
		where i.inhparent = pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', 'rollup_' || leaves.target))
			and c.relnamespace = 'meshhook_metrics'::pg_catalog.regnamespace
			and not i.inhdetachpending) l
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
	api_role name;
	parent_owner name;
	access_method name;
	tablespace name;
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
		if exists (
			select
			from meshhook_metrics.leaves(create_leaf.target) l
			where create_leaf.at >= l.lower_bound
				and create_leaf.at < l.upper_bound)
		then
			return;
		end if;
		if attempt = 1 then
			execute pg_catalog.format('lock table only meshhook_metrics.%I in share update exclusive mode', parent);
		end if;
	end loop;
	if pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', leaf)) is not null then
		raise exception 'table meshhook_metrics.% is there, but is no partition of meshhook_metrics.%', leaf, parent
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Attach it again, or rename or drop it.';
	end if;

	-- A partition that is created locks out all readers of its parent until the transaction
	-- ends, and waits for those that are there. A table that is attached does not, and it
	-- may have indexes, foreign keys, triggers and identity columns of its parent only from
	-- being attached. So here it gets the rest of what a partition inherits.
	select pg_catalog.pg_get_userbyid(c.relowner), a.amname, t.spcname
	into parent_owner, access_method, tablespace
	from pg_catalog.pg_class c
	left join pg_catalog.pg_am a
		on a.oid = c.relam
	left join pg_catalog.pg_tablespace t
		on t.oid = c.reltablespace
	where c.oid = pg_catalog.format('meshhook_metrics.%I', parent)::pg_catalog.regclass;
	execute pg_catalog.format(
		'create table meshhook_metrics.%I ('
		'like meshhook_metrics.%I '
		'including defaults including constraints including generated including storage including compression)',
		leaf, parent)
		|| coalesce(' using ' || pg_catalog.quote_ident(access_method), '')
		|| coalesce(' tablespace ' || pg_catalog.quote_ident(tablespace), '');
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
'Makes sure that a rollup table has a partition for this time, with all that the table has (constraints, generated columns, tablespace, storage, compression), which nobody but its owner can read. 55000 if a table of its name is in the way.';

create function meshhook_metrics.close_minutes(now timestamptz default pg_catalog.clock_timestamp())
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
set jit = off
set work_mem = '64MB'
as $$
declare
	-- So many rows of live, and what is left of the minute of the last one
	rows_at_most constant integer := 500;
	open_minute timestamptz := pg_catalog.date_trunc('minute', close_minutes.now);
	state record;
	closed_id bigint;
	last record;
	earliest timestamptz;
	closed_until timestamptz := open_minute;
	day timestamptz;
	written bigint := 0;
begin
	perform meshhook_metrics.require_storage();
	perform meshhook_metrics.mend_state();
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

	-- What is more than a step is for the next one. A minute is not split, so that none of
	-- its rows is written twice, unless the clock was set back into it.
	select l.id, pg_catalog.date_trunc('minute', l.at) as minute
	into last
	from meshhook_metrics.live l
	where l.id > state.live_id
		and l.id <= closed_id
	order by l.id
	offset rows_at_most - 1
	limit 1;
	if found then
		select l.id
		into last.id
		from meshhook_metrics.live l
		where l.id > last.id
			and l.id <= closed_id
			and pg_catalog.date_trunc('minute', l.at) <> last.minute
		order by l.id
		limit 1;
		if found then
			-- Whatever the order of times is, what is left is not complete
			select least(open_minute, pg_catalog.date_trunc('minute', pg_catalog.min(l.at)))
			into closed_until
			from meshhook_metrics.live l
			where l.id >= last.id
				and l.id <= closed_id;
			closed_id := last.id - 1;
		end if;
	end if;

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
			meshhook_metrics.sum_within_range(e.sum),
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
			sum = meshhook_metrics.add_within_range(r.sum, excluded.sum),
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
		complete_until = greatest(s.complete_until, closed_until)
	where s.target = '1m'
		and (closed_id is not null or s.complete_until < open_minute);
	-- Else the same rows would be added again by the next step
	if closed_id is not null and not found then
		raise exception 'table meshhook_metrics.rollup_state did not take how far its row 1m is'
			using
				errcode = 'data_exception',
				hint = 'Look for a trigger or a rule on the table.';
	end if;
	return written;
end
$$;

comment on function meshhook_metrics.close_minutes(timestamptz) is
'Adds rows of live to rollup_1m, each exactly once, and returns the number of minute rows: one step, of 500 rows of live and the rest of the minute that the last one is of, up to the last row that is of another minute than now. The worker calls it when a minute is over, each time in a transaction of its own, until all are in. complete_until of rollup_state says how far it is.
55000 if the storage is not there or not whole.';

create function meshhook_metrics.delete_old_live(at_most bigint, now timestamptz default pg_catalog.clock_timestamp())
returns bigint
language plpgsql
set search_path = ''
as $$
declare
	-- They are in order, but for a clock that was set back: those that are kept need not
	-- all be read each time. Those of times that are still to come do not count, or many
	-- of them would keep all others.
	looked_at constant bigint := greatest(10000, at_most);
	kept interval;
	closed_id bigint;
	deleted bigint := 0;
begin
	perform meshhook_metrics.require_storage();
	-- Only ever raised, and before live is locked, as by everybody
	select s.live_id
	into closed_id
	from meshhook_metrics.rollup_state s
	where s.target = '1m';
	kept := meshhook_metrics.retention('live');
	if kept is not null then
		delete from meshhook_metrics.live l
		where l.id = any (array(
			select o.id
			from (
				select l.id, l.at
				from meshhook_metrics.live l
				where l.id <= closed_id
					and l.at <= delete_old_live.now
				order by l.id
				limit looked_at) o
			where o.at < delete_old_live.now - kept
			order by o.id
			limit delete_old_live.at_most));
		get diagnostics deleted = row_count;
	end if;
	return deleted;
end
$$;

comment on function meshhook_metrics.delete_old_live(bigint, timestamptz) is
'Deletes the earliest rows of live that are in rollup_1m and older than retention_live, and returns how many. The worker calls it after each flush for about as many as that has brought, because Realtime looks at every deleted row of a transaction before it sends on what was committed after it.
55000 if the storage is not there.';

create function meshhook_metrics.rollup_windows(target text, begins timestamptz, ends timestamptz)
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
-- A leaf that has not been analyzed yet has the planner sort where it should hash, and
-- take the index on bucket for useless
set enable_seqscan = off
set enable_indexscan = off
set enable_indexonlyscan = off
set enable_sort = off
set enable_incremental_sort = off
set jit = off
set work_mem = '64MB'
as $$
declare
	has_rows constant text := 'select exists (select from meshhook_metrics.%I r where r.bucket >= %L and r.bucket < %L)';
	this record;
	piece timestamptz;
	piece_ends timestamptz;
	leaf_begins timestamptz;
	catching_up boolean;
	filled boolean := true;
	has_source boolean := true;
	written bigint;
	total bigint := 0;
begin
	select t.*, 12 * t.step as piece
	into strict this
	from meshhook_metrics.rollup_targets() t
	where t.target = rollup_windows.target;

	-- What a usual run can do without is worth it for many windows: rows that cannot
	-- be there yet are inserted at half the cost
	catching_up := rollup_windows.begins + this.piece < rollup_windows.ends;
	if catching_up then
		execute pg_catalog.format(has_rows, 'rollup_' || this.target, rollup_windows.begins, rollup_windows.ends)
		into filled;
	end if;

	-- A few windows at a time, so that many need little memory, and rows are stored in
	-- the order of time
	for piece in
		select p.piece
		from pg_catalog.generate_series(rollup_windows.begins, rollup_windows.ends - this.step, this.piece) p (piece)
		order by p.piece
	loop
		piece_ends := least(piece + this.piece, rollup_windows.ends);
		if catching_up then
			execute pg_catalog.format(has_rows, 'rollup_' || this.source, piece, piece_ends)
			into has_source;
			continue when not has_source;
		end if;

		leaf_begins := pg_catalog.date_trunc(this.leaf_unit, piece);
		while leaf_begins < piece_ends loop
			perform meshhook_metrics.create_leaf(this.target, leaf_begins);
			leaf_begins := leaf_begins + this.leaf_step;
		end loop;

		-- In the order of the primary key, rows are inserted faster
		execute pg_catalog.format(
			$statement$
				insert into meshhook_metrics.%I (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
				select w.*
				from (
					select
						s.tenant_id,
						s.series_id,
						pg_catalog.date_bin(%L, s.bucket, timestamptz 'epoch') as bucket,
						pg_catalog.sum(s.count)::bigint,
						meshhook_metrics.sum_within_range(s.sum),
						pg_catalog.min(s.min),
						pg_catalog.max(s.max),
						(pg_catalog.max(array[pg_catalog.date_part('epoch', s.bucket), s.last]) filter (where s.last is not null))[2],
						meshhook_metrics.histogram_merge(s.histogram)
					from meshhook_metrics.%I s
					where s.bucket >= %L
						and s.bucket < %L
					group by s.tenant_id, s.series_id, 3
					offset 0) w
				order by w.tenant_id, w.series_id, w.bucket
			$statement$,
			'rollup_' || this.target, this.step, 'rollup_' || this.source, piece, piece_ends)
			|| case
				when filled then
					$statement$
						on conflict (tenant_id, series_id, bucket) do update
						set
							count = excluded.count,
							sum = excluded.sum,
							min = excluded.min,
							max = excluded.max,
							last = excluded.last,
							histogram = excluded.histogram
					$statement$
				else ''
			end;
		get diagnostics written = row_count;
		total := total + written;
	end loop;
	return total;
end
$$;

comment on function meshhook_metrics.rollup_windows(text, timestamptz, timestamptz) is
'Computes the windows of a rollup table from begins to ends out of its source, and returns how many rows it wrote. For rollup(), which holds the target''s row of rollup_state.';

create function meshhook_metrics.rollup(target text default null)
returns bigint
language plpgsql
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
declare
	this record;
	state record;
	source record;
	part record;
	begins timestamptz;
	ends timestamptz;
	lost text;
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
		lost := case when not found then this.target end;
		select s.complete_until, s.retained_from
		into source
		from meshhook_metrics.rollup_state s
		where s.target = this.source;
		lost := coalesce(lost, case when not found then this.source end);
		if lost is not null then
			raise exception 'meshhook_metrics.rollup_state has lost its row %', lost
				using
					errcode = 'object_not_in_prerequisite_state',
					hint = 'Apply the migrations again: they derive it from the data.';
		end if;

		-- A window whose source is partly gone stays as it is
		begins := pg_catalog.date_bin(this.step, source.retained_from, timestamptz 'epoch');
		if begins < source.retained_from then
			begins := begins + this.step;
		end if;
		begins := greatest(begins, state.complete_until);
		ends := pg_catalog.date_bin(this.step, source.complete_until, timestamptz 'epoch');
		continue when not ends > state.complete_until;

		for part in
			select
				l.leaf,
				greatest(l.lower_bound, begins) as begins,
				least(l.upper_bound, ends) as ends
			from meshhook_metrics.leaves(this.source) l
			where l.lower_bound < ends
				and l.upper_bound > begins
			order by l.lower_bound
		loop
			-- Autovacuum does this, but may not have come to the newest part
			if part.begins + 12 * this.step < part.ends then
				perform pg_catalog.brin_summarize_new_values(i.indexrelid)
				from pg_catalog.pg_index i
				join pg_catalog.pg_class c
					on c.oid = i.indexrelid
				join pg_catalog.pg_am a
					on a.oid = c.relam
				where i.indrelid = pg_catalog.to_regclass(pg_catalog.format('meshhook_metrics.%I', part.leaf))
					and a.amname = 'brin';
			end if;
			written := written + meshhook_metrics.rollup_windows(this.target, part.begins, part.ends);
		end loop;

		update meshhook_metrics.rollup_state s
		set complete_until = ends
		where s.target = this.target;
	end loop;
	return written;
end
$$;

comment on function meshhook_metrics.rollup(text) is
'Computes the windows of rollup_5m, rollup_1h and rollup_1d (or of one of them: 5m, 1h, 1d) that have become complete in their source, and returns how many rows it wrote. It can run at any time, any number of times. A window whose source has been deleted is left as it is.
Errors: 22023 another target, 55000 if the storage is not there or not whole.';
