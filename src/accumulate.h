/*-------------------------------------------------------------------------
 *
 * accumulate.h
 *	  Adding one sample to a series (accumulate.c), and reading what has been
 *	  added (totals.c).
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_ACCUMULATE_H
#define MHM_ACCUMULATE_H

#include <float.h>
#include <math.h>

#include "region.h"

typedef enum MhmOperation
{
	MHM_INC,
	MHM_GAUGE_SET,
	MHM_GAUGE_ADD,
	MHM_OBSERVE
} MhmOperation;

/*
 * Where samples of one key go.  Valid as long as the series' generation is
 * the one noted here, which mhm_accumulate() checks.
 */
typedef struct MhmTarget
{
	uint32		series;			/* MHM_NONE: nowhere, count the reason only */
	uint32		generation;
	MhmDiscardReason reason;	/* why it is an overflow series, if so */
} MhmTarget;

typedef struct MhmTotals
{
	uint64		count;
	double		sum;
	double		in_cells;		/* of sum, what no flush has taken yet */
	double		last;			/* what a relative gauge was changed by */
	double		min;			/* infinite when nothing was recorded */
	double		max;
	TimestampTz updated_at;
} MhmTotals;

extern bool mhm_accumulate(const MhmTarget *target, MhmOperation operation,
						   double value, uint64 calls, TimestampTz now);
extern void mhm_accumulate_discard(MhmDiscardReason reason, uint64 calls);
extern void mhm_accumulate_quiesce(void);
extern void mhm_accumulate_clear(uint32 series);
extern void mhm_accumulate_redo(void);
extern const char *mhm_accumulate_contradiction(uint32 series);

/* totals.c */
extern uint64 mhm_accumulate_count(uint32 series);
extern void mhm_accumulate_read(uint32 series, MhmTotals *totals, uint64 *counts);
extern void mhm_accumulate_take(uint32 series, MhmTotals *totals, uint64 *counts);
extern void mhm_accumulate_keep_taken(uint32 series);
extern void mhm_accumulate_drop_taken(uint32 series);
extern void mhm_accumulate_read_discarded(uint64 discarded[MHM_DISCARD_REASONS]);

/* levels.c */
extern bool mhm_level_give(uint32 series, double level);
extern void mhm_level_redo(void);
extern bool mhm_level_intent_makes_sense(void);
extern void mhm_resets_note(const char *metric, uint32 metric_length, const pg_uuid_t *tenant);
extern bool mhm_resets_fill_up(void);
extern bool mhm_resets_make_sense(void);

/* Taking and leaving one stripe, for those who read */
extern void mhm_stripe_hold(uint32 number);

/* A release: what was written while holding is seen by the next holder */
static inline void
mhm_stripe_leave(uint32 number)
{
	pg_atomic_clear_flag(&mhm_stripes[number].stripe.lock);
}

/* A sum beyond what a double holds is the largest one of its sign */
static inline double
mhm_saturated(double sum)
{
	return likely(fabs(sum) <= DBL_MAX) ? sum : copysign(DBL_MAX, sum);
}

static inline bool
mhm_is_relative(const MhmSeries *series)
{
	return pg_atomic_read_u64((pg_atomic_uint64 *) &series->last) == MHM_RELATIVE;
}

/* A gauge's value, of a relative one what it was changed by */
static inline double
mhm_last(uint32 number)
{
	uint64		last = pg_atomic_read_u64(&mhm_series[number].last);

	if (unlikely(last == MHM_RELATIVE))
		last = pg_atomic_read_u64(&mhm_levels[number].relative);
	return mhm_float8_of_bits(last);
}

/*
 * Lower (or raise) an extreme.  Idempotent; relaxed order is enough, since
 * the word is all there is to it.
 */
static inline void
mhm_extend_min(pg_atomic_uint64 *min, double value)
{
	uint64		seen = pg_atomic_read_u64(min);

	while (value < mhm_float8_of_bits(seen))
		if (pg_atomic_compare_exchange_u64(min, &seen, mhm_bits_of_float8(value)))
			break;
}

static inline void
mhm_extend_max(pg_atomic_uint64 *max, double value)
{
	uint64		seen = pg_atomic_read_u64(max);

	while (value > mhm_float8_of_bits(seen))
		if (pg_atomic_compare_exchange_u64(max, &seen, mhm_bits_of_float8(value)))
			break;
}

#endif							/* MHM_ACCUMULATE_H */
