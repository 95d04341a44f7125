-- Recording: called by workflow code, immediate unless meshhook_metrics.on_commit is on

create function meshhook_metrics.inc(
	metric text,
	value double precision default 1,
	labels jsonb default '{}',
	tenant uuid default null)
returns void
as 'MODULE_PATHNAME', 'mhm_inc'
language c volatile parallel restricted;

comment on function meshhook_metrics.inc(text, double precision, jsonb, uuid) is
'Adds value (1 unless given; not negative) to a counter.
labels: an object of at most 10 plain values. tenant: null for the session''s (meshhook_metrics.tenant), else the platform.
Counts at once, whether or not the transaction commits, unless meshhook_metrics.on_commit is on. A sample for which there is no room goes to the counter''s series with the label overflow="true" and is counted in meshhook_metrics_discarded_total.
Errors: 42602 or 42939 a bad or reserved name, 42622 a name that is too long, 42809 the metric is not a counter, 42710 its name would be mixed up with a histogram''s samples, 22003 a value that is negative or not finite, 22004 a null, 22023 a label that is not a plain value, 22001 one that is too long, 54000 too many of them, 0A000 a label outside ASCII in a database that is not UTF8, 42501 a database that is not served (meshhook_metrics.database), 25000 a parallel worker while on_commit is on; 55000 if meshhook_metrics is not preloaded. With meshhook_metrics.on_error = warning they are warnings and the sample is discarded.';

create function meshhook_metrics.gauge_set(
	metric text,
	value double precision,
	labels jsonb default '{}',
	tenant uuid default null)
returns void
as 'MODULE_PATHNAME', 'mhm_gauge_set'
language c volatile parallel restricted;

comment on function meshhook_metrics.gauge_set(text, double precision, jsonb, uuid) is
'Sets a gauge to value, any finite number. Labels, tenant, time and errors as for inc().';

create function meshhook_metrics.gauge_add(
	metric text,
	value double precision,
	labels jsonb default '{}',
	tenant uuid default null)
returns void
as 'MODULE_PATHNAME', 'mhm_gauge_add'
language c volatile parallel restricted;

comment on function meshhook_metrics.gauge_add(text, double precision, jsonb, uuid) is
'Adds value, any finite number, to a gauge, which begins at 0. Labels, tenant, time and errors as for inc().';

create function meshhook_metrics.observe(
	metric text,
	value double precision,
	labels jsonb default '{}',
	tenant uuid default null)
returns void
as 'MODULE_PATHNAME', 'mhm_observe'
language c volatile parallel restricted;

comment on function meshhook_metrics.observe(text, double precision, jsonb, uuid) is
'Adds value (not negative; seconds for durations, bytes for sizes) to a histogram.
Its buckets are those of a Prometheus native histogram of schema 3, from 2^min_exponent to 2^(min_exponent + 32), see describe(); smaller values count as zero, larger ones as overflow. Labels, tenant, time and errors as for inc().';

create function meshhook_metrics.observe_since(
	metric text,
	started timestamptz,
	labels jsonb default '{}',
	tenant uuid default null)
returns void
as 'MODULE_PATHNAME', 'mhm_observe_since'
language c volatile parallel restricted;

comment on function meshhook_metrics.observe_since(text, timestamptz, jsonb, uuid) is
'Adds the seconds from started until now, by the clock, to a histogram; 0 if the clock was set back since. Take started from clock_timestamp(): now() is the start of the transaction. Labels, tenant, time and errors as for inc(); 22008 if started is infinite.';

create function meshhook_metrics.record(batch jsonb)
returns integer
as 'MODULE_PATHNAME', 'mhm_record'
language c volatile parallel restricted;

comment on function meshhook_metrics.record(jsonb) is
'Records an array of samples and returns how many: [{"op": "inc", "metric": "runs_total", "value": 1, "labels": {"status": "ok"}, "tenant": "00000000-0000-0000-0000-000000000000"}, ...].
op: inc, gauge_set, gauge_add or observe. value: a number, which only inc can do without. labels and tenant can be left out; a tenant of null is the session''s.
All or nothing: an error names the element that is wrong, and nothing of the batch is counted. Errors as for inc(); 22023 for an element of another shape.';

create function meshhook_metrics.describe(
	metric text,
	kind text,
	help text default null,
	unit text default null,
	min_exponent integer default null)
returns void
as 'MODULE_PATHNAME', 'mhm_describe'
language c volatile parallel restricted;

comment on function meshhook_metrics.describe(text, text, text, text, integer) is
'Fixes a metric''s kind (counter, gauge, histogram) before its first use, and says what it is: help (at most 1024 bytes) and unit (at most 64) are shown by prometheus(). Nulls leave what is there.
min_exponent: a histogram''s buckets cover 2^min_exponent to 2^(min_exponent + 32); -20 (a microsecond to 68 minutes, in seconds) unless given, 0 suits bytes. Kept in table metrics with the next flush, and loaded from it when a server starts.
Errors: 42809 the metric has series of another kind, 55000 or another window, 42710 its name would be mixed up with a histogram''s samples, 22023 an unknown kind, 22003 min_exponent out of range, 22001 a text that is too long, 22004 no name or kind, 53400 no room; names and encodings as for inc(). Nothing is changed when it fails; meshhook_metrics.on_error does not matter.';

create function meshhook_metrics.reset(
	metric text default null,
	tenant uuid default null)
returns bigint
as 'MODULE_PATHNAME', 'mhm_reset'
language c volatile parallel restricted;

comment on function meshhook_metrics.reset(text, uuid) is
'Forgets series in shared memory, with whatever they hold, and returns how many: those of one metric or (null) of all, of one tenant or (null) of all. Their counters begin at 0 again. A metric that was not described is forgotten with its last series, kind and all; one that is named here, for all tenants, is forgotten with its description too. Discard counters stay.';
