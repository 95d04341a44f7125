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
 * What describe() said has a copy in table metrics (flushmetrics.c), from which a
 * region that is new learns it.  Each metric knows whether it is stored there; one
 * that was described and is forgotten keeps its slot, in no chain, until the table
 * has forgotten it as well.  What nobody has described here since it was stored, or
 * at all, is as the table says (mhm_metric_load).
 *
 * Everything wants the registry lock: held at all to find, exclusively for
 * the rest.  What describe() and the flush worker call takes it itself.
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
	conflict->min_exponent = metric->min_exponent;
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
	metric->stored = MHM_METRIC_STORED_NO;
	head = &mhm_metric_heads[metric->hash & (mhm_region->geometry.metric_heads - 1)];
	metric->next = *head;
	*head = *number;

	/* A process killed before this leaves a free slot to whoever recovers */
	pg_write_barrier();
	metric->live = MHM_METRIC_LIVE;
	return MHM_FOUND;
}

/* Take a text away; a process killed half-way has done so or has not */
static void
drop_text(MhmString *text)
{
	MhmString	before = *text;
	MhmString	none = {MHM_NONE, 0};

	/* One store of eight bytes, as in replace_text() */
	memcpy(text, &none, sizeof(none));
	pg_write_barrier();
	mhm_string_free(before);
}

/* Give back the slot of a metric that is in no chain */
static void
free_metric(uint32 number)
{
	MhmMetric  *metric = &mhm_metrics[number];

	metric->live = MHM_METRIC_FREE;
	pg_write_barrier();
	mhm_string_free(metric->name);
	mhm_string_free(metric->help);
	mhm_string_free(metric->unit);
	metric->next = mhm_region->free_metric;
	mhm_region->free_metric = number;
	mhm_region->used_metrics--;
	pg_atomic_fetch_add_u32(&mhm_region->room_epoch, 1);
}

/* Is table metrics still to forget this name? */
static bool
is_being_forgotten(const char *name, uint32 length)
{
	if ((mhm_region->descriptions & MHM_DESCRIPTIONS_FORGOTTEN) == 0)
		return false;
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
		if (mhm_metrics[i].live == MHM_METRIC_FORGOTTEN &&
			mhm_string_equals(mhm_metrics[i].name, name, length))
			return true;
	return false;
}

/*
 * Forget a metric, which has no series any more.  Of one that was described the
 * name stays until table metrics has no row of it, unless that is known already.
 */
void
mhm_metric_forget(uint32 number)
{
	MhmMetric  *metric = &mhm_metrics[number];
	uint32	   *link = &mhm_metric_heads[metric->hash & (mhm_region->geometry.metric_heads - 1)];
	char		name[MHM_MAX_METRIC_LENGTH];
	bool		keep_name = false;

	mhm_string_copy(metric->name, name);
	if (metric->described)
		keep_name = !is_being_forgotten(name, metric->name.length);
	metric->stored = MHM_METRIC_STORED_NO;
	pg_write_barrier();
	metric->live = keep_name ? MHM_METRIC_FORGOTTEN : MHM_METRIC_FREE;
	pg_write_barrier();
	while (*link != number)
		link = &mhm_metrics[*link].next;
	*link = metric->next;
	if (!keep_name)
	{
		free_metric(number);
		return;
	}
	drop_text(&metric->help);
	drop_text(&metric->unit);
	mhm_region->descriptions |= MHM_DESCRIPTIONS_UNSTORED | MHM_DESCRIPTIONS_FORGOTTEN;
}

/* For recovery: a name that is being forgotten, in a region that was made to hold it */
bool
mhm_metric_import_forgotten(const char *name, uint32 length)
{
	uint32		number = mhm_region->free_metric;
	MhmString	stored;

	if (number == MHM_NONE || !mhm_string_store(name, length, &stored))
		return false;
	mhm_region->free_metric = mhm_metrics[number].next;
	mhm_region->used_metrics++;
	mhm_metrics[number] = (MhmMetric) {
		.hash = mhm_metric_hash(name, length),
		.name = stored,
		.help = {MHM_NONE, 0},
		.unit = {MHM_NONE, 0},
		.min_exponent = MHM_DEFAULT_MIN_EXPONENT,
		.kind = MHM_COUNTER,
		.live = MHM_METRIC_FORGOTTEN,
		.described = true
	};
	mhm_region->descriptions |= MHM_DESCRIPTIONS_UNSTORED | MHM_DESCRIPTIONS_FORGOTTEN;
	return true;
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

/*
 * Are the series of this metric older than what is known of its window?  Then they
 * give way to others (mhm_registry_retire_superseded), as when it had been loaded.
 */
static bool
window_may_be_unknown(uint32 number)
{
	return !mhm_metrics[number].described &&
		(mhm_region->descriptions & MHM_DESCRIPTIONS_LOADED) == 0;
}

static bool
text_is(MhmString text, const char *data, uint32 length)
{
	return data == NULL || mhm_string_equals(text, data, length);
}

/* Does a metric say all that a description says? */
static bool
is_described_so(const MhmMetric *metric, const MhmDescription *description)
{
	return metric->described && metric->kind == description->kind &&
		(description->min_exponent == NULL || *description->min_exponent == metric->min_exponent) &&
		text_is(metric->help, description->help, description->help_length) &&
		text_is(metric->unit, description->unit, description->unit_length);
}

/* Change a metric that is there and may be changed; killed half-way, some of it has changed */
static void
set_description(MhmMetric *metric, const MhmDescription *description)
{
	if (metric->kind != description->kind)
		metric->min_exponent = MHM_DEFAULT_MIN_EXPONENT;
	metric->kind = description->kind;
	metric->described = true;
	if (description->min_exponent != NULL)
		metric->min_exponent = *description->min_exponent;
	replace_text(&metric->help, description->help, description->help_length);
	replace_text(&metric->unit, description->unit, description->unit_length);
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
			*description->min_exponent != mhm_metrics[number].min_exponent &&
			!window_may_be_unknown(number))
		{
			conflicts_with(number, conflict);
			return MHM_DESCRIBE_WINDOW_CONFLICT;
		}
	}
	if (new_kind && shares_sample_names(name, length, description->kind, conflict))
		return MHM_DESCRIBE_NAME_CONFLICT;
	if (!description_has_room(new_metric, length, description))
		return MHM_DESCRIBE_NO_ROOM;

	if (new_metric)
		(void) mhm_metric_create(name, length, description->kind, &number, conflict);
	metric = &mhm_metrics[number];
	if (is_described_so(metric, description))
		return MHM_DESCRIBED;

	/* First, so that a process killed in between leaves it to be stored */
	metric->stored = MHM_METRIC_STORED_NO;
	mhm_region->descriptions |= MHM_DESCRIPTIONS_UNSTORED;
	pg_write_barrier();
	set_description(metric, description);
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

/* Is there a description that table metrics may not have, or a name that it may? */
bool
mhm_metrics_unstored(void)
{
	bool		unstored;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	unstored = (mhm_region->descriptions & MHM_DESCRIPTIONS_UNSTORED) != 0;
	LWLockRelease(mhm_registry_lock);
	return unstored;
}

/*
 * The next metric, from a number on, whose description, or else whose being
 * forgotten, is to be stored.  Pending from now on, until mhm_metrics_settle_stored()
 * or until describe() says something else.
 */
bool
mhm_metric_next_unstored(uint32 from, bool forgotten, MhmStoredMetric *stored)
{
	bool		found = false;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	for (uint32 i = from; i < mhm_region->geometry.metric_slots && !found; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];

		if (metric->stored == MHM_METRIC_STORED_YES ||
			!(forgotten ? metric->live == MHM_METRIC_FORGOTTEN :
			  metric->live == MHM_METRIC_LIVE && metric->described))
			continue;
		found = true;
		metric->stored = MHM_METRIC_STORED_PENDING;
		stored->number = i;
		stored->forgotten = forgotten;
		stored->kind = metric->kind;
		stored->min_exponent = metric->min_exponent;
		stored->name_length = metric->name.length;
		stored->help_length = metric->help.length;
		stored->unit_length = metric->unit.length;
		mhm_string_copy(metric->name, stored->name);
		mhm_string_copy(metric->help, stored->help);
		mhm_string_copy(metric->unit, stored->unit);
	}
	LWLockRelease(mhm_registry_lock);
	return found;
}

/* What was pending has been committed */
void
mhm_metrics_settle_stored(void)
{
	uint32		left = 0;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];

		if (metric->live == MHM_METRIC_FORGOTTEN && metric->stored == MHM_METRIC_STORED_PENDING)
			free_metric(i);
		else if (metric->live == MHM_METRIC_LIVE && metric->stored == MHM_METRIC_STORED_PENDING)
			metric->stored = MHM_METRIC_STORED_YES;
		else if (metric->live == MHM_METRIC_FORGOTTEN)
			left |= MHM_DESCRIPTIONS_UNSTORED | MHM_DESCRIPTIONS_FORGOTTEN;
		else if (metric->live == MHM_METRIC_LIVE && metric->described &&
				 metric->stored == MHM_METRIC_STORED_NO)
			left |= MHM_DESCRIPTIONS_UNSTORED;
	}
	mhm_region->descriptions = (mhm_region->descriptions & MHM_DESCRIPTIONS_LOADED) | left;
	LWLockRelease(mhm_registry_lock);
}

/* There is no table that could forget them, or it is another server's to do so */
void
mhm_metrics_drop_forgotten(void)
{
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
		if (mhm_metrics[i].live == MHM_METRIC_FORGOTTEN)
			free_metric(i);
	mhm_region->descriptions &= ~MHM_DESCRIPTIONS_FORGOTTEN;
	mhm_region->descriptions |= MHM_DESCRIPTIONS_LOADED;
	LWLockRelease(mhm_registry_lock);
}

static bool
load_locked(const MhmStoredMetric *row, const MhmDescription *description, uint32 *number)
{
	MhmConflict conflict;
	bool		new_metric;
	bool		new_kind;

	*number = mhm_metric_find(row->name, row->name_length);
	new_metric = (*number == MHM_NONE);
	if (new_metric && is_being_forgotten(row->name, row->name_length))
		return false;
	/* What was said here, and is not stored yet, is newer */
	if (!new_metric && mhm_metrics[*number].described &&
		mhm_metrics[*number].stored != MHM_METRIC_STORED_YES)
		return false;
	if (!new_metric && is_described_so(&mhm_metrics[*number], description))
		return false;

	/* Series of another kind stay what they are */
	new_kind = new_metric || mhm_metrics[*number].kind != description->kind;
	return !(new_kind && !new_metric && mhm_metrics[*number].series > 0) &&
		!(new_kind && shares_sample_names(row->name, row->name_length, description->kind, &conflict)) &&
		description_has_room(new_metric, row->name_length, description);
}

/*
 * Learn what table metrics says of a metric, unless something newer has been said
 * here.  Returns its number, or MHM_NONE.  A histogram that was recorded to before
 * its window was known has series of another window from now on, which are
 * superseded.
 */
uint32
mhm_metric_load(const MhmStoredMetric *row)
{
	MhmDescription description = {
		.kind = row->kind,
		.help = row->help_length > 0 ? row->help : NULL,
		.help_length = row->help_length,
		.unit = row->unit_length > 0 ? row->unit : NULL,
		.unit_length = row->unit_length,
		.min_exponent = row->kind == MHM_HISTOGRAM ? &row->min_exponent : NULL
	};
	MhmConflict conflict;
	uint32		number;
	bool		changes;

	/* Nothing has changed, as a rule: then nobody has to wait */
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	changes = load_locked(row, &description, &number);
	LWLockRelease(mhm_registry_lock);
	if (!changes)
		return number;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	if (load_locked(row, &description, &number) &&
		(number != MHM_NONE ||
		 mhm_metric_create(row->name, row->name_length, row->kind, &number, &conflict) == MHM_FOUND))
	{
		/* First, so that a process killed in between leaves it to be loaded again, and not to be stored */
		mhm_metrics[number].stored = MHM_METRIC_STORED_YES;
		pg_write_barrier();
		set_description(&mhm_metrics[number], &description);
	}
	LWLockRelease(mhm_registry_lock);
	return number;
}

/*
 * The whole table has been read.  What it was to have and has not, it is to get
 * again; or, where it is another server's, that one has forgotten it, and so do we.
 */
void
mhm_metrics_miss_unless(const bool *seen, bool forget)
{
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];

		if (seen[i] || metric->live != MHM_METRIC_LIVE || !metric->described ||
			metric->stored != MHM_METRIC_STORED_YES)
			continue;
		metric->stored = MHM_METRIC_STORED_NO;
		if (!forget)
			mhm_region->descriptions |= MHM_DESCRIPTIONS_UNSTORED;
		else
		{
			metric->described = false;
			if (metric->series == 0)
				mhm_metric_forget(i);
		}
	}
	mhm_region->descriptions |= MHM_DESCRIPTIONS_LOADED;
	LWLockRelease(mhm_registry_lock);
}
