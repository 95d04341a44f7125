/*
 * histogrammath.c
 *		What a histogram says: its count, sum and extremes, its quantiles, the
 *		fraction of its observations in a range, and its buckets as rows.
 *
 * SQL-callable functions that read the compact form in place, in a few passes.
 * They change nothing and share nothing.
 *
 * Where windows that differ were merged, buckets lie beyond a threshold: some
 * observations are known exactly that others of the same metric are only known to be
 * beyond.  Quantiles and fractions take those to be distributed as the known ones
 * there are, which is the estimate of Kaplan and Meier for censored observations, in
 * the form of Efron ("redistribute to the right"): with thresholds T_1 < T_2 < ... of
 * overflow counts m_j, and R_j the counts of all buckets above T_j and of the overflow
 * counts after it, a bucket of count c has the weight
 *
 *		c * (product of (1 + m_j / R_j) over all T_j below it)
 *
 * and zero counts likewise downwards, where L_i are the counts of the buckets at or
 * below threshold i and of the zero counts before it; what both sides add is added.
 * The last overflow count of a side with nothing above it (R_j = 0) lies between its
 * threshold and the maximum, as that of one window does; so the first zero count.  The
 * weights add up to the count, do not depend on the order of merging, and are the
 * counts themselves where no bucket lies beyond a threshold.
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

/* The parts of a histogram in order: zero counts, buckets, overflow counts */
typedef struct RegionWalk
{
	MhmHistogramReader reader;
	int			zeros_done;
	int			overflows_done;
	bool		spread;			/* do some counts go to buckets? */
	int			below;			/* zero counts whose threshold is below the bucket */
	int			above;			/* overflow counts likewise */
	double	   *fall;			/* factor for what lies at or below a zero threshold */
	double	   *rise;			/* factor for what lies above an overflow threshold */
	bool		zero_stays;		/* nothing is known at or below the first zero threshold */
	bool		overflow_stays; /* nor above the last overflow threshold */
} RegionWalk;

typedef struct Region
{
	double		lower;			/* exclusive, save for the zero count's 0 */
	double		upper;			/* inclusive; infinity for an overflow count */
	bool		from_zero;		/* has no logarithm at its lower end */
	uint64		count;
	double		weight;			/* with what is taken to be here */
} Region;

static void
walk_begin(RegionWalk *walk, const struct varlena *histogram)
{
	memset(walk, 0, sizeof(*walk));
	mhm_histogram_open(&walk->reader, histogram);
	walk->zero_stays = walk->overflow_stays = true;
}

/* Move to the thresholds between which a bucket lies */
static void
pass_thresholds(RegionWalk *walk, int32 index)
{
	const MhmHistogramSummary *summary = &walk->reader.summary;

	while (walk->below < summary->zero.size && summary->zero.at[walk->below].index < index)
		walk->below++;
	while (walk->above < summary->overflow.size && summary->overflow.at[walk->above].index < index)
		walk->above++;
}

/*
 * The factors of all thresholds.  at_or_below[i] counts the buckets from the zero
 * threshold before to i, above[j] those from overflow threshold j to the next.
 */
static void
find_factors(RegionWalk *walk, const double *at_or_below, const double *above)
{
	const MhmEnds *zero = &walk->reader.summary.zero;
	const MhmEnds *overflow = &walk->reader.summary.overflow;
	double		others = 0;
	double		factor = 1;

	/* First what there is beyond each threshold, from the outermost one in */
	for (int i = 0; i < zero->size; i++)
	{
		walk->fall[i] = others += at_or_below[i];
		others += (double) zero->at[i].count;
	}
	others = 0;
	for (int j = overflow->size - 1; j >= 0; j--)
	{
		walk->rise[j] = others += above[j];
		others += (double) overflow->at[j].count;
	}
	walk->zero_stays = zero->size > 0 && walk->fall[0] == 0;
	walk->overflow_stays = overflow->size > 0 && walk->rise[overflow->size - 1] == 0;

	for (int i = zero->size - 1; i >= 0; i--)
	{
		if (walk->fall[i] > 0)
			factor *= 1 + (double) zero->at[i].count / walk->fall[i];
		walk->fall[i] = factor;
	}
	factor = 1;
	for (int j = 0; j < overflow->size; j++)
	{
		if (walk->rise[j] > 0)
			factor *= 1 + (double) overflow->at[j].count / walk->rise[j];
		walk->rise[j] = factor;
	}
}

/* Begin a walk in which what lies beyond a threshold goes to the buckets there */
static void
walk_begin_spreading(RegionWalk *walk, const struct varlena *histogram)
{
	MhmEnds    *zero = &walk->reader.summary.zero;
	MhmEnds    *overflow = &walk->reader.summary.overflow;
	RegionWalk	counting;
	double	   *at_or_below;
	double	   *above;

	walk_begin(walk, histogram);
	if (!mhm_histogram_is_of_many_windows(&walk->reader))
		return;
	at_or_below = palloc0((zero->size + 1) * sizeof(double));
	above = palloc0((overflow->size + 1) * sizeof(double));
	walk_begin(&counting, histogram);
	while (mhm_histogram_next(&counting.reader))
	{
		pass_thresholds(&counting, counting.reader.index);
		at_or_below[counting.below] += (double) counting.reader.count;
		if (counting.above > 0)
			above[counting.above - 1] += (double) counting.reader.count;
	}
	walk->fall = palloc((zero->size + 1) * sizeof(double));
	walk->rise = palloc((overflow->size + 1) * sizeof(double));
	walk->spread = true;
	find_factors(walk, at_or_below, above);
}

/* The next zero count, of those that stay where they are */
static bool
next_zero(RegionWalk *walk, Region *region)
{
	const MhmHistogramSummary *summary = &walk->reader.summary;
	int			i = walk->zeros_done;

	if (walk->spread && (i > 0 || !walk->zero_stays))
		i = summary->zero.size;
	walk->zeros_done = i + 1;
	if (i >= summary->zero.size)
		return false;
	region->lower = 0.0;
	region->upper = mhm_threshold_value(summary->zero.at[i].index, summary->schema);
	region->count = summary->zero.at[i].count;
	region->weight = (double) region->count;
	if (walk->spread && i + 1 < summary->zero.size)
		region->weight *= walk->fall[i + 1];
	return true;
}

static bool
next_bucket(RegionWalk *walk, Region *region)
{
	const MhmHistogramSummary *summary = &walk->reader.summary;
	int32		index;
	double		factor = 1;

	if (!mhm_histogram_next(&walk->reader))
		return false;
	index = walk->reader.index;
	region->lower = mhm_bucket_upper_at(index - 1, summary->schema);
	region->upper = mhm_bucket_upper_at(index, summary->schema);
	region->count = walk->reader.count;
	if (walk->spread)
	{
		pass_thresholds(walk, index);
		if (walk->below < summary->zero.size)
			factor = walk->fall[walk->below];
		if (walk->above > 0)
			factor += walk->rise[walk->above - 1] - 1;
	}
	region->weight = (double) region->count * factor;
	return true;
}

/* The next overflow count, of those that stay where they are */
static bool
next_overflow(RegionWalk *walk, Region *region)
{
	const MhmHistogramSummary *summary = &walk->reader.summary;
	int			j = walk->overflows_done;

	if (walk->spread)
		j = walk->overflow_stays ? Max(j, summary->overflow.size - 1) : summary->overflow.size;
	walk->overflows_done = j + 1;
	if (j >= summary->overflow.size)
		return false;
	region->lower = mhm_threshold_value(summary->overflow.at[j].index, summary->schema);
	region->upper = HUGE_VAL;
	region->count = summary->overflow.at[j].count;
	region->weight = (double) region->count;
	if (walk->spread && j > 0)
		region->weight *= walk->rise[j - 1];
	return true;
}

static bool
walk_next(RegionWalk *walk, Region *region)
{
	if (!next_zero(walk, region) && !next_bucket(walk, region) && !next_overflow(walk, region))
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
	double		weighed = 0;
	double		value = 0.0;
	bool		reached = false;

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

	walk_begin_spreading(&walk, histogram);
	while (!reached && walk_next(&walk, &region))
	{
		/* Counts are exact, weights nearly */
		passed += region.count;
		weighed += region.weight;
		reached = walk.spread ? weighed >= (double) rank : passed >= rank;
		if (isinf(region.upper))
			bound(&region, summary);
		/* A zero and an overflow count that stay can overlap */
		value = Max(value, mid_value(region.lower, region.upper));
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
		return region->weight;
	if (x <= region->lower)
		return 0.0;
	if (region->from_zero)
		share = (x - region->lower) / (region->upper - region->lower);
	else
		share = (log2(x) - log2(region->lower)) / (log2(region->upper) - log2(region->lower));
	return region->weight * share;
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

	walk_begin_spreading(&walk, histogram);
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
