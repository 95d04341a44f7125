-- Sums that are always a number: one metric beyond the range of double precision
-- must not end a statement about all of them

create function meshhook_metrics.add_within_range(double precision, double precision)
returns double precision
as 'MODULE_PATHNAME', 'mhm_add_within_range'
language c immutable strict parallel safe;

comment on function meshhook_metrics.add_within_range(double precision, double precision) is
'The sum of both; where that is beyond what double precision holds, the largest number of its sign (1.797e308).';

create aggregate meshhook_metrics.sum_within_range(double precision) (
	sfunc = meshhook_metrics.add_within_range,
	stype = double precision,
	combinefunc = meshhook_metrics.add_within_range,
	parallel = safe
);

comment on aggregate meshhook_metrics.sum_within_range(double precision) is
'The sum of the values; where that is beyond what double precision holds, the largest number of its sign (1.797e308). NULLs are skipped, NULL for no rows.';
