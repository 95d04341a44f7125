/*-------------------------------------------------------------------------
 *
 * sum.c
 *	  Addition that stays within the range of double precision (sql/sum.sql)
 *
 * Owns nothing.  Called where samples of many metrics are added up in one statement,
 * which the built-in sum() would end with an error for the sake of one of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "fmgr.h"

PG_FUNCTION_INFO_V1(mhm_add_within_range);

Datum
mhm_add_within_range(PG_FUNCTION_ARGS)
{
	double		sum = PG_GETARG_FLOAT8(0) + PG_GETARG_FLOAT8(1);

	if (unlikely(isinf(sum)))
		sum = copysign(DBL_MAX, sum);
	PG_RETURN_FLOAT8(sum);
}
