/*-------------------------------------------------------------------------
 *
 * tenant.c
 *	  Which tenants have series, how many, and how many they may have.
 *
 * Owns the hash of tenants in the shared region: one entry for each tenant
 * that has series or a quota of its own, with the exact numbers and a ring of
 * its ordinary series.  The registry keeps it up to date as series come and go
 * (registry.c), and asks it about limits; retire.c goes around the ring; the
 * flush worker brings the quotas from the table settings.  A tenant without a
 * quota there has that of the setting max_series_per_tenant.
 *
 * All of it is protected by the registry lock and derived: recovery counts the
 * series anew, so that a process that was killed half-way leaves no trace.  The
 * quotas come again with the first flush.
 *
 * There are as many entries as series and quotas can be, so that a series that
 * has a slot has a tenant.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "hash.h"
#include "settings.h"
#include "tenant.h"

/* Of a long list, so much is done before others get the lock */
#define QUOTAS_AT_ONCE		256
#define TENANTS_AT_ONCE		256

static uint32 *
tenant_head(const pg_uuid_t *id)
{
	uint64		hash = mhm_hash_bytes((const char *) id->data, UUID_LEN, mhm_region->hash_seed);

	return &mhm_tenant_heads[hash & (mhm_region->geometry.series_heads - 1)];
}

/* NULL for a tenant that has neither series nor a quota of its own */
MhmTenant *
mhm_tenant_find(const pg_uuid_t *id)
{
	uint32		number = *tenant_head(id);

	while (number != MHM_NONE && !mhm_same_tenant(&mhm_tenants[number].id, id))
		number = mhm_tenants[number].next;
	return number == MHM_NONE ? NULL : &mhm_tenants[number];
}

static MhmTenant *
find_or_make(const pg_uuid_t *id)
{
	MhmTenant  *tenant = mhm_tenant_find(id);
	uint32		number = mhm_region->free_tenant;
	uint32	   *head;

	if (tenant != NULL)
		return tenant;
	tenant = &mhm_tenants[number];
	mhm_region->free_tenant = tenant->next;
	memset(tenant, 0, sizeof(MhmTenant));
	tenant->id = *id;
	tenant->quota = MHM_NONE;
	tenant->hand = MHM_NONE;
	head = tenant_head(id);
	tenant->next = *head;
	*head = number;
	return tenant;
}

static void
forget_if_unused(MhmTenant *tenant)
{
	uint32		number = tenant - mhm_tenants;
	uint32	   *link = tenant_head(&tenant->id);

	if (tenant->series > 0 || tenant->overflow_series > 0 || tenant->quota != MHM_NONE)
		return;
	while (*link != number)
		link = &mhm_tenants[*link].next;
	*link = tenant->next;
	tenant->next = mhm_region->free_tenant;
	mhm_region->free_tenant = number;
}

/* How many ordinary series a tenant may have; NULL is one without an entry */
uint32
mhm_tenant_quota(const MhmTenant *tenant)
{
	return tenant != NULL && tenant->quota != MHM_NONE ?
		tenant->quota : (uint32) mhm_max_series_per_tenant;
}

/* A new series comes last, as seen from the hand */
static void
join_ring(MhmTenant *tenant, uint32 series)
{
	MhmTenantLink *link = &mhm_tenant_links[series];

	if (tenant->hand == MHM_NONE)
	{
		link->next = link->previous = tenant->hand = series;
		return;
	}
	link->next = tenant->hand;
	link->previous = mhm_tenant_links[tenant->hand].previous;
	mhm_tenant_links[link->previous].next = series;
	mhm_tenant_links[link->next].previous = series;
}

static void
leave_ring(MhmTenant *tenant, uint32 series)
{
	MhmTenantLink *link = &mhm_tenant_links[series];

	if (tenant->hand == series)
		tenant->hand = link->next == series ? MHM_NONE : link->next;
	mhm_tenant_links[link->previous].next = link->next;
	mhm_tenant_links[link->next].previous = link->previous;
}

/* A series has come */
void
mhm_tenant_count(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmTenant  *tenant = find_or_make(&series->tenant);

	if (series->overflow)
	{
		tenant->overflow_series++;
		tenant->overflow_histograms += (series->histogram != MHM_NONE);
	}
	else
	{
		tenant->series++;
		join_ring(tenant, number);
	}
}

/* A series goes */
void
mhm_tenant_uncount(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmTenant  *tenant = mhm_tenant_find(&series->tenant);

	if (series->overflow)
	{
		tenant->overflow_series--;
		tenant->overflow_histograms -= (series->histogram != MHM_NONE);
	}
	else
	{
		tenant->series--;
		leave_ring(tenant, number);
	}
	forget_if_unused(tenant);
}

/* Recovery begins with no tenants, and counts the series anew */
void
mhm_tenants_clear(void)
{
	const MhmGeometry *g = &mhm_region->geometry;

	mhm_region->used_quotas = 0;
	mhm_region->free_tenant = MHM_NONE;
	for (uint32 i = mhm_tenant_slots(g); i-- > 0;)
	{
		mhm_tenants[i].next = mhm_region->free_tenant;
		mhm_region->free_tenant = i;
	}
	for (uint32 i = 0; i < g->series_heads; i++)
		mhm_tenant_heads[i] = MHM_NONE;
}

/* False when there is no room for another quota */
static bool
set_quota(const MhmQuota *quota)
{
	MhmTenant  *tenant = mhm_tenant_find(&quota->tenant);

	if (tenant == NULL || tenant->quota == MHM_NONE)
	{
		if (mhm_region->used_quotas >= mhm_quota_slots(&mhm_region->geometry))
			return false;
		mhm_region->used_quotas++;
		tenant = find_or_make(&quota->tenant);
	}
	if (tenant->quota != quota->series)
	{
		/* Samples that overflow try again, and their tenant's series are asked */
		tenant->quota = quota->series;
		tenant->asked_all_at = 0;
		pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
	}
	return true;
}

static int
compare_quotas(const void *a, const void *b)
{
	return memcmp(&((const MhmQuota *) a)->tenant, &((const MhmQuota *) b)->tenant,
				  sizeof(pg_uuid_t));
}

/* Take their quotas from the tenants that are not among these, which are sorted */
static void
drop_other_quotas(const MhmQuota *quotas, uint32 count)
{
	uint32		slots = mhm_tenant_slots(&mhm_region->geometry);

	for (uint32 from = 0; from < slots; from += TENANTS_AT_ONCE)
	{
		LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
		for (uint32 i = from; i < Min(from + TENANTS_AT_ONCE, slots); i++)
		{
			MhmTenant  *tenant = &mhm_tenants[i];
			MhmQuota	key;

			key.tenant = tenant->id;
			/* The entry may be free, and still have what was in it */
			if (tenant->quota == MHM_NONE || mhm_tenant_find(&tenant->id) != tenant ||
				bsearch(&key, quotas, count, sizeof(MhmQuota), compare_quotas) != NULL)
				continue;
			tenant->quota = MHM_NONE;
			mhm_region->used_quotas--;
			pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
			forget_if_unused(tenant);
		}
		LWLockRelease(mhm_registry_lock);
	}
}

/*
 * From now on these tenants, and no others, have quotas of their own.  False
 * when there are more than there is room for; then the first ones, by tenant,
 * have theirs.  Takes the registry lock by turns with others.
 */
bool
mhm_quotas_replace(MhmQuota *quotas, uint32 count)
{
	uint32		room = mhm_quota_slots(&mhm_region->geometry);
	bool		all = count <= room;

	qsort(quotas, count, sizeof(MhmQuota), compare_quotas);
	count = Min(count, room);

	/* What goes makes room for what comes */
	drop_other_quotas(quotas, count);
	for (uint32 from = 0; from < count; from += QUOTAS_AT_ONCE)
	{
		LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
		for (uint32 i = from; i < Min(from + QUOTAS_AT_ONCE, count); i++)
			all = set_quota(&quotas[i]) && all;
		LWLockRelease(mhm_registry_lock);
	}
	return all;
}
