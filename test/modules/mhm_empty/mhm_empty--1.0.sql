create function inc(
    metric text,
    value float8 default 1,
    labels jsonb default '{}',
    tenant uuid default null
) returns void
language c volatile
as 'MODULE_PATHNAME', 'mhm_empty_inc';

comment on function inc(text, float8, jsonb, uuid)
is 'Does nothing: the cost of calling a function of the signature of meshhook_metrics.inc.';

create function observe(
    metric text,
    value float8,
    labels jsonb default '{}',
    tenant uuid default null
) returns void
language c volatile
as 'MODULE_PATHNAME', 'mhm_empty_observe';

comment on function observe(text, float8, jsonb, uuid)
is 'Does nothing: the cost of calling a function of the signature of meshhook_metrics.observe.';

create function record(batch jsonb) returns int
language c volatile
as 'MODULE_PATHNAME', 'mhm_empty_record';

comment on function record(jsonb)
is 'Does nothing and returns 0: the cost of calling a function of the signature of meshhook_metrics.record.';

create function cpu_nanoseconds() returns bigint
language c volatile
as 'MODULE_PATHNAME', 'mhm_empty_cpu_nanoseconds';

comment on function cpu_nanoseconds()
is 'The processor time that this backend has used since it started, in nanoseconds.';
