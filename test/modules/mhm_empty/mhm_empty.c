/*-------------------------------------------------------------------------
 *
 * mhm_empty.c
 *		The baseline of bench/record: C functions that do nothing, and the
 *		clock that the bench reads.
 *
 * What a call of a C function costs is PostgreSQL's own: the executor
 * evaluates the arguments, calls through the function manager and takes the
 * result.  Functions of exactly the signatures of inc, observe and record
 * that return at once cost that and nothing else, so the difference to the
 * real ones is what the extension adds.  The clock counts the time that this
 * backend had on a processor, so that what else runs on the machine does not
 * count.  Nothing here touches any state, so there is nothing to protect.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(mhm_empty_inc);
PG_FUNCTION_INFO_V1(mhm_empty_observe);
PG_FUNCTION_INFO_V1(mhm_empty_record);
PG_FUNCTION_INFO_V1(mhm_empty_cpu_nanoseconds);

/* Stands for inc(text, float8, jsonb, uuid) */
Datum
mhm_empty_inc(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}

/* Stands for observe(text, float8, jsonb, uuid) */
Datum
mhm_empty_observe(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}

/* Stands for record(jsonb), which returns how many samples it took */
Datum
mhm_empty_record(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(0);
}

/* The processor time of this backend since it started */
Datum
mhm_empty_cpu_nanoseconds(PG_FUNCTION_ARGS)
{
	struct timespec used;

	if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read the processor time of this backend: %m")));
	PG_RETURN_INT64((int64) used.tv_sec * 1000000000 + used.tv_nsec);
}
