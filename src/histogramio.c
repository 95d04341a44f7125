/*
 * histogramio.c
 *		Text, binary and JSON forms of the type histogram.
 *
 * SQL-callable input and output functions.  Text is one JSON object, and input of
 * either form may come from anywhere: each part is checked, and what was read is
 * written in the compact form and checked as a whole before it becomes a value.
 */
#include "postgres.h"

#include <float.h>

#include "common/shortest_dec.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/numeric.h"

#include "histogram.h"
#include "histogramcompat.h"

PG_FUNCTION_INFO_V1(mhm_histogram_in);
PG_FUNCTION_INFO_V1(mhm_histogram_out);
PG_FUNCTION_INFO_V1(mhm_histogram_recv);
PG_FUNCTION_INFO_V1(mhm_histogram_send);
PG_FUNCTION_INFO_V1(mhm_histogram_json);

#define TEXT_HINT \
	"A histogram looks like {\"schema\":3,\"count\":3,\"sum\":4.5,\"min\":0.5,\"max\":3,\"zero\":0,\"offset\":-8,\"buckets\":[1,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,1],\"overflow\":0}."

/* The keys of the text form, in the order of output */
typedef enum Key
{
	KEY_SCHEMA,
	KEY_COUNT,
	KEY_SUM,
	KEY_MIN,
	KEY_MAX,
	KEY_ZERO,
	KEY_ZERO_THRESHOLD,
	KEY_ZEROS,
	KEY_OFFSET,
	KEY_BUCKETS,
	KEY_OVERFLOW,
	KEY_OVERFLOW_THRESHOLD,
	KEY_OVERFLOWS
} Key;

#define KEYS						(KEY_OVERFLOWS + 1)

static const char *const key_names[KEYS] = {
	[KEY_SCHEMA] = "schema",
	[KEY_COUNT] = "count",
	[KEY_SUM] = "sum",
	[KEY_MIN] = "min",
	[KEY_MAX] = "max",
	[KEY_ZERO] = "zero",
	[KEY_ZERO_THRESHOLD] = "zero_threshold",
	[KEY_ZEROS] = "zeros",
	[KEY_OFFSET] = "offset",
	[KEY_BUCKETS] = "buckets",
	[KEY_OVERFLOW] = "overflow",
	[KEY_OVERFLOW_THRESHOLD] = "overflow_threshold",
	[KEY_OVERFLOWS] = "overflows"
};

/* What belongs to each side: its count, the threshold, and where there are many, all of them */
static const struct
{
	Key			count;
	Key			threshold;
	Key			list;
}			sides[] = {
	{KEY_ZERO, KEY_ZERO_THRESHOLD, KEY_ZEROS},
	{KEY_OVERFLOW, KEY_OVERFLOW_THRESHOLD, KEY_OVERFLOWS}
};

/* One of many counts of a side */
typedef struct Counted
{
	double		threshold;
	int64		count;
} Counted;


/* The text form as it was read, part by part */
typedef struct Parts
{
	bool		given[KEYS];
	bool		null[KEYS];
	int64		integers[KEYS]; /* schema, counts, offset */
	double		doubles[KEYS];	/* sum, extremes, thresholds */
	uint64	   *buckets;
	int32		bucket_count;
	Counted    *lists[KEYS];	/* of zeros and overflows */
	int			list_sizes[KEYS];
} Parts;

/* The longest piece of a wrong value that an error message repeats */
#define QUOTED_LENGTH				40

/* Report bad text in the caller's error context; returns false if that returns */
static bool
refuse(Node *context, const char *problem, const char *hint)
{
	errsave(context,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid input for type histogram: %s", problem),
			 errhint("%s", hint)));
	return false;
}

static char *
numeric_text(const JsonbValue *value)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(value->val.numeric)));
}

/* The beginning of a JSON string, in quotes */
static char *
quoted(const JsonbValue *string)
{
	return psprintf("\"%.*s\"",
					pg_mbcliplen(string->val.string.val, string->val.string.len, QUOTED_LENGTH),
					string->val.string.val);
}

/* A JSON value as an error message shows it */
static char *
shown(const JsonbValue *value)
{
	char	   *text;

	switch (value->type)
	{
		case jbvNull:
			return pstrdup("null");
		case jbvBool:
			return pstrdup(value->val.boolean ? "true" : "false");
		case jbvString:
			return psprintf("the string %s", quoted(value));
		case jbvNumeric:
			text = numeric_text(value);
			return strlen(text) > QUOTED_LENGTH ? psprintf("%.*s...", QUOTED_LENGTH, text) : text;
		default:
			return pstrdup("an array or object");
	}
}

/* A whole number in the range */
static bool
get_integer(const JsonbValue *value, int64 least, int64 greatest, int64 *result)
{
	char	   *text;
	char	   *end;

	if (value->type != jbvNumeric)
		return false;
	text = numeric_text(value);
	errno = 0;
	*result = strtoi64(text, &end, 10);
	return errno == 0 && *end == '\0' && *result >= least && *result <= greatest;
}

/* A number that is not negative and that a double can hold */
static bool
get_double(const JsonbValue *value, double *result)
{
	char	   *text;

	if (value->type != jbvNumeric)
		return false;
	text = numeric_text(value);
	*result = strtod(text, NULL);

	/* What underflows to 0 has a digit other than 0 */
	return isfinite(*result) && *result >= 0 &&
		(*result > 0 || strpbrk(text, "123456789") == NULL);
}

static bool
read_buckets(const JsonbValue *value, Parts *parts, Node *context)
{
	JsonbContainer *array = value->type == jbvBinary ? value->val.binary.data : NULL;
	JsonbIterator *iterator;
	JsonbValue	element;
	JsonbIteratorToken token;

	if (array == NULL || !JsonContainerIsArray(array))
		return refuse(context, psprintf("\"buckets\" is %s, not an array of counts", shown(value)),
					  TEXT_HINT);
	if (JsonContainerSize(array) > MHM_BUCKET_INDEX_HIGHEST - MHM_BUCKET_INDEX_LOWEST + 1)
		return refuse(context,
					  psprintf("\"buckets\" has %u elements, more than the %d buckets of all doubles",
							   JsonContainerSize(array),
							   MHM_BUCKET_INDEX_HIGHEST - MHM_BUCKET_INDEX_LOWEST + 1),
					  TEXT_HINT);

	parts->buckets = palloc0(sizeof(uint64) * (JsonContainerSize(array) + 1));
	iterator = JsonbIteratorInit(array);
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		int64		count;

		if (token != WJB_ELEM)
			continue;
		if (!get_integer(&element, 0, PG_INT64_MAX, &count))
			return refuse(context,
						  psprintf("element %d of \"buckets\" is %s, not a count from 0 to " INT64_FORMAT,
								   parts->bucket_count + 1, shown(&element), PG_INT64_MAX),
						  TEXT_HINT);
		parts->buckets[parts->bucket_count++] = (uint64) count;
	}
	return true;
}

/* One element of "zeros" or "overflows": a threshold and a count */
static bool
read_counted(const JsonbValue *value, Counted *counted)
{
	JsonbContainer *pair = value->type == jbvBinary ? value->val.binary.data : NULL;

	return pair != NULL && JsonContainerIsArray(pair) && JsonContainerSize(pair) == 2 &&
		get_double(getIthJsonbValueFromContainer(pair, 0), &counted->threshold) &&
		get_integer(getIthJsonbValueFromContainer(pair, 1), 1, PG_INT64_MAX, &counted->count);
}

static bool
read_list(Key key, const JsonbValue *value, Parts *parts, Node *context)
{
	JsonbContainer *array = value->type == jbvBinary ? value->val.binary.data : NULL;
	int			size;

	if (array == NULL || !JsonContainerIsArray(array) || JsonContainerSize(array) < 2)
		return refuse(context, psprintf("\"%s\" is not an array of two or more pairs of a threshold and a count", key_names[key]),
					  "Leave it out where there is one threshold only.");
	size = (int) JsonContainerSize(array);
	parts->lists[key] = palloc(size * sizeof(Counted));
	for (int i = 0; i < size; i++)
	{
		if (!read_counted(getIthJsonbValueFromContainer(array, i), &parts->lists[key][i]))
			return refuse(context, psprintf("element %d of \"%s\" is not a pair of a threshold and a count above 0", i + 1, key_names[key]),
						  TEXT_HINT);
	}
	parts->list_sizes[key] = size;
	return true;
}

static bool
read_part(Key key, const JsonbValue *value, Parts *parts, Node *context)
{
	int64		least = 0;
	int64		greatest = PG_INT64_MAX;

	parts->given[key] = true;
	switch (key)
	{
		case KEY_BUCKETS:
			return read_buckets(value, parts, context);

		case KEY_ZEROS:
		case KEY_OVERFLOWS:
			return read_list(key, value, parts, context);

		case KEY_SCHEMA:
		case KEY_OFFSET:
			least = PG_INT32_MIN;
			greatest = PG_INT32_MAX;
			/* FALLTHROUGH */
		case KEY_COUNT:
		case KEY_ZERO:
		case KEY_OVERFLOW:
			if (!get_integer(value, least, greatest, &parts->integers[key]))
				return refuse(context,
							  psprintf("\"%s\" is %s, not a whole number from " INT64_FORMAT " to " INT64_FORMAT,
									   key_names[key], shown(value), least, greatest),
							  TEXT_HINT);
			return true;

		case KEY_MIN:
		case KEY_MAX:
			if (value->type == jbvNull)
			{
				parts->null[key] = true;
				return true;
			}
			/* FALLTHROUGH */
		case KEY_SUM:
		case KEY_ZERO_THRESHOLD:
		case KEY_OVERFLOW_THRESHOLD:
			if (!get_double(value, &parts->doubles[key]))
				return refuse(context,
							  psprintf("\"%s\" is %s, not a number from 0 to %s",
									   key_names[key], shown(value), double_to_shortest_decimal(DBL_MAX)),
							  TEXT_HINT);
			return true;
	}
	pg_unreachable();
}

/* Read each part of the JSON object by itself */
static bool
read_parts(Jsonb *json, Parts *parts, Node *context)
{
	JsonbIterator *iterator;
	JsonbValue	item;
	JsonbIteratorToken token;
	int			key = 0;

	if (!JB_ROOT_IS_OBJECT(json))
		return refuse(context, "it is not a JSON object", TEXT_HINT);

	iterator = JsonbIteratorInit(&json->root);
	while ((token = JsonbIteratorNext(&iterator, &item, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			for (key = 0; key < KEYS; key++)
			{
				if (strlen(key_names[key]) == (size_t) item.val.string.len &&
					memcmp(key_names[key], item.val.string.val, item.val.string.len) == 0)
					break;
			}
			if (key == KEYS)
				return refuse(context, psprintf("a histogram has no key %s", quoted(&item)), TEXT_HINT);
		}
		else if (token == WJB_VALUE && !read_part((Key) key, &item, parts, context))
			return false;
	}

	for (key = 0; key < KEYS; key++)
	{
		if (!parts->given[key] && key != KEY_ZERO_THRESHOLD && key != KEY_OVERFLOW_THRESHOLD &&
			key != KEY_ZEROS && key != KEY_OVERFLOWS)
			return refuse(context, psprintf("\"%s\" is missing", key_names[key]), TEXT_HINT);
	}
	return true;
}

/* A threshold ends a bucket at a power of two, or is 0 */
static bool
index_of_threshold(int schema, Key key, double threshold, int32 *index, Node *context)
{
	int			exponent;

	*index = MHM_INDEX_NONE;
	if (threshold == 0)
		return true;
	if (frexp(threshold, &exponent) != 0.5 ||
		(schema < 0 && (exponent - 1) % (1 << -schema) != 0))
		return refuse(context,
					  psprintf("\"%s\" is %s, which is not a power of two where a bucket of schema %d ends",
							   key_names[key], double_to_shortest_decimal(threshold), schema),
					  TEXT_HINT);
	*index = mhm_threshold_index(exponent - 1, schema);
	return true;
}

/* A threshold belongs to a count */
static bool
check_threshold(const Parts *parts, Key count_key, Key key, Node *context)
{
	if (!parts->given[key] && parts->integers[count_key] > 0)
		return refuse(context,
					  psprintf("\"%s\" is missing, but \"%s\" is " INT64_FORMAT,
							   key_names[key], key_names[count_key], parts->integers[count_key]),
					  "Name the threshold that bounds these observations, a power of two.");
	if (parts->given[key] && parts->integers[count_key] == 0)
		return refuse(context,
					  psprintf("\"%s\" is given, but \"%s\" is 0", key_names[key], key_names[count_key]),
					  "Leave out the threshold of a count that is 0.");
	return true;
}

/* All counts of a side and their thresholds must say what the side as a whole says */
static bool
check_list(const Parts *parts, int side, const MhmEnds *ends, Node *context)
{
	Key			list = sides[side].list;
	const Counted *counted = parts->lists[list];
	int			size = parts->list_sizes[list];
	double		outermost = sides[side].count == KEY_ZERO ? counted[size - 1].threshold : counted[0].threshold;
	uint64		sum = 0;

	for (int i = 0; i < size; i++)
	{
		sum += (uint64) counted[i].count;
		if (sum > MHM_HISTOGRAM_COUNT_MAX || (i > 0 && ends->at[i].index <= ends->at[i - 1].index))
			return refuse(context, psprintf("the thresholds of \"%s\" do not rise, or its counts are too large", key_names[list]),
						  TEXT_HINT);
	}
	if (sum != (uint64) parts->integers[sides[side].count])
		return refuse(context,
					  psprintf("\"%s\" is " INT64_FORMAT ", but the counts of \"%s\" add up to " UINT64_FORMAT,
							   key_names[sides[side].count], parts->integers[sides[side].count], key_names[list], sum),
					  TEXT_HINT);
	if (parts->doubles[sides[side].threshold] != outermost)
		return refuse(context,
					  psprintf("\"%s\" is %s, but of \"%s\" it is %s",
							   key_names[sides[side].threshold],
							   double_to_shortest_decimal(parts->doubles[sides[side].threshold]),
							   key_names[list], double_to_shortest_decimal(outermost)),
					  "It is the highest threshold of \"zeros\", and the lowest of \"overflows\".");
	return true;
}

/* The counts of one side with their thresholds */
static bool
read_ends(const Parts *parts, int side, MhmEnds *ends, Node *context)
{
	int			schema = (int) parts->integers[KEY_SCHEMA];
	Key			count = sides[side].count;
	Key			threshold = sides[side].threshold;
	Key			list = sides[side].list;
	Counted		single = {.threshold = parts->doubles[threshold],.count = parts->integers[count]};
	const Counted *counted = parts->given[list] ? parts->lists[list] : &single;

	if (!check_threshold(parts, count, threshold, context))
		return false;
	ends->size = parts->given[list] ? parts->list_sizes[list] : single.count > 0;
	ends->at = palloc(Max(ends->size, 1) * sizeof(MhmEnd));
	for (int i = 0; i < ends->size; i++)
	{
		ends->at[i].count = (uint64) counted[i].count;
		if (!index_of_threshold(schema, parts->given[list] ? list : threshold, counted[i].threshold,
								&ends->at[i].index, context))
			return false;
	}
	return !parts->given[list] || check_list(parts, side, ends, context);
}

/* Check that every bucket is one of doubles */
static bool
check_buckets(const Parts *parts, const MhmHistogramSummary *summary, Node *context)
{
	int			steps = MHM_HISTOGRAM_SCHEMA - summary->schema;
	int32		lowest = mhm_bucket_downscale(MHM_BUCKET_INDEX_LOWEST, steps);
	int32		highest = mhm_bucket_downscale(MHM_BUCKET_INDEX_HIGHEST, steps);
	int64		offset = parts->integers[KEY_OFFSET];

	if (offset < lowest || offset + Max(parts->bucket_count, 1) - 1 > highest)
		return refuse(context,
					  psprintf("\"buckets\" begin at \"offset\" " INT64_FORMAT " and are %d, but at schema %d a bucket is from %d to %d",
							   offset, parts->bucket_count, summary->schema, lowest, highest),
					  "Bucket i holds the values above 2^((i - 1) / 2^schema) and up to 2^(i / 2^schema).");
	return true;
}

/* Check that "count" is what the counts add up to, and what is there without any */
static bool
check_count(const Parts *parts, Node *context)
{
	uint64		count = (uint64) parts->integers[KEY_COUNT];
	uint64		total = (uint64) parts->integers[KEY_ZERO] + (uint64) parts->integers[KEY_OVERFLOW];

	for (int32 i = 0; i < parts->bucket_count && total <= MHM_HISTOGRAM_COUNT_MAX; i++)
		total += parts->buckets[i];

	if (total > MHM_HISTOGRAM_COUNT_MAX)
		return refuse(context, "its counts add up to more than 9223372036854775807", TEXT_HINT);
	if (total != count)
		return refuse(context,
					  psprintf("\"count\" is " UINT64_FORMAT ", but \"zero\", \"buckets\" and \"overflow\" add up to " UINT64_FORMAT,
							   count, total),
					  TEXT_HINT);
	if (parts->null[KEY_MIN] != (count == 0) || parts->null[KEY_MAX] != (count == 0))
		return refuse(context,
					  count == 0 ? "\"min\" and \"max\" are given, but \"count\" is 0" :
					  "\"min\" or \"max\" is null, but \"count\" is above 0",
					  "They are null in an empty histogram, and in no other.");
	if (count == 0 && parts->doubles[KEY_SUM] > 0)
		return refuse(context,
					  psprintf("\"sum\" is %s, but \"count\" is 0",
							   double_to_shortest_decimal(parts->doubles[KEY_SUM])),
					  "The sum of an empty histogram is 0.");
	return true;
}

/* Put the parts together; NULL after an error that was reported in the context */
static struct varlena *
assemble(const Parts *parts, Node *context)
{
	MhmHistogramSummary summary = {
		.schema = (int) parts->integers[KEY_SCHEMA],
		.sum = parts->doubles[KEY_SUM],
		.min = parts->doubles[KEY_MIN],
		.max = parts->doubles[KEY_MAX]
	};
	struct varlena *result;
	char	   *problem;

	if (summary.schema < MHM_HISTOGRAM_SCHEMA_LOWEST || summary.schema > MHM_HISTOGRAM_SCHEMA)
	{
		refuse(context,
			   psprintf("its schema is %d, and only %d to %d can be stored",
						summary.schema, MHM_HISTOGRAM_SCHEMA_LOWEST, MHM_HISTOGRAM_SCHEMA),
			   "Downscale a histogram of a higher schema: for each step, bucket i is the sum of buckets 2i - 1 and 2i.");
		return NULL;
	}
	if (!check_count(parts, context) ||
		!read_ends(parts, 0, &summary.zero, context) ||
		!read_ends(parts, 1, &summary.overflow, context) ||
		!check_buckets(parts, &summary, context))
		return NULL;

	result = mhm_histogram_compact(&summary, (int32) parts->integers[KEY_OFFSET],
								   parts->buckets, parts->bucket_count);
	problem = mhm_histogram_problem(VARDATA(result), VARSIZE(result) - VARHDRSZ);
	if (problem != NULL)
	{
		refuse(context, problem, TEXT_HINT);
		return NULL;
	}
	return result;
}

Datum
mhm_histogram_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);
	Node	   *context = mhm_error_context_compat(fcinfo);
	Jsonb	   *json = mhm_jsonb_in_compat(text, context);
	Parts		parts = {0};
	struct varlena *result;

	if (json == NULL || !read_parts(json, &parts, context))
		PG_RETURN_NULL();
	result = assemble(&parts, context);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_POINTER(result);
}

/* Append the shortest text that reads back as the same double */
static void
append_double(StringInfo text, double value)
{
	char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];

	double_to_shortest_decimal_buf(value, digits);
	appendStringInfoString(text, digits);
}

/* Append all buckets from the first filled one to the last, the empty ones too */
static void
append_buckets(StringInfo text, MhmHistogramReader *reader)
{
	bool		more = mhm_histogram_next(reader);
	int32		index = more ? reader->index : 0;

	appendStringInfo(text, ",\"%s\":%d,\"%s\":[", key_names[KEY_OFFSET], index, key_names[KEY_BUCKETS]);
	while (more)
	{
		for (; index < reader->index; index++)
			appendStringInfoString(text, "0,");
		appendStringInfo(text, UINT64_FORMAT, reader->count);
		index++;
		more = mhm_histogram_next(reader);
		if (more)
			appendStringInfoChar(text, ',');
	}
	appendStringInfoChar(text, ']');
}

/*
 * Append the counts of a side: all of it, with the threshold that holds for all of
 * it, and where there are several, each with its own.
 */
static void
append_side(StringInfo text, int side, const MhmEnds *ends, int schema)
{
	uint64		count = 0;

	for (int i = 0; i < ends->size; i++)
		count += ends->at[i].count;
	appendStringInfo(text, ",\"%s\":" UINT64_FORMAT, key_names[sides[side].count], count);
	if (ends->size == 0)
		return;
	appendStringInfo(text, ",\"%s\":", key_names[sides[side].threshold]);
	append_double(text, mhm_threshold_value(ends->at[sides[side].count == KEY_ZERO ? ends->size - 1 : 0].index, schema));
	if (ends->size == 1)
		return;
	appendStringInfo(text, ",\"%s\":[", key_names[sides[side].list]);
	for (int i = 0; i < ends->size; i++)
	{
		appendStringInfoString(text, i == 0 ? "[" : ",[");
		append_double(text, mhm_threshold_value(ends->at[i].index, schema));
		appendStringInfo(text, "," UINT64_FORMAT "]", ends->at[i].count);
	}
	appendStringInfoChar(text, ']');
}

static void
append_histogram(StringInfo text, const struct varlena *histogram)
{
	MhmHistogramReader reader;
	const MhmHistogramSummary *summary = &reader.summary;
	uint64		count;

	mhm_histogram_open(&reader, histogram);
	while (mhm_histogram_next(&reader))
		;
	mhm_histogram_close(&reader);
	count = reader.total;

	appendStringInfo(text, "{\"%s\":%d,\"%s\":" UINT64_FORMAT ",\"%s\":",
					 key_names[KEY_SCHEMA], summary->schema,
					 key_names[KEY_COUNT], count, key_names[KEY_SUM]);
	append_double(text, summary->sum);
	appendStringInfo(text, ",\"%s\":", key_names[KEY_MIN]);
	if (count > 0)
		append_double(text, summary->min);
	else
		appendStringInfoString(text, "null");
	appendStringInfo(text, ",\"%s\":", key_names[KEY_MAX]);
	if (count > 0)
		append_double(text, summary->max);
	else
		appendStringInfoString(text, "null");

	append_side(text, 0, &summary->zero, summary->schema);

	mhm_histogram_open(&reader, histogram);
	append_buckets(text, &reader);

	append_side(text, 1, &summary->overflow, summary->schema);
	appendStringInfoChar(text, '}');
}

Datum
mhm_histogram_out(PG_FUNCTION_ARGS)
{
	StringInfoData text;

	initStringInfo(&text);
	append_histogram(&text, PG_GETARG_VARLENA_PP(0));
	PG_RETURN_CSTRING(text.data);
}

Datum
mhm_histogram_json(PG_FUNCTION_ARGS)
{
	StringInfoData text;

	initStringInfo(&text);
	append_histogram(&text, PG_GETARG_VARLENA_PP(0));
	PG_RETURN_TEXT_P(cstring_to_text_with_len(text.data, text.len));
}

Datum
mhm_histogram_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			length = message->len - message->cursor;
	const char *bytes = pq_getmsgbytes(message, length);
	char	   *problem = mhm_histogram_problem(bytes, length);
	struct varlena *result;

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("invalid binary input for type histogram: %s", problem),
				 errhint("Send what the type's binary output gave, or send text.")));

	result = palloc(VARHDRSZ + length);
	SET_VARSIZE(result, VARHDRSZ + length);
	memcpy(VARDATA(result), bytes, length);
	PG_RETURN_POINTER(result);
}

/* The binary form is the compact form */
Datum
mhm_histogram_send(PG_FUNCTION_ARGS)
{
	struct varlena *histogram = PG_GETARG_VARLENA_PP(0);
	StringInfoData message;

	pq_begintypsend(&message);
	pq_sendbytes(&message, VARDATA_ANY(histogram), VARSIZE_ANY_EXHDR(histogram));
	PG_RETURN_BYTEA_P(pq_endtypsend(&message));
}
