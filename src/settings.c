/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The settings meshhook_metrics.*
 *
 * Owns the variables behind the settings; everybody reads them, only the GUC
 * machinery writes them.  What an administrator changes at run time is
 * SIGHUP, not SUSET: on Supabase nobody who has a shell-less `postgres` role
 * could set the latter.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "require.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"

char	   *mhm_database = NULL;
int			mhm_max_series = 10000;
int			mhm_max_histograms = 2000;
int			mhm_max_series_per_tenant = 2000;
int			mhm_flush_interval = 5000;
int			mhm_alert_interval = 10000;
bool		mhm_enabled = true;
bool		mhm_on_commit = false;

static int	on_error = ERROR;
static char *tenant_setting = NULL;
static pg_uuid_t session_tenant;	/* all zero: the platform */

static const struct config_enum_entry on_error_options[] = {
	{"error", ERROR, false},
	{"warning", WARNING, false},
	{NULL, 0, false}
};

/* One more than the value of a hexadecimal digit; 0 for any other byte */
static const unsigned char hex_digits[256] = {
	['0'] = 1, ['1'] = 2, ['2'] = 3, ['3'] = 4, ['4'] = 5,
	['5'] = 6, ['6'] = 7, ['7'] = 8, ['8'] = 9, ['9'] = 10,
	['a'] = 11, ['b'] = 12, ['c'] = 13, ['d'] = 14, ['e'] = 15, ['f'] = 16,
	['A'] = 11, ['B'] = 12, ['C'] = 13, ['D'] = 14, ['E'] = 15, ['F'] = 16
};

static inline int
hex_digit(char c)
{
	return (int) hex_digits[(unsigned char) c] - 1;
}

/*
 * Parse a UUID as uuid_in() does, but say no instead of raising: braces are
 * optional, and so are dashes after every four digits.
 */
bool
mhm_parse_uuid(const char *text, int length, pg_uuid_t *uuid)
{
	const char *end = text + length;

	if (length >= 2 && text[0] == '{' && end[-1] == '}')
	{
		text++;
		end--;
	}
	for (int i = 0; i < UUID_LEN; i++)
	{
		int			high;
		int			low;

		if (end - text < 2 || (high = hex_digit(text[0])) < 0 || (low = hex_digit(text[1])) < 0)
			return false;
		uuid->data[i] = (unsigned char) (high << 4 | low);
		text += 2;
		if (i % 2 == 1 && i < UUID_LEN - 1 && text < end && *text == '-')
			text++;
	}
	return text == end;
}

static bool
check_tenant(char **newval, void **extra, GucSource source)
{
	pg_uuid_t	uuid;

	if (*newval == NULL || **newval == '\0' || mhm_parse_uuid(*newval, strlen(*newval), &uuid))
		return true;
	GUC_check_errdetail("\"%s\" is not a UUID.", *newval);
	GUC_check_errhint("Set it to the id of the project that records, or to an empty string for the platform itself.");
	return false;
}

static void
assign_tenant(const char *newval, void *extra)
{
	if (newval == NULL || *newval == '\0' ||
		!mhm_parse_uuid(newval, strlen(newval), &session_tenant))
		memset(&session_tenant, 0, sizeof(session_tenant));
}

/* PostgreSQL cuts a longer name where it creates a database, and nowhere else */
static bool
check_database(char **newval, void **extra, GucSource source)
{
	if (strlen(*newval) < NAMEDATALEN)
		return true;
	GUC_check_errdetail("\"%s\" has %zu bytes; a database's name has at most %d.",
						*newval, strlen(*newval), NAMEDATALEN - 1);
	GUC_check_errhint("Set it to the name as pg_database has it.");
	return false;
}

static void
assign_database(const char *newval, void *extra)
{
	mhm_call_allowed = false;
}

/*
 * The settings that size shared memory exist only when we are preloaded:
 * PostgreSQL refuses to create postmaster-level ones later.
 */
void
mhm_settings_define(bool preloading)
{
	if (preloading)
	{
		DefineCustomStringVariable("meshhook_metrics.database",
								   "The database whose users record and read metrics, and that stores them.",
								   "In other databases only superusers may.",
								   &mhm_database,
								   "postgres",
								   PGC_SIGHUP, 0, check_database, assign_database, NULL);
		DefineCustomIntVariable("meshhook_metrics.max_series",
								"How many series shared memory holds.",
								"Further ones are counted in their metric's overflow series.",
								&mhm_max_series,
								10000, 100, 10000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("meshhook_metrics.max_histograms",
								"How many of the series may be histograms.",
								NULL,
								&mhm_max_histograms,
								2000, 10, 1000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("meshhook_metrics.max_series_per_tenant",
								"How many series one tenant may have.",
								"Further ones are counted in the tenant's overflow series of their metric.",
								&mhm_max_series_per_tenant,
								2000, 1, INT_MAX,
								PGC_SIGHUP, 0, NULL, NULL, NULL);
		DefineCustomIntVariable("meshhook_metrics.flush_interval",
								"How often what was recorded is written to the storage tables.",
								"What an operating system crash costs is bounded by this.",
								&mhm_flush_interval,
								5000, 1000, 60000,
								PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
		DefineCustomIntVariable("meshhook_metrics.alert_interval",
								"How often alert rules are evaluated, at most.",
								"They are after a flush, so the longer of this and flush_interval counts.",
								&mhm_alert_interval,
								10000, 1000, 3600 * 1000,
								PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
		DefineCustomBoolVariable("meshhook_metrics.enabled",
								 "Whether the recording functions record.",
								 "While off they return at once and look at none of their arguments.",
								 &mhm_enabled,
								 true,
								 PGC_SIGHUP, 0, NULL, NULL, NULL);
	}
	DefineCustomEnumVariable("meshhook_metrics.on_error",
							 "What a mistake in a recording call raises.",
							 "With warning the sample is discarded and counted, and the transaction goes on.",
							 &on_error,
							 ERROR, on_error_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("meshhook_metrics.tenant",
							   "The tenant of samples that name none.",
							   "A UUID; empty for the platform itself.",
							   &tenant_setting,
							   "",
							   PGC_USERSET, 0, check_tenant, assign_tenant, NULL);
	DefineCustomBoolVariable("meshhook_metrics.on_commit",
							 "Whether what a transaction records counts only when it commits.",
							 NULL,
							 &mhm_on_commit,
							 false,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	if (preloading)
		MarkGUCPrefixReserved("meshhook_metrics");
}

const pg_uuid_t *
mhm_session_tenant(void)
{
	return &session_tenant;
}

int
mhm_mistake_level(void)
{
	return on_error;
}
