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
 * A round evaluates all tenants, many in a transaction.  Where that fails, it is tried
 * with a quarter of them, and so on down to one.  A tenant for whom it fails alone is
 * left out of the others' transactions until it succeeds: it is tried alone, in the next
 * round where others keep its rows locked, else after a while that is doubled each time.
 * If it was its own doing, it stays alone for an hour after that, also where it had no rules
 * in between: somebody who makes rules light and heavy by turns has the others wait for one
 * attempt each time, and not for a search.
 * Between transactions the worker goes back to flushing when it is time to.
 *
 * An evaluation has a budget of memory, which the kernel keeps (begin_budget()), beside
 * what alert_pieces() and alert_totals() do to stay far below it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/resource.h>
#include <unistd.h>

#include "access/xact.h"
#include "alertduty.h"
#include "catalog/pg_type.h"
#include "duty.h"
#include "executor/spi.h"
#include "flush.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "settings.h"
#include "storage/fd.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* A batch may take so long: one tenant, and more the more there are */
#define TENANT_TIMEOUT_MS		(5 * 1000)
#define BATCH_TIMEOUT_MS		(10 * 1000)
#define LIST_TIMEOUT_MS			(10 * 1000)
#define SEND_TIMEOUT_MS			(30 * 1000)

#define TENANTS_AT_ONCE			1000
#define FEWER_EACH_TIME			4

/* What somebody has locked it need not wait for long, since it comes again soon */
#define LOCK_TIMEOUT			"100ms"

/* When a tenant is tried again that cannot be evaluated */
#define SHORTEST_WAIT_MS		(10 * 1000.0)
#define LONGEST_WAIT_MS			(60 * 60 * 1000.0)

/* For so long, and so many at most, are evaluated alone after they could not be */
#define SUSPECTED_MS			LONGEST_WAIT_MS
#define SUSPECTS				64

/* What an evaluation may allocate beyond what the worker has when it begins */
#define MEMORY_BUDGET			(64 * 1024 * 1024)

#define WHAT					"evaluate alert rules"
#define WHAT_OF_ONE				"evaluate a tenant's alert rules"

static void begin_round(void);
static void evaluate_batch(void);
static void note_on_rules(void);
static void send_notifications(void);

static Duty list_duty = {.what = WHAT, .timeout_ms = LIST_TIMEOUT_MS, .perform = begin_round};
static Duty evaluate_duty = {.what = WHAT, .perform = evaluate_batch, .of_each = true};
static Duty note_duty = {.what = "note on alert rules that they were not evaluated", .timeout_ms = LIST_TIMEOUT_MS,
	.perform = note_on_rules};
static Duty send_duty = {.what = "send notifications", .timeout_ms = SEND_TIMEOUT_MS, .perform = send_notifications};

typedef struct Tenant
{
	pg_uuid_t	id;
	int			failures;		/* of it alone, in a row */
	bool		is_noted;		/* its rules say so */
	bool		is_suspect;
	instr_time	failed;
} Tenant;

/* The newest, whether or not they have rules now */
static struct
{
	pg_uuid_t	id;
	instr_time	failed;			/* zero: nobody */
}			suspects[SUSPECTS];

/* Those of this round, by their ids, and the first that is still to be evaluated */
static Tenant *tenants = NULL;
static int	tenants_count = 0;
static int	next_tenant = 0;

/* How many at once; fewer after a failure, and more again after each success */
static int	at_once = TENANTS_AT_ONCE;
static int	batch_count;		/* from next_tenant on */
static int	trouble_ends;		/* before this one somebody is bad, and batches do not grow */

static instr_time last_round;	/* when it began */
static TimestampTz round_began_at;
static double round_took_ms;
static bool round_counts;		/* somebody was evaluated, or there is nobody */
static bool round_failed;		/* not all of it was well */

/* The row of alert_state is ours: what fails from then on fails by what is evaluated */
static bool evaluation_began;

/* The last failure was not of one tenant: all wait */
static bool everybody_waits;

void
mhm_alerts_add_duties(void)
{
	mhm_duty_add(&evaluate_duty);
	mhm_duty_add(&list_duty);
	mhm_duty_add(&note_duty);
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

static struct rlimit unlimited; /* as it was */
static bool is_limited = false;

/* The memory of this process that is its own, in bytes; 0 where that is not known */
static uint64
own_memory(void)
{
	unsigned long data = 0;
	FILE	   *file = AllocateFile("/proc/self/statm", "r");

	if (file == NULL)
		return 0;
	if (fscanf(file, "%*u %*u %*u %*u %*u %lu", &data) != 1)
		data = 0;
	FreeFile(file);
	return (uint64) data * sysconf(_SC_PAGESIZE);
}

/*
 * From here on the kernel refuses what goes beyond the budget, and that is an error
 * like any other: whatever somebody's rules, data and triggers come to, the server does
 * not run out of memory by it.  Shared memory and the stack do not count.  Ended before
 * the commit, which must not fail halfway.
 */
static void
begin_budget(void)
{
	uint64		own = own_memory();
	struct rlimit limit;

	if (own == 0 || getrlimit(RLIMIT_DATA, &unlimited) != 0)
		return;
	limit = unlimited;
	limit.rlim_cur = Min((rlim_t) (own + MEMORY_BUDGET), unlimited.rlim_cur);
	is_limited = setrlimit(RLIMIT_DATA, &limit) == 0;
}

static void
end_budget(void)
{
	if (is_limited)
		(void) setrlimit(RLIMIT_DATA, &unlimited);
	is_limited = false;
}

/* Is this tenant, of whom the last round knew, one of those that cannot be evaluated? */
static void
remember_failures(Tenant *tenant, const Tenant *known, int known_count, int *position)
{
	while (*position < known_count && memcmp(&known[*position].id, &tenant->id, sizeof(pg_uuid_t)) < 0)
		(*position)++;
	if (*position < known_count && memcmp(&known[*position].id, &tenant->id, sizeof(pg_uuid_t)) == 0)
		*tenant = known[*position];
}

static bool
is_suspect(const pg_uuid_t *id)
{
	for (int i = 0; i < SUSPECTS; i++)
		if (!INSTR_TIME_IS_ZERO(suspects[i].failed) && memcmp(&suspects[i].id, id, sizeof(pg_uuid_t)) == 0)
			return mhm_milliseconds_since(suspects[i].failed) < SUSPECTED_MS;
	return false;
}

/* In its former place, else in that of the one that has been there longest */
static void
suspect(Tenant *tenant)
{
	int			place = 0;

	for (int i = 0; i < SUSPECTS; i++)
	{
		if (memcmp(&suspects[i].id, &tenant->id, sizeof(pg_uuid_t)) == 0)
		{
			place = i;
			break;
		}
		if (INSTR_TIME_GET_DOUBLE(suspects[i].failed) < INSTR_TIME_GET_DOUBLE(suspects[place].failed))
			place = i;
	}
	suspects[place].id = tenant->id;
	suspects[place].failed = tenant->failed;
	tenant->is_suspect = true;
}

/* Those who have rules or alerts; each batch adds to what is left out */
static void
begin_round(void)
{
	Tenant	   *listed = NULL;
	int			count = 0;
	int			position = 0;
	static const char begin[] =
		"update meshhook_metrics.alert_state set alerts_left_out = 0 where alerts_left_out <> 0";
	static const char query[] =
		"select t.tenant_id::uuid "
		"from ("
		"  select r.tenant_id from meshhook_metrics.alert_rules r where r.enabled "
		"  union "
		"  select a.tenant_id from meshhook_metrics.alerts a) t "
		"where t.tenant_id is not null "
		"order by t.tenant_id";

	round_counts = false;
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
		{
			mhm_store_check(SPI_execute(begin, false, 0), begin);
			mhm_store_check(SPI_execute(query, false, 0), query);
			count = (int) SPI_processed;
			listed = MemoryContextAllocZero(TopMemoryContext, (count + 1) * sizeof(Tenant));
			for (int i = 0; i < count; i++)
			{
				bool		is_null;
				Datum		tenant = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &is_null);

				listed[i].id = *DatumGetUUIDP(tenant);
				remember_failures(&listed[i], tenants, tenants_count, &position);
				listed[i].is_suspect = is_suspect(&listed[i].id);
			}
			if (tenants != NULL)
				pfree(tenants);
			tenants = listed;
			round_counts = count == 0;
		}
		mhm_store_leave();
	}
	tenants_count = count;
	next_tenant = count;
	CommitTransactionCommand();
	next_tenant = 0;
	trouble_ends = 0;
	round_began_at = GetCurrentTimestamp();
	round_took_ms = 0;
	round_failed = false;
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

static Datum
ids_of_batch(void)
{
	Datum	   *ids = palloc(batch_count * sizeof(Datum));

	for (int i = 0; i < batch_count; i++)
		ids[i] = UUIDPGetDatum(&tenants[next_tenant + i].id);
	return PointerGetDatum(construct_array(ids, batch_count, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}

static void
tell_tenant(void *id)
{
	errcontext("alert rules of tenant %s", (const char *) id);
}

/* Do something in the tables; of a single tenant the log tells in case of errors */
static void
with_batch(void (*perform) (void))
{
	/* The transaction's memory is gone before its last message */
	static char id[sizeof("00000000-0000-0000-0000-000000000000")];
	ErrorContextCallback context = {.previous = error_context_stack, .callback = tell_tenant, .arg = id};

	if (batch_count == 1)
	{
		strlcpy(id, DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&tenants[next_tenant].id))), sizeof(id));
		error_context_stack = &context;
	}
	if (mhm_store_enter())
	{
		if (mhm_store_has_alerts())
			perform();
		mhm_store_leave();
	}
	end_budget();
	CommitTransactionCommand();
	error_context_stack = context.previous;
}

static void
evaluate_tenants(void)
{
	static const char query[] = "select meshhook_metrics.evaluate_tenant_alerts($1, $2)";
	Oid			types[] = {TIMESTAMPTZOID, UUIDARRAYOID};
	Datum		values[2];

	begin_evaluation();
	/* Until mhm_store_leave() */
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[1] = ids_of_batch();
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
}

static void
evaluate_batch(void)
{
	begin_budget();
	PG_TRY();
	{
		with_batch(evaluate_tenants);
	}
	PG_FINALLY();
	{
		end_budget();
	}
	PG_END_TRY();
}

static void
note_error(void)
{
	static const char query[] = "select meshhook_metrics.note_alert_failure($1, $2, $3)";
	Oid			types[] = {TIMESTAMPTZOID, UUIDOID, TEXTOID};
	Datum		values[3];

	values[0] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[1] = UUIDPGetDatum(&tenants[next_tenant].id);
	values[2] = CStringGetTextDatum(evaluate_duty.error);
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
}

static void
note_on_rules(void)
{
	with_batch(note_error);
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

/* Does it come of what others keep locked? */
static bool
is_of_locks(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
}

/* Does it come of what is in a tenant's rules and data, or of how much it is? */
static bool
is_of_tenant(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case ERRCODE_CARDINALITY_VIOLATION:
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
		case ERRCODE_PLPGSQL_ERROR:
			return true;
	}
	return sqlerrcode == ERRCODE_QUERY_CANCELED || sqlerrcode == ERRCODE_OUT_OF_MEMORY;
}

static bool
is_due(const Tenant *tenant)
{
	double		wait_ms = SHORTEST_WAIT_MS;

	if (!tenant->is_noted)
		return true;
	for (int i = 1; i < tenant->failures && wait_ms < LONGEST_WAIT_MS; i++)
		wait_ms *= 2;
	return mhm_milliseconds_since(tenant->failed) >= Min(wait_ms, LONGEST_WAIT_MS);
}

/* With others, as nothing bad is known of it? */
static bool
is_trusted(const Tenant *tenant)
{
	return tenant->failures == 0 && !tenant->is_suspect;
}

/* Who is to be tried next: one that is not trusted, or as many of the others as follow each other */
static void
choose_batch(void)
{
	int			end = next_tenant < trouble_ends ? trouble_ends : tenants_count;
	int			allowed = Min(at_once, end - next_tenant);

	batch_count = 1;
	while (batch_count < allowed && is_trusted(&tenants[next_tenant]) && is_trusted(&tenants[next_tenant + batch_count]))
		batch_count++;
	evaluate_duty.what = batch_count == 1 && tenants_count > 1 ? WHAT_OF_ONE : WHAT;
	evaluate_duty.timeout_ms = TENANT_TIMEOUT_MS +
		(BATCH_TIMEOUT_MS - TENANT_TIMEOUT_MS) * batch_count / TENANTS_AT_ONCE;
}

static void
pass_batch(void)
{
	if (is_trusted(&tenants[next_tenant]) && next_tenant + batch_count >= trouble_ends)
		at_once = Min(at_once * FEWER_EACH_TIME, TENANTS_AT_ONCE);
	tenants[next_tenant].failures = 0;
	tenants[next_tenant].is_noted = false;
	next_tenant += batch_count;
	round_counts |= evaluation_began;
	/* What is everybody's is tried soon again the first time */
	evaluate_duty.failures = Min(evaluate_duty.failures, 1);
}

/* It has failed for a single tenant */
static void
pass_over_tenant(void)
{
	Tenant	   *tenant = &tenants[next_tenant];

	if (!everybody_waits)
	{
		tenant->failures = Min(tenant->failures, 100) + 1;
		INSTR_TIME_SET_CURRENT(tenant->failed);
		if (is_of_tenant(evaluate_duty.sqlerrcode))
			suspect(tenant);
		tenant->is_noted = is_of_tenant(evaluate_duty.sqlerrcode) && mhm_duty_attempt(&note_duty);
		round_counts |= tenant->is_noted;
	}
	next_tenant++;
}

/* Until all are done, or it is time to flush, or all have to wait */
static void
go_on_with_round(void)
{
	instr_time	entered;

	INSTR_TIME_SET_CURRENT(entered);
	everybody_waits = false;
	while (next_tenant < tenants_count && !everybody_waits && !ShutdownRequestPending &&
		   mhm_milliseconds_since(entered) < mhm_flush_interval)
	{
		bool		succeeded;

		if (!is_due(&tenants[next_tenant]))
		{
			next_tenant++;
			continue;
		}
		choose_batch();
		evaluation_began = false;
		succeeded = mhm_duty_attempt(&evaluate_duty);
		if (succeeded)
			pass_batch();
		else if (!ShutdownRequestPending)
		{
			round_failed = true;
			everybody_waits = !evaluation_began ||
				(!is_of_locks(evaluate_duty.sqlerrcode) && !is_of_tenant(evaluate_duty.sqlerrcode));
			if (!evaluation_began)
				continue;
			if (batch_count == 1)
				pass_over_tenant();
			else
			{
				at_once = Max(batch_count / FEWER_EACH_TIME, 1);
				trouble_ends = next_tenant + batch_count;
			}
		}
	}
	round_took_ms += mhm_milliseconds_since(entered);
}

/* What of the failures is still so: status() has what no rule says, and the log has each once until all is well */
static void
end_round(void)
{
	bool		all_well = !round_failed;
	bool		all_noted = !everybody_waits;

	for (int i = 0; i < tenants_count; i++)
	{
		all_well &= tenants[i].failures == 0;
		all_noted &= tenants[i].failures == 0 || tenants[i].is_noted;
	}
	if (all_well)
		mhm_duty_forget(&evaluate_duty);
	else if (all_noted)
		mhm_duty_excuse(&evaluate_duty);
	if (round_counts)
		note_evaluation(round_began_at, round_took_ms);
}

/* Flushes do not come to the millisecond: half of their interval is too early by little */
static bool
round_is_due(void)
{
	return INSTR_TIME_IS_ZERO(last_round) ||
		mhm_milliseconds_since(last_round) >= mhm_alert_interval - mhm_flush_interval / 2.0;
}

static void
evaluate(void)
{
	double		waiting_ms;

	if (everybody_waits && mhm_duty_backs_off(&evaluate_duty, &waiting_ms))
		return;
	if (next_tenant >= tenants_count)
	{
		if (mhm_duty_backs_off(&list_duty, &waiting_ms))
			return;
		INSTR_TIME_SET_CURRENT(last_round);
		if (!mhm_duty_attempt(&list_duty))
			return;
	}
	go_on_with_round();
	if (next_tenant >= tenants_count && !ShutdownRequestPending)
		end_round();
}

/* There are no tables: the next time is the first one */
void
mhm_alerts_forget(void)
{
	tenants_count = 0;
	next_tenant = 0;
	everybody_waits = false;
}

void
mhm_alerts_after_flush(void)
{
	double		waiting_ms;

	if (next_tenant >= tenants_count && !round_is_due())
		return;
	evaluate();
	if (!ShutdownRequestPending && !mhm_duty_backs_off(&send_duty, &waiting_ms))
		(void) mhm_duty_attempt(&send_duty);
}
