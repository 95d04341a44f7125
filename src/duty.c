/*-------------------------------------------------------------------------
 *
 * duty.c
 *	  What the flush worker does again and again, and what comes of its errors.
 *
 * Owns the way a transaction of the worker is begun, and caught when it fails:
 * the error is reported in status(), logged when it is a new one or was ten
 * minutes ago, and the duty is tried again after a while that grows to a minute.
 * Called by worker.c and alertduty.c, and by upkeep.c, also in a process of its
 * own; of the two processes only the worker says in status() what is wrong.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "duty.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define SHORTEST_BACK_OFF_MS	1000.0
#define LONGEST_BACK_OFF_MS		(60 * 1000)
#define LOG_AGAIN_AFTER			(10 * USECS_PER_MINUTE)

volatile sig_atomic_t mhm_duty_cancellable = false;

/* Code of the tables' owner may catch that it is cancelled; for so long */
#define UNHEEDED_MS				5000
#define LOOK_AFTER_DUTY_MS		1000

static Duty *first_duty = NULL;
static TimeoutId look_after_duty = MAX_TIMEOUTS;
static volatile TimestampTz cancelled_at;	/* 0 while it is not */
static volatile TimestampTz duty_ends_at;

/* Handles SIGTERM: what is being done is cancelled, and the process ends by itself */
void
mhm_duty_note_shutdown(SIGNAL_ARGS)
{
	int			save_errno = errno;

	ShutdownRequestPending = true;
	if (mhm_duty_cancellable)
	{
		QueryCancelPending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * Each second of a duty, in a signal handler: what has been cancelled, and goes on,
 * ends with the process.  Its flush is settled by the next one.
 */
static void
end_if_unheeded(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (!ShutdownRequestPending && now < duty_ends_at)
		return;
	if (cancelled_at == 0)
		cancelled_at = now;
	else if (now - cancelled_at >= UNHEEDED_MS * INT64CONST(1000))
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
}

/* The duty that is added last is the least */
void
mhm_duty_add(Duty *duty)
{
	Duty	  **link = &first_duty;

	while (*link != NULL)
		link = &(*link)->next;
	*link = duty;
}

double
mhm_milliseconds_since(instr_time then)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, then);
	return INSTR_TIME_GET_MILLISEC(now);
}

/* Show the first of what goes wrong now in status(); the worker does that */
static void
publish_errors(bool another)
{
	const char *error = "";

	for (Duty *duty = first_duty; duty != NULL && *error == '\0'; duty = duty->next)
		if (duty->failures > 0)
			error = duty->error;
	SpinLockAcquire(&mhm_worker_state->mutex);
	if (mhm_worker_state->report.pid == MyProcPid)
	{
		strlcpy(mhm_worker_state->report.last_error, error, MHM_ERROR_LENGTH);
		mhm_worker_state->report.error_encoding = GetDatabaseEncoding();
	}
	if (another)
		mhm_worker_state->report.errors++;
	SpinLockRelease(&mhm_worker_state->mutex);
}

/* Is it none that the log has had in these minutes? */
static bool
is_to_be_logged(Duty *duty, const char *message)
{
	uint32		hash = hash_bytes((const unsigned char *) message, strlen(message));
	TimestampTz now = GetCurrentTimestamp();
	int			slot = 0;

	for (int i = 0; i < MHM_DUTY_LOGGED; i++)
	{
		/* It is of a clock that was set back */
		if (duty->logged[i].at > now)
			duty->logged[i].at = 0;
		if (duty->logged[i].at != 0 && duty->logged[i].hash == hash)
		{
			if (now - duty->logged[i].at < LOG_AGAIN_AFTER)
				return false;
			slot = i;
			break;
		}
		if (duty->logged[i].at < duty->logged[slot].at)
			slot = i;
	}
	duty->logged[slot].hash = hash;
	duty->logged[slot].at = now;
	return true;
}

static void
note_failure(Duty *duty, ErrorData *error)
{
	char		message[MHM_ERROR_LENGTH];
	int			length;

	snprintf(message, sizeof(message), "could not %s: %s", duty->what, error->message);
	length = pg_mbcliplen(message, strlen(message), MHM_ERROR_LENGTH - 1);
	message[length] = '\0';

	strlcpy(duty->error, message, MHM_ERROR_LENGTH);
	duty->failures++;
	duty->sqlerrcode = error->sqlerrcode;
	INSTR_TIME_SET_CURRENT(duty->failed);
	publish_errors(true);

	if (is_to_be_logged(duty, message))
	{
		/* With all that PostgreSQL says of it: where it waited, in which statement */
		char	   *whole = psprintf("meshhook_metrics could not %s: %s", duty->what, error->message);

		if (error->message != NULL)
			pfree(error->message);
		error->message = whole;
		error->elevel = WARNING;
		ThrowErrorData(error);
	}
}

static void
note_success(Duty *duty)
{
	static bool published = false;

	if (duty->failures == 0)
	{
		/* What a worker before this one has left there is no longer true */
		if (!published)
			publish_errors(false);
		published = true;
		return;
	}
	published = true;
	if (duty->of_each)
		return;
	ereport(LOG,
			errmsg("meshhook_metrics can %s again after %d failed attempts", duty->what, duty->failures));
	mhm_duty_forget(duty);
}

/* It has failed, by nothing that keeps it from being done the next time; the same again is not logged */
void
mhm_duty_excuse(Duty *duty)
{
	if (duty->failures == 0)
		return;
	duty->failures = 0;
	publish_errors(false);
}

/* Take over what has come of a duty so far, which may have been another process's */
void
mhm_duty_take_over(Duty *duty, const Duty *from)
{
	duty->failures = from->failures;
	duty->sqlerrcode = from->sqlerrcode;
	duty->failed = from->failed;
	memcpy(duty->error, from->error, sizeof(duty->error));
	memcpy(duty->logged, from->logged, sizeof(duty->logged));
	publish_errors(false);
}

/* What was wrong with it is over */
void
mhm_duty_forget(Duty *duty)
{
	mhm_duty_excuse(duty);
	memset(duty->logged, 0, sizeof(duty->logged));
}

/* The others cannot be done now, and need not be */
void
mhm_duty_forget_others(const Duty *duty)
{
	for (Duty *other = first_duty; other != NULL; other = other->next)
		if (other != duty)
			mhm_duty_forget(other);
}

/* Is it too early to try again what has failed? */
bool
mhm_duty_backs_off(const Duty *duty, double *remaining_ms)
{
	double		wait_ms = SHORTEST_BACK_OFF_MS;

	if (duty->failures == 0)
		return false;
	for (int i = 1; i < duty->failures && wait_ms < LONGEST_BACK_OFF_MS; i++)
		wait_ms *= 2;
	*remaining_ms = Min(wait_ms, LONGEST_BACK_OFF_MS) - mhm_milliseconds_since(duty->failed);
	return *remaining_ms > 0;
}

/* Do it in a transaction; an error is noted.  True when it has succeeded. */
bool
mhm_duty_attempt(Duty *duty)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool succeeded = false;

	PG_TRY();
	{
		mhm_duty_cancellable = true;
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		if (look_after_duty == MAX_TIMEOUTS)
			look_after_duty = RegisterTimeout(USER_TIMEOUT, end_if_unheeded);
		cancelled_at = 0;
		duty_ends_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), duty->timeout_ms);
		enable_timeout_every(look_after_duty,
							 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), LOOK_AFTER_DUTY_MS),
							 LOOK_AFTER_DUTY_MS);
		enable_timeout_after(STATEMENT_TIMEOUT, duty->timeout_ms);
		pgstat_report_activity(STATE_RUNNING, duty->what);
		/* What code of the tables' owner asks for by current_query(), as in any session */
		debug_query_string = duty->what;
		duty->perform();
		succeeded = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		mhm_duty_cancellable = false;
		disable_all_timeouts(false);
		QueryCancelPending = false;
		debug_query_string = NULL;
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		if (!ShutdownRequestPending)
			note_failure(duty, error);
		FreeErrorData(error);
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	mhm_duty_cancellable = false;
	disable_all_timeouts(false);
	QueryCancelPending = false;
	debug_query_string = NULL;
	MemoryContextSwitchTo(context);
	pgstat_report_activity(STATE_IDLE, NULL);
	pgstat_report_stat(false);
	if (succeeded)
		note_success(duty);
	return succeeded;
}
