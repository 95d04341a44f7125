/*-------------------------------------------------------------------------
 *
 * alerttotals.c
 *	  alert_totals(): what came to many series within many windows of time
 *
 * Adds up rows of live and of the rollup tables for alert_values()
 * (sql/alertvalues.sql), which says which series within which windows belong to
 * which target, a group of a rule.  Owns the accumulators, one for each pair of
 * series and window however many targets it belongs to; touches no shared memory.
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
#include "common/int.h"
#include "fmgr.h"
#include "funcapi.h"
#include "histogram.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mhm_alert_totals);

/* What of a window's bounds rows are compared with; numbered from 1 */
typedef struct Span
{
	TimestampTz starts;
	TimestampTz minutes_begin;	/* the minutes that lead up to last_minute */
	TimestampTz last_minute;
	bool		shares_minutes; /* are they read for all windows together? */
} Span;

/* What has come */
typedef struct Sums
{
	int64		count;
	double		sum;
	double		min;			/* infinite while there is none */
	double		max;
	double		last;
	bool		has_samples;
	bool		has_last;
	MhmHistogramState *histogram;	/* NULL while there is none */
} Sums;

/* ... to a series within a window */
typedef struct Accumulator
{
	int64		series_id;
	int			window;
	bool		quantiles;		/* is the histogram wanted? */
	TimestampTz last_at;
	int64		last_id;		/* of the row of live */
	Sums		sums;
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
	return left->window < right->window ? -1 : left->window > right->window;
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
	series_table_hash *series;
	Sums	   *targets;		/* numbered from 1 */
	int			targets_count;
	MemoryContext context;
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

	(void) array_argument(fcinfo, MHM_ALERT_ARGUMENT_TENANTS, &count);
	series = array_argument(fcinfo, MHM_ALERT_ARGUMENT_SERIES, &count);
	windows = array_argument(fcinfo, MHM_ALERT_ARGUMENT_WINDOWS, &count);
	targets = array_argument(fcinfo, MHM_ALERT_ARGUMENT_TARGETS, &count);
	quantiles = array_argument(fcinfo, MHM_ALERT_ARGUMENT_QUANTILES, &count);

	totals->matches_count = count;
	totals->matches = palloc_extended((count + 1) * sizeof(Match), MCXT_ALLOC_HUGE);
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

	totals->targets = palloc_extended((totals->targets_count + 1) * sizeof(Sums), MCXT_ALLOC_HUGE);
	for (int i = 0; i <= totals->targets_count; i++)
		clear_sums(&totals->targets[i]);
}

static void
make_accumulators(MhmAlertTotals *totals)
{
	Accumulator *accumulator = NULL;

	totals->accumulators = palloc_extended((totals->matches_count + 1) * sizeof(Accumulator), MCXT_ALLOC_HUGE);
	totals->series = series_table_create(CurrentMemoryContext, Max(totals->matches_count, 1), NULL);
	for (int i = 0; i < totals->matches_count; i++)
	{
		const Match *match = &totals->matches[i];

		if (i == 0 || compare_matches(match, match - 1) != 0)
		{
			MhmAlertSeries *entry;
			bool		found;

			accumulator = &totals->accumulators[totals->accumulators_count];
			memset(accumulator, 0, sizeof(*accumulator));
			accumulator->series_id = match->series_id;
			accumulator->window = match->window;
			clear_sums(&accumulator->sums);
			entry = series_table_insert(totals->series, match->series_id, &found);
			if (!found)
				entry->first = totals->accumulators_count;
			totals->accumulators_count++;
		}
		accumulator->quantiles |= match->quantiles;
	}
}

/* Does a row belong to a window that it is offered to? */
static bool
is_within(const MhmAlertPart *part, const Span *span, TimestampTz at)
{
	switch (part->source)
	{
		case MHM_FROM_LIVE:
			return part->at > span->starts && part->at <= at;
		case MHM_FROM_END:
			return part->at > span->starts && part->at <= at && part->at >= span->last_minute;
		case MHM_FROM_MINUTES:
			return span->shares_minutes && part->at >= span->minutes_begin && part->at < span->last_minute;
		case MHM_FROM_WINDOW:
			return true;
	}
	return false;
}

static void
add_to_sums(Sums *sums, int64 count, double sum)
{
	sums->has_samples = true;
	if (pg_add_s64_overflow(sums->count, count, &sums->count))
		sums->count = PG_INT64_MAX;
	sums->sum += sum;
}

static void
add_part(MhmAlertTotals *totals, Accumulator *accumulator, const MhmAlertPart *part)
{
	Sums	   *sums = &accumulator->sums;

	add_to_sums(sums, part->count, part->sum);
	if (part->has_min)
		sums->min = Min(sums->min, part->min);
	if (part->has_max)
		sums->max = Max(sums->max, part->max);
	if (part->has_last &&
		(!sums->has_last || part->at > accumulator->last_at ||
		 (part->at == accumulator->last_at && part->id >= accumulator->last_id)))
	{
		sums->has_last = true;
		sums->last = part->last;
		accumulator->last_at = part->at;
		accumulator->last_id = part->id;
	}
	if (accumulator->quantiles && part->histogram != NULL)
	{
		MhmHistogramReader reader;

		if (sums->histogram == NULL)
			sums->histogram = mhm_state_create(totals->context);
		mhm_histogram_open(&reader, part->histogram);
		mhm_state_merge(sums->histogram, &reader);
		mhm_histogram_close(&reader);
	}
}

/* What has come to a target's series has come to the target; "last" adds up */
static void
add_to_target(MhmAlertTotals *totals, Sums *target, const Sums *sums, bool quantiles)
{
	add_to_sums(target, sums->count, sums->sum);
	target->min = Min(target->min, sums->min);
	target->max = Max(target->max, sums->max);
	target->last += sums->last;
	target->has_last |= sums->has_last;
	if (quantiles && sums->histogram != NULL)
	{
		if (target->histogram == NULL)
			target->histogram = mhm_state_create(totals->context);
		mhm_state_combine(target->histogram, sums->histogram);
	}
}

static void
add_up_targets(MhmAlertTotals *totals)
{
	const Accumulator *accumulator = totals->accumulators;

	for (int i = 0; i < totals->matches_count; i++)
	{
		const Match *match = &totals->matches[i];

		if (i > 0 && compare_matches(match, match - 1) != 0)
			accumulator++;
		if (accumulator->sums.has_samples)
			add_to_target(totals, &totals->targets[match->target], &accumulator->sums, match->quantiles);
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

		if ((part->window == MHM_ALL_WINDOWS || part->window == accumulator->window) &&
			is_within(part, &totals->spans[accumulator->window], totals->at))
			add_part(totals, accumulator, part);
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
		values[TOTAL_COUNT] = Int64GetDatum(sums->count);
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
	totals.context = CurrentMemoryContext;
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
