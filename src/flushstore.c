/*-------------------------------------------------------------------------
 *
 * flushstore.c
 *	  A flush's transaction: the storage tables as the worker sees them.
 *
 * Owns who the worker is while it works on the tables, and the statements but
 * for those that give ids to series (flushseries.c).  Called by the flush worker
 * inside a transaction.
 *
 * The tables belong to a role that need not be a superuser, and who could hang
 * a trigger or a policy on them.  So between mhm_store_enter() and
 * mhm_store_leave() the worker is that role, under a security restriction and
 * with a fixed search_path; an abort of the transaction ends it as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "flush.h"
#include "hash.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "status.h"
#include "tcop/tcopprot.h"
#include "tenant.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "workerstate.h"

#define SCHEMA_NAME			"meshhook_metrics"

/* A row of live has at most so many series: Realtime cuts what is too long */
#define SERIES_PER_ROW		500

static const char *const storage_tables[] = {
	"flush_state", "series", "live", "rollup_1m", "rollup_state", "settings"
};

/* Those of alerting, without which there are metrics all the same */
static const char *const alert_tables[] = {
	"alert_state", "alert_gaps", "alert_rules", "alerts", "alert_events", "alert_receivers", "alert_notifications"
};

static Oid	histogram_type = InvalidOid;

static Oid	saved_user;
static int	saved_context;
static int	guc_level;

static SPIPlanPtr plan_mend;
static SPIPlanPtr plan_state;
static SPIPlanPtr plan_live;
static SPIPlanPtr plan_quotas;

Oid
mhm_store_owner_of(Oid relation)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relation));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	return owner;
}

/* Is there storage here?  Where only half of it is, there is: it is broken. */
bool
mhm_storage_installed(void)
{
	Oid			schema = get_namespace_oid(SCHEMA_NAME, true);

	if (OidIsValid(schema) && OidIsValid(get_extension_oid(SCHEMA_NAME, true)))
		for (int i = 0; i < lengthof(storage_tables); i++)
			if (OidIsValid(get_relname_relid(storage_tables[i], schema)))
				return true;
	return false;
}

/* The one owner of all storage tables; InvalidOid when there is no storage */
static Oid
find_storage(void)
{
	Oid			schema = get_namespace_oid(SCHEMA_NAME, true);
	Oid			owner = InvalidOid;

	if (!mhm_storage_installed())
		return InvalidOid;
	for (int i = 0; i < lengthof(storage_tables); i++)
	{
		Oid			relation = get_relname_relid(storage_tables[i], schema);
		Oid			owner_here = OidIsValid(relation) ? mhm_store_owner_of(relation) : InvalidOid;

		if (!OidIsValid(owner_here))
			ereport(ERROR,
					errcode(ERRCODE_UNDEFINED_TABLE),
					errmsg("storage table %s.%s is missing", SCHEMA_NAME, storage_tables[i]),
					errhint("Apply the migrations again."));
		if (i > 0 && owner_here != owner)
			ereport(ERROR,
					errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("storage tables %s.%s and %s.%s belong to different roles",
						   SCHEMA_NAME, storage_tables[0], SCHEMA_NAME, storage_tables[i]),
					errhint("Give them all to one role with ALTER TABLE ... OWNER TO."));
		owner = owner_here;
		if (strcmp(storage_tables[i], "series") == 0)
			mhm_series_use_table(relation);
	}

	histogram_type = GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
									 CStringGetDatum("histogram"), ObjectIdGetDatum(schema));
	if (!OidIsValid(histogram_type))
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_OBJECT),
				errmsg("type %s.histogram is missing", SCHEMA_NAME),
				errhint("Create the extension again."));
	return owner;
}

/*
 * Is alerting installed, and the same role's as the rest of the storage?  Where only
 * some of its tables are, it is broken.
 */
bool
mhm_store_has_alerts(void)
{
	Oid			schema = get_namespace_oid(SCHEMA_NAME, false);
	const char *missing = NULL;
	int			present = 0;

	for (int i = 0; i < lengthof(alert_tables); i++)
	{
		Oid			relation = get_relname_relid(alert_tables[i], schema);

		if (!OidIsValid(relation))
		{
			if (missing == NULL)
				missing = alert_tables[i];
			continue;
		}
		present++;
		/* What hangs on a table of somebody else's would run with the owner's rights */
		if (mhm_store_owner_of(relation) != GetUserId())
			ereport(ERROR,
					errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("table %s.%s belongs to another role than the storage tables",
						   SCHEMA_NAME, alert_tables[i]),
					errhint("Give them all to one role with ALTER TABLE ... OWNER TO."));
	}
	if (present > 0 && missing != NULL)
	{
		/* Created while we looked, it is there with the others the next time */
		if (OidIsValid(get_relname_relid(missing, schema)))
			return false;
		ereport(ERROR,
				errcode(ERRCODE_UNDEFINED_TABLE),
				errmsg("table %s.%s is missing", SCHEMA_NAME, missing),
				errhint("Apply the migrations again."));
	}
	return present > 0;
}

/*
 * Become the owner of the storage tables, with SPI connected.  False, and
 * nothing has changed, when there are none.
 */
bool
mhm_store_enter(void)
{
	Oid			owner = find_storage();

	if (!OidIsValid(owner))
		return false;

	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(owner, saved_context | SECURITY_RESTRICTED_OPERATION);
	guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	return true;
}

void
mhm_store_leave(void)
{
	PopActiveSnapshot();
	SPI_finish();
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(saved_user, saved_context);
}

void
mhm_store_check(int result, const char *query)
{
	if (result < 0)
		elog(ERROR, "%s from: %s", SPI_result_code_string(result), query);
}

static void
execute_plan(SPIPlanPtr *plan, const char *query, int arguments, Oid *types,
			 Datum *values, const char *nulls)
{
	if (*plan == NULL)
	{
		SPIPlanPtr	prepared = SPI_prepare(query, arguments, types);

		if (prepared == NULL)
			mhm_store_check(SPI_result, query);
		SPI_keepplan(prepared);
		*plan = prepared;
	}
	mhm_store_check(SPI_execute_plan(*plan, values, nulls, false, 0), query);
}

/*
 * A setting of the database that makes it read-only is read once, when a process
 * connects.  Has it gone since?
 */
bool
mhm_store_is_writable_anew(void)
{
	static const char query[] =
		"select "
		"from pg_catalog.pg_settings s "
		"where s.name = 'default_transaction_read_only' and s.source like '%database%' "
		"and not exists ("
		"select "
		"from pg_catalog.pg_db_role_setting d, pg_catalog.unnest(d.setconfig) c (setting) "
		"where d.setdatabase = (select b.oid from pg_catalog.pg_database b where b.datname = current_database()) "
		"and d.setrole = 0 "
		"and c.setting like 'default\\_transaction\\_read\\_only=%')";

	if (!DefaultXactReadOnly)
		return false;
	mhm_store_check(SPI_execute(query, true, 1), query);
	return SPI_processed > 0;
}

/* Let a query read rows under a name */
Tuplestorestate *
mhm_store_offer_rows(const char *name, TupleDesc columns, uint32 expected)
{
	Tuplestorestate *rows = tuplestore_begin_heap(false, false, work_mem);
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(name);
	relation->md.reliddesc = InvalidOid;
	relation->md.tupdesc = columns;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = expected;
	relation->reldata = rows;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "rows could not be offered under the name %s", name);
	return rows;
}

void
mhm_store_withdraw_rows(const char *name, Tuplestorestate *rows)
{
	(void) SPI_unregister_relation(name);
	tuplestore_end(rows);
}

/* What storage knows of a region */
void
mhm_store_read_state(uint64 region_id, MhmStoredState *state)
{
	static const char query[] =
		"select s.tick::bigint, "
		"greatest(s.at::timestamptz, "
		"(select r.complete_until::timestamptz from meshhook_metrics.rollup_state r where r.target = '1m')), "
		"(select max(f.tick::bigint) from meshhook_metrics.flush_state f) "
		"from (values (1)) one (row) "
		"left join meshhook_metrics.flush_state s on s.region_id = $1";
	Oid			types[] = {INT8OID};
	Datum		values[] = {Int64GetDatum((int64) region_id)};
	Datum		tick;
	Datum		at;
	bool		is_null;

	mhm_store_check(SPI_execute_with_args(query, 1, types, values, NULL, true, 1), query);
	memset(state, 0, sizeof(*state));
	tick = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	if (!is_null)
	{
		state->found = true;
		state->tick = (uint64) DatumGetInt64(tick);
		at = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2, &is_null);
		state->at = is_null ? 0 : DatumGetTimestampTz(at);
	}
	tick = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 3, &is_null);
	if (!is_null)
		state->highest_tick = (uint64) DatumGetInt64(tick);
}

/*
 * Lock what a flush depends on, in the order in which others do.  Who deletes rows
 * of series has flush_state locked against us (mhm_series_leave()), so that the ids
 * that we know are those of rows which stay until we have committed; who truncates
 * it waits for us, or we for it.
 */
void
mhm_store_lock(void)
{
	static const char query[] =
		"lock table only meshhook_metrics.flush_state, only meshhook_metrics.series in row exclusive mode";

	mhm_store_check(SPI_execute(query, false, 0), query);
}

/* Put right what a restore, a truncation or a replication has left (state.sql) */
void
mhm_store_mend(void)
{
	mhm_store_lock();
	execute_plan(&plan_mend, "select meshhook_metrics.mend_state()", 0, NULL, NULL, NULL);
}

/*
 * Is the minute that ends then in rollup_1m?  Names flush_state first, since the
 * migrations lock that before rollup_state.
 */
bool
mhm_store_is_closed(TimestampTz minute_end)
{
	static const char query[] =
		"select "
		"from meshhook_metrics.flush_state f "
		"right join meshhook_metrics.rollup_state s on false "
		"where s.target = '1m' and s.complete_until::timestamptz >= $1";
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(minute_end)};

	mhm_store_check(SPI_execute_with_args(query, 1, types, values, NULL, true, 1), query);
	return SPI_processed > 0;
}

/* Which flush this is: committed with everything else of it, or not at all */
void
mhm_store_write_state(const MhmFlush *flush)
{
	Oid			types[] = {INT8OID, INT8OID, TIMESTAMPTZOID};
	Datum		values[3];

	values[0] = Int64GetDatum((int64) mhm_region->region_id);
	values[1] = Int64GetDatum((int64) flush->tick);
	values[2] = TimestampTzGetDatum(flush->at);
	execute_plan(&plan_state,
				 "insert into meshhook_metrics.flush_state (region_id, tick, at) "
				 "values ($1, $2, $3) "
				 "on conflict (region_id) do update set tick = excluded.tick, at = excluded.at",
				 3, types, values, NULL);
}

/* Where a change goes: by tenant, then by id */
typedef struct Place
{
	uint64		tenant[2];		/* in the order of the bytes of a uuid */
	int64		id;
	MhmChange  *change;
} Place;

static inline int
compare_places(const Place *left, const Place *right)
{
	if (left->tenant[0] != right->tenant[0])
		return left->tenant[0] < right->tenant[0] ? -1 : 1;
	if (left->tenant[1] != right->tenant[1])
		return left->tenant[1] < right->tenant[1] ? -1 : 1;
	return left->id < right->id ? -1 : left->id > right->id;
}

#define ST_SORT sort_places
#define ST_ELEMENT_TYPE Place
#define ST_COMPARE(a, b) compare_places(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* The changes in the order of their rows; moving them around would take long */
static Place *
place_changes(const MhmFlush *flush)
{
	Place	   *places = MemoryContextAllocHuge(CurrentMemoryContext, (flush->changes_count + 1) * sizeof(Place));

	for (uint32 i = 0; i < flush->changes_count; i++)
	{
		MhmChange  *change = &flush->changes[i];

		memcpy(places[i].tenant, &change->tenant, sizeof(pg_uuid_t));
		places[i].tenant[0] = pg_ntoh64(places[i].tenant[0]);
		places[i].tenant[1] = pg_ntoh64(places[i].tenant[1]);
		places[i].id = change->id;
		places[i].change = change;
	}
	sort_places(places, flush->changes_count);
	return places;
}

/* Columns of live that come from the changes */
enum
{
	LIVE_TENANT_ID,
	LIVE_SERIES_ID,
	LIVE_COUNT,
	LIVE_SUM,
	LIVE_MIN,
	LIVE_MAX,
	LIVE_LAST,
	LIVE_HISTOGRAM,
	LIVE_COLUMNS
};

static TupleDesc
live_columns(void)
{
	TupleDesc	columns = CreateTemplateTupleDesc(LIVE_COLUMNS);

	TupleDescInitEntry(columns, LIVE_TENANT_ID + 1, "tenant_id", UUIDOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_SERIES_ID + 1, "series_id", INT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_COUNT + 1, "count", INT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_SUM + 1, "sum", FLOAT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_MIN + 1, "min", FLOAT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_MAX + 1, "max", FLOAT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_LAST + 1, "last", FLOAT8ARRAYOID, -1, 0);
	TupleDescInitEntry(columns, LIVE_HISTOGRAM + 1, "histogram", get_array_type(histogram_type), -1, 0);
	return columns;
}

/* One value of a change; false when its kind has none */
static bool
live_value(const MhmChange *change, int column, Datum *value)
{
	switch (column)
	{
		case LIVE_SERIES_ID:
			*value = Int64GetDatum(change->id);
			return true;
		case LIVE_COUNT:
			*value = Int64GetDatum((int64) change->count);
			return true;
		case LIVE_SUM:
			*value = Float8GetDatum(change->sum);
			return true;
		case LIVE_MIN:
			*value = Float8GetDatum(change->min);
			return isfinite(change->min);
		case LIVE_MAX:
			*value = Float8GetDatum(change->max);
			return isfinite(change->max);
		case LIVE_LAST:
			*value = Float8GetDatum(change->last);
			return change->kind == MHM_GAUGE;
		case LIVE_HISTOGRAM:
			*value = PointerGetDatum(change->histogram);
			return change->histogram != NULL;
	}
	return false;
}

/* An array over the changes of one row; NULL when none has a value */
static ArrayType *
live_array(const Place *places, int count, int column, Oid type)
{
	Datum		values[SERIES_PER_ROW];
	bool		nulls[SERIES_PER_ROW];
	int			lower = 1;
	int			present = 0;
	int16		length;
	bool		by_value;
	char		alignment;

	for (int i = 0; i < count; i++)
	{
		nulls[i] = !live_value(places[i].change, column, &values[i]);
		present += !nulls[i];
	}
	if (present == 0)
		return NULL;
	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	return construct_md_array(values, present < count ? nulls : NULL, 1, &count, &lower,
							  type, length, by_value, alignment);
}

/* One row of live: changes of one tenant, each of another series */
static void
put_live_row(Tuplestorestate *rows, TupleDesc columns, const Place *places, int count)
{
	static const Oid element_types[LIVE_COLUMNS] = {
		InvalidOid, INT8OID, INT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID, FLOAT8OID, InvalidOid
	};
	Datum		values[LIVE_COLUMNS];
	bool		nulls[LIVE_COLUMNS] = {false};

	values[LIVE_TENANT_ID] = UUIDPGetDatum(&places->change->tenant);
	for (int column = LIVE_SERIES_ID; column < LIVE_COLUMNS; column++)
	{
		ArrayType  *array = live_array(places, count, column,
									   column == LIVE_HISTOGRAM ? histogram_type : element_types[column]);

		values[column] = PointerGetDatum(array);
		nulls[column] = (array == NULL);
	}
	tuplestore_putvalues(rows, columns, values, nulls);
}

static uint64
put_live_rows(Tuplestorestate *rows, TupleDesc columns, const MhmFlush *flush)
{
	Place	   *places = place_changes(flush);
	MemoryContext row_context = AllocSetContextCreate(CurrentMemoryContext,
													  "meshhook_metrics live row",
													  ALLOCSET_DEFAULT_SIZES);
	MemoryContext before = MemoryContextSwitchTo(row_context);
	uint32		first = 0;
	uint64		put = 0;

	for (uint32 i = 1; i <= flush->changes_count; i++)
	{
		if (i < flush->changes_count && i - first < SERIES_PER_ROW &&
			places[i].tenant[0] == places[first].tenant[0] && places[i].tenant[1] == places[first].tenant[1] &&
			places[i].id != places[i - 1].id)
			continue;
		put_live_row(rows, columns, &places[first], (int) (i - first));
		MemoryContextReset(row_context);
		first = i;
		put++;
	}
	MemoryContextSwitchTo(before);
	MemoryContextDelete(row_context);
	return put;
}

/* The rows of a flush, whose series have ids; returns how many they are */
uint64
mhm_store_write_live(const MhmFlush *flush)
{
	Oid			types[] = {TIMESTAMPTZOID, FLOAT8OID};
	Datum		values[2];
	TupleDesc	columns = live_columns();
	Tuplestorestate *rows;
	uint64		put;

	rows = mhm_store_offer_rows("flushed", columns, flush->changes_count / 100 + 1);
	put = put_live_rows(rows, columns, flush);
	values[0] = TimestampTzGetDatum(flush->at);
	values[1] = Float8GetDatum(flush->seconds);
	execute_plan(&plan_live,
				 "insert into meshhook_metrics.live "
				 "(tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram) "
				 "select f.tenant_id, $1, $2, f.series_id, f.count, f.sum, f.min, f.max, f.last, f.histogram "
				 "from flushed f",
				 2, types, values, NULL);
	if (SPI_processed != put)
		ereport(ERROR,
				errcode(ERRCODE_DATA_EXCEPTION),
				errmsg("table meshhook_metrics.live took " UINT64_FORMAT " of " UINT64_FORMAT " rows",
					   (uint64) SPI_processed, put),
				errhint("Look for a trigger or a rule on the table."));
	mhm_store_withdraw_rows("flushed", rows);
	return put;
}

/* Call something of the extension's that works on the tables */
void
mhm_store_call(const char *query, TimestampTz now)
{
	Oid			types[] = {TIMESTAMPTZOID};
	Datum		values[] = {TimestampTzGetDatum(now)};
	const char *before = debug_query_string;

	debug_query_string = query;
	mhm_store_check(SPI_execute_with_args(query, 1, types, values, NULL, false, 0), query);
	debug_query_string = before;
}

/* The same of a query that answers with one boolean */
bool
mhm_store_ask(const char *query, TimestampTz now)
{
	bool		is_null;
	Datum		answer;

	mhm_store_call(query, now);
	if (SPI_processed != 1)
		return false;
	answer = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	return !is_null && DatumGetBool(answer);
}

/* Bring the tenants' own quotas into shared memory, if they are others than the last time */
void
mhm_store_read_quotas(void)
{
	static const char query[] =
		"select s.tenant_id::uuid, s.value::text::integer "
		"from meshhook_metrics.settings s "
		"where s.name = 'max_series' and s.tenant_id is not null and s.value::text ~ '^[0-9]{1,9}$' "
		"order by 1 limit $1";
	static uint64 applied = 0;
	Oid			types[] = {INT8OID};
	/* One more, to see that there are more */
	Datum		values[] = {Int64GetDatum((int64) mhm_quota_slots(&mhm_region->geometry) + 1)};
	MhmQuota   *quotas;
	uint32		count;
	uint32		known = 0;
	uint64		checksum;

	execute_plan(&plan_quotas, query, 1, types, values, NULL);
	count = (uint32) SPI_processed;
	quotas = palloc((count + 1) * sizeof(MhmQuota));
	for (uint32 i = 0; i < count; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		bool		tenant_is_null;
		bool		series_is_null;
		Datum		tenant = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 1, &tenant_is_null);
		Datum		series = SPI_getbinval(tuple, SPI_tuptable->tupdesc, 2, &series_is_null);

		/* Whatever has become of the table */
		if (tenant_is_null || series_is_null)
			continue;
		quotas[known].tenant = *DatumGetUUIDP(tenant);
		quotas[known].series = (uint32) DatumGetInt32(series);
		known++;
	}
	SPI_freetuptable(SPI_tuptable);
	checksum = mhm_hash_bytes((const char *) quotas, known * sizeof(MhmQuota), mhm_region->hash_seed);
	if (checksum != applied)
	{
		bool		all = mhm_quotas_replace(quotas, known);

		SpinLockAcquire(&mhm_worker_state->mutex);
		mhm_worker_state->report.quotas_left_out = !all;
		SpinLockRelease(&mhm_worker_state->mutex);
		applied = checksum;
	}
	pfree(quotas);
}
