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
 * All tenants are evaluated in one transaction.  Tenants write the rules, so where
 * that fails by what is in them, or takes too long, each tenant gets a transaction
 * and a short time of its own, and who fails again is left alone for a while.
 * Between tenants the worker goes back to flushing when it is time to.
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
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define EVALUATE_TIMEOUT_MS		(10 * 1000)
#define SEND_TIMEOUT_MS			(30 * 1000)

/*
 * What a tenant may take of its own, and all of it with what it waits for others, which
 * ends by lock_timeout; for that no tenant is suspended.
 */
#define TENANT_MS				(2 * 1000)
#define TENANT_TIMEOUT_MS		(10 * 1000)

static void evaluate_all(void);
static void list_tenants(void);
static void evaluate_tenant(void);
static void suspend_tenant(void);
static void send_notifications(void);

static Duty evaluate_duty = {.what = "evaluate alert rules", .timeout_ms = EVALUATE_TIMEOUT_MS, .perform = evaluate_all};
static Duty list_duty = {.what = "list tenants with alert rules", .timeout_ms = TENANT_TIMEOUT_MS, .perform = list_tenants};
static Duty tenant_duty = {.what = "evaluate a tenant's alert rules", .timeout_ms = TENANT_TIMEOUT_MS, .own_ms = TENANT_MS,
	.perform = evaluate_tenant};
static Duty suspend_duty = {.what = "suspend a tenant's alert rules", .timeout_ms = TENANT_TIMEOUT_MS, .perform = suspend_tenant};
static Duty send_duty = {.what = "send notifications", .timeout_ms = SEND_TIMEOUT_MS, .perform = send_notifications};

static instr_time last_evaluation;	/* when it began */

/* All together failed by what tenants have written, or by the time, and has not succeeded since */
static bool fares_apart = false;

/* Tenants that are still to be evaluated apart: the last ones of these */
static pg_uuid_t *tenants = NULL;
static int	tenants_left = 0;
static TimestampTz tenants_listed_at;
static bool all_evaluated;		/* of those that have been tried */
static bool tenant_began;
static double tenants_took_ms;

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

static void
evaluate_all(void)
{
	TimestampTz now = GetCurrentTimestamp();
	instr_time	began;
	bool		evaluated = false;

	INSTR_TIME_SET_CURRENT(began);
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

/* Which there are; each adds to what is left out */
static void
list_tenants(void)
{
	int			listed = 0;
	static const char query[] =
		"with begun as (update meshhook_metrics.alert_state set alerts_left_out = 0) "
		"select r.tenant_id::uuid from meshhook_metrics.alert_rules r where r.tenant_id is not null "
		"union "
		"select a.tenant_id::uuid from meshhook_metrics.alerts a where a.tenant_id is not null";

	all_evaluated = false;
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
			all_evaluated = true;
		}
		mhm_store_leave();
	}
	CommitTransactionCommand();
	tenants_left = listed;
	tenants_listed_at = GetCurrentTimestamp();
	tenants_took_ms = 0;
}

/* Be the one who evaluates, from when on the tenant's time counts */
static void
begin_tenant(void)
{
	static const char query[] = "select from meshhook_metrics.alert_state for update";

	mhm_store_check(SPI_execute(query, false, 0), query);
	mhm_duty_count_time(&tenant_duty);
	tenant_began = true;
}

static void
evaluate_tenant(void)
{
	static const char query[] = "select meshhook_metrics.evaluate_tenant_alerts($1, array[$2])";
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID};
	Datum		values[2];
	bool		has_tables = false;

	if (mhm_store_enter())
	{
		has_tables = mhm_store_has_alerts();
		if (has_tables)
		{
			begin_tenant();
			values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
			values[1] = UUIDPGetDatum(&tenants[tenants_left]);
			mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
		}
		mhm_store_leave();
	}
	CommitTransactionCommand();
	if (!has_tables)
		all_evaluated = false;
}

static void
suspend_tenant(void)
{
	static const char query[] = "select meshhook_metrics.suspend_alerts($1, $2, $3)";
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID, TEXTOID};
	Datum		values[3];

	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
		{
			values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
			values[1] = UUIDPGetDatum(&tenants[tenants_left]);
			values[2] = CStringGetTextDatum(tenant_duty.error);
			mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
		}
		mhm_store_leave();
	}
	CommitTransactionCommand();
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

/* Can an error come of what a tenant has written, or of how much it is? */
static bool
may_be_a_tenants(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CARDINALITY_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
	}
	/* The time is up, or the memory */
	return sqlerrcode == ERRCODE_QUERY_CANCELED || sqlerrcode == ERRCODE_OUT_OF_MEMORY;
}

/* Did evaluating a tenant fail by what it has, or by the time it takes of its own? */
static bool
was_the_tenants(void)
{
	if (tenant_duty.sqlerrcode == ERRCODE_QUERY_CANCELED)
		return tenant_duty.overdue;
	return tenant_began && may_be_a_tenants(tenant_duty.sqlerrcode);
}

/* Or by what others had locked? */
static bool
waited_in_vain(void)
{
	return tenant_began && !was_the_tenants() &&
		(tenant_duty.sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		 tenant_duty.sqlerrcode == ERRCODE_QUERY_CANCELED ||
		 tenant_duty.sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED);
}

static void
send_if_possible(void)
{
	double		waiting_ms;

	if (!ShutdownRequestPending && !mhm_duty_backs_off(&send_duty, &waiting_ms))
		(void) mhm_duty_attempt(&send_duty);
}

/* Tenant by tenant, until all are done or it is time to flush */
static void
evaluate_apart(void)
{
	static bool last_one_waited = false;
	instr_time	began;
	bool		goes_on = true;

	INSTR_TIME_SET_CURRENT(began);
	while (goes_on && tenants_left > 0 && !ShutdownRequestPending && mhm_milliseconds_since(began) < mhm_flush_interval)
	{
		tenants_left--;
		tenant_began = false;
		if (mhm_duty_attempt(&tenant_duty))
		{
			last_one_waited = false;
			continue;
		}
		if (ShutdownRequestPending)
			break;
		if (was_the_tenants() && mhm_duty_attempt(&suspend_duty))
		{
			/* From now on it is in the tenant's rules */
			mhm_duty_forget(&tenant_duty);
			last_one_waited = false;
			continue;
		}

		/* What one has met can be that one's, and a flush comes first; what two have is everybody's */
		goes_on = false;
		if (!waited_in_vain() || last_one_waited)
		{
			tenants_left = 0;
			all_evaluated = false;
		}
		last_one_waited = waited_in_vain() && !last_one_waited;
	}
	tenants_took_ms += mhm_milliseconds_since(began);
	if (tenants_left == 0 && all_evaluated && !ShutdownRequestPending)
		note_evaluation(tenants_listed_at, tenants_took_ms);
	send_if_possible();
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
		if (mhm_duty_attempt(&evaluate_duty))
		{
			fares_apart = false;
			mhm_duty_forget(&list_duty);
			mhm_duty_forget(&tenant_duty);
			mhm_duty_forget(&suspend_duty);
			send_if_possible();
			return true;
		}
		/* What is not a tenant's fault would befall each one apart as well, this time */
		if (ShutdownRequestPending || !may_be_a_tenants(evaluate_duty.sqlerrcode))
			return true;
		fares_apart = true;
	}
	return !fares_apart;
}

void
mhm_alerts_after_flush(void)
{
	if (tenants_left > 0)
		evaluate_apart();
	else if (evaluation_is_due() && !evaluate_together())
	{
		INSTR_TIME_SET_CURRENT(last_evaluation);
		if (mhm_duty_attempt(&list_duty))
			evaluate_apart();
	}
}
