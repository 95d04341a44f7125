/*-------------------------------------------------------------------------
 *
 * workerdatabase.c
 *	  Which database the flush worker is connected to, and for how long.
 *
 * Owns how the worker gets into meshhook_metrics.database, also when that is
 * not there, is renamed or dropped, the settings of its session, and how it tells
 * a server that is stopping from a request to end.  Called by worker.c; upkeep.c
 * uses the settings.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/syscache.h"
#include "workerdatabase.h"
#include "workerstate.h"

#define LOCK_TIMEOUT			"2s"
#define LOOK_FOR_DATABASE_MS	5000

/* The postmaster's lock file, in the data directory */
#define LOCK_FILE			"postmaster.pid"

/* datconnlimit of a database whose DROP was interrupted */
#define INVALID_DATABASE	(-2)

static char connected_to[NAMEDATALEN];

/* Is there a database of the set name that can be connected to? */
static bool
database_is_there(void)
{
	bool		there = false;
	HeapTuple	tuple;

	StartTransactionCommand();
	tuple = SearchSysCache1(DATABASEOID,
							ObjectIdGetDatum(get_database_oid(mhm_database, true)));
	if (HeapTupleIsValid(tuple))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);

		there = database->datallowconn && database->datconnlimit != INVALID_DATABASE;
		ReleaseSysCache(tuple);
	}
	CommitTransactionCommand();
	return there;
}

/*
 * The last attempt to connect ended in a fatal error.  Connected to no database
 * at all, wait until there is one of that name, so that the log does not fill
 * up with one such error a second.
 */
static void
wait_for_database(void)
{
	char		waited_for[NAMEDATALEN] = "";
	char		trouble[MHM_ERROR_LENGTH];

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	while (!database_is_there())
	{
		if (strcmp(waited_for, mhm_database) != 0)
		{
			snprintf(trouble, sizeof(trouble), "the flush worker waits for database \"%s\"", mhm_database);
			SpinLockAcquire(&mhm_worker_state->mutex);
			strlcpy(mhm_worker_state->report.last_error, trouble, MHM_ERROR_LENGTH);
			mhm_worker_state->report.error_encoding = PG_SQL_ASCII;
			SpinLockRelease(&mhm_worker_state->mutex);
			ereport(LOG,
					errcode(ERRCODE_UNDEFINED_DATABASE),
					errmsg("meshhook_metrics waits for database \"%s\", which it cannot connect to", mhm_database),
					errdetail("What is recorded is kept in memory until then."),
					errhint("Create it, let it accept connections, or change meshhook_metrics.database and reload."));
		}
		strlcpy(waited_for, mhm_database, NAMEDATALEN);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_FOR_DATABASE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ShutdownRequestPending)
			proc_exit(1);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	mhm_worker_state->connecting = false;
	/* A process connects once: the next one will find it */
	proc_exit(1);
}

void
mhm_connect_to_database(void)
{
	if (mhm_worker_state->connecting)
		wait_for_database();
	mhm_worker_state->connecting = true;
	strlcpy(connected_to, mhm_database, NAMEDATALEN);
	BackgroundWorkerInitializeConnection(connected_to, NULL, 0);
	mhm_worker_state->connecting = false;
}

/* After a change of settings: the next process connects to the new one */
void
mhm_end_if_database_changed(void)
{
	if (strcmp(connected_to, mhm_database) != 0)
		proc_exit(1);
}

/* Whatever the database and the server have set */
void
mhm_fix_settings(const char *application_name)
{
	const char *const fixed[][2] = {
		{"application_name", application_name},
		{"search_path", "pg_catalog, pg_temp"},
		/* Once committed here it must survive our own crash, and wait for nobody */
		{"synchronous_commit", "local"},
		{"lock_timeout", LOCK_TIMEOUT},
		{"default_transaction_isolation", "read committed"},
		{"transaction_timeout", "0"},
		{"jit", "off"},
		{"TimeZone", "UTC"}
	};

	for (int i = 0; i < lengthof(fixed); i++)
		if (GetConfigOption(fixed[i][0], true, false) != NULL)
			SetConfigOption(fixed[i][0], fixed[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

/* The postmaster writes into its lock file what pg_ctl may know: that it stops */
bool
mhm_server_is_stopping(void)
{
	char		line[MAXPGPATH];
	FILE	   *file = AllocateFile(LOCK_FILE, "r");
	bool		stopping = false;

	if (file == NULL)
		return true;
	for (int number = 1; fgets(line, sizeof(line), file) != NULL; number++)
		if (number == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING, strlen(PM_STATUS_STOPPING)) == 0;
	FreeFile(file);
	return stopping;
}
