/*-------------------------------------------------------------------------
 *
 * cache.h
 *	  From the arguments of a recording call to the series it is meant for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_CACHE_H
#define MHM_CACHE_H

#include "registry.h"
#include "utils/jsonb.h"

/* The arguments as they come: labels are a jsonb's bytes, as yet unchecked */
typedef struct MhmSampleKey
{
	const pg_uuid_t *tenant;
	const char *metric;
	uint32		metric_length;
	const char *labels;
	uint32		labels_length;
} MhmSampleKey;

extern bool mhm_cache_find(const MhmSampleKey *key, MhmKind kind, MhmTarget *target);
extern bool mhm_cache_check(const MhmSampleKey *key, MhmKind kind, bool *new_metric);
extern void mhm_cache_forget(const MhmSampleKey *key);
extern void mhm_cache_retarget(const MhmSampleKey *key, MhmKind kind, MhmTarget *target);
extern void mhm_report_conflict(MhmFindResult result, const char *metric, MhmKind kind,
								const MhmConflict *conflict);
extern void mhm_report_name_conflict(int level, const char *metric, const MhmConflict *conflict);
extern uint64 mhm_sample_key_hash(const MhmSampleKey *key);
extern bool mhm_key_encode(const MhmSampleKey *key, MhmKey *stored, char *labels);

#endif							/* MHM_CACHE_H */
