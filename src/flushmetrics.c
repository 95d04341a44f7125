/*-------------------------------------------------------------------------
 *
 * flushmetrics.c
 *	  What describe() said: table metrics as the flush worker sees it.
 *
 * Owns the statements on that table.  The region knows of each metric whether
 * the table has its description (metrics.c).  Called by the flush worker
 * inside a transaction of its own, since what is wrong with this table must
 * keep nothing else from being stored; on a standby it only reads.
 *
 * The table is read first: what it says and nobody has said here since is so
 * in the region from then on, whether the transaction commits or not.  Then
 * what has been said here is written.  The same again is the same, so a process
 * that is killed anywhere leaves it to the next one, and only after the commit
 * the region notes that it is stored (mhm_metrics_exchanged).
 *
 * Storage may be older than this table.  Then descriptions stay in memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "flush.h"
#include "labels.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "registry.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

/* Columns that are read and written, in this order */
enum
{
	METRIC_NAME,
	METRIC_KIND,
	METRIC_HELP,
	METRIC_UNIT,
	METRIC_MIN_EXPONENT,
	METRIC_COLUMNS
};

/* The table, or InvalidOid */
Oid
mhm_metrics_table(void)
{
	return get_relname_relid("metrics", get_namespace_oid("meshhook_metrics", false));
}

/* What hangs on a table of somebody else's would run with the owner's rights */
static void
require_own_table(Oid table)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(table));
	Oid			owner = InvalidOid;

	if (HeapTupleIsValid(tuple))
	{
		owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
		ReleaseSysCache(tuple);
	}
	if (owner != GetUserId())
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("table meshhook_metrics.metrics belongs to another role than the storage tables"),
				errhint("Give them all to one role with ALTER TABLE ... OWNER TO."));
}

/* The kind of a name, or 0 */
static int
kind_of_name(const char *name)
{
	for (int kind = MHM_COUNTER; kind <= MHM_HISTOGRAM; kind++)
		if (strcmp(name, mhm_kind_name(kind)) == 0)
			return kind;
	return 0;
}

/*
 * Copy a text of the table's, as far as the region can have it: in UTF-8, so from a
 * database of another encoding only ASCII.  Otherwise there is none.
 */
static uint32
copy_text_column(HeapTuple row, TupleDesc columns, int column, char *copy, uint32 longest)
{
	char	   *value = SPI_getvalue(row, columns, column + 1);
	Size		length = value == NULL ? 0 : strlen(value);

	if (length > longest)
		return 0;
	if (GetDatabaseEncoding() != PG_UTF8)
		for (Size i = 0; i < length; i++)
			if (IS_HIGHBIT_SET(value[i]))
				return 0;
	memcpy(copy, value == NULL ? "" : value, length);
	return (uint32) length;
}

/* One row of the table; false where it is none that describe() could have made */
static bool
read_row(HeapTuple row, TupleDesc columns, MhmStoredMetric *metric)
{
	char	   *kind = SPI_getvalue(row, columns, METRIC_KIND + 1);
	bool		is_null;
	Datum		min_exponent = SPI_getbinval(row, columns, METRIC_MIN_EXPONENT + 1, &is_null);
	int32		exponent = is_null ? MHM_DEFAULT_MIN_EXPONENT : DatumGetInt32(min_exponent);

	metric->name_length = copy_text_column(row, columns, METRIC_NAME, metric->name, MHM_MAX_METRIC_LENGTH);
	metric->kind = kind == NULL ? 0 : kind_of_name(kind);
	if (metric->kind == 0 || metric->name_length == 0 ||
		!mhm_metric_name_check(DEBUG1, metric->name, metric->name_length) ||
		exponent < MHM_MIN_EXPONENT_LOWEST || exponent > MHM_MIN_EXPONENT_HIGHEST)
		return false;
	metric->min_exponent = (int16) exponent;
	metric->help_length = copy_text_column(row, columns, METRIC_HELP, metric->help, MHM_MAX_HELP_LENGTH);
	metric->unit_length = copy_text_column(row, columns, METRIC_UNIT, metric->unit, MHM_MAX_UNIT_LENGTH);
	return true;
}

/* Windows first: where there is no room for all, texts are what can be done without */
static void
load_metrics(bool read_only)
{
	static const char query[] =
		"select m.name::text, m.kind::text, m.help::text, m.unit::text, m.min_exponent::integer "
		"from meshhook_metrics.metrics m "
		"order by m.min_exponent is null, m.name";
	bool	   *seen = palloc0(mhm_region->geometry.metric_slots * sizeof(bool));
	MhmStoredMetric *metric = palloc(sizeof(MhmStoredMetric));

	mhm_store_check(SPI_execute(query, true, 0), query);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		uint32		number = MHM_NONE;

		CHECK_FOR_INTERRUPTS();
		if (read_row(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, metric))
			number = mhm_metric_load(metric);
		if (number != MHM_NONE)
			seen[number] = true;
	}
	SPI_freetuptable(SPI_tuptable);
	mhm_metrics_miss_unless(seen, read_only);
	pfree(metric);
	pfree(seen);
}

/* A text of the region's as the database has it; false where it cannot have it */
static bool
text_value(const char *data, uint32 length, Datum *value)
{
	bool		has_room = length > 0;

	if (GetDatabaseEncoding() != PG_UTF8)
		for (uint32 i = 0; i < length && has_room; i++)
			has_room = !IS_HIGHBIT_SET(data[i]);
	*value = has_room ? PointerGetDatum(cstring_to_text_with_len(data, length)) : (Datum) 0;
	return has_room;
}

static void
execute(const char *query, int arguments, Datum *values, const char *nulls)
{
	static Oid	types[METRIC_COLUMNS] = {TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID};

	mhm_store_check(SPI_execute_with_args(query, arguments, types, values, nulls, false, 0), query);
}

static void
store_metric(const MhmStoredMetric *metric)
{
	Datum		values[METRIC_COLUMNS];
	char		nulls[METRIC_COLUMNS];

	memset(nulls, ' ', sizeof(nulls));
	values[METRIC_NAME] = PointerGetDatum(cstring_to_text_with_len(metric->name, metric->name_length));
	if (metric->forgotten)
	{
		execute("delete from meshhook_metrics.metrics where name = $1", 1, values, nulls);
		return;
	}
	values[METRIC_KIND] = CStringGetTextDatum(mhm_kind_name(metric->kind));
	if (!text_value(metric->help, metric->help_length, &values[METRIC_HELP]))
		nulls[METRIC_HELP] = 'n';
	if (!text_value(metric->unit, metric->unit_length, &values[METRIC_UNIT]))
		nulls[METRIC_UNIT] = 'n';
	values[METRIC_MIN_EXPONENT] = Int32GetDatum(metric->min_exponent);
	if (metric->kind != MHM_HISTOGRAM)
		nulls[METRIC_MIN_EXPONENT] = 'n';
	execute("insert into meshhook_metrics.metrics (name, kind, help, unit, min_exponent) "
			"values ($1, $2, $3, $4, $5) "
			"on conflict (name) do update "
			"set kind = excluded.kind, help = excluded.help, unit = excluded.unit, min_exponent = excluded.min_exponent",
			METRIC_COLUMNS, values, nulls);
}

/* What is forgotten goes first: it may have been described again since */
static void
store_metrics(void)
{
	MhmStoredMetric *metric = palloc(sizeof(MhmStoredMetric));

	for (int forgotten = 1; forgotten >= 0; forgotten--)
		for (uint32 from = 0; mhm_metric_next_unstored(from, forgotten, metric); from = metric->number + 1)
		{
			CHECK_FOR_INTERRUPTS();
			store_metric(metric);
		}
	pfree(metric);
}

/*
 * Read the table, and write what it lacks unless it is another server's to write.
 * False where there is no such table.  Wants mhm_store_enter().
 */
bool
mhm_metrics_exchange(bool read_only)
{
	Oid			table = mhm_metrics_table();

	if (!OidIsValid(table))
		return false;
	require_own_table(table);
	load_metrics(read_only);
	if (!read_only && mhm_metrics_unstored())
		store_metrics();
	return true;
}

/* What was written has been committed */
void
mhm_metrics_exchanged(void)
{
	if (mhm_metrics_unstored())
		mhm_metrics_settle_stored();
}
