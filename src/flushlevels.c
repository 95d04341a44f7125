/*-------------------------------------------------------------------------
 *
 * flushlevels.c
 *	  The levels that storage has of gauges which are new in the region.
 *
 * Owns when relative gauges (levels.c) are given the level that was stored last,
 * and bringing to storage what was reset.  Called by the flush worker within a
 * flush's transaction, before anything is taken; only gauges that nobody has set
 * are looked up, by index, so many a flush.
 *
 * The level comes from what is committed, and what is given is the region's own,
 * whether this flush is committed or not.  What the region itself has pending was
 * settled before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accumulate.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "flush.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * So many in one flush; more are there only after a start, and then the next one
 * follows at once.
 */
#define LEVELS_PER_FLUSH	5000

/* An error may have left some relative of which the region does not tell */
static bool unsettled = true;

/* What of resets this transaction stores, as the region numbers it */
static uint64 resets_stored;

/*
 * Note in the table series what was reset.  Done again it is the same, so the
 * region forgets it after the commit, and only if nothing was reset meanwhile.
 */
static void
store_resets(void)
{
	static const char query[] =
		"update meshhook_metrics.series s "
		"set reset_at = $1 "
		"where s.kind = 'gauge' "
		"and ($2 is null or s.metric = $2) "
		"and ($3 is null or s.tenant_id = $3) "
		"and (s.reset_at is null or s.reset_at < $1)";
	MhmReset	resets[MHM_RESETS];
	uint32		count;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	count = mhm_region->resets_count;
	memcpy(resets, mhm_region->resets, sizeof(resets));
	resets_stored = mhm_region->resets_noted;
	LWLockRelease(mhm_registry_lock);
	for (uint32 i = 0; i < count; i++)
	{
		Oid			types[] = {TIMESTAMPTZOID, TEXTOID, UUIDOID};
		Datum		values[3];
		char		nulls[] = "   ";

		values[0] = TimestampTzGetDatum(resets[i].at);
		values[1] = PointerGetDatum(cstring_to_text_with_len(resets[i].metric, resets[i].metric_length));
		nulls[1] = resets[i].metric_length == 0 ? 'n' : ' ';
		values[2] = UUIDPGetDatum(&resets[i].tenant);
		nulls[2] = resets[i].of_tenant ? ' ' : 'n';
		mhm_store_check(SPI_execute_with_args(query, 3, types, values, nulls, false, 0), query);
	}
}

/* The transaction that stored them has committed */
void
mhm_levels_committed(void)
{
	if (mhm_region->resets_count == 0)
		return;
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (mhm_region->resets_noted == resets_stored)
		mhm_region->resets_count = 0;
	LWLockRelease(mhm_registry_lock);
}

/* The ids of gauges that have a row, as an array */
static Datum
known_ids(const MhmFlush *keys)
{
	Datum	   *ids = palloc((keys->changes_count + 1) * sizeof(Datum));
	int			count = 0;

	for (uint32 i = 0; i < keys->changes_count; i++)
		if (keys->changes[i].id != 0)
			ids[count++] = Int64GetDatum(keys->changes[i].id);
	return PointerGetDatum(construct_array(ids, count, INT8OID, sizeof(int64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* Give a gauge its level, if it is still the one that was found */
static void
give_level(const MhmChange *key, double level)
{
	MhmSeries  *series = &mhm_series[key->number];

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	if (series->live == MHM_SERIES_LIVE && pg_atomic_read_u32(&series->generation) == key->generation)
		(void) mhm_level_give(key->number, level);
	LWLockRelease(mhm_registry_lock);
}

static int
compare_by_id(const void *a, const void *b)
{
	int64		left = ((const MhmChange *) a)->id;
	int64		right = ((const MhmChange *) b)->id;

	return left < right ? -1 : left > right;
}

/* Give gauges the levels that they have in storage; in the order of their ids */
static void
give_stored_levels(MhmFlush *keys)
{
	static const char query[] = "select l.series_id, l.level from meshhook_metrics.gauge_levels($1) l order by l.series_id";
	Oid			types[] = {INT8ARRAYOID};
	Datum		values[1];
	uint64		next = 0;

	mhm_series_find(keys);
	qsort(keys->changes, keys->changes_count, sizeof(MhmChange), compare_by_id);
	values[0] = known_ids(keys);
	mhm_store_check(SPI_execute_with_args(query, 1, types, values, NULL, false, 0), query);
	for (uint32 i = 0; i < keys->changes_count; i++)
	{
		const MhmChange *key = &keys->changes[i];
		double		level = 0;
		bool		is_null;

		/* New to storage too, or without a level there: it began at 0 */
		if (key->id != 0 && next < SPI_processed &&
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[next], SPI_tuptable->tupdesc, 1, &is_null)) == key->id)
		{
			Datum		stored = SPI_getbinval(SPI_tuptable->vals[next++], SPI_tuptable->tupdesc, 2, &is_null);

			if (!is_null)
				level = DatumGetFloat8(stored);
		}
		give_level(key, isfinite(level) ? level : 0);
	}
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Have the gauges that are new in the region go on where storage has them.  False
 * when some were left for another flush.
 */
bool
mhm_levels_settle(void)
{
	MhmFlush	keys = {0};
	bool		complete;

	if (mhm_region->resets_count == 0 && !unsettled && !mhm_region->has_relative)
		return true;
	mhm_store_lock();
	if (mhm_region->resets_count > 0)
		store_resets();
	if (!unsettled && !mhm_region->has_relative)
		return true;
	unsettled = true;
	complete = mhm_flush_find_relative(&keys, LEVELS_PER_FLUSH);
	if (keys.changes_count > 0)
		give_stored_levels(&keys);
	unsettled = !complete;
	return complete;
}
