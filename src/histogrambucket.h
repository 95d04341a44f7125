/*
 * histogrambucket.h
 *		The buckets of a histogram: which one a value falls into, and where a
 *		bucket ends.
 *
 * Pure arithmetic on doubles, with no state and no dependency beyond libc, so
 * the recording path, the SQL type and a unit test compile the same lines.
 *
 * Buckets are those of a Prometheus native histogram of schema 3 (OpenTelemetry
 * scale 3): bucket i holds the values in (2^((i-1)/8), 2^(i/8)].  A boundary
 * that is not a power of two is the double nearest to it, and a value equal to
 * a boundary belongs below it.  Among the subnormals, where neighbouring
 * boundaries fall between two doubles, a boundary is the double at or below it:
 * that keeps "v is in the first bucket whose upper end is not below v" true for
 * every double.
 */
#ifndef MHM_HISTOGRAMBUCKET_H
#define MHM_HISTOGRAMBUCKET_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* The resolution at which values are recorded */
#define MHM_HISTOGRAM_SCHEMA			3
#define MHM_BUCKETS_PER_OCTAVE			8

/* The coarsest schema: one bucket for a factor of 2^16 */
#define MHM_HISTOGRAM_SCHEMA_LOWEST		(-4)

/*
 * The window of an accumulator: with lowest exponent E it has one slot for each
 * bucket of (2^E, 2^(E+32)].  Slot k is bucket 8 * E + 1 + k.
 */
#define MHM_HISTOGRAM_BUCKETS			256
#define MHM_WINDOW_OCTAVES				(MHM_HISTOGRAM_BUCKETS / MHM_BUCKETS_PER_OCTAVE)
#define MHM_DEFAULT_MIN_EXPONENT		(-20)
#define MHM_MIN_EXPONENT_LOWEST			(-1022)
#define MHM_MIN_EXPONENT_HIGHEST		991

/* The buckets of the smallest and of the largest finite double */
#define MHM_BUCKET_INDEX_LOWEST			(-8592)
#define MHM_BUCKET_INDEX_HIGHEST		8192

#define MHM_MANTISSA_BITS				52
#define MHM_MANTISSA_MASK				((UINT64_C(1) << MHM_MANTISSA_BITS) - 1)
#define MHM_EXPONENT_BIAS				1023
#define MHM_EXPONENT_SPECIAL			0x7ff

/* Mantissas of 2^(j/8), correctly rounded */
#define MHM_BOUND_0						UINT64_C(0x0000000000000)
#define MHM_BOUND_1						UINT64_C(0x172b83c7d517b)
#define MHM_BOUND_2						UINT64_C(0x306fe0a31b715)
#define MHM_BOUND_3						UINT64_C(0x4bfdad5362a27)
#define MHM_BOUND_4						UINT64_C(0x6a09e667f3bcd)
#define MHM_BOUND_5						UINT64_C(0x8ace5422aa0db)
#define MHM_BOUND_6						UINT64_C(0xae89f995ad3ad)
#define MHM_BOUND_7						UINT64_C(0xd5818dcfba487)
#define MHM_BOUND_8						MHM_MANTISSA_MASK

/*
 * A sixteenth of an octave holds at most one boundary.  Its entry has the first
 * boundary j at or above its start in the bits over the mantissa, and below
 * them what a mantissa must exceed to carry into j + 1.
 */
#define MHM_SLOT(j, bound) \
	((UINT64_C(j) << MHM_MANTISSA_BITS) + (MHM_MANTISSA_MASK - (bound)))

/*
 * The bucket of a positive finite value: the smallest i with v <= 2^(i/8).
 */
static inline int32_t
mhm_bucket_index(double v)
{
	static const uint64_t slots[16] = {
		MHM_SLOT(0, MHM_BOUND_0), MHM_SLOT(1, MHM_BOUND_1),
		MHM_SLOT(2, MHM_BOUND_2), MHM_SLOT(2, MHM_BOUND_2),
		MHM_SLOT(3, MHM_BOUND_3), MHM_SLOT(4, MHM_BOUND_4),
		MHM_SLOT(4, MHM_BOUND_4), MHM_SLOT(5, MHM_BOUND_5),
		MHM_SLOT(5, MHM_BOUND_5), MHM_SLOT(6, MHM_BOUND_6),
		MHM_SLOT(6, MHM_BOUND_6), MHM_SLOT(7, MHM_BOUND_7),
		MHM_SLOT(7, MHM_BOUND_7), MHM_SLOT(7, MHM_BOUND_7),
		MHM_SLOT(8, MHM_BOUND_8), MHM_SLOT(8, MHM_BOUND_8)
	};
	uint64_t	bits;
	uint64_t	mantissa;
	int32_t		exponent;

	memcpy(&bits, &v, sizeof(bits));
	mantissa = bits & MHM_MANTISSA_MASK;
	exponent = (int32_t) (bits >> MHM_MANTISSA_BITS);

	if (exponent == 0)
	{
		/* Subnormal: move the leading one to where it is implied */
		int			shift = __builtin_clzll(mantissa) - (63 - MHM_MANTISSA_BITS);

		mantissa = (mantissa << shift) & MHM_MANTISSA_MASK;
		exponent = 1 - shift;
	}

	return (exponent - MHM_EXPONENT_BIAS) * MHM_BUCKETS_PER_OCTAVE +
		(int32_t) ((mantissa + slots[mantissa >> (MHM_MANTISSA_BITS - 4)]) >> MHM_MANTISSA_BITS);
}

/*
 * The upper end of bucket i: the largest double of it.  Infinity for the bucket
 * of the largest finite double, zero below the bucket of the smallest.
 */
static inline double
mhm_bucket_upper(int32_t i)
{
	static const uint64_t bounds[MHM_BUCKETS_PER_OCTAVE] = {
		MHM_BOUND_0, MHM_BOUND_1, MHM_BOUND_2, MHM_BOUND_3,
		MHM_BOUND_4, MHM_BOUND_5, MHM_BOUND_6, MHM_BOUND_7
	};
	uint64_t	bits;
	int32_t		exponent;
	double		upper;

	if (i < MHM_BUCKET_INDEX_LOWEST)
		return 0.0;
	if (i >= MHM_BUCKET_INDEX_HIGHEST)
		return HUGE_VAL;

	/* Biased so that neither the division nor the remainder meets a sign */
	i += MHM_BUCKETS_PER_OCTAVE * 2048;
	exponent = i / MHM_BUCKETS_PER_OCTAVE - 2048 + MHM_EXPONENT_BIAS;
	bits = bounds[i % MHM_BUCKETS_PER_OCTAVE];

	if (exponent > 0)
		bits |= (uint64_t) exponent << MHM_MANTISSA_BITS;
	else
		bits = (bits | (UINT64_C(1) << MHM_MANTISSA_BITS)) >> (1 - exponent);

	memcpy(&upper, &bits, sizeof(upper));
	return upper;
}

/*
 * The bucket that holds bucket i after `steps` halvings of the resolution:
 * i / 2^steps, rounded up because the upper end is the inclusive one.
 */
static inline int32_t
mhm_bucket_downscale(int32_t i, int steps)
{
	/* gcc and clang define the right shift of a negative number as arithmetic */
	return (i + (1 << steps) - 1) >> steps;
}

/* The bucket of a positive finite value at a schema of 3 or lower */
static inline int32_t
mhm_bucket_index_at(double v, int schema)
{
	return mhm_bucket_downscale(mhm_bucket_index(v), MHM_HISTOGRAM_SCHEMA - schema);
}

/* The upper end of bucket i at a schema of 3 or lower */
static inline double
mhm_bucket_upper_at(int32_t i, int schema)
{
	return mhm_bucket_upper(i * (1 << (MHM_HISTOGRAM_SCHEMA - schema)));
}

#endif							/* MHM_HISTOGRAMBUCKET_H */
