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
 * Sums are the interval's own too: a sum that 1e17 was once added to would not
 * show a 5.  So taking moves what is in each cell to taken_sum, where it stays,
 * and more comes, until it is stored; and adds it to what came earlier.  That is
 * done holding the cell's stripe and under its intent, which says what taken_sum
 * and the earlier sum are afterwards: the three stores can be done again, in any
 * order, by who recovers, and nobody else has the stripe until then.
 *	  What is shown of a cell is earlier + sum, rounded once.  Moving makes that
 * the earlier sum, so it changes nothing that is shown, and no counter is ever
 * seen to go down.  It costs what any sum of doubles does: once it is 1e17, it
 * does not show a 5 that a flush brings.  What is stored is not made of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accumulate.h"

#define READ_ATTEMPTS			8

/* How many samples a series has; each cell is read at a moment of its own */
uint64
mhm_accumulate_count(uint32 series)
{
	uint64		count = 0;

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		mhm_stripe_hold(i);
		count += mhm_cell(i, series)->count;
		mhm_stripe_leave(i);
	}
	return count;
}

/* Sum up the cells of a series; each is read whole, at a moment of its own */
static void
read_cells(uint32 series, MhmTotals *totals)
{
	totals->count = 0;
	totals->sum = 0;
	totals->in_cells = 0;
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		MhmCell    *cell = mhm_cell(i, series);

		mhm_stripe_hold(i);
		totals->count += cell->count;
		totals->in_cells = mhm_saturated(totals->in_cells + cell->sum);
		totals->sum = mhm_saturated(totals->sum + mhm_saturated(*mhm_earlier(i, series) + cell->sum));
		mhm_stripe_leave(i);
	}
}

/* Move the sum of a cell to where a flush takes it from; its stripe is held */
static void
take_cell(uint32 stripe, uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmCell    *cell = mhm_cell(stripe, number);
	double	   *earlier = mhm_earlier(stripe, number);
	MhmIntent  *intent = &mhm_stripes[stripe].stripe.intent;

	if (cell->sum == 0)
		return;
	intent->series = number;
	intent->sum = mhm_saturated(series->taken_sum + cell->sum);
	intent->value = mhm_saturated(*earlier + cell->sum);
	pg_compiler_barrier();
	intent->phase = MHM_INTENT_TAKING;
	pg_compiler_barrier();
	series->taken_sum = intent->sum;
	*earlier = intent->value;
	cell->sum = 0;
	pg_compiler_barrier();
	intent->phase = MHM_INTENT_NONE;
}

/*
 * Take the sums of all cells, each at a moment of its own, and count the samples
 * that taken_sum has then, with those that are stored.
 */
static uint64
take_cells(uint32 number)
{
	uint64		count = 0;

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		mhm_stripe_hold(i);
		count += mhm_cell(i, number)->count;
		take_cell(i, number);
		mhm_stripe_leave(i);
	}
	return count;
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

	read_cells(number, totals);
	if (series->histogram != MHM_NONE && counts != NULL)
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
		{
			uint64		before = totals->count;
			uint64		in_buckets = read_buckets(body, counts);

			read_cells(number, totals);
			if (totals->count == before)
				break;
			if (attempt == READ_ATTEMPTS - 1)
				totals->count = in_buckets;
		}
	}

	totals->last = mhm_last(number);
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

static void
drop_extremes(MhmSeries *series)
{
	pg_atomic_write_u64(&series->taken_min, mhm_bits_of_float8(INFINITY));
	pg_atomic_write_u64(&series->taken_max, mhm_bits_of_float8(-INFINITY));
}

/*
 * What was taken has not been stored: it goes with the next flush.  taken_sum stays,
 * since sums that were taken twice are only added up.
 */
void
mhm_accumulate_keep_taken(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];

	mhm_extend_min(&series->min, mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_min)));
	mhm_extend_max(&series->max, mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_max)));
	/* In this order: who is killed in between does it again */
	pg_write_barrier();
	drop_extremes(series);
}

/* What was taken has been stored; nothing was taken since, so all of taken_sum has */
void
mhm_accumulate_drop_taken(uint32 number)
{
	mhm_series[number].taken_sum = 0;
	drop_extremes(&mhm_series[number]);
}

/* Gauge or histogram: what must belong together, read once */
static void
take_once(uint32 number, MhmTotals *totals, uint64 *counts)
{
	if (counts != NULL)
		(void) read_buckets(&mhm_histograms[mhm_series[number].histogram], counts);
	take_extremes(&mhm_series[number]);
	totals->last = mhm_last(number);
}

/*
 * Read what a flush stores: count and buckets (where counts is given) of all time,
 * and as sum, min and max those of the samples since the last flush, which are taken.
 * Everything belongs to exactly the same samples.  An attempt that is given up leaves
 * its sums taken: the next one adds what came since.
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

	totals->count = take_cells(number);
	totals->sum = series->taken_sum;
	totals->last = 0;
	totals->min = INFINITY;
	totals->max = -INFINITY;
	if (series->kind == MHM_COUNTER)
		return;

	for (int attempt = 0; attempt < READ_ATTEMPTS; attempt++)
	{
		uint64		before = totals->count;

		take_once(number, totals, counts);
		totals->count = take_cells(number);
		if (totals->count == before)
			goto taken;
		mhm_accumulate_keep_taken(number);
	}

	for (uint32 i = 0; i < stripes; i++)
		mhm_stripe_hold(i);
	totals->count = 0;
	for (uint32 i = 0; i < stripes; i++)
	{
		totals->count += mhm_cell(i, number)->count;
		take_cell(i, number);
	}
	take_once(number, totals, counts);
	for (uint32 i = stripes; i-- > 0;)
		mhm_stripe_leave(i);

taken:
	totals->sum = series->taken_sum;
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
