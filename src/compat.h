/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between the PostgreSQL majors that we build on (15 to 18).
 *
 * Every difference is an inline or a macro here, so that no file of ours has
 * a version test in the middle of its logic.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_COMPAT_H
#define MHM_COMPAT_H

#include "pgstat.h"
#include "storage/proc.h"
#include "utils/backend_status.h"

#if PG_VERSION_NUM >= 170000
#include "storage/procnumber.h"
#else
#include "storage/backendid.h"
#endif

/* A small number that no other running process has; -1 when there is none */
static inline int
mhm_process_number_compat(void)
{
#if PG_VERSION_NUM >= 170000
	return (int) MyProcNumber;
#else
	return MyProc != NULL ? MyProc->pgprocno : -1;
#endif
}

/* How many client sessions there are, in any database */
static inline int
mhm_client_backends_compat(void)
{
	int			clients = 0;
	int			all;

	pgstat_clear_backend_activity_snapshot();
	all = pgstat_fetch_stat_numbackends();
	for (int i = 1; i <= all; i++)
	{
#if PG_VERSION_NUM >= 160000
		LocalPgBackendStatus *entry = pgstat_get_local_beentry_by_index(i);
#else
		LocalPgBackendStatus *entry = pgstat_fetch_stat_local_beentry(i);
#endif

		if (entry != NULL && entry->backendStatus.st_backendType == B_BACKEND)
			clients++;
	}
	return clients;
}

/* PostgreSQL 18 lets a module say its name and version to pg_get_loaded_modules() */
#ifdef PG_MODULE_MAGIC_EXT
#define MHM_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "meshhook_metrics", .version = "0.1.0")
#else
#define MHM_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* MHM_COMPAT_H */
