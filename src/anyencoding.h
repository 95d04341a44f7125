/*-------------------------------------------------------------------------
 *
 * anyencoding.h
 *	  Text that another database, or the server itself, has written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_ANYENCODING_H
#define MHM_ANYENCODING_H

extern char *mhm_text_in_my_encoding(const char *text, int encoding);

#endif							/* MHM_ANYENCODING_H */
