-- What alert rules compare: the value of every rule and group at one moment.
--
-- One statement for all rules. It finds the series of each rule once, adds up each
-- series once for each length of window that some rule has of it, and puts these
-- totals together by rule and group. Where a window begins or ends within a minute,
-- rows of live say what of that minute belongs to it; whole minutes come from the
-- rollups, long windows mostly from the coarser ones.
--
-- Called by evaluate_alerts(), with the rights of the owner of the tables.

create function meshhook_metrics.alert_spans(at timestamptz, windows interval[])
returns table (
	time_window interval,
	starts timestamptz,
	first_minute timestamptz,
	first_coarse timestamptz,
	last_coarse timestamptz,
	last_minute timestamptz,
	coarse text,
	seconds double precision,
	since date,
	known boolean,
	error text)
language plpgsql stable
set search_path = ''
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
declare
	kept interval := coalesce(meshhook_metrics.retention('live'), interval '15 minutes');
	open_minute timestamptz := pg_catalog.date_trunc('minute', alert_spans.at);
	-- The newest flush is as far as is known what came; where it is older than an interval,
	-- nothing has come since
	flushed timestamptz := (
		select l.at
		from meshhook_metrics.live l
		where l.at - l.seconds * interval '1 second' < alert_spans.at
		order by l.id desc
		limit 1);
begin
	if flushed > alert_spans.at
		or flushed < alert_spans.at - coalesce(pg_catalog.current_setting('meshhook_metrics.flush_interval', true), '5s')::interval
	then
		flushed := null;
	end if;
	return query
	with begun as (
		select
			w.length,
			-- 5m and 1h from where reading minutes would take long
			case
				when w.length <= interval '10 minutes' then null
				when w.length <= interval '12 hours' then '5m'
				else '1h'
			end as target,
			-- Further back there are no rows of live that could divide a minute
			case
				when w.length <= kept then alert_spans.at - w.length
				when w.length <= interval '12 hours' then pg_catalog.date_trunc('minute', alert_spans.at - w.length)
				else pg_catalog.date_trunc('hour', alert_spans.at - w.length)
			end as begins
		from pg_catalog.unnest(windows) w (length)
	),
	minutes as (
		select
			b.*,
			-- The moment at which a window begins is not in it, the minute at which a longer one
			-- does is
			case
				when b.length <= kept then pg_catalog.date_trunc('minute', b.begins) + interval '1 minute'
				else b.begins
			end as minute
		from begun b
	),
	coarse as (
		select
			m.*,
			pg_catalog.date_bin(t.step, m.minute + t.step - interval '1 microsecond', timestamptz 'epoch') as first,
			least(
				pg_catalog.date_bin(t.step, open_minute, timestamptz 'epoch'),
				pg_catalog.date_bin(t.step, s.complete_until, timestamptz 'epoch')) as last,
			s.retained_from
		from minutes m
		left join meshhook_metrics.rollup_targets() t
			on t.target = m.target
		left join meshhook_metrics.rollup_state s
			on s.target = coalesce(m.target, '1m')
	)
	select
		c.length,
		c.begins,
		c.minute,
		coalesce(c.first, c.minute),
		coalesce(greatest(c.first, c.last), c.minute),
		greatest(c.minute, open_minute),
		c.target,
		extract(epoch from case when flushed > c.begins then flushed else alert_spans.at end - c.begins)::double precision,
		-- The day that a series has had samples may be noted a day late
		(alert_spans.at - greatest(c.length, interval '1 day'))::date - 1,
		not exists (
			select
			from meshhook_metrics.alert_gaps g
			where g.begins < c.begins
				and g.ends >= c.begins),
		case
			when c.begins < c.retained_from then
				pg_catalog.format('time_window reaches back to %s, but %s is kept from %s on only',
					c.begins, 'rollup_' || coalesce(c.target, '1m'), c.retained_from)
		end
	from coarse c;
end
$$;

comment on function meshhook_metrics.alert_spans(timestamptz, interval[]) is
'Where the windows of alert rules that end at a moment are read: from starts to first_minute and from last_minute on in live; to first_coarse, and from last_coarse on, in rollup_1m; what is between in the coarse table. Windows up to retention_live are exact; longer ones begin at a whole minute, those of more than 12 hours at a whole hour, and are that much longer. seconds: how long it is, up to the newest flush. since: the last_day from which on series can have samples in it, or on the day before. known: whether it does not begin within a time of alert_gaps, of which only the whole is known.';

create function meshhook_metrics.alert_totals(
	at timestamptz,
	tenants uuid[],
	series bigint[],
	windows integer[],
	targets integer[],
	quantiles boolean[],
	starts timestamptz[],
	first_minutes timestamptz[],
	first_coarse timestamptz[],
	last_coarse timestamptz[],
	last_minutes timestamptz[],
	coarse text[],
	scanned boolean[])
returns table (
	target integer,
	count double precision,
	sum double precision,
	min double precision,
	max double precision,
	last double precision,
	histogram meshhook_metrics.histogram)
as 'MODULE_PATHNAME', 'mhm_alert_totals'
language c stable parallel unsafe
rows 10000;

comment on function meshhook_metrics.alert_totals(timestamptz, uuid[], bigint[], integer[], integer[], boolean[], timestamptz[], timestamptz[], timestamptz[], timestamptz[], timestamptz[], text[], boolean[]) is
'What is stored for each target: of series (each with its tenant) within a window, numbered from 1; the windows end at a moment, and begin and are read as alert_spans() says. scanned: whether to read all rows of a window''s time, or to look for each series. Columns as in the rollup tables, over all series of the target; count is no whole number where a row of live reaches beyond a window, which has the same part of its count and sum as of its time; last is each series'' last value, added up; histogram is null where quantiles does not ask for it. No row where there is nothing. Sees one snapshot.
Errors: 54000 more than 100000 pairs of a series and a target, or quantiles that need more than 16 MB.';

create function meshhook_metrics.alert_values(at timestamptz, rules uuid[])
returns table (
	rule_id uuid,
	version xid,
	labels jsonb,
	value double precision,
	known boolean,
	error text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set work_mem = '4MB'
set hash_mem_multiplier = 1
set plan_cache_mode = force_custom_plan
-- The planner knows nothing of what parts of the statement bring, or of a leaf that has
-- not been analyzed yet, and a join as a loop over thousands of rules takes minutes.
-- What is to be looked up by an index is written as a lateral subquery.
set enable_nestloop = off
set enable_mergejoin = off
set enable_sort = off
set enable_seqscan = off
rows 10000
as $$
#variable_conflict use_column
begin
	return query
	with
		chosen as materialized (
			select
				row_number() over ()::integer as no,
				r.id,
				r.xmin as version,
				r.tenant_id,
				r.metric,
				r.labels,
				r.aggregate,
				r.denominator_metric,
				r.denominator_labels,
				r.denominator_min,
				r.group_by,
				r.comparison,
				r.threshold,
				r.time_window,
				r.no_data,
				case
					when r.aggregate like 'p%' then substr(r.aggregate, 2)::double precision / 100
				end as quantile
			from meshhook_metrics.alert_rules r
			where r.id = any (alert_values.rules)
		),
		spans as materialized (
			select row_number() over ()::integer as no, s.*
			from meshhook_metrics.alert_spans(alert_values.at, array(
				select c.time_window
				from chosen c
				group by c.time_window)) s
		),
		-- A ratio has a second part
		terms as (
			select c.no, 1 as part, c.tenant_id, c.metric, c.labels, c.group_by, c.time_window
			from chosen c
			union all
			select c.no, 2, c.tenant_id, c.denominator_metric, c.denominator_labels, c.group_by, c.time_window
			from chosen c
			where c.denominator_metric is not null
		),
		-- A rule's part, or a group of it
		grouped as materialized (
			select
				m.no,
				m.part,
				m.labels,
				m.kind,
				array_agg(m.series_id) as members,
				max(m.series_id) as newest,
				max(m.created_at) as created_at
			from (
				select
					t.no,
					t.part,
					s.id as series_id,
					s.kind,
					s.created_at,
					meshhook_metrics.query_range_labels(s.labels, t.group_by) as labels
				from terms t
				join spans w
					on w.time_window = t.time_window
				-- By its index: the table has the series of years
				cross join lateral (
					select s.*
					from meshhook_metrics.series s
					where s.tenant_id = t.tenant_id
						and s.metric = t.metric
						and meshhook_metrics.query_range_matches(s.labels, t.labels)
						and s.last_day >= w.since
					limit 10001) s) m
			group by m.no, m.part, m.labels, m.kind
		),
		-- A name can have been another kind of metric once: the newest series decides
		counted as materialized (
			select
				g.no,
				g.part,
				sum(cardinality(g.members)) as series,
				(array['counter', 'gauge', 'histogram'])[
					max(4 * g.newest + array_position(array['counter', 'gauge', 'histogram'], g.kind)) % 4] as kind
			from grouped g
			group by g.no, g.part
		),
		-- What has rested for days has an increase of 0 as before; groups have gone by then
		rested as materialized (
			select t.no, t.part, s.id as series_id, s.kind, s.created_at
			from terms t
			cross join lateral (
				select s.*
				from (
					select s.*
					from meshhook_metrics.series s
					where s.tenant_id = t.tenant_id
						and s.metric = t.metric
						and meshhook_metrics.query_range_matches(s.labels, t.labels)
					offset 0) s
				order by s.id desc
				limit 1) s
			where t.group_by is null
				and (t.no, t.part) not in (select n.no, n.part from counted n)
		),
		crowded as materialized (
			select n.no
			from counted n
			group by n.no
			having sum(n.series) > 10000
		),
		targets as materialized (
			select
				row_number() over ()::integer as target,
				m.*,
				c.tenant_id,
				w.no as window_no,
				c.quantile is not null and m.part = 1 as quantiles
			from (
				select g.no, g.part, g.labels, g.kind, g.members, g.created_at
				from grouped g
				union all
				select r.no, r.part, null, r.kind, array[r.series_id], r.created_at
				from rested r) m
			join chosen c
				on c.no = m.no
			join spans w
				on w.time_window = c.time_window
			where m.no not in (select x.no from crowded x)
		),
		totals as materialized (
			select t.*
			from (
				select
					array_agg(g.tenant_id) as tenants,
					array_agg(g.series_id) as series,
					array_agg(g.window_no) as windows,
					array_agg(g.target) as targets,
					array_agg(g.quantiles) as quantiles
				from (
					select g.*, unnest(g.members) as series_id
					from targets g) g) m
			cross join (
				select
					array_agg(w.starts order by w.no) as starts,
					array_agg(w.first_minute order by w.no) as first_minutes,
					array_agg(w.first_coarse order by w.no) as first_coarse,
					array_agg(w.last_coarse order by w.no) as last_coarse,
					array_agg(w.last_minute order by w.no) as last_minutes,
					array_agg(w.coarse order by w.no) as coarse,
					array_agg(w.scanned order by w.no) as scanned
				from (
					-- Where a good part of all series is wanted, reading all rows of a time is
					-- faster than looking for those of each
					select w.*, 5 * coalesce(n.series, 0) >= case when c.reltuples < 0 then 10000 else c.reltuples end as scanned
					from spans w
					left join (
						select g.window_no, sum(cardinality(g.members)) as series
						from targets g
						group by g.window_no) n
						on n.window_no = w.no
					cross join pg_class c
					where c.oid = 'meshhook_metrics.series'::regclass) w) w
			cross join lateral meshhook_metrics.alert_totals(alert_values.at, m.tenants, m.series, m.windows, m.targets, m.quantiles,
				w.starts, w.first_minutes, w.first_coarse, w.last_coarse, w.last_minutes, w.coarse, w.scanned) t
			where m.series is not null
		),
		kinds as materialized (
			select n.no, n.part, n.kind
			from counted n
			where n.no not in (select x.no from crowded x)
			union all
			select r.no, r.part, r.kind
			from rested r
			where r.no not in (select x.no from crowded x)
		),
		parts as materialized (
			select
				g.no,
				g.part,
				coalesce(g.labels, '{}') as labels,
				t.target is not null as has_samples,
				g.created_at,
				g.members,
				case c.aggregate
					when 'increase' then coalesce(case g.kind when 'histogram' then t.count else t.sum end, 0)
					when 'rate' then coalesce(case g.kind when 'histogram' then t.count else t.sum end, 0) / w.seconds
					when 'count' then coalesce(t.count, 0)
					-- Of what is rounded the quotient can lie outside
					when 'avg' then greatest(t.min, least(t.max, t.sum / nullif(t.count, 0)))
					when 'min' then t.min
					when 'max' then t.max
					when 'last' then t.last
					else meshhook_metrics.histogram_quantile(t.histogram, c.quantile)
				end as value
			from targets g
			join kinds k
				on k.no = g.no
				and k.part = g.part
				and k.kind = g.kind
			join chosen c
				on c.no = g.no
			join spans w
				on w.no = g.window_no
			left join totals t
				on t.target = g.target
		),
		unfit as materialized (
			select u.aggregate, u.kind
			from (
				select distinct c.aggregate, k.kind
				from kinds k
				join chosen c
					on c.no = k.no
				offset 0) u
			where not meshhook_metrics.query_range_applies(u.aggregate, u.kind)
		),
		problems as materialized (
			select p.no, min(p.problem) as problem
			from (
				select k.no,
					format('"%s" is a %s, which has no %s',
						case k.part when 1 then c.metric else c.denominator_metric end, k.kind, c.aggregate) as problem
				from kinds k
				join chosen c
					on c.no = k.no
				join unfit u
					on u.aggregate = c.aggregate
					and u.kind = k.kind
				union all
				select c.no, w.error
				from chosen c
				join spans w
					on w.time_window = c.time_window
				where w.error is not null
				union all
				select x.no, 'it matches more than 10000 series that have had samples lately'
				from crowded x) p
			group by p.no
		),
		-- A ratio's groups are those of its denominator; what has not failed yet has no
		-- series, and has not failed
		results as materialized (
			select
				c.no,
				coalesce(n.labels, d.labels) as labels,
				case
					when c.denominator_metric is null then n.value
					-- An error of the rule, see below
					when d.value in ('NaN', 'Infinity') then d.value
					when d.value > 0 and d.value >= c.denominator_min then
						coalesce(n.value, case when c.aggregate in ('increase', 'rate', 'count') then 0 end) / d.value
				end as value,
				coalesce(n.has_samples, false) or coalesce(d.has_samples, false) as has_samples,
				greatest(n.created_at, d.created_at) as created_at,
				n.members || d.members as members
			from (select p.* from parts p where p.part = 1) n
			full join (select p.* from parts p where p.part = 2) d
				on d.no = n.no
				and d.labels = n.labels
			join chosen c
				on c.no = coalesce(n.no, d.no)
		),
		-- A group goes a day after its last sample. That is looked for where it matters:
		-- where an alert is there, or would come of a zero or of no value.
		resting as materialized (
			select r.no, r.labels, c.tenant_id, r.members
			from results r
			join chosen c
				on c.no = r.no
			left join meshhook_metrics.alerts a
				on a.rule_id = c.id
				and a.labels = r.labels
			where c.group_by is not null
				and not r.has_samples
				and r.created_at <= alert_values.at - interval '1 day'
				and (
					a.rule_id is not null
					or r.value is null and c.no_data = 'firing'
					or r.value > c.threshold and c.comparison in ('>', '>=', '<>')
					or r.value = c.threshold and c.comparison in ('>=', '=', '<=')
					or r.value < c.threshold and c.comparison in ('<', '<=', '<>'))
		),
		gone as materialized (
			select r.no, r.labels
			from resting r
			where not exists (
				select
				from meshhook_metrics.rollup_1m x
				where x.tenant_id = r.tenant_id
					and x.series_id = any (r.members)
					and x.bucket >= alert_values.at - interval '1 day'
					and x.bucket <= alert_values.at)
				and not exists (
					select
					from meshhook_metrics.live l
					where l.tenant_id = r.tenant_id
						and l.id > (
							select s.live_id
							from meshhook_metrics.rollup_state s
							where s.target = '1m')
						and l.at <= alert_values.at
						and l.series_id && r.members)
		),
		too_many as materialized (
			select r.no, count(*) as groups
			from results r
			join chosen c
				on c.no = r.no
			left join resting x
				on x.no = r.no
				and x.labels = r.labels
			left join gone g
				on g.no = r.no
				and g.labels = r.labels
			where c.group_by is not null
				and g.no is null
				and (r.has_samples or r.created_at > alert_values.at - interval '1 day' or x.no is not null)
			group by r.no
			having count(*) > 100
		)
	select c.id, c.version, null::jsonb, null::double precision, true, p.problem
	from (
		select p.no, p.problem
		from problems p
		union all
		select t.no, format('group_by makes %s alerts of this rule; it can have 100', t.groups)
		from too_many t) p
	join chosen c
		on c.no = p.no
	-- That it was evaluated, also where no group is left
	union all
	select c.id, c.version, null, null, true, null
	from chosen c
	where c.group_by is not null
		and c.no not in (select p.no from problems p)
		and c.no not in (select t.no from too_many t)
	union all
	select
		c.id,
		c.version,
		coalesce(r.labels, '{}'),
		case when k.known then r.value end,
		k.known,
		case
			when r.value in ('NaN', 'Infinity', '-Infinity') then 'the value is beyond what a double can hold'
		end
	from chosen c
	join spans w
		on w.time_window = c.time_window
	left join results r
		on r.no = c.no
	-- When a gauge was set last says nothing of what came before
	cross join lateral (select w.known or c.aggregate = 'last' and r.value is not null as known) k
	left join gone g
		on g.no = r.no
		and g.labels = r.labels
	where c.no not in (select p.no from problems p)
		and c.no not in (select t.no from too_many t)
		and (r.no is not null or c.group_by is null)
		and g.no is null;
end
$$;

create function meshhook_metrics.alert_pieces(tenants uuid[])
returns table (
	piece uuid[])
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off
set plan_cache_mode = force_custom_plan
-- As for alert_values()
set enable_nestloop = off
set enable_mergejoin = off
set enable_sort = off
set enable_seqscan = off
rows 10
as $$
#variable_conflict use_column
declare
	-- Below the 100000 matches that alert_totals() takes by what one rule can have
	weight_allowed constant integer := 80000;
begin
	return query
	with
		chosen as materialized (
			select r.id, r.tenant_id, r.metric, r.denominator_metric, coalesce(cardinality(r.group_by), 0) as keys
			from meshhook_metrics.alert_rules r
			where r.enabled
				and r.last_error is null
				and (tenants is null or r.tenant_id = any (tenants))
		),
		-- The labels of groups weigh as well
		counted as materialized (
			select m.tenant_id, m.metric, n.series, least(n.series, 100) as groups, m.terms * n.series + m.keys * least(n.series, 100) as weight
			from (
				select t.tenant_id, t.metric, count(*) as terms, sum(t.keys) as keys
				from (
					select c.tenant_id, c.metric, c.keys
					from chosen c
					union all
					select c.tenant_id, c.denominator_metric, c.keys
					from chosen c
					where c.denominator_metric is not null) t
				group by t.tenant_id, t.metric) m
			cross join lateral (
				select count(*)::integer as series
				from (
					select
					from meshhook_metrics.series s
					where s.tenant_id = m.tenant_id
						and s.metric = m.metric
					limit 10001) s) n
		),
		fit as materialized (
			select coalesce(sum(c.weight), 0) <= weight_allowed as at_once
			from counted c
		),
		placed as (
			select c.id, 0 as number
			from chosen c
			where (select f.at_once from fit f)
			union all
			select w.id, sum(w.weight) over (order by w.tenant_id rows unbounded preceding) / weight_allowed
			from (
				select c.id, c.tenant_id, n.series + c.keys * n.groups + coalesce(d.series + c.keys * d.groups, 0) as weight
				from chosen c
				join counted n
					on n.tenant_id = c.tenant_id
					and n.metric = c.metric
				left join counted d
					on d.tenant_id = c.tenant_id
					and d.metric = c.denominator_metric) w
			where not (select f.at_once from fit f)
		)
	select array_agg(p.id)
	from placed p
	group by p.number
	order by p.number;
end
$$;

comment on function meshhook_metrics.alert_pieces(uuid[]) is
'Divides the enabled alert rules without an error, of some tenants or (null) of all, into as few sets as can be evaluated at once each, one set after the other, without much memory: by how many series have the names of their metrics, and what labels they group by.';

comment on function meshhook_metrics.alert_values(timestamptz, uuid[]) is
'The values that some alert rules compare at a moment: a row for each rule, or for each of its groups and one without labels, with the version (xmin) of the rule that was evaluated. value is null where there is none (a ratio''s also while its denominator is too small); a counter that has rested has 0. known: false where the window begins in a time of which only the whole is known, so that there is no value to judge by. A rule that cannot be evaluated has one row, without labels and with an error. A group goes a day after its last sample.
Errors: 54000 what alert_totals() says, 22003 where a sum is beyond what a double can hold; evaluate_alerts() finds out of which rule.';
