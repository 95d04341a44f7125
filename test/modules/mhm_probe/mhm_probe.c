/*-------------------------------------------------------------------------
 *
 * mhm_probe.c
 *	  What the tests of meshhook_metrics need that it does not offer itself
 *
 * Shows how the shared region is laid out, so that tests damage what they
 * mean to; plays the flush worker's part towards idle series; and kills a
 * process at any one of its instructions.  Called by TAP tests only, which
 * see to it that nobody else uses the region where that matters.  What kills
 * the flush worker itself is in workerfaults.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../../src/region.h"
#include "../../../src/registry.h"
#include "../../../src/retire.h"
#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "probe.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(mhm_probe_parts);
PG_FUNCTION_INFO_V1(mhm_probe_fields);
PG_FUNCTION_INFO_V1(mhm_probe_usage);
PG_FUNCTION_INFO_V1(mhm_probe_flush);
PG_FUNCTION_INFO_V1(mhm_probe_age);
PG_FUNCTION_INFO_V1(mhm_probe_retire_idle);
PG_FUNCTION_INFO_V1(mhm_probe_die_at);
PG_FUNCTION_INFO_V1(mhm_probe_stop);

PGDLLEXPORT void _PG_init(void);

/* Preloaded after meshhook_metrics, also the flush worker is looked after */
void
_PG_init(void)
{
	if (process_shared_preload_libraries_in_progress)
		mhm_probe_watch_worker();
}

static void
require_region(void)
{
	if (mhm_region == NULL)
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("mhm_probe needs meshhook_metrics to be preloaded"));
}

static void
put_part(ReturnSetInfo *result, const char *part, const void *begin, Size size, uint32 number)
{
	Datum		values[4];
	bool		nulls[4] = {false};

	values[0] = CStringGetTextDatum(part);
	values[1] = Int64GetDatum((const char *) begin - (const char *) mhm_region);
	values[2] = Int32GetDatum((int32) size);
	values[3] = Int32GetDatum((int32) number);
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

Datum
mhm_probe_parts(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MhmGeometry *g;

	require_region();
	InitMaterializedSRF(fcinfo, 0);
	g = &mhm_region->geometry;
	put_part(result, "header", mhm_region, sizeof(MhmRegion), 1);
	put_part(result, "stripes", mhm_stripes, sizeof(MhmStripePadded), g->stripes);
	put_part(result, "metrics", mhm_metrics, sizeof(MhmMetric), g->metric_slots);
	put_part(result, "series", mhm_series, sizeof(MhmSeries), g->series_slots);
	put_part(result, "tenants", mhm_tenants, sizeof(MhmTenant), mhm_tenant_slots(g));
	put_part(result, "tenant_links", mhm_tenant_links, sizeof(MhmTenantLink), g->series_slots);
	put_part(result, "tenant_heads", mhm_tenant_heads, sizeof(uint32), g->series_heads);
	put_part(result, "series_heads", mhm_series_heads, sizeof(uint32), g->series_heads);
	put_part(result, "metric_heads", mhm_metric_heads, sizeof(uint32), g->metric_heads);
	put_part(result, "cells", mhm_cells, sizeof(MhmCell), g->stripes * g->series_slots);
	put_part(result, "earlier_sums", mhm_earlier_sums, sizeof(double), g->stripes * g->series_slots);
	put_part(result, "levels", mhm_levels, sizeof(MhmLevel), g->series_slots);
	put_part(result, "histograms", mhm_histograms, sizeof(MhmHistogramBody), g->histogram_slots);
	put_part(result, "chunks", mhm_chunks, sizeof(MhmChunk), g->chunks);
	return (Datum) 0;
}

typedef struct Field
{
	const char *part;
	const char *field;
	Size		offset;
	Size		size;
} Field;

#define FIELD(part, type, field) \
	{part, #field, offsetof(type, field), sizeof(((type *) NULL)->field)}

static const Field fields[] = {
	FIELD("header", MhmRegion, magic),
	FIELD("header", MhmRegion, layout_version),
	FIELD("header", MhmRegion, total_bytes),
	FIELD("header", MhmRegion, system_identifier),
	FIELD("header", MhmRegion, region_id),
	FIELD("header", MhmRegion, incarnation),
	FIELD("header", MhmRegion, flushed_tick),
	FIELD("header", MhmRegion, pending_tick),
	FIELD("header", MhmRegion, geometry.max_series),
	FIELD("header", MhmRegion, geometry.max_histograms),
	FIELD("header", MhmRegion, geometry.series_slots),
	FIELD("header", MhmRegion, geometry.histogram_slots),
	FIELD("header", MhmRegion, geometry.metric_slots),
	FIELD("header", MhmRegion, geometry.series_heads),
	FIELD("header", MhmRegion, geometry.metric_heads),
	FIELD("header", MhmRegion, geometry.chunks),
	FIELD("header", MhmRegion, geometry.stripes),
	FIELD("header", MhmRegion, used_series),
	FIELD("header", MhmRegion, used_chunks),
	FIELD("header", MhmRegion, free_series),
	FIELD("header", MhmRegion, free_chunk),
	FIELD("stripes", MhmStripe, lock),
	FIELD("stripes", MhmStripe, intent),
	FIELD("stripes", MhmStripe, intent.phase),
	FIELD("metrics", MhmMetric, next),
	FIELD("metrics", MhmMetric, name),
	FIELD("metrics", MhmMetric, help),
	FIELD("metrics", MhmMetric, unit),
	FIELD("metrics", MhmMetric, series),
	FIELD("metrics", MhmMetric, min_exponent),
	FIELD("metrics", MhmMetric, kind),
	FIELD("metrics", MhmMetric, live),
	FIELD("metrics", MhmMetric, described),
	FIELD("series", MhmSeries, hash),
	FIELD("series", MhmSeries, metric),
	FIELD("series", MhmSeries, labels),
	FIELD("series", MhmSeries, next),
	FIELD("series", MhmSeries, histogram),
	FIELD("series", MhmSeries, generation),
	FIELD("series", MhmSeries, kind),
	FIELD("series", MhmSeries, live),
	FIELD("series", MhmSeries, overflow),
	FIELD("series", MhmSeries, updated_at),
	FIELD("series", MhmSeries, last),
	FIELD("series", MhmSeries, min),
	FIELD("series", MhmSeries, max),
	FIELD("series", MhmSeries, flushed_count),
	FIELD("series", MhmSeries, taken_min),
	FIELD("series", MhmSeries, taken_max),
	FIELD("histograms", MhmHistogramBody, next_free),
	FIELD("histograms", MhmHistogramBody, min_exponent),
	FIELD("histograms", MhmHistogramBody, counts),
	FIELD("chunks", MhmChunk, next),
	FIELD("chunks", MhmChunk, payload)
};

Datum
mhm_probe_fields(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < lengthof(fields); i++)
	{
		Datum		values[4];
		bool		nulls[4] = {false};

		values[0] = CStringGetTextDatum(fields[i].part);
		values[1] = CStringGetTextDatum(fields[i].field);
		values[2] = Int32GetDatum((int32) fields[i].offset);
		values[3] = Int32GetDatum((int32) fields[i].size);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

Datum
mhm_probe_usage(PG_FUNCTION_ARGS)
{
	TupleDesc	tuple_desc;
	Datum		values[5];
	bool		nulls[5] = {false};

	require_region();
	if (get_call_result_type(fcinfo, NULL, &tuple_desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "usage() is declared otherwise than this library expects");
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	values[0] = Int32GetDatum((int32) mhm_region->used_series);
	values[1] = Int32GetDatum((int32) mhm_region->used_overflow_series);
	values[2] = Int32GetDatum((int32) mhm_region->used_histograms);
	values[3] = Int32GetDatum((int32) mhm_region->used_metrics);
	values[4] = Int32GetDatum((int32) mhm_region->used_chunks);
	LWLockRelease(mhm_registry_lock);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tuple_desc, values, nulls)));
}

/* The next series of a metric after a number, or MHM_NONE */
static uint32
next_series(text *metric, uint32 number)
{
	uint32		only = mhm_metric_find(VARDATA_ANY(metric), VARSIZE_ANY_EXHDR(metric));

	while (++number < mhm_region->geometry.series_slots)
		if (mhm_series[number].live && mhm_series[number].metric == only)
			return number;
	return MHM_NONE;
}

/*
 * Counts are read as they are while others may be adding to them: what is
 * missed is flushed the next time.
 */
Datum
mhm_probe_flush(PG_FUNCTION_ARGS)
{
	text	   *metric = PG_GETARG_TEXT_PP(0);
	uint64		flushed = 0;

	require_region();
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = MHM_NONE; (i = next_series(metric, i)) != MHM_NONE;)
	{
		uint64		count = 0;

		for (uint32 stripe = 0; stripe < mhm_region->geometry.stripes; stripe++)
			count += *(volatile uint64 *) &mhm_cell(stripe, i)->count;
		flushed += count - mhm_series[i].flushed_count;
		mhm_series[i].flushed_count = count;
	}
	LWLockRelease(mhm_registry_lock);
	PG_RETURN_INT64((int64) flushed);
}

Datum
mhm_probe_age(PG_FUNCTION_ARGS)
{
	text	   *metric = PG_GETARG_TEXT_PP(0);
	Datum		by = PG_GETARG_DATUM(1);
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz then = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
															   TimestampTzGetDatum(now), by));
	int32		aged = 0;

	require_region();
	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	for (uint32 i = MHM_NONE; (i = next_series(metric, i)) != MHM_NONE;)
	{
		pg_atomic_fetch_sub_u64(&mhm_series[i].updated_at, (int64) (now - then));
		aged++;
	}
	/* The next sample that finds no room may look for it at once */
	mhm_region->last_retirement = 0;
	for (uint32 i = 0; i < mhm_tenant_slots(&mhm_region->geometry); i++)
		mhm_tenants[i].asked_all_at = 0;
	LWLockRelease(mhm_registry_lock);
	PG_RETURN_INT32(aged);
}

Datum
mhm_probe_retire_idle(PG_FUNCTION_ARGS)
{
	require_region();
	PG_RETURN_INT32((int32) mhm_registry_retire_idle(PG_GETARG_TIMESTAMPTZ(0)));
}

Datum
mhm_probe_stop(PG_FUNCTION_ARGS)
{
	kill(MyProcPid, SIGSTOP);
	PG_RETURN_VOID();
}

#ifdef __x86_64__

/* In memory that a forked process shares */
static volatile int32 *instructions = NULL;
static int32 last_instruction;

/* Comes before every instruction while the processor's trap flag is set */
static void
count_instruction(int signal_number)
{
	if (++*instructions == last_instruction)
		kill(getpid(), SIGKILL);
}

/* The forked process: call, and end by signal or with status 0 */
static void
call_step_by_step(FunctionCallInfo call, int32 instruction)
{
	struct sigaction action;

	last_instruction = instruction;
	memset(&action, 0, sizeof(action));
	action.sa_handler = count_instruction;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTRAP, &action, NULL);
	PG_TRY();
	{
		if (instruction != 0)
			STEP_BY_STEP();
		(void) FunctionCallInvoke(call);
		RUN_FREELY();
	}
	PG_CATCH();
	{
		RUN_FREELY();
		EmitErrorReport();
		_exit(2);
	}
	PG_END_TRY();
	_exit(0);
}

/* Make a call of a function from texts of its arguments */
static FunctionCallInfo
prepare_call(Oid routine, ArrayType *arguments)
{
	FmgrInfo   *function = palloc0(sizeof(FmgrInfo));
	FunctionCallInfo call;
	Oid		   *types;
	int			expected;
	Datum	   *texts;
	bool	   *nulls;
	int			given;

	(void) get_func_signature(routine, &types, &expected);
	deconstruct_array(arguments, TEXTOID, -1, false, TYPALIGN_INT, &texts, &nulls, &given);
	if (given != expected)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("%d arguments are given to a function that has %d", given, expected));

	fmgr_info(routine, function);
	call = palloc0(SizeForFunctionCallInfo(given));
	InitFunctionCallInfoData(*call, function, given, InvalidOid, NULL, NULL);
	for (int i = 0; i < given; i++)
	{
		Oid			input;
		Oid			parameter;

		call->args[i].isnull = nulls[i];
		if (nulls[i])
			continue;
		getTypeInputInfo(types[i], &input, &parameter);
		call->args[i].value = OidInputFunctionCall(input, TextDatumGetCString(texts[i]),
												   parameter, -1);
	}
	return call;
}

Datum
mhm_probe_die_at(PG_FUNCTION_ARGS)
{
	FunctionCallInfo call = prepare_call(PG_GETARG_OID(0), PG_GETARG_ARRAYTYPE_P(1));
	int32		instruction = PG_GETARG_INT32(2);
	int			status;
	pid_t		child;
	const char *problem;

	require_region();
	if (instructions == NULL)
	{
		void	   *shared = mmap(NULL, sizeof(int32), PROT_READ | PROT_WRITE,
								  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (shared == MAP_FAILED)
			elog(ERROR, "could not map shared memory: %m");
		instructions = shared;
	}
	*instructions = 0;
	fflush(NULL);
	child = fork();
	if (child == 0)
		call_step_by_step(call, instruction);
	if (child < 0 || waitpid(child, &status, 0) != child)
		ereport(ERROR,
				errcode(ERRCODE_SYSTEM_ERROR),
				errmsg("could not run a process: %m"));

	/* As the server does: locks are new, and then the region is recovered */
	LWLockInitialize(mhm_registry_lock, mhm_registry_lock->tranche);
	problem = mhm_region_recover();
	if (problem != NULL)
		ereport(ERROR,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("the region cannot be recovered after instruction %d, since %s",
					   instruction, problem));
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		PG_RETURN_NULL();
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		PG_RETURN_INT32(*instructions);
	ereport(ERROR,
			errcode(ERRCODE_SYSTEM_ERROR),
			errmsg("the process ended otherwise, with status %d", status));
}

#else

Datum
mhm_probe_die_at(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			errmsg("mhm_probe can step x86-64 processors only"));
}

#endif							/* __x86_64__ */
