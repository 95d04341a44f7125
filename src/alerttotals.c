/*-------------------------------------------------------------------------
 *
 * alerttotals.c
 *	  alert_totals(): what came to many series within many windows of time
 *
 * Adds up rows of live and of the rollup tables for alert_values()
 * (sql/alertvalues.sql), which says which series within which windows belong to
 * which target, a group of a rule.  Touches no shared memory.
 *
 * Series that belong to the same targets are added up in one place, their pool, and
 * pools are added to their targets at the end.  So a histogram is merged once for
 * each window, and held once for each set of rules and groups, however many series
 * there are; of a series within a window only its last value is kept apart.  What
 * comes to more than the memory allowed is an error, before it is allocated.
 *
 * It is C because of the arrays in live: ten thousand series that change in every
 * flush are hundreds of thousands of elements in an evaluation, and unnest() takes
 * two microseconds for each.  Here a row is read once (alertread.c), whatever the
 * number of windows that it is in, and goes from the executor to the accumulators
 * without being copied.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "alerttotals.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "funcapi.h"
#include "histogram.h"
#include "port/pg_bitutils.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mhm_alert_totals);

/*
 * What one call may be asked for: a rule has at most 10,000 matches, and
 * alert_pieces() keeps well below this.  Histograms are counted as they come.
 */
#define MATCHES_ALLOWED			100000
#define HISTOGRAMS_ALLOWED		(16 * 1024 * 1024)

/* What of a window's bounds rows are compared with; numbered from 1 */
typedef struct Span
{
	TimestampTz starts;			/* not in it */
	TimestampTz minutes_begin;	/* the minutes that lead up to last_minute */
	TimestampTz last_minute;
	bool		shares_minutes; /* are they read for all windows together? */
} Span;

/* What has come */
typedef struct Sums
{
	double		count;			/* no whole number where a row was divided */
	double		sum;
	double		min;			/* infinite while there is none */
	double		max;
	double		last;
	bool		has_samples;
	bool		has_last;
	MhmHistogramState *histogram;	/* NULL while there is none */
} Sums;

/* ... to all series, within a window, that belong to the same targets */
typedef struct Pool
{
	int			first_match;	/* of one of them, the others of which follow */
	int			targets_count;
	bool		quantiles;		/* is the histogram wanted? */
	Sums		sums;			/* but for last */
} Pool;

/* A series within a window */
typedef struct Accumulator
{
	int64		series_id;
	int			window;
	int			pool;
	TimestampTz last_at;
	int64		last_id;		/* of the row of live */
	double		last;
	bool		has_last;
} Accumulator;

/* A series that belongs to a target */
typedef struct Match
{
	int64		series_id;
	int			window;
	int			target;
	bool		quantiles;
} Match;

/* Where a series' accumulators begin; they are neighbours */
struct MhmAlertSeries
{
	int64		series_id;
	int			first;
	char		status;
};

#define SH_PREFIX series_table
#define SH_ELEMENT_TYPE MhmAlertSeries
#define SH_KEY_TYPE int64
#define SH_KEY series_id
#define SH_HASH_KEY(tb, key) hash_bytes_uint32((uint32) (key) ^ (uint32) ((key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DEFINE
#define SH_DECLARE
#include "lib/simplehash.h"

static inline int
compare_matches(const Match *left, const Match *right)
{
	if (left->series_id != right->series_id)
		return left->series_id < right->series_id ? -1 : 1;
	if (left->window != right->window)
		return left->window < right->window ? -1 : 1;
	return left->target < right->target ? -1 : left->target > right->target;
}

#define ST_SORT sort_matches
#define ST_ELEMENT_TYPE Match
#define ST_COMPARE(a, b) compare_matches(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

struct MhmAlertTotals
{
	TimestampTz at;
	Span	   *spans;
	int			spans_count;
	Match	   *matches;		/* in the order of their accumulators */
	int			matches_count;
	Accumulator *accumulators;
	int			accumulators_count;
	Pool	   *pools;
	int			pools_count;
	int			pools_allocated;
	int		   *pool_slots;		/* a hash table of them; -1: free */
	uint32		pool_slots_count;	/* a power of two */
	series_table_hash *series;
	Sums	   *targets;		/* numbered from 1 */
	int			targets_count;
	MemoryContext histograms;	/* has nothing else */
};

const Oid	mhm_alert_argument_types[MHM_ALERT_ARGUMENTS] = {
	TIMESTAMPTZOID, UUIDARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	TEXTARRAYOID, BOOLARRAYOID
};

static void
bad_argument(const char *what)
{
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("alert_totals() was called with %s", what),
			errhint("It is called by alert_values(), and not meant to be called otherwise."));
}

/* An array of so many values (-1: any number of them), none of which is null */
static Datum *
array_argument(FunctionCallInfo fcinfo, int argument, int *count)
{
	ArrayType  *array;
	Oid			type = get_element_type(mhm_alert_argument_types[argument]);
	int16		length;
	bool		by_value;
	char		alignment;
	Datum	   *values;
	int			found;

	array = PG_GETARG_ARRAYTYPE_P(argument);
	if (ARR_ELEMTYPE(array) != type || ARR_NDIM(array) > 1 || array_contains_nulls(array))
		bad_argument("an array that is none, or has a null");
	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	deconstruct_array(array, type, length, by_value, alignment, &values, NULL, &found);
	if (*count < 0)
		*count = found;
	else if (found != *count)
		bad_argument("arrays of different lengths");
	return values;
}

static void
read_spans(MhmAlertTotals *totals, FunctionCallInfo fcinfo)
{
	int			count = -1;
	Datum	   *starts = array_argument(fcinfo, MHM_ALERT_ARGUMENT_STARTS, &count);
	Datum	   *first_minutes = array_argument(fcinfo, MHM_ALERT_ARGUMENT_FIRST_MINUTES, &count);
	Datum	   *last_coarse = array_argument(fcinfo, MHM_ALERT_ARGUMENT_LAST_COARSE, &count);
	Datum	   *last_minutes = array_argument(fcinfo, MHM_ALERT_ARGUMENT_LAST_MINUTES, &count);
	Datum	   *scanned = array_argument(fcinfo, MHM_ALERT_ARGUMENT_SCANNED, &count);

	totals->spans_count = count;
	totals->spans = palloc0((count + 1) * sizeof(Span));
	for (int i = 0; i < count; i++)
	{
		Span	   *span = &totals->spans[i + 1];

		span->starts = DatumGetTimestampTz(starts[i]);
		/* What begins with a whole minute includes its beginning, as the minute does */
		if (span->starts == DatumGetTimestampTz(first_minutes[i]))
			span->starts--;
		span->minutes_begin = DatumGetTimestampTz(last_coarse[i]);
		span->last_minute = DatumGetTimestampTz(last_minutes[i]);
		span->shares_minutes = DatumGetBool(scanned[i]);
	}
}

static void
clear_sums(Sums *sums)
{
	memset(sums, 0, sizeof(*sums));
	sums->min = INFINITY;
	sums->max = -INFINITY;
}

static void
read_matches(MhmAlertTotals *totals, FunctionCallInfo fcinfo)
{
	int			count = -1;
	Datum	   *series;
	Datum	   *windows;
	Datum	   *targets;
	Datum	   *quantiles;

	pfree(array_argument(fcinfo, MHM_ALERT_ARGUMENT_TENANTS, &count));
	series = array_argument(fcinfo, MHM_ALERT_ARGUMENT_SERIES, &count);
	windows = array_argument(fcinfo, MHM_ALERT_ARGUMENT_WINDOWS, &count);
	targets = array_argument(fcinfo, MHM_ALERT_ARGUMENT_TARGETS, &count);
	quantiles = array_argument(fcinfo, MHM_ALERT_ARGUMENT_QUANTILES, &count);

	if (count > MATCHES_ALLOWED)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("there are %d pairs of a rule and a series; %d are added up at a time", count, MATCHES_ALLOWED));
	totals->matches_count = count;
	totals->matches = palloc((count + 1) * sizeof(Match));
	for (int i = 0; i < count; i++)
	{
		Match	   *match = &totals->matches[i];

		match->series_id = DatumGetInt64(series[i]);
		match->window = DatumGetInt32(windows[i]);
		match->target = DatumGetInt32(targets[i]);
		match->quantiles = DatumGetBool(quantiles[i]);
		if (match->window < 1 || match->window > totals->spans_count)
			bad_argument("a window that is not described");
		if (match->target < 1 || match->target > count)
			bad_argument("targets that are not numbered from 1");
		totals->targets_count = Max(totals->targets_count, match->target);
	}
	sort_matches(totals->matches, count);
	pfree(series);
	pfree(windows);
	pfree(targets);
	pfree(quantiles);

	totals->targets = palloc((totals->targets_count + 1) * sizeof(Sums));
	for (int i = 0; i <= totals->targets_count; i++)
		clear_sums(&totals->targets[i]);
}

/* How many matches there are of the series and window of this one, which is the first */
static int
count_targets(const MhmAlertTotals *totals, int first)
{
	const Match *match = &totals->matches[first];
	int			count = 1;

	while (first + count < totals->matches_count &&
		   match[count].series_id == match->series_id && match[count].window == match->window)
		count++;
	return count;
}

static bool
is_pool_of(const MhmAlertTotals *totals, const Pool *pool, const Match *match, int targets_count)
{
	const Match *other = &totals->matches[pool->first_match];

	if (pool->targets_count != targets_count || other->window != match->window)
		return false;
	for (int i = 0; i < targets_count; i++)
		if (other[i].target != match[i].target)
			return false;
	return true;
}

/* The pool of a series and window, whose matches begin here */
static int
find_pool(MhmAlertTotals *totals, int first, int targets_count)
{
	const Match *match = &totals->matches[first];
	uint32		hash = murmurhash32((uint32) match->window);
	Pool	   *pool;
	int		   *slot;

	for (int i = 0; i < targets_count; i++)
		hash = hash_combine(hash, murmurhash32((uint32) match[i].target));
	for (slot = &totals->pool_slots[hash & (totals->pool_slots_count - 1)];
		 *slot >= 0;
		 slot = &totals->pool_slots[++hash & (totals->pool_slots_count - 1)])
		if (is_pool_of(totals, &totals->pools[*slot], match, targets_count))
			return *slot;
	if (totals->pools_count == totals->pools_allocated)
	{
		totals->pools_allocated *= 2;
		totals->pools = repalloc(totals->pools, totals->pools_allocated * sizeof(Pool));
	}
	*slot = totals->pools_count++;
	pool = &totals->pools[*slot];
	pool->first_match = first;
	pool->targets_count = targets_count;
	pool->quantiles = false;
	clear_sums(&pool->sums);
	for (int i = 0; i < targets_count; i++)
		pool->quantiles |= match[i].quantiles;
	return *slot;
}

static void
make_accumulators(MhmAlertTotals *totals)
{
	totals->accumulators = palloc0((totals->matches_count + 1) * sizeof(Accumulator));
	totals->pools_allocated = 64;
	totals->pools = palloc(totals->pools_allocated * sizeof(Pool));
	totals->pool_slots_count = pg_nextpower2_32(2 * totals->matches_count + 1);
	totals->pool_slots = palloc(totals->pool_slots_count * sizeof(int));
	memset(totals->pool_slots, -1, totals->pool_slots_count * sizeof(int));
	totals->series = series_table_create(CurrentMemoryContext, totals->matches_count / 4 + 1, NULL);
	for (int i = 0; i < totals->matches_count;)
	{
		int			targets_count = count_targets(totals, i);
		Accumulator *accumulator = &totals->accumulators[totals->accumulators_count];
		MhmAlertSeries *entry;
		bool		found;

		accumulator->series_id = totals->matches[i].series_id;
		accumulator->window = totals->matches[i].window;
		accumulator->pool = find_pool(totals, i, targets_count);
		entry = series_table_insert(totals->series, accumulator->series_id, &found);
		if (!found)
			entry->first = totals->accumulators_count;
		totals->accumulators_count++;
		i += targets_count;
	}
}

/*
 * The part of a row that belongs to a window which it is offered to, from 0 to 1.
 * A row of live is about a time, and what the window shares of that has the same
 * share of it; min, max and histograms have no parts.
 */
static double
share_of(const MhmAlertPart *part, const Span *span, TimestampTz at)
{
	TimestampTz begins;
	TimestampTz ends;

	switch (part->source)
	{
		case MHM_FROM_MINUTES:
			return span->shares_minutes && part->at >= span->minutes_begin && part->at < span->last_minute ? 1 : 0;
		case MHM_FROM_ROLLUP:
			return 1;
		case MHM_FROM_END:
			if (part->at < span->last_minute)
				return 0;
			break;
		case MHM_FROM_LIVE:
		case MHM_FROM_BEGINNING:
			break;
	}
	begins = Max(part->begins, span->starts);
	ends = Min(part->at, at);
	if (ends <= begins)
		return 0;
	return begins == part->begins && ends == part->at ? 1 : (double) (ends - begins) / (double) (part->at - part->begins);
}

static void
add_to_sums(Sums *sums, double count, double sum)
{
	sums->has_samples = true;
	sums->count += count;
	sums->sum += sum;
}

static void
add_histogram(MhmAlertTotals *totals, Sums *sums, struct varlena *histogram)
{
	MhmHistogramReader reader;

	if (sums->histogram == NULL)
		sums->histogram = mhm_state_create(totals->histograms);
	mhm_histogram_open(&reader, histogram);
	mhm_state_merge(sums->histogram, &reader);
	mhm_histogram_close(&reader);
	if (MemoryContextMemAllocated(totals->histograms, false) > HISTOGRAMS_ALLOWED)
		ereport(ERROR,
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("quantiles of so many groups need more than %d MB of memory", HISTOGRAMS_ALLOWED / (1024 * 1024)));
}

static void
add_part(MhmAlertTotals *totals, Accumulator *accumulator, const MhmAlertPart *part, double share)
{
	Pool	   *pool = &totals->pools[accumulator->pool];
	Sums	   *sums = &pool->sums;

	add_to_sums(sums, part->count * share, part->sum * share);
	if (part->has_min)
		sums->min = Min(sums->min, part->min);
	if (part->has_max)
		sums->max = Max(sums->max, part->max);
	if (part->has_last &&
		(!accumulator->has_last || part->at > accumulator->last_at ||
		 (part->at == accumulator->last_at && part->id >= accumulator->last_id)))
	{
		accumulator->has_last = true;
		accumulator->last = part->last;
		accumulator->last_at = part->at;
		accumulator->last_id = part->id;
	}
	if (pool->quantiles && part->histogram != NULL)
		add_histogram(totals, sums, part->histogram);
}

/* What has come to a pool has come to each of its targets; the last of them takes the histogram over */
static void
add_to_target(MhmAlertTotals *totals, Sums *target, Sums *sums, bool quantiles, bool is_last)
{
	add_to_sums(target, sums->count, sums->sum);
	target->min = Min(target->min, sums->min);
	target->max = Max(target->max, sums->max);
	if (!quantiles || sums->histogram == NULL)
		return;
	if (target->histogram == NULL && is_last)
	{
		target->histogram = sums->histogram;
		return;
	}
	if (target->histogram == NULL)
		target->histogram = mhm_state_create(totals->histograms);
	mhm_state_combine(target->histogram, sums->histogram);
}

static void
add_up_targets(MhmAlertTotals *totals)
{
	for (int i = 0; i < totals->pools_count; i++)
	{
		Pool	   *pool = &totals->pools[i];
		const Match *match = &totals->matches[pool->first_match];

		for (int j = 0; j < pool->targets_count && pool->sums.has_samples; j++)
			add_to_target(totals, &totals->targets[match[j].target], &pool->sums, match[j].quantiles,
						  j == pool->targets_count - 1);
	}
	/* The last values of all series add up */
	for (int i = 0; i < totals->accumulators_count; i++)
	{
		const Accumulator *accumulator = &totals->accumulators[i];
		const Pool *pool = &totals->pools[accumulator->pool];
		const Match *match = &totals->matches[pool->first_match];

		for (int j = 0; j < pool->targets_count && accumulator->has_last; j++)
		{
			totals->targets[match[j].target].last += accumulator->last;
			totals->targets[match[j].target].has_last = true;
		}
	}
}

/* NULL for a series of no target */
const MhmAlertSeries *
mhm_alert_find_series(const MhmAlertTotals *totals, int64 series_id)
{
	return series_table_lookup(totals->series, series_id);
}

/* Add what a row says of a series to those of its windows that it belongs to */
void
mhm_alert_offer(MhmAlertTotals *totals, const MhmAlertSeries *series, const MhmAlertPart *part)
{
	for (int i = series->first;
		 i < totals->accumulators_count && totals->accumulators[i].series_id == series->series_id;
		 i++)
	{
		Accumulator *accumulator = &totals->accumulators[i];
		double		share;

		if (part->window != MHM_ALL_WINDOWS && part->window != accumulator->window)
			continue;
		share = share_of(part, &totals->spans[accumulator->window], totals->at);
		if (share > 0)
			add_part(totals, accumulator, part, share);
	}
}

/* Columns of alert_totals() */
enum
{
	TOTAL_TARGET,
	TOTAL_COUNT,
	TOTAL_SUM,
	TOTAL_MIN,
	TOTAL_MAX,
	TOTAL_LAST,
	TOTAL_HISTOGRAM,
	TOTAL_COLUMNS
};

static void
put_targets(const MhmAlertTotals *totals, ReturnSetInfo *result)
{
	for (int i = 1; i <= totals->targets_count; i++)
	{
		const Sums *sums = &totals->targets[i];
		const MhmHistogramState *histogram = sums->histogram;
		struct varlena *compact = NULL;
		Datum		values[TOTAL_COLUMNS];
		bool		nulls[TOTAL_COLUMNS] = {false};

		if (!sums->has_samples)
			continue;
		values[TOTAL_TARGET] = Int32GetDatum(i);
		values[TOTAL_COUNT] = Float8GetDatum(sums->count);
		values[TOTAL_SUM] = Float8GetDatum(sums->sum);
		values[TOTAL_MIN] = Float8GetDatum(sums->min);
		nulls[TOTAL_MIN] = isinf(sums->min);
		values[TOTAL_MAX] = Float8GetDatum(sums->max);
		nulls[TOTAL_MAX] = isinf(sums->max);
		values[TOTAL_LAST] = Float8GetDatum(sums->last);
		nulls[TOTAL_LAST] = !sums->has_last;
		if (histogram != NULL)
			compact = mhm_histogram_compact(&histogram->summary, histogram->first, histogram->counts, histogram->size);
		values[TOTAL_HISTOGRAM] = PointerGetDatum(compact);
		nulls[TOTAL_HISTOGRAM] = (compact == NULL);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		if (compact != NULL)
			pfree(compact);
	}
}

Datum
mhm_alert_totals(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MhmAlertTotals totals = {0};
	Datum		arguments[MHM_ALERT_ARGUMENTS];

	if (PG_NARGS() != MHM_ALERT_ARGUMENTS)
		elog(ERROR, "alert_totals() is declared otherwise than this library expects");
	for (int i = 0; i < MHM_ALERT_ARGUMENTS; i++)
		if (PG_ARGISNULL(i))
			bad_argument("a null");
	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != TOTAL_COLUMNS)
		elog(ERROR, "alert_totals() is declared otherwise than this library expects");

	totals.at = PG_GETARG_TIMESTAMPTZ(MHM_ALERT_ARGUMENT_AT);
	totals.histograms = AllocSetContextCreate(CurrentMemoryContext, "meshhook_metrics alert histograms",
											  ALLOCSET_DEFAULT_SIZES);
	read_spans(&totals, fcinfo);
	read_matches(&totals, fcinfo);
	make_accumulators(&totals);
	if (totals.matches_count > 0)
	{
		for (int i = 0; i < MHM_ALERT_ARGUMENTS; i++)
			arguments[i] = PG_GETARG_DATUM(i);
		mhm_alert_read(&totals, arguments);
	}
	add_up_targets(&totals);
	put_targets(&totals, result);
	return (Datum) 0;
}
