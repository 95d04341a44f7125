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
 * two microseconds for each.  Here a row is read once, whatever the number of
 * windows that it is in, and goes from the executor to the accumulators without
 * being copied.
 *
 * All queries see the snapshot of the statement that calls: the rollups' watermark,
 * their rows and those of live belong together.  The tables are the owner's, who may
 * have altered them, so every column is cast to the type that is read, and lengths
 * are compared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "funcapi.h"
#include "histogram.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mhm_alert_totals);

/* Which windows a row is offered to: the one that it was read for, or all */
#define ALL_WINDOWS		0

/* Where a row comes from; the numbers are in the queries */
typedef enum Source
{
	FROM_LIVE,					/* in no minute yet */
	FROM_END,					/* of live, after the last whole minute */
	FROM_MINUTES,				/* read for all windows that share them */
	FROM_WINDOW					/* read for one window, which it is within */
} Source;

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
typedef struct SeriesEntry
{
	int64		series_id;
	int			first;
	char		status;
} SeriesEntry;

#define SH_PREFIX series_table
#define SH_ELEMENT_TYPE SeriesEntry
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

typedef struct Totals
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
} Totals;

/* What one row says of one series */
typedef struct Part
{
	Source		source;
	int			window;
	TimestampTz at;
	int64		id;
	int64		count;
	double		sum;
	double		min;
	double		max;
	double		last;
	bool		has_min;
	bool		has_max;
	bool		has_last;
	struct varlena *histogram;
} Part;

/* Arguments of alert_totals() */
enum
{
	ARGUMENT_AT,
	ARGUMENT_TENANTS,
	ARGUMENT_SERIES,
	ARGUMENT_WINDOWS,
	ARGUMENT_TARGETS,
	ARGUMENT_QUANTILES,
	ARGUMENT_STARTS,
	ARGUMENT_FIRST_MINUTES,
	ARGUMENT_FIRST_COARSE,
	ARGUMENT_LAST_COARSE,
	ARGUMENT_LAST_MINUTES,
	ARGUMENT_COARSE,
	ARGUMENT_SCANNED,
	ARGUMENTS
};

static const Oid argument_types[ARGUMENTS] = {
	TIMESTAMPTZOID, UUIDARRAYOID, INT8ARRAYOID, INT4ARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	TEXTARRAYOID, BOOLARRAYOID
};

#define SPANS \
	"spans as materialized (" \
	"select s.* " \
	"from rows from (pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), " \
	"pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13)) with ordinality " \
	"s (starts, first_minute, first_coarse, last_coarse, last_minute, coarse, scanned, no)) "

#define LIVE_COLUMNS_READ \
	"l.at::timestamptz, l.id::bigint, l.series_id::bigint[], l.count::bigint[], l.sum::float8[], " \
	"l.min::float8[], l.max::float8[], l.last::float8[], l.histogram::meshhook_metrics.histogram[] "

/*
 * Rows of live: those that are in no minute yet, and those that are, but whose
 * minute is divided by the beginning of a window, or by its end where that lies in
 * the past.
 */
static const char live_query[] =
	"with state as materialized ("
	"select coalesce(max(s.live_id::bigint), 0) as live_id "
	"from meshhook_metrics.rollup_state s where s.target = '1m'), "
	SPANS
	"select 0, 0, " LIVE_COLUMNS_READ
	"from meshhook_metrics.live l "
	"where l.id > (select live_id from state) "
	"and l.at > (select min(starts) from spans) and l.at <= $1 and l.tenant_id = any ($2) "
	"union all "
	"select 1, 0, " LIVE_COLUMNS_READ
	"from (select distinct p.tenant_id from pg_catalog.unnest($2) p (tenant_id)) p "
	"cross join lateral ("
	"select l.* "
	"from meshhook_metrics.live l "
	"where l.tenant_id = p.tenant_id and l.at >= pg_catalog.date_trunc('minute', $1, 'UTC') and l.at <= $1 "
	"and l.id <= (select live_id from state) "
	"offset 0) l "
	"union all "
	"select 3, w.no::integer, " LIVE_COLUMNS_READ
	"from (select distinct p.tenant_id, p.window_no "
	"from rows from (pg_catalog.unnest($2), pg_catalog.unnest($4)) p (tenant_id, window_no)) p "
	"join spans w on w.no = p.window_no and w.starts < w.first_minute "
	"cross join lateral ("
	"select l.* "
	"from meshhook_metrics.live l "
	"where l.tenant_id = p.tenant_id and l.at > w.starts and l.at < w.first_minute and l.at <= $1 "
	"and l.id <= (select live_id from state) "
	"offset 0) l";

#define ROLLUP_COLUMNS_READ \
	"x.bucket::timestamptz, 0::bigint, x.series_id::bigint, x.count::bigint, x.sum::float8, " \
	"x.min::float8, x.max::float8, x.last::float8, x.histogram::meshhook_metrics.histogram "

/* Rows of one table: all of a range of time, or those of each series */
#define ROLLUP_ROWS(target) \
	"select r.source, r.no::integer, " ROLLUP_COLUMNS_READ \
	"from ranges r " \
	"cross join lateral (" \
	"select x.* from meshhook_metrics.rollup_" target " x where x.bucket >= r.begins and x.bucket < r.ends offset 0) x " \
	"where r.target = '" target "' and r.scanned " \
	"union all " \
	"select r.source, r.no::integer, " ROLLUP_COLUMNS_READ \
	"from ranges r " \
	"join pairs p using (no) " \
	"cross join lateral (" \
	"select x.* from meshhook_metrics.rollup_" target " x " \
	"where x.tenant_id = p.tenant_id and x.series_id = p.series_id and x.bucket >= r.begins and x.bucket < r.ends offset 0) x " \
	"where r.target = '" target "' and not r.scanned "

/*
 * Rows of the rollup tables: for each window the minutes before its coarse windows,
 * these, and the minutes after them.  The latter overlap for the most part, so where
 * all rows are read, they are read for all windows together.
 */
static const char rollup_query[] =
	"with " SPANS ", "
	"ranges as materialized ("
	"select 2 as source, 0 as no, true as scanned, '1m' as target, min(w.last_coarse) as begins, max(w.last_minute) as ends "
	"from spans w "
	"where w.scanned "
	"union all "
	"select 3, w.no, w.scanned, r.target, r.begins, r.ends "
	"from spans w "
	"cross join lateral (values "
	"('1m', w.first_minute, w.first_coarse), "
	"(w.coarse, w.first_coarse, w.last_coarse), "
	"('1m', w.last_coarse, case when not w.scanned then w.last_minute end)) r (target, begins, ends) "
	"where r.begins < r.ends), "
	"pairs as materialized ("
	"select distinct p.tenant_id, p.series_id, p.no "
	"from rows from (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) p (tenant_id, series_id, no) "
	"join spans w on w.no = p.no "
	"where not w.scanned) "
	ROLLUP_ROWS("1m") "union all "
	ROLLUP_ROWS("5m") "union all "
	ROLLUP_ROWS("1h");

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
	Oid			type = get_element_type(argument_types[argument]);
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
read_spans(Totals *totals, FunctionCallInfo fcinfo)
{
	int			count = -1;
	Datum	   *starts = array_argument(fcinfo, ARGUMENT_STARTS, &count);
	Datum	   *last_coarse = array_argument(fcinfo, ARGUMENT_LAST_COARSE, &count);
	Datum	   *last_minutes = array_argument(fcinfo, ARGUMENT_LAST_MINUTES, &count);
	Datum	   *scanned = array_argument(fcinfo, ARGUMENT_SCANNED, &count);

	totals->spans_count = count;
	totals->spans = palloc0((count + 1) * sizeof(Span));
	for (int i = 0; i < count; i++)
	{
		Span	   *span = &totals->spans[i + 1];

		span->starts = DatumGetTimestampTz(starts[i]);
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
read_matches(Totals *totals, FunctionCallInfo fcinfo)
{
	int			count = -1;
	Datum	   *series;
	Datum	   *windows;
	Datum	   *targets;
	Datum	   *quantiles;

	(void) array_argument(fcinfo, ARGUMENT_TENANTS, &count);
	series = array_argument(fcinfo, ARGUMENT_SERIES, &count);
	windows = array_argument(fcinfo, ARGUMENT_WINDOWS, &count);
	targets = array_argument(fcinfo, ARGUMENT_TARGETS, &count);
	quantiles = array_argument(fcinfo, ARGUMENT_QUANTILES, &count);

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
make_accumulators(Totals *totals)
{
	Accumulator *accumulator = NULL;

	totals->accumulators = palloc_extended((totals->matches_count + 1) * sizeof(Accumulator), MCXT_ALLOC_HUGE);
	totals->series = series_table_create(CurrentMemoryContext, Max(totals->matches_count, 1), NULL);
	for (int i = 0; i < totals->matches_count; i++)
	{
		const Match *match = &totals->matches[i];

		if (i == 0 || compare_matches(match, match - 1) != 0)
		{
			SeriesEntry *entry;
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
is_within(const Part *part, const Span *span, TimestampTz at)
{
	switch (part->source)
	{
		case FROM_LIVE:
			return part->at > span->starts && part->at <= at;
		case FROM_END:
			return part->at > span->starts && part->at <= at && part->at >= span->last_minute;
		case FROM_MINUTES:
			return span->shares_minutes && part->at >= span->minutes_begin && part->at < span->last_minute;
		case FROM_WINDOW:
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
add_part(Totals *totals, Accumulator *accumulator, const Part *part)
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
add_to_target(Totals *totals, Sums *target, const Sums *sums, bool quantiles)
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
add_up_targets(Totals *totals)
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

/* Add what a row says of a series to those of its windows that it belongs to */
static inline void
offer_part(Totals *totals, const SeriesEntry *entry, const Part *part)
{
	for (int i = entry->first;
		 i < totals->accumulators_count && totals->accumulators[i].series_id == entry->series_id;
		 i++)
	{
		Accumulator *accumulator = &totals->accumulators[i];

		if ((part->window == ALL_WINDOWS || part->window == accumulator->window) &&
			is_within(part, &totals->spans[accumulator->window], totals->at))
			add_part(totals, accumulator, part);
	}
}

/* Columns of the queries */
enum
{
	COLUMN_SOURCE,
	COLUMN_WINDOW,
	COLUMN_AT,
	COLUMN_ID,
	COLUMN_SERIES_ID,
	COLUMN_COUNT,
	COLUMN_SUM,
	COLUMN_MIN,
	COLUMN_MAX,
	COLUMN_LAST,
	COLUMN_HISTOGRAM,
	COLUMNS
};

static void
read_place(const TupleTableSlot *slot, Part *part)
{
	for (int i = 0; i <= COLUMN_ID; i++)
		if (slot->tts_isnull[i])
			ereport(ERROR,
					errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("a storage table of meshhook_metrics has a null where there can be none"));
	part->source = (Source) DatumGetInt32(slot->tts_values[COLUMN_SOURCE]);
	part->window = DatumGetInt32(slot->tts_values[COLUMN_WINDOW]);
	part->at = DatumGetTimestampTz(slot->tts_values[COLUMN_AT]);
	part->id = DatumGetInt64(slot->tts_values[COLUMN_ID]);
}

static inline double
float8_column(const TupleTableSlot *slot, int column, bool *is_there)
{
	*is_there = !slot->tts_isnull[column];
	return *is_there ? DatumGetFloat8(slot->tts_values[column]) : 0;
}

static void
add_rollup_row(Totals *totals, TupleTableSlot *slot)
{
	Part		part;
	SeriesEntry *entry = NULL;
	bool		is_there;

	if (!slot->tts_isnull[COLUMN_SERIES_ID])
		entry = series_table_lookup(totals->series, DatumGetInt64(slot->tts_values[COLUMN_SERIES_ID]));
	if (entry == NULL)
		return;
	read_place(slot, &part);
	part.count = slot->tts_isnull[COLUMN_COUNT] ? 0 : DatumGetInt64(slot->tts_values[COLUMN_COUNT]);
	part.sum = float8_column(slot, COLUMN_SUM, &is_there);
	part.min = float8_column(slot, COLUMN_MIN, &part.has_min);
	part.max = float8_column(slot, COLUMN_MAX, &part.has_max);
	part.last = float8_column(slot, COLUMN_LAST, &part.has_last);
	part.histogram = slot->tts_isnull[COLUMN_HISTOGRAM] ? NULL :
		PG_DETOAST_DATUM_PACKED(slot->tts_values[COLUMN_HISTOGRAM]);
	offer_part(totals, entry, &part);
}

/* One of the arrays of a row of live */
typedef struct Elements
{
	int			count;			/* 0: there is no such array */
	Datum	   *values;
	bool	   *nulls;
} Elements;

static void
read_elements(const TupleTableSlot *slot, int column, Elements *elements)
{
	ArrayType  *array;
	Oid			type = get_element_type(TupleDescAttr(slot->tts_tupleDescriptor, column)->atttypid);
	int16		length;
	bool		by_value;
	char		alignment;

	elements->count = 0;
	if (slot->tts_isnull[column])
		return;
	array = DatumGetArrayTypeP(slot->tts_values[column]);
	if (ARR_NDIM(array) > 1 || ARR_ELEMTYPE(array) != type)
		ereport(ERROR,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("table meshhook_metrics.live has an array that is none of the worker's"));
	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	deconstruct_array(array, type, length, by_value, alignment,
					  &elements->values, &elements->nulls, &elements->count);
}

static inline bool
has_element(const Elements *elements, int i)
{
	return i < elements->count && !elements->nulls[i];
}

static inline double
float8_element(const Elements *elements, int i, bool *is_there)
{
	*is_there = has_element(elements, i);
	return *is_there ? DatumGetFloat8(elements->values[i]) : 0;
}

static void
add_live_row(Totals *totals, TupleTableSlot *slot)
{
	Part		part;
	Elements	columns[COLUMNS];
	bool		is_there;

	read_place(slot, &part);
	for (int i = COLUMN_SERIES_ID; i < COLUMNS; i++)
		read_elements(slot, i, &columns[i]);
	for (int i = 0; i < columns[COLUMN_SERIES_ID].count; i++)
	{
		SeriesEntry *entry = NULL;

		if (has_element(&columns[COLUMN_SERIES_ID], i))
			entry = series_table_lookup(totals->series, DatumGetInt64(columns[COLUMN_SERIES_ID].values[i]));
		if (entry == NULL)
			continue;
		part.count = has_element(&columns[COLUMN_COUNT], i) ? DatumGetInt64(columns[COLUMN_COUNT].values[i]) : 0;
		part.sum = float8_element(&columns[COLUMN_SUM], i, &is_there);
		part.min = float8_element(&columns[COLUMN_MIN], i, &part.has_min);
		part.max = float8_element(&columns[COLUMN_MAX], i, &part.has_max);
		part.last = float8_element(&columns[COLUMN_LAST], i, &part.has_last);
		part.histogram = has_element(&columns[COLUMN_HISTOGRAM], i) ?
			PG_DETOAST_DATUM_PACKED(columns[COLUMN_HISTOGRAM].values[i]) : NULL;
		offer_part(totals, entry, &part);
	}
}

/* Where the executor sends a query's rows */
typedef struct Receiver
{
	DestReceiver pub;
	Totals	   *totals;
	void		(*add_row) (Totals *totals, TupleTableSlot *slot);
	MemoryContext row_context;
} Receiver;

/* Histograms are read as bytes, so they must be some */
static void
start_receiving(DestReceiver *self, int operation, TupleDesc columns)
{
	Oid			type = TupleDescAttr(columns, COLUMN_HISTOGRAM)->atttypid;
	Oid			element = get_element_type(type);

	Assert(columns->natts == COLUMNS);
	if (get_typlen(OidIsValid(element) ? element : type) != -1)
		ereport(ERROR,
				errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("type meshhook_metrics.histogram is not the extension's"));
}

static bool
receive_row(TupleTableSlot *slot, DestReceiver *self)
{
	Receiver   *receiver = (Receiver *) self;
	MemoryContext caller = MemoryContextSwitchTo(receiver->row_context);

	slot_getallattrs(slot);
	receiver->add_row(receiver->totals, slot);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(receiver->row_context);
	return true;
}

static void
do_nothing(DestReceiver *self)
{
}

/* Let a query's rows be added */
static void
add_rows(Totals *totals, FunctionCallInfo fcinfo, const char *query,
		 void (*add_row) (Totals *, TupleTableSlot *))
{
	Receiver	receiver = {
		.pub = {
			.receiveSlot = receive_row,
			.rStartup = start_receiving,
			.rShutdown = do_nothing,
			.rDestroy = do_nothing,
			.mydest = DestNone
		},
		.totals = totals,
		.add_row = add_row,
		.row_context = AllocSetContextCreate(CurrentMemoryContext, "meshhook_metrics alert row",
											 ALLOCSET_DEFAULT_SIZES)
	};
	SPIExecuteOptions options = {0};
	ParamListInfo parameters = makeParamList(ARGUMENTS);
	SPIPlanPtr	plan;
	int			result;

	for (int i = 0; i < ARGUMENTS; i++)
	{
		parameters->params[i].value = PG_GETARG_DATUM(i);
		parameters->params[i].isnull = false;
		parameters->params[i].pflags = PARAM_FLAG_CONST;
		parameters->params[i].ptype = argument_types[i];
	}
	/* How many there are of everything is known only now */
	plan = SPI_prepare_cursor(query, ARGUMENTS, (Oid *) argument_types, CURSOR_OPT_CUSTOM_PLAN);
	if (plan == NULL)
		elog(ERROR, "alert_totals(): %s", SPI_result_code_string(SPI_result));
	options.params = parameters;
	/* So that it sees the caller's snapshot and no newer one */
	options.read_only = true;
	options.must_return_tuples = true;
	options.dest = &receiver.pub;
	result = SPI_execute_plan_extended(plan, &options);
	if (result < 0)
		elog(ERROR, "alert_totals(): %s", SPI_result_code_string(result));
	SPI_freeplan(plan);
	MemoryContextDelete(receiver.row_context);
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
put_targets(const Totals *totals, ReturnSetInfo *result)
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
	Totals		totals = {0};

	if (PG_NARGS() != ARGUMENTS)
		elog(ERROR, "alert_totals() is declared otherwise than this library expects");
	for (int i = 0; i < ARGUMENTS; i++)
		if (PG_ARGISNULL(i))
			bad_argument("a null");
	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != TOTAL_COLUMNS)
		elog(ERROR, "alert_totals() is declared otherwise than this library expects");

	totals.at = PG_GETARG_TIMESTAMPTZ(ARGUMENT_AT);
	totals.context = CurrentMemoryContext;
	read_spans(&totals, fcinfo);
	read_matches(&totals, fcinfo);
	make_accumulators(&totals);
	if (totals.matches_count > 0)
	{
		SPI_connect();
		add_rows(&totals, fcinfo, live_query, add_live_row);
		add_rows(&totals, fcinfo, rollup_query, add_rollup_row);
		SPI_finish();
	}
	add_up_targets(&totals);
	put_targets(&totals, result);
	return (Datum) 0;
}
