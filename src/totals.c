/*-------------------------------------------------------------------------
 *
 * totals.c
 *	  Reading what has been added to a series, and taking it for a flush.
 *
 * Owns the rule by which count, sum, buckets and extremes that are read belong
 * to the same samples.  Called by whoever shows or moves series (collect.c) and
 * by the flush worker, with the registry lock held so that the series stays.
 *
 * Taking.  min and max of a series are those since the last flush; a flush
 * takes them by exchange and keeps them in the series until its transaction
 * has ended: stored, they are dropped, else they go back.  lifetime_min and
 * lifetime_max keep what snapshot() shows.  Only the flush worker takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "accumulate.h"

#define READ_ATTEMPTS			8

/* Sum up the cells of a series; each is read whole, at a moment of its own */
static void
read_cells(uint32 series, uint64 *count, double *sum)
{
	*count = 0;
	*sum = 0;
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		MhmCell    *cell = mhm_cell(i, series);

		mhm_stripe_hold(i);
		*count += cell->count;
		*sum += cell->sum;
		mhm_stripe_leave(i);
	}
}

static uint64
read_buckets(const MhmHistogramBody *body, uint64 *counts)
{
	uint64		total = 0;

	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
	{
		counts[bucket] = pg_atomic_read_u64((pg_atomic_uint64 *) &body->counts[bucket]);
		total += counts[bucket];
	}
	return total;
}

/*
 * Read the totals of a series, and with counts the buckets of a histogram.
 *
 * A bucket and its cell change together within one holding of a stripe.  So
 * when no cell changed between two readings of all cells (their counts only
 * grow), the buckets read in between belong to exactly those cells.  Under a
 * load that never leaves such a gap the last attempt stands: then count is
 * still the sum of the buckets that are returned, and sum may lead or lag by
 * the samples of the microsecond of reading.
 */
void
mhm_accumulate_read(uint32 number, MhmTotals *totals, uint64 *counts)
{
	MhmSeries  *series = &mhm_series[number];
	double		min;
	double		max;

	read_cells(number, &totals->count, &totals->sum);
	if (series->histogram != MHM_NONE && counts != NULL)
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
		{
			uint64		before = totals->count;
			uint64		in_buckets = read_buckets(body, counts);

			read_cells(number, &totals->count, &totals->sum);
			if (totals->count == before)
				break;
			if (attempt == READ_ATTEMPTS - 1)
				totals->count = in_buckets;
		}
	}

	totals->last = mhm_float8_of_bits(pg_atomic_read_u64(&series->last));
	totals->updated_at = (TimestampTz) pg_atomic_read_u64(&series->updated_at);

	/* An extreme goes to the lifetime's before it leaves the interval's */
	min = mhm_float8_of_bits(pg_atomic_read_u64(&series->min));
	max = mhm_float8_of_bits(pg_atomic_read_u64(&series->max));
	pg_read_barrier();
	totals->min = Min(min, mhm_float8_of_bits(pg_atomic_read_u64(&series->lifetime_min)));
	totals->max = Max(max, mhm_float8_of_bits(pg_atomic_read_u64(&series->lifetime_max)));
}

/*
 * Move the extremes of the interval to where a flush takes them from.  Killed
 * in between, they are in both places: extending is idempotent.  The lifetime's
 * come first, so that who reads the interval's and then those misses nothing.
 */
static void
take_extremes(MhmSeries *series)
{
	uint64		seen = pg_atomic_read_u64(&series->min);

	do
	{
		mhm_extend_min(&series->lifetime_min, mhm_float8_of_bits(seen));
		mhm_extend_min(&series->taken_min, mhm_float8_of_bits(seen));
	} while (!pg_atomic_compare_exchange_u64(&series->min, &seen, mhm_bits_of_float8(INFINITY)));

	seen = pg_atomic_read_u64(&series->max);
	do
	{
		mhm_extend_max(&series->lifetime_max, mhm_float8_of_bits(seen));
		mhm_extend_max(&series->taken_max, mhm_float8_of_bits(seen));
	} while (!pg_atomic_compare_exchange_u64(&series->max, &seen, mhm_bits_of_float8(-INFINITY)));
}

/* What was taken has not been stored: it goes with the next flush */
void
mhm_accumulate_keep_taken(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];

	mhm_extend_min(&series->min, mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_min)));
	mhm_extend_max(&series->max, mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_max)));
	/* In this order: who is killed in between does it again */
	pg_write_barrier();
	mhm_accumulate_drop_taken(number);
}

/* What was taken has been stored */
void
mhm_accumulate_drop_taken(uint32 number)
{
	pg_atomic_write_u64(&mhm_series[number].taken_min, mhm_bits_of_float8(INFINITY));
	pg_atomic_write_u64(&mhm_series[number].taken_max, mhm_bits_of_float8(-INFINITY));
}

/* Gauge or histogram: what must belong together, read once */
static void
take_once(MhmSeries *series, MhmTotals *totals, uint64 *counts)
{
	if (counts != NULL)
		(void) read_buckets(&mhm_histograms[series->histogram], counts);
	take_extremes(series);
	totals->last = mhm_float8_of_bits(pg_atomic_read_u64(&series->last));
}

/*
 * Read what a flush stores: totals, buckets (where counts is given), and as
 * min and max those of the samples since the last flush, which are taken.
 * Everything belongs to exactly the same samples.
 *
 * A counter has nothing but its cells.  For the others it is as in
 * mhm_accumulate_read(): whatever happens between two readings of the cells
 * that find the same counts happens while nobody records to the series.  When
 * that never comes, every stripe is held for the microsecond that it takes; no
 * recorder holds two, so nobody can be waiting for us in a circle.
 */
void
mhm_accumulate_take(uint32 number, MhmTotals *totals, uint64 *counts)
{
	MhmSeries  *series = &mhm_series[number];
	uint32		stripes = mhm_region->geometry.stripes;

	read_cells(number, &totals->count, &totals->sum);
	totals->last = 0;
	totals->min = INFINITY;
	totals->max = -INFINITY;
	if (series->kind == MHM_COUNTER)
		return;

	for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
	{
		uint64		before = totals->count;

		take_once(series, totals, counts);
		read_cells(number, &totals->count, &totals->sum);
		if (totals->count == before)
			goto taken;
		mhm_accumulate_keep_taken(number);
	}

	for (uint32 i = 0; i < stripes; i++)
		mhm_stripe_hold(i);
	totals->count = 0;
	totals->sum = 0;
	for (uint32 i = 0; i < stripes; i++)
	{
		totals->count += mhm_cell(i, number)->count;
		totals->sum += mhm_cell(i, number)->sum;
	}
	take_once(series, totals, counts);
	for (uint32 i = stripes; i-- > 0;)
		mhm_stripe_leave(i);

taken:
	totals->min = mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_min));
	totals->max = mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_max));
}

void
mhm_accumulate_read_discarded(uint64 discarded[MHM_DISCARD_REASONS])
{
	memset(discarded, 0, sizeof(uint64) * MHM_DISCARD_REASONS);
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		mhm_stripe_hold(i);
		for (int reason = 0; reason < MHM_DISCARD_REASONS; reason++)
			discarded[reason] += mhm_stripes[i].stripe.discarded[reason];
		mhm_stripe_leave(i);
	}
}
