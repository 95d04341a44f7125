/*-------------------------------------------------------------------------
 *
 * quota.h
 *	  How many series a tenant may have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_QUOTA_H
#define MHM_QUOTA_H

#include "region.h"

/* So many tenants can have a quota of their own */
#define MHM_MAX_QUOTAS		4096

typedef struct MhmQuota
{
	pg_uuid_t	tenant;
	uint32		series;
} MhmQuota;

extern Size mhm_quotas_size(void);
extern void mhm_quotas_attach(void *memory, bool found);
extern uint32 mhm_quota_of(const pg_uuid_t *tenant);
extern void mhm_quotas_replace(MhmQuota *quotas, uint32 count);

#endif							/* MHM_QUOTA_H */
