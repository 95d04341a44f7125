/*-------------------------------------------------------------------------
 *
 * retire.h
 *	  How series leave memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_RETIRE_H
#define MHM_RETIRE_H

#include "datatype/timestamp.h"
#include "region.h"

extern int64 mhm_registry_reset(const char *metric, uint32 metric_length,
								const pg_uuid_t *tenant);
extern PGDLLEXPORT uint32 mhm_registry_retire_idle(TimestampTz idle_since);
extern bool mhm_registry_retire_superseded(void);

/* For the registry, which holds its lock */
extern bool mhm_retire_may_look(MhmDiscardReason reason, const MhmTenant *tenant);
extern bool mhm_retire_for_room(MhmDiscardReason reason, const pg_uuid_t *tenant);

/* For recovery, which ends what was cut short */
extern void mhm_series_settle_generation(MhmSeries *series);

#endif							/* MHM_RETIRE_H */
