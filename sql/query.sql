-- Reading what is kept: query_range() and its parts.
--
-- The tables are not the extension's (migrations/ makes them), so these functions
-- find them when they run. They run with the caller's rights: row level security
-- decides what is seen, and an error tells nothing about what is not.
--
-- One statement sees one snapshot: rollup_state, the rollup tables and live agree,
-- whatever is being flushed or rolled up meanwhile. All times are bins from
-- 1970-01-01 00:00 UTC; the session's time zone plays no part.
--
-- Callers need the right to execute all of these functions, but they are no API: their
-- arguments have no names, and what they return no columns with names, because PostgREST
-- offers whatever it could call by name.
--
-- To which moments samples belong, here and in alert rules:
--
-- 1. A row of live is about the time (at - seconds, at], as far as that is within the
--    minute, UTC, of its at. So each sample belongs to one minute, the one of its row in
--    rollup_1m, also where a flush brought what came in longer than that (after an
--    outage, say). Of that time it is nothing but even: a part of it has the same part
--    of the row's count and sum.
-- 2. Time is counted in whole microseconds: (a, b] is [a + 1 us, b + 1 us), and the
--    flush that ends a minute, whose at is a microsecond before the boundary, ends there.
--    A bin is [bucket, bucket + step), an alert rule's window (at - time_window, at].
-- 3. increase and count of a bin or window add up these parts of its rows: count and sum
--    times (time that the row and the bin share / time of the row). So bins that follow each
--    other add up to the whole, and what is divided is a fraction. avg is sum / count of
--    these parts, held within min and max.
-- 4. rate is increase / length of the bin or window, of the newest one only as far as
--    has been flushed. Where no row is, nothing came: gaps count as time.
-- 5. min, max, last and quantiles take all of each row that shares any time with the
--    bin; last is of the latest of them.
-- 6. Rows of rollup tables are not divided: what is read from them is whole windows.

create function meshhook_metrics.query_range_step(timestamptz, timestamptz, interval, timestamptz, timestamptz, timestamptz)
returns interval
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	since alias for $1;
	until alias for $2;
	step alias for $3;
	retained_1m alias for $4;
	retained_5m alias for $5;
	retained_1h alias for $6;
	-- Enough for a chart, and Prometheus' limit
	readable constant integer := 300;
	allowed constant integer := 11000;
	minute constant numeric := 60;
	day constant numeric := 86400;
	epoch constant timestamptz := '1970-01-01 00:00:00+00';
	seconds numeric := extract(epoch from until - since);
	length numeric;
	candidate record;
begin
	if step is null then
		for candidate in
			select c.step, c.retained
			from (
				values
					(interval '1 minute', retained_1m),
					(interval '5 minutes', retained_5m),
					(interval '15 minutes', retained_5m),
					(interval '1 hour', retained_1h),
					(interval '6 hours', retained_1h),
					(interval '24 hours', null),
					(make_interval(hours => 7 * 24), null),
					(make_interval(hours => 30 * 24), null)
			) c (step, retained)
			order by c.step
		loop
			if seconds <= readable * extract(epoch from candidate.step)
				and (candidate.retained is null or candidate.retained <= date_bin(candidate.step, since, epoch))
			then
				return candidate.step;
			end if;
		end loop;
		return make_interval(hours => 24 * ceil(seconds / readable / day)::integer);
	end if;

	if not isfinite(step) then
		raise exception 'step is %', step
			using
				errcode = 'datetime_field_overflow',
				hint = 'Give a step like ''5 minutes''; without one it is chosen to suit the range.';
	end if;
	if extract(year from step) <> 0 or extract(month from step) <> 0 then
		raise exception 'step "%" has months or years, which are not equally long', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'Count in days, such as ''30 days''.';
	end if;

	length := extract(epoch from step);
	if length < 1 then
		raise exception 'step "%" is too short', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'The shortest is one second.';
	end if;
	if length > 36500 * day then
		raise exception 'step "%" is too long', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'The longest is 36500 days.';
	end if;
	if length < minute and minute % length <> 0 then
		raise exception 'step "%" does not divide a minute', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'Below a minute take 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30 seconds.';
	end if;
	if length between minute and day and (length % minute <> 0 or day % length <> 0) then
		raise exception 'step "%" does not divide a day into whole minutes', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'From a minute to a day take 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30 minutes, 1, 2, 3, 4, 6, 8, 12 or 24 hours, or anything else that divides a day.';
	end if;
	if length > day and length % day <> 0 then
		raise exception 'step "%" is not a whole number of days', step
			using
				errcode = 'invalid_parameter_value',
				hint = 'Above a day there are whole days only.';
	end if;
	if seconds > allowed * length then
		raise exception 'a step of "%" makes more than % buckets of this range', step, allowed
			using
				errcode = 'invalid_parameter_value',
				detail = format('From %s to %s there are %s.', since, until, ceil(seconds / length)),
				hint = 'Use a longer step; without one it is chosen to suit the range.';
	end if;

	-- Seconds only: a day of 24 hours, whatever the session's time zone
	return make_interval(secs => length::double precision);
end
$$;

comment on function meshhook_metrics.query_range_step(timestamptz, timestamptz, interval, timestamptz, timestamptz, timestamptz) is
'The step that query_range() uses for a range from $1 to $2: the one asked for in $3, in hours and below, or for null the shortest of 1, 5 and 15 minutes, 1 and 6 hours, 1, 7 and 30 days that makes at most 300 buckets and is served by a table of which nothing of the range has been dropped ($4, $5, $6: from when on rollup_1m, rollup_5m and rollup_1h are kept).
Errors: 22023 a step that divides neither a minute nor a day nor is whole days, or that makes more than 11,000 buckets; 22008 an infinite one.';

create function meshhook_metrics.query_range_filter(text, jsonb)
returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	argument alias for $1;
	labels alias for $2;
	label record;
begin
	if labels is null or labels = '{}' then
		return '{}';
	end if;
	if jsonb_typeof(labels) <> 'object' then
		raise exception '% are not an object, but %', argument, jsonb_typeof(labels)
			using
				errcode = 'invalid_parameter_value',
				hint = 'Give the labels to look for like {"status": "failed"}, or {} for all series.';
	end if;

	for label in
		select e.key, jsonb_typeof(e.value) as type
		from jsonb_each(labels) e
		where jsonb_typeof(e.value) not in ('string', 'number', 'boolean')
		limit 1
	loop
		raise exception 'label "%" is not a plain value, but %', label.key, label.type
			using
				errcode = 'invalid_parameter_value',
				hint = 'A label''s value is a text, a number or a boolean; leave out labels that may have any value.';
	end loop;

	return (
		select jsonb_object_agg(e.key, e.value)
		from jsonb_each_text(labels) e);
end
$$;

comment on function meshhook_metrics.query_range_filter(text, jsonb) is
'Labels to look for ($2, an argument or column called $1), each value a text: numbers and booleans are taken as theirs. Errors: 22023 for what cannot be labels.';

create function meshhook_metrics.query_range_matches(jsonb, jsonb)
returns boolean
as 'MODULE_PATHNAME', 'mhm_query_range_matches'
language c immutable strict parallel safe;

comment on function meshhook_metrics.query_range_matches(jsonb, jsonb) is
'Whether a series with the labels $1 is one of those that $2 asks for: it has all of these labels with these values, as recording takes them. A number or boolean is its text, and an empty value is no label: it asks for the series without it.';

create function meshhook_metrics.query_range_labels(jsonb, text[])
returns jsonb
as 'MODULE_PATHNAME', 'mhm_query_range_labels'
language c immutable strict parallel safe;

comment on function meshhook_metrics.query_range_labels(jsonb, text[]) is
'Those of the labels $1 of a series whose keys are in $2, by which it is grouped: an object, without the keys that it has not.';

create function meshhook_metrics.query_range_applies(text, text)
returns boolean
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
	select case $2
		when 'counter' then $1 in ('increase', 'rate', 'avg', 'count')
		when 'gauge' then $1 in ('last', 'avg', 'min', 'max', 'count')
		else $1 <> 'last'
	end
$$;

comment on function meshhook_metrics.query_range_applies(text, text) is
'Whether metrics of the kind $2 have the aggregate $1, which is one that exists.';

create function meshhook_metrics.query_range_aggregate(text, text, text)
returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	aggregate alias for $1;
	kind alias for $2;
	metric alias for $3;
	listed constant text := 'increase, rate, avg, min, max, last, count, p50, p75, p90, p95, p99, p99.9 and others from p0 to p100';
	applicable text;
begin
	if aggregate not in ('increase', 'rate', 'avg', 'min', 'max', 'last', 'count')
		and aggregate !~ '^p(100([.]0{1,9})?|[0-9]{1,2}([.][0-9]{1,9})?)$'
	then
		raise exception 'there is no aggregate "%"', aggregate
			using
				errcode = 'invalid_parameter_value',
				hint = format('The aggregates are %s.', listed);
	end if;
	if aggregate is null then
		return case kind when 'counter' then 'increase' when 'gauge' then 'last' when 'histogram' then 'p95' end;
	end if;

	if not meshhook_metrics.query_range_applies(aggregate, kind) and kind is not null then
		applicable := case kind
			when 'counter' then 'increase, rate, avg and count'
			when 'gauge' then 'last, avg, min, max and count'
			else 'increase, rate, avg, min, max, count and quantiles like p95'
		end;
		raise exception '"%" is a %, which has no %', metric, kind, aggregate
			using
				errcode = 'invalid_parameter_value',
				hint = format('A %s has %s.', kind, applicable);
	end if;
	return aggregate;
end
$$;

comment on function meshhook_metrics.query_range_aggregate(text, text, text) is
'The aggregate that query_range() uses where $1 is asked for of the metric $3, of the kind $2: null is the kind''s own (increase of a counter, last of a gauge, p95 of a histogram). With a null for kind the name alone is checked.
Errors: 22023 an unknown aggregate, or one that the kind does not have.';

create function meshhook_metrics.query_range_check(text, timestamptz, timestamptz, text[])
returns void
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	metric alias for $1;
	since alias for $2;
	until alias for $3;
	group_by alias for $4;
begin
	if metric is null or since is null or until is null then
		raise exception '% is null', case when metric is null then 'metric' when since is null then 'since' else 'until' end
			using
				errcode = 'null_value_not_allowed',
				hint = 'Call query_range(metric, since), or query_range(metric, since, until) for a range that has ended.';
	end if;
	if not isfinite(since) or not isfinite(until) then
		raise exception '% is infinite', case when isfinite(since) then 'until' else 'since' end
			using
				errcode = 'datetime_field_overflow',
				hint = 'Give the time at which the range begins or ends.';
	end if;
	if since > until then
		raise exception 'since is after until'
			using
				errcode = 'invalid_parameter_value',
				detail = format('The range would be from %s to %s.', since, until),
				hint = 'Exchange them; the beginning comes first.';
	end if;
	if exists (select from unnest(group_by) k where k is null) then
		raise exception 'group_by has a null'
			using
				errcode = 'null_value_not_allowed',
				hint = 'Give the keys of labels, such as ''{status}'', or null for one series over all.';
	end if;
	if to_regclass('meshhook_metrics.rollup_state') is null then
		raise exception 'the tables of meshhook_metrics are not installed in this database'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations that come with the extension.';
	end if;
end
$$;

comment on function meshhook_metrics.query_range_check(text, timestamptz, timestamptz, text[]) is
'Refuses what makes no sense as metric, since, until and group_by of query_range(): 22004, 22008 and 22023; and 55000 where there are no tables.';

create function meshhook_metrics.query_range_edges(interval, timestamptz, timestamptz, timestamptz[])
returns timestamptz[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	step alias for $1;
	first alias for $2;
	beyond alias for $3;
	complete alias for $4;
	windows constant interval[] := array[interval '24 hours', interval '1 hour', interval '5 minutes', interval '1 minute'];
	edges timestamptz[] := array[first];
begin
	for i in 1 .. cardinality(windows) loop
		edges[i + 1] := case
			when extract(epoch from step) % extract(epoch from windows[i]) <> 0 then edges[i]
			else greatest(edges[i], least(beyond, date_bin(windows[i], complete[i], timestamptz 'epoch')))
		end;
	end loop;
	return edges || beyond;
end
$$;

comment on function meshhook_metrics.query_range_edges(interval, timestamptz, timestamptz, timestamptz[]) is
'Where query_range() reads the buckets from $2 to $3 that are as long as $1: in rollup_1d from the first of these edges to the second, in rollup_1h from there to the third, then in rollup_5m, rollup_1m and live. $4: until when the four rollup tables are complete.
It is the table with the longest windows that divide a bucket, as far as it is complete, then the next finer one. That is exact wherever the edges are, since a window is as long as whole windows of the finer tables, and rows of live are all of one minute.';

create function meshhook_metrics.query_range_live(text[], text, interval)
returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	columns alias for $1;
	member alias for $2;
	step alias for $3;
	short constant boolean := step < interval '1 minute';
	matched text;
	shares text;
begin
	-- Each row of live is added up before it is divided: it has many series, and is in
	-- many buckets. last is of the latest row with the series, so that waits.
	select format(
		'select l.id, l.at, %s e.* from meshhook_metrics.live l %s cross join lateral ('
		'select %s, %s from (select unnest(l.series_id) as series_id, %s) e where e.series_id = any ($2)%s) e '
		'where l.tenant_id = any ($1) and l.at >= ($4)[5] and l.at < ($4)[6]%s',
		case when columns = '{last}' and short then 't.*,' when short then 'd.*,' end,
		case when short then
			-- A row's time begins with begins and ends before ends, whole microseconds
			'cross join lateral ('
			'select b.begins, date_bin($3, b.begins, $5) as first, l.at + interval ''1 microsecond'' as ends from ('
			'select greatest(date_bin(''1 minute'', l.at, $5), case when l.seconds between 0 and 60 then '
			'least(l.at, l.at - make_interval(secs => l.seconds) + interval ''1 microsecond'') end) as begins) b offset 0) t'
		end
		|| case when columns = '{last}' then '' else
			-- Once for all groups
			' cross join lateral ('
			'select array_agg(s.bucket) as buckets, array_agg('
			'extract(epoch from least(s.bucket + $3, t.ends) - greatest(s.bucket, t.begins))::double precision '
			'/ extract(epoch from t.ends - t.begins)::double precision) as shares '
			'from generate_series(t.first, l.at, $3) s (bucket) '
			'where s.bucket >= ($4)[5] and s.bucket < ($4)[6]) d'
		end,
		case when columns = '{last}' then 'e.series_id' else member || ' as member' end,
		string_agg(
			case c.name
				when 'last' then 'e.last'
				when 'count' then 'sum(e.count)::bigint as count'
				when 'histogram' then 'meshhook_metrics.histogram_merge(e.histogram) as histogram'
				when 'sum' then 'sum(e.sum) as sum'
				else format('%1$s(e.%1$I) as %1$I', c.name)
			end,
			', ' order by c.n),
		string_agg(format('unnest(l.%1$I) as %1$I', c.name), ', ' order by c.n),
		case when columns = '{last}' then ' and e.last is not null' when member <> '1' then ' group by 1' end,
		case when short then ' + interval ''1 minute''' end)
	into matched
	from unnest(columns) with ordinality c (name, n);

	if not short then
		return format(
			'select date_bin($3, r.at, $5) as bucket, %s, r.%s from (%s) r',
			case when columns = '{last}' then 'r.at, r.id, r.series_id' else 'r.member' end,
			array_to_string(columns, ', r.'), matched);
	end if;

	if columns = '{last}' then
		-- No later row ends before an earlier one, so it has all buckets from its first on
		return format(
			'select b.bucket, r.member, r.last from ('
			'select e.first, least(e.at, e.later - $3) as newest, %s as member, sum(e.last) as last from ('
			'select m.*, min(m.first) over ('
			'partition by m.series_id order by m.at desc, m.id desc rows between unbounded preceding and 1 preceding) as later '
			'from (%s) m) e '
			'group by 1, 2, 3) r '
			'cross join lateral generate_series(r.first, r.newest, $3) b (bucket) '
			'where b.bucket >= ($4)[5] and b.bucket < ($4)[6]',
			member, matched);
	end if;
	select string_agg(
		case when c.name in ('count', 'sum') then format('b.%1$I * b.share as %1$I', c.name) else format('b.%I', c.name) end,
		', ' order by c.n)
	into shares
	from unnest(columns) with ordinality c (name, n);
	return format(
		'select b.bucket, b.member, %s from ('
		'select unnest(r.buckets) as bucket, unnest(r.shares) as share, r.member, r.%s from (%s offset 0) r) b',
		shares, array_to_string(columns, ', r.'), matched);
end
$$;

comment on function meshhook_metrics.query_range_live(text[], text, interval) is
'The text of the subquery by which query_range_source() reads the columns $1 of live, with the expression $2 for the group of a series e.series_id (1 where there is one group): the rows of a bucket of $3 and group, added up within each row of live and divided among buckets shorter than a minute; of last, from a minute on, each (bucket, at, id, series_id, last), below it what the latest row of each series says.';

create function meshhook_metrics.query_range_source(text[], boolean, interval, timestamptz[])
returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	columns alias for $1;
	grouped alias for $2;
	step alias for $3;
	edges alias for $4;
	tables constant text[] := array['rollup_1d', 'rollup_1h', 'rollup_5m', 'rollup_1m'];
	windows constant interval[] := array[interval '24 hours', interval '1 hour', interval '5 minutes', interval '1 minute'];
	-- A binary search, because a join could become a loop over all series
	member constant text := case when grouped then '($6)[width_bucket(e.series_id, $2)]' else '1' end;
	parts text[];
	source text;
begin
	for i in 1 .. cardinality(tables) loop
		continue when edges[i] >= edges[i + 1];
		parts := parts || format(
			'select %s as bucket, %s, e.%s from meshhook_metrics.%I e '
			'where e.tenant_id = any ($1) and e.series_id = any ($2) and e.bucket >= ($4)[%s] and e.bucket < ($4)[%s]',
			case when windows[i] = step then 'e.bucket' else 'date_bin($3, e.bucket, $5)' end,
			case when columns = '{last}' then 'e.bucket as at, 0::bigint as id, e.series_id' else member || ' as member' end,
			array_to_string(columns, ', e.'), tables[i], i, i + 1);
	end loop;
	if edges[5] < edges[6] then
		parts := parts || meshhook_metrics.query_range_live(columns, member, step);
	end if;

	if parts is null then
		return null;
	end if;

	source := array_to_string(parts, ' union all ');
	if columns = '{last}' and step >= interval '1 minute' then
		source := format(
			'select e.bucket, %s as member, e.last from ('
			'select distinct on (s.bucket, s.series_id) s.bucket, s.series_id, s.last from (%s) s '
			'where s.last is not null order by s.bucket, s.series_id, s.at desc, s.id desc) e', member, source);
	end if;
	return source;
end
$$;

comment on function meshhook_metrics.query_range_source(text[], boolean, interval, timestamptz[]) is
'The text of a subquery (bucket, member, and the columns $1) with all that query_range() takes into account for buckets as long as $3, as query_range_edges() says in $4; member is the number of the group, 1 if not grouped ($2). Null if there is nothing to read.
Its parameters: $1 tenants, $2 series, $3 step, $4 edges, $5 the origin of bins, $6 for each of $2 the number of its group. Only names of our own get into it.';

create function meshhook_metrics.query_range_statement(text, text, boolean, interval, timestamptz[])
returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
	aggregate alias for $1;
	kind alias for $2;
	grouped alias for $3;
	step alias for $4;
	edges alias for $5;
	columns text[];
	expression text;
	source text;
begin
	case
		when aggregate ~ '^p[0-9]' then
			columns := array['histogram'];
			expression := 'meshhook_metrics.histogram_quantile(meshhook_metrics.histogram_merge(p.histogram), $8)';
		when aggregate = 'avg' and kind = 'counter' then
			columns := array['sum', 'count'];
			expression := 'sum(p.sum) / nullif(sum(p.count), 0)::double precision';
		when aggregate = 'avg' then
			-- A sum that was rounded must not leave the extremes of what it is the sum of
			columns := array['sum', 'count', 'min', 'max'];
			expression := 'case when sum(p.count) > 0 then '
				'greatest(least(sum(p.sum) / sum(p.count)::double precision, max(p.max)), min(p.min)) end';
		when aggregate in ('min', 'max') then
			columns := array[aggregate];
			expression := format('%1$s(p.%1$I)', aggregate);
		when aggregate = 'last' then
			columns := array['last'];
			expression := 'sum(p.last)';
		when aggregate = 'count' or kind = 'histogram' then
			columns := array['count'];
			expression := 'sum(p.count)';
		else
			columns := array['sum'];
			expression := 'sum(p.sum)';
	end case;

	source := meshhook_metrics.query_range_source(columns, grouped, step, edges);
	if source is null then
		return null;
	end if;
	source := format(
		'select p.bucket, p.member, (%s)::double precision as value from (%s) p group by p.bucket, p.member',
		expression, source);
	-- The newest bucket is as long as the flushes that are in it
	return format(
		'select q.bucket, ($7)[q.member], %s from (%s) q where q.value is not null order by q.bucket, q.member',
		case
			when aggregate = 'rate' then
				'q.value / extract(epoch from '
				'case when q.bucket < $9 and $9 < q.bucket + $3 then $9 - q.bucket else $3 end)::double precision'
			else 'q.value'
		end,
		source);
end
$$;

comment on function meshhook_metrics.query_range_statement(text, text, boolean, interval, timestamptz[]) is
'The text of the statement that gives the rows of query_range() for the aggregate $1 of a metric of the kind $2, grouped ($3) or not, in buckets as long as $4, read as query_range_edges() says in $5. Null if there is nothing to read.
Its parameters are those of query_range_source(), and $7 the labels of the groups, $8 the quantile from 0 to 1, $9 until when has been flushed.';

create function meshhook_metrics.query_range_rows(text, timestamptz, timestamptz, interval, jsonb, text, text[], uuid)
returns setof record
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
set jit = off
-- Row level security halves the planner's estimates, until it sorts where it should hash
set enable_sort = off
set work_mem = '16MB'
rows 300
as $$
declare
	wanted alias for $1;
	since alias for $2;
	until alias for $3;
	step alias for $4;
	filter alias for $5;
	aggregate alias for $6;
	keys alias for $7;
	tenant alias for $8;
	epoch constant timestamptz := '1970-01-01 00:00:00+00';
	state record;
	beyond timestamptz;
	edges timestamptz[];
	tenants uuid[];
	matched record;
	flushed timestamptz;
begin
	perform meshhook_metrics.query_range_check(wanted, since, until, keys);
	filter := meshhook_metrics.query_range_filter('labels', filter);
	perform meshhook_metrics.query_range_aggregate(aggregate, null, wanted);
	-- Further away there is nothing, but arithmetic would overflow
	since := least(greatest(since, '0001-01-01 00:00:00+00'), '9999-01-01 00:00:00+00');
	until := least(greatest(until, '0001-01-01 00:00:00+00'), '9999-01-01 00:00:00+00');

	select
		array[
			max(s.complete_until) filter (where s.target = '1d'),
			max(s.complete_until) filter (where s.target = '1h'),
			max(s.complete_until) filter (where s.target = '5m'),
			max(s.complete_until) filter (where s.target = '1m')] as complete,
		max(s.retained_from) filter (where s.target = '1m') as minutes_from,
		max(s.retained_from) filter (where s.target = '5m') as fives_from,
		max(s.retained_from) filter (where s.target = '1h') as hours_from,
		count(*) as targets
	into state
	from meshhook_metrics.rollup_state s
	where s.target in ('1m', '5m', '1h', '1d');
	if state.targets < 4 then
		raise exception 'meshhook_metrics.rollup_state lacks rows, or does not show them to this role'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Apply the migrations that come with the extension again, or SET ROLE to a role that may read it, such as service_role.';
	end if;

	step := meshhook_metrics.query_range_step(since, until, step, state.minutes_from, state.fives_from, state.hours_from);
	-- A transaction that began a while ago has an old now(), not an old range
	if until >= now() then
		until := greatest(until, clock_timestamp());
	end if;
	beyond := date_bin(step, until, epoch);
	if beyond < until then
		beyond := beyond + step;
	end if;
	edges := meshhook_metrics.query_range_edges(step, date_bin(step, since, epoch), beyond, state.complete);

	-- Row level security shows the caller's series, whatever is asked for here. Where
	-- it goes by tenant_ids() alone, asking for these tenants spares reading past the
	-- series of others.
	if tenant is not null then
		tenants := array[tenant];
	elsif row_security_active('meshhook_metrics.series')
		and not exists (
			select
			from pg_policy p
			where p.polrelid = 'meshhook_metrics.series'::regclass
				and p.polpermissive
				and pg_get_expr(p.polqual, p.polrelid) is distinct from
					'(tenant_id = ANY (ARRAY( SELECT meshhook_metrics.tenant_ids() AS tenant_ids)))')
	then
		tenants := array(select meshhook_metrics.tenant_ids());
	end if;

	-- A name can have been another kind of metric once: the newest series decides
	with visible as (
		select
			s.id,
			s.tenant_id,
			s.kind,
			coalesce(meshhook_metrics.query_range_labels(s.labels, keys), '{}') as labels
		from meshhook_metrics.series s
		where s.metric = wanted
			and (tenants is null or s.tenant_id = any (tenants))
			and meshhook_metrics.query_range_matches(s.labels, filter)
	),
	numbered as (
		select v.*, dense_rank() over (order by v.labels)::integer as member
		from visible v
		where v.kind = (
			select n.kind
			from visible n
			order by n.id desc
			limit 1)
	)
	select
		min(n.kind) as kind,
		array_agg(n.id order by n.id) as ids,
		array_agg(n.member order by n.id) as members,
		array_agg(distinct n.tenant_id) as tenants,
		array(
			select distinct n.labels
			from numbered n
			order by n.labels) as groups
	into matched
	from numbered n;
	if matched.kind is null then
		return;
	end if;

	aggregate := meshhook_metrics.query_range_aggregate(aggregate, matched.kind, wanted);
	if aggregate = 'rate' then
		flushed := greatest(
			state.complete[4], (
				select max(l.at) + interval '1 microsecond'
				from meshhook_metrics.live l
				where l.tenant_id = any (matched.tenants)
					and l.at >= state.complete[4]));
		if has_column_privilege('meshhook_metrics.flush_state', 'at', 'select') then
			select greatest(flushed, max(f.at) + interval '1 microsecond')
			into flushed
			from meshhook_metrics.flush_state f;
		end if;
		-- Any of them may be of a clock that was set back since
		flushed := least(flushed, clock_timestamp());
	end if;

	return query execute coalesce(
		meshhook_metrics.query_range_statement(aggregate, matched.kind, keys is not null, step, edges),
		'select null::timestamptz, null::jsonb, null::double precision where false')
	using
		matched.tenants, matched.ids, step, edges, epoch, matched.members, matched.groups,
		case when aggregate ~ '^p[0-9]' then substr(aggregate, 2)::numeric / 100 end::double precision, flushed;
end
$$;

comment on function meshhook_metrics.query_range_rows(text, timestamptz, timestamptz, interval, jsonb, text, text[], uuid) is
'What query_range() returns for the same arguments; apart from it because there is both an argument and a column called labels.
complete_until of 1m divides live from the minutes: what a row of live with an earlier time brought is in rollup_1m. After a clock was set back, what is flushed at times that were rolled up already shows once their minute is closed again.';

create function meshhook_metrics.query_range(
	metric text,
	since timestamptz,
	until timestamptz default now(),
	step interval default null,
	labels jsonb default '{}',
	aggregate text default null,
	group_by text[] default null,
	tenant uuid default null)
returns table (bucket timestamptz, labels jsonb, value double precision)
language sql stable parallel restricted
set search_path = pg_catalog, pg_temp
rows 300
as $$
	select r.bucket, r.labels, r.value
	from meshhook_metrics.query_range_rows(
		query_range.metric,
		query_range.since,
		query_range.until,
		query_range.step,
		query_range.labels,
		query_range.aggregate,
		query_range.group_by,
		query_range.tenant) r (bucket timestamptz, labels jsonb, value double precision)
$$;

comment on function meshhook_metrics.query_range(text, timestamptz, timestamptz, interval, jsonb, text, text[], uuid) is
'A metric over time, up to the last flush, over those series that row level security shows to the caller: ordered by time, a row for each bucket, and group, that has data.
since, until: the range; its first and last bucket are whole. An until of now() reaches to the clock.
step: length of a bucket, bins from 1970-01-01 00:00 UTC; whole days, minutes that divide a day, or from a second on what divides a minute (from live only, the last minutes; a bucket gets the part of a row''s increase and count that its part of the row''s seconds is). Null: the shortest of 1, 5 and 15 minutes, 1 and 6 hours, 1, 7 and 30 days that makes at most 300 buckets and is still kept.
labels: what the series'' labels contain; an empty value: the series without that label. tenant: null for all that the caller sees.
aggregate: increase (what a counter grew by, observations of a histogram), rate (increase / seconds of the bucket, for the newest those until the last flush), avg (sum / count, within min and max), min, max, last (each series'' last value, added up), count (samples), p0 to p100 (quantile of the merged histograms); all but increase, rate and count in the metric''s unit. Null: increase of a counter, last of a gauge, p95 of a histogram.
group_by: null for one series over all, else one for each combination of these labels'' values; a label that a series does not have is left out.
Errors: 22004 a null, 22008 an infinite time, 22023 since after until, a step that does not fit or makes more than 11,000 buckets, labels that are none, an aggregate that does not exist or that the metric''s kind does not have; 55000 where there are no tables. A metric that does not exist has no rows.';
