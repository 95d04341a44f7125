/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Which series there are: finding and making them.
 *
 * Owns the series table, its hash chains, and the rule where a sample goes for
 * which there is no room.  Called when a key is not in the backend's cache.
 * How many series a tenant has and may have is in tenant.c, how series leave
 * memory in retire.c.
 *
 * The registry lock, an LWLock in PostgreSQL's shared memory, protects it
 * all: held shared to find a series, exclusively to make or retire one.  It
 * is never taken for a sample whose series the backend knows.  Nothing is
 * allocated and no error is raised while it is held, and what is done takes
 * the same time however many series and tenants there are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "registry.h"
#include "retire.h"
#include "stringstore.h"
#include "tenant.h"
#include "utils/timestamp.h"

/* A tenant may have this part of what is kept for overflow series */
#define TENANT_OVERFLOW_PART	8

const char *
mhm_kind_name(MhmKind kind)
{
	switch (kind)
	{
		case MHM_COUNTER:
			return "counter";
		case MHM_GAUGE:
			return "gauge";
		case MHM_HISTOGRAM:
			return "histogram";
	}
	return "unknown";
}

uint32
mhm_series_hash(const pg_uuid_t *tenant, uint32 metric, bool overflow,
				const char *labels, uint32 labels_length)
{
	uint64		seed = mhm_region->hash_seed ^ ((uint64) metric << 1) ^ overflow;

	seed = mhm_hash_bytes((const char *) tenant->data, UUID_LEN, seed);
	return (uint32) mhm_hash_bytes(labels, labels_length, seed);
}

static uint32 *
series_head(uint32 hash)
{
	return &mhm_series_heads[hash & (mhm_region->geometry.series_heads - 1)];
}

/*
 * Was a histogram begun before the window of its metric was known?  Then it is
 * superseded: looked up by nobody, it is flushed and goes, while another series of
 * its key takes what is recorded (mhm_registry_retire_superseded).
 */
bool
mhm_series_is_superseded(const MhmSeries *series)
{
	return series->histogram != MHM_NONE &&
		mhm_histograms[series->histogram].min_exponent != mhm_metrics[series->metric].min_exponent;
}

/* Is it of this window, or of that of its metric? */
static inline bool
is_of_window(const MhmSeries *series, int32 window)
{
	return series->histogram == MHM_NONE ||
		mhm_histograms[series->histogram].min_exponent ==
		(window == MHM_WINDOW_CURRENT ? mhm_metrics[series->metric].min_exponent : window);
}

/* Find a series, or the overflow series of the key's tenant and metric */
static bool
find_series_of_window(const MhmKey *key, uint32 metric, bool overflow, int32 window,
					  MhmDiscardReason reason, MhmTarget *target)
{
	const char *labels = overflow ? "" : key->labels;
	uint32		labels_length = overflow ? 0 : key->labels_length;
	uint32		hash = mhm_series_hash(key->tenant, metric, overflow, labels, labels_length);
	uint32		number = *series_head(hash);

	while (number != MHM_NONE)
	{
		MhmSeries  *series = &mhm_series[number];

		if (series->hash == hash && series->metric == metric &&
			series->overflow == overflow &&
			mhm_same_tenant(&series->tenant, key->tenant) &&
			mhm_string_equals(series->labels, labels, labels_length) &&
			is_of_window(series, window))
		{
			target->series = number;
			target->generation = pg_atomic_read_u32(&series->generation);
			target->reason = reason;
			return true;
		}
		number = series->next;
	}
	return false;
}

static bool
find_series(const MhmKey *key, uint32 metric, bool overflow,
			MhmDiscardReason reason, MhmTarget *target)
{
	return find_series_of_window(key, metric, overflow, MHM_WINDOW_CURRENT, reason, target);
}

/* How many overflow series, or those of them that are histograms, a tenant may have */
static uint32
overflow_share(bool histograms)
{
	const MhmGeometry *g = &mhm_region->geometry;
	uint32		reserve = histograms ? g->histogram_slots - g->max_histograms :
		g->series_slots - g->max_series;

	return Max(reserve / TENANT_OVERFLOW_PART, 1);
}

/* What stands against another ordinary series of this key */
static MhmDiscardReason
no_room_because(const MhmKey *key, MhmKind kind)
{
	const MhmTenant *tenant = mhm_tenant_find(key->tenant);
	const MhmGeometry *g = &mhm_region->geometry;

	if ((tenant == NULL ? 0 : tenant->series) >= mhm_tenant_quota(tenant))
		return MHM_DISCARD_TENANT_LIMIT;
	if (mhm_region->used_series >= g->max_series)
		return MHM_DISCARD_SERIES_LIMIT;
	if (kind == MHM_HISTOGRAM &&
		mhm_region->used_histograms >= g->max_histograms)
		return MHM_DISCARD_HISTOGRAM_LIMIT;
	if (mhm_string_chunks(key->labels_length) +
		(g->metric_slots - mhm_region->used_metrics) * MHM_CHUNKS_PER_METRIC >
		g->chunks - mhm_region->used_chunks)
		return MHM_DISCARD_LABEL_MEMORY;
	return MHM_DISCARD_NONE;
}

/*
 * Is there room for another overflow series?  They have slots and bodies of
 * their own, which no tenant may take all of.
 */
static bool
overflow_has_room(const MhmKey *key, MhmKind kind)
{
	const MhmGeometry *g = &mhm_region->geometry;
	const MhmTenant *tenant = mhm_tenant_find(key->tenant);

	if (mhm_region->used_overflow_series >= g->series_slots - g->max_series ||
		(tenant != NULL && tenant->overflow_series >= overflow_share(false)))
		return false;
	if (kind != MHM_HISTOGRAM)
		return true;
	return mhm_region->used_overflow_histograms < g->histogram_slots - g->max_histograms &&
		(tenant == NULL || tenant->overflow_histograms < overflow_share(true));
}

/*
 * Find where the samples of a key go, without changing anything.  False when
 * the series, or the overflow series in its place, would have to be made.
 */
static bool
find_locked(const MhmKey *key, MhmKind kind, MhmFindResult *result,
			MhmTarget *target, MhmConflict *conflict)
{
	uint32		metric = mhm_metric_find(key->metric, key->metric_length);
	MhmDiscardReason reason;

	if (metric != MHM_NONE && mhm_metrics[metric].kind != kind)
	{
		conflict->kind = mhm_metrics[metric].kind;
		*result = MHM_KIND_CONFLICT;
		return true;
	}
	*result = MHM_FOUND;
	if (metric != MHM_NONE && find_series(key, metric, false, MHM_DISCARD_NONE, target))
		return true;

	/* Spare the others the exclusive lock for those who are over a limit */
	reason = no_room_because(key, kind);
	if (reason == MHM_DISCARD_NONE ||
		mhm_retire_may_look(reason, mhm_tenant_find(key->tenant)))
		return false;
	if (metric != MHM_NONE && find_series(key, metric, true, reason, target))
		return true;
	if (!overflow_has_room(key, kind))
	{
		target->reason = MHM_DISCARD_OVERFLOW_LIMIT;
		*result = MHM_NOWHERE;
		return true;
	}
	return false;
}

/* Take a series out of everything; nobody records to it any more */
void
mhm_registry_remove(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmMetric  *metric = &mhm_metrics[series->metric];
	uint32	   *link = series_head(series->hash);

	/* A process killed after this leaves the slot free to whoever recovers */
	series->live = MHM_SERIES_FREE;
	pg_write_barrier();
	mhm_series_settle_generation(series);

	while (*link != number)
		link = &mhm_series[*link].next;
	*link = series->next;
	mhm_string_free(series->labels);
	if (series->histogram != MHM_NONE)
	{
		mhm_histograms[series->histogram].next_free = mhm_region->free_histogram;
		mhm_region->free_histogram = series->histogram;
		if (series->overflow)
			mhm_region->used_overflow_histograms--;
		else
			mhm_region->used_histograms--;
	}
	if (series->overflow)
		mhm_region->used_overflow_series--;
	else
		mhm_region->used_series--;
	mhm_tenant_uncount(number);
	series->next = mhm_region->free_series;
	mhm_region->free_series = number;
	if (--metric->series == 0 && !metric->described)
		mhm_metric_forget(series->metric);
}

/* Make a series; MHM_NONE if there is no slot, body or string for it */
uint32
mhm_registry_add(const MhmKey *key, uint32 metric, bool overflow)
{
	uint32		number = mhm_region->free_series;
	MhmSeries  *series;
	bool		histogram = (mhm_metrics[metric].kind == MHM_HISTOGRAM);
	const char *labels = overflow ? "" : key->labels;
	uint32		labels_length = overflow ? 0 : key->labels_length;
	MhmString	stored;
	uint32	   *head;

	if (number == MHM_NONE ||
		(histogram && mhm_region->free_histogram == MHM_NONE) ||
		!mhm_string_store(labels, labels_length, &stored))
		return MHM_NONE;

	series = &mhm_series[number];
	mhm_region->free_series = series->next;
	series->tenant = *key->tenant;
	series->metric = metric;
	series->kind = mhm_metrics[metric].kind;
	series->overflow = overflow;
	series->labels = stored;
	series->histogram = MHM_NONE;
	if (histogram)
	{
		series->histogram = mhm_region->free_histogram;
		mhm_region->free_histogram = mhm_histograms[series->histogram].next_free;
		mhm_histograms[series->histogram].min_exponent = mhm_metrics[metric].min_exponent;
		if (overflow)
			mhm_region->used_overflow_histograms++;
		else
			mhm_region->used_histograms++;
	}
	mhm_accumulate_clear(number);
	pg_atomic_write_u64(&series->updated_at, (uint64) GetCurrentTimestamp());

	series->hash = mhm_series_hash(key->tenant, metric, overflow, labels, labels_length);
	head = series_head(series->hash);
	series->next = *head;
	*head = number;
	mhm_metrics[metric].series++;
	if (overflow)
		mhm_region->used_overflow_series++;
	else
		mhm_region->used_series++;
	mhm_tenant_count(number);

	/* A process killed before this leaves a free slot to whoever recovers */
	pg_write_barrier();
	series->live = MHM_SERIES_LIVE;
	return number;
}

/* Make the series of a key, or its overflow series */
static MhmFindResult
create_locked(const MhmKey *key, MhmKind kind, MhmTarget *target, MhmConflict *conflict)
{
	uint32		metric = mhm_metric_find(key->metric, key->metric_length);
	MhmDiscardReason reason;
	MhmFindResult result;

	target->reason = MHM_DISCARD_METRIC_LIMIT;
	if (metric == MHM_NONE)
	{
		result = mhm_metric_create(key->metric, key->metric_length, kind, &metric, conflict);
		if (result == MHM_NOWHERE && mhm_retire_for_room(MHM_DISCARD_METRIC_LIMIT, key->tenant))
			result = mhm_metric_create(key->metric, key->metric_length, kind, &metric, conflict);
		if (result != MHM_FOUND)
			return result;
	}

	/* The metric is ours and stays, also when it has no series yet */
	mhm_metrics[metric].series++;
	reason = no_room_because(key, kind);
	if (reason != MHM_DISCARD_NONE && mhm_retire_for_room(reason, key->tenant))
		reason = no_room_because(key, kind);
	if (reason == MHM_DISCARD_NONE)
		target->series = mhm_registry_add(key, metric, false);
	else if (find_series(key, metric, true, reason, target))
	{
		mhm_metrics[metric].series--;
		return MHM_FOUND;
	}
	else if (overflow_has_room(key, kind))
		target->series = mhm_registry_add(key, metric, true);
	mhm_metrics[metric].series--;

	if (target->series == MHM_NONE)
	{
		if (mhm_metrics[metric].series == 0 && !mhm_metrics[metric].described)
			mhm_metric_forget(metric);
		target->reason = MHM_DISCARD_OVERFLOW_LIMIT;
		return MHM_NOWHERE;
	}
	target->generation = pg_atomic_read_u32(&mhm_series[target->series].generation);
	target->reason = reason;
	return MHM_FOUND;
}

/*
 * Find where the samples of a key go, and make that series if it does not
 * exist.  Never raises: a limit gives the overflow series or MHM_NOWHERE.
 */
MhmFindResult
mhm_registry_find(const MhmKey *key, MhmKind kind, MhmTarget *target,
				  MhmConflict *conflict)
{
	MhmFindResult result;
	bool		known;

	target->series = MHM_NONE;
	target->generation = 0;
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	known = find_locked(key, kind, &result, target, conflict);
	LWLockRelease(mhm_registry_lock);
	if (known)
		return result;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (!find_locked(key, kind, &result, target, conflict))
		result = create_locked(key, kind, target, conflict);
	LWLockRelease(mhm_registry_lock);
	return result;
}

/* The series of a key and a window, or MHM_NONE.  The caller holds the registry lock. */
uint32
mhm_registry_locate(const MhmKey *key, bool overflow, int32 window)
{
	uint32		metric = mhm_metric_find(key->metric, key->metric_length);
	MhmTarget	target;

	if (metric == MHM_NONE || !find_series_of_window(key, metric, overflow, window, MHM_DISCARD_NONE, &target))
		return MHM_NONE;
	return target.series;
}

/*
 * Could a key be of this kind?  MHM_NOWHERE says that there is no such metric
 * yet, and nothing against making it.  Makes nothing.
 */
MhmFindResult
mhm_registry_kind_fits(const MhmKey *key, MhmKind kind, MhmConflict *conflict)
{
	MhmFindResult result = MHM_FOUND;
	uint32		metric;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	metric = mhm_metric_find(key->metric, key->metric_length);
	if (metric == MHM_NONE)
		result = mhm_metric_name_is_free(key->metric, key->metric_length, kind, conflict) ?
			MHM_NOWHERE : MHM_NAME_CONFLICT;
	else if (mhm_metrics[metric].kind != kind)
	{
		conflict->kind = mhm_metrics[metric].kind;
		result = MHM_KIND_CONFLICT;
	}
	LWLockRelease(mhm_registry_lock);
	return result;
}
