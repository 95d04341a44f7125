/*-------------------------------------------------------------------------
 *
 * labels.c
 *	  Names and labels of series: what is allowed, and how they are stored.
 *
 * Owns the rules for metric names and labels, and the encoding in which the
 * registry keeps labels.  Called once for a key that the backend has not met
 * yet, and by whatever shows series.  Touches nothing shared.
 *
 * The rules are Prometheus's for names; the reserved keys are those that the
 * exposition adds itself.  A label with an empty value is the same to
 * Prometheus as no label, so it is not stored: two series that differ by it
 * would be one series twice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "labels.h"
#include "mb/pg_wchar.h"
#include "registry.h"
#include "settings.h"
#include "utils/builtins.h"

static const char *const reserved_keys[] = {"le", "quantile", "tenant", "overflow"};

/* Metric names that the exposition uses for the extension's own health */
#define OWN_PREFIX		"meshhook_metrics_"

static bool
is_identifier(const char *name, uint32 length)
{
	if (length == 0 || (name[0] >= '0' && name[0] <= '9'))
		return false;
	for (uint32 i = 0; i < length; i++)
	{
		char		c = name[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			  (c >= '0' && c <= '9') || c == '_'))
			return false;
	}
	return true;
}

/* As much of a string as fits a message */
static char *
excerpt(const char *data, uint32 length)
{
	int			clipped = pg_mbcliplen(data, length, Min(length, 200));

	if ((uint32) clipped == length)
		return pnstrdup(data, length);
	return psprintf("%s...", pnstrdup(data, clipped));
}

/* Check a metric's name; false after a warning */
bool
mhm_metric_name_check(int level, const char *name, uint32 length)
{
	if (length > MHM_MAX_METRIC_LENGTH)
	{
		ereport(level,
				errcode(ERRCODE_NAME_TOO_LONG),
				errmsg("metric name \"%s\" is too long", excerpt(name, length)),
				errdetail("It has %u bytes; at most %d are allowed.",
						  length, MHM_MAX_METRIC_LENGTH));
		return false;
	}
	if (!is_identifier(name, length))
	{
		ereport(level,
				errcode(ERRCODE_INVALID_NAME),
				errmsg("\"%s\" is not a metric name", excerpt(name, length)),
				errhint("Use letters, digits and underscores, and do not begin with a digit, as in \"webhook_deliveries_total\"."));
		return false;
	}
	if (length >= strlen(OWN_PREFIX) && memcmp(name, OWN_PREFIX, strlen(OWN_PREFIX)) == 0)
	{
		ereport(level,
				errcode(ERRCODE_RESERVED_NAME),
				errmsg("metric name \"%s\" is reserved", excerpt(name, length)),
				errdetail("Names that begin with \"" OWN_PREFIX "\" are those of the extension's own health."));
		return false;
	}
	return true;
}

/* Check a label's key; false after a warning */
static bool
check_key(const char *key, uint32 length, const char *metric)
{
	bool		reserved = (length >= 2 && key[0] == '_' && key[1] == '_');

	if (length > MHM_MAX_LABEL_KEY_LENGTH)
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_NAME_TOO_LONG),
				errmsg("label name \"%s\" of metric \"%s\" is too long",
					   excerpt(key, length), metric),
				errdetail("It has %u bytes; at most %d are allowed.",
						  length, MHM_MAX_LABEL_KEY_LENGTH));
		return false;
	}
	if (!is_identifier(key, length))
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_INVALID_NAME),
				errmsg("\"%s\" is not a label name, in metric \"%s\"",
					   excerpt(key, length), metric),
				errhint("Use letters, digits and underscores, and do not begin with a digit."));
		return false;
	}
	for (int i = 0; i < lengthof(reserved_keys); i++)
		if (length == strlen(reserved_keys[i]) && memcmp(key, reserved_keys[i], length) == 0)
			reserved = true;
	if (reserved)
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_RESERVED_NAME),
				errmsg("label name \"%s\" of metric \"%s\" is reserved",
					   excerpt(key, length), metric),
				errhint("Names that begin with \"__\", and \"le\", \"quantile\", \"tenant\" and \"overflow\", are not for labels; the tenant is an argument of its own."));
		return false;
	}
	return true;
}

/* A label's value as text; false where it is none that a label can have */
bool
mhm_label_text(const JsonbValue *json, const char **value, uint32 *length)
{
	switch (json->type)
	{
		case jbvString:
			*value = json->val.string.val;
			*length = json->val.string.len;
			return true;
		case jbvNumeric:
			*value = DatumGetCString(DirectFunctionCall1(numeric_out,
														 NumericGetDatum(json->val.numeric)));
			*length = strlen(*value);
			return true;
		case jbvBool:
			*value = json->val.boolean ? "true" : "false";
			*length = strlen(*value);
			return true;
		default:
			return false;
	}
}

/* The same for a label that is to be recorded; false after a warning */
static bool
value_as_text(const JsonbValue *json, const char *key, uint32 key_length,
			  const char *metric, const char **value, uint32 *length)
{
	if (!mhm_label_text(json, value, length))
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("label \"%s\" of metric \"%s\" has no plain value",
					   excerpt(key, key_length), metric),
				errdetail("Its value is %s.",
						  json->type == jbvNull ? "null" : "an object or an array"),
				errhint("Give a string, a number or a boolean, or leave the label out."));
		return false;
	}

	/* The region serves databases of every encoding */
	if (GetDatabaseEncoding() != PG_UTF8)
	{
		for (uint32 i = 0; i < *length; i++)
			if (IS_HIGHBIT_SET((*value)[i]))
			{
				ereport(mhm_mistake_level(),
						errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						errmsg("label \"%s\" of metric \"%s\" has a value outside ASCII",
							   excerpt(key, key_length), metric),
						errdetail("This database's encoding is %s.", GetDatabaseEncodingName()),
						errhint("Record such values from a database whose encoding is UTF8."));
				return false;
			}
	}
	if (*length > MHM_MAX_LABEL_VALUE_LENGTH)
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_STRING_DATA_RIGHT_TRUNCATION),
				errmsg("the value of label \"%s\" of metric \"%s\" is too long",
					   excerpt(key, key_length), metric),
				errdetail("\"%s\" has %u bytes; at most %d are allowed.",
						  excerpt(*value, *length), *length, MHM_MAX_LABEL_VALUE_LENGTH),
				errhint("Labels tell a few kinds apart; keep ids, URLs and messages out of them."));
		return false;
	}
	return true;
}

static char *
append_pair(char *at, const char *key, uint32 key_length,
			const char *value, uint32 value_length)
{
	*at++ = (char) key_length;
	memcpy(at, key, key_length);
	at += key_length;
	*at++ = (char) (value_length & 0xFF);
	*at++ = (char) (value_length >> 8);
	memcpy(at, value, value_length);
	return at + value_length;
}

/*
 * Check labels and write their stored form into a buffer of
 * MHM_MAX_LABELS_LENGTH bytes; false after a warning.
 */
bool
mhm_labels_encode(JsonbContainer *labels, const char *metric,
				  char *encoded, uint32 *encoded_length)
{
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	json;
	char	   *at = encoded;
	const char *key = NULL;
	uint32		key_length = 0;

	if (!JsonContainerIsObject(labels))
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				errmsg("the labels of metric \"%s\" are not an object", metric),
				errhint("Write them as in '{\"status\": \"ok\"}'; '{}' where there are none."));
		return false;
	}
	if (JsonContainerSize(labels) > MHM_MAX_LABELS)
	{
		ereport(mhm_mistake_level(),
				errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				errmsg("metric \"%s\" is given too many labels", metric),
				errdetail("There are %u; at most %d are allowed.",
						  (unsigned int) JsonContainerSize(labels), MHM_MAX_LABELS));
		return false;
	}

	iterator = JsonbIteratorInit(labels);
	while ((token = JsonbIteratorNext(&iterator, &json, true)) != WJB_DONE)
	{
		const char *value;
		uint32		value_length;

		if (token == WJB_KEY)
		{
			key = json.val.string.val;
			key_length = json.val.string.len;
			if (!check_key(key, key_length, metric))
				return false;
		}
		else if (token == WJB_VALUE)
		{
			if (!value_as_text(&json, key, key_length, metric, &value, &value_length))
				return false;
			if (value_length > 0)
				at = append_pair(at, key, key_length, value, value_length);
		}
	}
	*encoded_length = at - encoded;
	return true;
}

/* For recovery: can these bytes be walked over? */
bool
mhm_labels_well_formed(const char *encoded, uint32 length)
{
	const char *end = encoded + length;

	while (encoded < end)
	{
		uint32		key_length = (unsigned char) *encoded;
		uint32		value_length;

		if (key_length == 0 || key_length > MHM_MAX_LABEL_KEY_LENGTH ||
			(Size) (end - encoded) < key_length + 3)
			return false;
		encoded += 1 + key_length;
		value_length = (unsigned char) encoded[0] | (uint32) (unsigned char) encoded[1] << 8;
		if (value_length == 0 || value_length > MHM_MAX_LABEL_VALUE_LENGTH ||
			(Size) (end - encoded) < value_length + 2)
			return false;
		encoded += 2 + value_length;
	}
	return true;
}

/*
 * Stored text as this database can show it.  Where its encoding is not UTF-8,
 * bytes outside ASCII are written as \xhh: what differs still looks different.
 */
char *
mhm_text_for_database(const char *text, uint32 length)
{
	StringInfoData shown;

	if (GetDatabaseEncoding() == PG_UTF8)
		return pnstrdup(text, length);
	initStringInfo(&shown);
	for (uint32 i = 0; i < length; i++)
	{
		if (IS_HIGHBIT_SET(text[i]))
			appendStringInfo(&shown, "\\x%02x", (unsigned char) text[i]);
		else
			appendStringInfoChar(&shown, text[i]);
	}
	return shown.data;
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *data, int length)
{
	JsonbValue	json;

	json.type = jbvString;
	json.val.string.val = mhm_text_for_database(data, length);
	json.val.string.len = strlen(json.val.string.val);
	pushJsonbValue(state, token, &json);
}

/* Stored labels as jsonb */
Jsonb *
mhm_labels_jsonb(const char *encoded, uint32 length, bool overflow)
{
	JsonbParseState *state = NULL;
	const char *end = encoded + length;

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	while (encoded < end)
	{
		MhmLabel	label;

		encoded = mhm_label_next(encoded, &label);
		push_string(&state, WJB_KEY, label.key, label.key_length);
		push_string(&state, WJB_VALUE, label.value, label.value_length);
	}
	if (overflow)
	{
		push_string(&state, WJB_KEY, "overflow", strlen("overflow"));
		push_string(&state, WJB_VALUE, "true", strlen("true"));
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
