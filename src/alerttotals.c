/*-------------------------------------------------------------------------
 *
 * alerttotals.c
 *	  alert_totals(): what came to many series within many windows of time
 *
 * Adds up rows of live and of the rollup tables for alert_values()
 * (sql/alertvalues.sql), which says for which series and windows, and what it is
 * for.  Owns the accumulators, one for each pair of series and window; touches no
 * shared memory.
 *
 * It is C because of the arrays in live: ten thousand series that change in every
 * flush are hundreds of thousands of elements in an evaluation, and unnest() takes
 * two microseconds for each.  Here a row is read once, whatever the number of
 * windows that it is in.
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
#include "fmgr.h"
#include "funcapi.h"
#include "histogram.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mhm_alert_totals);

#define FETCH_ROWS		1000

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
	TimestampTz first_minute;
	TimestampTz last_minute;
	bool		shares_minutes;
} Span;

typedef struct Accumulator
{
	int64		series_id;
	int			window;
	bool		quantiles;		/* is the histogram wanted? */
	bool		has_last;
	int64		count;
	double		sum;
	double		min;			/* infinite while there is none */
	double		max;
	double		last;
	TimestampTz last_at;
	int64		last_id;		/* of the row of live */
	MhmHistogramState *histogram;
} Accumulator;

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

typedef struct Totals
{
	TimestampTz at;
	Span	   *spans;
	int			spans_count;
	Accumulator *accumulators;
	int			accumulators_count;
	series_table_hash *series;
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
	TIMESTAMPTZOID, UUIDARRAYOID, INT8ARRAYOID, INT4ARRAYOID, BOOLARRAYOID,
	TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID,
	TEXTARRAYOID, BOOLARRAYOID
};

#define SPANS \
	"spans as materialized (" \
	"select s.* " \
	"from rows from (pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8), " \
	"pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12)) with ordinality " \
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
	"join rows from (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) p (tenant_id, series_id, no) using (no) " \
	"cross join lateral (" \
	"select x.* from meshhook_metrics.rollup_" target " x " \
	"where x.tenant_id = p.tenant_id and x.series_id = p.series_id and x.bucket >= r.begins and x.bucket < r.ends offset 0) x " \
	"where r.target = '" target "' and not r.scanned "

/*
 * Rows of the rollup tables: for each window what is before its coarse windows, these,
 * and what is after them.  Windows that consist of minutes overlap for the most part,
 * so their minutes are read together.
 */
static const char rollup_query[] =
	"with " SPANS ", "
	"ranges as materialized ("
	"select 2 as source, 0 as no, true as scanned, '1m' as target, min(w.first_minute) as begins, max(w.last_minute) as ends "
	"from spans w "
	"where w.scanned and w.first_coarse = w.last_minute "
	"union all "
	"select 3, w.no, w.scanned, r.target, r.begins, r.ends "
	"from spans w "
	"cross join lateral (values "
	"('1m', w.first_minute, w.first_coarse), "
	"(w.coarse, w.first_coarse, w.last_coarse), "
	"('1m', w.last_coarse, w.last_minute)) r (target, begins, ends) "
	"where r.begins < r.ends and not (w.scanned and w.first_coarse = w.last_minute)) "
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
	Datum	   *first_minutes = array_argument(fcinfo, ARGUMENT_FIRST_MINUTES, &count);
	Datum	   *last_minutes = array_argument(fcinfo, ARGUMENT_LAST_MINUTES, &count);
	Datum	   *scanned = array_argument(fcinfo, ARGUMENT_SCANNED, &count);
	Datum	   *first_coarse = array_argument(fcinfo, ARGUMENT_FIRST_COARSE, &count);

	totals->spans_count = count;
	totals->spans = palloc0((count + 1) * sizeof(Span));
	for (int i = 0; i < count; i++)
	{
		totals->spans[i + 1].starts = DatumGetTimestampTz(starts[i]);
		totals->spans[i + 1].first_minute = DatumGetTimestampTz(first_minutes[i]);
		totals->spans[i + 1].last_minute = DatumGetTimestampTz(last_minutes[i]);
		totals->spans[i + 1].shares_minutes = DatumGetBool(scanned[i]) &&
			DatumGetTimestampTz(first_coarse[i]) == DatumGetTimestampTz(last_minutes[i]);
	}
}

static void
read_pairs(Totals *totals, FunctionCallInfo fcinfo)
{
	int			count = -1;
	Datum	   *series;
	Datum	   *windows;
	Datum	   *quantiles;

	(void) array_argument(fcinfo, ARGUMENT_TENANTS, &count);
	series = array_argument(fcinfo, ARGUMENT_SERIES, &count);
	windows = array_argument(fcinfo, ARGUMENT_WINDOWS, &count);
	quantiles = array_argument(fcinfo, ARGUMENT_QUANTILES, &count);

	totals->accumulators_count = count;
	totals->accumulators = MemoryContextAllocHuge(CurrentMemoryContext, (count + 1) * sizeof(Accumulator));
	totals->series = series_table_create(CurrentMemoryContext, Max(count, 1), NULL);
	for (int i = 0; i < count; i++)
	{
		Accumulator *accumulator = &totals->accumulators[i];
		SeriesEntry *entry;
		bool		found;

		memset(accumulator, 0, sizeof(*accumulator));
		accumulator->series_id = DatumGetInt64(series[i]);
		accumulator->window = DatumGetInt32(windows[i]);
		accumulator->quantiles = DatumGetBool(quantiles[i]);
		accumulator->min = INFINITY;
		accumulator->max = -INFINITY;
		if (accumulator->window < 1 || accumulator->window > totals->spans_count)
			bad_argument("a window that is not described");
		entry = series_table_insert(totals->series, accumulator->series_id, &found);
		if (!found)
			entry->first = i;
		else if (accumulator->series_id != accumulator[-1].series_id)
			bad_argument("series that are not in order");
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
			return span->shares_minutes && part->at >= span->first_minute && part->at < span->last_minute;
		case FROM_WINDOW:
			return true;
	}
	return false;
}

static void
merge_histogram(Totals *totals, Accumulator *accumulator, struct varlena *histogram)
{
	MhmHistogramReader reader;

	if (accumulator->histogram == NULL)
		accumulator->histogram = mhm_state_create(totals->context);
	mhm_histogram_open(&reader, histogram);
	mhm_state_merge(accumulator->histogram, &reader);
	mhm_histogram_close(&reader);
}

static void
add_part(Totals *totals, Accumulator *accumulator, const Part *part)
{
	if (pg_add_s64_overflow(accumulator->count, part->count, &accumulator->count))
		accumulator->count = PG_INT64_MAX;
	accumulator->sum += part->sum;
	if (part->has_min)
		accumulator->min = Min(accumulator->min, part->min);
	if (part->has_max)
		accumulator->max = Max(accumulator->max, part->max);
	if (part->has_last &&
		(!accumulator->has_last || part->at > accumulator->last_at ||
		 (part->at == accumulator->last_at && part->id >= accumulator->last_id)))
	{
		accumulator->has_last = true;
		accumulator->last = part->last;
		accumulator->last_at = part->at;
		accumulator->last_id = part->id;
	}
	if (accumulator->quantiles && part->histogram != NULL)
		merge_histogram(totals, accumulator, part->histogram);
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

/* The columns that both queries begin with */
static void
read_place(HeapTuple tuple, TupleDesc columns, Part *part)
{
	bool		nulls[4];

	memset(part, 0, sizeof(*part));
	part->source = (Source) DatumGetInt32(SPI_getbinval(tuple, columns, 1, &nulls[0]));
	part->window = DatumGetInt32(SPI_getbinval(tuple, columns, 2, &nulls[1]));
	part->at = DatumGetTimestampTz(SPI_getbinval(tuple, columns, 3, &nulls[2]));
	part->id = DatumGetInt64(SPI_getbinval(tuple, columns, 4, &nulls[3]));
	if (nulls[0] || nulls[1] || nulls[2] || nulls[3])
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("a storage table has a null where there can be none"));
}

static double
float8_column(HeapTuple tuple, TupleDesc columns, int column, bool *is_there)
{
	bool		is_null;
	Datum		value = SPI_getbinval(tuple, columns, column, &is_null);

	*is_there = !is_null;
	return is_null ? 0 : DatumGetFloat8(value);
}

/* Histograms are read as bytes, so they must be some */
static void
check_histogram_type(Oid type)
{
	if (get_typlen(type) != -1)
		ereport(ERROR,
				errcode(ERRCODE_DATATYPE_MISMATCH),
				errmsg("type meshhook_metrics.histogram is not the extension's"));
}

static void
add_rollup_row(Totals *totals, HeapTuple tuple, TupleDesc columns)
{
	Part		part;
	SeriesEntry *entry;
	Datum		value;
	bool		is_null;

	read_place(tuple, columns, &part);
	value = SPI_getbinval(tuple, columns, 5, &is_null);
	entry = is_null ? NULL : series_table_lookup(totals->series, DatumGetInt64(value));
	if (entry == NULL)
		return;
	value = SPI_getbinval(tuple, columns, 6, &is_null);
	part.count = is_null ? 0 : DatumGetInt64(value);
	part.sum = float8_column(tuple, columns, 7, &is_null);
	part.min = float8_column(tuple, columns, 8, &part.has_min);
	part.max = float8_column(tuple, columns, 9, &part.has_max);
	part.last = float8_column(tuple, columns, 10, &part.has_last);
	value = SPI_getbinval(tuple, columns, 11, &is_null);
	if (!is_null)
		part.histogram = PG_DETOAST_DATUM_PACKED(value);
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
read_elements(HeapTuple tuple, TupleDesc columns, int column, Elements *elements)
{
	bool		is_null;
	Datum		value = SPI_getbinval(tuple, columns, column, &is_null);
	ArrayType  *array;
	Oid			type;
	int16		length;
	bool		by_value;
	char		alignment;

	elements->count = 0;
	if (is_null)
		return;
	array = DatumGetArrayTypeP(value);
	type = get_element_type(SPI_gettypeid(columns, column));
	if (ARR_NDIM(array) > 1 || ARR_ELEMTYPE(array) != type)
		ereport(ERROR,
				errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
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
add_live_row(Totals *totals, HeapTuple tuple, TupleDesc columns)
{
	Part		part;
	Elements	series;
	Elements	counts;
	Elements	sums;
	Elements	mins;
	Elements	maxs;
	Elements	lasts;
	Elements	histograms;
	bool		is_there;

	read_place(tuple, columns, &part);
	read_elements(tuple, columns, 5, &series);
	read_elements(tuple, columns, 6, &counts);
	read_elements(tuple, columns, 7, &sums);
	read_elements(tuple, columns, 8, &mins);
	read_elements(tuple, columns, 9, &maxs);
	read_elements(tuple, columns, 10, &lasts);
	read_elements(tuple, columns, 11, &histograms);
	for (int i = 0; i < series.count; i++)
	{
		SeriesEntry *entry;

		if (series.nulls[i])
			continue;
		entry = series_table_lookup(totals->series, DatumGetInt64(series.values[i]));
		if (entry == NULL)
			continue;
		part.count = has_element(&counts, i) ? DatumGetInt64(counts.values[i]) : 0;
		part.sum = float8_element(&sums, i, &is_there);
		part.min = float8_element(&mins, i, &part.has_min);
		part.max = float8_element(&maxs, i, &part.has_max);
		part.last = float8_element(&lasts, i, &part.has_last);
		part.histogram = has_element(&histograms, i) ?
			PG_DETOAST_DATUM_PACKED(histograms.values[i]) : NULL;
		offer_part(totals, entry, &part);
	}
}

/* Let a query's rows be added */
static void
add_rows(Totals *totals, FunctionCallInfo fcinfo, const char *query,
		 void (*add_row) (Totals *, HeapTuple, TupleDesc))
{
	Datum		values[ARGUMENTS];
	Portal		portal;
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "meshhook_metrics alert row",
													  ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < ARGUMENTS; i++)
		values[i] = PG_GETARG_DATUM(i);
	/* Read-only, so that it sees the caller's snapshot and no newer one */
	portal = SPI_cursor_open_with_args(NULL, query, ARGUMENTS, (Oid *) argument_types, values, NULL,
									   true, CURSOR_OPT_NO_SCROLL);
	for (;;)
	{
		MemoryContext caller;

		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		check_histogram_type(query == live_query ?
							 get_element_type(SPI_gettypeid(SPI_tuptable->tupdesc, 11)) :
							 SPI_gettypeid(SPI_tuptable->tupdesc, 11));
		caller = MemoryContextSwitchTo(row_context);
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			add_row(totals, SPI_tuptable->vals[i], SPI_tuptable->tupdesc);
			MemoryContextReset(row_context);
		}
		MemoryContextSwitchTo(caller);
		SPI_freetuptable(SPI_tuptable);
		CHECK_FOR_INTERRUPTS();
	}
	SPI_cursor_close(portal);
	MemoryContextDelete(row_context);
}

/* Columns of alert_totals() */
enum
{
	TOTAL_SERIES_ID,
	TOTAL_WINDOW_NO,
	TOTAL_COUNT,
	TOTAL_SUM,
	TOTAL_MIN,
	TOTAL_MAX,
	TOTAL_LAST,
	TOTAL_HISTOGRAM,
	TOTAL_COLUMNS
};

static void
put_totals(const Totals *totals, ReturnSetInfo *result)
{
	for (int i = 0; i < totals->accumulators_count; i++)
	{
		const Accumulator *accumulator = &totals->accumulators[i];
		const MhmHistogramState *histogram = accumulator->histogram;
		struct varlena *compact = NULL;
		Datum		values[TOTAL_COLUMNS];
		bool		nulls[TOTAL_COLUMNS] = {false};

		if (accumulator->count == 0 && !accumulator->has_last)
			continue;
		values[TOTAL_SERIES_ID] = Int64GetDatum(accumulator->series_id);
		values[TOTAL_WINDOW_NO] = Int32GetDatum(accumulator->window);
		values[TOTAL_COUNT] = Int64GetDatum(accumulator->count);
		values[TOTAL_SUM] = Float8GetDatum(accumulator->sum);
		values[TOTAL_MIN] = Float8GetDatum(accumulator->min);
		nulls[TOTAL_MIN] = isinf(accumulator->min);
		values[TOTAL_MAX] = Float8GetDatum(accumulator->max);
		nulls[TOTAL_MAX] = isinf(accumulator->max);
		values[TOTAL_LAST] = Float8GetDatum(accumulator->last);
		nulls[TOTAL_LAST] = !accumulator->has_last;
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
	read_pairs(&totals, fcinfo);
	if (totals.accumulators_count > 0)
	{
		SPI_connect();
		add_rows(&totals, fcinfo, live_query, add_live_row);
		add_rows(&totals, fcinfo, rollup_query, add_rollup_row);
		SPI_finish();
	}
	put_totals(&totals, result);
	return (Datum) 0;
}
