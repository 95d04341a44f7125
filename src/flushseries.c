/*-------------------------------------------------------------------------
 *
 * flushseries.c
 *	  The ids that series have in the table series.
 *
 * Owns what the flush worker remembers of them, by the number and generation of
 * a series in the region, and the statements that find ids or give new ones:
 * a few for all the series that need one, never one for each.  Called within a
 * flush's transaction, as the owner of the tables.
 *
 * It also writes last_day there, once a day for each series that is in use.  At
 * midnight that is due for all of them, so a flush does it for some only, which
 * are far from each other in the table: then each page has room for the new
 * versions of its rows, and no index is written.  Only what had no sample for
 * more than a week is written at once, because prune_series() may take it for
 * dead; see there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "flush.h"
#include "labels.h"
#include "lib/qunique.h"
#include "registry.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(mhm_series_leave);

/*
 * So many ids are looked for in one flush, as many as fit well into its time;
 * more are needed only after a start, and then the next flush follows at once.
 */
#define IDS_PER_FLUSH		20000

/* last_day is written for so many series in one flush, out of so many that are looked at */
#define DAYS_PER_FLUSH			1000
#define DAYS_LOOKED_AT			65536

/*
 * Series that follow each other in the region do so in the table, of which a page has
 * fewer rows than are between two that are looked at one after the other.  Unless there
 * are few, this part of all is looked at in one flush, so that a page has room for them.
 */
#define DAYS_APART				128
#define DAYS_PART				16
#define DAYS_FEW				100

/* From then on prune_series() may delete a series, two days later at the earliest */
#define DAYS_OF_REST			7

typedef struct KnownSeries
{
	uint32		generation;
	unsigned int day_is_due:1;	/* it had samples after last_day */
	signed int	last_day:31;
	int64		id;
} KnownSeries;

static KnownSeries *known_series = NULL;
static int64 greatest_id = 0;	/* that this process has seen */
static uint32 days_due = 0;		/* how many of them */
static uint32 next_place = 0;	/* where to look for them: see number_at() */
static int	days_written_count = 0; /* by this flush */
static uint32 days_written[DAYS_PER_FLUSH]; /* of these series */
static bool known_series_stale = true;
static Oid	series_table = InvalidOid;

/* Ids may be wrong once the table has been truncated or made anew, or has lost rows */
static void
forget_series(Datum arg, Oid relation)
{
	if (relation == InvalidOid || relation == series_table)
		known_series_stale = true;
}

/*
 * Before rows of series are deleted or get another key.  From here on until the
 * transaction has ended no flush begins, and none is under way: each locks
 * flush_state first (mhm_store_lock()).  The invalidation is sent when it commits,
 * before its locks are released, and a flush takes in what was sent when it gets its
 * lock, before it looks at what it knows.  So no flush stores under an id whose row is
 * gone.  Works in any backend, with or without shared memory.
 */
Datum
mhm_series_leave(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	Oid			flush_state;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				errmsg("series_leave() was not called by a trigger"));
	flush_state = get_relname_relid("flush_state", RelationGetNamespace(trigger->tg_relation));
	if (OidIsValid(flush_state))
		LockRelationOid(flush_state, ShareRowExclusiveLock);
	CacheInvalidateRelcache(trigger->tg_relation);
	PG_RETURN_POINTER(NULL);
}

/* The table series is this one from now on */
void
mhm_series_use_table(Oid relation)
{
	static bool registered = false;

	if (!registered)
	{
		CacheRegisterRelcacheCallback(forget_series, (Datum) 0);
		registered = true;
	}
	if (relation != series_table)
	{
		series_table = relation;
		known_series_stale = true;
	}
}

/*
 * Take the ids that are known already.  Of the others only some are left in the
 * flush; false when it had more.  *unknown is how many are left.
 */
static bool
recall_series(MhmFlush *flush, uint32 *unknown)
{
	uint32		kept = 0;

	if (known_series == NULL)
		known_series = MemoryContextAllocExtended(TopMemoryContext,
												  mhm_region->geometry.series_slots * sizeof(KnownSeries),
												  MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	if (known_series_stale)
	{
		memset(known_series, 0, mhm_region->geometry.series_slots * sizeof(KnownSeries));
		days_due = 0;
		known_series_stale = false;
	}
	*unknown = 0;
	for (uint32 i = 0; i < flush->changes_count; i++)
	{
		MhmChange  *change = &flush->changes[i];
		KnownSeries *known = &known_series[change->number];

		change->id = known->generation == change->generation ? known->id : 0;
		change->last_day = known->last_day;
		if (change->id == 0 && ++*unknown > IDS_PER_FLUSH)
		{
			mhm_flush_put_back(change);
			continue;
		}
		flush->changes[kept++] = *change;
	}
	flush->changes_count = kept;
	if (*unknown <= IDS_PER_FLUSH)
		return true;
	*unknown = IDS_PER_FLUSH;
	return false;
}

static DateADT
day_of(const MhmFlush *flush)
{
	return (DateADT) (flush->at / USECS_PER_DAY);
}

/* Has it had no sample for so long that it may be taken for dead? */
static bool
has_rested(const MhmFlush *flush, const MhmChange *change)
{
	return change->last_day < day_of(flush) - DAYS_OF_REST;
}

static void
set_day_is_due(KnownSeries *known, bool due)
{
	days_due += due - known->day_is_due;
	known->day_is_due = due;
}

/* The flush has been committed, and with it the ids and days of its series */
void
mhm_series_remember(const MhmFlush *flush)
{
	DateADT		today = day_of(flush);

	for (int i = 0; i < days_written_count; i++)
	{
		known_series[days_written[i]].last_day = today;
		set_day_is_due(&known_series[days_written[i]], false);
	}
	for (uint32 i = 0; i < flush->changes_count; i++)
	{
		const MhmChange *change = &flush->changes[i];
		KnownSeries *known = &known_series[change->number];

		/* Unless it was among those that were written */
		if (known->generation != change->generation || known->id != change->id || has_rested(flush, change))
			known->last_day = has_rested(flush, change) ? today : change->last_day;
		known->generation = change->generation;
		known->id = change->id;
		greatest_id = Max(greatest_id, known->id);
		set_day_is_due(known, known->last_day < today);
	}
}

/* The number of a series by its place among all, of which neighbours are far from each other */
static uint32
number_at(uint32 place, uint32 slots)
{
	uint32		rows = (slots + DAYS_APART - 1) / DAYS_APART;

	return place % rows * DAYS_APART + place / rows;
}

/* Pick some whose day is to be written */
static int
pick_due(Datum *ids, uint32 *numbers)
{
	uint32		slots = mhm_region->geometry.series_slots;
	uint32		places = (slots + DAYS_APART - 1) / DAYS_APART * DAYS_APART;
	uint32		looked_at_most = days_due <= DAYS_FEW ? places : places / DAYS_PART;
	uint32		left = days_due;
	int			picked = 0;

	for (uint32 i = 0; left > 0 && picked < DAYS_PER_FLUSH && i < Min(looked_at_most, DAYS_LOOKED_AT); i++)
	{
		uint32		number = number_at(next_place, slots);

		next_place = (next_place + 1) % places;
		if (number >= slots || !known_series[number].day_is_due)
			continue;
		ids[picked] = Int64GetDatum(known_series[number].id);
		numbers[picked++] = number;
		left--;
	}
	return picked;
}

/* How many rows a statement about the series with these ids, and a day, has changed or found */
static uint64
of_series(const char *query, Datum *ids, int count, DateADT day)
{
	Oid			types[] = {INT8ARRAYOID, DATEOID};
	Datum		values[2];

	values[0] = PointerGetDatum(construct_array(ids, count, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[1] = DateADTGetDatum(day);
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
	return SPI_processed;
}

static int
compare_ids(const void *a, const void *b)
{
	int64		left = DatumGetInt64(*(const Datum *) a);
	int64		right = DatumGetInt64(*(const Datum *) b);

	return left < right ? -1 : left > right;
}

/*
 * The ids of some changes, each once: a histogram and the one that it supersedes
 * are of one row.
 */
static Datum *
ids_of(const MhmFlush *flush, bool (*is_wanted) (const MhmFlush *flush, const MhmChange *change), int *count)
{
	Datum	   *ids;

	*count = 0;
	for (uint32 i = 0; i < flush->changes_count; i++)
		*count += is_wanted(flush, &flush->changes[i]);
	if (*count == 0)
		return NULL;
	ids = MemoryContextAllocHuge(CurrentMemoryContext, *count * sizeof(Datum));
	*count = 0;
	for (uint32 i = 0; i < flush->changes_count; i++)
		if (is_wanted(flush, &flush->changes[i]))
			ids[(*count)++] = Int64GetDatum(flush->changes[i].id);
	qsort(ids, *count, sizeof(Datum), compare_ids);
	*count = (int) qunique(ids, *count, sizeof(Datum), compare_ids);
	return ids;
}

/* Of what comes after a rest: before its data, and waiting for prune_series() */
static void
write_days_of_rested(const MhmFlush *flush)
{
	int			count;
	Datum	   *ids = ids_of(flush, has_rested, &count);

	if (count == 0)
		return;
	/* A trigger may have kept a row as it was; what counts is that it is there */
	if (of_series("update meshhook_metrics.series s set last_day = $2 where s.id = any ($1)",
				  ids, count, day_of(flush)) < count &&
		of_series("select from meshhook_metrics.series s where s.id = any ($1) and $2 is not null",
				  ids, count, day_of(flush)) < count)
	{
		known_series_stale = true;
		ereport(ERROR,
				errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				errmsg("rows of meshhook_metrics.series were deleted while the series were being flushed"),
				errhint("The next flush gives them new ids."));
	}
	pfree(ids);
}

/*
 * Write the days of those that come after a rest, and of some others.  These wait
 * for nobody who has locked a row: its turn comes again.
 */
void
mhm_series_write_days(const MhmFlush *flush)
{
	Datum		ids[DAYS_PER_FLUSH];
	int			picked;

	days_written_count = 0;
	write_days_of_rested(flush);
	for (uint32 i = 0; i < flush->changes_count; i++)
	{
		KnownSeries *known = &known_series[flush->changes[i].number];

		if (known->generation == flush->changes[i].generation && known->id != 0 && known->last_day < day_of(flush))
			set_day_is_due(known, true);
	}
	picked = pick_due(ids, days_written);
	if (picked == 0)
		return;
	if (of_series("update meshhook_metrics.series s "
				  "set last_day = $2 "
				  "from ("
				  "select o.id "
				  "from meshhook_metrics.series o "
				  "where o.id = any ($1) and o.last_day < $2 "
				  "order by o.id "
				  "for no key update skip locked) o "
				  "where s.id = o.id",
				  ids, picked, day_of(flush)) < picked &&
		of_series("select from meshhook_metrics.series s where s.id = any ($1) and s.last_day < $2",
				  ids, picked, day_of(flush)) > 0)
		return;
	days_written_count = picked;
}

static TupleDesc
wanted_columns(void)
{
	TupleDesc	columns = CreateTemplateTupleDesc(5);

	TupleDescInitEntry(columns, 1, "number", INT4OID, -1, 0);
	TupleDescInitEntry(columns, 2, "tenant_id", UUIDOID, -1, 0);
	TupleDescInitEntry(columns, 3, "metric", TEXTOID, -1, 0);
	TupleDescInitEntry(columns, 4, "kind", TEXTOID, -1, 0);
	TupleDescInitEntry(columns, 5, "labels", JSONBOID, -1, 0);
	return columns;
}

static void
put_wanted(Tuplestorestate *rows, TupleDesc columns, int32 number, const MhmChange *change)
{
	Datum		values[5];
	bool		nulls[5] = {false};
	Jsonb	   *labels = mhm_labels_jsonb(change->labels, change->labels_length, change->overflow);
	text	   *metric = cstring_to_text_with_len(change->metric, change->metric_length);

	values[0] = Int32GetDatum(number);
	values[1] = UUIDPGetDatum(&change->tenant);
	values[2] = PointerGetDatum(metric);
	values[3] = CStringGetTextDatum(mhm_kind_name(change->kind));
	values[4] = JsonbPGetDatum(labels);
	tuplestore_putvalues(rows, columns, values, nulls);
	pfree(labels);
	pfree(metric);
}

/* Offer the series without an id to a query, as "wanted" */
static Tuplestorestate *
offer_wanted(const MhmFlush *flush, uint32 expected)
{
	TupleDesc	columns = wanted_columns();
	Tuplestorestate *rows = mhm_store_offer_rows("wanted", columns, expected);

	for (uint32 i = 0; i < flush->changes_count; i++)
		if (flush->changes[i].id == 0)
			put_wanted(rows, columns, (int32) i, &flush->changes[i]);
	return rows;
}

/*
 * The digest of the unique index is computed once for each series that is wanted,
 * and for each of them its row is looked up: OFFSET keeps the planner, who knows
 * little of a table that grows, from turning that around.
 */
#define WANTED_AND_FOUND \
	"from (select w.*, meshhook_metrics.labels_digest(w.labels) as digest from wanted w offset 0) w " \
	"cross join lateral (" \
	"select s.id, s.kind, s.last_day, s.reset_at " \
	"from meshhook_metrics.series s " \
	"where s.tenant_id = w.tenant_id and s.metric = w.metric " \
	"and meshhook_metrics.labels_digest(s.labels) = w.digest and s.labels = w.labels " \
	"offset 0) s"

/* Look ids up; returns how many series of another kind were found */
static uint32
find_ids(MhmFlush *flush, uint32 *unknown)
{
	static const char query[] =
		"select w.number, s.id::bigint, s.kind::text <> w.kind, s.last_day::date, s.reset_at is not null "
		WANTED_AND_FOUND;
	Tuplestorestate *rows = offer_wanted(flush, *unknown);
	uint32		of_another_kind = 0;

	mhm_store_check(SPI_execute(query, false, 0), query);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	columns = SPI_tuptable->tupdesc;
		bool		is_null;
		int32		number = DatumGetInt32(SPI_getbinval(tuple, columns, 1, &is_null));

		flush->changes[number].id = DatumGetInt64(SPI_getbinval(tuple, columns, 2, &is_null));
		if (is_null)
			ereport(ERROR,
					errcode(ERRCODE_NOT_NULL_VIOLATION),
					errmsg("a series in table meshhook_metrics.series has no id"),
					errhint("Apply the migrations again."));
		of_another_kind += DatumGetBool(SPI_getbinval(tuple, columns, 3, &is_null));
		flush->changes[number].last_day = DatumGetDateADT(SPI_getbinval(tuple, columns, 4, &is_null));
		flush->changes[number].was_reset = DatumGetBool(SPI_getbinval(tuple, columns, 5, &is_null));
	}
	*unknown -= (uint32) SPI_processed;
	SPI_freetuptable(SPI_tuptable);
	mhm_store_withdraw_rows("wanted", rows);
	return of_another_kind;
}

/*
 * A sequence that was restarted, set back, or not copied along must not give ids
 * again that something has.
 */
static void
mend_series_ids(void)
{
	static const char query[] = "select meshhook_metrics.mend_series_ids($1)";
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum(greatest_id)};

	mhm_store_check(SPI_execute_with_args(query, 1, types, values, NULL, false, 0), query);
}

/* Make rows for the series that have none */
static void
make_ids(MhmFlush *flush, uint32 unknown)
{
	static const char query[] =
		"insert into meshhook_metrics.series (tenant_id, metric, kind, labels) "
		"select w.tenant_id, w.metric, w.kind, w.labels "
		"from wanted w "
		"on conflict do nothing";
	Tuplestorestate *rows = offer_wanted(flush, unknown);

	mhm_store_check(SPI_execute(query, false, 0), query);
	mhm_store_withdraw_rows("wanted", rows);
}

/* A metric that was reset may come again as another kind */
static void
change_kinds(MhmFlush *flush, uint32 unknown)
{
	static const char query[] =
		"with changed as materialized ("
		"select s.id, w.kind "
		WANTED_AND_FOUND " "
		"where s.kind <> w.kind) "
		"update meshhook_metrics.series s "
		"set kind = c.kind "
		"from changed c "
		"where s.id = c.id";
	Tuplestorestate *rows = offer_wanted(flush, unknown);

	mhm_store_check(SPI_execute(query, false, 0), query);
	mhm_store_withdraw_rows("wanted", rows);
}

static bool
begins_after_reset(const MhmFlush *flush, const MhmChange *change)
{
	return change->was_reset;
}

/* Of what was reset storage has got something again, with which it goes on (gauge_levels()) */
static void
forget_resets(const MhmFlush *flush)
{
	int			count;
	Datum	   *ids = ids_of(flush, begins_after_reset, &count);

	if (count > 0)
		(void) of_series("update meshhook_metrics.series s set reset_at = null where s.id = any ($1) and $2 is not null",
						 ids, count, day_of(flush));
}

/* Whatever the planner believes of the table: by the unique index */
static int
begin_using_indexes(void)
{
	int			guc_level = NewGUCNestLevel();

	(void) set_config_option("enable_seqscan", "off", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return guc_level;
}

/* Look for the ids of series, without making any: 0 where there is no row */
void
mhm_series_find(MhmFlush *keys)
{
	uint32		unknown = keys->changes_count;
	int			guc_level = begin_using_indexes();

	(void) find_ids(keys, &unknown);
	AtEOXact_GUC(false, guc_level);
}

/*
 * Have every change know the id of its series.  False when some were left out of
 * the flush, because too many are new to this process.
 */
bool
mhm_series_identify(MhmFlush *flush)
{
	uint32		unknown;
	bool		complete = recall_series(flush, &unknown);
	uint32		wanted = unknown;
	int			guc_level;

	if (unknown == 0)
		return complete;

	guc_level = begin_using_indexes();
	if (find_ids(flush, &unknown) > 0)
	{
		for (uint32 i = 0; i < flush->changes_count; i++)
			flush->changes[i].id = 0;
		unknown = flush->changes_count;
		change_kinds(flush, unknown);
		(void) find_ids(flush, &unknown);
	}
	if (unknown > 0)
	{
		mend_series_ids();
		make_ids(flush, unknown);
		(void) find_ids(flush, &unknown);
	}
	if (unknown > 0)
		ereport(ERROR,
				errcode(ERRCODE_DATA_EXCEPTION),
				errmsg("table meshhook_metrics.series does not show %u of %u series that were stored in it",
					   unknown, wanted),
				errhint("Look for a trigger or a policy on the table."));
	forget_resets(flush);
	AtEOXact_GUC(false, guc_level);
	return complete;
}
