/*
 * histogramcompat.h
 *		What the histogram type needs that differs between the PostgreSQL majors
 *		that we build on.
 *
 * The macros of varlena moved out of postgres.h in PostgreSQL 16.  And from 16 an
 * input function may be asked to report bad input in its caller's error context
 * instead of raising it.  On 15 there is no such caller: the context is NULL
 * there, and every error is raised.
 */
#ifndef MHM_HISTOGRAMCOMPAT_H
#define MHM_HISTOGRAMCOMPAT_H

#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#include "varatt.h"
#else
#define errsave(context, ...)	ereport(ERROR, __VA_ARGS__)
#endif

/* Where an input function reports bad input; NULL: raise it */
static inline Node *
mhm_error_context_compat(FunctionCallInfo fcinfo)
{
#if PG_VERSION_NUM >= 160000
	return fcinfo->context;
#else
	return NULL;
#endif
}

/* Parse JSON text; NULL after an error that was reported in the context */
static inline Jsonb *
mhm_jsonb_in_compat(char *text, Node *context)
{
	Datum		result;

#if PG_VERSION_NUM >= 160000
	if (!DirectInputFunctionCallSafe(jsonb_in, text, InvalidOid, -1, context, &result))
		return NULL;
#else
	result = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
#endif
	return DatumGetJsonbP(result);
}

#endif							/* MHM_HISTOGRAMCOMPAT_H */
