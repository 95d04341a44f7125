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
#include "settings.h"

/* Known to be in the database that is served */
extern bool mhm_call_allowed;

extern bool mhm_check_call_slowly(FunctionCallInfo fcinfo, int arguments, int level);

/*
 * Raises an error unless the region is there, this database may use it, and
 * the function was declared with the arguments that this library expects.
 */
static inline void
mhm_check_call(FunctionCallInfo fcinfo, int arguments)
{
	if (unlikely(mhm_region == NULL || !mhm_call_allowed || PG_NARGS() != arguments))
		(void) mhm_check_call_slowly(fcinfo, arguments, ERROR);
}

/*
 * The same for functions that record: that the database is not served is a
 * mistake like others there, and may only warn; then false.
 */
static inline bool
mhm_check_recording(FunctionCallInfo fcinfo, int arguments)
{
	if (unlikely(mhm_region == NULL || !mhm_call_allowed || PG_NARGS() != arguments))
		return mhm_check_call_slowly(fcinfo, arguments, mhm_mistake_level());
	return true;
}

#endif							/* MHM_REQUIRE_H */
