/*-------------------------------------------------------------------------
 *
 * anyencoding.c
 *	  Text that another database, or the server itself, has written.
 *
 * Owns the way from one encoding into another for text that must be shown
 * whatever is in it.  Called by status() and flush() for errors: the flush
 * worker writes them in its database's encoding, the operating system in that
 * of the server's locale.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "anyencoding.h"
#include "catalog/namespace.h"
#include "mb/pg_wchar.h"

static bool
is_ascii(const char *text)
{
	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text))
			return false;
	return true;
}

/* Bytes beyond ASCII as \xe9: valid in every encoding */
static char *
escape(const char *text)
{
	char	   *escaped = palloc(strlen(text) * 4 + 1);
	char	   *at = escaped;

	for (; *text != '\0'; text++)
		if (IS_HIGHBIT_SET(*text))
			at += sprintf(at, "\\x%02x", (unsigned char) *text);
		else
			*at++ = *text;
	*at = '\0';
	return escaped;
}

/*
 * A text in the encoding of this database.  What has no place in that, or is
 * not valid in its own, is escaped.  PG_SQL_ASCII stands for an unknown one.
 */
char *
mhm_text_in_my_encoding(const char *text, int encoding)
{
	int			mine = GetDatabaseEncoding();
	int			length = strlen(text);
	Oid			conversion = InvalidOid;

	if (is_ascii(text))
		return pstrdup(text);
	if (encoding == mine || encoding == PG_SQL_ASCII)
		return pg_verify_mbstr(mine, text, length, true) && mine != PG_SQL_ASCII ?
			pstrdup(text) : escape(text);
	if (mine != PG_SQL_ASCII && pg_verify_mbstr(encoding, text, length, true))
		conversion = FindDefaultConversionProc(encoding, mine);
	if (OidIsValid(conversion))
	{
		int			room = length * MAX_CONVERSION_GROWTH + 1;
		unsigned char *converted = palloc(room);

		if (pg_do_encoding_conversion_buf(conversion, encoding, mine,
										  (unsigned char *) unconstify(char *, text), length,
										  converted, room, true) == length)
			return (char *) converted;
	}
	return escape(text);
}
