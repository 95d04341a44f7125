/*-------------------------------------------------------------------------
 *
 * stringstore.c
 *	  Names, help texts and labels in the shared region.
 *
 * Owns the chunk store: strings are chains of small chunks of one size, so
 * that there is no fragmentation and the free list can be rebuilt from the
 * strings that are in use.  Nothing here is on the way of a sample whose
 * series is known.
 *
 * Storing and freeing want the registry lock held exclusively, reading wants
 * it held at all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "stringstore.h"

/* Take chunks for a string, or nothing at all when there are too few */
bool
mhm_string_store(const char *data, uint32 length, MhmString *string)
{
	uint32		needed = mhm_string_chunks(length);
	uint32	   *link = &string->chunk;

	if (needed > mhm_region->geometry.chunks - mhm_region->used_chunks)
		return false;

	string->length = length;
	while (length > 0)
	{
		uint32		number = mhm_region->free_chunk;
		MhmChunk   *chunk = &mhm_chunks[number];
		uint32		part = Min(length, MHM_CHUNK_PAYLOAD);

		mhm_region->free_chunk = chunk->next;
		memcpy(chunk->payload, data, part);
		*link = number;
		link = &chunk->next;
		data += part;
		length -= part;
	}
	*link = MHM_NONE;
	mhm_region->used_chunks += needed;
	return true;
}

void
mhm_string_free(MhmString string)
{
	uint32		number = string.chunk;

	while (number != MHM_NONE)
	{
		uint32		next = mhm_chunks[number].next;

		mhm_chunks[number].next = mhm_region->free_chunk;
		mhm_region->free_chunk = number;
		mhm_region->used_chunks--;
		number = next;
	}
}

/* Copy a string out, without a terminating zero */
void
mhm_string_copy(MhmString string, char *out)
{
	uint32		number = string.chunk;
	uint32		left = string.length;

	while (left > 0)
	{
		uint32		part = Min(left, MHM_CHUNK_PAYLOAD);

		memcpy(out, mhm_chunks[number].payload, part);
		out += part;
		left -= part;
		number = mhm_chunks[number].next;
	}
}

bool
mhm_string_equals(MhmString string, const char *data, uint32 length)
{
	uint32		number = string.chunk;

	if (string.length != length)
		return false;
	while (length > 0)
	{
		uint32		part = Min(length, MHM_CHUNK_PAYLOAD);

		if (memcmp(mhm_chunks[number].payload, data, part) != 0)
			return false;
		data += part;
		length -= part;
		number = mhm_chunks[number].next;
	}
	return true;
}
