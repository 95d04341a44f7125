/*
 * histogrammath.c
 *		What a histogram says: its count, sum and extremes, its quantiles, the
 *		fraction of its observations in a range, and its buckets as rows.
 *
 * SQL-callable functions that read the compact form in place, in one or two
 * passes.  They change nothing and share nothing.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/tuplestore.h"

#include "histogram.h"
#include "histogramcompat.h"

PG_FUNCTION_INFO_V1(mhm_histogram_count);
PG_FUNCTION_INFO_V1(mhm_histogram_sum);
PG_FUNCTION_INFO_V1(mhm_histogram_avg);
PG_FUNCTION_INFO_V1(mhm_histogram_min);
PG_FUNCTION_INFO_V1(mhm_histogram_max);
PG_FUNCTION_INFO_V1(mhm_histogram_quantile);
PG_FUNCTION_INFO_V1(mhm_histogram_fraction);
PG_FUNCTION_INFO_V1(mhm_histogram_buckets);

/* Columns of histogram_buckets */
#define BUCKETS_LOWER				0
#define BUCKETS_UPPER				1
#define BUCKETS_COUNT				2
#define BUCKETS_COLUMNS				3

/* Begin to read a stored histogram, which must not be compressed or external */
void
mhm_histogram_open(MhmHistogramReader *reader, const struct varlena *histogram)
{
	mhm_histogram_read(reader, VARDATA_ANY(histogram), VARSIZE_ANY_EXHDR(histogram));
}

/* End to read a stored histogram: what was malformed in it is an error now */
void
mhm_histogram_close(const MhmHistogramReader *reader)
{
	if (reader->problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("a stored histogram is damaged: %s (at byte %d)",
						reader->problem, (int) (reader->at - reader->start)),
				 errhint("Restore the row that holds it, or delete it.")));
}

/* Read to the end and return the count of all observations */
static uint64
read_count(const struct varlena *histogram, MhmHistogramReader *reader)
{
	mhm_histogram_open(reader, histogram);
	while (mhm_histogram_next(reader))
		;
	mhm_histogram_close(reader);
	return reader->total;
}

Datum
mhm_histogram_count(PG_FUNCTION_ARGS)
{
	MhmHistogramReader reader;

	PG_RETURN_INT64((int64) read_count(PG_GETARG_VARLENA_PP(0), &reader));
}

Datum
mhm_histogram_sum(PG_FUNCTION_ARGS)
{
	MhmHistogramReader reader;

	(void) read_count(PG_GETARG_VARLENA_PP(0), &reader);
	PG_RETURN_FLOAT8(reader.summary.sum);
}

Datum
mhm_histogram_avg(PG_FUNCTION_ARGS)
{
	MhmHistogramReader reader;
	uint64		count = read_count(PG_GETARG_VARLENA_PP(0), &reader);

	if (count == 0)
		PG_RETURN_NULL();
	/* A sum that was rounded must not leave the extremes of what it is the sum of */
	PG_RETURN_FLOAT8(Max(reader.summary.min,
						 Min(reader.summary.max, reader.summary.sum / (double) count)));
}

Datum
mhm_histogram_min(PG_FUNCTION_ARGS)
{
	MhmHistogramReader reader;

	if (read_count(PG_GETARG_VARLENA_PP(0), &reader) == 0)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(reader.summary.min);
}

Datum
mhm_histogram_max(PG_FUNCTION_ARGS)
{
	MhmHistogramReader reader;

	if (read_count(PG_GETARG_VARLENA_PP(0), &reader) == 0)
		PG_RETURN_NULL();
	PG_RETURN_FLOAT8(reader.summary.max);
}

/* The parts of a histogram in order: zero, buckets, overflow */
typedef struct RegionWalk
{
	MhmHistogramReader reader;
	bool		zero_done;
	bool		overflow_done;
} RegionWalk;

typedef struct Region
{
	double		lower;			/* exclusive, save for the zero count's 0 */
	double		upper;			/* inclusive; infinity for the overflow count */
	bool		from_zero;		/* has no logarithm at its lower end */
	uint64		count;
} Region;

static void
walk_begin(RegionWalk *walk, const struct varlena *histogram)
{
	mhm_histogram_open(&walk->reader, histogram);
	walk->zero_done = walk->reader.summary.zero == 0;
	walk->overflow_done = walk->reader.summary.overflow == 0;
}

static bool
walk_next(RegionWalk *walk, Region *region)
{
	const MhmHistogramSummary *summary = &walk->reader.summary;

	if (!walk->zero_done)
	{
		region->lower = 0.0;
		region->upper = mhm_threshold_value(summary->zero_index, summary->schema);
		region->count = summary->zero;
		walk->zero_done = true;
	}
	else if (mhm_histogram_next(&walk->reader))
	{
		region->lower = mhm_bucket_upper_at(walk->reader.index - 1, summary->schema);
		region->upper = mhm_bucket_upper_at(walk->reader.index, summary->schema);
		region->count = walk->reader.count;
	}
	else if (!walk->overflow_done)
	{
		region->lower = mhm_threshold_value(summary->overflow_index, summary->schema);
		region->upper = HUGE_VAL;
		region->count = summary->overflow;
		walk->overflow_done = true;
	}
	else
		return false;

	region->from_zero = region->lower == 0;
	return true;
}

/* Leave out of a region what the extremes say is empty */
static void
bound(Region *region, const MhmHistogramSummary *summary)
{
	region->lower = Max(region->lower, summary->min);
	region->upper = Min(region->upper, summary->max);
}

/*
 * The value that stands for all of a bucket: the harmonic mean of its ends, whose
 * relative distance from both is the same, (g - 1) / (g + 1) for ends a factor g
 * apart.  The middle where the lower end is 0.
 */
static double
mid_value(double lower, double upper)
{
	if (lower > 0)
		return lower * (2.0 / (1.0 + lower / upper));
	return upper / 2;
}

Datum
mhm_histogram_quantile(PG_FUNCTION_ARGS)
{
	struct varlena *histogram = PG_GETARG_VARLENA_PP(0);
	double		q = PG_GETARG_FLOAT8(1);
	RegionWalk	walk;
	Region		region;
	const MhmHistogramSummary *summary = &walk.reader.summary;
	uint64		count;
	uint64		rank;
	uint64		passed = 0;
	double		value = 0.0;

	if (!(q >= 0 && q <= 1))
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("quantile %g is not between 0 and 1", q),
				 errhint("The 95th percentile is the quantile 0.95.")));

	count = read_count(histogram, &walk.reader);
	if (count == 0)
		PG_RETURN_NULL();

	/* The double nearest to a large count can be above it */
	rank = ceil(q * (double) count) < (double) count ? (uint64) ceil(q * (double) count) : count;
	if (rank <= 1)
		PG_RETURN_FLOAT8(summary->min);
	if (rank == count)
		PG_RETURN_FLOAT8(summary->max);

	walk_begin(&walk, histogram);
	while (passed < rank && walk_next(&walk, &region))
	{
		passed += region.count;
		if (isinf(region.upper))
			bound(&region, summary);
		value = mid_value(region.lower, region.upper);
	}
	PG_RETURN_FLOAT8(Min(Max(value, summary->min), summary->max));
}

/*
 * How many of a region's observations are at or below x: log-linear between its
 * ends, linear where the region begins at 0.
 */
static double
count_below(const Region *region, double x)
{
	double		share;

	if (x >= region->upper)
		return (double) region->count;
	if (x <= region->lower)
		return 0.0;
	if (region->from_zero)
		share = (x - region->lower) / (region->upper - region->lower);
	else
		share = (log2(x) - log2(region->lower)) / (log2(region->upper) - log2(region->lower));
	return (double) region->count * share;
}

Datum
mhm_histogram_fraction(PG_FUNCTION_ARGS)
{
	struct varlena *histogram = PG_GETARG_VARLENA_PP(0);
	double		lower = PG_GETARG_FLOAT8(1);
	double		upper = PG_GETARG_FLOAT8(2);
	RegionWalk	walk;
	Region		region;
	double		within = 0.0;

	if (isnan(lower) || isnan(upper))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a bound of histogram_fraction is not a number"),
				 errhint("Use -Infinity and Infinity for a range that is open at one end.")));

	walk_begin(&walk, histogram);
	while (walk_next(&walk, &region))
	{
		bound(&region, &walk.reader.summary);
		within += count_below(&region, upper) - count_below(&region, lower);
	}
	mhm_histogram_close(&walk.reader);

	if (walk.reader.total == 0)
		PG_RETURN_NULL();
	if (lower >= upper)
		PG_RETURN_FLOAT8(0.0);
	PG_RETURN_FLOAT8(Min(within / (double) walk.reader.total, 1.0));
}

Datum
mhm_histogram_buckets(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	RegionWalk	walk;
	Region		region;

	InitMaterializedSRF(fcinfo, 0);

	walk_begin(&walk, PG_GETARG_VARLENA_PP(0));
	while (walk_next(&walk, &region))
	{
		Datum		values[BUCKETS_COLUMNS];
		bool		nulls[BUCKETS_COLUMNS] = {false};

		values[BUCKETS_LOWER] = Float8GetDatum(region.lower);
		values[BUCKETS_UPPER] = Float8GetDatum(region.upper);
		values[BUCKETS_COUNT] = Int64GetDatum((int64) region.count);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	mhm_histogram_close(&walk.reader);
	PG_RETURN_NULL();
}
