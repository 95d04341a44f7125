/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  The metrics of the shared region: name, kind, help, unit, window.
 *
 * Owns the metric table and its hash chains.  Called by the registry when a
 * series is looked up or made, and by describe().  A metric comes with its
 * first use or with describe(); one that nobody described goes with its last
 * series.
 *
 * Everything wants the registry lock: held at all to find, exclusively for
 * the rest.  mhm_metric_describe() takes it itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "registry.h"
#include "stringstore.h"

/* The names under which a histogram's samples appear in the exposition */
static const char *const histogram_suffixes[] = {"_bucket", "_sum", "_count"};

uint32
mhm_metric_hash(const char *name, uint32 length)
{
	return (uint32) mhm_hash_bytes(name, length, mhm_region->hash_seed);
}

/* The number of a metric, or MHM_NONE */
uint32
mhm_metric_find(const char *name, uint32 length)
{
	uint32		hash = mhm_metric_hash(name, length);
	uint32		number = mhm_metric_heads[hash & (mhm_region->geometry.metric_heads - 1)];

	while (number != MHM_NONE)
	{
		MhmMetric  *metric = &mhm_metrics[number];

		if (metric->hash == hash && mhm_string_equals(metric->name, name, length))
			return number;
		number = metric->next;
	}
	return MHM_NONE;
}

static bool
conflicts_with(uint32 number, MhmConflict *conflict)
{
	MhmMetric  *metric = &mhm_metrics[number];

	conflict->kind = metric->kind;
	mhm_string_copy(metric->name, conflict->metric);
	conflict->metric[metric->name.length] = '\0';
	return true;
}

/*
 * Would a metric of this name and kind have samples of the same name as
 * another metric's?  A histogram h exposes h_bucket, h_sum and h_count.
 */
static bool
shares_sample_names(const char *name, uint32 length, MhmKind kind,
					MhmConflict *conflict)
{
	for (int i = 0; i < lengthof(histogram_suffixes); i++)
	{
		const char *suffix = histogram_suffixes[i];
		uint32		suffix_length = strlen(suffix);
		uint32		number;

		if (length > suffix_length &&
			memcmp(name + length - suffix_length, suffix, suffix_length) == 0)
		{
			number = mhm_metric_find(name, length - suffix_length);
			if (number != MHM_NONE && mhm_metrics[number].kind == MHM_HISTOGRAM)
				return conflicts_with(number, conflict);
		}
		if (kind == MHM_HISTOGRAM)
		{
			char		sample[MHM_MAX_METRIC_LENGTH + 8];

			memcpy(sample, name, length);
			memcpy(sample + length, suffix, suffix_length);
			number = mhm_metric_find(sample, length + suffix_length);
			if (number != MHM_NONE)
				return conflicts_with(number, conflict);
		}
	}
	return false;
}

/* Could a metric of this name and kind be made without sharing sample names? */
bool
mhm_metric_name_is_free(const char *name, uint32 length, MhmKind kind,
						MhmConflict *conflict)
{
	return !shares_sample_names(name, length, kind, conflict);
}

/* For recovery: does a metric that is there stand in another one's way? */
bool
mhm_metric_is_in_conflict(uint32 number)
{
	MhmMetric  *metric = &mhm_metrics[number];
	char		name[MHM_MAX_METRIC_LENGTH];
	MhmConflict conflict;

	mhm_string_copy(metric->name, name);
	return shares_sample_names(name, metric->name.length, metric->kind, &conflict);
}

/* Make a metric that was not found */
MhmFindResult
mhm_metric_create(const char *name, uint32 length, MhmKind kind,
				  uint32 *number, MhmConflict *conflict)
{
	MhmMetric  *metric;
	MhmString	stored;
	uint32	   *head;

	if (shares_sample_names(name, length, kind, conflict))
		return MHM_NAME_CONFLICT;
	if (mhm_region->free_metric == MHM_NONE || !mhm_string_store(name, length, &stored))
		return MHM_NOWHERE;

	*number = mhm_region->free_metric;
	metric = &mhm_metrics[*number];
	mhm_region->free_metric = metric->next;
	mhm_region->used_metrics++;
	metric->hash = mhm_metric_hash(name, length);
	metric->name = stored;
	metric->help = metric->unit = (MhmString) {MHM_NONE, 0};
	metric->series = 0;
	metric->min_exponent = MHM_DEFAULT_MIN_EXPONENT;
	metric->kind = kind;
	metric->described = false;
	head = &mhm_metric_heads[metric->hash & (mhm_region->geometry.metric_heads - 1)];
	metric->next = *head;
	*head = *number;

	/* A process killed before this leaves a free slot to whoever recovers */
	pg_write_barrier();
	metric->live = true;
	return MHM_FOUND;
}

/* Give a metric's slot back; it has no series any more */
void
mhm_metric_forget(uint32 number)
{
	MhmMetric  *metric = &mhm_metrics[number];
	uint32	   *link = &mhm_metric_heads[metric->hash & (mhm_region->geometry.metric_heads - 1)];

	metric->live = false;
	pg_write_barrier();
	while (*link != number)
		link = &mhm_metrics[*link].next;
	*link = metric->next;
	mhm_string_free(metric->name);
	mhm_string_free(metric->help);
	mhm_string_free(metric->unit);
	metric->next = mhm_region->free_metric;
	mhm_region->free_metric = number;
	mhm_region->used_metrics--;
	pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
}

/* Replace a text; whoever is killed half-way has replaced it or has not */
static void
replace_text(MhmString *text, const char *data, uint32 length)
{
	MhmString	stored;
	MhmString	before = *text;
	uint64		word;

	if (data == NULL || !mhm_string_store(data, length, &stored))
		return;

	/* One store of a word, as far as a killed process is concerned */
	StaticAssertStmt(sizeof(MhmString) == sizeof(uint64), "fits a word");
	memcpy(&word, &stored, sizeof(stored));
	*(volatile uint64 *) text = word;
	pg_write_barrier();
	mhm_string_free(before);
}

/* Is there room for a description, and for the metric if it is new? */
static bool
description_has_room(bool new_metric, uint32 name_length, const MhmDescription *description)
{
	uint32		chunks = mhm_string_chunks(description->help_length) +
		mhm_string_chunks(description->unit_length);

	if (new_metric)
		chunks += mhm_string_chunks(name_length);
	return chunks <= mhm_region->geometry.chunks - mhm_region->used_chunks &&
		(!new_metric || mhm_region->free_metric != MHM_NONE);
}

/* Everything that can go wrong is found out before anything is changed */
static MhmDescribeResult
describe_locked(const char *name, uint32 length,
				const MhmDescription *description, MhmConflict *conflict)
{
	uint32		number = mhm_metric_find(name, length);
	bool		new_metric = (number == MHM_NONE);
	bool		new_kind = new_metric || mhm_metrics[number].kind != description->kind;
	MhmMetric  *metric;

	if (!new_metric && mhm_metrics[number].series > 0)
	{
		if (new_kind)
		{
			conflicts_with(number, conflict);
			return MHM_DESCRIBE_KIND_CONFLICT;
		}
		if (description->min_exponent != NULL &&
			*description->min_exponent != mhm_metrics[number].min_exponent)
			return MHM_DESCRIBE_WINDOW_CONFLICT;
	}
	if (new_kind && shares_sample_names(name, length, description->kind, conflict))
		return MHM_DESCRIBE_NAME_CONFLICT;
	if (!description_has_room(new_metric, length, description))
		return MHM_DESCRIBE_NO_ROOM;

	if (new_metric)
		(void) mhm_metric_create(name, length, description->kind, &number, conflict);
	metric = &mhm_metrics[number];
	if (new_kind)
		metric->min_exponent = MHM_DEFAULT_MIN_EXPONENT;
	metric->kind = description->kind;
	metric->described = true;
	if (description->min_exponent != NULL)
		metric->min_exponent = *description->min_exponent;
	replace_text(&metric->help, description->help, description->help_length);
	replace_text(&metric->unit, description->unit, description->unit_length);
	return MHM_DESCRIBED;
}

MhmDescribeResult
mhm_metric_describe(const char *name, uint32 length,
					const MhmDescription *description, MhmConflict *conflict)
{
	MhmDescribeResult result;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	result = describe_locked(name, length, description, conflict);
	LWLockRelease(mhm_registry_lock);
	return result;
}
