/*
 * taken_parts.h
 *		What a flush takes of the series of a region, and whether it belongs to
 *		the same samples.
 *
 * Included once by a test, after region_fixture.h. The region has a counter, a
 * histogram and a gauge for each recorder. The histogram's samples have a value
 * of their own for each bucket, and a gauge is set to 1, 2, 3 and so on. So
 * from the buckets, or from the count, it can be said what sum, minimum,
 * maximum and last value there have to be.
 */
#ifndef MHM_TEST_TAKEN_PARTS_H
#define MHM_TEST_TAKEN_PARTS_H

#include "../../src/flushcollect.c"

#define RECORDERS		3
#define COUNTER			0
#define HISTOGRAM		1
#define GAUGE			2			/* the first; one for each recorder */
#define SERIES			(GAUGE + RECORDERS)
#define ADDED			2.0

static const MhmGeometry geometry = {8, 2, 10, 3, 8, 16, 8, 48, 4};

/* What one flush has of a series, or several of them together */
typedef struct Part
{
	uint64		count;
	double		sum;
	double		min;
	double		max;
	double		last;
	uint64		counts[MHM_COUNTS];
} Part;

typedef struct Parts
{
	Part		series[SERIES];
} Parts;

/* As the journal keeps it: enough to note again what is stored */
typedef struct Journal
{
	uint32		changes_count;
	MhmChange	changes[SERIES];
	uint16		buckets[SERIES][MHM_COUNTS];
	uint64		buckets_after[SERIES][MHM_COUNTS];
	Parts		parts;
} Journal;

static MhmRegion *region;
static Size bytes;
static MhmTarget targets[SERIES];

/* What flushcollect.c wants of histogramcodec.c */
struct varlena *
mhm_histogram_from_window(int min_exponent, const uint64 *buckets, uint64 zero, uint64 overflow,
						  double sum, double min, double max)
{
	Part	   *part = malloc(sizeof(Part));

	part->sum = sum;
	part->min = min;
	part->max = max;
	memcpy(part->counts, buckets, MHM_HISTOGRAM_BUCKETS * sizeof(uint64));
	part->counts[MHM_COUNT_ZERO] = zero;
	part->counts[MHM_COUNT_OVERFLOW] = overflow;
	return (struct varlena *) part;
}

/* A value within each bucket, whose sums are exact; the window begins at 2^-20 */
static double
value_in_bucket(int bucket)
{
	static const int within[MHM_HISTOGRAM_BUCKETS] = {67, 73, 79, 87, 95, 103, 112, 123};

	if (bucket == MHM_COUNT_ZERO)
		return -2;
	if (bucket == MHM_COUNT_OVERFLOW)
		return 64;
	return within[bucket] / 67108864.0;
}

static bool
record(int series, double value)
{
	MhmOperation operation = series == COUNTER ? MHM_INC : series == HISTOGRAM ? MHM_OBSERVE : MHM_GAUGE_SET;

	return mhm_accumulate(&targets[series], operation, value, 1, stub_now);
}

static void
clear_parts(Parts *parts)
{
	memset(parts, 0, sizeof(*parts));
	for (int i = 0; i < SERIES; i++)
	{
		parts->series[i].min = INFINITY;
		parts->series[i].max = -INFINITY;
	}
}

/* Later ones come second */
static void
add_parts(Parts *to, const Parts *parts)
{
	for (int i = 0; i < SERIES; i++)
	{
		const Part *part = &parts->series[i];
		Part	   *sum = &to->series[i];

		sum->count += part->count;
		sum->sum += part->sum;
		sum->min = Min(sum->min, part->min);
		sum->max = Max(sum->max, part->max);
		if (part->count > 0)
			sum->last = part->last;
		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
			sum->counts[bucket] += part->counts[bucket];
	}
}

static pg_attribute_unused() void
add_sample(Parts *to, int series, double value)
{
	Parts		sample;
	Part	   *part = &sample.series[series];

	clear_parts(&sample);
	part->count = 1;
	part->sum = value;
	if (series != COUNTER)
		part->min = part->max = value;
	if (series >= GAUGE)
		part->last = value;
	for (int bucket = 0; series == HISTOGRAM && bucket < MHM_COUNTS; bucket++)
		part->counts[bucket] = value_in_bucket(bucket) == value;
	add_parts(to, &sample);
}

static bool
same_parts(const Parts *a, const Parts *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static const char *
show_parts(const Parts *parts)
{
	static char text[4][600];
	static int	next = 0;
	char	   *shown = text[next++ % 4];
	int			length = 0;

	for (int i = 0; i < SERIES; i++)
		length += snprintf(shown + length, sizeof(text[0]) - length, "[%lu: sum %.17g, %.17g to %.17g, last %.17g]",
						   parts->series[i].count, parts->series[i].sum, parts->series[i].min,
						   parts->series[i].max, parts->series[i].last);
	return shown;
}

/* Does each part belong to the same samples?  Says the first that does not. */
static void
require_consistent(const Parts *parts, const char *which)
{
	Parts		expected;
	const Part *buckets = &parts->series[HISTOGRAM];

	clear_parts(&expected);
	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
	{
		Part	   *part = &expected.series[HISTOGRAM];
		double		value = value_in_bucket(bucket);

		part->counts[bucket] = buckets->counts[bucket];
		part->count += buckets->counts[bucket];
		part->sum += value * buckets->counts[bucket];
		part->min = Min(part->min, buckets->counts[bucket] > 0 ? value : INFINITY);
		part->max = Max(part->max, buckets->counts[bucket] > 0 ? value : -INFINITY);
	}
	expected.series[COUNTER].count = parts->series[COUNTER].count;
	expected.series[COUNTER].sum = parts->series[COUNTER].count * ADDED;
	for (int i = GAUGE; i < SERIES; i++)
	{
		const Part *part = &parts->series[i];

		expected.series[i] = *part;
		if (part->count == 0)
			continue;
		expected.series[i].count = part->max - part->min + 1;
		expected.series[i].sum = (part->min + part->max) * part->count / 2;
		/* The one who sets it may have been killed before that was counted */
		if (part->last != part->max + 1)
			expected.series[i].last = part->max;
	}
	REQUIRE(same_parts(parts, &expected), "%s is not of the same samples: %s instead of %s",
			which, show_parts(parts), show_parts(&expected));
}

static int
series_of_number(uint32 number)
{
	for (int i = 0; i < SERIES; i++)
		if (targets[i].series == number)
			return i;
	fail_case("a series is taken that there is not");
	return 0;
}

/* Collect as the worker does, and keep it as the journal does */
static void
take(Journal *journal)
{
	MhmFlush	flush = {0};

	clear_parts(&journal->parts);
	mhm_flush_collect(&flush, false);
	journal->changes_count = flush.changes_count;
	for (uint32 i = 0; i < flush.changes_count; i++)
	{
		MhmChange  *change = &flush.changes[i];
		int			which = series_of_number(change->number);
		Part	   *part = &journal->parts.series[which];

		part->count = change->count;
		part->sum = change->sum;
		part->min = change->min;
		part->max = change->max;
		part->last = change->last;
		journal->changes[i] = *change;
		if (change->histogram == NULL)
			continue;
		memcpy(part->counts, ((Part *) change->histogram)->counts, sizeof(part->counts));
		memcpy(journal->buckets[i], change->buckets, change->buckets_count * sizeof(uint16));
		memcpy(journal->buckets_after[i], change->buckets_after, change->buckets_count * sizeof(uint64));
		free(change->histogram);
		pfree(change->buckets);
		pfree(change->buckets_after);
	}
	pfree(flush.changes);
}

/* Note that it is stored; also by another process, from what it kept */
static void
apply(Journal *journal)
{
	MhmFlush	flush = {.changes = journal->changes,.changes_count = journal->changes_count};

	for (uint32 i = 0; i < journal->changes_count; i++)
	{
		journal->changes[i].buckets = journal->buckets[i];
		journal->changes[i].buckets_after = journal->buckets_after[i];
	}
	mhm_flush_apply(&flush);
}

/* An empty region with all of the series */
static void
make_series(void)
{
	make_test_region(region, &geometry);
	find_target("c", MHM_COUNTER, 1, 'a', 30, &targets[COUNTER]);
	find_target("h", MHM_HISTOGRAM, 2, 'b', 3, &targets[HISTOGRAM]);
	for (int i = GAUGE; i < SERIES; i++)
		find_target("g", MHM_GAUGE, 1, 'a' + i, 3, &targets[i]);
}

/* Somebody waits for what never comes; the children die with us */
static void
give_up(int number)
{
	char		line[200];
	int			length = snprintf(line, sizeof(line), "not ok %d - it came to no end\n1..%d\n",
								  tests_run + 1, tests_run + 1);

	_exit(write(STDOUT_FILENO, line, length) == length ? 1 : 2);
}

#endif							/* MHM_TEST_TAKEN_PARTS_H */
