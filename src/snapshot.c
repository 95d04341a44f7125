/*-------------------------------------------------------------------------
 *
 * snapshot.c
 *	  snapshot(): the series as they are now, one a row
 *
 * Works on a collection (collect.c); owns nothing.  Called by people, the
 * demo and tests; storage is not involved.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "collect.h"
#include "fmgr.h"
#include "funcapi.h"
#include "histogram.h"
#include "labels.h"
#include "miscadmin.h"
#include "registry.h"
#include "require.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

PG_FUNCTION_INFO_V1(mhm_snapshot);

/* Columns of snapshot(), in their order */
enum
{
	SNAPSHOT_TENANT_ID,
	SNAPSHOT_METRIC,
	SNAPSHOT_KIND,
	SNAPSHOT_LABELS,
	SNAPSHOT_VALUE,
	SNAPSHOT_COUNT,
	SNAPSHOT_SUM,
	SNAPSHOT_MIN,
	SNAPSHOT_MAX,
	SNAPSHOT_HISTOGRAM,
	SNAPSHOT_UPDATED_AT,
	SNAPSHOT_COLUMNS
};

static void
fill_row(const MhmCollectedMetric *metric, MhmCollectedSeries *series,
		 Datum *values, bool *nulls)
{
	const MhmTotals *totals = &series->totals;

	memset(nulls, false, SNAPSHOT_COLUMNS * sizeof(bool));
	values[SNAPSHOT_TENANT_ID] = UUIDPGetDatum(&series->tenant);
	values[SNAPSHOT_METRIC] = PointerGetDatum(cstring_to_text_with_len(metric->name,
																	   metric->name_length));
	values[SNAPSHOT_KIND] = CStringGetTextDatum(mhm_kind_name(metric->kind));
	values[SNAPSHOT_LABELS] = JsonbPGetDatum(mhm_labels_jsonb(series->labels,
															  series->labels_length,
															  series->overflow));
	values[SNAPSHOT_COUNT] = Int64GetDatum(totals->count);
	values[SNAPSHOT_SUM] = Float8GetDatum(totals->sum);
	values[SNAPSHOT_MIN] = Float8GetDatum(totals->min);
	values[SNAPSHOT_MAX] = Float8GetDatum(totals->max);
	values[SNAPSHOT_UPDATED_AT] = TimestampTzGetDatum(totals->updated_at);
	nulls[SNAPSHOT_VALUE] = nulls[SNAPSHOT_HISTOGRAM] = true;
	switch (metric->kind)
	{
		case MHM_COUNTER:
			values[SNAPSHOT_VALUE] = Float8GetDatum(totals->sum);
			nulls[SNAPSHOT_VALUE] = false;
			nulls[SNAPSHOT_MIN] = nulls[SNAPSHOT_MAX] = true;
			break;
		case MHM_GAUGE:
			values[SNAPSHOT_VALUE] = Float8GetDatum(totals->last);
			nulls[SNAPSHOT_VALUE] = false;
			break;
		case MHM_HISTOGRAM:
			values[SNAPSHOT_HISTOGRAM] =
				PointerGetDatum(mhm_histogram_from_window(series->min_exponent, series->counts,
														  series->counts[MHM_COUNT_ZERO],
														  series->counts[MHM_COUNT_OVERFLOW],
														  totals->sum, totals->min, totals->max));
			nulls[SNAPSHOT_HISTOGRAM] = false;
			break;
	}
}

Datum
mhm_snapshot(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	MhmCollection *all;
	MemoryContext row_context;
	MemoryContext caller;

	mhm_check_call(fcinfo, 1);
	InitMaterializedSRF(fcinfo, 0);
	if (result->setDesc->natts != SNAPSHOT_COLUMNS)
		elog(ERROR, "snapshot() is declared otherwise than this library expects");

	all = mhm_collect(PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), false);
	row_context = AllocSetContextCreate(CurrentMemoryContext, "meshhook_metrics snapshot row",
										ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(row_context);
	for (uint32 i = 0; i < all->series_count; i++)
	{
		Datum		values[SNAPSHOT_COLUMNS];
		bool		nulls[SNAPSHOT_COLUMNS];

		fill_row(&all->metrics[all->series[i].metric], &all->series[i], values, nulls);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		MemoryContextReset(row_context);
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(row_context);
	return (Datum) 0;
}
