/*-------------------------------------------------------------------------
 *
 * accumulate.c
 *	  Adding one sample to a series.
 *
 * Owns the stripes, the cells and the atomics of series and histograms.
 * Called with a series' number and generation by everything that records;
 * totals.c reads what has been added.  No function here allocates, raises an error
 * or makes a system call, but for the one that waits, and note_time(), which asks the
 * clock where a series was recorded to by one that is ahead.
 *
 * Stripes.  Every series has a cell (count and sum) in each stripe, and a
 * process adds to the cell of whatever stripe it holds, so two processes on
 * one series write to different cache lines.  A stripe is held by one
 * process at a time, for about twenty instructions.  Who finds its stripe
 * held takes another one and stays with that; only when all are held, each
 * by a process that was descheduled within those instructions, does it wait.
 *
 * Killed at any instruction.  The holder of a stripe notes in the stripe what
 * the cell will hold afterwards (the intent) before it changes anything.
 * Stores of one process reach memory in program order as far as anybody can
 * tell who looks after it is dead, so the compiler barriers below are all
 * that recovery needs.  Everything that an intent covers is either idempotent
 * (cell and discard counter get the noted value; min and max) or detectable:
 * the bucket of a histogram is added to atomically, since it belongs to all
 * stripes, and whether that has happened shows in the phase, and for the two
 * instructions in between in the difference between the sum of the buckets
 * and the sum of the cells' counts, which are equal whenever no sample is
 * half-way.  A flush moves the sum out of a cell under an intent of the same
 * kind (totals.c).  Thus a sample is in all of count, sum, bucket, min and max, or
 * in none of them.  (Two processes killed within those two instructions, on
 * one histogram, with different values: the difference tells how many buckets
 * are missing, not which.  Then every total is right, but one of the two may
 * be counted in the other's bucket.)  A gauge's value is one atomic word, written before the
 * intent: it is always exact, and at worst its statistics miss the sample.  A gauge
 * that nobody has set begins as relative, in a word of its own (levels.c); setting it
 * ends that with the one store of its value.
 *
 * Retirement.  mhm_accumulate() compares the generation while it holds a
 * stripe.  Who retires a series changes the generation first, then takes and
 * leaves every stripe in turn (mhm_accumulate_quiesce).  A process that held
 * a stripe before that has finished by then, and what it added is seen, by
 * the acquire and release of the stripe; a process that takes it afterwards
 * sees the new generation and adds nothing.  A generation comes again after
 * 2^31 retirements of one slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accumulate.h"
#include "compat.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"

#define SPINS_BEFORE_SLEEPING	200
#define SHORTEST_SLEEP_US		10
#define LONGEST_SLEEP_US		10000
#define STUCK_AFTER_US			(60 * 1000 * 1000L)

/* A counter's sum over all stripes, of which there are at most 1024, stays finite */
#define LARGEST_CELL_SUM		(DBL_MAX / 1024)

static uint32 my_stripe = MHM_NONE;

/* How long a process has been waiting for a stripe */
typedef struct StripeWait
{
	int			spins;
	long		sleep_us;
	long		slept_us;
} StripeWait;

/*
 * Wait a moment for a stripe.  A process that lost its postmaster must not
 * wait for a stripe whose holder was killed: nobody will clean up.  And as
 * with PostgreSQL's own spinlocks, one that stays held was left by a process
 * that ended without a crash; only a restart sets that right.
 */
static void
wait_for_stripe(StripeWait *wait)
{
	if (wait->spins++ < SPINS_BEFORE_SLEEPING)
	{
		pg_spin_delay();
		return;
	}
	if (IsUnderPostmaster && !PostmasterIsAlive())
		proc_exit(1);
	if (wait->slept_us > STUCK_AFTER_US)
		ereport(PANIC,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("a stripe of meshhook_metrics is stuck"),
				errdetail("The process that held it has ended within a few instructions of recording a sample."));
	wait->sleep_us = Min(Max(wait->sleep_us * 2, SHORTEST_SLEEP_US), LONGEST_SLEEP_US);
	wait->slept_us += wait->sleep_us;
	pg_usleep(wait->sleep_us);
}

/* The slow way to a stripe: go round until one is free */
static pg_noinline uint32
hold_another_stripe(void)
{
	uint32		stripes = mhm_region->geometry.stripes;
	StripeWait	wait = {0};

	if (my_stripe == MHM_NONE)
		my_stripe = (uint32) Max(mhm_process_number_compat(), 0) % stripes;
	for (;;)
	{
		for (uint32 i = 0; i < stripes; i++)
		{
			uint32		number = (my_stripe + i) % stripes;
			pg_atomic_flag *lock = &mhm_stripes[number].stripe.lock;

			if (pg_atomic_unlocked_test_flag(lock) && pg_atomic_test_set_flag(lock))
			{
				my_stripe = number;
				return number;
			}
		}
		wait_for_stripe(&wait);
	}
}

static inline uint32
hold_stripe(void)
{
	if (likely(my_stripe != MHM_NONE &&
			   pg_atomic_test_set_flag(&mhm_stripes[my_stripe].stripe.lock)))
		return my_stripe;
	return hold_another_stripe();
}

/* For those who need this very stripe: readers, the flush and retirement */
void
mhm_stripe_hold(uint32 number)
{
	pg_atomic_flag *lock = &mhm_stripes[number].stripe.lock;
	StripeWait	wait = {0};

	while (!pg_atomic_test_set_flag(lock))
		wait_for_stripe(&wait);
}

/* Add to a word, and say what it is now; no change if that would be infinite */
static inline double
add_to_word(pg_atomic_uint64 *word, double value)
{
	uint64		seen = pg_atomic_read_u64(word);
	double		sum;

	do
	{
		sum = mhm_float8_of_bits(seen) + value;
		if (unlikely(!isfinite(sum)))
			return sum;
	} while (!pg_atomic_compare_exchange_u64(word, &seen, mhm_bits_of_float8(sum)));
	return sum;
}

/*
 * Add to a gauge that was relative just now.
 *
 * A relative gauge becomes another one by a single store to `last`: by somebody
 * who sets it, at any moment, or by who gives it its level, while nobody holds a
 * stripe.  Who added to the relative word and then finds the gauge set has added
 * to a word that nobody reads any more, so it adds once more, after the setting.
 */
static pg_noinline double
add_to_relative(uint32 number, double value)
{
	pg_atomic_uint64 *last = &mhm_series[number].last;
	double		sum = add_to_word(&mhm_levels[number].relative, value);

	return isinf(sum) || pg_atomic_read_u64(last) == MHM_RELATIVE ? sum : add_to_word(last, value);
}

/*
 * Change a gauge's value, and say what it is now; false, and no change, if
 * it would be infinite.
 */
static inline bool
change_gauge(uint32 number, MhmOperation operation, double *value)
{
	pg_atomic_uint64 *last = &mhm_series[number].last;
	double		sum;

	if (operation == MHM_GAUGE_SET)
	{
		pg_atomic_write_u64(last, mhm_bits_of_float8(*value));
		return true;
	}
	/* MHM_RELATIVE is not a number, and stays so whatever is added to it */
	sum = add_to_word(last, *value);
	if (unlikely(isnan(sum)))
		sum = add_to_relative(number, *value);
	if (unlikely(isinf(sum)))
		return false;
	*value = sum;
	return true;
}

/* Which count of a histogram a value belongs to */
static inline uint32
count_of_value(const MhmHistogramBody *body, double value)
{
	int32		bucket;

	if (value <= 0.0)
		return MHM_COUNT_ZERO;
	bucket = mhm_bucket_index(value) - body->min_exponent * MHM_BUCKETS_PER_OCTAVE - 1;
	if (bucket < 0)
		return MHM_COUNT_ZERO;
	if (bucket >= MHM_HISTOGRAM_BUCKETS)
		return MHM_COUNT_OVERFLOW;
	return (uint32) bucket;
}

static inline void
note_time(MhmSeries *series, TimestampTz now)
{
	TimestampTz updated_at = (TimestampTz) pg_atomic_read_u64(&series->updated_at);

	/*
	 * What is far ahead is of a clock that was set back, unless ours is the time of a
	 * statement that began long ago.
	 */
	if (unlikely(updated_at - now > USECS_PER_MINUTE))
	{
		now = GetCurrentTimestamp();
		if (updated_at - now <= USECS_PER_MINUTE)
			return;
	}
	/* Once a second is enough, and keeps this line shared between caches */
	else if (now - updated_at < USECS_PER_SEC)
		return;
	pg_atomic_write_u64(&series->updated_at, (uint64) now);
}

/* Count a discard in a stripe that is held, when nothing else is at stake */
static inline void
discard_in(MhmStripe *stripe, MhmDiscardReason reason, uint64 calls)
{
	stripe->discarded[reason] += calls;
}

/*
 * Add a sample to a series: `calls` of them that sum up to value, for
 * MHM_INC; exactly one for the other operations.  The value is finite, and
 * the operation fits the kind: the callers have seen to that.
 *
 * False when the series was retired since the target was looked up: nothing
 * was added then, look it up again.
 */
bool
mhm_accumulate(const MhmTarget *target, MhmOperation operation, double value,
			   uint64 calls, TimestampTz now)
{
	uint32		number = hold_stripe();
	MhmStripe  *stripe = &mhm_stripes[number].stripe;
	MhmIntent  *intent = &stripe->intent;
	MhmSeries  *series = &mhm_series[target->series];
	MhmCell    *cell = mhm_cell(number, target->series);
	double		sum;
	bool		in_range;

	if (unlikely(pg_atomic_read_u32(&series->generation) != target->generation))
	{
		mhm_stripe_leave(number);
		return false;
	}

	if (operation == MHM_INC)
	{
		sum = cell->sum + value;
		in_range = fabs(sum) <= LARGEST_CELL_SUM;
	}
	else
	{
		in_range = operation == MHM_OBSERVE || change_gauge(target->series, operation, &value);
		sum = mhm_saturated(cell->sum + value);
	}
	if (unlikely(!in_range))
	{
		discard_in(stripe, MHM_DISCARD_OUT_OF_RANGE, calls);
		mhm_stripe_leave(number);
		return true;
	}

	intent->series = target->series;
	intent->bucket = MHM_NONE;
	intent->count = cell->count + calls;
	intent->sum = sum;
	intent->value = value;
	intent->reason = target->reason;
	if (unlikely(target->reason != MHM_DISCARD_NONE))
		intent->discarded = stripe->discarded[target->reason] + calls;
	if (operation == MHM_OBSERVE)
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		intent->bucket = count_of_value(body, value);
		pg_compiler_barrier();
		intent->phase = MHM_INTENT_ARMED;
		pg_compiler_barrier();
		pg_atomic_fetch_add_u64(&body->counts[intent->bucket], 1);
		pg_compiler_barrier();
		intent->phase = MHM_INTENT_BUCKET_COUNTED;
	}
	else
	{
		pg_compiler_barrier();
		intent->phase = MHM_INTENT_ARMED;
	}
	pg_compiler_barrier();
	cell->count = intent->count;
	cell->sum = sum;
	if (operation != MHM_INC)
	{
		mhm_extend_min(&series->min, value);
		mhm_extend_max(&series->max, value);
	}
	if (unlikely(target->reason != MHM_DISCARD_NONE))
		stripe->discarded[target->reason] = intent->discarded;
	pg_compiler_barrier();
	intent->phase = MHM_INTENT_NONE;

	note_time(series, now);
	mhm_stripe_leave(number);
	return true;
}

/* Count samples that go nowhere */
void
mhm_accumulate_discard(MhmDiscardReason reason, uint64 calls)
{
	uint32		number = hold_stripe();

	discard_in(&mhm_stripes[number].stripe, reason, calls);
	mhm_stripe_leave(number);
}

/* Return after everybody who held a stripe when we were called has left it */
void
mhm_accumulate_quiesce(void)
{
	/* The generations changed by the caller come before the first stripe */
	pg_memory_barrier();
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		mhm_stripe_hold(i);
		mhm_stripe_leave(i);
	}
}

/* Empty a slot that nobody records to: not in use yet, or not any more */
void
mhm_accumulate_clear(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		memset(mhm_cell(i, number), 0, sizeof(MhmCell));
		*mhm_earlier(i, number) = 0;
	}
	pg_atomic_write_u64(&series->last, series->kind == MHM_GAUGE ? MHM_RELATIVE : 0);
	pg_atomic_write_u64(&mhm_levels[number].relative, 0);
	mhm_levels[number].stored = 0;
	if (series->kind == MHM_GAUGE)
		mhm_region->has_relative = true;
	pg_atomic_write_u64(&series->min, mhm_bits_of_float8(INFINITY));
	pg_atomic_write_u64(&series->max, mhm_bits_of_float8(-INFINITY));
	pg_atomic_write_u64(&series->taken_min, mhm_bits_of_float8(INFINITY));
	pg_atomic_write_u64(&series->taken_max, mhm_bits_of_float8(-INFINITY));
	pg_atomic_write_u64(&series->lifetime_min, mhm_bits_of_float8(INFINITY));
	pg_atomic_write_u64(&series->lifetime_max, mhm_bits_of_float8(-INFINITY));
	series->flushed_count = 0;
	series->taken_sum = 0;
	if (series->histogram != MHM_NONE)
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		{
			pg_atomic_write_u64(&body->counts[bucket], 0);
			body->flushed[bucket] = 0;
		}
	}
}

/* By how much the buckets of a series' histogram lag behind its cells */
static int64
missing_in_buckets(uint32 number)
{
	MhmHistogramBody *body = &mhm_histograms[mhm_series[number].histogram];
	int64		missing = 0;

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
		missing += (int64) mhm_cell(i, number)->count;
	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		missing -= (int64) pg_atomic_read_u64(&body->counts[bucket]);
	return missing;
}

/* Add to a bucket what is missing there, and be done with the intent */
static void
redo_bucket(MhmIntent *intent, bool only_if_empty)
{
	if (intent->phase == MHM_INTENT_ARMED && intent->bucket != MHM_NONE)
	{
		MhmHistogramBody *body = &mhm_histograms[mhm_series[intent->series].histogram];
		pg_atomic_uint64 *count = &body->counts[intent->bucket];

		if (only_if_empty && pg_atomic_read_u64(count) != 0)
			return;
		if (missing_in_buckets(intent->series) > 0)
			pg_atomic_fetch_add_u64(count, 1);
	}
	pg_compiler_barrier();
	intent->phase = MHM_INTENT_NONE;
}

/*
 * Finish what processes were doing when they were killed.  Nobody else uses
 * the region now.  The intents have been checked: what they point to exists.
 *
 * When two processes died between the same two instructions on one histogram,
 * the difference says how many of their samples are missing but not which.
 * Then those come first whose bucket is empty, so that minimum and maximum
 * have a bucket, and every total is right.
 */
void
mhm_accumulate_redo(void)
{
	uint32		stripes = mhm_region->geometry.stripes;

	for (uint32 i = 0; i < stripes; i++)
	{
		MhmStripe  *stripe = &mhm_stripes[i].stripe;
		MhmIntent  *intent = &stripe->intent;
		MhmSeries  *series = &mhm_series[intent->series];
		MhmCell    *cell;

		if (intent->phase == MHM_INTENT_NONE)
			continue;
		cell = mhm_cell(i, intent->series);
		if (intent->phase == MHM_INTENT_TAKING)
		{
			series->taken_sum = intent->sum;
			*mhm_earlier(i, intent->series) = intent->value;
			cell->sum = 0;
			pg_compiler_barrier();
			intent->phase = MHM_INTENT_NONE;
			continue;
		}
		cell->count = intent->count;
		cell->sum = intent->sum;
		if (series->kind != MHM_COUNTER)
		{
			mhm_extend_min(&series->min, intent->value);
			mhm_extend_max(&series->max, intent->value);
		}
		if (intent->reason != MHM_DISCARD_NONE)
			stripe->discarded[intent->reason] = intent->discarded;
	}

	for (uint32 i = 0; i < stripes; i++)
		redo_bucket(&mhm_stripes[i].stripe.intent, true);
	for (uint32 i = 0; i < stripes; i++)
		redo_bucket(&mhm_stripes[i].stripe.intent, false);
	for (uint32 i = 0; i < stripes; i++)
		pg_atomic_init_flag(&mhm_stripes[i].stripe.lock);
}

static bool
extremes_are_numbers(MhmSeries *series)
{
	return !isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->min))) &&
		!isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->max))) &&
		!isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_min))) &&
		!isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->taken_max))) &&
		!isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->lifetime_min))) &&
		!isnan(mhm_float8_of_bits(pg_atomic_read_u64(&series->lifetime_max)));
}

/* Each of them: what is added up saturates, and hides an infinite one */
static bool
sums_are_finite(uint32 number)
{
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
		if (!isfinite(mhm_cell(i, number)->sum) || !isfinite(*mhm_earlier(i, number)))
			return false;
	return isfinite(mhm_series[number].taken_sum) && isfinite(mhm_levels[number].stored) &&
		isfinite(mhm_float8_of_bits(pg_atomic_read_u64(&mhm_levels[number].relative)));
}

/*
 * For recovery, when no sample is half-way: what contradicts itself in what a
 * series holds, or NULL.
 */
const char *
mhm_accumulate_contradiction(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmTotals	totals;
	uint64		counts[MHM_COUNTS];
	uint64		in_buckets = 0;

	mhm_accumulate_read(number, &totals, counts);
	if (!sums_are_finite(number) || !isfinite(totals.last))
		return "a sum is not a finite number";
	if (!extremes_are_numbers(series))
		return "a minimum or a maximum is not a number";
	if (!IS_VALID_TIMESTAMP(totals.updated_at))
		return "a time is out of range";
	if (series->kind == MHM_COUNTER && totals.sum < 0)
		return "a counter is negative";
	if (series->kind != MHM_COUNTER && totals.count > 0 &&
		!(isfinite(totals.min) && isfinite(totals.max) && totals.min <= totals.max))
		return "a minimum and a maximum contradict each other";
	if (series->flushed_count > totals.count)
		return "more is stored of a series than it has";
	if (series->histogram == MHM_NONE)
		return NULL;
	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
	{
		if (mhm_histograms[series->histogram].flushed[bucket] > counts[bucket])
			return "more is stored of a histogram than it has";
		in_buckets += counts[bucket];
	}
	if (in_buckets != totals.count)
		return "a histogram's buckets do not add up to its count";
	return NULL;
}
