-- The type histogram: its forms, its accessors and its aggregates

create type meshhook_metrics.histogram;

create function meshhook_metrics.histogram_in(cstring)
returns meshhook_metrics.histogram
as 'MODULE_PATHNAME', 'mhm_histogram_in'
language c immutable strict parallel safe;

create function meshhook_metrics.histogram_out(meshhook_metrics.histogram)
returns cstring
as 'MODULE_PATHNAME', 'mhm_histogram_out'
language c immutable strict parallel safe;

create function meshhook_metrics.histogram_recv(internal)
returns meshhook_metrics.histogram
as 'MODULE_PATHNAME', 'mhm_histogram_recv'
language c immutable strict parallel safe;

create function meshhook_metrics.histogram_send(meshhook_metrics.histogram)
returns bytea
as 'MODULE_PATHNAME', 'mhm_histogram_send'
language c immutable strict parallel safe;

create type meshhook_metrics.histogram (
	input = meshhook_metrics.histogram_in,
	output = meshhook_metrics.histogram_out,
	receive = meshhook_metrics.histogram_recv,
	send = meshhook_metrics.histogram_send,
	internallength = variable,
	alignment = int4,
	storage = extended
);

comment on function meshhook_metrics.histogram_in(cstring) is
'Reads a histogram''s text form, and checks it in full: 22P02 says what is wrong with it.';

comment on function meshhook_metrics.histogram_out(meshhook_metrics.histogram) is
'A histogram''s text form.';

comment on function meshhook_metrics.histogram_recv(internal) is
'Reads a histogram''s binary form, and checks it in full: 22P03 says what is wrong with it.';

comment on function meshhook_metrics.histogram_send(meshhook_metrics.histogram) is
'A histogram''s binary form, the compact one in which it is stored.';

comment on type meshhook_metrics.histogram is
'Exponential histogram of values that are not negative, in the buckets of a Prometheus native histogram (schema -4 to 3; recorded at 3).
As text it is a JSON object: "buckets" are the counts of neighbouring buckets, the first one of which has the index "offset". Bucket i counts the values above 2^((i - 1) / 2^schema) and up to 2^(i / 2^schema).
"zero" counts what is at or below "zero_threshold", "overflow" what is above "overflow_threshold"; a threshold is given only with a count above 0, and is a power of two, or 0. "count" is the sum of all counts, "sum" that of all values. "min" and "max" are exact, and null where "count" is 0.
Where histograms of different windows were merged, values can be in a bucket beyond a threshold: of those in "zero" and "overflow" no more is known than the threshold says. If these have several thresholds, "zero_threshold" is the highest and "overflow_threshold" the lowest, and "zeros" and "overflows" have pairs of a threshold and its count. An overflow_threshold of 0 says that nothing is known of where such a value lies but "min" and "max".';

create function meshhook_metrics.histogram_json(meshhook_metrics.histogram)
returns json
as 'MODULE_PATHNAME', 'mhm_histogram_json'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_json(meshhook_metrics.histogram) is
'The text form of the histogram as JSON; to_jsonb() and the cast to json use it.';

create cast (meshhook_metrics.histogram as json)
with function meshhook_metrics.histogram_json(meshhook_metrics.histogram);

comment on cast (meshhook_metrics.histogram as json) is
'The histogram as the JSON object that is its text form; to_jsonb(), PostgREST and Realtime use it.';

create function meshhook_metrics.histogram_count(meshhook_metrics.histogram)
returns bigint
as 'MODULE_PATHNAME', 'mhm_histogram_count'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_count(meshhook_metrics.histogram) is
'Number of observations.';

create function meshhook_metrics.histogram_sum(meshhook_metrics.histogram)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_sum'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_sum(meshhook_metrics.histogram) is
'Sum of the observations, in the unit of the metric; 0 for an empty histogram. A sum beyond the largest float8 stays there.';

create function meshhook_metrics.histogram_avg(meshhook_metrics.histogram)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_avg'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_avg(meshhook_metrics.histogram) is
'Mean of the observations, sum / count, in the unit of the metric; NULL for an empty histogram.';

create function meshhook_metrics.histogram_min(meshhook_metrics.histogram)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_min'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_min(meshhook_metrics.histogram) is
'Smallest observation, in the unit of the metric; NULL for an empty histogram.';

create function meshhook_metrics.histogram_max(meshhook_metrics.histogram)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_max'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_max(meshhook_metrics.histogram) is
'Largest observation, in the unit of the metric; NULL for an empty histogram.';

create function meshhook_metrics.histogram_quantile(histogram meshhook_metrics.histogram, q float8)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_quantile'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_quantile(meshhook_metrics.histogram, float8) is
'The quantile q, from 0 to 1, in the unit of the metric; NULL for an empty histogram.
It is the observation of rank ceil(q * count), as percentile_disc(q) picks it: the first is min, the last is max, and any other is taken as 2 * l * u / (l + u) of its bucket (l, u], so at schema 3 it is off by at most 4.4 % (Masson, Rim and Lee, DDSketch, VLDB 2019). In the zero count it is the middle between 0 and the threshold, in the overflow count 2 * l * u / (l + u) of the threshold and max. Never below min or above max.
Errors: 22003 if q is not between 0 and 1.';

create function meshhook_metrics.histogram_fraction(histogram meshhook_metrics.histogram, lower float8, upper float8)
returns float8
as 'MODULE_PATHNAME', 'mhm_histogram_fraction'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_fraction(meshhook_metrics.histogram, float8, float8) is
'Estimated fraction, from 0 to 1, of the observations above lower and up to upper; both in the unit of the metric, and infinities allowed. 0 if lower is not below upper; NULL for an empty histogram.
Within a bucket observations are taken to be spread evenly on a logarithmic scale, in the zero count on a linear one, and none are below min or above max: histogram_fraction of PromQL, with its interpolation.
Errors: 22023 if a bound is NaN.';

create function meshhook_metrics.histogram_buckets(
	histogram meshhook_metrics.histogram,
	out lower float8,
	out upper float8,
	out count bigint
)
returns setof record
as 'MODULE_PATHNAME', 'mhm_histogram_buckets'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_buckets(meshhook_metrics.histogram) is
'The buckets that are not empty, in order: each counts the observations above lower and up to upper, in the unit of the metric. The zero count comes first, from 0 (included) to its threshold, the overflow count last, from its threshold to Infinity.';

-- Support functions of the aggregates

create function meshhook_metrics.histogram_merge_transition(internal, meshhook_metrics.histogram)
returns internal
as 'MODULE_PATHNAME', 'mhm_histogram_merge_transition'
language c immutable parallel safe;

comment on function meshhook_metrics.histogram_merge_transition(internal, meshhook_metrics.histogram) is
'Adds a histogram to the state of histogram_merge.';

create function meshhook_metrics.histogram_of_transition(internal, float8)
returns internal
as 'MODULE_PATHNAME', 'mhm_histogram_of_transition'
language c immutable parallel safe;

comment on function meshhook_metrics.histogram_of_transition(internal, float8) is
'Adds a value to the state of histogram_of.';

create function meshhook_metrics.histogram_combine(internal, internal)
returns internal
as 'MODULE_PATHNAME', 'mhm_histogram_combine'
language c immutable parallel safe;

comment on function meshhook_metrics.histogram_combine(internal, internal) is
'Adds the second aggregate state to the first.';

create function meshhook_metrics.histogram_serialize(internal)
returns bytea
as 'MODULE_PATHNAME', 'mhm_histogram_serialize'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_serialize(internal) is
'The aggregate state as a parallel worker sends it: the binary form of a histogram.';

create function meshhook_metrics.histogram_deserialize(bytea, internal)
returns internal
as 'MODULE_PATHNAME', 'mhm_histogram_deserialize'
language c immutable strict parallel safe;

comment on function meshhook_metrics.histogram_deserialize(bytea, internal) is
'The aggregate state that a parallel worker sent.';

create function meshhook_metrics.histogram_final(internal)
returns meshhook_metrics.histogram
as 'MODULE_PATHNAME', 'mhm_histogram_final'
language c immutable parallel safe;

comment on function meshhook_metrics.histogram_final(internal) is
'The histogram of the aggregate state.';

create aggregate meshhook_metrics.histogram_merge(meshhook_metrics.histogram) (
	sfunc = meshhook_metrics.histogram_merge_transition,
	stype = internal,
	finalfunc = meshhook_metrics.histogram_final,
	combinefunc = meshhook_metrics.histogram_combine,
	serialfunc = meshhook_metrics.histogram_serialize,
	deserialfunc = meshhook_metrics.histogram_deserialize,
	parallel = safe
);

comment on aggregate meshhook_metrics.histogram_merge(meshhook_metrics.histogram) is
'All observations of the histograms in one; NULLs are skipped, NULL for no rows. Counts are exact and do not depend on the order. The result has the lowest schema of its inputs, all of their buckets, and their zero and overflow counts with a threshold each.
Errors: 22003 if the count would exceed 9223372036854775807.';

create aggregate meshhook_metrics.histogram_of(float8) (
	sfunc = meshhook_metrics.histogram_of_transition,
	stype = internal,
	finalfunc = meshhook_metrics.histogram_final,
	combinefunc = meshhook_metrics.histogram_combine,
	serialfunc = meshhook_metrics.histogram_serialize,
	deserialfunc = meshhook_metrics.histogram_deserialize,
	parallel = safe
);

comment on aggregate meshhook_metrics.histogram_of(float8) is
'The histogram, at schema 3, of the values; NULLs are skipped, NULL for no rows. "zero" counts exact zeros.
Errors: 22003 for a value that is negative, infinite or NaN.';
