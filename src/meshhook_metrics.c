/*-------------------------------------------------------------------------
 *
 * meshhook_metrics.c
 *	  Webhook and workflow metrics in shared memory
 *
 * The way of one sample through these files:
 *
 *	  record.c, recordbatch.c	the SQL call: arguments are checked
 *	  cache.c					the backend knows the key, or asks
 *	  registry.c, metrics.c		what series and metrics there are
 *	  tenant.c, retire.c		... of which tenants; how they leave again
 *	  accumulate.c				the sample is added, atomically
 *	  transaction.c				... or at the commit
 *	  collect.c					all of it copied out
 *	  snapshot.c, prometheus.c	... and shown
 *	  worker.c					what changed since the last flush is stored:
 *	  flushlevels.c				... gauges that are new get their level
 *	  flushcollect.c			... taken
 *	  flushjournal.c			... noted, to be stored exactly once
 *	  flushstore.c				... written to the tables
 *	  upkeep.c					... and rolled up, in a process of its own
 *
 * Underneath lies the shared region: region.c makes it and finds it again,
 * regionfile.c keeps it while the server is stopped, regionlayout.c says where
 * things are in it, regionrecover.c checks and repairs it, stringstore.c keeps
 * its strings, levels.c knows which gauges have no level yet.  labels.c has the
 * rules for names, require.c those for who may call, workerstate.c has flush()
 * and what is shown of the worker, anyencoding.c how text of another database is
 * shown, workerdatabase.c where the worker connects, settings.c the settings;
 * histogram*.c are the SQL type histogram, sum.c is an addition that stays within
 * range.
 *
 * This file owns the module's entry point only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "region.h"
#include "settings.h"
#include "storage/ipc.h"
#include "transaction.h"
#include "workerstate.h"

MHM_MODULE_MAGIC;

void		_PG_init(void);

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

static void
request_shared_memory(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	mhm_region_request();
	mhm_worker_request_memory();
}

static void
start_shared_memory(void)
{
	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	mhm_region_startup();
	mhm_worker_attach_memory();
}

void
_PG_init(void)
{
	mhm_settings_define(process_shared_preload_libraries_in_progress);
	mhm_transaction_init();
	if (!process_shared_preload_libraries_in_progress)
		return;

	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shared_memory;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_shared_memory;
	mhm_worker_register();
}
