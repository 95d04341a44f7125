-- Reading what is in shared memory: live and cumulative, storage is not involved

create function meshhook_metrics.snapshot(
	tenant uuid default null,
	out tenant_id uuid,
	out metric text,
	out kind text,
	out labels jsonb,
	out value double precision,
	out count bigint,
	out sum double precision,
	out min double precision,
	out max double precision,
	out histogram meshhook_metrics.histogram,
	out updated_at timestamptz)
returns setof record
as 'MODULE_PATHNAME', 'mhm_snapshot'
language c volatile parallel restricted
rows 1000;

comment on function meshhook_metrics.snapshot(uuid) is
'The series in shared memory, of one tenant or (null) of all, one a row, since they began or were reset.
value: a counter''s total, a gauge''s last value, null for a histogram. count: calls. sum: of the values that were recorded (for gauge_add: of the gauge''s values after it). min and max: of a gauge or histogram. updated_at: about when the latest sample came, to the second; in a long statement up to 64 calls earlier.
A series appears with its first sample. 55000 if meshhook_metrics is not preloaded, 42501 in a database that is not served.';

create function meshhook_metrics.status(
	out preloaded boolean,
	out storage_installed boolean,
	out worker_pid integer,
	out series_used integer,
	out series_max integer,
	out histograms_used integer,
	out histograms_max integer,
	out shared_memory_bytes bigint,
	out last_flush_at timestamptz,
	out last_flush_ms double precision,
	out tick bigint,
	out flush_errors bigint,
	out last_error text,
	out discarded jsonb)
returns record
as 'MODULE_PATHNAME', 'mhm_status'
language c volatile parallel restricted;

comment on function meshhook_metrics.status() is
'How the extension itself is doing; works without preload, too.
series_used and histograms_used: without overflow series, as their limits are meant. discarded: samples that did not reach the series they were meant for, by reason: series_limit, tenant_limit, histogram_limit and label_memory (they are in overflow series), metric_limit and overflow_limit (no room for those either), out_of_range (a sum beyond 1.7e305, or an infinite gauge), invalid (a mistake while meshhook_metrics.on_error = warning).
worker_pid is null while the flush worker is not running, last_flush_at and last_flush_ms (of the last flush, milliseconds) until it has flushed since the server started, tick (of what is stored) until anything has been stored. flush_errors: attempts of the worker that failed since the server started, be it to flush, to evaluate or send alerts, or to keep the tables. last_error: what is wrong now, or null.';

create function meshhook_metrics.prometheus(tenant uuid default null)
returns text
as 'MODULE_PATHNAME', 'mhm_prometheus'
language c volatile parallel restricted;

comment on function meshhook_metrics.prometheus(uuid) is
'The series in shared memory in Prometheus''s text exposition format 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/), of one tenant or (null) of all, the tenant as label tenant. Histograms have cumulative buckets at powers of two. Without a tenant it includes the extension''s own health, meshhook_metrics_*.
55000 if meshhook_metrics is not preloaded, 42501 in a database that is not served.';
