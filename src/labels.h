/*-------------------------------------------------------------------------
 *
 * labels.h
 *	  Names and labels of series: what is allowed, and how they are stored.
 *
 * Stored labels are a row of pairs, in jsonb's order of keys, in UTF-8:
 * a byte with the key's length, the key, two bytes with the value's length
 * (low byte first), the value.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_LABELS_H
#define MHM_LABELS_H

#include "lib/stringinfo.h"
#include "utils/jsonb.h"

#define MHM_MAX_LABELS				10
#define MHM_MAX_LABEL_KEY_LENGTH	64
#define MHM_MAX_LABEL_VALUE_LENGTH	256
#define MHM_MAX_LABELS_LENGTH \
	(MHM_MAX_LABELS * (3 + MHM_MAX_LABEL_KEY_LENGTH + MHM_MAX_LABEL_VALUE_LENGTH))

/* Walks over stored labels */
typedef struct MhmLabel
{
	const char *key;
	uint32		key_length;
	const char *value;
	uint32		value_length;
} MhmLabel;

static inline const char *
mhm_label_next(const char *at, MhmLabel *label)
{
	label->key_length = (unsigned char) *at++;
	label->key = at;
	at += label->key_length;
	label->value_length = (unsigned char) at[0] | (uint32) (unsigned char) at[1] << 8;
	label->value = at + 2;
	return label->value + label->value_length;
}

extern bool mhm_label_text(const JsonbValue *json, const char **value, uint32 *length);
extern bool mhm_labels_encode(JsonbContainer *labels, const char *metric,
							  char *encoded, uint32 *length);
extern bool mhm_labels_well_formed(const char *encoded, uint32 length);
extern char *mhm_text_for_database(const char *text, uint32 length);
extern Jsonb *mhm_labels_jsonb(const char *encoded, uint32 length, bool overflow);
extern bool mhm_metric_name_check(int level, const char *name, uint32 length);

#endif							/* MHM_LABELS_H */
