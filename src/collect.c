/*-------------------------------------------------------------------------
 *
 * collect.c
 *	  A copy of what the region holds, for those who show or move it.
 *
 * Owns nothing but the copies it makes, in the caller's memory context.
 * Called by snapshot(), prometheus() and the import of an older region.
 *
 * The registry lock is held shared while copying; recording goes on meanwhile.
 * All memory is allocated before: what is needed is estimated under the lock.
 * Series are copied in blocks, and those who make series or want to cancel us
 * get by in between.  When a series has gone meanwhile, or more have come than
 * there is memory for, it starts again: what has come back in another slot would
 * be in the copy twice.  After some tries nobody gets by.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "collect.h"
#include "miscadmin.h"
#include "registry.h"
#include "stringstore.h"
#include "utils/memutils.h"

/* Room for what comes while memory is being allocated */
#define SLACK		16

/* So many slots are copied before others get the lock, unless they spoil it too often */
#define COPIED_AT_ONCE	4096
#define TRIES_BY_BLOCKS	3

/* The memory for a collection, and how much of it is used */
typedef struct Space
{
	uint32		metrics;
	uint32		series;
	uint32		histograms;
	Size		bytes;
	char	   *text;
	Size		text_used;
	uint64	   *counts;
	uint32		counts_used;
	uint32	   *metric_numbers; /* from the region's to the collection's */
} Space;

static void
estimate(Space *space)
{
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	space->metrics = mhm_region->used_metrics + SLACK;
	space->series = mhm_region->used_series + mhm_region->used_overflow_series + SLACK;
	space->histograms = mhm_region->used_histograms + mhm_region->used_overflow_histograms + SLACK;
	space->bytes = ((Size) mhm_region->used_chunks + SLACK * SLACK) * MHM_CHUNK_PAYLOAD +
		3 * (Size) space->metrics;
	LWLockRelease(mhm_registry_lock);
}

static bool
fits(const Space *space)
{
	return mhm_region->used_metrics <= space->metrics &&
		mhm_region->used_series + mhm_region->used_overflow_series <= space->series &&
		mhm_region->used_histograms + mhm_region->used_overflow_histograms <= space->histograms &&
		(Size) mhm_region->used_chunks * MHM_CHUNK_PAYLOAD +
		3 * (Size) mhm_region->used_metrics <= space->bytes;
}

/* Copy a string out and terminate it; NULL for an empty one */
static char *
copy_text(Space *space, MhmString string)
{
	char	   *copy = space->text + space->text_used;

	if (string.length == 0)
		return NULL;
	mhm_string_copy(string, copy);
	copy[string.length] = '\0';
	space->text_used += string.length + 1;
	return copy;
}

static void
copy_metrics(MhmCollection *collection, Space *space, bool forgotten_too)
{
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];
		MhmCollectedMetric *copy;

		if (!metric->live || (metric->live != MHM_METRIC_LIVE && !forgotten_too))
			continue;
		space->metric_numbers[i] = collection->metrics_count;
		copy = &collection->metrics[collection->metrics_count++];
		copy->name = copy_text(space, metric->name);
		copy->name_length = metric->name.length;
		copy->help = copy_text(space, metric->help);
		copy->unit = copy_text(space, metric->unit);
		copy->kind = metric->kind;
		copy->min_exponent = metric->min_exponent;
		copy->described = metric->described;
		copy->stored = metric->stored;
		copy->live = metric->live;
	}
}

static void
copy_series(MhmCollection *collection, Space *space, const pg_uuid_t *tenant,
			bool unused_too, uint32 from, uint32 until)
{
	for (uint32 i = from; i < until; i++)
	{
		MhmSeries  *series = &mhm_series[i];
		MhmCollectedSeries *copy = &collection->series[collection->series_count];

		/*
		 * One of a metric that has come meanwhile, or has been described anew as one of
		 * another kind, has come meanwhile, too.  Shown is what goes on: the superseded
		 * one is gone with the next flush.
		 */
		if (!series->live || space->metric_numbers[series->metric] == MHM_NONE ||
			collection->metrics[space->metric_numbers[series->metric]].kind != series->kind ||
			(!unused_too && mhm_series_is_superseded(series)) ||
			(tenant != NULL && memcmp(&series->tenant, tenant, sizeof(*tenant)) != 0))
			continue;
		copy->counts = NULL;
		if (series->histogram != MHM_NONE)
		{
			copy->counts = space->counts + (Size) space->counts_used * MHM_COUNTS;
			copy->min_exponent = mhm_histograms[series->histogram].min_exponent;
		}
		mhm_accumulate_read(i, &copy->totals, copy->counts);
		if (copy->totals.count == 0 && !unused_too)
			continue;
		if (copy->counts != NULL)
			space->counts_used++;
		copy->number = i;
		copy->metric = space->metric_numbers[series->metric];
		copy->tenant = series->tenant;
		copy->overflow = series->overflow;
		copy->labels = space->text + space->text_used;
		copy->labels_length = series->labels.length;
		mhm_string_copy(series->labels, space->text + space->text_used);
		space->text_used += series->labels.length;
		collection->series_count++;
	}
}

static int
compare_series(const void *a, const void *b, void *metrics)
{
	const MhmCollectedSeries *left = a;
	const MhmCollectedSeries *right = b;
	int			order = 0;

	CHECK_FOR_INTERRUPTS();
	if (left->metric != right->metric)
		order = strcmp(((MhmCollectedMetric *) metrics)[left->metric].name,
					   ((MhmCollectedMetric *) metrics)[right->metric].name);
	if (order == 0)
		order = memcmp(&left->tenant, &right->tenant, sizeof(pg_uuid_t));
	if (order == 0)
		order = left->number < right->number ? -1 : 1;
	return order;
}

/* False when it must be done again, with the memory that is needed now */
static bool
copy_everything(MhmCollection *collection, Space *space, const pg_uuid_t *tenant,
				bool unused_too, bool by_blocks)
{
	uint32		slots = mhm_region->geometry.series_slots;
	uint32		epoch;
	bool		whole;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	epoch = pg_atomic_read_u32(&mhm_region->room_epoch);
	whole = fits(space);
	if (whole)
		copy_metrics(collection, space, unused_too);
	for (uint32 from = 0; whole && from < slots; from += COPIED_AT_ONCE)
	{
		if (by_blocks && from > 0)
		{
			LWLockRelease(mhm_registry_lock);
			CHECK_FOR_INTERRUPTS();
			LWLockAcquire(mhm_registry_lock, LW_SHARED);

			/* It moves when a series or a metric goes */
			whole = fits(space) && pg_atomic_read_u32(&mhm_region->room_epoch) == epoch;
		}
		if (whole)
			copy_series(collection, space, tenant, unused_too, from, Min(from + COPIED_AT_ONCE, slots));
	}
	LWLockRelease(mhm_registry_lock);
	return whole;
}

/*
 * Copy the metrics and the series, of one tenant or of all.  A series that
 * nothing was recorded to is left out unless wanted: it may be there for a
 * transaction that never commits.
 */
MhmCollection *
mhm_collect(const pg_uuid_t *tenant, bool unused_too)
{
	MhmCollection *collection = palloc0(sizeof(MhmCollection));
	Space		space;

	for (int tried = 0;; tried++)
	{
		collection->metrics_count = collection->series_count = 0;
		memset(&space, 0, sizeof(space));
		estimate(&space);
		collection->metrics = palloc(space.metrics * sizeof(MhmCollectedMetric));
		collection->series = MemoryContextAllocHuge(CurrentMemoryContext,
													space.series * sizeof(MhmCollectedSeries));
		space.text = MemoryContextAllocHuge(CurrentMemoryContext, space.bytes);
		space.counts = MemoryContextAllocHuge(CurrentMemoryContext,
											  (Size) space.histograms * MHM_COUNTS * sizeof(uint64));
		space.metric_numbers = palloc(mhm_region->geometry.metric_slots * sizeof(uint32));
		memset(space.metric_numbers, 0xFF, mhm_region->geometry.metric_slots * sizeof(uint32));
		if (copy_everything(collection, &space, tenant, unused_too, tried < TRIES_BY_BLOCKS))
			break;
		pfree(collection->metrics);
		pfree(collection->series);
		pfree(space.text);
		pfree(space.counts);
		pfree(space.metric_numbers);
	}

	pfree(space.metric_numbers);
	qsort_arg(collection->series, collection->series_count, sizeof(MhmCollectedSeries),
			  compare_series, collection->metrics);
	return collection;
}
