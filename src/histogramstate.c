/*
 * histogramstate.c
 *		Histograms and values being added up.
 *
 * A state belongs to one aggregate in one backend (histogramaggregate.c) and
 * lives in that aggregate's memory context.  It keeps its counts in a dense array
 * that grows by doubling, so that a merge decodes each input straight into it and
 * a million inputs cost no more each than the first.
 *
 * Invariants: the zero and the overflow counts are in the order of their
 * thresholds, which differ, and above 0; total is the sum of all counts.
 */
#include "postgres.h"

#include <float.h>

#include "utils/memutils.h"

#include "histogram.h"

/* Counts to begin with: four octaves at full resolution */
#define INITIAL_SIZE				32

MhmHistogramState *
mhm_state_create(MemoryContext context)
{
	MhmHistogramState *state = MemoryContextAllocZero(context, sizeof(MhmHistogramState));

	state->summary.schema = MHM_HISTOGRAM_SCHEMA;
	state->context = context;
	return state;
}

/* Make room for a bucket that the array does not cover */
static void
grow(MhmHistogramState *state, int32 index)
{
	int32		first = state->size == 0 ? index : Min(state->first, index);
	int32		last = state->size == 0 ? index : Max(state->first + state->size - 1, index);
	int32		needed = last - first + 1;
	int32		size = Max(state->size * 2, INITIAL_SIZE);
	uint64	   *counts;

	while (size < needed)
		size *= 2;

	/* The spare room goes to the side that grew: more may come there */
	if (state->size == 0)
		first -= size / 2;
	else if (index < state->first)
		first = last - size + 1;

	counts = MemoryContextAllocZero(state->context, (Size) size * sizeof(uint64));
	if (state->size > 0)
	{
		memcpy(counts + (state->first - first), state->counts, (Size) state->size * sizeof(uint64));
		pfree(state->counts);
	}
	state->counts = counts;
	state->first = first;
	state->size = size;
}

/* The place of a bucket's count */
static inline uint64 *
bucket(MhmHistogramState *state, int32 index)
{
	if ((uint32) index - (uint32) state->first >= (uint32) state->size)
		grow(state, index);
	return &state->counts[index - state->first];
}

/* Take note of more observations, refusing more than can be counted */
static inline void
count_up(MhmHistogramState *state, uint64 count)
{
	if (count > MHM_HISTOGRAM_COUNT_MAX - state->total)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a histogram cannot count more than 9223372036854775807 observations"),
				 errhint("Merge fewer histograms at a time.")));
	state->total += count;
}

/* Addition that stops at the largest double, so that a sum is always a number */
static inline double
saturating_add(double a, double b)
{
	double		sum = a + b;

	return sum > DBL_MAX ? DBL_MAX : sum;
}

/* Add sum and extremes of a histogram that counts something; call before its counts */
static inline void
add_summary(MhmHistogramState *state, const MhmHistogramSummary *added)
{
	MhmHistogramSummary *summary = &state->summary;

	if (state->total == 0)
	{
		summary->sum = added->sum;
		summary->min = added->min;
		summary->max = added->max;
	}
	else
	{
		summary->sum = saturating_add(summary->sum, added->sum);
		summary->min = Min(summary->min, added->min);
		summary->max = Max(summary->max, added->max);
	}
}

/* Add to the zero or the overflow count of a threshold */
static void
add_to_end(MhmHistogramState *state, MhmEnds *ends, int32 index, uint64 count)
{
	int			i = 0;

	while (i < ends->size && ends->at[i].index < index)
		i++;
	if (i < ends->size && ends->at[i].index == index)
	{
		ends->at[i].count += count;
		return;
	}
	if (ends->size == ends->room)
	{
		MhmEnd	   *before = ends->at;

		ends->room = ends->room * 2 + 1;
		ends->at = MemoryContextAlloc(state->context, ends->room * sizeof(MhmEnd));
		if (before != NULL)
		{
			memcpy(ends->at, before, ends->size * sizeof(MhmEnd));
			pfree(before);
		}
	}
	memmove(&ends->at[i + 1], &ends->at[i], (ends->size - i) * sizeof(MhmEnd));
	ends->at[i] = (MhmEnd) {.index = index,.count = count};
	ends->size++;
}

/* Add one value, which must be finite and not negative */
void
mhm_state_observe(MhmHistogramState *state, double value)
{
	/* Adding 0 makes of -0 the 0 that everyone means */
	MhmHistogramSummary observed = {.sum = value + 0.0,.min = value + 0.0,.max = value + 0.0};

	add_summary(state, &observed);
	count_up(state, 1);
	if (value > 0)
		(*bucket(state, mhm_bucket_index(value)))++;
	else
		add_to_end(state, &state->summary.zero, MHM_INDEX_NONE, 1);
}

/*
 * Add a zero count, its threshold rounded up to the buckets of a coarser schema.
 * Where that is above all doubles nothing is known of where it lies.
 */
static void
add_zero(MhmHistogramState *state, MhmEnd zero, int steps)
{
	MhmHistogramSummary *summary = &state->summary;

	if (zero.index != MHM_INDEX_NONE)
		zero.index = mhm_bucket_downscale(zero.index, steps);
	if (zero.index != MHM_INDEX_NONE && isinf(mhm_bucket_upper_at(zero.index, summary->schema)))
		add_to_end(state, &summary->overflow, MHM_INDEX_NONE, zero.count);
	else
		add_to_end(state, &summary->zero, zero.index, zero.count);
}

/* Likewise an overflow count, rounded down: below the last bucket nothing is left of it */
static void
add_overflow(MhmHistogramState *state, MhmEnd overflow, int steps)
{
	MhmHistogramSummary *summary = &state->summary;

	if (overflow.index != MHM_INDEX_NONE)
		overflow.index >>= steps;
	if (mhm_threshold_value(overflow.index, summary->schema) == 0)
		overflow.index = MHM_INDEX_NONE;
	add_to_end(state, &summary->overflow, overflow.index, overflow.count);
}

/* Add the counts of both sides, of a histogram that is finer by so many steps */
static void
add_ends(MhmHistogramState *state, const MhmEnds *zero, const MhmEnds *overflow, int steps)
{
	for (int i = 0; i < zero->size; i++)
		add_zero(state, zero->at[i], steps);
	for (int i = 0; i < overflow->size; i++)
		add_overflow(state, overflow->at[i], steps);
}

/* Go down to a coarser schema */
static void
downscale(MhmHistogramState *state, int schema)
{
	MhmHistogramSummary *summary = &state->summary;
	int			steps = summary->schema - schema;
	MhmEnds		zero = summary->zero;
	MhmEnds		overflow = summary->overflow;

	summary->schema = schema;
	summary->zero = summary->overflow = (MhmEnds) {0};
	add_ends(state, &zero, &overflow, steps);
	if (zero.at != NULL)
		pfree(zero.at);
	if (overflow.at != NULL)
		pfree(overflow.at);

	if (state->size > 0)
	{
		int32		first = mhm_bucket_downscale(state->first, steps);

		/* A bucket never moves up in the array, so this can be done in place */
		for (int32 i = 0; i < state->size; i++)
		{
			uint64		count = state->counts[i];

			state->counts[i] = 0;
			state->counts[mhm_bucket_downscale(state->first + i, steps) - first] += count;
		}
		state->first = first;
	}
}

/*
 * Bring the state to a schema at which a histogram can be added to it.  Returns by
 * how many steps that histogram is to be downscaled.
 */
static int
meet(MhmHistogramState *state, int schema)
{
	if (schema < state->summary.schema)
		downscale(state, schema);
	return schema - state->summary.schema;
}

/* Add all of a histogram that counts something but its buckets */
static void
add_summary_and_ends(MhmHistogramState *state, const MhmHistogramSummary *added, int steps)
{
	add_summary(state, added);
	for (int i = 0; i < added->zero.size; i++)
		count_up(state, added->zero.at[i].count);
	for (int i = 0; i < added->overflow.size; i++)
		count_up(state, added->overflow.at[i].count);
	add_ends(state, &added->zero, &added->overflow, steps);
}

static inline void
add_count(MhmHistogramState *state, int32 index, uint64 count)
{
	count_up(state, count);
	*bucket(state, index) += count;
}

/*
 * Add a histogram in its compact form.  The reader must be at its beginning, and
 * is at the end or at a problem afterwards, which the caller has to look for.
 */
void
mhm_state_merge(MhmHistogramState *state, MhmHistogramReader *reader)
{
	int			steps;

	if (reader->problem != NULL)
		return;

	steps = meet(state, reader->summary.schema);
	if (reader->total == 0 && reader->at == reader->end)
		return;

	add_summary_and_ends(state, &reader->summary, steps);
	while (mhm_histogram_next(reader))
		add_count(state, mhm_bucket_downscale(reader->index, steps), reader->count);
}

/* Add another state, which stays as it is */
void
mhm_state_combine(MhmHistogramState *state, const MhmHistogramState *other)
{
	int			steps = meet(state, other->summary.schema);

	if (other->total == 0)
		return;

	add_summary_and_ends(state, &other->summary, steps);
	for (int32 i = 0; i < other->size; i++)
	{
		if (other->counts[i] > 0)
			add_count(state, mhm_bucket_downscale(other->first + i, steps), other->counts[i]);
	}
}
