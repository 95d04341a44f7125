-- The functions are exactly these
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
select no_plan();
set local search_path = public, pg_catalog;

create temp table expected (name text, arguments text, result text, volatility text, parallel text, strict boolean);
insert into expected values
	('inc', 'metric text, value double precision DEFAULT 1, labels jsonb DEFAULT ''{}''::jsonb, tenant uuid DEFAULT NULL::uuid', 'void', 'volatile', 'restricted', false),
	('gauge_set', 'metric text, value double precision, labels jsonb DEFAULT ''{}''::jsonb, tenant uuid DEFAULT NULL::uuid', 'void', 'volatile', 'restricted', false),
	('gauge_add', 'metric text, value double precision, labels jsonb DEFAULT ''{}''::jsonb, tenant uuid DEFAULT NULL::uuid', 'void', 'volatile', 'restricted', false),
	('observe', 'metric text, value double precision, labels jsonb DEFAULT ''{}''::jsonb, tenant uuid DEFAULT NULL::uuid', 'void', 'volatile', 'restricted', false),
	('observe_since', 'metric text, started timestamp with time zone, labels jsonb DEFAULT ''{}''::jsonb, tenant uuid DEFAULT NULL::uuid', 'void', 'volatile', 'restricted', false),
	('record', 'batch jsonb', 'integer', 'volatile', 'restricted', false),
	('describe', 'metric text, kind text, help text DEFAULT NULL::text, unit text DEFAULT NULL::text, min_exponent integer DEFAULT NULL::integer', 'void', 'volatile', 'restricted', false),
	('reset', 'metric text DEFAULT NULL::text, tenant uuid DEFAULT NULL::uuid', 'bigint', 'volatile', 'restricted', false),
	('snapshot', 'tenant uuid DEFAULT NULL::uuid, OUT tenant_id uuid, OUT metric text, OUT kind text, OUT labels jsonb, OUT value double precision, OUT count bigint, OUT sum double precision, OUT min double precision, OUT max double precision, OUT histogram meshhook_metrics.histogram, OUT updated_at timestamp with time zone', 'SETOF record', 'volatile', 'restricted', false),
	('status', 'OUT preloaded boolean, OUT storage_installed boolean, OUT worker_pid integer, OUT series_used integer, OUT series_max integer, OUT histograms_used integer, OUT histograms_max integer, OUT shared_memory_bytes bigint, OUT last_flush_at timestamp with time zone, OUT last_flush_ms double precision, OUT tick bigint, OUT flush_errors bigint, OUT last_error text, OUT discarded jsonb', 'record', 'volatile', 'restricted', false),
	('prometheus', 'tenant uuid DEFAULT NULL::uuid', 'text', 'volatile', 'restricted', false),
	('flush', 'timeout interval DEFAULT ''00:00:10''::interval', 'bigint', 'volatile', 'unsafe', false),
	('query_range', 'metric text, since timestamp with time zone, until timestamp with time zone DEFAULT now(), step interval DEFAULT NULL::interval, labels jsonb DEFAULT ''{}''::jsonb, aggregate text DEFAULT NULL::text, group_by text[] DEFAULT NULL::text[], tenant uuid DEFAULT NULL::uuid', 'TABLE(bucket timestamp with time zone, labels jsonb, value double precision)', 'stable', 'restricted', false),
	('query_range_step', 'timestamp with time zone, timestamp with time zone, interval, timestamp with time zone, timestamp with time zone, timestamp with time zone', 'interval', 'stable', 'safe', false),
	('query_range_filter', 'text, jsonb', 'jsonb', 'immutable', 'safe', false),
	('query_range_matches', 'jsonb, jsonb', 'boolean', 'immutable', 'safe', true),
	('query_range_labels', 'jsonb, text[]', 'jsonb', 'immutable', 'safe', true),
	('query_range_aggregate', 'text, text, text', 'text', 'immutable', 'safe', false),
	('query_range_applies', 'text, text', 'boolean', 'immutable', 'safe', false),
	('query_range_check', 'text, timestamp with time zone, timestamp with time zone, text[]', 'void', 'stable', 'safe', false),
	('query_range_edges', 'interval, timestamp with time zone, timestamp with time zone, timestamp with time zone[]', 'timestamp with time zone[]', 'immutable', 'safe', false),
	('query_range_live', 'text[], text, interval', 'text', 'immutable', 'safe', false),
	('query_range_source', 'text[], boolean, interval, timestamp with time zone[]', 'text', 'immutable', 'safe', false),
	('query_range_statement', 'text, text, boolean, interval, timestamp with time zone[]', 'text', 'immutable', 'safe', false),
	('query_range_rows', 'text, timestamp with time zone, timestamp with time zone, interval, jsonb, text, text[], uuid', 'SETOF record', 'stable', 'restricted', false),
	('rollup', 'target text DEFAULT NULL::text', 'bigint', 'volatile', 'unsafe', false),
	('maintain', '', 'void', 'volatile', 'unsafe', false),
	('schedule', '', 'void', 'volatile', 'unsafe', false),
	('unschedule', '', 'void', 'volatile', 'unsafe', false),
	('close_minutes', 'now timestamp with time zone DEFAULT clock_timestamp()', 'bigint', 'volatile', 'unsafe', false),
	('mend_state', '', 'void', 'volatile', 'unsafe', false),
	('mend_series_ids', 'seen bigint', 'void', 'volatile', 'unsafe', false),
	('mend_alert_ids', '', 'void', 'volatile', 'unsafe', false),
	('gauge_levels', 'ids bigint[], OUT series_id bigint, OUT level double precision', 'SETOF record', 'stable', 'unsafe', false),
	('series_leave', '', 'trigger', 'volatile', 'unsafe', false),
	('add_within_range', 'double precision, double precision', 'double precision', 'immutable', 'safe', true),
	('sum_within_range', 'double precision', 'double precision', 'immutable', 'safe', false),
	('delete_old_live', 'at_most bigint, now timestamp with time zone DEFAULT clock_timestamp()', 'bigint', 'volatile', 'unsafe', false),
	('prune_series', 'at_most integer DEFAULT 10000', 'bigint', 'volatile', 'unsafe', false),
	('unschedule_lost', '', 'void', 'volatile', 'unsafe', false),
	('scheduled_by_pg_cron', '', 'boolean', 'stable', 'unsafe', false),
	('scheduled_jobs', 'OUT name text, OUT schedule text, OUT command text', 'SETOF record', 'immutable', 'safe', false),
	('rollup_targets', 'OUT target text, OUT source text, OUT step interval, OUT leaf_unit text, OUT leaf_name text, OUT leaf_step interval, OUT ahead interval, OUT retention interval', 'SETOF record', 'immutable', 'safe', false),
	('rollup_windows', 'target text, begins timestamp with time zone, ends timestamp with time zone', 'bigint', 'volatile', 'unsafe', false),
	('require_storage', '', 'void', 'stable', 'unsafe', false),
	('leaves', 'target text, OUT leaf text, OUT lower_bound timestamp with time zone, OUT upper_bound timestamp with time zone', 'SETOF record', 'stable', 'unsafe', false),
	('create_leaf', 'target text, at timestamp with time zone', 'void', 'volatile', 'unsafe', false),
	('retention', 'name text', 'interval', 'stable', 'unsafe', false),
	('evaluate_tenant_alerts', 'at timestamp with time zone, tenants uuid[]', 'bigint', 'volatile', 'unsafe', false),
	('note_alert_failure', 'at timestamp with time zone, tenant uuid, error text', 'void', 'volatile', 'unsafe', false),
	('evaluate_alert_rules', 'at timestamp with time zone, rules uuid[], enabled boolean, OUT changes bigint, OUT resolved bigint[], OUT left_out bigint', 'record', 'volatile', 'unsafe', false),
	('alert_pieces', 'tenants uuid[]', 'TABLE(piece uuid[])', 'stable', 'unsafe', false),
	('evaluate_alerts', 'at timestamp with time zone DEFAULT now()', 'bigint', 'volatile', 'unsafe', false),
	('alert_values', 'at timestamp with time zone, rules uuid[]', 'TABLE(rule_id uuid, version xid, labels jsonb, value double precision, known boolean, error text)', 'stable', 'unsafe', false),
	('alert_values_apart', 'at timestamp with time zone, rules uuid[]', 'TABLE(rule_id uuid, version xid, labels jsonb, value double precision, known boolean, error text)', 'stable', 'unsafe', false),
	('alert_spans', 'at timestamp with time zone, windows interval[]', 'TABLE(time_window interval, starts timestamp with time zone, first_minute timestamp with time zone, first_coarse timestamp with time zone, last_coarse timestamp with time zone, last_minute timestamp with time zone, coarse text, seconds double precision, since date, known boolean, error text)', 'stable', 'unsafe', false),
	('alert_totals', 'at timestamp with time zone, tenants uuid[], series bigint[], windows integer[], targets integer[], quantiles boolean[], starts timestamp with time zone[], first_minutes timestamp with time zone[], first_coarse timestamp with time zone[], last_coarse timestamp with time zone[], last_minutes timestamp with time zone[], coarse text[], scanned boolean[]', 'TABLE(target integer, count double precision, sum double precision, min double precision, max double precision, last double precision, histogram meshhook_metrics.histogram)', 'stable', 'unsafe', false),
	('alert_text', 'template text, value double precision, threshold double precision, labels jsonb', 'text', 'immutable', 'safe', false),
	('alert_annotations', 'annotations jsonb, value double precision, threshold double precision, labels jsonb', 'jsonb', 'immutable', 'safe', false),
	('write_notifications', 'at timestamp with time zone, resolved bigint[], tenants uuid[]', 'bigint', 'volatile', 'unsafe', false),
	('claim_notifications', 'n integer DEFAULT 10, with_url boolean DEFAULT false', 'TABLE(id bigint, tenant_id uuid, receiver text, url text, headers jsonb, payload jsonb, attempts integer)', 'volatile', 'unsafe', false),
	('finish_notification', 'id bigint, error text DEFAULT NULL::text', 'boolean', 'volatile', 'unsafe', false),
	('send_notifications', 'n integer DEFAULT 100', 'bigint', 'volatile', 'unsafe', false),
	('histogram_count', 'meshhook_metrics.histogram', 'bigint', 'immutable', 'safe', true),
	('histogram_sum', 'meshhook_metrics.histogram', 'double precision', 'immutable', 'safe', true),
	('histogram_avg', 'meshhook_metrics.histogram', 'double precision', 'immutable', 'safe', true),
	('histogram_min', 'meshhook_metrics.histogram', 'double precision', 'immutable', 'safe', true),
	('histogram_max', 'meshhook_metrics.histogram', 'double precision', 'immutable', 'safe', true),
	('histogram_quantile', 'histogram meshhook_metrics.histogram, q double precision', 'double precision', 'immutable', 'safe', true),
	('histogram_fraction', 'histogram meshhook_metrics.histogram, lower double precision, upper double precision', 'double precision', 'immutable', 'safe', true),
	('histogram_buckets', 'histogram meshhook_metrics.histogram, OUT lower double precision, OUT upper double precision, OUT count bigint', 'SETOF record', 'immutable', 'safe', true),
	('histogram_json', 'meshhook_metrics.histogram', 'json', 'immutable', 'safe', true),
	('histogram_in', 'cstring', 'meshhook_metrics.histogram', 'immutable', 'safe', true),
	('histogram_out', 'meshhook_metrics.histogram', 'cstring', 'immutable', 'safe', true),
	('histogram_recv', 'internal', 'meshhook_metrics.histogram', 'immutable', 'safe', true),
	('histogram_send', 'meshhook_metrics.histogram', 'bytea', 'immutable', 'safe', true),
	('histogram_merge', 'meshhook_metrics.histogram', 'meshhook_metrics.histogram', 'immutable', 'safe', false),
	('histogram_of', 'double precision', 'meshhook_metrics.histogram', 'immutable', 'safe', false),
	('histogram_merge_transition', 'internal, meshhook_metrics.histogram', 'internal', 'immutable', 'safe', false),
	('histogram_of_transition', 'internal, double precision', 'internal', 'immutable', 'safe', false),
	('histogram_combine', 'internal, internal', 'internal', 'immutable', 'safe', false),
	('histogram_serialize', 'internal', 'bytea', 'immutable', 'safe', true),
	('histogram_deserialize', 'bytea, internal', 'internal', 'immutable', 'safe', true),
	('histogram_final', 'internal', 'meshhook_metrics.histogram', 'immutable', 'safe', false);

create temp view actual as
select
	p.oid,
	p.proname::text as name,
	pg_get_function_arguments(p.oid) as arguments,
	pg_get_function_result(p.oid) as result,
	case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end as volatility,
	case p.proparallel when 's' then 'safe' when 'r' then 'restricted' else 'unsafe' end as parallel,
	p.proisstrict as strict
from pg_proc p
where p.pronamespace = 'meshhook_metrics'::regnamespace;

select set_eq('select name from actual', 'select name from expected', 'there are these functions and no others');
select is((select count(*) from actual), (select count(*) from expected), 'each of them once');
select is(a.arguments, e.arguments, e.name || '(): arguments') from expected e left join actual a using (name);
-- pg_get_function_result() is null for aggregates up to 15
select is(coalesce(a.result, format_type(p.prorettype, null)), e.result, e.name || '(): result')
from expected e
left join actual a using (name)
left join pg_proc p on p.oid = a.oid;
select is(a.volatility, e.volatility, e.name || '(): volatility') from expected e left join actual a using (name);
select is(a.parallel, e.parallel, e.name || '(): parallel safety') from expected e left join actual a using (name);
select is(a.strict, e.strict, e.name || '(): strictness') from expected e left join actual a using (name);

-- With the migrations come these, and relationships for PostgREST
\ir ../sql/include/migrations.sql
select set_eq('select name from actual', $$
	select name from expected
	union all values ('tenant_ids'), ('labels_digest'), ('check_settings'),
		('check_alert_rule'), ('check_alert_annotations'), ('check_alert_receiver'), ('count_alert_rules'),
		('assign_alert_rule_columns'), ('rule'), ('series') $$, 'the migrations add these');
select is(a.arguments || ' ' || a.result || ' ' || a.volatility, e.signature, e.name || '(), of the migrations')
from (values ('tenant_ids', ' SETOF uuid stable'), ('labels_digest', 'labels jsonb bytea immutable'), ('check_settings', ' trigger volatile'),
	('check_alert_rule', ' trigger volatile'), ('check_alert_annotations', ' trigger volatile'), ('check_alert_receiver', ' trigger volatile'),
	('count_alert_rules', ' trigger volatile'), ('assign_alert_rule_columns', ' trigger volatile')) e (name, signature)
left join actual a using (name);
select bag_eq($$ select name, arguments, result, volatility, parallel, strict from actual where name in ('rule', 'series') $$, $$
	select r.name, 'meshhook_metrics.' || r.of as arguments, 'SETOF meshhook_metrics.' || r.to as result, 'stable' as volatility, 'safe' as parallel, false as strict
	from (values ('rule', 'alerts', 'alert_rules'), ('rule', 'alert_events', 'alert_rules'), ('series', 'rollup_1m', 'series'), ('series', 'rollup_5m', 'series'),
		('series', 'rollup_1h', 'series'), ('series', 'rollup_1d', 'series')) r (name, of, "to") $$, 'the relationships of the migrations');

-- The type, its aggregates and its cast
select has_type('meshhook_metrics', 'histogram', 'the type histogram');
select is(t.typinput::text || ' ' || t.typoutput::text || ' ' || t.typreceive::text || ' ' || t.typsend::text,
	'meshhook_metrics.histogram_in meshhook_metrics.histogram_out meshhook_metrics.histogram_recv meshhook_metrics.histogram_send',
	'it has text and binary input and output')
from pg_type t
where t.oid = 'meshhook_metrics.histogram'::regtype;
select is(a.aggcombinefn::text || ' ' || a.aggserialfn::text || ' ' || a.aggdeserialfn::text,
	'meshhook_metrics.histogram_combine meshhook_metrics.histogram_serialize meshhook_metrics.histogram_deserialize',
	a.aggfnoid::text || '() aggregates in part')
from pg_aggregate a
where a.aggfnoid in ('meshhook_metrics.histogram_merge'::regproc, 'meshhook_metrics.histogram_of'::regproc);
select is((select string_agg(format('%s as %s, context %s', castfunc::regproc, casttarget::regtype, castcontext), '; ')
	from pg_cast
	where castsource = 'meshhook_metrics.histogram'::regtype),
	'meshhook_metrics.histogram_json as json, context e', 'it casts to json, explicitly, and to nothing else');

select * from finish();
rollback;
