/*-------------------------------------------------------------------------
 *
 * accumulate.h
 *	  Adding one sample to a series, and reading what has been added.
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
extern void mhm_accumulate_read(uint32 series, MhmTotals *totals, uint64 *counts);
extern void mhm_accumulate_read_discarded(uint64 discarded[MHM_DISCARD_REASONS]);
extern void mhm_accumulate_redo(void);
extern const char *mhm_accumulate_contradiction(uint32 series);

#endif							/* MHM_ACCUMULATE_H */
