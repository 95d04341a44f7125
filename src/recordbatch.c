/*-------------------------------------------------------------------------
 *
 * recordbatch.c
 *	  record(): many samples in one call
 *
 * Owns the reading of a batch.  All samples are read and checked, then given
 * their series, and only then is the first one counted, so that a mistake in
 * one leaves nothing of the batch.  What shows only while series are made (two
 * new metrics of which one is named like the other's samples) leaves a metric
 * without samples, which is not shown to anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "record.h"
#include "require.h"
#include "settings.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(mhm_record);

typedef struct BatchSample
{
	MhmSampleKey key;
	MhmTarget	target;
	MhmOperation operation;
	double		value;
	pg_uuid_t	tenant;
} BatchSample;

/* The fields of an element, found or not */
typedef enum BatchField
{
	FIELD_OP,
	FIELD_METRIC,
	FIELD_VALUE,
	FIELD_LABELS,
	FIELD_TENANT,
	FIELDS
} BatchField;

/* A word that is looked for at every sample, with its length */
typedef struct Word
{
	const char *text;
	int			length;
} Word;

#define WORD(literal)	{literal, sizeof(literal) - 1}

static const Word field_names[FIELDS] = {
	WORD("op"), WORD("metric"), WORD("value"), WORD("labels"), WORD("tenant")
};

static const struct
{
	Word		name;
	MhmOperation operation;
}			operations[] =
{
	{WORD("inc"), MHM_INC},
	{WORD("gauge_set"), MHM_GAUGE_SET},
	{WORD("gauge_add"), MHM_GAUGE_ADD},
	{WORD("observe"), MHM_OBSERVE}
};

/* '{}' as a jsonb has it */
static const uint32 no_labels = JB_FOBJECT;

static inline bool
is_word(const JsonbValue *json, const Word *word)
{
	return word->length == json->val.string.len &&
		memcmp(json->val.string.val, word->text, word->length) == 0;
}

static bool
report_element(const char *detail)
{
	ereport(mhm_mistake_level(),
			errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			errmsg("this is not a sample"),
			errdetail("%s", detail),
			errhint("Write elements as in {\"op\": \"inc\", \"metric\": \"runs_total\", \"value\": 1, \"labels\": {\"status\": \"ok\"}, \"tenant\": \"00000000-0000-0000-0000-000000000000\"}; nothing of the batch was counted."));
	return false;
}

/* Put the fields of an element into their places */
static bool
split_element(JsonbContainer *element, JsonbValue *fields, uint32 *present)
{
	JsonbIterator *iterator = JsonbIteratorInit(element);
	JsonbIteratorToken token;
	JsonbValue	json;

	*present = 0;
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		int			field = 0;

		if (token != WJB_KEY)
			continue;
		while (field < FIELDS && !is_word(&json, &field_names[field]))
			field++;
		if (field == FIELDS)
			return report_element(psprintf("It has an unknown field \"%s\".",
										   pnstrdup(json.val.string.val,
													pg_mbcliplen(json.val.string.val,
																 json.val.string.len, 200))));
		(void) JsonbIteratorNext(&iterator, &fields[field], true);
		if (fields[field].type != jbvNull || field == FIELD_VALUE || field == FIELD_LABELS)
			*present |= 1 << field;
	}
	return true;
}

static bool
read_operation(const JsonbValue *op, MhmOperation *operation)
{
	if (op->type == jbvString)
	{
		for (int i = 0; i < lengthof(operations); i++)
			if (is_word(op, &operations[i].name))
			{
				*operation = operations[i].operation;
				return true;
			}
		return report_element(psprintf("Its \"op\" is \"%s\", not one of inc, gauge_set, gauge_add, observe.",
									   pnstrdup(op->val.string.val,
												pg_mbcliplen(op->val.string.val,
															 op->val.string.len, 200))));
	}
	return report_element("Its \"op\" is not a string.");
}

/* A metric that the batch is the first to use */
typedef struct NewMetric
{
	char		name[MHM_MAX_METRIC_LENGTH + 1];	/* hash key */
	MhmKind		kind;
} NewMetric;

/*
 * Do the samples of the batch agree on the kind of a metric that is new?  The
 * registry cannot tell yet.
 */
static bool
agrees_on_kind(HTAB **new_metrics, const MhmSampleKey *key, MhmKind kind)
{
	char		name[MHM_MAX_METRIC_LENGTH + 1];
	NewMetric  *metric;
	MhmConflict conflict;
	bool		found;

	if (*new_metrics == NULL)
	{
		HASHCTL		control;

		control.keysize = MHM_MAX_METRIC_LENGTH + 1;
		control.entrysize = sizeof(NewMetric);
		control.hcxt = CurrentMemoryContext;
		*new_metrics = hash_create("meshhook_metrics new metrics", 32, &control,
								   HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	memcpy(name, key->metric, key->metric_length);
	name[key->metric_length] = '\0';
	metric = hash_search(*new_metrics, name, HASH_ENTER, &found);
	if (!found)
		metric->kind = kind;
	if (metric->kind == kind)
		return true;
	conflict.kind = metric->kind;
	mhm_report_conflict(MHM_KIND_CONFLICT, name, kind, &conflict);
	return false;
}

static bool
read_element(JsonbValue *element, HTAB **new_metrics, BatchSample *sample)
{
	JsonbValue	fields[FIELDS];
	uint32		present;
	bool		new_metric;

	if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
		return report_element("It is not an object.");
	if (!split_element(element->val.binary.data, fields, &present))
		return false;

	if (!(present & 1 << FIELD_OP))
		return report_element("It has no \"op\".");
	if (!read_operation(&fields[FIELD_OP], &sample->operation))
		return false;

	if (!(present & 1 << FIELD_METRIC) || fields[FIELD_METRIC].type != jbvString)
		return report_element("Its \"metric\" is missing or not a string.");
	sample->key.metric = fields[FIELD_METRIC].val.string.val;
	sample->key.metric_length = fields[FIELD_METRIC].val.string.len;

	if (present & 1 << FIELD_VALUE)
	{
		if (fields[FIELD_VALUE].type != jbvNumeric)
			return report_element("Its \"value\" is not a number.");
		sample->value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
														   NumericGetDatum(fields[FIELD_VALUE].val.numeric)));
	}
	else if (sample->operation == MHM_INC)
		sample->value = 1;
	else
		return report_element("It has no \"value\"; only inc can do without.");

	sample->key.labels = (const char *) &no_labels;
	sample->key.labels_length = sizeof(no_labels);
	if (present & 1 << FIELD_LABELS)
	{
		if (fields[FIELD_LABELS].type != jbvBinary)
			return report_element("Its \"labels\" are not an object.");
		sample->key.labels = (const char *) fields[FIELD_LABELS].val.binary.data;
		sample->key.labels_length = fields[FIELD_LABELS].val.binary.len;
	}

	sample->key.tenant = mhm_session_tenant();
	if (present & 1 << FIELD_TENANT)
	{
		if (fields[FIELD_TENANT].type != jbvString ||
			!mhm_parse_uuid(fields[FIELD_TENANT].val.string.val,
							fields[FIELD_TENANT].val.string.len, &sample->tenant))
			return report_element("Its \"tenant\" is not a UUID.");
		sample->key.tenant = &sample->tenant;
	}
	if (!mhm_value_check(sample->operation, sample->value,
						 sample->key.metric, sample->key.metric_length) ||
		!mhm_cache_check(&sample->key, mhm_operation_kind(sample->operation), &new_metric))
		return false;
	return !new_metric ||
		agrees_on_kind(new_metrics, &sample->key, mhm_operation_kind(sample->operation));
}

static bool
read_batch(Jsonb *batch, BatchSample *samples, volatile int *number)
{
	JsonbIterator *iterator = JsonbIteratorInit(&batch->root);
	JsonbIteratorToken token;
	JsonbValue	element;
	HTAB	   *new_metrics = NULL;

	*number = 0;
	while ((token = JsonbIteratorNext(&iterator, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		++*number;
		if (!read_element(&element, &new_metrics, &samples[*number - 1]))
			return false;
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/* Find the series of all samples, and make those that are missing */
static bool
find_targets(BatchSample *samples, int count, volatile int *number)
{
	for (*number = 1; *number <= count; ++*number)
	{
		BatchSample *sample = &samples[*number - 1];

		CHECK_FOR_INTERRUPTS();
		if (!mhm_cache_find(&sample->key, mhm_operation_kind(sample->operation),
							&sample->target))
			return false;
	}
	return true;
}

/* Tells which element a warning is about */
static void
name_element(void *number)
{
	errcontext("element %d of the batch, of which nothing is counted",
			   *(volatile int *) number);
}

/* Read the batch, and let an error tell which element it is about */
static bool
read_batch_or_name_element(Jsonb *batch, BatchSample *samples)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile int number = 0;
	volatile bool valid = false;
	ErrorContextCallback context;

	context.callback = name_element;
	context.arg = (void *) &number;
	context.previous = error_context_stack;
	error_context_stack = &context;
	PG_TRY();
	{
		/* All are checked before a series or a kind comes of any */
		valid = read_batch(batch, samples, &number) &&
			find_targets(samples, number, &number);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		/* A cancelled query or a lack of memory is not about the element */
		if (ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_OPERATOR_INTERVENTION ||
			ERRCODE_TO_CATEGORY(geterrcode()) == ERRCODE_INSUFFICIENT_RESOURCES)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		error->message = psprintf("element %d of the batch: %s", number, error->message);
		ReThrowError(error);
	}
	PG_END_TRY();
	error_context_stack = context.previous;
	return valid;
}

Datum
mhm_record(PG_FUNCTION_ARGS)
{
	Jsonb	   *batch;
	BatchSample *samples;
	int			count;

	if (!mhm_enabled || !mhm_check_recording(fcinfo, 1))
		PG_RETURN_INT32(0);
	batch = PG_ARGISNULL(0) ? NULL : PG_GETARG_JSONB_P(0);
	if (batch == NULL || !JB_ROOT_IS_ARRAY(batch) || JB_ROOT_IS_SCALAR(batch))
	{
		ereport(mhm_mistake_level(),
				errcode(batch == NULL ? ERRCODE_NULL_VALUE_NOT_ALLOWED :
						ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg(batch == NULL ? "batch must not be null" : "batch is not an array"),
				errhint("Give an array of samples, as in '[{\"op\": \"inc\", \"metric\": \"runs_total\"}]'."));
		mhm_accumulate_discard(MHM_DISCARD_INVALID, 1);
		PG_RETURN_INT32(0);
	}
	count = JB_ROOT_COUNT(batch);
	samples = palloc_extended(Max(count, 1) * sizeof(BatchSample), MCXT_ALLOC_HUGE);

	if (!read_batch_or_name_element(batch, samples))
	{
		mhm_accumulate_discard(MHM_DISCARD_INVALID, count);
		PG_RETURN_INT32(0);
	}
	/* From here on it is counted as a whole, and cannot be cancelled */
	for (int i = 0; i < count; i++)
		while (!mhm_count_sample(&samples[i].key, &samples[i].target,
								 samples[i].operation, samples[i].value))
			mhm_cache_retarget(&samples[i].key, mhm_operation_kind(samples[i].operation),
							   &samples[i].target);
	pfree(samples);
	PG_RETURN_INT32(count);
}
