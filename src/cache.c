/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  From the arguments of a recording call to the series it is meant for.
 *
 * Owns the backend's cache: a hash table from the very bytes of tenant,
 * metric and labels to a target in the shared region.  jsonb is canonical, so
 * equal labels have equal bytes and nothing is parsed on a hit; names and
 * labels are checked when a key is met for the first time.  Called by
 * everything that records.  The memory is the backend's own; a hit touches
 * nothing shared.
 *
 * A cached target may be out of date: mhm_accumulate() notices that a series
 * was retired, and has its key refreshed.  Where samples went to an overflow
 * series, the registry is asked again when room has appeared and in any case
 * after a second.
 *
 * The cache is bounded; when it is full it starts anew, which costs each key
 * one lookup in the registry.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cache.h"
#include "labels.h"
#include "settings.h"
#include "stringstore.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define INITIAL_SLOTS		256
#define MAX_SLOTS			32768
#define MAX_KEY_BYTES		(4 * 1024 * 1024)

#define NO_KIND				((MhmKind) 0)

typedef struct CacheEntry
{
	char	   *key;			/* tenant, metric, labels; NULL: an empty slot */
	uint32		hash;
	uint32		metric_length;
	uint32		labels_length;
	uint32		room_epoch;		/* of an overflow: when it was looked up */
	MhmKind		kind;
	MhmTarget	target;
	TimestampTz found_at;
} CacheEntry;

static MemoryContext cache_context = NULL;
static CacheEntry *entries = NULL;
static uint32 slots = 0;		/* a power of two */
static uint32 used = 0;
static Size key_bytes = 0;

uint64
mhm_sample_key_hash(const MhmSampleKey *key)
{
	uint64		hash;

	hash = mhm_hash_bytes((const char *) key->tenant->data, UUID_LEN, mhm_region->hash_seed);
	hash = mhm_hash_bytes(key->metric, key->metric_length, hash);
	return mhm_hash_bytes(key->labels, key->labels_length, hash);
}

static inline bool
same_key(const CacheEntry *entry, uint32 hash, const MhmSampleKey *key)
{
	return entry->hash == hash &&
		entry->metric_length == key->metric_length &&
		entry->labels_length == key->labels_length &&
		memcmp(entry->key, key->tenant->data, UUID_LEN) == 0 &&
		memcmp(entry->key + UUID_LEN, key->metric, key->metric_length) == 0 &&
		memcmp(entry->key + UUID_LEN + key->metric_length, key->labels, key->labels_length) == 0;
}

/* The slot of a key, or the empty one where it belongs */
static CacheEntry *
find_slot(CacheEntry *table, uint32 table_slots, uint32 hash, const MhmSampleKey *key)
{
	uint32		at = hash & (table_slots - 1);

	while (table[at].key != NULL && (key == NULL || !same_key(&table[at], hash, key)))
		at = (at + 1) & (table_slots - 1);
	return &table[at];
}

/* Begin with an empty cache of so many slots */
static void
start_anew(uint32 new_slots)
{
	if (cache_context == NULL)
		cache_context = AllocSetContextCreate(TopMemoryContext,
											  "meshhook_metrics series cache",
											  ALLOCSET_DEFAULT_SIZES);
	entries = NULL;
	slots = used = 0;
	key_bytes = 0;
	MemoryContextReset(cache_context);
	entries = MemoryContextAllocZero(cache_context, new_slots * sizeof(CacheEntry));
	slots = new_slots;
}

/* See to it that one more key fits */
static void
make_room(Size bytes)
{
	CacheEntry *larger;

	if (slots == 0 || key_bytes + bytes > MAX_KEY_BYTES ||
		(slots >= MAX_SLOTS && used >= MAX_SLOTS / 2))
	{
		start_anew(Max(slots, INITIAL_SLOTS));
		return;
	}
	if (used < slots / 2)
		return;

	larger = MemoryContextAllocZero(cache_context, slots * 2 * sizeof(CacheEntry));
	for (uint32 i = 0; i < slots; i++)
		if (entries[i].key != NULL)
			*find_slot(larger, slots * 2, entries[i].hash, NULL) = entries[i];
	pfree(entries);
	entries = larger;
	slots *= 2;
}

/*
 * Is what the cache says still what the registry would say?  That there is no room is
 * asked again after a second, and where the clock was set back (an age below zero).
 */
static inline bool
is_current(const CacheEntry *entry)
{
	if (likely(entry->target.reason == MHM_DISCARD_NONE))
		return true;
	return entry->room_epoch == pg_atomic_read_u32(&mhm_region->room_epoch) &&
		(uint64) (GetCurrentTimestamp() - entry->found_at) < USECS_PER_SEC;
}

void
mhm_report_name_conflict(int level, const char *metric, const MhmConflict *conflict)
{
	ereport(level,
			errcode(ERRCODE_DUPLICATE_OBJECT),
			errmsg("metric \"%s\" would be mixed up with the %s \"%s\"", metric,
				   mhm_kind_name(conflict->kind), conflict->metric),
			errdetail("A histogram's samples are exposed under its name with _bucket, _sum and _count."),
			errhint("Use another name."));
}

/* Forget a key whose target is out of date, so that it is looked up anew */
void
mhm_cache_forget(const MhmSampleKey *key)
{
	CacheEntry *entry;

	if (slots == 0)
		return;
	entry = find_slot(entries, slots, (uint32) mhm_sample_key_hash(key), key);

	/* The slot stays taken, or keys beyond it would not be found */
	if (entry->key != NULL)
		entry->kind = NO_KIND;
}

/* Report that a metric cannot be what the caller takes it for */
void
mhm_report_conflict(MhmFindResult result, const char *metric, MhmKind kind,
				const MhmConflict *conflict)
{
	if (result == MHM_KIND_CONFLICT)
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_WRONG_OBJECT_TYPE),
				errmsg("metric \"%s\" is a %s, not a %s", metric,
					   mhm_kind_name(conflict->kind), mhm_kind_name(kind)),
				errdetail("A metric's kind is fixed by its first use or by describe()."),
				errhint("Use another name, or forget the metric with meshhook_metrics.reset('%s').",
						metric));
	else
		mhm_report_name_conflict(mhm_mistake_level(), metric, conflict);
}

/*
 * Check a key and bring it into the registry's form.  The labels are written
 * to a buffer of MHM_MAX_LABELS_LENGTH bytes.
 */
bool
mhm_key_encode(const MhmSampleKey *key, MhmKey *stored, char *labels)
{
	char		metric[MHM_MAX_METRIC_LENGTH + 1];

	if (!mhm_metric_name_check(mhm_mistake_level(), key->metric, key->metric_length))
		return false;
	memcpy(metric, key->metric, key->metric_length);
	metric[key->metric_length] = '\0';

	stored->tenant = key->tenant;
	stored->metric = key->metric;
	stored->metric_length = key->metric_length;
	stored->labels = labels;
	return mhm_labels_encode((JsonbContainer *) key->labels, metric,
							 labels, &stored->labels_length);
}

/* Remember where the samples of a key go */
static void
remember(const MhmSampleKey *key, MhmKind kind, const MhmTarget *target, uint32 room_epoch)
{
	Size		length = UUID_LEN + key->metric_length + key->labels_length;
	uint32		hash = (uint32) mhm_sample_key_hash(key);
	CacheEntry *entry;

	make_room(length);
	entry = find_slot(entries, slots, hash, key);
	if (entry->key == NULL)
	{
		char	   *copy = MemoryContextAlloc(cache_context, length);

		memcpy(copy, key->tenant->data, UUID_LEN);
		memcpy(copy + UUID_LEN, key->metric, key->metric_length);
		memcpy(copy + UUID_LEN + key->metric_length, key->labels, key->labels_length);
		entry->key = copy;
		entry->hash = hash;
		entry->metric_length = key->metric_length;
		entry->labels_length = key->labels_length;
		used++;
		key_bytes += length;
	}
	entry->kind = kind;
	entry->target = *target;
	entry->room_epoch = room_epoch;
	entry->found_at = target->reason == MHM_DISCARD_NONE ? 0 : GetCurrentTimestamp();
}

/* Ask the registry for a key's target, whatever the cache says */
static MhmFindResult
ask_registry(const MhmSampleKey *key, const MhmKey *stored, MhmKind kind,
			 MhmTarget *target, MhmConflict *conflict)
{
	/* Read before the registry is asked: room that appears later is noticed */
	uint32		room_epoch = pg_atomic_read_u32(&mhm_region->room_epoch);
	MhmFindResult result;

	pg_read_barrier();
	result = mhm_registry_find(stored, kind, target, conflict);
	if (result == MHM_FOUND || result == MHM_NOWHERE)
		remember(key, kind, target, room_epoch);
	return result;
}

/* The way of a key that is met for the first time */
static pg_noinline bool
find_unknown(const MhmSampleKey *key, MhmKind kind, MhmTarget *target)
{
	char		labels[MHM_MAX_LABELS_LENGTH];
	MhmKey		stored;
	MhmConflict conflict;
	MhmFindResult result;

	if (!mhm_key_encode(key, &stored, labels))
		return false;
	result = ask_registry(key, &stored, kind, target, &conflict);
	if (result == MHM_KIND_CONFLICT || result == MHM_NAME_CONFLICT)
	{
		mhm_report_conflict(result, pnstrdup(key->metric, key->metric_length), kind, &conflict);
		return false;
	}
	return true;
}

/*
 * Would this key be accepted?  Complains as mhm_cache_find() does, but makes
 * no series and fixes no kind.  new_metric tells whether its metric would be
 * made.
 */
bool
mhm_cache_check(const MhmSampleKey *key, MhmKind kind, bool *new_metric)
{
	char		labels[MHM_MAX_LABELS_LENGTH];
	MhmKey		stored;
	MhmConflict conflict;
	MhmFindResult result;

	*new_metric = false;
	if (slots > 0)
	{
		CacheEntry *entry = find_slot(entries, slots, (uint32) mhm_sample_key_hash(key), key);
		const MhmTarget *target = &entry->target;

		if (entry->key != NULL && entry->kind == kind && target->series != MHM_NONE &&
			pg_atomic_read_u32(&mhm_series[target->series].generation) == target->generation)
			return true;
	}
	if (!mhm_key_encode(key, &stored, labels))
		return false;
	result = mhm_registry_kind_fits(&stored, kind, &conflict);
	*new_metric = (result == MHM_NOWHERE);
	if (result == MHM_FOUND || result == MHM_NOWHERE)
		return true;
	mhm_report_conflict(result, pnstrdup(key->metric, key->metric_length), kind, &conflict);
	return false;
}

/*
 * Find the target of a key.  An error, or a warning and false, when the key
 * is not one that can be recorded to.
 */
bool
mhm_cache_find(const MhmSampleKey *key, MhmKind kind, MhmTarget *target)
{
	if (likely(slots > 0))
	{
		CacheEntry *entry = find_slot(entries, slots, (uint32) mhm_sample_key_hash(key), key);

		if (likely(entry->key != NULL && entry->kind == kind && is_current(entry)))
		{
			*target = entry->target;
			return true;
		}
	}
	return find_unknown(key, kind, target);
}

/*
 * Find the target of a key anew whose series has been retired.  Never
 * complains: where the name has become another metric's since the key was
 * checked, the sample is to be discarded.
 */
void
mhm_cache_retarget(const MhmSampleKey *key, MhmKind kind, MhmTarget *target)
{
	char		labels[MHM_MAX_LABELS_LENGTH];
	MhmKey		stored;
	MhmConflict conflict;
	MhmFindResult result = MHM_KIND_CONFLICT;

	if (mhm_key_encode(key, &stored, labels))
		result = ask_registry(key, &stored, kind, target, &conflict);
	if (result == MHM_KIND_CONFLICT || result == MHM_NAME_CONFLICT)
	{
		mhm_cache_forget(key);
		target->series = MHM_NONE;
		target->reason = MHM_DISCARD_INVALID;
	}
}
