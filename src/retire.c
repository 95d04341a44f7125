/*-------------------------------------------------------------------------
 *
 * retire.c
 *	  How series leave memory: by reset(), of age, or to make room.
 *
 * Owns the retirement of series.  Called by reset(), by the flush worker once
 * a minute for what has been idle for long, and by the registry when a series
 * finds no room.  All but reset() take only series that nobody recorded to for
 * a time and whose samples storage has got.
 *
 * Which series make room depends on what there is no room in.  A tenant at its
 * quota gets room from series of its own; where the region is full, from those
 * of all.  Nobody waits for a search: each time that room is wanted, some
 * series are asked, from where the last search ended (a hand that goes around
 * the tenant's ring, or around all slots).  When all were asked and none gave
 * way, the next second is soon enough.
 *
 * The registry lock is held exclusively while series retire.  Those who go
 * through all slots do so in blocks, and leave it to others in between.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "registry.h"
#include "retire.h"
#include "tenant.h"
#include "utils/timestamp.h"

/*
 * Under pressure a series that nobody recorded to for so long gives way.
 * Twice the staleness of Prometheus, which has forgotten it by then.
 */
#define IDLE_BEFORE_RETIREMENT	(10 * USECS_PER_MINUTE)

/* So many series are asked when one more wants room */
#define ASKED_AT_ONCE		64

/* So many slots are gone through before others get the lock */
#define SLOTS_AT_ONCE				256

/* Those that retire together */
typedef struct Retiring
{
	uint32		count;
	uint32		series[SLOTS_AT_ONCE];
} Retiring;

/* What reset() and the worker choose series by */
typedef struct Choice
{
	const char *metric;			/* NULL: of all */
	uint32		metric_length;
	const pg_uuid_t *tenant;	/* NULL: of all */
	bool		unflushed;		/* those too whose samples storage has not got */
	TimestampTz idle_since;
} Choice;

/* Has storage got everything of this series? */
static bool
is_flushed(uint32 number)
{
	MhmTotals	totals;

	mhm_accumulate_read(number, &totals, NULL);
	return totals.count == mhm_series[number].flushed_count;
}

/* Has nobody recorded to it since a time?  By a clock that was set back: since now */
static bool
is_idle(MhmSeries *series, TimestampTz idle_since, TimestampTz now)
{
	TimestampTz updated_at = (TimestampTz) pg_atomic_read_u64(&series->updated_at);

	if (updated_at > now)
		pg_atomic_write_u64(&series->updated_at, (uint64) now);
	return updated_at < idle_since;
}

/*
 * A generation is odd while the series retires: then recorders are turned
 * away, look it up again and wait for us.  One that stays after all has the
 * generation that it had, by which the flush worker knows it.
 */
static void
begin_retiring(Retiring *retiring, uint32 number)
{
	mhm_series[number].live = MHM_SERIES_RETIRING;
	pg_atomic_fetch_add_u32(&mhm_series[number].generation, 1);
	retiring->series[retiring->count++] = number;
}

/* The retirement of a series has ended, one way or the other, or was cut short */
void
mhm_series_settle_generation(MhmSeries *series)
{
	if (pg_atomic_read_u32(&series->generation) % 2 == 0)
		return;
	if (series->live == MHM_SERIES_FREE)
		pg_atomic_fetch_add_u32(&series->generation, 1);
	else
		pg_atomic_fetch_sub_u32(&series->generation, 1);
}

/*
 * Remove the series that retire; with unflushed, those too whose samples
 * storage has not got.  Others stay.
 */
static uint32
finish_retiring(const Retiring *retiring, bool unflushed)
{
	uint32		removed = 0;

	if (retiring->count == 0)
		return 0;
	mhm_accumulate_quiesce();
	for (uint32 i = 0; i < retiring->count; i++)
	{
		uint32		number = retiring->series[i];

		if (unflushed || is_flushed(number))
		{
			mhm_registry_remove(number);
			removed++;
		}
		else
		{
			mhm_series[number].live = MHM_SERIES_LIVE;
			mhm_series_settle_generation(&mhm_series[number]);
		}
	}
	if (removed > 0)
		pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
	return removed;
}

static uint32
this_second(void)
{
	return (uint32) (GetCurrentTimestamp() / USECS_PER_SEC);
}

/* Is there somebody left to ask whether a series gives way? */
bool
mhm_retire_may_look(MhmDiscardReason reason, const MhmTenant *tenant)
{
	TimestampTz since;

	if (reason == MHM_DISCARD_TENANT_LIMIT)
		return tenant != NULL && tenant->series > 0 && tenant->asked_all_at != this_second();
	since = GetCurrentTimestamp() - mhm_region->last_retirement;
	return since < 0 || since >= USECS_PER_SEC;
}

/* Ask the next series around a tenant's ring */
static uint32
ask_series_of_tenant(MhmTenant *tenant)
{
	TimestampTz now = GetCurrentTimestamp();
	Retiring	retiring = {0};
	uint32		removed;

	for (int i = 0; i < ASKED_AT_ONCE && tenant->asked < tenant->series; i++)
	{
		uint32		number = tenant->hand;

		tenant->asked++;
		tenant->hand = mhm_tenant_links[number].next;
		if (is_idle(&mhm_series[number], now - IDLE_BEFORE_RETIREMENT, now) && is_flushed(number))
			begin_retiring(&retiring, number);
	}
	if (retiring.count == 0 && tenant->asked >= tenant->series)
	{
		tenant->asked = 0;
		tenant->asked_all_at = this_second();
	}
	else if (retiring.count > 0)
		tenant->asked = 0;

	/* With its last series the tenant may go */
	removed = finish_retiring(&retiring, false);
	return removed;
}

/* Ask the series in the next slots */
static uint32
ask_series_of_all(void)
{
	TimestampTz now = GetCurrentTimestamp();
	uint32		slots = mhm_region->geometry.series_slots;
	Retiring	retiring = {0};

	for (int i = 0; i < ASKED_AT_ONCE && mhm_region->asked < slots; i++)
	{
		uint32		number = mhm_region->hand % slots;

		mhm_region->asked++;
		mhm_region->hand = number + 1;
		if (mhm_series[number].live == MHM_SERIES_LIVE &&
			is_idle(&mhm_series[number], now - IDLE_BEFORE_RETIREMENT, now) && is_flushed(number))
			begin_retiring(&retiring, number);
	}
	if (retiring.count == 0 && mhm_region->asked >= slots)
		mhm_region->last_retirement = now;
	if (retiring.count > 0 || mhm_region->asked >= slots)
		mhm_region->asked = 0;
	return finish_retiring(&retiring, false);
}

/*
 * Have some idle series make room for another one.  Only a tenant's own make
 * room for it where it is at its quota: no tenant takes from the others.
 */
bool
mhm_retire_for_room(MhmDiscardReason reason, const pg_uuid_t *id)
{
	MhmTenant  *tenant = mhm_tenant_find(id);

	if (!mhm_retire_may_look(reason, tenant))
		return false;
	if (reason == MHM_DISCARD_TENANT_LIMIT)
		return ask_series_of_tenant(tenant) > 0;
	return ask_series_of_all() > 0;
}

/* Is a series one of those that are chosen?  metric is the number of theirs. */
static bool
is_chosen(uint32 number, const Choice *choice, uint32 metric, TimestampTz now)
{
	MhmSeries  *series = &mhm_series[number];

	return series->live &&
		(choice->metric == NULL || series->metric == metric) &&
		(choice->tenant == NULL || mhm_same_tenant(&series->tenant, choice->tenant)) &&
		(choice->unflushed || is_idle(series, choice->idle_since, now));
}

/*
 * Retire those of a block that are chosen.  The others get by while there are
 * none, for which the lock need not be held exclusively.
 */
static uint32
retire_block(uint32 from, const Choice *choice)
{
	uint32		until = Min(from + SLOTS_AT_ONCE, mhm_region->geometry.series_slots);
	TimestampTz now = GetCurrentTimestamp();
	Retiring	retiring = {0};
	uint32		metric = MHM_NONE;
	uint32		removed = 0;
	bool		any = false;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	if (choice->metric != NULL)
		metric = mhm_metric_find(choice->metric, choice->metric_length);
	for (uint32 i = from; i < until && !any; i++)
		any = is_chosen(i, choice, metric, now);
	LWLockRelease(mhm_registry_lock);
	if (!any)
		return 0;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (choice->metric != NULL)
		metric = mhm_metric_find(choice->metric, choice->metric_length);
	for (uint32 i = from; i < until; i++)
		if (is_chosen(i, choice, metric, now) && (choice->unflushed || is_flushed(i)))
			begin_retiring(&retiring, i);
	removed = finish_retiring(&retiring, choice->unflushed);
	LWLockRelease(mhm_registry_lock);
	return removed;
}

/* A metric that is reset is gone with its description, unless it is in use again */
static void
forget_description(const char *name, uint32 length)
{
	uint32		metric;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	metric = mhm_metric_find(name, length);
	if (metric != MHM_NONE && mhm_metrics[metric].series == 0)
		mhm_metric_forget(metric);
	LWLockRelease(mhm_registry_lock);
}

/*
 * Of gauges that rest, too, which only storage knows: their levels do not come back.
 * False where the metric is none of gauges.
 */
static bool
note_reset(const char *metric, uint32 metric_length, const pg_uuid_t *tenant)
{
	uint32		only = MHM_NONE;
	bool		noted;

	if (metric_length > MHM_MAX_METRIC_LENGTH)
		return false;
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (metric != NULL)
		only = mhm_metric_find(metric, metric_length);
	noted = only == MHM_NONE || mhm_metrics[only].kind == MHM_GAUGE;
	if (noted)
		mhm_resets_note(metric == NULL ? "" : metric, metric_length, tenant);
	LWLockRelease(mhm_registry_lock);
	return noted;
}

/*
 * Forget series and all that was recorded in them: of one metric or of all,
 * of one tenant or of all.  Returns how many.  What is recorded meanwhile may
 * or may not be among them.
 */
int64
mhm_registry_reset(const char *metric, uint32 metric_length, const pg_uuid_t *tenant)
{
	Choice		choice = {metric, metric_length, tenant, true, 0};
	bool		of_gauges = note_reset(metric, metric_length, tenant);
	int64		removed = 0;

	for (uint32 from = 0; from < mhm_region->geometry.series_slots; from += SLOTS_AT_ONCE)
	{
		CHECK_FOR_INTERRUPTS();
		removed += retire_block(from, &choice);
	}
	/* Again: meanwhile a flush may have stored what has gone just now */
	if (of_gauges && removed > 0)
		(void) note_reset(metric, metric_length, tenant);
	if (metric != NULL && tenant == NULL)
		forget_description(metric, metric_length);
	return removed;
}

/* Retire the flushed series that nobody recorded to since a time */
uint32
mhm_registry_retire_idle(TimestampTz idle_since)
{
	Choice		choice = {NULL, 0, NULL, false, idle_since};
	uint32		removed = 0;

	for (uint32 from = 0; from < mhm_region->geometry.series_slots; from += SLOTS_AT_ONCE)
		removed += retire_block(from, &choice);
	return removed;
}

/* Of these slots; others get by while there is nothing to do */
static bool
retire_superseded_block(uint32 from)
{
	uint32		until = Min(from + SLOTS_AT_ONCE, mhm_region->geometry.series_slots);
	Retiring	retiring = {0};
	bool		any = false;
	bool		left = false;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	for (uint32 i = from; i < until && !any; i++)
		any = mhm_series[i].live == MHM_SERIES_LIVE && mhm_series_is_superseded(&mhm_series[i]);
	LWLockRelease(mhm_registry_lock);
	if (!any)
		return false;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = from; i < until; i++)
	{
		if (mhm_series[i].live != MHM_SERIES_LIVE || !mhm_series_is_superseded(&mhm_series[i]))
			continue;
		if (is_flushed(i))
			begin_retiring(&retiring, i);
		else
		{
			/* From even to even: it goes on living */
			pg_atomic_fetch_add_u32(&mhm_series[i].generation, 2);
			left = true;
		}
	}
	(void) finish_retiring(&retiring, false);
	LWLockRelease(mhm_registry_lock);
	return left;
}

/*
 * Have nobody record to what is superseded any more, and retire what of it has been
 * flushed.  Returns whether something is left for later.  Called by the flush worker,
 * which knows by the generation what it flushes: so never during a flush, nor while
 * one is pending.
 *
 * Nothing is lost or counted twice.  Whoever knows the series by its old generation is
 * turned away, looks its key up under the registry lock and finds, or makes, the one
 * of the window that is known now.  A sample that passed the generation before it
 * changed still arrives, in a series that is flushed like any other, and that is
 * removed as any other that retires: when all stripes have been left and storage has
 * everything.  Killed at any instruction, a generation has changed or has not; the
 * windows say what is superseded.
 */
bool
mhm_registry_retire_superseded(void)
{
	bool		left = false;

	if (mhm_region->pending_tick != 0)
		return true;
	for (uint32 from = 0; from < mhm_region->geometry.series_slots; from += SLOTS_AT_ONCE)
		left |= retire_superseded_block(from);
	return left;
}
