/*
 * histogramstate.c
 *		Histograms and values being added up.
 *
 * A state belongs to one aggregate in one backend (histogramaggregate.c) and
 * lives in that aggregate's memory context.  It keeps its counts in a dense array
 * that grows by doubling, so that a merge decodes each input straight into it and
 * a million inputs cost no more each than the first.
 *
 * Invariants: no count lies beyond a threshold; a threshold is NONE or ALL while
 * the count that it belongs to is 0; total is the sum of all counts.
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
	state->summary.zero_index = MHM_INDEX_NONE;
	state->summary.overflow_index = MHM_INDEX_ALL;
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
		state->summary.zero++;
}

/* Round a zero threshold up to the buckets of a coarser schema */
static int32
downscale_zero_index(int32 index, int steps)
{
	return index == MHM_INDEX_NONE ? index : mhm_bucket_downscale(index, steps);
}

/* Round an overflow threshold down; below the last bucket nothing is left of it */
static int32
downscale_overflow_index(int32 index, int steps, int schema)
{
	if (index == MHM_INDEX_NONE || index == MHM_INDEX_ALL)
		return index;
	index >>= steps;
	return mhm_bucket_upper_at(index, schema) > 0 ? index : MHM_INDEX_NONE;
}

/* Go down to a coarser schema */
static void
downscale(MhmHistogramState *state, int schema)
{
	MhmHistogramSummary *summary = &state->summary;
	int			steps = summary->schema - schema;

	summary->schema = schema;
	summary->zero_index = downscale_zero_index(summary->zero_index, steps);
	summary->overflow_index = downscale_overflow_index(summary->overflow_index, steps, schema);

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
 * Zero and overflow overlap, or one of them covers all there is: nothing is known
 * of where the observations lie but the extremes.
 */
static bool
must_collapse(const MhmHistogramSummary *summary)
{
	if (summary->overflow_index == MHM_INDEX_NONE)
		return true;
	if (summary->zero_index == MHM_INDEX_NONE)
		return false;
	return summary->zero_index > summary->overflow_index ||
		isinf(mhm_bucket_upper_at(summary->zero_index, summary->schema));
}

/* Move the counts beyond the thresholds into the zero and overflow counts */
static void
fold(MhmHistogramState *state)
{
	MhmHistogramSummary *summary = &state->summary;

	if (must_collapse(summary))
	{
		summary->overflow += summary->zero;
		summary->zero = 0;
		summary->zero_index = MHM_INDEX_NONE;
		summary->overflow_index = MHM_INDEX_NONE;
	}
	for (int32 i = 0; i < state->size; i++)
	{
		if (state->first + i > summary->overflow_index)
			summary->overflow += state->counts[i];
		else if (state->first + i <= summary->zero_index)
			summary->zero += state->counts[i];
		else
			continue;
		state->counts[i] = 0;
	}
}

/*
 * Bring the state to the schema and the thresholds at which a histogram can be
 * added to it.  Returns by how many steps that histogram is to be downscaled.
 */
static int
meet(MhmHistogramState *state, const MhmHistogramSummary *added)
{
	MhmHistogramSummary *summary = &state->summary;
	bool		changed = added->schema < summary->schema;
	int32		zero_index;
	int32		overflow_index;
	int			steps;

	if (changed)
		downscale(state, added->schema);
	steps = added->schema - summary->schema;

	zero_index = downscale_zero_index(added->zero_index, steps);
	if (zero_index > summary->zero_index)
	{
		summary->zero_index = zero_index;
		changed = true;
	}
	overflow_index = downscale_overflow_index(added->overflow_index, steps, summary->schema);
	if (overflow_index < summary->overflow_index)
	{
		summary->overflow_index = overflow_index;
		changed = true;
	}
	if (changed)
		fold(state);
	return steps;
}

/* Add a count to the bucket or beyond the threshold where it belongs */
static inline void
add_count(MhmHistogramState *state, int32 index, uint64 count)
{
	MhmHistogramSummary *summary = &state->summary;

	count_up(state, count);
	if (index > summary->overflow_index)
		summary->overflow += count;
	else if (index <= summary->zero_index)
		summary->zero += count;
	else
		*bucket(state, index) += count;
}

/* Add the counts that lie outside of the buckets; the thresholds have met */
static void
add_ends(MhmHistogramState *state, const MhmHistogramSummary *added)
{
	count_up(state, added->zero);
	count_up(state, added->overflow);
	state->summary.overflow += added->overflow;

	/* Of a collapsed state, zero is a part of the overflow */
	if (state->summary.overflow_index == MHM_INDEX_NONE)
		state->summary.overflow += added->zero;
	else
		state->summary.zero += added->zero;
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

	steps = meet(state, &reader->summary);
	if (reader->total == 0 && reader->at == reader->end)
		return;

	add_summary(state, &reader->summary);
	add_ends(state, &reader->summary);
	while (mhm_histogram_next(reader))
		add_count(state, mhm_bucket_downscale(reader->index, steps), reader->count);
}

/* Add another state, which stays as it is */
void
mhm_state_combine(MhmHistogramState *state, const MhmHistogramState *other)
{
	int			steps = meet(state, &other->summary);

	if (other->total == 0)
		return;

	add_summary(state, &other->summary);
	add_ends(state, &other->summary);
	for (int32 i = 0; i < other->size; i++)
	{
		if (other->counts[i] > 0)
			add_count(state, mhm_bucket_downscale(other->first + i, steps), other->counts[i]);
	}
}
