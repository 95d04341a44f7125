/*-------------------------------------------------------------------------
 *
 * upkeep.c
 *	  Rolling up and maintaining the storage, in a process of its own
 *
 * Owns when rollup() and maintain() are called, where pg_cron does not call them,
 * and the process that calls them: minutes may pass, in which the flush worker
 * goes on flushing and evaluating alerts.  The worker starts it when there is
 * something to do, and learns from shared memory what came of it; the process
 * ends when it has done that, or with the worker.  Where max_worker_processes
 * leaves no room for it, the worker does its work itself.
 *
 * There is one such process at a time, whoever started it: the one whose number
 * is in shared memory.  The tasks there belong to it as long as it is there, else
 * to the flush worker.  A spinlock protects both, held for copying only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "duty.h"
#include "flush.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "upkeep.h"
#include "workerdatabase.h"
#include "workerstate.h"

#define UPKEEP_NAME				"meshhook_metrics upkeep"

#define ROLLUP_EVERY			(5 * USECS_PER_MINUTE)
#define MAINTAIN_EVERY			USECS_PER_HOUR

#define UPKEEP_TIMEOUT_MS		(30 * 60 * 1000)
#define ASK_TIMEOUT_MS			(30 * 1000)

/* After a process that ended before it had tried what it was started for */
#define START_AGAIN_AFTER_MS	(10 * 1000)

PGDLLEXPORT void mhm_upkeep_main(Datum arg);

static void ask_for_pg_cron(void);
static void roll_up(void);
static void maintain(void);

static Duty ask_duty = {.what = "see whether pg_cron maintains storage", .timeout_ms = ASK_TIMEOUT_MS, .perform = ask_for_pg_cron};

typedef struct Task
{
	Duty		duty;
	int64		every;
	TimestampTz done_at;		/* for the flush worker: when it last began one that succeeded */
} Task;

static Task tasks[] = {
	{.duty = {.what = "roll up", .timeout_ms = UPKEEP_TIMEOUT_MS, .perform = roll_up}, .every = ROLLUP_EVERY},
	{.duty = {.what = "maintain storage", .timeout_ms = UPKEEP_TIMEOUT_MS, .perform = maintain}, .every = MAINTAIN_EVERY}
};

/* What the two processes tell each other of a task */
typedef struct SharedTask
{
	bool		wanted;
	bool		done;
	Duty		history;		/* what mhm_duty_take_over() takes, and nothing else */
} SharedTask;

typedef struct UpkeepState
{
	slock_t		mutex;			/* protects all of this */
	int			pid;			/* of the process; 0: there is none */
	SharedTask	tasks[lengthof(tasks)];
} UpkeepState;

static UpkeepState *state;

/* Of the process that this flush worker has started */
static BackgroundWorkerHandle *process = NULL;
static TimestampTz started_at;
static instr_time started;
static bool start_later = false;

/* What the last attempt of ask_duty has seen */
static bool by_pg_cron;

size_t
mhm_upkeep_size(void)
{
	return sizeof(UpkeepState);
}

void
mhm_upkeep_attach(void *memory, bool found)
{
	state = memory;
	if (found)
		return;
	memset(state, 0, sizeof(UpkeepState));
	SpinLockInit(&state->mutex);
}

/* Where nothing else does it, or has done it for long, we do */
static void
ask_for_pg_cron(void)
{
	by_pg_cron = true;
	if (mhm_store_enter())
	{
		by_pg_cron = mhm_store_ask("select meshhook_metrics.scheduled_by_pg_cron() "
								   "and not exists (select from meshhook_metrics.rollup_state s "
								   "where s.target = '5m' and s.complete_until < $1 - interval '30 minutes')",
								   GetCurrentTimestamp());
		mhm_store_leave();
	}
	CommitTransactionCommand();
}

static void
call(const char *query)
{
	if (mhm_store_enter())
	{
		mhm_store_call(query, GetCurrentTimestamp());
		mhm_store_leave();
	}
	CommitTransactionCommand();
}

static void
roll_up(void)
{
	call("select meshhook_metrics.rollup()");
}

static void
maintain(void)
{
	call("select meshhook_metrics.maintain()");
}

/*
 * The process
 */

static void
leave(int code, Datum arg)
{
	SpinLockAcquire(&state->mutex);
	state->pid = 0;
	SpinLockRelease(&state->mutex);
}

/* Be the one, for a flush worker that is still there */
static bool
become_the_one(int worker_pid)
{
	MhmWorkerReport report;
	bool		free;

	mhm_worker_report(&report);
	if (report.pid != worker_pid)
		return false;
	SpinLockAcquire(&state->mutex);
	free = state->pid == 0;
	if (free)
		state->pid = MyProcPid;
	SpinLockRelease(&state->mutex);
	if (free)
		before_shmem_exit(leave, (Datum) 0);
	return free;
}

static void
attempt_task(Task *task, SharedTask *shared)
{
	SharedTask	copy;

	SpinLockAcquire(&state->mutex);
	copy = *shared;
	SpinLockRelease(&state->mutex);
	if (!copy.wanted)
		return;
	mhm_duty_take_over(&task->duty, &copy.history);
	copy.done = mhm_duty_attempt(&task->duty);
	copy.history = task->duty;
	SpinLockAcquire(&state->mutex);
	*shared = copy;
	SpinLockRelease(&state->mutex);
}

void
mhm_upkeep_main(Datum arg)
{
	Oid			database;
	int			worker_pid;

	pqsignal(SIGTERM, mhm_duty_note_shutdown);
	BackgroundWorkerUnblockSignals();
	memcpy(&database, MyBgworkerEntry->bgw_extra, sizeof(database));
	worker_pid = DatumGetInt32(arg);
	if (!become_the_one(worker_pid))
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);
	mhm_fix_settings(UPKEEP_NAME);
	for (int i = 0; i < lengthof(tasks) && !ShutdownRequestPending; i++)
		attempt_task(&tasks[i], &state->tasks[i]);
	/* Nobody starts it again but the flush worker */
	proc_exit(0);
}

/*
 * The flush worker
 */

/* The worker ends, and what it has started with it */
static void
end_process(int code, Datum arg)
{
	if (process != NULL)
		TerminateBackgroundWorker(process);
}

void
mhm_upkeep_add_duties(void)
{
	mhm_duty_add(&ask_duty);
	for (int i = 0; i < lengthof(tasks); i++)
		mhm_duty_add(&tasks[i].duty);
	before_shmem_exit(end_process, (Datum) 0);
}

/* False where there is no room for it */
static bool
start_process(void)
{
	BackgroundWorker worker = {0};
	MemoryContext before;
	bool		registered;

	strlcpy(worker.bgw_name, UPKEEP_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_type, UPKEEP_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "meshhook_metrics", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mhm_upkeep_main", sizeof(worker.bgw_function_name));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(MyProcPid);
	memcpy(worker.bgw_extra, &MyDatabaseId, sizeof(MyDatabaseId));
	worker.bgw_notify_pid = MyProcPid;
	before = MemoryContextSwitchTo(TopMemoryContext);
	registered = RegisterDynamicBackgroundWorker(&worker, &process);
	MemoryContextSwitchTo(before);
	if (!registered)
		process = NULL;
	started_at = GetCurrentTimestamp();
	INSTR_TIME_SET_CURRENT(started);
	return registered;
}

/* The process that we have started has ended: what came of it? */
static void
learn_outcome(void)
{
	SharedTask	shared[lengthof(tasks)];

	pfree(process);
	process = NULL;
	SpinLockAcquire(&state->mutex);
	memcpy(shared, state->tasks, sizeof(shared));
	SpinLockRelease(&state->mutex);
	start_later = false;
	for (int i = 0; i < lengthof(tasks); i++)
	{
		if (!shared[i].wanted)
			continue;
		if (shared[i].done)
			tasks[i].done_at = started_at;
		else if (shared[i].history.failures == tasks[i].duty.failures)
			start_later = true;
		mhm_duty_take_over(&tasks[i].duty, &shared[i].history);
	}
}

/* Is there a process, ours or one that an earlier worker has left and that is about to end? */
static bool
is_under_way(void)
{
	pid_t		pid;
	bool		there;

	if (process != NULL)
	{
		BgwHandleStatus status = GetBackgroundWorkerPid(process, &pid);

		if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
			return true;
		learn_outcome();
	}
	SpinLockAcquire(&state->mutex);
	there = state->pid != 0;
	SpinLockRelease(&state->mutex);
	return there;
}

static bool
is_due(const Task *task, TimestampTz now)
{
	double		waiting_ms;

	return (now - task->done_at >= task->every || now < task->done_at) &&
		!mhm_duty_backs_off(&task->duty, &waiting_ms);
}

/* Note what the process shall do; false when that is nothing */
static bool
want_what_is_due(TimestampTz now)
{
	bool		any = false;

	SpinLockAcquire(&state->mutex);
	for (int i = 0; i < lengthof(tasks); i++)
	{
		state->tasks[i].wanted = is_due(&tasks[i], now);
		state->tasks[i].done = false;
		state->tasks[i].history = tasks[i].duty;
		any |= state->tasks[i].wanted;
	}
	SpinLockRelease(&state->mutex);
	return any;
}

/* No process is free: at the cost of the flushes that would come meanwhile */
static void
do_here(TimestampTz now)
{
	for (int i = 0; i < lengthof(tasks) && !ShutdownRequestPending; i++)
		if (state->tasks[i].wanted && mhm_duty_attempt(&tasks[i].duty))
			tasks[i].done_at = now;
}

/* Have done what it is time for */
void
mhm_upkeep_if_due(void)
{
	TimestampTz now = GetCurrentTimestamp();
	double		waiting_ms;

	if (is_under_way() || mhm_duty_backs_off(&ask_duty, &waiting_ms) ||
		(start_later && mhm_milliseconds_since(started) < START_AGAIN_AFTER_MS) ||
		!want_what_is_due(now) || !mhm_duty_attempt(&ask_duty))
		return;
	if (by_pg_cron)
	{
		for (int i = 0; i < lengthof(tasks); i++)
			if (state->tasks[i].wanted)
			{
				tasks[i].done_at = now;
				/* Whatever went wrong when it was ours to do */
				mhm_duty_forget(&tasks[i].duty);
			}
	}
	else if (!start_process())
		do_here(now);
}

bool
mhm_upkeep_backs_off(double *remaining_ms)
{
	bool		waits = false;
	double		waiting_ms;

	for (int i = 0; process == NULL && i < lengthof(tasks); i++)
		if (mhm_duty_backs_off(&tasks[i].duty, &waiting_ms))
		{
			*remaining_ms = waits ? Min(*remaining_ms, waiting_ms) : waiting_ms;
			waits = true;
		}
	return waits;
}
