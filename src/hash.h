/*-------------------------------------------------------------------------
 *
 * hash.h
 *	  A seeded hash of bytes.
 *
 * Sixteen bytes and one multiplication a step.  PostgreSQL's
 * hash_bytes_extended() would do, but takes several times as long, and the
 * key of every sample is hashed.  The seed is random and stays in the server,
 * so that nobody can choose labels that collide.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_HASH_H
#define MHM_HASH_H

/* Multiply, and fold the upper half of the product into the lower */
static inline uint64
mhm_hash_mix(uint64 a, uint64 b)
{
#ifdef HAVE_INT128
	uint128		product = (uint128) a * b;

	return (uint64) product ^ (uint64) (product >> 64);
#else
	a *= UINT64CONST(0x9E3779B97F4A7C15);
	a ^= b + (a >> 29);
	a *= UINT64CONST(0xBF58476D1CE4E5B9);
	return a ^ (a >> 32);
#endif
}

static inline uint64
mhm_hash_word(const char *data)
{
	uint64		word;

	memcpy(&word, data, sizeof(word));
	return word;
}

/* The secret is in both factors, so that no chosen word makes one of them 0 */
static inline uint64
mhm_hash_words(uint64 first, uint64 second, uint64 hash)
{
	return mhm_hash_mix(first ^ hash,
						second ^ UINT64CONST(0xD6E8FEB86659FD93) ^ (hash << 32 | hash >> 32));
}

static inline uint64
mhm_hash_pair(const char *data, uint64 hash)
{
	return mhm_hash_words(mhm_hash_word(data), mhm_hash_word(data + 8), hash);
}

static inline uint64
mhm_hash_bytes(const char *data, Size length, uint64 seed)
{
	uint64		hash = seed ^ UINT64CONST(0x9E3779B97F4A7C15) ^ length;

	if (length >= 16)
	{
		const char *last = data + length - 16;

		for (; data < last; data += 16)
			hash = mhm_hash_pair(data, hash);
		/* What is left, together with bytes that were in before */
		return mhm_hash_pair(last, hash);
	}
	if (length >= 8)
		return mhm_hash_words(mhm_hash_word(data), mhm_hash_word(data + length - 8), hash);
	else
	{
		char		padded[16] = {0};

		for (Size i = 0; i < length; i++)
			padded[i] = data[i];
		return mhm_hash_pair(padded, hash);
	}
}

#endif							/* MHM_HASH_H */
