/*
 * histogramaggregate.c
 *		The aggregates histogram_merge and histogram_of.
 *
 * SQL-callable transition, combine, serialize, deserialize and final functions
 * over a MhmHistogramState, which lives in the aggregate's memory context.  The
 * serialized state is the compact form.
 */
#include "postgres.h"

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "histogram.h"

PG_FUNCTION_INFO_V1(mhm_histogram_merge_transition);
PG_FUNCTION_INFO_V1(mhm_histogram_of_transition);
PG_FUNCTION_INFO_V1(mhm_histogram_combine);
PG_FUNCTION_INFO_V1(mhm_histogram_serialize);
PG_FUNCTION_INFO_V1(mhm_histogram_deserialize);
PG_FUNCTION_INFO_V1(mhm_histogram_final);

static MemoryContext
aggregate_context(FunctionCallInfo fcinfo)
{
	MemoryContext context;

	if (!AggCheckCallContext(fcinfo, &context))
		elog(ERROR, "a histogram aggregate's support function was called outside of an aggregate");
	return context;
}

/* The transition state of the first argument, or NULL */
static MhmHistogramState *
state_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : (MhmHistogramState *) PG_GETARG_POINTER(n);
}

Datum
mhm_histogram_merge_transition(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	MhmHistogramState *state = state_argument(fcinfo, 0);
	MhmHistogramReader reader;
	struct varlena *histogram;

	if (PG_ARGISNULL(1))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	if (state == NULL)
		state = mhm_state_create(context);

	histogram = PG_GETARG_VARLENA_PP(1);
	mhm_histogram_open(&reader, histogram);
	mhm_state_merge(state, &reader);
	mhm_histogram_close(&reader);
	PG_FREE_IF_COPY(histogram, 1);
	PG_RETURN_POINTER(state);
}

Datum
mhm_histogram_of_transition(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	MhmHistogramState *state = state_argument(fcinfo, 0);
	double		value;

	if (PG_ARGISNULL(1))
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}

	value = PG_GETARG_FLOAT8(1);
	if (!isfinite(value) || value < 0)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a histogram cannot count the value %g", value),
				 errdetail("Its buckets hold finite values that are not negative."),
				 errhint("Leave such values out: histogram_of(x) filter (where x >= 0 and x < 'infinity').")));

	if (state == NULL)
		state = mhm_state_create(context);
	mhm_state_observe(state, value);
	PG_RETURN_POINTER(state);
}

Datum
mhm_histogram_combine(PG_FUNCTION_ARGS)
{
	MemoryContext context = aggregate_context(fcinfo);
	MhmHistogramState *state = state_argument(fcinfo, 0);
	MhmHistogramState *other = state_argument(fcinfo, 1);

	if (other == NULL)
	{
		if (state == NULL)
			PG_RETURN_NULL();
		PG_RETURN_POINTER(state);
	}
	if (state == NULL)
		state = mhm_state_create(context);
	mhm_state_combine(state, other);
	PG_RETURN_POINTER(state);
}

/* The state in its compact form, which is a bytea in all but name */
static struct varlena *
compact_state(const MhmHistogramState *state)
{
	return mhm_histogram_compact(&state->summary, state->first, state->counts, state->size);
}

Datum
mhm_histogram_serialize(PG_FUNCTION_ARGS)
{
	(void) aggregate_context(fcinfo);
	PG_RETURN_BYTEA_P(compact_state((MhmHistogramState *) PG_GETARG_POINTER(0)));
}

Datum
mhm_histogram_deserialize(PG_FUNCTION_ARGS)
{
	MhmHistogramState *state;
	MhmHistogramReader reader;

	(void) aggregate_context(fcinfo);
	state = mhm_state_create(CurrentMemoryContext);
	mhm_histogram_open(&reader, PG_GETARG_BYTEA_PP(0));
	mhm_state_merge(state, &reader);
	mhm_histogram_close(&reader);
	PG_RETURN_POINTER(state);
}

Datum
mhm_histogram_final(PG_FUNCTION_ARGS)
{
	MhmHistogramState *state = state_argument(fcinfo, 0);

	(void) aggregate_context(fcinfo);
	if (state == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(compact_state(state));
}
