/*-------------------------------------------------------------------------
 *
 * alertread.c
 *	  The rows of storage that alert_totals() adds up
 *
 * Owns the queries of live and of the rollup tables, and how their rows are taken
 * apart.  Called by alerttotals.c, which gets each row once and decides to which
 * windows it belongs.
 *
 * All of it sees the snapshot of the statement that calls: the rollups' watermark,
 * their rows and those of live belong together.  The tables are the owner's, who may
 * have altered them, so every column is cast to the type that is read, and lengths
 * are compared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "alerttotals.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/params.h"
#include "tcop/dest.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define SPANS \
	"spans as materialized (" \
	"select s.* " \
	"from rows from (pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9), " \
	"pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12), pg_catalog.unnest($13)) with ordinality " \
	"s (starts, first_minute, first_coarse, last_coarse, last_minute, coarse, scanned, no))"

#define LIVE_COLUMNS_READ \
	"l.seconds::float8, l.at::timestamptz, l.id::bigint, l.series_id::bigint[], l.count::bigint[], l.sum::float8[], " \
	"l.min::float8[], l.max::float8[], l.last::float8[], l.histogram::meshhook_metrics.histogram[] "

/*
 * Rows of live: those that are in no minute yet, and those that are, but whose
 * minute is divided by the beginning of a window, or by its end where that lies in
 * the past.  A row is about a time within its minute, so what it has of a window is
 * found in the minute in which that begins or ends.  The former are looked for by
 * tenant and id, together with those of the minute of the end by tenant and time: by
 * the time since windows begin, the planner would read all that there is of a tenant.
 * Where minutes cannot be closed, these are all that have come since.  The tenants and
 * windows are those that find_windows_of_tenants() leaves, each pair once.
 */
static const char live_query[] =
	"with state as materialized ("
	"select coalesce(max(s.live_id::bigint), 0) as live_id "
	"from meshhook_metrics.rollup_state s where s.target = '1m'), "
	SPANS ", "
	"windows as materialized ("
	"select p.tenant_id, p.window_no "
	"from rows from (pg_catalog.unnest($2), pg_catalog.unnest($4)) p (tenant_id, window_no)), "
	"tenants as materialized (select distinct p.tenant_id from windows p) "
	"select case when l.id > (select live_id from state) then 0 else 1 end, 0, " LIVE_COLUMNS_READ
	"from tenants p "
	"cross join lateral ("
	"select l.* "
	"from meshhook_metrics.live l "
	"where l.tenant_id = p.tenant_id "
	"and (l.id > (select live_id from state) "
	"or l.at >= pg_catalog.date_trunc('minute', $1, 'UTC') and l.at < pg_catalog.date_trunc('minute', $1, 'UTC') + interval '1 minute') "
	"offset 0) l "
	"where l.at >= (select least(min(starts), pg_catalog.date_trunc('minute', $1, 'UTC')) from spans) "
	"and l.at < pg_catalog.date_trunc('minute', $1, 'UTC') + interval '1 minute' "
	"union all "
	"select 4, w.no::integer, " LIVE_COLUMNS_READ
	"from windows p "
	"join spans w on w.no = p.window_no and w.starts < w.first_minute "
	"cross join lateral ("
	"select l.* "
	"from meshhook_metrics.live l "
	"where l.tenant_id = p.tenant_id and l.at > w.starts and l.at < w.first_minute "
	"and l.id <= (select live_id from state) "
	"offset 0) l";

#define ROLLUP_COLUMNS_READ \
	"0::float8, x.bucket::timestamptz, 0::bigint, x.series_id::bigint, x.count::bigint, x.sum::float8, " \
	"x.min::float8, x.max::float8, x.last::float8, x.histogram::meshhook_metrics.histogram "

/*
 * Where all rows of a time are read: for each window the minutes before its coarse
 * windows, and these.  The minutes after them overlap for the most part, so they are
 * read for all windows together.
 */
static const char ranges_query[] =
	"with " SPANS ", "
	"ranges as ("
	"select 2 as source, 0 as no, '1m' as target, min(w.last_coarse) as begins, max(w.last_minute) as ends "
	"from spans w "
	"where w.scanned "
	"union all "
	"select 3, w.no::integer, r.target, r.begins, r.ends "
	"from spans w "
	"cross join lateral (values "
	"('1m', w.first_minute, w.first_coarse), "
	"(w.coarse, w.first_coarse, w.last_coarse)) r (target, begins, ends) "
	"where w.scanned) "
	"select r.source, r.no, r.target, r.begins, r.ends "
	"from ranges r "
	"where r.begins < r.ends and r.target in ('1m', '5m', '1h')";

enum
{
	RANGE_SOURCE = 1,
	RANGE_WINDOW,
	RANGE_TARGET,
	RANGE_BEGINS,
	RANGE_ENDS,
	RANGE_COLUMNS = RANGE_ENDS
};

/* All rows of a range: a plain scan, which hands them over without a join */
#define SCANNED_ROWS \
	"select $1, $2, " ROLLUP_COLUMNS_READ \
	"from meshhook_metrics.rollup_%s x " \
	"where x.bucket >= $4 and x.bucket < $5"

static const Oid range_types[RANGE_COLUMNS] = {INT4OID, INT4OID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID};

/* Rows of one table, of each series that is looked for */
#define ROLLUP_ROWS(target) \
	"select 3, r.no::integer, " ROLLUP_COLUMNS_READ \
	"from ranges r " \
	"join pairs p using (no) " \
	"cross join lateral (" \
	"select x.* from meshhook_metrics.rollup_" target " x " \
	"where x.tenant_id = p.tenant_id and x.series_id = p.series_id and x.bucket >= r.begins and x.bucket < r.ends offset 0) x " \
	"where r.target = '" target "' "

static const char looked_for_query[] =
	"with " SPANS ", "
	"ranges as materialized ("
	"select w.no, r.target, r.begins, r.ends "
	"from spans w "
	"cross join lateral (values "
	"('1m', w.first_minute, w.first_coarse), "
	"(w.coarse, w.first_coarse, w.last_coarse), "
	"('1m', w.last_coarse, w.last_minute)) r (target, begins, ends) "
	"where not w.scanned and r.begins < r.ends), "
	"pairs as materialized ("
	"select distinct p.tenant_id, p.series_id, p.no "
	"from rows from (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) p (tenant_id, series_id, no) "
	"join spans w on w.no = p.no "
	"where not w.scanned) "
	ROLLUP_ROWS("1m") "union all "
	ROLLUP_ROWS("5m") "union all "
	ROLLUP_ROWS("1h");

/* Columns of the queries */
enum
{
	COLUMN_SOURCE,
	COLUMN_WINDOW,
	COLUMN_SECONDS,
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

/*
 * The moment after which a row of live begins: so many seconds before its end, but not
 * before its minute does (sql/query.sql says why).  Whatever the column holds, it is at
 * least a microsecond.
 */
static TimestampTz
begin_of_row(TimestampTz at, double seconds)
{
	TimestampTz of_minute = at % USECS_PER_MINUTE;

	if (of_minute < 0)
		of_minute += USECS_PER_MINUTE;
	if (!(seconds * USECS_PER_SEC < (double) of_minute + 1))
		return at - of_minute - 1;
	return at - Max((TimestampTz) rint(seconds * USECS_PER_SEC), 1);
}

static void
read_place(const TupleTableSlot *slot, MhmAlertPart *part)
{
	for (int i = 0; i <= COLUMN_ID; i++)
		if (slot->tts_isnull[i])
			ereport(ERROR,
					errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("a storage table of meshhook_metrics has a null where there can be none"));
	part->source = (MhmAlertSource) DatumGetInt32(slot->tts_values[COLUMN_SOURCE]);
	part->window = DatumGetInt32(slot->tts_values[COLUMN_WINDOW]);
	part->at = DatumGetTimestampTz(slot->tts_values[COLUMN_AT]);
	part->id = DatumGetInt64(slot->tts_values[COLUMN_ID]);
	part->begins = begin_of_row(part->at, DatumGetFloat8(slot->tts_values[COLUMN_SECONDS]));
}

static inline double
float8_column(const TupleTableSlot *slot, int column, bool *is_there)
{
	*is_there = !slot->tts_isnull[column];
	return *is_there ? DatumGetFloat8(slot->tts_values[column]) : 0;
}

static void
add_rollup_row(MhmAlertTotals *totals, TupleTableSlot *slot)
{
	MhmAlertPart		part;
	const MhmAlertSeries *series = NULL;
	bool		is_there;

	if (!slot->tts_isnull[COLUMN_SERIES_ID])
		series = mhm_alert_find_series(totals, DatumGetInt64(slot->tts_values[COLUMN_SERIES_ID]));
	if (series == NULL)
		return;
	read_place(slot, &part);
	part.count = slot->tts_isnull[COLUMN_COUNT] ? 0 : (double) DatumGetInt64(slot->tts_values[COLUMN_COUNT]);
	part.sum = float8_column(slot, COLUMN_SUM, &is_there);
	part.min = float8_column(slot, COLUMN_MIN, &part.has_min);
	part.max = float8_column(slot, COLUMN_MAX, &part.has_max);
	part.last = float8_column(slot, COLUMN_LAST, &part.has_last);
	part.histogram = slot->tts_isnull[COLUMN_HISTOGRAM] ? NULL :
		PG_DETOAST_DATUM_PACKED(slot->tts_values[COLUMN_HISTOGRAM]);
	mhm_alert_offer(totals, series, &part);
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
add_live_row(MhmAlertTotals *totals, TupleTableSlot *slot)
{
	MhmAlertPart		part;
	Elements	columns[COLUMNS];
	bool		is_there;

	read_place(slot, &part);
	for (int i = COLUMN_SERIES_ID; i < COLUMNS; i++)
		read_elements(slot, i, &columns[i]);
	for (int i = 0; i < columns[COLUMN_SERIES_ID].count; i++)
	{
		const MhmAlertSeries *series = NULL;

		if (has_element(&columns[COLUMN_SERIES_ID], i))
			series = mhm_alert_find_series(totals, DatumGetInt64(columns[COLUMN_SERIES_ID].values[i]));
		if (series == NULL)
			continue;
		part.count = has_element(&columns[COLUMN_COUNT], i) ? (double) DatumGetInt64(columns[COLUMN_COUNT].values[i]) : 0;
		part.sum = float8_element(&columns[COLUMN_SUM], i, &is_there);
		part.min = float8_element(&columns[COLUMN_MIN], i, &part.has_min);
		part.max = float8_element(&columns[COLUMN_MAX], i, &part.has_max);
		part.last = float8_element(&columns[COLUMN_LAST], i, &part.has_last);
		part.histogram = has_element(&columns[COLUMN_HISTOGRAM], i) ?
			PG_DETOAST_DATUM_PACKED(columns[COLUMN_HISTOGRAM].values[i]) : NULL;
		mhm_alert_offer(totals, series, &part);
	}
}

/* Where the executor sends a query's rows */
typedef struct Receiver
{
	DestReceiver pub;
	MhmAlertTotals *totals;
	void		(*add_row) (MhmAlertTotals *totals, TupleTableSlot *slot);
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
add_rows(MhmAlertTotals *totals, const char *query, int count, const Oid *types, const Datum *values,
		 void (*add_row) (MhmAlertTotals *, TupleTableSlot *))
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
	ParamListInfo parameters = makeParamList(count);
	SPIPlanPtr	plan;
	int			result;

	for (int i = 0; i < count; i++)
	{
		parameters->params[i].value = values[i];
		parameters->params[i].isnull = false;
		parameters->params[i].pflags = PARAM_FLAG_CONST;
		parameters->params[i].ptype = types[i];
	}
	/* How many there are of everything is known only now */
	plan = SPI_prepare_cursor(query, count, (Oid *) types, CURSOR_OPT_CUSTOM_PLAN);
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

/* The rows of one range of time, of all series */
static void
add_range(MhmAlertTotals *totals, HeapTuple range, TupleDesc columns)
{
	Datum		values[RANGE_COLUMNS];
	bool		is_null;
	char	   *query;

	for (int i = 0; i < RANGE_COLUMNS; i++)
		values[i] = SPI_getbinval(range, columns, i + 1, &is_null);
	query = psprintf(SCANNED_ROWS, TextDatumGetCString(values[RANGE_TARGET - 1]));
	add_rows(totals, query, RANGE_COLUMNS, range_types, values, add_rollup_row);
	pfree(query);
}

static void
add_ranges(MhmAlertTotals *totals, const Datum *arguments)
{
	SPITupleTable *ranges;
	int			result;

	result = SPI_execute_with_args(ranges_query, MHM_ALERT_ARGUMENTS, (Oid *) mhm_alert_argument_types,
								   (Datum *) arguments, NULL, true, 0);
	if (result != SPI_OK_SELECT)
		elog(ERROR, "alert_totals(): %s", SPI_result_code_string(result));
	ranges = SPI_tuptable;
	for (uint64 i = 0; i < ranges->numvals; i++)
		add_range(totals, ranges->vals[i], ranges->tupdesc);
	SPI_freetuptable(ranges);
}

/* Are there windows of which series are looked for? */
static bool
looks_for_series(const Datum *arguments)
{
	Datum	   *scanned;
	int			count;
	bool		found = false;

	deconstruct_array(DatumGetArrayTypeP(arguments[MHM_ALERT_ARGUMENT_SCANNED]), BOOLOID, 1, true, TYPALIGN_CHAR,
					  &scanned, NULL, &count);
	for (int i = 0; i < count; i++)
		found |= !DatumGetBool(scanned[i]);
	return found;
}

/*
 * The tenants of the matches with their windows, each pair once, in place of those of
 * every match: the arguments of the query of live.
 */
static void
find_windows_of_tenants(const Datum *arguments, Datum *found)
{
	typedef struct
	{
		pg_uuid_t	tenant_id;
		int32		window;
	} TenantWindow;

	HASHCTL		control = {.keysize = sizeof(TenantWindow), .entrysize = sizeof(TenantWindow), .hcxt = CurrentMemoryContext};
	HTAB	   *pairs = hash_create("meshhook_metrics windows of tenants", 1024, &control,
									HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	Datum	   *tenants;
	Datum	   *windows;
	int			count;
	int			kept = 0;

	deconstruct_array(DatumGetArrayTypeP(arguments[MHM_ALERT_ARGUMENT_TENANTS]), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &tenants, NULL, &count);
	deconstruct_array(DatumGetArrayTypeP(arguments[MHM_ALERT_ARGUMENT_WINDOWS]), INT4OID, sizeof(int32), true, TYPALIGN_INT,
					  &windows, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		TenantWindow pair;
		bool		is_known;

		pair.tenant_id = *DatumGetUUIDP(tenants[i]);
		pair.window = DatumGetInt32(windows[i]);
		hash_search(pairs, &pair, HASH_ENTER, &is_known);
		if (is_known)
			continue;
		tenants[kept] = tenants[i];
		windows[kept++] = windows[i];
	}
	hash_destroy(pairs);
	memcpy(found, arguments, MHM_ALERT_ARGUMENTS * sizeof(Datum));
	found[MHM_ALERT_ARGUMENT_TENANTS] =
		PointerGetDatum(construct_array(tenants, kept, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	found[MHM_ALERT_ARGUMENT_WINDOWS] =
		PointerGetDatum(construct_array(windows, kept, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	pfree(tenants);
	pfree(windows);
}

/* Offer every row that may belong to a window, exactly once */
void
mhm_alert_read(MhmAlertTotals *totals, const Datum *arguments)
{
	Datum		of_live[MHM_ALERT_ARGUMENTS];

	SPI_connect();
	find_windows_of_tenants(arguments, of_live);
	add_rows(totals, live_query, MHM_ALERT_ARGUMENTS, mhm_alert_argument_types, of_live, add_live_row);
	add_ranges(totals, arguments);
	if (looks_for_series(arguments))
		add_rows(totals, looked_for_query, MHM_ALERT_ARGUMENTS, mhm_alert_argument_types, arguments, add_rollup_row);
	SPI_finish();
}
