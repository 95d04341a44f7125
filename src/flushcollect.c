/*-------------------------------------------------------------------------
 *
 * flushcollect.c
 *	  What has changed since the last flush, and that it is stored now.
 *
 * Owns the fields flushed_* of series and flushed[] of histograms.  Called by
 * the flush worker only, so nobody else changes them; the registry, which
 * retires what is flushed, looks at them with its lock held exclusively.
 *
 * The registry lock is held shared for a block of series at a time, so that
 * who makes a series waits for microseconds; recording goes on meanwhile.
 * Between taking and noting that it is stored a series may be reset and its
 * slot used again: the generation tells.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "accumulate.h"
#include "flush.h"
#include "histogram.h"
#include "labels.h"
#include "miscadmin.h"
#include "registry.h"
#include "stringstore.h"
#include "utils/memutils.h"

/* So many series are looked at while the lock is held */
#define BLOCK				256

#define TEXT_PER_SERIES		(MHM_MAX_METRIC_LENGTH + MHM_MAX_LABELS_LENGTH)

/* Copies of a block of changed series, made while the lock is held */
typedef struct Block
{
	uint32		used;
	Size		text_used;
	MhmChange	changes[BLOCK];
	int			min_exponents[BLOCK];
	uint64		counts[BLOCK][MHM_COUNTS];
	uint64		flushed[BLOCK][MHM_COUNTS];
	char		text[BLOCK * TEXT_PER_SERIES];
} Block;

static const char *
copy_string(Block *block, MhmString string)
{
	char	   *copy = block->text + block->text_used;

	mhm_string_copy(string, copy);
	block->text_used += string.length;
	return copy;
}

/* Which series a change is of */
static MhmChange *
begin_change(Block *block, uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmMetric  *metric = &mhm_metrics[series->metric];
	MhmChange  *change = &block->changes[block->used++];

	memset(change, 0, sizeof(*change));
	change->number = number;
	change->generation = pg_atomic_read_u32(&series->generation);
	change->tenant = series->tenant;
	change->kind = series->kind;
	change->overflow = series->overflow;
	change->metric = copy_string(block, metric->name);
	change->metric_length = metric->name.length;
	change->labels = copy_string(block, series->labels);
	change->labels_length = series->labels.length;
	return change;
}

/* Take one series, if anything has come to it */
static void
take_series(Block *block, uint32 number, bool relative_too)
{
	MhmSeries  *series = &mhm_series[number];
	MhmChange  *change;
	MhmTotals	totals;
	bool		relative;

	if (mhm_accumulate_count(number) == series->flushed_count)
		return;
	/* Read once: somebody may set it now, and then the next flush has it */
	relative = series->kind == MHM_GAUGE && mhm_is_relative(series);
	if (relative && !relative_too)
		return;
	if (series->histogram == MHM_NONE)
		mhm_accumulate_take(number, &totals, NULL);
	else
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		mhm_accumulate_take(number, &totals, block->counts[block->used]);
		memcpy(block->flushed[block->used], body->flushed, sizeof(body->flushed));
		block->min_exponents[block->used] = body->min_exponent;
	}

	change = begin_change(block, number);
	change->count = totals.count - series->flushed_count;
	change->sum = totals.sum;
	change->min = totals.min;
	change->max = totals.max;
	change->last = totals.last;
	change->count_after = totals.count;
	change->relative = relative;
}

/* A histogram of the interval, and which buckets it changes to what */
static void
finish_histogram(MhmChange *change, int min_exponent, const uint64 *counts, const uint64 *flushed)
{
	uint64		since[MHM_COUNTS];
	uint16		changed[MHM_COUNTS];

	change->min_exponent = min_exponent;
	for (int i = 0; i < MHM_COUNTS; i++)
	{
		since[i] = counts[i] - flushed[i];
		if (since[i] != 0)
			changed[change->buckets_count++] = (uint16) i;
	}
	change->buckets = palloc(change->buckets_count * sizeof(uint16) + 1);
	change->buckets_after = palloc(change->buckets_count * sizeof(uint64) + 1);
	memcpy(change->buckets, changed, change->buckets_count * sizeof(uint16));
	for (uint32 i = 0; i < change->buckets_count; i++)
		change->buckets_after[i] = counts[changed[i]];
	change->histogram = mhm_histogram_from_window(min_exponent, since, since[MHM_COUNT_ZERO],
												  since[MHM_COUNT_OVERFLOW],
												  change->sum, change->min, change->max);
}

/* Bring a block into memory that lasts as long as the flush */
static void
finish_block(MhmFlush *flush, Block *block)
{
	char	   *text = palloc(block->text_used + 1);

	memcpy(text, block->text, block->text_used);
	for (uint32 i = 0; i < block->used; i++)
	{
		MhmChange  *change = &flush->changes[flush->changes_count++];

		*change = block->changes[i];
		change->metric = text + (change->metric - block->text);
		change->labels = text + (change->labels - block->text);
		if (change->kind == MHM_HISTOGRAM)
			finish_histogram(change, block->min_exponents[i], block->counts[i], block->flushed[i]);
	}
}

/*
 * Take everything that has changed; in the current memory context.  Gauges whose
 * level is not known yet are left to a later flush, unless they are wanted too.
 */
void
mhm_flush_collect(MhmFlush *flush, bool relative_too)
{
	uint32		slots = mhm_region->geometry.series_slots;
	Block	   *block = palloc(sizeof(Block));

	flush->changes = MemoryContextAllocHuge(CurrentMemoryContext, slots * sizeof(MhmChange));
	flush->changes_count = 0;
	for (uint32 first = 0; first < slots; first += BLOCK)
	{
		block->used = 0;
		block->text_used = 0;
		LWLockAcquire(mhm_registry_lock, LW_SHARED);
		for (uint32 i = first; i < Min(first + BLOCK, slots); i++)
			if (mhm_series[i].live == MHM_SERIES_LIVE)
				take_series(block, i, relative_too);
		LWLockRelease(mhm_registry_lock);
		finish_block(flush, block);
		CHECK_FOR_INTERRUPTS();
	}
	pfree(block);
}

/*
 * Find the gauges whose level is not known, at most so many; false when there are
 * more.  In the current memory context; nothing is taken.
 */
bool
mhm_flush_find_relative(MhmFlush *keys, uint32 most)
{
	uint32		slots = mhm_region->geometry.series_slots;
	Block	   *block = palloc(sizeof(Block));
	bool		complete = true;

	keys->changes = MemoryContextAllocHuge(CurrentMemoryContext, (most + BLOCK) * sizeof(MhmChange));
	keys->changes_count = 0;
	for (uint32 first = 0; first < slots; first += BLOCK)
	{
		block->used = 0;
		block->text_used = 0;
		LWLockAcquire(mhm_registry_lock, LW_SHARED);
		/* Whoever makes another one says so again */
		if (first == 0)
			mhm_region->has_relative = false;
		for (uint32 i = first; i < Min(first + BLOCK, slots); i++)
			if (mhm_series[i].live == MHM_SERIES_LIVE && mhm_series[i].kind == MHM_GAUGE &&
				mhm_is_relative(&mhm_series[i]))
				(void) begin_change(block, i);
		LWLockRelease(mhm_registry_lock);
		finish_block(keys, block);
		CHECK_FOR_INTERRUPTS();
		if (keys->changes_count >= most)
		{
			complete = false;
			break;
		}
	}
	pfree(block);
	return complete;
}

/*
 * Note what of a series is stored.  Every value is absolute, so doing it again
 * after a crash in the middle is the same.  The caller holds the registry lock.
 */
bool
mhm_flush_apply_to(uint32 number, uint64 count, uint32 buckets_count,
				   const uint16 *buckets, const uint64 *buckets_after)
{
	MhmSeries  *series = &mhm_series[number];

	if (buckets_count > 0)
	{
		MhmHistogramBody *body;

		if (series->histogram == MHM_NONE)
			return false;
		body = &mhm_histograms[series->histogram];
		for (uint32 i = 0; i < buckets_count; i++)
			body->flushed[buckets[i]] = buckets_after[i];
	}
	series->flushed_count = count;
	mhm_accumulate_drop_taken(number);
	return true;
}

/* The flush has been committed */
void
mhm_flush_apply(const MhmFlush *flush)
{
	for (uint32 first = 0; first < flush->changes_count; first += BLOCK)
	{
		LWLockAcquire(mhm_registry_lock, LW_SHARED);
		for (uint32 i = first; i < Min(first + BLOCK, flush->changes_count); i++)
		{
			MhmChange  *change = &flush->changes[i];
			MhmSeries  *series = &mhm_series[change->number];

			if (series->live != MHM_SERIES_LIVE ||
				pg_atomic_read_u32(&series->generation) != change->generation)
				continue;
			(void) mhm_flush_apply_to(change->number, change->count_after, change->buckets_count,
									  change->buckets, change->buckets_after);
			mhm_levels[change->number].stored = change->relative ? change->last : 0;
		}
		LWLockRelease(mhm_registry_lock);
	}
}

/* What was taken of one series is left to the next flush */
void
mhm_flush_put_back(const MhmChange *change)
{
	MhmSeries  *series = &mhm_series[change->number];

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	if (series->live == MHM_SERIES_LIVE && series->kind != MHM_COUNTER &&
		pg_atomic_read_u32(&series->generation) == change->generation)
		mhm_accumulate_keep_taken(change->number);
	LWLockRelease(mhm_registry_lock);
}

/* Whatever was taken and is not stored goes with the next flush */
void
mhm_flush_keep_all_taken(void)
{
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		MhmSeries  *series = &mhm_series[i];

		if (series->live == MHM_SERIES_LIVE && series->kind != MHM_COUNTER)
			mhm_accumulate_keep_taken(i);
	}
	LWLockRelease(mhm_registry_lock);
}

/*
 * Storage has more of this region than the region knows of, and nothing tells
 * what: rather lose what came since than store anything twice.
 */
void
mhm_flush_give_up_unstored(void)
{
	MhmFlush	all = {0};

	mhm_flush_collect(&all, true);
	mhm_flush_apply(&all);
}
