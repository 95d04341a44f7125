/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  The flush worker
 *
 * Owns the background process that brings what was recorded into the storage
 * tables (a tick), has alert rules evaluated, rolls minutes up when they have
 * closed, deletes old rows of live, retires idle series and, where pg_cron does
 * not do it, has rollup() and maintain() called (upkeep.c).  Nothing calls it but
 * its latch: the clock, flush() and the postmaster.
 *
 * First of all it learns from table metrics what is described, so that a region that
 * is new records in the right windows: as soon as the server accepts connections, also
 * on a standby, where it does nothing else until the promotion.  A histogram that a
 * quicker process has recorded to by then, in the window of what nobody has described,
 * is superseded (mhm_registry_retire_superseded): what it holds is flushed as it is, and
 * merging keeps what both windows know.
 *
 * Exactly once.  A tick takes what has changed, notes in the journal what will
 * be stored, says in the region that this flush is pending, and commits one
 * transaction that also writes the flush's tick to flush_state.  Then it notes
 * in the region what is stored, and that nothing is pending.  Killed anywhere,
 * the next worker finds a pending flush and looks into flush_state: committed,
 * it notes what the journal says, else it forgets it, and the changes go with
 * the next flush.  The same happens after an error, so there is one way only.
 *
 * Every transaction is a duty's (duty.c), which catches its errors.  What was
 * recorded meanwhile stays in the region.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "access/xlog.h"
#include "alertduty.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "descriptionduty.h"
#include "duty.h"
#include "executor/spi.h"
#include "flush.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "registry.h"
#include "retire.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "upkeep.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workerdatabase.h"
#include "workerstate.h"

#define WORKER_NAME				"meshhook_metrics worker"
#define RESTART_SECONDS			1

#define FLUSH_TIMEOUT_MS		(30 * 1000)
#define LONGEST_MINUTE_MS		(8 * FLUSH_TIMEOUT_MS)

/* How often a standby looks whether it has been promoted */
#define LOOK_FOR_PROMOTION_MS	1000

/*
 * Old rows of live that are deleted after a flush: twice as many as it has brought,
 * or so many, so that they go sooner than others come
 */
#define LEAST_DELETED			200

/* A series that nobody has recorded to for so long makes room */
#define IDLE_BEFORE_RETIREMENT	USECS_PER_DAY
#define IDLE_UNDER_PRESSURE		(10 * USECS_PER_MINUTE)

/* How long the last flush waits for backends that end */
#define LAST_BACKENDS_TIMEOUT_US	(10 * USECS_PER_SEC)
#define LOOK_FOR_BACKENDS_MS	20

PGDLLEXPORT void mhm_worker_main(Datum arg);

static void flush_changes(void);
static void close_minutes(void);
static void delete_old_live(void);

static Duty flush_duty = {.what = "flush", .timeout_ms = FLUSH_TIMEOUT_MS, .perform = flush_changes};
static Duty minute_duty = {.what = "close a minute", .timeout_ms = FLUSH_TIMEOUT_MS, .perform = close_minutes};
static Duty live_duty = {.what = "delete old rows of live", .timeout_ms = FLUSH_TIMEOUT_MS, .perform = delete_old_live};
static Duty *const duties[] = {&flush_duty, &mhm_descriptions_duty, &minute_duty, &live_duty};

static MemoryContext flush_context;
static bool storage_there;		/* as the last transaction saw it */
static bool taken_unsettled = true; /* something may be taken of a flush that failed */
static bool state_known = false;	/* has flush_state been read? */
static bool more_to_flush = false;	/* has the last tick left something? */
static uint64 next_tick;
static uint64 answering;		/* the request that this flush is the answer to */
static uint64 answered;			/* the last one that was flushed for */

static TimestampTz interval_began_at;	/* when changes were last collected */
static instr_time interval_began;
static double dated_back;		/* how much earlier its flush says it was, in seconds */
static uint64 rows_brought;		/* into live, by the last flush */
static TimestampTz minute_closed;	/* the minute that is open since */
static bool more_to_close = false;	/* has the last step left some minutes? */

static TimestampTz
start_of_minute(TimestampTz at)
{
	TimestampTz past = at % USECS_PER_MINUTE;

	return at - (past < 0 ? past + USECS_PER_MINUTE : past);
}

/*
 * Find out whether the pending flush was committed, and have the region know.
 * What was taken for a flush that was not goes with the next one.  Another
 * region, of which ours is a copy, may have flushed more than once since.
 */
static void
settle_pending(void)
{
	MhmStoredState state;

	if (mhm_region->pending_tick != 0)
	{
		mhm_store_read_state(mhm_region->pending_region_id, &state);
		if (state.found && state.tick >= mhm_region->pending_tick)
		{
			if (!mhm_journal_apply(mhm_region->pending_region_id, mhm_region->pending_tick))
			{
				ereport(WARNING,
						errcode(ERRCODE_DATA_CORRUPTED),
						errmsg("what flush " UINT64_FORMAT " of meshhook_metrics stored is not known",
							   mhm_region->pending_tick),
						errdetail("Its file in pg_stat is missing or damaged. Everything recorded until now is taken as stored; what came since that flush is not."));
				mhm_flush_give_up_unstored();
			}
			mhm_region->flushed_tick = mhm_region->pending_tick;
		}
		pg_write_barrier();
		mhm_region->pending_tick = 0;
		taken_unsettled = true;
	}
	if (taken_unsettled)
	{
		mhm_flush_keep_all_taken();
		taken_unsettled = false;
	}
}

/* Once, and after an error: where storage stands */
static void
learn_state(void)
{
	MhmStoredState state;

	if (state_known)
		return;
	mhm_store_read_state(mhm_region->region_id, &state);
	if (state.found && state.tick > mhm_region->flushed_tick)
	{
		ereport(WARNING,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("metrics in shared memory are older than what is stored of them"),
				errdetail("They were flushed up to tick " UINT64_FORMAT ", storage has tick " UINT64_FORMAT ". What they hold is taken as stored.",
						  mhm_region->flushed_tick, state.tick));
		mhm_flush_give_up_unstored();
		mhm_region->flushed_tick = state.tick;
	}
	next_tick = Max(state.highest_tick, mhm_region->flushed_tick) + 1;
	/* Storage knows nothing of a region that has recorded since the server started, as a standby maybe */
	if (interval_began_at == 0)
		interval_began_at = state.found ? state.at : PgStartTime;
	state_known = true;
}

/*
 * How long it has been since the last flush, or since the moment that it was
 * stored with.  By the monotonic clock; in the first flush of a process, by what
 * the last one wrote.
 */
static double
seconds_of_interval(TimestampTz now)
{
	if (!INSTR_TIME_IS_ZERO(interval_began))
		return mhm_milliseconds_since(interval_began) / 1000.0 + dated_back;
	if (interval_began_at != 0 && now > interval_began_at)
		return (double) (now - interval_began_at) / USECS_PER_SEC;
	return mhm_flush_interval / 1000.0;
}

/*
 * The moment up to which changes are counted.  The flush that ends a minute
 * comes a moment after it has ended; what it brings is that minute's, unless that
 * was closed while flushes failed: readers find what is earlier than complete_until
 * in rollup_1m alone.
 */
static TimestampTz
end_of_interval(TimestampTz now, double seconds)
{
	TimestampTz boundary = start_of_minute(now);

	if ((double) (now - boundary) / USECS_PER_SEC <= seconds / 2 && !mhm_store_is_closed(boundary))
		return boundary - 1;
	return now;
}

static void
note_flushed(uint64 request, double began_ms, TimestampTz now)
{
	SpinLockAcquire(&mhm_worker_state->mutex);
	mhm_worker_state->done = Max(mhm_worker_state->done, request);
	mhm_worker_state->report.last_flush_at = now;
	mhm_worker_state->report.last_flush_ms = began_ms;
	mhm_worker_state->report.tick = mhm_region->flushed_tick;
	SpinLockRelease(&mhm_worker_state->mutex);
	ConditionVariableBroadcast(&mhm_worker_state->stored);
}

static uint64
flushes_requested(void)
{
	uint64		requested;

	SpinLockAcquire(&mhm_worker_state->mutex);
	requested = mhm_worker_state->requested;
	SpinLockRelease(&mhm_worker_state->mutex);
	return requested;
}

/* One tick */
static void
flush_changes(void)
{
	uint64		request = answering;
	MhmFlush	flush = {0};
	TimestampTz now;
	instr_time	began;
	bool		complete = true;
	bool		levels_known;
	MemoryContext transaction_context;

	storage_there = mhm_store_enter();
	if (!storage_there)
	{
		state_known = false;
		CommitTransactionCommand();
		/* Nothing has come yet, so the time that the first flush is about begins later */
		if (mhm_region->used_series == 0)
			interval_began_at = GetCurrentTimestamp();
		return;
	}
	/* The next process reads the database's settings as they are now */
	if (mhm_store_is_writable_anew())
		proc_exit(1);
	/* The table has come or gone: what it says counts from before this flush */
	if (mhm_descriptions_table_changed())
	{
		more_to_flush = true;
		mhm_store_leave();
		CommitTransactionCommand();
		return;
	}
	settle_pending();
	learn_state();

	INSTR_TIME_SET_CURRENT(began);
	now = GetCurrentTimestamp();
	flush.seconds = seconds_of_interval(now);
	flush.at = end_of_interval(now, flush.seconds);
	flush.seconds -= (double) (now - flush.at) / USECS_PER_SEC;
	flush.tick = next_tick;
	levels_known = mhm_levels_settle();
	/* From here on something is taken: an error is settled by the next tick */
	taken_unsettled = true;
	MemoryContextReset(flush_context);
	transaction_context = MemoryContextSwitchTo(flush_context);
	mhm_flush_collect(&flush, false);
	/* Who asks for a flush wants what is in storage to be right */
	if (flush.changes_count > 0 || request > answered)
		mhm_store_mend();
	if (flush.changes_count > 0)
	{
		state_known = false;
		mhm_store_write_state(&flush);
		complete = mhm_series_identify(&flush);
		mhm_series_write_days(&flush);
		mhm_journal_write(&flush, mhm_region->region_id);
		MemoryContextSwitchTo(transaction_context);
		rows_brought = mhm_store_write_live(&flush);
	}
	else
	{
		rows_brought = 0;
		MemoryContextSwitchTo(transaction_context);
	}
	mhm_store_note_gap(&flush);
	/* Last, since the migrations lock flush_state first */
	mhm_store_read_quotas();
	mhm_store_leave();
	CommitTransactionCommand();

	mhm_levels_committed();
	if (flush.changes_count > 0)
	{
		mhm_flush_apply(&flush);
		mhm_region->flushed_tick = flush.tick;
		pg_write_barrier();
		mhm_region->pending_tick = 0;
		mhm_series_remember(&flush);
		next_tick = flush.tick + 1;
		state_known = true;
	}
	taken_unsettled = false;
	complete = complete && levels_known;
	more_to_flush = !complete;
	if (!complete)
		return;
	dated_back = (double) (now - flush.at) / USECS_PER_SEC;
	interval_began_at = now;
	interval_began = began;
	answered = request;
	note_flushed(request, mhm_milliseconds_since(began), now);
}

/* A step of rolling up the minutes that have ended; after the last one, what is done once a minute */
static void
close_minutes(void)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz minute = start_of_minute(now);
	TimestampTz idle_since = now - IDLE_BEFORE_RETIREMENT;

	if (!mhm_store_enter())
	{
		CommitTransactionCommand();
		return;
	}
	mhm_store_call("select meshhook_metrics.close_minutes($1)", now);
	more_to_close = mhm_store_ask("select exists ("
								  "select "
								  "from meshhook_metrics.rollup_state s "
								  "join meshhook_metrics.live l on l.id > s.live_id "
								  "where s.target = '1m' and date_trunc('minute', l.at) <> date_trunc('minute', $1))",
								  now);
	mhm_store_leave();
	CommitTransactionCommand();
	if (more_to_close)
		return;
	minute_closed = minute;

	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	if (mhm_region->used_series > mhm_region->geometry.max_series / 10 * 9 ||
		mhm_region->used_histograms > mhm_region->geometry.max_histograms / 10 * 9)
		idle_since = now - IDLE_UNDER_PRESSURE;
	LWLockRelease(mhm_registry_lock);
	(void) mhm_registry_retire_idle(idle_since);
}

/*
 * Some of them after each flush.  Realtime looks at each row that is deleted, all
 * those of a transaction in one go, before it sends what was inserted after that.
 */
static void
delete_old_live(void)
{
	static const char query[] = "select meshhook_metrics.delete_old_live($1, $2)";
	Oid			types[] = {INT8OID, TIMESTAMPTZOID};
	Datum		values[2];

	if (mhm_store_enter())
	{
		values[0] = Int64GetDatum((int64) Max(2 * rows_brought, LEAST_DELETED));
		values[1] = TimestampTzGetDatum(GetCurrentTimestamp());
		mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
		mhm_store_leave();
	}
	CommitTransactionCommand();
}

/* The next moment at which the clock asks for a flush */
static TimestampTz
next_flush_at(TimestampTz now)
{
	TimestampTz interval = (TimestampTz) mhm_flush_interval * 1000;
	TimestampTz next = now - now % interval + interval;

	return Min(next, start_of_minute(now) + USECS_PER_MINUTE);
}

/*
 * Flush, if it is time to or somebody wants it.  A clock that is set back or
 * stands still holds it up for one and a half intervals at most.
 */
static bool
flush_if_due(TimestampTz *planned)
{
	static uint64 tried = 0;	/* the last request that had its attempt */
	TimestampTz now = GetCurrentTimestamp();
	uint64		request = flushes_requested();
	bool		requested = request > tried;
	double		waiting_ms;

	if (!requested && !more_to_flush && now < *planned && *planned <= next_flush_at(now) &&
		(INSTR_TIME_IS_ZERO(interval_began) ||
		 mhm_milliseconds_since(interval_began) < 1.5 * mhm_flush_interval))
		return false;
	tried = request;
	*planned = next_flush_at(now);
	if (!requested && mhm_duty_backs_off(&flush_duty, &waiting_ms))
	{
		more_to_flush = false;
		return false;
	}
	answering = request;
	mhm_descriptions_exchange(false);
	return mhm_duty_attempt(&flush_duty);
}

static void
do_if_due(Duty *duty, bool due)
{
	double		waiting_ms;

	if (due && storage_there && !ShutdownRequestPending && !mhm_duty_backs_off(duty, &waiting_ms))
		(void) mhm_duty_attempt(duty);
}

/* A step is as small as it can be.  If that takes too long here, it has to get more time. */
static void
close_minutes_if_due(void)
{
	do_if_due(&minute_duty, more_to_close || start_of_minute(GetCurrentTimestamp()) != minute_closed);
	minute_duty.timeout_ms = FLUSH_TIMEOUT_MS;
	if (minute_duty.sqlerrcode == ERRCODE_QUERY_CANCELED)
		for (int i = 0; i < minute_duty.failures && minute_duty.timeout_ms < LONGEST_MINUTE_MS; i++)
			minute_duty.timeout_ms *= 2;
}

static void
wait_for_work(TimestampTz planned)
{
	long		wait_ms = (long) ((planned - GetCurrentTimestamp()) / 1000 + 1);
	double		remaining_ms;

	for (int i = 0; i < lengthof(duties); i++)
		if (mhm_duty_backs_off(duties[i], &remaining_ms))
			wait_ms = Min(wait_ms, (long) remaining_ms + 1);
	if (mhm_upkeep_backs_off(&remaining_ms))
		wait_ms = Min(wait_ms, (long) remaining_ms + 1);
	if (more_to_flush || (more_to_close && storage_there && minute_duty.failures == 0))
		wait_ms = 1;
	wait_ms = Max(Min(wait_ms, mhm_flush_interval), 1);
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait_ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* Wait until those who record have ended, as far as that takes a moment only */
static void
await_last_backends(void)
{
	instr_time	began;

	INSTR_TIME_SET_CURRENT(began);
	while (mhm_client_backends_compat() > 0 &&
		   mhm_milliseconds_since(began) * 1000 < LAST_BACKENDS_TIMEOUT_US)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOOK_FOR_BACKENDS_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Asked to end: by the postmaster, which is stopping, or by an administrator
 * or a DROP DATABASE, after which the postmaster starts us again.
 */
static void
shut_down(void)
{
	if (mhm_server_is_stopping())
	{
		/*
		 * The postmaster signals us twice, by our number and with our group.  The
		 * second must not cancel what the first has asked for.
		 */
		pqsignal(SIGTERM, SIG_IGN);
		await_last_backends();
		ShutdownRequestPending = false;
		answering = flushes_requested();
		mhm_descriptions_exchange(false);
		do
			more_to_flush = false;
		while (mhm_duty_attempt(&flush_duty) && more_to_flush);
		if (mhm_region->pending_tick == 0)
			mhm_journal_remove();
	}
	/* Exit status 0 would unregister us for good */
	proc_exit(1);
}

static void
forget_worker(int code, Datum arg)
{
	SpinLockAcquire(&mhm_worker_state->mutex);
	mhm_worker_state->report.pid = 0;
	SpinLockRelease(&mhm_worker_state->mutex);
}

static void
announce_worker(void)
{
	before_shmem_exit(forget_worker, (Datum) 0);
	SpinLockAcquire(&mhm_worker_state->mutex);
	mhm_worker_state->report.pid = MyProcPid;
	mhm_worker_state->report.tick = mhm_region->flushed_tick;
	SpinLockRelease(&mhm_worker_state->mutex);
}

static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	mhm_end_if_database_changed();
}

/*
 * On a standby, until it is promoted: know what the primary has been told.  Those who
 * ask see no flush worker, since there is none yet.
 */
static void
follow_primary(void)
{
	instr_time	looked_at = {0};

	while (RecoveryInProgress())
	{
		reload_settings();
		if (ShutdownRequestPending)
			proc_exit(1);
		if (INSTR_TIME_IS_ZERO(looked_at) || mhm_milliseconds_since(looked_at) >= mhm_flush_interval)
		{
			mhm_descriptions_exchange(true);
			INSTR_TIME_SET_CURRENT(looked_at);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(mhm_flush_interval, LOOK_FOR_PROMOTION_MS), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	mhm_descriptions_exchange(true);
}

void
mhm_worker_main(Datum arg)
{
	TimestampTz planned = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, mhm_duty_note_shutdown);
	BackgroundWorkerUnblockSignals();
	/* The server started without metrics: there is nothing to flush until it starts again */
	if (mhm_region == NULL)
		proc_exit(0);
	mhm_connect_to_database();
	mhm_fix_settings(WORKER_NAME);
	flush_context = AllocSetContextCreate(TopMemoryContext, "meshhook_metrics flush",
										  ALLOCSET_DEFAULT_SIZES);
	for (int i = 0; i < lengthof(duties); i++)
		mhm_duty_add(duties[i]);
	mhm_alerts_add_duties();
	mhm_upkeep_add_duties();
	follow_primary();
	announce_worker();
	for (;;)
	{
		bool		flushed;

		reload_settings();
		if (ShutdownRequestPending)
			shut_down();
		flushed = flush_if_due(&planned);
		/* First, since somebody waits to be told */
		if (flushed && storage_there && !ShutdownRequestPending)
			mhm_alerts_after_flush();
		if (flushed && !storage_there)
		{
			mhm_alerts_forget();
			mhm_duty_forget_others(&flush_duty);
		}
		do_if_due(&live_duty, flushed);
		close_minutes_if_due();
		if (storage_there && !ShutdownRequestPending)
			mhm_upkeep_if_due();
		if (!ShutdownRequestPending && !ConfigReloadPending)
			wait_for_work(planned);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Called while the server starts; does nothing in the server of pg_upgrade */
void
mhm_worker_register(void)
{
	BackgroundWorker worker;

	if (IsBinaryUpgrade)
		return;
	memset(&worker, 0, sizeof(worker));
	strlcpy(worker.bgw_name, WORKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_type, WORKER_NAME, BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "meshhook_metrics", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "mhm_worker_main", sizeof(worker.bgw_function_name));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = RESTART_SECONDS;
	RegisterBackgroundWorker(&worker);
}
