/*
 * backend_stubs.h
 *		What the shared region's sources want of a PostgreSQL backend, for
 *		programs that are none.
 *
 * Included once by a test, before region_fixture.h includes the sources
 * themselves. Everything is the plainest thing that behaves the same between
 * processes that share memory; what the sources must never call ends the test.
 */
#ifndef MHM_TEST_BACKEND_STUBS_H
#define MHM_TEST_BACKEND_STUBS_H

/* As PostgreSQL and its extensions are compiled, whatever the test is */
#pragma GCC optimize ("wrapv", "no-strict-aliasing")

#include "postgres.h"

#include <sched.h>
#include <setjmp.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/pmsignal.h"
#include "storage/proc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* libc's own will do, and need no library of PostgreSQL's */
#undef printf
#undef snprintf
#undef vsnprintf
#undef fprintf
#undef vfprintf
#undef strerror
#undef qsort

/* Identity of the process: settable, so that tests choose the first stripe */
#if PG_VERSION_NUM >= 170000
ProcNumber	MyProcNumber = 0;
#else
PGPROC	   *MyProc = NULL;
#endif
bool		IsUnderPostmaster = false;
volatile sig_atomic_t postmaster_possibly_dead = false;
MemoryContext CurrentMemoryContext = NULL;

/* Of settings.c */
int			mhm_max_series = 0;
int			mhm_max_histograms = 0;
int			mhm_max_series_per_tenant = 1000000;

/* Of region.c */
LWLock	   *mhm_registry_lock = NULL;

/* What GetCurrentTimestamp() says */
static TimestampTz stub_now = 1000 * USECS_PER_SEC;

static void
stub_unexpected(const char *what)
{
	dprintf(STDERR_FILENO, "%s was called, which this test does not expect\n", what);
	abort();
}

TimestampTz
GetCurrentTimestamp(void)
{
	return stub_now;
}

bool
PostmasterIsAliveInternal(void)
{
	return true;
}

/* What others do when CHECK_FOR_INTERRUPTS() lets them */
volatile sig_atomic_t InterruptPending = false;
static void (*stub_interrupt) (void) = NULL;

void
ProcessInterrupts(void)
{
	if (stub_interrupt == NULL)
		stub_unexpected("ProcessInterrupts()");
	stub_interrupt();
}

void
proc_exit(int code)
{
	_exit(code);
}

void
pg_usleep(long microsec)
{
	(void) usleep(microsec);
}

/* A lock between processes: how many share it, or all ones */
bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	for (;;)
	{
		uint32		seen = pg_atomic_read_u32(&lock->state);
		uint32		wanted = mode == LW_EXCLUSIVE ? PG_UINT32_MAX : seen + 1;

		if ((mode == LW_EXCLUSIVE ? seen == 0 : seen != PG_UINT32_MAX) &&
			pg_atomic_compare_exchange_u32(&lock->state, &seen, wanted))
			return true;
		sched_yield();
	}
}

void
LWLockRelease(LWLock *lock)
{
	if (pg_atomic_read_u32(&lock->state) == PG_UINT32_MAX)
	{
		pg_memory_barrier();
		pg_atomic_write_u32(&lock->state, 0);
	}
	else
		pg_atomic_fetch_sub_u32(&lock->state, 1);
}

/* Memory: each piece one of malloc's, so that a sanitizer sees its ends */
void *
palloc_extended(Size size, int flags)
{
	void	   *memory = flags & MCXT_ALLOC_ZERO ? calloc(1, size) : malloc(size);

	if (memory == NULL)
		stub_unexpected("an allocation that fails");
	return memory;
}

void *
palloc(Size size)
{
	return palloc_extended(size, 0);
}

void *
palloc0(Size size)
{
	return palloc_extended(size, MCXT_ALLOC_ZERO);
}

void *
MemoryContextAllocHuge(MemoryContext context, Size size)
{
	return palloc_extended(size, 0);
}

void
pfree(void *pointer)
{
	free(pointer);
}

void
qsort_arg(void *base, size_t count, size_t size, qsort_arg_comparator compare, void *arg)
{
	if (count > 0)
		qsort_r(base, count, size, compare, arg);
}

/* Where raising goes to; nowhere: then nothing that is tested may raise */
static sigjmp_buf *stub_raise_to = NULL;
static char stub_message[512];

bool
errstart(int elevel, const char *domain)
{
	return true;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return true;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	if (stub_raise_to != NULL)
		siglongjmp(*stub_raise_to, 1);
	dprintf(STDERR_FILENO, "raised by %s: %s\n", funcname, stub_message);
	stub_unexpected("ereport");
}

#define STUB_MESSAGE(name) \
	int \
	name(const char *fmt, ...) \
	{ \
		va_list		arguments; \
		va_start(arguments, fmt); \
		vsnprintf(stub_message, sizeof(stub_message), fmt, arguments); \
		va_end(arguments); \
		return 0; \
	}

STUB_MESSAGE(errmsg)
STUB_MESSAGE(errmsg_internal)
STUB_MESSAGE(errdetail)
STUB_MESSAGE(errhint)

int
errcode(int sqlerrcode)
{
	return 0;
}

/* Needed to link labels.c, of which recovery uses only what takes bytes */
#define STUB_UNUSED(type, name, arguments) \
	type \
	name arguments \
	{ \
		stub_unexpected(#name); \
		abort(); \
	}

STUB_UNUSED(int, mhm_mistake_level, (void))
STUB_UNUSED(int, GetDatabaseEncoding, (void))
STUB_UNUSED(const char *, GetDatabaseEncodingName, (void))
STUB_UNUSED(int, pg_mbcliplen, (const char *mbstr, int len, int limit))
STUB_UNUSED(char *, pnstrdup, (const char *in, Size size))
STUB_UNUSED(char *, psprintf, (const char *fmt,...))
STUB_UNUSED(void, initStringInfo, (StringInfo str))
STUB_UNUSED(void, appendStringInfo, (StringInfo str, const char *fmt,...))
STUB_UNUSED(void, appendStringInfoChar, (StringInfo str, char ch))
STUB_UNUSED(void, enlargeStringInfo, (StringInfo str, int needed))
STUB_UNUSED(Datum, numeric_out, (PG_FUNCTION_ARGS))
STUB_UNUSED(Datum, DirectFunctionCall1Coll, (PGFunction func, Oid collation, Datum arg1))
STUB_UNUSED(JsonbIterator *, JsonbIteratorInit, (JsonbContainer *container))
STUB_UNUSED(JsonbIteratorToken, JsonbIteratorNext,
			(JsonbIterator **it, JsonbValue *val, bool skipNested))
STUB_UNUSED(JsonbValue *, pushJsonbValue,
			(JsonbParseState **pstate, JsonbIteratorToken seq, JsonbValue *jbval))
STUB_UNUSED(Jsonb *, JsonbValueToJsonb, (JsonbValue *val))

#endif							/* MHM_TEST_BACKEND_STUBS_H */
