/*-------------------------------------------------------------------------
 *
 * alertduty.c
 *	  What the flush worker does for alerts, and when.
 *
 * Owns the duties of evaluating the rules and of handing notifications to pg_net,
 * each a transaction of its own as the owner of the tables; the work is SQL's
 * (sql/alerts.sql, sql/notifications.sql).  Called by worker.c after a flush, so
 * that what was recorded before it is judged at once.  An evaluation that is
 * killed has changed nothing, and the next one comes to the same.
 *
 * All tenants are evaluated in one transaction.  Where that fails by what one of them
 * can have - what is in its rules and data, the time they take, rows that somebody has
 * locked - each tenant gets a transaction and a short time of its own.  Who fails again
 * by what it has is left alone for a while; who waits for a lock in vain, which does not
 * take long, comes again in the next round.  Between tenants the worker goes back to
 * flushing when it is time to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "alertduty.h"
#include "catalog/pg_type.h"
#include "duty.h"
#include "executor/spi.h"
#include "flush.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define EVALUATE_TIMEOUT_MS		(10 * 1000)
#define SEND_TIMEOUT_MS			(30 * 1000)

/*
 * What a tenant may take of its own, and all of it with what it waits for locks; for
 * that no tenant is suspended.  It need not wait long for one, since it comes again soon.
 */
#define TENANT_MS				(2 * 1000)
#define TENANT_TIMEOUT_MS		(10 * 1000)
#define TENANT_LOCK_TIMEOUT		"100ms"

static void evaluate_all(void);
static void list_tenants(void);
static void evaluate_tenant(void);
static void suspend_tenant(void);
static void send_notifications(void);

static Duty evaluate_duty = {.what = "evaluate alert rules", .timeout_ms = EVALUATE_TIMEOUT_MS, .perform = evaluate_all};
static Duty list_duty = {.what = "list tenants with alert rules", .timeout_ms = TENANT_TIMEOUT_MS, .perform = list_tenants};
static Duty tenant_duty = {.what = "evaluate a tenant's alert rules", .timeout_ms = TENANT_TIMEOUT_MS, .own_ms = TENANT_MS,
	.perform = evaluate_tenant, .of_each = true};
static Duty suspend_duty = {.what = "suspend a tenant's alert rules", .timeout_ms = TENANT_TIMEOUT_MS,
	.perform = suspend_tenant, .of_each = true};
static Duty send_duty = {.what = "send notifications", .timeout_ms = SEND_TIMEOUT_MS, .perform = send_notifications};

static instr_time last_evaluation;	/* when it began */

/* The row of alert_state is ours: what fails from then on fails by what is evaluated */
static bool evaluation_began;

/* All together failed by what one tenant can have, and has not succeeded since */
static bool fares_apart = false;

/* A round of all tenants, each apart: those still to be evaluated are the last ones of these */
static pg_uuid_t *tenants = NULL;
static int	tenants_left = 0;
static TimestampTz round_began_at;
static double round_took_ms;
static bool round_counts;		/* as an evaluation: not one where all have waited in vain */

void
mhm_alerts_add_duties(void)
{
	mhm_duty_add(&evaluate_duty);
	mhm_duty_add(&list_duty);
	mhm_duty_add(&tenant_duty);
	mhm_duty_add(&suspend_duty);
	mhm_duty_add(&send_duty);
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

/* Be the one who evaluates, and can write that down */
static void
begin_evaluation(void)
{
	static const char query[] =
		"lock table meshhook_metrics.alert_state in row exclusive mode; "
		"select from meshhook_metrics.alert_state for update";

	mhm_store_check(SPI_execute(query, false, 0), query);
	evaluation_began = true;
}

static void
evaluate_all(void)
{
	TimestampTz now = GetCurrentTimestamp();
	instr_time	entered;

	INSTR_TIME_SET_CURRENT(entered);
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
		{
			begin_evaluation();
			mhm_store_call("select meshhook_metrics.evaluate_alerts($1)", now);
		}
		mhm_store_leave();
	}
	CommitTransactionCommand();
	if (evaluation_began)
		note_evaluation(now, mhm_milliseconds_since(entered));
}

/* Which there are to be evaluated; each adds to what is left out */
static void
list_tenants(void)
{
	int			listed = 0;
	static const char query[] =
		"with begun as (update meshhook_metrics.alert_state set alerts_left_out = 0) "
		"select t.tenant_id::uuid "
		"from ("
		"  select r.tenant_id from meshhook_metrics.alert_rules r where r.enabled "
		"  union "
		"  select a.tenant_id from meshhook_metrics.alerts a) t "
		"where t.tenant_id is not null "
		"  and t.tenant_id not in ("
		"    select s.tenant_id from meshhook_metrics.alert_suspensions s "
		"    where s.until between clock_timestamp() and clock_timestamp() + interval '2 hours') "
		"order by t.tenant_id";

	round_counts = false;
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
		{
			mhm_store_check(SPI_execute(query, false, 0), query);
			if (tenants != NULL)
				pfree(tenants);
			tenants = NULL;
			tenants = MemoryContextAllocHuge(TopMemoryContext, (SPI_processed + 1) * sizeof(pg_uuid_t));
			for (uint64 i = 0; i < SPI_processed; i++)
			{
				bool		is_null;
				Datum		tenant = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null);

				tenants[i] = *DatumGetUUIDP(tenant);
			}
			listed = (int) SPI_processed;
			round_counts = listed == 0;
		}
		mhm_store_leave();
	}
	CommitTransactionCommand();
	tenants_left = listed;
	round_began_at = GetCurrentTimestamp();
	round_took_ms = 0;
}

static void
tell_tenant(void *id)
{
	errcontext("alert rules of tenant %s", (const char *) id);
}

/* Do this in the tables for the tenant whose turn it is, of whom the log tells in case of errors */
static void
with_tenant(void (*perform) (pg_uuid_t *tenant))
{
	/* The transaction's memory is gone before its last message */
	static char id[sizeof("00000000-0000-0000-0000-000000000000")];
	pg_uuid_t  *tenant = &tenants[tenants_left];
	ErrorContextCallback context = {.previous = error_context_stack, .callback = tell_tenant, .arg = id};

	strlcpy(id, DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(tenant))), sizeof(id));
	error_context_stack = &context;
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
			perform(tenant);
		mhm_store_leave();
	}
	CommitTransactionCommand();
	error_context_stack = context.previous;
}

static void
evaluate_one(pg_uuid_t *tenant)
{
	static const char query[] = "select meshhook_metrics.evaluate_tenant_alerts($1, array[$2])";
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID};
	Datum		values[2];

	begin_evaluation();
	mhm_duty_count_time(&tenant_duty);
	/* Until mhm_store_leave() */
	(void) set_config_option("lock_timeout", TENANT_LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[1] = UUIDPGetDatum(tenant);
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
}

static void
evaluate_tenant(void)
{
	with_tenant(evaluate_one);
}

static void
suspend_one(pg_uuid_t *tenant)
{
	static const char query[] = "select meshhook_metrics.suspend_alerts($1, $2, $3)";
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID, TEXTOID};
	Datum		values[3];

	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[1] = UUIDPGetDatum(tenant);
	values[2] = CStringGetTextDatum(tenant_duty.error);
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
}

static void
suspend_tenant(void)
{
	with_tenant(suspend_one);
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

/* Does an error come of what is in the rules and the data, or of how much it is? */
static bool
is_of_content(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CARDINALITY_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
	}
	return false;
}

/* Can an evaluation have failed by what one tenant has, so that the others' would not? */
static bool
can_be_one_tenants(const Duty *duty)
{
	return evaluation_began &&
		(is_of_content(duty->sqlerrcode) ||
		 duty->sqlerrcode == ERRCODE_QUERY_CANCELED ||
		 duty->sqlerrcode == ERRCODE_OUT_OF_MEMORY ||
		 duty->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		 duty->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED);
}

/* Is it the tenant's own doing? What others have locked is not, nor is the memory they leave. */
static bool
is_the_tenants_own(void)
{
	return can_be_one_tenants(&tenant_duty) && (is_of_content(tenant_duty.sqlerrcode) || tenant_duty.overdue);
}

static bool
attempt(Duty *duty)
{
	evaluation_began = false;
	return mhm_duty_attempt(duty);
}

/*
 * Goes on with the round until all are done, or it is time to flush.  What is everybody's
 * makes it wait, and then it goes on with the next tenant.
 */
static void
evaluate_apart(void)
{
	instr_time	entered;
	double		waiting_ms;

	INSTR_TIME_SET_CURRENT(entered);
	while (tenants_left > 0 && !ShutdownRequestPending && mhm_milliseconds_since(entered) < mhm_flush_interval &&
		   !mhm_duty_backs_off(&tenant_duty, &waiting_ms))
	{
		tenants_left--;
		if (attempt(&tenant_duty))
			round_counts |= evaluation_began;
		else if (!ShutdownRequestPending && can_be_one_tenants(&tenant_duty))
		{
			mhm_duty_excuse(&tenant_duty);
			if (is_the_tenants_own() && mhm_duty_attempt(&suspend_duty))
				round_counts = true;
		}
	}
	round_took_ms += mhm_milliseconds_since(entered);
	if (tenants_left == 0 && round_counts && !ShutdownRequestPending)
		note_evaluation(round_began_at, round_took_ms);
}

/* Flushes do not come to the millisecond: half of their interval is too early by little */
static bool
evaluation_is_due(void)
{
	return INSTR_TIME_IS_ZERO(last_evaluation) ||
		mhm_milliseconds_since(last_evaluation) >= mhm_alert_interval - mhm_flush_interval / 2.0;
}

/* All tenants together; false where they are to be evaluated apart, now or until that is tried again */
static bool
evaluate_together(void)
{
	double		waiting_ms;

	if (!mhm_duty_backs_off(&evaluate_duty, &waiting_ms))
	{
		INSTR_TIME_SET_CURRENT(last_evaluation);
		if (attempt(&evaluate_duty))
		{
			fares_apart = false;
			mhm_duty_forget(&list_duty);
			mhm_duty_forget(&tenant_duty);
			mhm_duty_forget(&suspend_duty);
			return true;
		}
		/* What is everybody's would befall each one apart as well, this time */
		if (ShutdownRequestPending || !can_be_one_tenants(&evaluate_duty))
			return true;
		fares_apart = true;
	}
	return !fares_apart;
}

static void
evaluate(void)
{
	double		waiting_ms;

	if (tenants_left > 0)
		evaluate_apart();
	else if (!evaluate_together() && !mhm_duty_backs_off(&list_duty, &waiting_ms))
	{
		INSTR_TIME_SET_CURRENT(last_evaluation);
		if (mhm_duty_attempt(&list_duty))
			evaluate_apart();
	}
}

/* There are no tables: the next time is the first one */
void
mhm_alerts_forget(void)
{
	fares_apart = false;
	tenants_left = 0;
}

void
mhm_alerts_after_flush(void)
{
	double		waiting_ms;

	if (tenants_left == 0 && !evaluation_is_due())
		return;
	evaluate();
	if (!ShutdownRequestPending && !mhm_duty_backs_off(&send_duty, &waiting_ms))
		(void) mhm_duty_attempt(&send_duty);
}
