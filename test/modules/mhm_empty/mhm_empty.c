/*-------------------------------------------------------------------------
 *
 * mhm_empty.c
 *		The baseline of bench/record: C functions that do nothing.
 *
 * What a call of a C function costs is PostgreSQL's own: the executor
 * evaluates the arguments, calls through the function manager and takes the
 * result.  Functions of exactly the signatures of inc, observe and record
 * that return at once cost that and nothing else, so the difference to the
 * real ones is what the extension adds.  Nothing here touches an argument or
 * any state, so there is nothing to protect.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

PG_MODULE_MAGIC;

PG_FUNCTION_INFO_V1(mhm_empty_inc);
PG_FUNCTION_INFO_V1(mhm_empty_observe);
PG_FUNCTION_INFO_V1(mhm_empty_record);

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
