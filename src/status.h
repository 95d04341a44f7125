/*-------------------------------------------------------------------------
 *
 * status.h
 *	  How the extension itself is doing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_STATUS_H
#define MHM_STATUS_H

#include "region.h"

typedef struct MhmHealth
{
	uint32		series_used;	/* ordinary ones, as the limit means them */
	uint32		series_max;
	uint32		histograms_used;
	uint32		histograms_max;
	uint64		bytes;
	uint64		discarded[MHM_DISCARD_REASONS];
} MhmHealth;

extern void mhm_health_read(MhmHealth *health);
/* Have the migrations been applied in this database? */
extern bool mhm_storage_installed(void);

extern const char *mhm_discard_reason_name(MhmDiscardReason reason);

#endif							/* MHM_STATUS_H */
