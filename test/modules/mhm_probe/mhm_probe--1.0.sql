-- What the tests of meshhook_metrics need that it does not offer itself

create function mhm_probe.parts(
	out part text,
	out "offset" bigint,
	out size integer,
	out number integer)
returns setof record
as 'MODULE_PATHNAME', 'mhm_probe_parts'
language c strict;

comment on function mhm_probe.parts() is
'The arrays of the region: where each begins in bytes, the size of an element, and how many there are.';

create function mhm_probe.fields(
	out part text,
	out field text,
	out "offset" integer,
	out size integer)
returns setof record
as 'MODULE_PATHNAME', 'mhm_probe_fields'
language c strict;

comment on function mhm_probe.fields() is
'Where fields are in the elements of the region''s parts.';

create function mhm_probe.usage(
	out series integer,
	out overflow_series integer,
	out histograms integer,
	out metrics integer,
	out chunks integer)
returns record
as 'MODULE_PATHNAME', 'mhm_probe_usage'
language c strict;

comment on function mhm_probe.usage() is
'How much of the region is in use, strings included.';

create function mhm_probe.flush(metric text)
returns bigint
as 'MODULE_PATHNAME', 'mhm_probe_flush'
language c strict;

comment on function mhm_probe.flush(text) is
'Marks what a metric''s series hold as flushed, as the flush worker does after its commit. Returns how many samples that were not before.';

create function mhm_probe.age(metric text, "by" interval)
returns integer
as 'MODULE_PATHNAME', 'mhm_probe_age'
language c strict;

comment on function mhm_probe.age(text, interval) is
'Makes a metric''s series look idle for longer. Returns how many series.';

create function mhm_probe.retire_idle(before timestamptz)
returns integer
as 'MODULE_PATHNAME', 'mhm_probe_retire_idle'
language c strict;

comment on function mhm_probe.retire_idle(timestamptz) is
'Retires what was flushed and not recorded to since a time, as the flush worker does. Returns how many series.';

create function mhm_probe.die_at(routine regprocedure, arguments text[], instruction integer)
returns integer
as 'MODULE_PATHNAME', 'mhm_probe_die_at'
language c strict;

comment on function mhm_probe.die_at(regprocedure, text[], integer) is
'Forks a process that calls a function of the extension and gets SIGKILL in front of its n-th instruction; then recovers the region as the server does after a crash. Null when the process was killed, else how many instructions the call took. With 0 the process just calls. No other session may be using the region.';

create function mhm_probe.stop()
returns void
as 'MODULE_PATHNAME', 'mhm_probe_stop'
language c strict;

comment on function mhm_probe.stop() is
'Stops the session''s process by SIGSTOP. It goes on with the same row by SIGCONT, whatever signals it has got meanwhile.';
