/*-------------------------------------------------------------------------
 *
 * levels.c
 *	  The level that a gauge had before this region knew it.
 *
 * Owns the passage of a gauge from relative to absolute, and what is remembered
 * of resets.  A series of a gauge is new in the region although the gauge is
 * not: it rested for a day, the region was lost with the operating system, or a
 * standby was promoted.  gauge_set() does not care; but gauge_add() says only by
 * how much.  So a new gauge is relative until somebody sets it, or until the
 * flush worker has looked up what storage has of it (flushlevels.c) and gives it
 * that level.  No flush takes a relative gauge, so what is in storage is of the
 * time before.  (A copy of a data directory is the exception: what its server may
 * have stored of a relative gauge is noted as MhmLevel.stored, and taken off.)
 *
 * Giving a level moves everything by it: the value, minimum and maximum, and
 * the sum, once for each sample.  The flush worker holds the registry lock shared,
 * so that the series stays, and every stripe, so that nobody records; for the time
 * of some thirty stores.  No recorder holds two stripes, so nobody waits in a circle.
 *	  Killed at any instruction: what everything is afterwards is noted in the
 * header first (the intent), then armed, then stored; who recovers stores it
 * again.  Before it is armed nothing has changed, and the level is looked up again;
 * afterwards the gauge is no longer relative.  While it is armed no stripe has an
 * intent of its own, since their holder is the one who armed it.  So nothing
 * depends on whether the flush that follows is committed.
 *
 * Resets.  A gauge that was reset begins at 0, not where it was in storage.  The
 * region notes what was reset, with the registry lock held exclusively, before
 * anything is removed; the flush worker brings that to the table series before it
 * looks up any level.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accumulate.h"
#include "utils/timestamp.h"

static double
moved_extreme(pg_atomic_uint64 *word, double by)
{
	double		extreme = mhm_float8_of_bits(pg_atomic_read_u64(word));

	return isfinite(extreme) ? mhm_saturated(extreme + by) : extreme;
}

/* What a relative gauge holds when it had this level before; all stripes are held */
static void
plan_level(uint32 number, double level, MhmLevelIntent *intent)
{
	MhmSeries  *series = &mhm_series[number];
	double		by = mhm_saturated(level - mhm_levels[number].stored);
	uint64		count = 0;

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
		count += mhm_cell(i, number)->count;
	intent->series = number;
	intent->last = mhm_saturated(mhm_last(number) + by);
	intent->min = moved_extreme(&series->min, by);
	intent->max = moved_extreme(&series->max, by);
	intent->lifetime_min = moved_extreme(&series->lifetime_min, by);
	intent->lifetime_max = moved_extreme(&series->lifetime_max, by);
	intent->taken_sum = mhm_saturated(series->taken_sum +
									  mhm_saturated(by * (double) (count - series->flushed_count)));
	intent->earlier = mhm_saturated(*mhm_earlier(0, number) + mhm_saturated(by * (double) count));
}

static void
apply_level(const MhmLevelIntent *intent)
{
	MhmSeries  *series = &mhm_series[intent->series];

	pg_atomic_write_u64(&series->min, mhm_bits_of_float8(intent->min));
	pg_atomic_write_u64(&series->max, mhm_bits_of_float8(intent->max));
	pg_atomic_write_u64(&series->lifetime_min, mhm_bits_of_float8(intent->lifetime_min));
	pg_atomic_write_u64(&series->lifetime_max, mhm_bits_of_float8(intent->lifetime_max));
	series->taken_sum = intent->taken_sum;
	*mhm_earlier(0, intent->series) = intent->earlier;
	pg_atomic_write_u64(&series->last, mhm_bits_of_float8(intent->last));
}

/*
 * Give a gauge the level that it had before.  False when it is not relative any
 * more: then nothing has changed.  For the flush worker, with the registry lock held.
 */
bool
mhm_level_give(uint32 number, double level)
{
	MhmLevelIntent *intent = &mhm_region->level_intent;
	uint32		stripes = mhm_region->geometry.stripes;
	bool		relative;

	for (uint32 i = 0; i < stripes; i++)
		mhm_stripe_hold(i);
	relative = mhm_is_relative(&mhm_series[number]);
	if (relative)
	{
		plan_level(number, level, intent);
		pg_compiler_barrier();
		intent->armed = true;
		pg_compiler_barrier();
		apply_level(intent);
		pg_compiler_barrier();
		intent->armed = false;
	}
	for (uint32 i = stripes; i-- > 0;)
		mhm_stripe_leave(i);
	return relative;
}

/* For recovery: finish what a killed worker was doing */
void
mhm_level_redo(void)
{
	MhmLevelIntent *intent = &mhm_region->level_intent;

	if (intent->armed)
		apply_level(intent);
	pg_compiler_barrier();
	intent->armed = false;
	mhm_region->has_relative = true;
}

bool
mhm_level_intent_makes_sense(void)
{
	const MhmLevelIntent *intent = &mhm_region->level_intent;

	return !intent->armed ||
		(intent->series < mhm_region->geometry.series_slots &&
		 mhm_series[intent->series].live && mhm_series[intent->series].kind == MHM_GAUGE);
}

static bool
is_of(const MhmReset *reset, const char *metric, uint32 metric_length, const pg_uuid_t *tenant)
{
	return reset->metric_length == metric_length &&
		memcmp(reset->metric, metric, metric_length) == 0 &&
		reset->of_tenant == (tenant != NULL) &&
		(tenant == NULL || memcmp(&reset->tenant, tenant, sizeof(*tenant)) == 0);
}

/*
 * Note that gauges are being reset: of one metric or, with no name, of all; of one
 * tenant or of all.  The caller holds the registry lock exclusively.  Where there is
 * no room for another note before a flush has brought them to storage, one stands
 * for all: each step of widening it covers what it covered before.
 */
void
mhm_resets_note(const char *metric, uint32 metric_length, const pg_uuid_t *tenant)
{
	TimestampTz now = GetCurrentTimestamp();
	MhmReset   *reset = mhm_region->resets;
	uint32		count = mhm_region->resets_count;

	for (uint32 i = 0; i < count; i++)
		if (is_of(&reset[i], metric, metric_length, tenant))
		{
			reset[i].at = now;
			mhm_region->resets_noted++;
			return;
		}
	if (count == MHM_RESETS)
	{
		reset->at = now;
		reset->of_tenant = false;
		pg_write_barrier();
		reset->metric_length = 0;
		count = 0;
	}
	else
	{
		reset += count;
		reset->at = now;
		reset->of_tenant = (tenant != NULL);
		if (tenant != NULL)
			reset->tenant = *tenant;
		reset->metric_length = metric_length;
		memcpy(reset->metric, metric, metric_length);
	}
	/* Killed before this, nothing was reset */
	pg_write_barrier();
	mhm_region->resets_count = count + 1;
	mhm_region->resets_noted++;
}

/* Is there little room for notes?  Half of it is for those who ask at the same time. */
bool
mhm_resets_fill_up(void)
{
	bool		fill_up;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	fill_up = mhm_region->resets_count >= MHM_RESETS / 2;
	LWLockRelease(mhm_registry_lock);
	return fill_up;
}

bool
mhm_resets_make_sense(void)
{
	if (mhm_region->resets_count > MHM_RESETS)
		return false;
	for (uint32 i = 0; i < mhm_region->resets_count; i++)
		if (mhm_region->resets[i].metric_length > MHM_MAX_METRIC_LENGTH ||
			!IS_VALID_TIMESTAMP(mhm_region->resets[i].at))
			return false;
	return true;
}
