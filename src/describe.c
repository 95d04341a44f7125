/*-------------------------------------------------------------------------
 *
 * describe.c
 *	  describe() and reset(): what administrators do to metrics
 *
 * Owns the checks of their arguments; the work is the registry's (metrics.c,
 * registry.c).  Called when an application is set up, and by people.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "accumulate.h"
#include "cache.h"
#include "fmgr.h"
#include "labels.h"
#include "mb/pg_wchar.h"
#include "registry.h"
#include "require.h"
#include "retire.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "workerstate.h"

#define WAIT_FOR_ROOM_US	(10 * USECS_PER_SEC)
#define TRY_AGAIN_AFTER_US	USECS_PER_MINUTE

PG_FUNCTION_INFO_V1(mhm_describe);
PG_FUNCTION_INFO_V1(mhm_reset);

static void
require_argument(FunctionCallInfo fcinfo, int number, const char *name)
{
	if (PG_ARGISNULL(number))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("%s must not be null", name));
}

static MhmKind
parse_kind(const char *name)
{
	for (int kind = MHM_COUNTER; kind <= MHM_HISTOGRAM; kind++)
		if (strcmp(name, mhm_kind_name(kind)) == 0)
			return kind;
	ereport(ERROR,
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("\"%s\" is not a kind of metric", name),
			errhint("The kinds are counter, gauge and histogram."));
	pg_unreachable();
}

/* A text argument that is kept with the metric; NULL leaves what is there */
static const char *
text_argument(FunctionCallInfo fcinfo, int number, const char *what, uint32 longest,
			  uint32 *length)
{
	text	   *value;

	*length = 0;
	if (PG_ARGISNULL(number))
		return NULL;
	value = PG_GETARG_TEXT_PP(number);
	*length = VARSIZE_ANY_EXHDR(value);
	if (*length > longest)
		ereport(ERROR,
				errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				errmsg("the %s is too long", what),
				errdetail("It has %u bytes; at most %u are allowed.", *length, longest));
	if (GetDatabaseEncoding() != PG_UTF8)
		for (uint32 i = 0; i < *length; i++)
			if (IS_HIGHBIT_SET(VARDATA_ANY(value)[i]))
				ereport(ERROR,
						errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("the %s has characters outside ASCII", what),
						errdetail("This database's encoding is %s.", GetDatabaseEncodingName()),
						errhint("Describe the metric from a database whose encoding is UTF8."));
	return VARDATA_ANY(value);
}

static int16
exponent_argument(int32 exponent, MhmKind kind)
{
	if (kind != MHM_HISTOGRAM)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("a %s has no min_exponent", mhm_kind_name(kind)),
				errhint("Only histograms have buckets."));
	if (exponent < MHM_MIN_EXPONENT_LOWEST || exponent > MHM_MIN_EXPONENT_HIGHEST)
		ereport(ERROR,
				errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				errmsg("min_exponent %d is out of range", exponent),
				errdetail("It must be between %d and %d: the window begins at 2^min_exponent.",
						  MHM_MIN_EXPONENT_LOWEST, MHM_MIN_EXPONENT_HIGHEST));
	return (int16) exponent;
}

Datum
mhm_describe(PG_FUNCTION_ARGS)
{
	text	   *metric;
	char	   *name;
	MhmDescription description = {0};
	MhmConflict conflict;
	int16		min_exponent;

	mhm_check_call(fcinfo, 5);
	require_argument(fcinfo, 0, "metric");
	require_argument(fcinfo, 1, "kind");
	metric = PG_GETARG_TEXT_PP(0);
	(void) mhm_metric_name_check(ERROR, VARDATA_ANY(metric), VARSIZE_ANY_EXHDR(metric));
	name = text_to_cstring(metric);
	description.kind = parse_kind(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	description.help = text_argument(fcinfo, 2, "help text", MHM_MAX_HELP_LENGTH,
									 &description.help_length);
	description.unit = text_argument(fcinfo, 3, "unit", MHM_MAX_UNIT_LENGTH,
									 &description.unit_length);
	if (!PG_ARGISNULL(4))
	{
		min_exponent = exponent_argument(PG_GETARG_INT32(4), description.kind);
		description.min_exponent = &min_exponent;
	}

	switch (mhm_metric_describe(name, strlen(name), &description, &conflict))
	{
		case MHM_DESCRIBED:
			break;
		case MHM_DESCRIBE_NO_ROOM:
			ereport(ERROR,
					errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					errmsg("there is no room to describe metric \"%s\"", name),
					errhint("Raise meshhook_metrics.max_series, which metrics and texts share memory with, and restart the server; or forget metrics with meshhook_metrics.reset()."));
			break;
		case MHM_DESCRIBE_KIND_CONFLICT:
			ereport(ERROR,
					errcode(ERRCODE_WRONG_OBJECT_TYPE),
					errmsg("metric \"%s\" is a %s and has series", name,
						   mhm_kind_name(conflict.kind)),
					errhint("Forget them with meshhook_metrics.reset('%s') to make it a %s.",
							name, mhm_kind_name(description.kind)));
			break;
		case MHM_DESCRIBE_NAME_CONFLICT:
			mhm_report_name_conflict(ERROR, name, &conflict);
			break;
		case MHM_DESCRIBE_WINDOW_CONFLICT:
			ereport(ERROR,
					errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("histogram \"%s\" has series, so its min_exponent cannot change", name),
					errdetail("It is %d.", conflict.min_exponent),
					errhint("Leave min_exponent out, or give that one. To change it, forget the series and the description first with meshhook_metrics.reset('%s').", name));
			break;
	}
	PG_RETURN_VOID();
}

/*
 * That gauges are reset is noted in the region until a flush.  Where there is no room, one
 * note stands for all gauges, whoever's they are.  So have a flush make room; where that
 * cannot be done, not with each call of many.
 */
static void
make_room_for_note(void)
{
	static TimestampTz in_vain_at = 0;
	TimestampTz now = GetCurrentTimestamp();

	if (!mhm_resets_fill_up() || (in_vain_at <= now && now - in_vain_at < TRY_AGAIN_AFTER_US))
		return;
	in_vain_at = mhm_flush_within(WAIT_FOR_ROOM_US) ? 0 : now;
}

Datum
mhm_reset(PG_FUNCTION_ARGS)
{
	text	   *metric;

	mhm_check_call(fcinfo, 2);
	metric = PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0);
	if (metric != NULL || !PG_ARGISNULL(1))
		make_room_for_note();
	PG_RETURN_INT64(mhm_registry_reset(metric == NULL ? NULL : VARDATA_ANY(metric),
									   metric == NULL ? 0 : VARSIZE_ANY_EXHDR(metric),
									   PG_ARGISNULL(1) ? NULL : PG_GETARG_UUID_P(1)));
}
