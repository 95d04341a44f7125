/*-------------------------------------------------------------------------
 *
 * grouplabels.c
 *	  query_range_labels(): the labels by which a series is grouped
 *	  query_range_matches(): is a series one of those that are asked for?
 *
 * Called by query_range() and alert_values() for each series of a metric, so by
 * anybody who may ask for a range, with any jsonb and any keys.  Touches nothing
 * shared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "labels.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(mhm_query_range_labels);
PG_FUNCTION_INFO_V1(mhm_query_range_matches);

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

/* A label's value as recording takes it: empty where there is none */
static bool
find_label(Jsonb *labels, const JsonbValue *key, const char **text, uint32 *length)
{
	JsonbValue	found;
	JsonbValue *value = getKeyJsonValueFromContainer(&labels->root, key->val.string.val,
													 key->val.string.len, &found);

	*text = "";
	*length = 0;
	return value == NULL || mhm_label_text(value, text, length);
}

/*
 * query_range_matches(labels jsonb, wanted jsonb) → boolean, strict: has a series
 * with these labels all those that are wanted?  Recording does not store a label with
 * an empty value, so wanting one is wanting none.  False where either is no object, or
 * wants what no label can be.
 */
Datum
mhm_query_range_matches(PG_FUNCTION_ARGS)
{
	Jsonb	   *labels = PG_GETARG_JSONB_P(0);
	Jsonb	   *wanted = PG_GETARG_JSONB_P(1);
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	json;
	JsonbValue	key = {0};

	if (!JB_ROOT_IS_OBJECT(labels) || !JB_ROOT_IS_OBJECT(wanted))
		PG_RETURN_BOOL(false);
	if (JB_ROOT_COUNT(wanted) == 0)
		PG_RETURN_BOOL(true);
	iterator = JsonbIteratorInit(&wanted->root);
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		const char *found;
		const char *text;
		uint32		found_length;
		uint32		length;

		CHECK_FOR_INTERRUPTS();
		if (token == WJB_KEY)
			key = json;
		else if (token == WJB_VALUE &&
				 (!mhm_label_text(&json, &text, &length) ||
				  !find_label(labels, &key, &found, &found_length) ||
				  length != found_length ||
				  (length > 0 && memcmp(text, found, length) != 0)))
			PG_RETURN_BOOL(false);
	}
	PG_RETURN_BOOL(true);
}
