/*-------------------------------------------------------------------------
 *
 * record.c
 *	  inc(), gauge_set(), gauge_add(), observe(), observe_since()
 *
 * Owns the way of one sample from its SQL call to the accumulator: check the
 * value, find the series (cache.c), and add to it now (accumulate.c) or at
 * the commit (transaction.c).  Called by workflow code.  Touches no disk,
 * takes no lock once a series is known.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/xact.h"
#include "fmgr.h"
#include "labels.h"
#include "mb/pg_wchar.h"
#include "record.h"
#include "require.h"
#include "settings.h"
#include "transaction.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(mhm_inc);
PG_FUNCTION_INFO_V1(mhm_gauge_set);
PG_FUNCTION_INFO_V1(mhm_gauge_add);
PG_FUNCTION_INFO_V1(mhm_observe);
PG_FUNCTION_INFO_V1(mhm_observe_since);

/* Positions of the arguments, which all these functions share */
#define ARG_METRIC	0
#define ARG_VALUE	1
#define ARG_LABELS	2
#define ARG_TENANT	3
#define ARGUMENTS	4

#define CALLS_BETWEEN_CLOCK_READINGS	64

MhmKind
mhm_operation_kind(MhmOperation operation)
{
	switch (operation)
	{
		case MHM_INC:
			return MHM_COUNTER;
		case MHM_OBSERVE:
			return MHM_HISTOGRAM;
		default:
			return MHM_GAUGE;
	}
}

/* A name that has not been checked yet, as it fits a message */
static char *
name_for_message(const char *metric, uint32 length)
{
	return pnstrdup(metric, pg_mbcliplen(metric, length, MHM_MAX_METRIC_LENGTH));
}

static bool
report_value(const char *message, const char *hint, double value,
			 const char *metric, uint32 metric_length)
{
	ereport(mhm_mistake_level(),
			errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			errmsg(message, name_for_message(metric, metric_length), float8out_internal(value)),
			errhint("%s", hint));
	return false;
}

/* Check a sample's value; false after a warning */
bool
mhm_value_check(MhmOperation operation, double value,
				const char *metric, uint32 metric_length)
{
	if (likely(isfinite(value) && value >= 0.0))
		return true;
	if (!isfinite(value))
		return report_value("metric \"%s\" cannot take the value %s",
							"Values are finite numbers.",
							value, metric, metric_length);
	if (operation == MHM_INC)
		return report_value("counter \"%s\" cannot be incremented by %s",
							"Counters only grow; use a gauge for what goes up and down.",
							value, metric, metric_length);
	if (operation == MHM_OBSERVE)
		return report_value("histogram \"%s\" cannot take the negative value %s",
							"Histograms are of durations, sizes and the like; use a gauge for what can be negative.",
							value, metric, metric_length);
	return true;
}

/*
 * About the time: the start of the statement, or where that has been running
 * for long, the time of one of the latest calls.  Asking the clock at every
 * call would take as long as the rest of it.
 */
static inline TimestampTz
about_now(void)
{
	static TimestampTz asked = 0;
	static TimestampTz last_began = 0;
	static uint32 calls = 0;
	TimestampTz began = GetCurrentStatementStartTimestamp();

	/* What was asked in another statement can be of a clock that was set back since */
	if (unlikely(began != last_began))
	{
		asked = began;
		last_began = began;
	}
	if (unlikely(++calls % CALLS_BETWEEN_CLOCK_READINGS == 0))
		asked = GetCurrentTimestamp();
	return Max(began, asked);
}

/* Add a checked sample; false when its series has been retired meanwhile */
bool
mhm_count_sample(const MhmSampleKey *key, const MhmTarget *target,
				 MhmOperation operation, double value)
{
	/* A zero has no sign here: neither in min and max nor in what is stored */
	value += 0.0;

	if (unlikely(mhm_on_commit))
		mhm_transaction_add(key, target, operation, value);
	else if (unlikely(target->series == MHM_NONE))
		mhm_accumulate_discard(target->reason, 1);
	else
		return mhm_accumulate(target, operation, value, 1, about_now());
	return true;
}

static bool
report_null(const char *argument)
{
	ereport(mhm_mistake_level(),
			errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
			errmsg("%s must not be null", argument),
			errhint("Only the tenant may be null: the session's tenant, else the platform itself."));
	return false;
}

/* Take the arguments apart; false after a warning */
static bool
read_arguments(FunctionCallInfo fcinfo, const char *value_name, MhmSampleKey *key)
{
	text	   *metric;
	Jsonb	   *labels;

	if (unlikely(PG_ARGISNULL(ARG_METRIC)))
		return report_null("metric");
	if (unlikely(PG_ARGISNULL(ARG_VALUE)))
		return report_null(value_name);
	if (unlikely(PG_ARGISNULL(ARG_LABELS)))
		return report_null("labels");

	metric = PG_GETARG_TEXT_PP(ARG_METRIC);
	labels = PG_GETARG_JSONB_P(ARG_LABELS);
	key->metric = VARDATA_ANY(metric);
	key->metric_length = VARSIZE_ANY_EXHDR(metric);
	key->labels = VARDATA(labels);
	key->labels_length = VARSIZE(labels) - VARHDRSZ;
	key->tenant = PG_ARGISNULL(ARG_TENANT) ? mhm_session_tenant() :
		PG_GETARG_UUID_P(ARG_TENANT);
	return true;
}

static inline bool
record_sample(FunctionCallInfo fcinfo, MhmOperation operation, double value,
			  const MhmSampleKey *key)
{
	MhmTarget	target;

	if (!mhm_value_check(operation, value, key->metric, key->metric_length))
		return false;
	for (;;)
	{
		if (!mhm_cache_find(key, mhm_operation_kind(operation), &target))
			return false;
		if (likely(mhm_count_sample(key, &target, operation, value)))
			return true;
		mhm_cache_forget(key);
	}
}

static inline Datum
record_argument(FunctionCallInfo fcinfo, MhmOperation operation)
{
	MhmSampleKey key;

	if (unlikely(!mhm_enabled) || unlikely(!mhm_check_recording(fcinfo, ARGUMENTS)))
		PG_RETURN_VOID();
	if (unlikely(!read_arguments(fcinfo, "value", &key) ||
				 !record_sample(fcinfo, operation, PG_GETARG_FLOAT8(ARG_VALUE), &key)))
		mhm_accumulate_discard(MHM_DISCARD_INVALID, 1);
	PG_RETURN_VOID();
}

Datum
mhm_inc(PG_FUNCTION_ARGS)
{
	return record_argument(fcinfo, MHM_INC);
}

Datum
mhm_gauge_set(PG_FUNCTION_ARGS)
{
	return record_argument(fcinfo, MHM_GAUGE_SET);
}

Datum
mhm_gauge_add(PG_FUNCTION_ARGS)
{
	return record_argument(fcinfo, MHM_GAUGE_ADD);
}

Datum
mhm_observe(PG_FUNCTION_ARGS)
{
	return record_argument(fcinfo, MHM_OBSERVE);
}

/* Observe the seconds since a time; a clock that was set back makes it 0 */
Datum
mhm_observe_since(PG_FUNCTION_ARGS)
{
	MhmSampleKey key;
	bool		recorded = false;

	if (!mhm_enabled || !mhm_check_recording(fcinfo, ARGUMENTS))
		PG_RETURN_VOID();
	if (read_arguments(fcinfo, "started", &key))
	{
		TimestampTz started = PG_GETARG_TIMESTAMPTZ(ARG_VALUE);

		if (TIMESTAMP_NOT_FINITE(started))
			ereport(mhm_mistake_level(),
					errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
					errmsg("metric \"%s\" cannot have started at %s",
						   name_for_message(key.metric, key.metric_length),
						   timestamptz_to_str(started)),
					errhint("Give the time at which the work began, as clock_timestamp() told it."));
		else
		{
			double		elapsed = (double) (GetCurrentTimestamp() - started) / USECS_PER_SEC;

			recorded = record_sample(fcinfo, MHM_OBSERVE, Max(elapsed, 0.0), &key);
		}
	}
	if (!recorded)
		mhm_accumulate_discard(MHM_DISCARD_INVALID, 1);
	PG_RETURN_VOID();
}
