/*-------------------------------------------------------------------------
 *
 * require.h
 *	  What a SQL function of ours needs before it may touch the region.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_REQUIRE_H
#define MHM_REQUIRE_H

#include "fmgr.h"
#include "region.h"

/* Known to be in the database that is served, or to be a superuser */
extern bool mhm_call_allowed;

extern void mhm_check_call_slowly(FunctionCallInfo fcinfo, int arguments);

/*
 * Raises an error unless the region is there, this database may use it, and
 * the function was declared with the arguments that this library expects.
 */
static inline void
mhm_check_call(FunctionCallInfo fcinfo, int arguments)
{
	if (unlikely(mhm_region == NULL || !mhm_call_allowed || PG_NARGS() != arguments))
		mhm_check_call_slowly(fcinfo, arguments);
}

#endif							/* MHM_REQUIRE_H */
