/*-------------------------------------------------------------------------
 *
 * registry.c
 *	  Which series there are: finding, making and retiring them.
 *
 * Owns the series table, its hash chains, the tenants' quotas and the rule
 * where a sample goes for which there is no room.  Called when a key is not
 * in the backend's cache, by reset(), and by whoever retires idle series.
 *
 * The registry lock, an LWLock in PostgreSQL's shared memory, protects it
 * all: held shared to find a series, exclusively to make or retire one.  It
 * is never taken for a sample whose series the backend knows.  Nothing is
 * allocated and no error is raised while it is held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "registry.h"
#include "quota.h"
#include "stringstore.h"
#include "utils/timestamp.h"

/*
 * Under pressure a series that nobody recorded to for so long gives way.
 * Twice the staleness of Prometheus, which has forgotten it by then.
 */
#define IDLE_BEFORE_RETIREMENT	(10 * USECS_PER_MINUTE)
#define BETWEEN_RETIREMENTS		(1 * USECS_PER_SEC)

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

MhmTenantBucket *
mhm_tenant_bucket(const pg_uuid_t *tenant)
{
	uint64		hash = mhm_hash_bytes((const char *) tenant->data, UUID_LEN,
									  mhm_region->hash_seed);

	return &mhm_tenant_buckets[hash % MHM_TENANT_BUCKETS];
}

static uint32 *
series_head(uint32 hash)
{
	return &mhm_series_heads[hash & (mhm_region->geometry.series_heads - 1)];
}

static inline bool
same_tenant(const pg_uuid_t *a, const pg_uuid_t *b)
{
	return memcmp(a->data, b->data, UUID_LEN) == 0;
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
			same_tenant(&series->tenant, key->tenant) &&
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

/*
 * Has this tenant been counted lately and found at this limit?  Not for ever,
 * so that once in a while somebody tries to make room.
 */
static bool
known_at_limit(const MhmTenantLimit *known, const pg_uuid_t *tenant, uint32 limit)
{
	TimestampTz age;

	if (known->limit != limit || !same_tenant(&known->tenant, tenant))
		return false;
	age = GetCurrentTimestamp() - known->counted_at;
	return age >= 0 && age < BETWEEN_RETIREMENTS;
}

/*
 * Is a tenant at a limit?  Counts its series only if that is possible and not
 * known yet.
 */
static bool
at_limit(MhmTenantLimit *known, const pg_uuid_t *tenant, uint32 total, uint32 limit,
		 bool overflow, bool histograms_only)
{
	uint32		count = 0;

	if (total < limit)
		return false;
	if (known_at_limit(known, tenant, limit))
		return true;
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		if (mhm_series[i].live && mhm_series[i].overflow == overflow &&
			(!histograms_only || mhm_series[i].histogram != MHM_NONE) &&
			same_tenant(&mhm_series[i].tenant, tenant))
			count++;
	if (count < limit)
		return false;
	known->tenant = *tenant;
	known->counted_at = GetCurrentTimestamp();
	known->limit = limit;
	return true;
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

/* Do we know that nothing new of this tenant can be kept? */
static bool
known_without_room(const pg_uuid_t *tenant, MhmKind kind)
{
	MhmTenantBucket *bucket = mhm_tenant_bucket(tenant);

	return known_at_limit(&bucket->quota, tenant, mhm_quota_of(tenant)) &&
		(known_at_limit(&bucket->overflow, tenant, overflow_share(false)) ||
		 (kind == MHM_HISTOGRAM &&
		  known_at_limit(&bucket->overflow_histograms, tenant, overflow_share(true))));
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
	MhmTenantBucket *bucket = mhm_tenant_bucket(key->tenant);

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
	if (metric != MHM_NONE &&
		known_at_limit(&bucket->quota, key->tenant, mhm_quota_of(key->tenant)) &&
		find_series(key, metric, true, MHM_DISCARD_TENANT_LIMIT, target))
		return true;
	if (known_without_room(key->tenant, kind))
	{
		target->reason = MHM_DISCARD_OVERFLOW_LIMIT;
		*result = MHM_NOWHERE;
		return true;
	}
	return false;
}

/* Take a series out of everything; nobody records to it any more */
static void
remove_series(uint32 number)
{
	MhmSeries  *series = &mhm_series[number];
	MhmMetric  *metric = &mhm_metrics[series->metric];
	MhmTenantBucket *bucket = mhm_tenant_bucket(&series->tenant);
	uint32	   *link = series_head(series->hash);

	/* A process killed after this leaves the slot free to who recovers */
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
	{
		mhm_region->used_overflow_series--;
		bucket->overflow_total--;
	}
	else
	{
		mhm_region->used_series--;
		bucket->total--;
	}
	bucket->quota.limit = bucket->overflow.limit = bucket->overflow_histograms.limit = 0;
	series->next = mhm_region->free_series;
	mhm_region->free_series = number;
	if (--metric->series == 0 && !metric->described)
		mhm_metric_forget(series->metric);
}

/* Has storage got everything of this series? */
static bool
is_flushed(uint32 number)
{
	MhmTotals	totals;

	mhm_accumulate_read(number, &totals, NULL);
	return totals.count == mhm_series[number].flushed_count;
}

/*
 * A generation is odd while the series retires: then recorders are turned
 * away, look it up again and wait for us.  One that stays after all has the
 * generation that it had, by which the flush worker knows it.
 */
static void
begin_retiring(MhmSeries *series)
{
	series->live = MHM_SERIES_RETIRING;
	pg_atomic_fetch_add_u32(&series->generation, 1);
}

/* The retirement of a series has ended, one way or the other, or was cut short */
void
mhm_series_settle_generation(MhmSeries *series)
{
	if (pg_atomic_read_u32(&series->generation) % 2 == 0)
		return;
	if (series->live == MHM_SERIES_FREE)
		pg_atomic_fetch_add_u32(&series->generation, 1);
	else
		pg_atomic_fetch_sub_u32(&series->generation, 1);
}

/*
 * Remove the series that retire; with unflushed, those too whose samples
 * storage has not got.  Others stay.
 */
static uint32
finish_retiring(bool unflushed)
{
	uint32		removed = 0;

	mhm_accumulate_quiesce();
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		if (mhm_series[i].live != MHM_SERIES_RETIRING)
			continue;
		if (unflushed || is_flushed(i))
		{
			remove_series(i);
			removed++;
		}
		else
		{
			mhm_series[i].live = MHM_SERIES_LIVE;
			mhm_series_settle_generation(&mhm_series[i]);
		}
	}
	if (removed > 0)
		pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
	return removed;
}

static uint32
retire_idle_locked(TimestampTz idle_since)
{
	TimestampTz now = GetCurrentTimestamp();

	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		MhmSeries  *series = &mhm_series[i];
		TimestampTz updated_at;

		if (series->live != MHM_SERIES_LIVE)
			continue;
		updated_at = (TimestampTz) pg_atomic_read_u64(&series->updated_at);
		/* Recorded to by a clock that was set back since: idle from now on */
		if (updated_at > now)
			pg_atomic_write_u64(&series->updated_at, (uint64) now);
		else if (updated_at < idle_since && is_flushed(i))
			begin_retiring(series);
	}
	return finish_retiring(false);
}

/* Retire what is idle, but not at every sample that finds no room */
static bool
retire_for_room(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (now - mhm_region->last_retirement < BETWEEN_RETIREMENTS &&
		now >= mhm_region->last_retirement)
		return false;
	mhm_region->last_retirement = now;
	return retire_idle_locked(now - IDLE_BEFORE_RETIREMENT) > 0;
}

/* What stands against another ordinary series of this key */
static MhmDiscardReason
no_room_because(const MhmKey *key, MhmKind kind)
{
	MhmTenantBucket *bucket = mhm_tenant_bucket(key->tenant);
	const MhmGeometry *g = &mhm_region->geometry;

	if (at_limit(&bucket->quota, key->tenant, bucket->total,
				 mhm_quota_of(key->tenant), false, false))
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
	MhmTenantBucket *bucket = mhm_tenant_bucket(key->tenant);

	if (mhm_region->used_overflow_series >= g->series_slots - g->max_series ||
		at_limit(&bucket->overflow, key->tenant, bucket->overflow_total,
				 overflow_share(false), true, false))
		return false;
	if (kind != MHM_HISTOGRAM)
		return true;
	return mhm_region->used_overflow_histograms < g->histogram_slots - g->max_histograms &&
		!at_limit(&bucket->overflow_histograms, key->tenant, bucket->overflow_total,
				  overflow_share(true), true, true);
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
	{
		mhm_region->used_overflow_series++;
		mhm_tenant_bucket(key->tenant)->overflow_total++;
	}
	else
	{
		mhm_region->used_series++;
		mhm_tenant_bucket(key->tenant)->total++;
	}

	/* A process killed before this leaves a free slot to who recovers */
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
		if (result == MHM_NOWHERE && retire_for_room())
			result = mhm_metric_create(key->metric, key->metric_length, kind, &metric, conflict);
		if (result != MHM_FOUND)
			return result;
	}

	/* The metric is ours and stays, also when it has no series yet */
	mhm_metrics[metric].series++;
	reason = no_room_because(key, kind);
	if (reason != MHM_DISCARD_NONE && retire_for_room())
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

/*
 * Forget series and all that was recorded in them: of one metric or of all,
 * of one tenant or of all.  Returns how many.
 */
int64
mhm_registry_reset(const char *metric, uint32 metric_length, const pg_uuid_t *tenant)
{
	int64		removed;
	uint32		only = MHM_NONE;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (metric != NULL)
		only = mhm_metric_find(metric, metric_length);
	if (metric == NULL || only != MHM_NONE)
		for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		{
			MhmSeries  *series = &mhm_series[i];

			if (series->live &&
				(metric == NULL || series->metric == only) &&
				(tenant == NULL || same_tenant(&series->tenant, tenant)))
				begin_retiring(series);
		}
	removed = finish_retiring(true);

	/* Who names a metric, and no tenant, wants it gone with its description */
	if (tenant == NULL && only != MHM_NONE && mhm_metrics[only].live == MHM_METRIC_LIVE)
		mhm_metric_forget(only);
	LWLockRelease(mhm_registry_lock);
	return removed;
}

/* Retire the flushed series that nobody recorded to since a time */
uint32
mhm_registry_retire_idle(TimestampTz idle_since)
{
	uint32		removed;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	removed = retire_idle_locked(idle_since);
	LWLockRelease(mhm_registry_lock);
	return removed;
}

static bool
any_is_superseded(void)
{
	bool		found = false;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	for (uint32 i = 0; i < mhm_region->geometry.series_slots && !found; i++)
		found = mhm_series[i].live == MHM_SERIES_LIVE && mhm_series_is_superseded(&mhm_series[i]);
	LWLockRelease(mhm_registry_lock);
	return found;
}

/*
 * Have nobody record to what is superseded any more, and retire what of it has been
 * flushed.  Returns whether something is left for later.  Called by the flush worker,
 * which knows by the generation what it flushes: so never during a flush, nor while
 * one is pending.
 *
 * Nothing is lost or counted twice.  Whoever knows the series by its old generation is
 * turned away, looks its key up under the registry lock and finds, or makes, the one
 * of the window that is known now.  A sample that passed the generation before it
 * changed still arrives, in a series that is flushed like any other, and that is
 * removed as any other that retires: when all stripes have been left and storage has
 * everything.  Killed at any instruction, a generation has changed or has not; the
 * windows say what is superseded.
 */
bool
mhm_registry_retire_superseded(void)
{
	bool		left = false;

	if (!any_is_superseded())
		return false;
	if (mhm_region->pending_tick != 0)
		return true;
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		MhmSeries  *series = &mhm_series[i];

		if (series->live != MHM_SERIES_LIVE || !mhm_series_is_superseded(series))
			continue;
		if (is_flushed(i))
			begin_retiring(series);
		else
		{
			/* From even to even: it goes on living */
			pg_atomic_fetch_add_u32(&series->generation, 2);
			left = true;
		}
	}
	(void) finish_retiring(false);
	LWLockRelease(mhm_registry_lock);
	return left;
}
