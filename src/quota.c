/*-------------------------------------------------------------------------
 *
 * quota.c
 *	  How many series a tenant may have.
 *
 * Owns the tenants' own quotas, a sorted array in PostgreSQL's shared memory;
 * who has none there has that of the setting max_series_per_tenant.  The flush
 * worker fills it from the table settings; the registry asks when a series is
 * to be made.  The registry lock protects it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "quota.h"
#include "settings.h"

typedef struct Quotas
{
	uint32		count;
	MhmQuota	sorted[MHM_MAX_QUOTAS];
} Quotas;

static Quotas *quotas = NULL;

Size
mhm_quotas_size(void)
{
	return sizeof(Quotas);
}

void
mhm_quotas_attach(void *memory, bool found)
{
	quotas = memory;
	if (!found)
		quotas->count = 0;
}

static int
compare_tenants(const void *a, const void *b)
{
	return memcmp(&((const MhmQuota *) a)->tenant, &((const MhmQuota *) b)->tenant,
				  sizeof(pg_uuid_t));
}

/* The caller holds the registry lock */
uint32
mhm_quota_of(const pg_uuid_t *tenant)
{
	MhmQuota	key;
	MhmQuota   *found = NULL;

	if (quotas != NULL && quotas->count > 0)
	{
		key.tenant = *tenant;
		found = bsearch(&key, quotas->sorted, quotas->count, sizeof(MhmQuota), compare_tenants);
	}
	return found != NULL ? found->series : (uint32) mhm_max_series_per_tenant;
}

/* From now on these tenants, and no others, have quotas of their own */
void
mhm_quotas_replace(MhmQuota *replacement, uint32 count)
{
	count = Min(count, MHM_MAX_QUOTAS);
	qsort(replacement, count, sizeof(MhmQuota), compare_tenants);
	/* Nobody else writes here, so this may be read without the lock */
	if (count == quotas->count && memcmp(quotas->sorted, replacement, count * sizeof(MhmQuota)) == 0)
		return;
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	memcpy(quotas->sorted, replacement, count * sizeof(MhmQuota));
	quotas->count = count;
	LWLockRelease(mhm_registry_lock);
}
