/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  Samples that count only when their transaction commits.
 *
 * Owns what a transaction recorded under meshhook_metrics.on_commit.  Called
 * by the recording functions, and by PostgreSQL at the ends of transactions
 * and subtransactions.  All of it is memory of the transaction; the shared
 * region is touched after the commit record is on disk.
 *
 * The samples are a stack in order of recording.  Whatever a subtransaction
 * and its committed children recorded lies above the height at which it
 * began, so that a rollback to a savepoint cuts the stack at that height.
 * Increments of one series within one subtransaction are one sample.  The others
 * are held one by one, since min, max and buckets want each of them; how many a
 * transaction holds is bounded, and with that the time that its commit takes.
 *
 * A backend that is killed between its commit record and the callback loses
 * what it held here; that is the price of waiting for the commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "labels.h"
#include "settings.h"
#include "transaction.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * What a pending series is found by.  The target alone would not do: keys
 * that share an overflow series part when there is room at the commit.
 */
typedef struct PendingTag
{
	MhmTarget	target;
	uint32		unused;			/* no padding, since it is hashed as bytes */
	uint64		key_hash;
} PendingTag;

/* A key that the transaction recorded to, and where its samples go */
typedef struct PendingSeries
{
	PendingTag	tag;
	MhmTarget	target;			/* renewed when the series retires */
	MhmKind		kind;
	Size		last_inc;		/* its newest increment's place in the stack, and 1 */
	MhmKey		key;
} PendingSeries;

typedef struct PendingSample
{
	PendingSeries *series;
	MhmOperation operation;
	double		value;
	uint64		calls;
} PendingSample;

/* Where the samples of a subtransaction begin */
typedef struct Savepoint
{
	int			nest_level;
	Size		height;
} Savepoint;

static HTAB *pending_series = NULL;
static PendingSample *samples = NULL;
static Size samples_used = 0;
static Size samples_size = 0;
static Savepoint *savepoints = NULL;
static int	savepoints_used = 0;
static int	savepoints_size = 0;

/* The memory goes with the transaction */
static void
forget_everything(void)
{
	pending_series = NULL;
	samples = NULL;
	samples_used = samples_size = 0;
	savepoints = NULL;
	savepoints_used = savepoints_size = 0;
}

static void
begin_pending(void)
{
	HASHCTL		control;

	control.keysize = sizeof(PendingTag);
	control.entrysize = sizeof(PendingSeries);
	control.hcxt = TopTransactionContext;
	pending_series = hash_create("meshhook_metrics pending series", 32, &control,
								 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* Note where the current subtransaction's samples begin, if it has none yet */
static void
note_savepoint(void)
{
	int			level = GetCurrentTransactionNestLevel();

	if (savepoints_used > 0 && savepoints[savepoints_used - 1].nest_level >= level)
		return;
	if (savepoints_used == savepoints_size)
	{
		int			size = Max(8, savepoints_size * 2);

		savepoints = savepoints == NULL ?
			MemoryContextAlloc(TopTransactionContext, size * sizeof(Savepoint)) :
			repalloc(savepoints, size * sizeof(Savepoint));
		savepoints_size = size;
	}
	savepoints[savepoints_used].nest_level = level;
	savepoints[savepoints_used].height = samples_used;
	savepoints_used++;
}

/* Keep a copy of the key for as long as the transaction */
static void
copy_key(const MhmSampleKey *key, MhmKey *copy)
{
	char		labels[MHM_MAX_LABELS_LENGTH];
	char	   *memory;

	if (!mhm_key_encode(key, copy, labels))
		elog(ERROR, "a key that was found cannot be encoded");
	memory = MemoryContextAlloc(TopTransactionContext,
								UUID_LEN + copy->metric_length + copy->labels_length);
	memcpy(memory, key->tenant->data, UUID_LEN);
	copy->tenant = (const pg_uuid_t *) memory;
	memory += UUID_LEN;
	memcpy(memory, copy->metric, copy->metric_length);
	copy->metric = memory;
	memory += copy->metric_length;
	memcpy(memory, copy->labels, copy->labels_length);
	copy->labels = memory;
}

/* So many samples are held back, 32 MB; a commit counts them in some 0.1 s */
#define MOST_SAMPLES			1000000

/* Largest sum of increments that are held back as one */
#define LARGEST_MERGED_VALUE	1e300

/*
 * The increment of a series that another one can be added to: of the current
 * subtransaction.  A rollback to a savepoint may have cut it off the stack.
 */
static PendingSample *
increment_of(PendingSeries *series)
{
	PendingSample *sample;

	if (series->last_inc <= savepoints[savepoints_used - 1].height || series->last_inc > samples_used)
		return NULL;
	sample = &samples[series->last_inc - 1];
	return sample->series == series ? sample : NULL;
}

/* Hold a sample back until the commit */
void
mhm_transaction_add(const MhmSampleKey *key, const MhmTarget *target,
					MhmOperation operation, double value)
{
	PendingTag	tag = {*target, 0, mhm_sample_key_hash(key)};
	PendingSeries *series;
	PendingSample *sample;
	bool		found;

	if (IsParallelWorker())
		ereport(ERROR,
				errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				errmsg("cannot record metrics in a parallel worker while meshhook_metrics.on_commit is on"),
				errhint("A function that records is not parallel safe."));
	if (pending_series == NULL)
		begin_pending();
	note_savepoint();

	series = hash_search(pending_series, &tag, HASH_FIND, &found);
	if (!found)
	{
		MhmKey		copy;

		copy_key(key, &copy);
		series = hash_search(pending_series, &tag, HASH_ENTER, &found);
		series->target = *target;
		series->key = copy;
		series->last_inc = 0;
		series->kind = operation == MHM_INC ? MHM_COUNTER :
			operation == MHM_OBSERVE ? MHM_HISTOGRAM : MHM_GAUGE;
	}

	sample = operation == MHM_INC ? increment_of(series) : NULL;
	if (sample != NULL && sample->value + value < LARGEST_MERGED_VALUE)
	{
		sample->value += value;
		sample->calls++;
		return;
	}
	if (samples_used >= MOST_SAMPLES)
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("a transaction cannot hold back more than %d samples", MOST_SAMPLES),
				errdetail("With meshhook_metrics.on_commit = on samples of gauges and histograms are kept until the commit."),
				errhint("Commit more often, or set meshhook_metrics.on_commit to off: then samples count at once."));
		mhm_accumulate_discard(MHM_DISCARD_INVALID, 1);
		return;
	}
	if (samples_used == samples_size)
	{
		Size		size = Max(64, samples_size * 2);

		samples = samples == NULL ?
			MemoryContextAlloc(TopTransactionContext, size * sizeof(PendingSample)) :
			repalloc_huge(samples, size * sizeof(PendingSample));
		samples_size = size;
	}
	sample = &samples[samples_used++];
	sample->series = series;
	sample->operation = operation;
	sample->value = value;
	sample->calls = 1;
	if (operation == MHM_INC)
		series->last_inc = samples_used;
}

/*
 * The transaction has committed: count what it recorded.  Nothing may fail
 * any more, and nothing here can: the registry neither allocates nor raises.
 */
static void
count_everything(void)
{
	TimestampTz now;

	if (samples_used == 0)
		return;
	/* Not when the statement began: a procedure that commits can go on for days */
	now = GetCurrentTimestamp();
	for (Size i = 0; i < samples_used; i++)
	{
		PendingSample *sample = &samples[i];
		MhmTarget  *target = &sample->series->target;
		MhmConflict conflict;

		while (target->series != MHM_NONE &&
			   !mhm_accumulate(target, sample->operation, sample->value, sample->calls, now))
		{
			MhmFindResult result = mhm_registry_find(&sample->series->key,
													 sample->series->kind,
													 target, &conflict);

			/* After a reset() the name may have become another metric's */
			if (result == MHM_KIND_CONFLICT || result == MHM_NAME_CONFLICT)
			{
				target->series = MHM_NONE;
				target->reason = MHM_DISCARD_INVALID;
			}
		}
		if (target->series == MHM_NONE)
			mhm_accumulate_discard(target->reason, sample->calls);
	}
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_PREPARE:
			if (samples_used > 0)
				ereport(ERROR,
						errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("cannot PREPARE a transaction that has recorded metrics with meshhook_metrics.on_commit = on"),
						errdetail("The server that commits it could not count them."),
						errhint("Set meshhook_metrics.on_commit to off in transactions that are to be prepared."));
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
			count_everything();
			forget_everything();
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			forget_everything();
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	Savepoint  *top;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (savepoints_used > 0 &&
		   (top = &savepoints[savepoints_used - 1])->nest_level >= level)
	{
		if (event == SUBXACT_EVENT_ABORT_SUB)
			samples_used = top->height;
		else if (savepoints_used < 2 || top[-1].nest_level < level - 1)
		{
			/* Its samples are now its parent's, which had none */
			top->nest_level = level - 1;
			break;
		}
		savepoints_used--;
	}
}

void
mhm_transaction_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}
