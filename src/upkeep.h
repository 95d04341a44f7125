/*-------------------------------------------------------------------------
 *
 * upkeep.h
 *	  Rolling up and maintaining the storage, in a process of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_UPKEEP_H
#define MHM_UPKEEP_H

#include "postgres.h"

extern size_t mhm_upkeep_size(void);
extern void mhm_upkeep_attach(void *memory, bool found);

/* For the flush worker */
extern void mhm_upkeep_add_duties(void);
extern void mhm_upkeep_if_due(void);
extern bool mhm_upkeep_backs_off(double *remaining_ms);

#endif							/* MHM_UPKEEP_H */
