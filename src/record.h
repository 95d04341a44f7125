/*-------------------------------------------------------------------------
 *
 * record.h
 *	  Checking one sample and adding it to its series.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_RECORD_H
#define MHM_RECORD_H

#include "cache.h"

extern MhmKind mhm_operation_kind(MhmOperation operation);
extern bool mhm_value_check(MhmOperation operation, double value,
							const char *metric, uint32 metric_length);
extern bool mhm_count_sample(const MhmSampleKey *key, const MhmTarget *target,
							 MhmOperation operation, double value);

#endif							/* MHM_RECORD_H */
