/*-------------------------------------------------------------------------
 *
 * alertduty.c
 *	  What the flush worker does for alerts, and when.
 *
 * Owns the two duties, evaluating the rules and handing notifications to pg_net,
 * each a transaction of its own as the owner of the tables; the work is SQL's
 * (sql/alerts.sql, sql/notifications.sql).  Called by worker.c after a flush, so
 * that what was recorded before it is judged at once.  An evaluation that is
 * killed has changed nothing, and the next one comes to the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "alertduty.h"
#include "flush.h"
#include "settings.h"
#include "utils/timestamp.h"

#define EVALUATE_TIMEOUT_MS		(30 * 1000)
#define SEND_TIMEOUT_MS			(30 * 1000)

static void evaluate_rules(void);
static void send_notifications(void);

Duty		mhm_evaluate_duty = {.what = "evaluate alert rules", .timeout_ms = EVALUATE_TIMEOUT_MS, .perform = evaluate_rules};
Duty		mhm_send_duty = {.what = "send notifications", .timeout_ms = SEND_TIMEOUT_MS, .perform = send_notifications};

static instr_time last_evaluation;	/* when it began */

/* Flushes do not come to the millisecond: half of their interval is too early by little */
bool
mhm_evaluation_is_due(void)
{
	return INSTR_TIME_IS_ZERO(last_evaluation) ||
		mhm_milliseconds_since(last_evaluation) >= mhm_alert_interval - mhm_flush_interval / 2.0;
}

static void
note_evaluation(TimestampTz at, double milliseconds)
{
	SpinLockAcquire(&mhm_worker_state->mutex);
	mhm_worker_state->report.last_evaluation_at = at;
	mhm_worker_state->report.last_evaluation_ms = milliseconds;
	mhm_worker_state->report.evaluations++;
	SpinLockRelease(&mhm_worker_state->mutex);
}

static void
evaluate_rules(void)
{
	TimestampTz now = GetCurrentTimestamp();
	instr_time	began;
	bool		evaluated = false;

	INSTR_TIME_SET_CURRENT(began);
	last_evaluation = began;
	if (mhm_store_enter())
	{
		evaluated = mhm_store_has_alerts();
		if (evaluated)
			mhm_store_call("select meshhook_metrics.evaluate_alerts($1)", now);
		mhm_store_leave();
	}
	CommitTransactionCommand();
	if (evaluated)
		note_evaluation(now, mhm_milliseconds_since(began));
}

static void
send_notifications(void)
{
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
			mhm_store_call("select meshhook_metrics.send_notifications()", GetCurrentTimestamp());
		mhm_store_leave();
	}
	CommitTransactionCommand();
}
