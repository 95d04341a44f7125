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
	double		last;
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
extern void mhm_accumulate_read(uint32 series, MhmTotals *totals, uint64 *counts);
extern void mhm_accumulate_take(uint32 series, MhmTotals *totals, uint64 *counts);
extern void mhm_accumulate_keep_taken(uint32 series);
extern void mhm_accumulate_drop_taken(uint32 series);
extern void mhm_accumulate_read_discarded(uint64 discarded[MHM_DISCARD_REASONS]);

/* Taking and leaving one stripe, for those who read */
extern void mhm_stripe_hold(uint32 number);

/* A release: what was written while holding is seen by the next holder */
static inline void
mhm_stripe_leave(uint32 number)
{
	pg_atomic_clear_flag(&mhm_stripes[number].stripe.lock);
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
