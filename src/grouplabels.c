/*-------------------------------------------------------------------------
 *
 * grouplabels.c
 *	  query_range_labels(): the labels by which a series is grouped
 *
 * Called by query_range() and alert_values() for each series that has to do with
 * a group_by, so by anybody who may ask for a range, with any jsonb and any keys.
 * Touches nothing shared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(mhm_query_range_labels);

/*
 * query_range_labels(labels jsonb, keys text[]) → jsonb, strict: an object of those
 * labels that have one of the keys; of no labels where it is no object.
 */
Datum
mhm_query_range_labels(PG_FUNCTION_ARGS)
{
	Jsonb	   *labels = PG_GETARG_JSONB_P(0);
	ArrayType  *keys = PG_GETARG_ARRAYTYPE_P(1);
	JsonbParseState *state = NULL;
	Datum	   *values;
	bool	   *nulls;
	int			count;

	deconstruct_array(keys, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, &count);
	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < count && JB_ROOT_IS_OBJECT(labels); i++)
	{
		JsonbValue	key;
		JsonbValue *value;

		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			continue;
		key.type = jbvString;
		key.val.string.val = VARDATA_ANY(DatumGetPointer(values[i]));
		key.val.string.len = VARSIZE_ANY_EXHDR(DatumGetPointer(values[i]));
		value = getKeyJsonValueFromContainer(&labels->root, key.val.string.val, key.val.string.len, NULL);
		if (value == NULL)
			continue;
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, value);
	}
	PG_RETURN_JSONB_P(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
}
