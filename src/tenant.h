/*-------------------------------------------------------------------------
 *
 * tenant.h
 *	  Which tenants have series, how many, and how many they may have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_TENANT_H
#define MHM_TENANT_H

#include "region.h"

typedef struct MhmQuota
{
	pg_uuid_t	tenant;
	uint32		series;
} MhmQuota;

static inline bool
mhm_same_tenant(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
}

extern MhmTenant *mhm_tenant_find(const pg_uuid_t *id);
extern uint32 mhm_tenant_quota(const MhmTenant *tenant);
extern void mhm_tenant_count(uint32 series);
extern void mhm_tenant_uncount(uint32 series);
extern void mhm_tenants_clear(void);

extern bool mhm_quotas_replace(MhmQuota *quotas, uint32 count);

#endif							/* MHM_TENANT_H */
