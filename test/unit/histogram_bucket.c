/*
 * histogram_bucket.c
 *		Proves that mhm_bucket_index and mhm_bucket_upper describe the same
 *		buckets, the ones of base 2^(1/8), for every double.
 *
 * A program of its own: cc -I../../src histogram_bucket.c -lm.  Prints TAP.
 */
#include <float.h>
#include <stdbool.h>
#include <stdio.h>

#include "../../src/histogrambucket.h"

#define RANDOM_DOUBLES			5000000

static int	tests_run = 0;
static bool all_ok = true;

/* Wrong cases of the property under test, and the first of them */
static long wrong = 0;
static double wrong_value;
static int	wrong_index;

static void
check(bool right, double value, int index)
{
	if (right)
		return;
	if (wrong++ == 0)
	{
		wrong_value = value;
		wrong_index = index;
	}
}

static void
report(const char *property, long cases)
{
	bool		ok = wrong == 0 && cases > 0;

	printf("%sok %d - %s (%ld cases)\n", ok ? "" : "not ", ++tests_run, property, cases);
	if (!ok)
		printf("# %ld wrong, the first: value %a, bucket %d\n", wrong, wrong_value, wrong_index);
	all_ok = all_ok && ok;
	wrong = 0;
}

/* xorshift64*, so that every run sees the same doubles */
static uint64_t
next_random(void)
{
	static uint64_t state = UINT64_C(0x9e3779b97f4a7c15);

	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * UINT64_C(0x2545f4914f6cdd1d);
}

static double
from_bits(uint64_t bits)
{
	double		value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

/* Any positive finite double, every exponent alike */
static double
random_double(void)
{
	double		value;

	do
		value = from_bits(next_random() >> 1);
	while (!isfinite(value) || value == 0);
	return value;
}

/* The definition, found by bisection over the ends of the buckets */
static int
defined_index(double value)
{
	int			below = MHM_BUCKET_INDEX_LOWEST - 1;
	int			above = MHM_BUCKET_INDEX_HIGHEST;

	while (above - below > 1)
	{
		int			middle = below + (above - below) / 2;

		if (value <= mhm_bucket_upper(middle))
			above = middle;
		else
			below = middle;
	}
	return above;
}

/* Division that rounds down */
static int
floor_div(int a, int b)
{
	return a >= 0 ? a / b : -((-a + b - 1) / b);
}

static void
ends_are_powers(void)
{
	long		cases = 0;

	for (int i = MHM_BUCKET_INDEX_LOWEST; i < MHM_BUCKET_INDEX_HIGHEST; i++)
	{
		int			octave = floor_div(i, MHM_BUCKETS_PER_OCTAVE);
		int			part = i - octave * MHM_BUCKETS_PER_OCTAVE;
		double		root = (double) exp2l((long double) part / MHM_BUCKETS_PER_OCTAVE);
		double		expected = ldexp(root, octave);

		/* Below the normal doubles ldexp rounds to nearest, an end is rounded down */
		if (octave < DBL_MIN_EXP - 1)
		{
			double		unit = ldexp(1.0, DBL_MIN_EXP - DBL_MANT_DIG);

			expected = floor(ldexp(root, octave - (DBL_MIN_EXP - DBL_MANT_DIG))) * unit;
		}
		check(mhm_bucket_upper(i) == expected, expected, i);
		cases++;
	}
	report("every end of a bucket is 2^(i/8), correctly rounded", cases);
}

static void
ends_are_ordered(void)
{
	long		cases = 0;

	for (int i = MHM_BUCKET_INDEX_LOWEST; i <= MHM_BUCKET_INDEX_HIGHEST; i++)
	{
		double		lower = mhm_bucket_upper(i - 1);
		double		upper = mhm_bucket_upper(i);

		check(upper >= DBL_MIN ? lower < upper : lower <= upper, upper, i);
		cases++;
	}
	check(mhm_bucket_upper(MHM_BUCKET_INDEX_LOWEST - 1) == 0, 0, MHM_BUCKET_INDEX_LOWEST - 1);
	check(isinf(mhm_bucket_upper(MHM_BUCKET_INDEX_HIGHEST)), 0, MHM_BUCKET_INDEX_HIGHEST);
	report("the ends of the buckets rise from 0 to infinity", cases);
}

static void
ends_and_neighbours(void)
{
	long		cases = 0;

	for (int i = MHM_BUCKET_INDEX_LOWEST; i < MHM_BUCKET_INDEX_HIGHEST; i++)
	{
		double		end = mhm_bucket_upper(i);
		double		next = nextafter(end, HUGE_VAL);
		double		previous = nextafter(end, 0.0);

		check(mhm_bucket_index(end) == defined_index(end), end, i);
		check(mhm_bucket_index(next) == defined_index(next), next, i);
		if (previous > 0)
			check(mhm_bucket_index(previous) == defined_index(previous), previous, i);

		/* Where a bucket has doubles of its own, its end is the last of them */
		if (end > mhm_bucket_upper(i - 1))
			check(mhm_bucket_index(end) == i, end, i);
		if (end >= DBL_MIN)
			check(mhm_bucket_index(next) == i + 1, next, i);
		cases++;
	}
	report("the end of every bucket and both its neighbours are in their buckets", cases);
}

static void
powers_of_two(void)
{
	long		cases = 0;

	for (int e = DBL_MIN_EXP - DBL_MANT_DIG; e < DBL_MAX_EXP; e++)
	{
		double		power = ldexp(1.0, e);

		check(mhm_bucket_index(power) == e * MHM_BUCKETS_PER_OCTAVE, power, e * MHM_BUCKETS_PER_OCTAVE);
		check(mhm_bucket_upper(e * MHM_BUCKETS_PER_OCTAVE) == power, power, e * MHM_BUCKETS_PER_OCTAVE);
		cases++;
	}
	report("2^e ends bucket 8e, subnormals too", cases);
}

static void
random_doubles(void)
{
	long		cases = 0;

	for (; cases < RANDOM_DOUBLES; cases++)
	{
		double		value = random_double();
		int			i = mhm_bucket_index(value);

		check(mhm_bucket_upper(i - 1) < value && value <= mhm_bucket_upper(i), value, i);
	}
	report("a random double lies above the bucket before its own and not above its own", cases);
}

static void
random_subnormals(void)
{
	long		cases = 0;

	for (; cases < RANDOM_DOUBLES / 5; cases++)
	{
		/* From one significant bit to all of them */
		uint64_t	bits = (next_random() & MHM_MANTISSA_MASK) >> (cases % MHM_MANTISSA_BITS);
		double		value = from_bits(bits == 0 ? 1 : bits);
		int			i = mhm_bucket_index(value);

		check(i == defined_index(value), value, i);
	}
	report("a random subnormal is in its bucket", cases);
}

static void
extremes(void)
{
	double		smallest = nextafter(0.0, 1.0);

	check(mhm_bucket_index(smallest) == MHM_BUCKET_INDEX_LOWEST, smallest, MHM_BUCKET_INDEX_LOWEST);
	check(mhm_bucket_index(DBL_MAX) == MHM_BUCKET_INDEX_HIGHEST, DBL_MAX, MHM_BUCKET_INDEX_HIGHEST);
	check(mhm_bucket_index(DBL_MIN) == (DBL_MIN_EXP - 1) * MHM_BUCKETS_PER_OCTAVE, DBL_MIN, 0);
	check(mhm_bucket_index(nextafter(DBL_MIN, 0.0)) == (DBL_MIN_EXP - 1) * MHM_BUCKETS_PER_OCTAVE, DBL_MIN, 0);
	check(mhm_bucket_index(1.0) == 0, 1.0, 0);
	check(mhm_bucket_index(nextafter(1.0, 2.0)) == 1, 1.0, 1);
	report("the smallest, the largest and the first normal double", 6);
}

static void
coarser_schemas(void)
{
	long		cases = 0;

	for (int schema = MHM_HISTOGRAM_SCHEMA_LOWEST; schema <= MHM_HISTOGRAM_SCHEMA; schema++)
	{
		for (long n = 0; n < RANDOM_DOUBLES / 10; n++)
		{
			double		value = random_double();
			int			i = mhm_bucket_index_at(value, schema);

			check(mhm_bucket_upper_at(i - 1, schema) < value &&
				  value <= mhm_bucket_upper_at(i, schema), value, i);
			cases++;
		}
	}
	report("at every schema a random double is in its bucket", cases);
}

static void
downscaling_in_steps(void)
{
	long		cases = 0;

	for (int i = MHM_BUCKET_INDEX_LOWEST; i <= MHM_BUCKET_INDEX_HIGHEST; i++)
	{
		int			stepwise = i;

		for (int steps = 1; steps <= MHM_HISTOGRAM_SCHEMA - MHM_HISTOGRAM_SCHEMA_LOWEST; steps++)
		{
			stepwise = floor_div(stepwise + 1, 2);
			check(mhm_bucket_downscale(i, steps) == stepwise, steps, i);
			cases++;
		}
	}
	report("downscaling at once is downscaling step by step", cases);
}

/* What a window of an accumulator must hold, and what it must not */
static void
windows(void)
{
	long		cases = 0;

	for (int e = MHM_MIN_EXPONENT_LOWEST; e <= MHM_MIN_EXPONENT_HIGHEST; e++)
	{
		int			first = e * MHM_BUCKETS_PER_OCTAVE + 1;
		double		lower = ldexp(1.0, e);
		double		upper = ldexp(1.0, e + MHM_WINDOW_OCTAVES);

		check(isfinite(upper), upper, e);
		check(mhm_bucket_index(lower) - first == -1, lower, e);
		check(mhm_bucket_index(nextafter(lower, upper)) - first == 0, lower, e);
		check(mhm_bucket_index(upper) - first == MHM_HISTOGRAM_BUCKETS - 1, upper, e);
		check(mhm_bucket_index(nextafter(upper, HUGE_VAL)) - first == MHM_HISTOGRAM_BUCKETS, upper, e);
		cases++;
	}
	report("every window begins above 2^E and ends at 2^(E + 32)", cases);
}

int
main(void)
{
	ends_are_powers();
	ends_are_ordered();
	ends_and_neighbours();
	powers_of_two();
	random_doubles();
	random_subnormals();
	extremes();
	coarser_schemas();
	downscaling_in_steps();
	windows();
	printf("1..%d\n", tests_run);
	return all_ok ? 0 : 1;
}
