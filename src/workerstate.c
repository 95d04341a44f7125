/*-------------------------------------------------------------------------
 *
 * workerstate.c
 *	  flush(), and what everybody may know of the flush worker
 *
 * Owns the worker's state in PostgreSQL's shared memory.  The worker writes it
 * (worker.c); status(), prometheus() and flush() read it.  Its spinlock is held
 * for copying only.  What must outlive a crash is not here but in the region.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "anyencoding.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "require.h"
#include "status.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "upkeep.h"
#include "utils/timestamp.h"
#include "workerstate.h"

PG_FUNCTION_INFO_V1(mhm_flush);

MhmWorkerState *mhm_worker_state = NULL;

void
mhm_worker_request_memory(void)
{
	RequestAddinShmemSpace(MAXALIGN(sizeof(MhmWorkerState)));
	RequestAddinShmemSpace(MAXALIGN(mhm_upkeep_size()));
}

void
mhm_worker_attach_memory(void)
{
	bool		found;
	void	   *upkeep;

	mhm_worker_state = ShmemInitStruct("meshhook_metrics worker", sizeof(MhmWorkerState), &found);
	if (!found)
	{
		memset(mhm_worker_state, 0, sizeof(MhmWorkerState));
		SpinLockInit(&mhm_worker_state->mutex);
		ConditionVariableInit(&mhm_worker_state->stored);
	}
	upkeep = ShmemInitStruct("meshhook_metrics upkeep", mhm_upkeep_size(), &found);
	mhm_upkeep_attach(upkeep, found);
}

void
mhm_worker_report(MhmWorkerReport *report)
{
	SpinLockAcquire(&mhm_worker_state->mutex);
	*report = mhm_worker_state->report;
	SpinLockRelease(&mhm_worker_state->mutex);
}

/* Note that a flush is wanted, and wake the worker; false if there is none */
static bool
request_flush(uint64 *request)
{
	int			pid;
	PGPROC	   *worker;

	SpinLockAcquire(&mhm_worker_state->mutex);
	*request = ++mhm_worker_state->requested;
	pid = mhm_worker_state->report.pid;
	SpinLockRelease(&mhm_worker_state->mutex);
	if (pid == 0)
		return false;
	worker = BackendPidGetProc(pid);
	if (worker != NULL)
		SetLatch(&worker->procLatch);
	return true;
}

static bool
is_stored(uint64 request, MhmWorkerReport *report)
{
	bool		stored;

	SpinLockAcquire(&mhm_worker_state->mutex);
	stored = mhm_worker_state->done >= request;
	*report = mhm_worker_state->report;
	SpinLockRelease(&mhm_worker_state->mutex);
	return stored;
}

/* Wait for the flush that was requested; false when it has not come within so many microseconds */
static bool
await_stored(uint64 request, int64 timeout, MhmWorkerReport *report)
{
	instr_time	began;
	bool		stored;

	INSTR_TIME_SET_CURRENT(began);
	ConditionVariablePrepareToSleep(&mhm_worker_state->stored);
	while (!(stored = is_stored(request, report)))
	{
		instr_time	waited;
		int64		left;

		INSTR_TIME_SET_CURRENT(waited);
		INSTR_TIME_SUBTRACT(waited, began);
		left = timeout - (int64) INSTR_TIME_GET_MICROSEC(waited);
		if (left <= 0)
			break;
		(void) ConditionVariableTimedSleep(&mhm_worker_state->stored, (long) (left / 1000 + 1),
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return stored;
}

/* Have what is in the region stored, if that can be done within so many microseconds */
bool
mhm_flush_within(int64 timeout)
{
	MhmWorkerReport report;
	uint64		request;

	return !RecoveryInProgress() && mhm_storage_installed() && request_flush(&request) &&
		await_stored(request, timeout, &report);
}

static int64
timeout_of(Interval *timeout)
{
	/* Each part is bounded before they are added up */
	if (timeout->month != 0 || timeout->day < 0 || timeout->day > 1 ||
		timeout->time < 0 || timeout->time > USECS_PER_DAY ||
		timeout->day * USECS_PER_DAY + timeout->time > USECS_PER_DAY)
		ereport(ERROR,
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("timeout must be from 0 to a day"),
				errhint("Give it as an interval such as '10 s'."));
	return timeout->day * USECS_PER_DAY + timeout->time;
}

/* flush(timeout interval) → bigint: the tick that is stored */
Datum
mhm_flush(PG_FUNCTION_ARGS)
{
	MhmWorkerReport report;
	uint64		request;
	int64		timeout;

	mhm_check_call(fcinfo, 1);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				errmsg("timeout must not be null"));
	timeout = timeout_of(PG_GETARG_INTERVAL_P(0));
	if (RecoveryInProgress())
		ereport(ERROR,
				errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				errmsg("a standby cannot flush metrics"),
				errhint("What is recorded here is kept in memory until this server is promoted."));
	if (!mhm_storage_installed())
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("there are no storage tables to flush metrics to"),
				errhint("Apply the migrations of meshhook_metrics in this database."));
	if (!request_flush(&request))
		ereport(ERROR,
				errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				errmsg("the flush worker of meshhook_metrics is not running"),
				errhint("It starts again within seconds of an end; see the server's log, and leave it room in max_worker_processes."));

	if (!await_stored(request, timeout, &report))
		ereport(ERROR,
				errcode(ERRCODE_QUERY_CANCELED),
				errmsg("metrics were not flushed within the timeout"),
				report.last_error[0] == '\0' ? 0 :
				errdetail("The flush worker reports: %s",
						  mhm_text_in_my_encoding(report.last_error, report.error_encoding)),
				errhint("Nothing is lost: the worker goes on trying. A lock on a storage table, also one of this transaction, holds it up."));
	PG_RETURN_INT64((int64) report.tick);
}
