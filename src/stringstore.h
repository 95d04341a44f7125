/*-------------------------------------------------------------------------
 *
 * stringstore.h
 *	  Names, help texts and labels in the shared region.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_STRINGSTORE_H
#define MHM_STRINGSTORE_H

#include "hash.h"
#include "region.h"

/* How many chunks a string of so many bytes takes */
static inline uint32
mhm_string_chunks(uint32 length)
{
	return (length + MHM_CHUNK_PAYLOAD - 1) / MHM_CHUNK_PAYLOAD;
}

extern bool mhm_string_store(const char *data, uint32 length, MhmString *string);
extern void mhm_string_free(MhmString string);
extern void mhm_string_copy(MhmString string, char *out);
extern bool mhm_string_equals(MhmString string, const char *data, uint32 length);

#endif							/* MHM_STRINGSTORE_H */
