/*-------------------------------------------------------------------------
 *
 * workerfaults.c
 *	  Kills or stops the flush worker where a test wants it
 *
 * A test writes faults into a file in the data directory, one a line; each
 * happens once, in their order, also to workers that come later, and leaves
 * the file when it does:
 *
 *	  point until number more action
 *
 * From the point on the worker runs instruction by instruction until something
 * has reached a number, and so many instructions more; then comes the action.
 * With "instructions 0 0" it comes at the point itself, on any processor.
 *
 *	  points   commit			any commit of the worker's: what follows is the
 *								rest of that flush, and the next one
 *			   before_commit	of a flush that is pending
 *			   after_commit		of such a flush, before the region knows
 *			   settle			it is known whether a pending flush was committed
 *			   before_alerts	the commit of an evaluation that has changed alerts
 *			   after_alerts		after such a commit
 *	  until	   instructions		so many have been executed
 *			   stripes			so many are held (by whomever)
 *			   taken			of so many series minimum or maximum is taken
 *			   applied			of so many series it was noted what is stored
 *			   pending, settled	1: a flush is, or is not any more
 *	  actions  kill				SIGKILL
 *			   kill_server		SIGKILL to the postmaster, too
 *			   stop				SIGSTOP; the test lets it go on
 *
 * Nothing of this is in meshhook_metrics: it takes the hooks that PostgreSQL
 * has for everybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include "../../../src/region.h"
#include "access/xact.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "probe.h"

#define FAULTS_FILE			"mhm_probe.faults"
#define FAULTS_FILE_NEW		FAULTS_FILE ".new"
#define FAULTS_LENGTH		4096
#define WORD				32

typedef struct Fault
{
	char		point[WORD];
	char		until[WORD];
	long		number;
	long		more;
	char		action[WORD];
} Fault;

typedef long (*Measure) (void);

static ExecutorEnd_hook_type next_executor_end = NULL;

static Fault fault;
static char later_faults[FAULTS_LENGTH];
static bool under_way = false;
static Measure measure;
static long instructions;
static long remaining;			/* instructions, once the number is reached; else -1 */
static uint64 *flushed_before;
static bool alerts_changed = false; /* has this transaction changed them? */

static long
measure_instructions(void)
{
	return instructions;
}

static long
measure_stripes(void)
{
	long		held = 0;

	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
		held += !pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock);
	return held;
}

static long
measure_taken(void)
{
	long		taken = 0;

	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		taken += mhm_series[i].live &&
			(isfinite(mhm_float8_of_bits(pg_atomic_read_u64(&mhm_series[i].taken_min))) ||
			 isfinite(mhm_float8_of_bits(pg_atomic_read_u64(&mhm_series[i].taken_max))));
	return taken;
}

static long
measure_applied(void)
{
	long		applied = 0;

	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		applied += *(volatile uint64 *) &mhm_series[i].flushed_count != flushed_before[i];
	return applied;
}

static long
measure_pending(void)
{
	return *(volatile uint64 *) &mhm_region->pending_tick != 0;
}

static long
measure_settled(void)
{
	return !measure_pending();
}

static const struct
{
	const char *name;
	Measure		measure;
}			measures[] = {
	{"instructions", measure_instructions},
	{"stripes", measure_stripes},
	{"taken", measure_taken},
	{"applied", measure_applied},
	{"pending", measure_pending},
	{"settled", measure_settled}
};

/* The fault happens: the next one is for the process that comes after this one */
static void
strike_out(void)
{
	int			fd;
	size_t		length = strlen(later_faults);

	if (length == 0)
	{
		(void) unlink(FAULTS_FILE);
		return;
	}
	fd = open(FAULTS_FILE_NEW, O_CREAT | O_TRUNC | O_WRONLY, S_IRUSR | S_IWUSR);
	if (fd < 0 || write(fd, later_faults, length) != (ssize_t) length || close(fd) != 0 ||
		rename(FAULTS_FILE_NEW, FAULTS_FILE) != 0)
		abort();
}

static void
act(void)
{
	under_way = false;
	strike_out();
	if (strcmp(fault.action, "stop") == 0)
	{
		kill(MyProcPid, SIGSTOP);
		return;
	}
	if (strcmp(fault.action, "kill_server") == 0)
		kill(PostmasterPid, SIGKILL);
	kill(MyProcPid, SIGKILL);
}

#ifdef __x86_64__
/* Before every instruction; the trap flag is clear in here */
static void
look(int signal_number, siginfo_t *info, void *context)
{
	instructions++;
	if (remaining < 0 && measure() >= fault.number)
		remaining = fault.more;
	if (remaining < 0 || remaining-- > 0)
		return;
	/* It may go on, then freely */
	((ucontext_t *) context)->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
	act();
}

/* From here on, in whatever function the worker goes on with */
static void
watch_every_instruction(void)
{
	struct sigaction action;

	flushed_before = malloc(mhm_region->geometry.series_slots * sizeof(uint64));
	if (flushed_before == NULL)
		abort();
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		flushed_before[i] = mhm_series[i].flushed_count;
	instructions = 0;
	remaining = -1;
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = look;
	action.sa_flags = SA_RESTART | SA_SIGINFO;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTRAP, &action, NULL);
	STEP_BY_STEP();
}
#else
static void
watch_every_instruction(void)
{
	write_stderr("mhm_probe can step x86-64 processors only\n");
	abort();
}
#endif

/* Is the first fault in the file for this point? */
static bool
find_fault(const char *point)
{
	char		text[FAULTS_LENGTH];
	char	   *rest;
	ssize_t		length;
	int			fd = open(FAULTS_FILE, O_RDONLY);

	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[Max(length, 0)] = '\0';
	if (sscanf(text, "%31s %31s %ld %ld %31s", fault.point, fault.until, &fault.number,
			   &fault.more, fault.action) != 5)
		abort();
	rest = strchr(text, '\n');
	strlcpy(later_faults, rest == NULL ? "" : rest + 1, sizeof(later_faults));
	return strcmp(fault.point, point) == 0;
}

static void
reach(const char *point)
{
	if (under_way || !find_fault(point))
		return;
	under_way = true;
	measure = NULL;
	for (int i = 0; i < lengthof(measures); i++)
		if (strcmp(measures[i].name, fault.until) == 0)
			measure = measures[i].measure;
	if (measure == NULL)
		abort();
	if (measure == measure_instructions && fault.number == 0 && fault.more == 0)
		act();
	else
		watch_every_instruction();
}

static bool
is_flush_worker(void)
{
	return MyBgworkerEntry != NULL &&
		strcmp(MyBgworkerEntry->bgw_function_name, "mhm_worker_main") == 0;
}

static void
watch_transaction(XactEvent event, void *argument)
{
	if (mhm_region == NULL || !is_flush_worker())
		return;
	if (event == XACT_EVENT_PRE_COMMIT && mhm_region->pending_tick != 0)
		reach("before_commit");
	if (event == XACT_EVENT_COMMIT && mhm_region->pending_tick != 0)
		reach("after_commit");
	if (event == XACT_EVENT_PRE_COMMIT && alerts_changed)
		reach("before_alerts");
	if (event == XACT_EVENT_COMMIT && alerts_changed)
		reach("after_alerts");
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		alerts_changed = false;
	if (event == XACT_EVENT_COMMIT)
		reach("commit");
}

/* The worker's question to flush_state is answered; an evaluation tells of changes */
static void
watch_query(QueryDesc *query)
{
	if (next_executor_end != NULL)
		next_executor_end(query);
	else
		standard_ExecutorEnd(query);
	if (mhm_region == NULL || !is_flush_worker() || query->operation != CMD_SELECT)
		return;
	if (mhm_region->pending_tick != 0 && strstr(query->sourceText, "flush_state") != NULL)
		reach("settle");
	if (strstr(query->sourceText, "pg_notify('meshhook_metrics_alerts'") != NULL)
		alerts_changed = true;
}

void
mhm_probe_watch_worker(void)
{
	RegisterXactCallback(watch_transaction, NULL);
	next_executor_end = ExecutorEnd_hook;
	ExecutorEnd_hook = watch_query;
}
