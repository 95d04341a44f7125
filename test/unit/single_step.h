/*
 * single_step.h
 *		Stops a process after any of its instructions, and kills it there.
 *
 * Included by tests after region_fixture.h. A stepped process is a fork that
 * its parent traces with ptrace(). walk() goes through some work instruction
 * by instruction and notes the way; run_to() brings another fork to one place
 * on that way, with a breakpoint where it can, since a step takes as long as
 * two switches of context. Memory that is shared looks to the parent, while
 * the process is stopped, as it would if the process were killed there.
 */
#ifndef MHM_TEST_SINGLE_STEP_H
#define MHM_TEST_SINGLE_STEP_H

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/user.h>
#include <sys/wait.h>

#define MAX_STEPPED			4
#define MAX_INSTRUCTIONS	400000

typedef void (*SteppedWork) (const void *argument);

/* The program counters of one way through some work */
typedef struct Path
{
	unsigned long *counters;
	long		length;
} Path;

/* Which of the stepped processes have finished their work; shared */
static volatile bool *returned = NULL;

static pid_t
begin_stepped(int number, SteppedWork work, const void *argument)
{
	pid_t		pid;
	int			status;

	if (returned == NULL)
		returned = shared_memory(MAX_STEPPED * sizeof(bool));
	returned[number] = false;
	pid = fork();
	if (pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			_exit(1);
		raise(SIGSTOP);
		work(argument);
		returned[number] = true;
		for (;;)
			raise(SIGSTOP);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		return -1;
	return pid;
}

static void
kill_stepped(pid_t pid)
{
	int			status;

	kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) == pid && !WIFSIGNALED(status) && !WIFEXITED(status))
		;
}

/* Let it go on in one way or another; false unless it stops by a trap */
static bool
resume_until_trap(int request, pid_t pid)
{
	int			status;

	return ptrace(request, pid, NULL, NULL) == 0 && waitpid(pid, &status, 0) == pid &&
		WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP;
}

static bool
step(pid_t pid)
{
	return resume_until_trap(PTRACE_SINGLESTEP, pid);
}

#if defined(__x86_64__)
static unsigned long
program_counter(pid_t pid)
{
	struct user_regs_struct registers;

	return ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0 ? registers.rip : 0;
}

/* Run until it is about to execute the instruction at counter; its text is its own */
static bool
run_to_breakpoint(pid_t pid, unsigned long counter)
{
	struct user_regs_struct registers;
	long		text;

	errno = 0;
	text = ptrace(PTRACE_PEEKTEXT, pid, (void *) counter, NULL);
	if (errno != 0 ||
		ptrace(PTRACE_POKETEXT, pid, (void *) counter, (void *) ((text & ~0xFFL) | 0xCC)) != 0 ||
		!resume_until_trap(PTRACE_CONT, pid) ||
		ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0 ||
		registers.rip != counter + 1)
		return false;
	registers.rip = counter;
	return ptrace(PTRACE_POKETEXT, pid, (void *) counter, (void *) text) == 0 &&
		ptrace(PTRACE_SETREGS, pid, NULL, &registers) == 0;
}
#else
static unsigned long
program_counter(pid_t pid)
{
	return 0;
}
#endif

/*
 * Bring a process from one place on its way to a later one.  False when it
 * did not come there, because another process made it take another way.
 */
static pg_attribute_unused() bool
run_to(pid_t pid, const Path *path, long from, long to)
{
#if defined(__x86_64__)
	unsigned long counter = path->counters[to];
	long		passes = 0;

	for (long i = from; i < to; i++)
		if (path->counters[i] == counter)
			passes++;
	if (from == to)
		return true;
	if (path->counters[from] == counter)
	{
		if (!step(pid))
			return false;
		passes--;
	}
	for (; passes > 0; passes--)
		if (!run_to_breakpoint(pid, counter) || !step(pid))
			return false;
	return run_to_breakpoint(pid, counter);
#else
	for (long i = from; i < to; i++)
		if (!step(pid))
			return false;
	return true;
#endif
}

/*
 * Go through some work one instruction at a time.  The visitor is called at
 * the beginning, after every instruction that changed the memory that is
 * watched, and when the work has returned.  Gives the way back, or a length of
 * -1 when processes cannot be traced here.
 */
typedef void (*Visitor) (long instruction, bool has_returned, void *argument);

static pg_attribute_unused() Path
walk(int number, SteppedWork work, const void *argument,
	 const void *memory, Size bytes, Visitor visit, void *visit_argument)
{
	static unsigned long counters[MAX_INSTRUCTIONS];
	Path		path = {NULL, 0};
	char	   *last = malloc(bytes);
	pid_t		pid = begin_stepped(number, work, argument);
	bool		done = false;

	if (pid < 0)
	{
		free(last);
		path.length = -1;
		return path;
	}
	memcpy(last, memory, bytes);
	visit(0, false, visit_argument);
	while (!done)
	{
		counters[path.length++] = program_counter(pid);
		if (path.length == MAX_INSTRUCTIONS || !step(pid))
		{
			fail_case("stepping came to no end after %ld instructions", path.length);
			break;
		}
		done = returned[number];
		if (done || memcmp(last, memory, bytes) != 0)
		{
			memcpy(last, memory, bytes);
			visit(path.length, done, visit_argument);
		}
	}
	counters[path.length] = program_counter(pid);
	kill_stepped(pid);
	free(last);
	path.counters = malloc((path.length + 1) * sizeof(unsigned long));
	memcpy(path.counters, counters, (path.length + 1) * sizeof(unsigned long));
	return path;
}

static void
do_nothing(const void *argument)
{
}

/* Why processes cannot be stepped here, or NULL when they can */
static const char *
stepping_problem(void)
{
	pid_t		pid = begin_stepped(0, do_nothing, NULL);
	bool		works;

	if (pid < 0)
		return "ptrace() is not permitted here";
	works = step(pid);
	kill_stepped(pid);
	return works ? NULL : "this kernel does not single-step";
}

#endif							/* MHM_TEST_SINGLE_STEP_H */
