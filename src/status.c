/*-------------------------------------------------------------------------
 *
 * status.c
 *	  status(): how the extension itself is doing
 *
 * Owns the health numbers, which prometheus() shows as well.  Called by
 * operators, and by tests that wait for a condition.  Works without preload
 * too: that is the first thing to find out when nothing is recorded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "accumulate.h"
#include "anyencoding.h"
#include "catalog/namespace.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "require.h"
#include "status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "workerstate.h"

PG_FUNCTION_INFO_V1(mhm_status);

/* Columns of status(), in their order */
enum
{
	STATUS_PRELOADED,
	STATUS_STORAGE_INSTALLED,
	STATUS_WORKER_PID,
	STATUS_SERIES_USED,
	STATUS_SERIES_MAX,
	STATUS_HISTOGRAMS_USED,
	STATUS_HISTOGRAMS_MAX,
	STATUS_SHARED_MEMORY_BYTES,
	STATUS_LAST_FLUSH_AT,
	STATUS_LAST_FLUSH_MS,
	STATUS_TICK,
	STATUS_FLUSH_ERRORS,
	STATUS_LAST_ERROR,
	STATUS_DISCARDED,
	STATUS_COLUMNS
};

const char *
mhm_discard_reason_name(MhmDiscardReason reason)
{
	switch (reason)
	{
		case MHM_DISCARD_SERIES_LIMIT:
			return "series_limit";
		case MHM_DISCARD_TENANT_LIMIT:
			return "tenant_limit";
		case MHM_DISCARD_HISTOGRAM_LIMIT:
			return "histogram_limit";
		case MHM_DISCARD_LABEL_MEMORY:
			return "label_memory";
		case MHM_DISCARD_METRIC_LIMIT:
			return "metric_limit";
		case MHM_DISCARD_OVERFLOW_LIMIT:
			return "overflow_limit";
		case MHM_DISCARD_OUT_OF_RANGE:
			return "out_of_range";
		case MHM_DISCARD_INVALID:
			return "invalid";
		case MHM_DISCARD_NONE:
			break;
	}
	return "none";
}

void
mhm_health_read(MhmHealth *health)
{
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	health->series_used = mhm_region->used_series;
	health->series_max = mhm_region->geometry.max_series;
	health->histograms_used = mhm_region->used_histograms;
	health->histograms_max = mhm_region->geometry.max_histograms;
	health->bytes = mhm_region->total_bytes;
	LWLockRelease(mhm_registry_lock);
	mhm_accumulate_read_discarded(health->discarded);
}

static Datum
discarded_jsonb(const uint64 *discarded)
{
	StringInfoData json;

	initStringInfo(&json);
	for (int reason = 0; reason < MHM_DISCARD_REASONS; reason++)
		appendStringInfo(&json, "%c\"%s\":" UINT64_FORMAT, reason == 0 ? '{' : ',',
						 mhm_discard_reason_name(reason), discarded[reason]);
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

/* What is wrong now, worst first; NULL when nothing is */
static char *
current_problem(const MhmWorkerReport *worker)
{
	if (mhm_region_complaint() != NULL)
		return mhm_text_in_my_encoding(mhm_region_complaint(), PG_SQL_ASCII);
	if (worker->last_error[0] != '\0')
		return mhm_text_in_my_encoding(worker->last_error, worker->error_encoding);
	if (worker->pid == 0 && !RecoveryInProgress())
		return pstrdup("the flush worker is not running");
	if (worker->quotas_left_out)
		return psprintf("there is room for quotas of %u tenants, and the table settings has more: those after them, in the order of tenant_id, have that of max_series_per_tenant; raise max_series, or delete some",
						mhm_quota_slots(&mhm_region->geometry));
	return NULL;
}

static void
show_worker(Datum *values, bool *nulls)
{
	static MhmWorkerReport worker;
	char	   *problem;

	mhm_worker_report(&worker);
	values[STATUS_WORKER_PID] = Int32GetDatum(worker.pid);
	nulls[STATUS_WORKER_PID] = (worker.pid == 0);
	values[STATUS_LAST_FLUSH_AT] = TimestampTzGetDatum(worker.last_flush_at);
	values[STATUS_LAST_FLUSH_MS] = Float8GetDatum(worker.last_flush_ms);
	nulls[STATUS_LAST_FLUSH_AT] = nulls[STATUS_LAST_FLUSH_MS] = (worker.last_flush_at == 0);
	values[STATUS_TICK] = Int64GetDatum((int64) worker.tick);
	nulls[STATUS_TICK] = (worker.tick == 0);
	values[STATUS_FLUSH_ERRORS] = Int64GetDatum((int64) worker.errors);
	nulls[STATUS_FLUSH_ERRORS] = false;
	problem = current_problem(&worker);
	if (problem != NULL)
		values[STATUS_LAST_ERROR] = CStringGetTextDatum(problem);
	nulls[STATUS_LAST_ERROR] = (problem == NULL);
}

Datum
mhm_status(PG_FUNCTION_ARGS)
{
	TupleDesc	tuple_desc;
	Datum		values[STATUS_COLUMNS] = {0};
	bool		nulls[STATUS_COLUMNS];

	/* Whoever may not use the region learns nothing of what is in it */
	if (mhm_region != NULL)
		mhm_check_call(fcinfo, 0);
	if (get_call_result_type(fcinfo, NULL, &tuple_desc) != TYPEFUNC_COMPOSITE ||
		tuple_desc->natts != STATUS_COLUMNS)
		elog(ERROR, "status() is declared otherwise than this library expects");

	memset(nulls, true, sizeof(nulls));
	values[STATUS_PRELOADED] = BoolGetDatum(mhm_region != NULL);
	nulls[STATUS_PRELOADED] = false;
	values[STATUS_STORAGE_INSTALLED] = BoolGetDatum(mhm_storage_installed());
	nulls[STATUS_STORAGE_INSTALLED] = false;
	if (mhm_region != NULL)
	{
		MhmHealth	health;

		mhm_health_read(&health);
		values[STATUS_SERIES_USED] = Int32GetDatum(health.series_used);
		values[STATUS_SERIES_MAX] = Int32GetDatum(health.series_max);
		values[STATUS_HISTOGRAMS_USED] = Int32GetDatum(health.histograms_used);
		values[STATUS_HISTOGRAMS_MAX] = Int32GetDatum(health.histograms_max);
		values[STATUS_SHARED_MEMORY_BYTES] = Int64GetDatum(health.bytes);
		values[STATUS_DISCARDED] = discarded_jsonb(health.discarded);
		for (int i = STATUS_SERIES_USED; i <= STATUS_SHARED_MEMORY_BYTES; i++)
			nulls[i] = false;
		nulls[STATUS_DISCARDED] = false;
		show_worker(values, nulls);
	}
	else if (mhm_region_complaint() != NULL)
	{
		values[STATUS_PRELOADED] = BoolGetDatum(true);
		values[STATUS_LAST_ERROR] =
			CStringGetTextDatum(mhm_text_in_my_encoding(mhm_region_complaint(), PG_SQL_ASCII));
		nulls[STATUS_LAST_ERROR] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(tuple_desc, values, nulls)));
}
