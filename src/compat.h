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

#include "storage/proc.h"

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

/* PostgreSQL 18 lets a module say its name and version to pg_get_loaded_modules() */
#ifdef PG_MODULE_MAGIC_EXT
#define MHM_MODULE_MAGIC PG_MODULE_MAGIC_EXT(.name = "meshhook_metrics", .version = "0.1.0")
#else
#define MHM_MODULE_MAGIC PG_MODULE_MAGIC
#endif

#endif							/* MHM_COMPAT_H */
