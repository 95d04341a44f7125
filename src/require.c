/*-------------------------------------------------------------------------
 *
 * require.c
 *	  What a SQL function of ours needs before it may touch the region.
 *
 * Owns the checks that are the same for all of them.  There is one region for
 * all databases, and whoever owns a database can create the extension in it.
 * So it serves one database, meshhook_metrics.database; in any other one only
 * superusers may call, who could read everything anyway.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "anyencoding.h"
#include "catalog/pg_authid.h"
#include "commands/dbcommands.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "require.h"
#include "settings.h"
#include "utils/acl.h"
#include "utils/guc.h"

bool		mhm_call_allowed = false;

static void
report_missing_preload(void)
{
	const char *preloaded = "";

	/* Not everybody may know what else is loaded */
	if (has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_SETTINGS))
		preloaded = GetConfigOption("shared_preload_libraries", true, false);
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("meshhook_metrics must be loaded when the server starts"),
			errhint("Put the line \"shared_preload_libraries = '%s%smeshhook_metrics'\" into postgresql.conf, with what is there already, and restart the server.",
					preloaded == NULL ? "" : preloaded,
					preloaded == NULL || *preloaded == '\0' ? "" : ", "));
}

/* False after a warning, if that is the level at which to complain */
bool
mhm_check_call_slowly(FunctionCallInfo fcinfo, int arguments, int level)
{
	const char *database;

	if (PG_NARGS() != arguments)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_FUNCTION_DEFINITION),
				errmsg("function of meshhook_metrics is declared with %d arguments, not %d",
					   PG_NARGS(), arguments),
				errhint("The library is of another version than the extension: run ALTER EXTENSION meshhook_metrics UPDATE."));
	if (mhm_region == NULL && mhm_region_complaint() != NULL)
	{
		ereport(level,
				errcode(ERRCODE_OUT_OF_MEMORY),
				errmsg("meshhook_metrics has no memory to record in"),
				errdetail("When the server started: %s",
						  mhm_text_in_my_encoding(mhm_region_complaint(), PG_SQL_ASCII)),
				errhint("Mend that, or lower meshhook_metrics.max_series and meshhook_metrics.max_histograms, and restart the server."));
		return false;
	}
	if (mhm_region == NULL)
		report_missing_preload();

	database = get_database_name(MyDatabaseId);
	if (database != NULL && strcmp(database, mhm_database) == 0)
		mhm_call_allowed = true;
	else if (!superuser())
	{
		ereport(level,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("meshhook_metrics serves database \"%s\", not \"%s\"", mhm_database,
					   database == NULL ? "" : database),
				errhint("Connect to that database, or have meshhook_metrics.database changed; elsewhere only superusers may call."));
		return false;
	}
	return true;
}
