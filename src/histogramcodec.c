/*
 * histogramcodec.c
 *		The compact form of a histogram: its bytes, written and read.
 *
 * Called by everything that stores or reads a histogram: the type's input and
 * output, its accessors and aggregates, and the snapshot of an accumulator in
 * shared memory (mhm_histogram_from_window).  Works on bytes handed in; keeps no
 * state, takes no lock.
 *
 * The compact form, which is also the binary form on the wire:
 *
 *		byte	version
 *		byte	schema + 4, and the FLAG_ bits below
 *	no more where the count is 0, else
 *		3 * 8	sum, min, max, in network byte order
 *		varint	zero count						if FLAG_ZERO
 *		varint	exponent of its threshold		if FLAG_ZERO_THRESHOLD, else 0
 *		varint	overflow count					if FLAG_OVERFLOW
 *		varint	exponent of its threshold		if FLAG_OVERFLOW_THRESHOLD, else 0
 *	and, where there are buckets, up to the end:
 *		varint	index of the first one
 *		varint	its count * 2, then for each further one
 *		varint	count * 2, and 1 more if empty buckets lie before it
 *		varint	how many they are				if so
 *
 * Version 1 is of what one window recorded: at most one zero and one overflow count,
 * with no bucket beyond their thresholds.  Version 2, of what windows that differ
 * have recorded, has instead of the four lines about these counts
 *		varint	how many zero counts			if FLAG_ZERO, for each
 *		varint		1 + exponent of its threshold, or 0
 *		varint		the count
 *	and the same for overflow counts			if FLAG_OVERFLOW
 * in the order of their thresholds.
 *
 * A varint has seven bits in a byte, lowest first, the high bit set in all but
 * the last.  Exponents and indexes alternate in sign: 0, -1, 1, -2, …  A minute
 * of durations fills some 45 neighbouring buckets: two bytes each at most.
 *
 * Each histogram has one compact form only, and the reader refuses any other.
 */
#include "postgres.h"

#include <float.h>

#include "common/shortest_dec.h"
#include "port/pg_bswap.h"

#include "histogram.h"
#include "histogramcompat.h"

#define VERSION_ONE_WINDOW			1
#define VERSION_MANY_WINDOWS		2

#define SCHEMA_MASK					0x07
#define FLAG_ZERO					0x08
#define FLAG_ZERO_THRESHOLD			0x10
#define FLAG_OVERFLOW				0x20
#define FLAG_OVERFLOW_THRESHOLD		0x40
#define FLAG_UNKNOWN				0x80

/* Ten times seven bits hold 64 */
#define VARINT_SIZE_MAX				10
#define VARINT_SHIFT_MAX			63

/* Version, flags, three doubles, how many counts of both sides, the first index */
#define HEADER_SIZE_MAX				(2 + 3 * 8 + 3 * VARINT_SIZE_MAX)
/* A count of either side with its threshold */
#define END_SIZE_MAX				(2 * VARINT_SIZE_MAX)
/* A count and a gap */
#define BUCKET_SIZE_MAX				(2 * VARINT_SIZE_MAX)

static uint64
zigzag(int32 value)
{
	return value < 0 ? ((uint64) -(value + 1) << 1) | 1 : (uint64) value << 1;
}

static unsigned char *
put_varint(unsigned char *at, uint64 value)
{
	while (value >= 0x80)
	{
		*at++ = (unsigned char) (value | 0x80);
		value >>= 7;
	}
	*at++ = (unsigned char) value;
	return at;
}

static unsigned char *
put_double(unsigned char *at, double value)
{
	uint64		bits;

	memcpy(&bits, &value, sizeof(bits));
	bits = pg_hton64(bits);
	memcpy(at, &bits, sizeof(bits));
	return at + sizeof(bits);
}

/*
 * The index of the bucket that ends at 2^exponent.  The schema must be fine
 * enough for there to be one.
 */
int32
mhm_threshold_index(int exponent, int schema)
{
	return schema >= 0 ? exponent * (1 << schema) : exponent / (1 << -schema);
}

/* The other way round */
static int
threshold_exponent(int32 index, int schema)
{
	/* MHM_INDEX_ALL has none; what comes out for it is not used */
	return schema >= 0 ? index / (1 << schema) : (int) ((int64) index * (1 << -schema));
}

/* The threshold itself; 0 for a threshold that is no end of a bucket */
double
mhm_threshold_value(int32 index, int schema)
{
	return index == MHM_INDEX_NONE ? 0.0 : mhm_bucket_upper_at(index, schema);
}

/*
 * Could one window have recorded this?  Of the buckets that are filled, if there
 * are any, the first and the last are given.
 */
static bool
is_of_one_window(const MhmHistogramSummary *summary, bool has_buckets, int32 first, int32 last)
{
	const MhmEnds *zero = &summary->zero;
	const MhmEnds *overflow = &summary->overflow;

	if (zero->size > 1 || overflow->size > 1)
		return false;
	if (overflow->size > 0 && overflow->at->index == MHM_INDEX_NONE)
		return zero->size == 0 && !has_buckets;
	if (zero->size > 0 && overflow->size > 0 && zero->at->index > overflow->at->index)
		return false;
	return !has_buckets ||
		((zero->size == 0 || first > zero->at->index) &&
		 (overflow->size == 0 || last <= overflow->at->index));
}

/* The count of one window's side, and its threshold if it has one */
static unsigned char *
put_end(unsigned char *at, const MhmEnds *ends, int schema,
		unsigned char *flags, int flag, int threshold_flag)
{
	if (ends->size == 0)
		return at;
	*flags |= flag;
	at = put_varint(at, ends->at->count);
	if (ends->at->index == MHM_INDEX_NONE)
		return at;
	*flags |= threshold_flag;
	return put_varint(at, zigzag(threshold_exponent(ends->at->index, schema)));
}

/* The counts of one side, of many windows */
static unsigned char *
put_ends(unsigned char *at, const MhmEnds *ends, int schema, unsigned char *flags, int flag)
{
	if (ends->size == 0)
		return at;
	*flags |= flag;
	at = put_varint(at, (uint64) ends->size);
	for (int i = 0; i < ends->size; i++)
	{
		int32		index = ends->at[i].index;

		at = put_varint(at, index == MHM_INDEX_NONE ? 0 : zigzag(threshold_exponent(index, schema)) + 1);
		at = put_varint(at, ends->at[i].count);
	}
	return at;
}

/* Write the compact form.  counts[0] is the count of bucket `first`. */
struct varlena *
mhm_histogram_compact(const MhmHistogramSummary *summary, int32 first,
					  const uint64 *counts, int32 size)
{
	const MhmEnds *zero = &summary->zero;
	const MhmEnds *overflow = &summary->overflow;
	struct varlena *result;
	unsigned char *start;
	unsigned char *at;
	unsigned char flags = (unsigned char) (summary->schema - MHM_HISTOGRAM_SCHEMA_LOWEST);
	int32		filled = 0;
	int32		first_filled = 0;
	int32		last_filled = 0;
	int32		empty = 0;
	bool		started = false;
	bool		one_window;

	for (int32 i = 0; i < size; i++)
	{
		if (counts[i] == 0)
			continue;
		if (filled++ == 0)
			first_filled = first + i;
		last_filled = first + i;
	}
	one_window = is_of_one_window(summary, filled > 0, first_filled, last_filled);

	result = palloc(VARHDRSZ + HEADER_SIZE_MAX + (Size) (zero->size + overflow->size) * END_SIZE_MAX +
					(Size) filled * BUCKET_SIZE_MAX);
	start = (unsigned char *) VARDATA(result);
	at = start + 2;

	if (filled > 0 || zero->size > 0 || overflow->size > 0)
	{
		at = put_double(at, summary->sum);
		at = put_double(at, summary->min);
		at = put_double(at, summary->max);
	}
	if (one_window)
	{
		at = put_end(at, zero, summary->schema, &flags, FLAG_ZERO, FLAG_ZERO_THRESHOLD);
		at = put_end(at, overflow, summary->schema, &flags, FLAG_OVERFLOW, FLAG_OVERFLOW_THRESHOLD);
	}
	else
	{
		at = put_ends(at, zero, summary->schema, &flags, FLAG_ZERO);
		at = put_ends(at, overflow, summary->schema, &flags, FLAG_OVERFLOW);
	}

	for (int32 i = 0; i < size; i++)
	{
		if (counts[i] == 0)
		{
			empty++;
			continue;
		}
		if (!started)
			at = put_varint(at, zigzag(first + i));
		if (started && empty > 0)
		{
			at = put_varint(at, counts[i] << 1 | 1);
			at = put_varint(at, (uint64) empty);
		}
		else
			at = put_varint(at, counts[i] << 1);
		started = true;
		empty = 0;
	}

	start[0] = one_window ? VERSION_ONE_WINDOW : VERSION_MANY_WINDOWS;
	start[1] = flags;
	SET_VARSIZE(result, at - (unsigned char *) result);
	return result;
}

/* Note what is malformed, the first time */
static bool
fail(MhmHistogramReader *reader, const char *problem)
{
	if (reader->problem == NULL)
		reader->problem = problem;
	return false;
}

/* Read a number, whatever its length */
static bool
get_long_varint(MhmHistogramReader *reader, uint64 *value)
{
	uint64		result = 0;

	for (int shift = 0; shift <= VARINT_SHIFT_MAX; shift += 7)
	{
		unsigned char byte;

		if (reader->at == reader->end)
			return fail(reader, "it ends in the middle of a number");
		byte = *reader->at++;
		if (shift == VARINT_SHIFT_MAX && byte > 1)
			return fail(reader, "a number has more than 64 bits");
		result |= (uint64) (byte & 0x7f) << shift;
		if (byte < 0x80)
		{
			if (byte == 0 && shift > 0)
				return fail(reader, "a number is longer than it needs to be");
			*value = result;
			return true;
		}
	}
	return fail(reader, "a number has more than 64 bits");
}

/* Read a number, most often of one byte */
static inline bool
get_varint(MhmHistogramReader *reader, uint64 *value)
{
	if (reader->at < reader->end && *reader->at < 0x80)
	{
		*value = *reader->at++;
		return true;
	}
	return get_long_varint(reader, value);
}

/* Read a signed number of at most the given magnitude */
static bool
get_signed(MhmHistogramReader *reader, int32 limit, int32 *value)
{
	uint64		encoded;

	if (!get_varint(reader, &encoded))
		return false;
	if (encoded > (uint64) limit * 2)
		return fail(reader, "an index or exponent is beyond the range of doubles");
	*value = (int32) (encoded >> 1);
	if (encoded & 1)
		*value = -*value - 1;
	return true;
}

static bool
get_double(MhmHistogramReader *reader, double *value)
{
	uint64		bits;

	if ((size_t) (reader->end - reader->at) < sizeof(bits))
		return fail(reader, "it ends in the middle of sum, min and max");
	memcpy(&bits, reader->at, sizeof(bits));
	reader->at += sizeof(bits);
	bits = pg_ntoh64(bits);
	memcpy(value, &bits, sizeof(bits));
	if (!isfinite(*value) || signbit(*value))
		return fail(reader, "sum, min or max is negative, infinite or not a number");
	return true;
}

/* Add a count to the total, which stays below 2^63 */
static bool
count_up(MhmHistogramReader *reader, uint64 count)
{
	if (count == 0)
		return fail(reader, "a count that is stored is 0");
	if (count > MHM_HISTOGRAM_COUNT_MAX - reader->total)
		return fail(reader, "the counts add up to more than 9223372036854775807");
	reader->total += count;
	return true;
}

/* The index of the bucket that ends at 2^exponent, if one does */
static bool
use_exponent(MhmHistogramReader *reader, int32 exponent, int32 *index)
{
	int			schema = reader->summary.schema;

	if (exponent < DBL_MIN_EXP - DBL_MANT_DIG || exponent >= DBL_MAX_EXP)
		return fail(reader, "a threshold is beyond the range of doubles");
	*index = mhm_threshold_index(exponent, schema);
	if (threshold_exponent(*index, schema) != exponent)
		return fail(reader, "a threshold cuts through a bucket");
	return true;
}

#define EXPONENT_LIMIT		(1 - DBL_MIN_EXP + DBL_MANT_DIG)

/* Read a count of one window with the threshold that belongs to it */
static bool
get_end(MhmHistogramReader *reader, bool has_threshold, MhmEnds *ends, MhmEnd *own)
{
	int32		exponent;

	if (!get_varint(reader, &own->count) || !count_up(reader, own->count))
		return false;
	own->index = MHM_INDEX_NONE;
	if (has_threshold &&
		(!get_signed(reader, EXPONENT_LIMIT, &exponent) ||
		 !use_exponent(reader, exponent, &own->index)))
		return false;
	ends->at = own;
	ends->size = 1;
	return true;
}

/* Read one of the counts of many windows */
static bool
get_next_end(MhmHistogramReader *reader, MhmEnd *end)
{
	uint64		encoded;
	int32		exponent;

	if (!get_varint(reader, &encoded))
		return false;
	end->index = MHM_INDEX_NONE;
	if (encoded > (uint64) EXPONENT_LIMIT * 2 + 1)
		return fail(reader, "an index or exponent is beyond the range of doubles");
	if (encoded > 0)
	{
		encoded--;
		exponent = (int32) (encoded >> 1);
		if (encoded & 1)
			exponent = -exponent - 1;
		if (!use_exponent(reader, exponent, &end->index))
			return false;
	}
	return get_varint(reader, &end->count) && count_up(reader, end->count);
}

/* Read the counts of one side, of many windows */
static bool
get_ends(MhmHistogramReader *reader, MhmEnds *ends, MhmEnd *own)
{
	uint64		size;

	if (!get_varint(reader, &size))
		return false;
	/* Each has two bytes at least, and a threshold of its own */
	if (size == 0 || size > (uint64) (reader->end - reader->at) / 2)
		return fail(reader, "the number of its zero or overflow counts is not possible");
	ends->at = size == 1 ? own : palloc(size * sizeof(MhmEnd));
	for (ends->size = 0; ends->size < (int) size; ends->size++)
	{
		if (!get_next_end(reader, &ends->at[ends->size]))
			return false;
		if (ends->size > 0 && ends->at[ends->size].index <= ends->at[ends->size - 1].index)
			return fail(reader, "its thresholds do not rise");
	}
	return true;
}

/* Read the zero and overflow counts that the flags speak of */
static bool
get_both_ends(MhmHistogramReader *reader, unsigned char flags)
{
	MhmHistogramSummary *summary = &reader->summary;

	if (reader->version == VERSION_ONE_WINDOW)
		return ((flags & FLAG_ZERO) == 0 ||
				get_end(reader, (flags & FLAG_ZERO_THRESHOLD) != 0, &summary->zero, &reader->own[0])) &&
			((flags & FLAG_OVERFLOW) == 0 ||
			 get_end(reader, (flags & FLAG_OVERFLOW_THRESHOLD) != 0, &summary->overflow, &reader->own[1]));
	return ((flags & FLAG_ZERO) == 0 || get_ends(reader, &summary->zero, &reader->own[0])) &&
		((flags & FLAG_OVERFLOW) == 0 || get_ends(reader, &summary->overflow, &reader->own[1]));
}

/*
 * Begin to read: everything but the buckets.  The bytes must stay in place until
 * the reading ends.
 */
void
mhm_histogram_read(MhmHistogramReader *reader, const void *bytes, size_t length)
{
	MhmHistogramSummary *summary = &reader->summary;
	unsigned char flags;

	memset(reader, 0, sizeof(*reader));
	reader->start = bytes;
	reader->at = reader->start;
	reader->end = reader->start + length;
	summary->schema = MHM_HISTOGRAM_SCHEMA;

	if (length < 2)
	{
		fail(reader, "it is shorter than two bytes");
		return;
	}
	reader->version = *reader->at++;
	if (reader->version != VERSION_ONE_WINDOW && reader->version != VERSION_MANY_WINDOWS)
	{
		fail(reader, "its version is unknown");
		return;
	}
	flags = *reader->at++;
	summary->schema = (flags & SCHEMA_MASK) + MHM_HISTOGRAM_SCHEMA_LOWEST;
	if ((flags & FLAG_UNKNOWN) != 0 ||
		((flags & FLAG_ZERO_THRESHOLD) != 0 && (flags & FLAG_ZERO) == 0) ||
		((flags & FLAG_OVERFLOW_THRESHOLD) != 0 && (flags & FLAG_OVERFLOW) == 0) ||
		(reader->version == VERSION_MANY_WINDOWS && (flags & (FLAG_ZERO_THRESHOLD | FLAG_OVERFLOW_THRESHOLD)) != 0))
	{
		fail(reader, "its flags are unknown");
		return;
	}
	if (reader->at == reader->end && (flags & (FLAG_ZERO | FLAG_OVERFLOW)) == 0)
		return;

	if (!get_double(reader, &summary->sum) ||
		!get_double(reader, &summary->min) ||
		!get_double(reader, &summary->max))
		return;
	if (!get_both_ends(reader, flags))
		return;
	if (reader->at == reader->end && reader->total == 0)
		fail(reader, "it has a sum but no counts");
}

/* Read the index of the first bucket, so that the next one follows it */
static bool
get_first_index(MhmHistogramReader *reader)
{
	if (!get_signed(reader, -MHM_BUCKET_INDEX_LOWEST, &reader->index))
		return false;
	if (reader->index < mhm_bucket_downscale(MHM_BUCKET_INDEX_LOWEST,
											 MHM_HISTOGRAM_SCHEMA - reader->summary.schema))
		return fail(reader, "a bucket is beyond the range of doubles");
	reader->index--;
	return true;
}

/*
 * Read the next bucket.  False at the end, and where something is malformed.
 */
bool
mhm_histogram_next(MhmHistogramReader *reader)
{
	const MhmHistogramSummary *summary = &reader->summary;
	uint64		count;
	uint64		gap = 0;

	if (reader->problem != NULL || reader->at == reader->end)
		return false;
	if (!reader->started && !get_first_index(reader))
		return false;
	if (!get_varint(reader, &count))
		return false;
	if ((count & 1) != 0)
	{
		if (!get_varint(reader, &gap))
			return false;
		if (gap == 0 || gap > MHM_BUCKET_INDEX_HIGHEST - MHM_BUCKET_INDEX_LOWEST || !reader->started)
			return fail(reader, "the gap before a bucket is not possible");
	}
	reader->started = true;
	reader->count = count >> 1;
	reader->index += 1 + (int32) gap;

	if (reader->index > mhm_bucket_downscale(MHM_BUCKET_INDEX_HIGHEST,
											 MHM_HISTOGRAM_SCHEMA - summary->schema))
		return fail(reader, "a bucket is beyond the range of doubles");
	if (reader->version == VERSION_ONE_WINDOW &&
		((summary->zero.size > 0 && reader->index <= summary->zero.at->index) ||
		 (summary->overflow.size > 0 && reader->index > summary->overflow.at->index)))
		return fail(reader, "a bucket lies beyond a threshold");
	return count_up(reader, reader->count);
}

/* Can buckets lie beyond thresholds? */
bool
mhm_histogram_is_of_many_windows(const MhmHistogramReader *reader)
{
	return reader->version == VERSION_MANY_WINDOWS;
}

/* The least and the greatest double of a part of a histogram */
typedef struct Range
{
	double		least;
	double		greatest;
} Range;

static Range
zero_range(int32 index, int schema)
{
	return (Range)
	{
		0.0, mhm_threshold_value(index, schema)
	};
}

static Range
overflow_range(int32 index, int schema)
{
	/* Nothing is known of these: they can be exact zeros too */
	if (index == MHM_INDEX_NONE)
		return (Range)
	{
		0.0, DBL_MAX
	};
	return (Range)
	{
		nextafter(mhm_bucket_upper_at(index, schema), HUGE_VAL), DBL_MAX
	};
}

static Range
bucket_range(int32 index, int schema)
{
	return (Range)
	{
		nextafter(mhm_bucket_upper_at(index - 1, schema), HUGE_VAL),
			Min(mhm_bucket_upper_at(index, schema), DBL_MAX)
	};
}

/* Another part that is filled: the least value lies in no later one, the greatest in no earlier */
static void
include_part(Range part, Range *lowest, Range *highest)
{
	lowest->least = Min(lowest->least, part.least);
	lowest->greatest = Min(lowest->greatest, part.greatest);
	highest->least = Max(highest->least, part.least);
	highest->greatest = Max(highest->greatest, part.greatest);
}

/* Where the minimum and the maximum must be */
static void
end_ranges(const MhmHistogramSummary *summary, bool has_buckets,
		   int32 first, int32 last, Range *lowest, Range *highest)
{
	*lowest = (Range) {DBL_MAX, DBL_MAX};
	*highest = (Range) {0.0, 0.0};
	for (int i = 0; i < summary->zero.size; i++)
		include_part(zero_range(summary->zero.at[i].index, summary->schema), lowest, highest);
	for (int i = 0; i < summary->overflow.size; i++)
		include_part(overflow_range(summary->overflow.at[i].index, summary->schema), lowest, highest);
	if (has_buckets)
	{
		include_part(bucket_range(first, summary->schema), lowest, highest);
		include_part(bucket_range(last, summary->schema), lowest, highest);
	}
}

/*
 * Read a compact form to its end.  What is wrong with it, in words, or NULL: the
 * check that input from outside must pass.
 */
char *
mhm_histogram_problem(const void *bytes, size_t length)
{
	MhmHistogramReader reader;
	const MhmHistogramSummary *summary = &reader.summary;
	int32		first = 0;
	Range		lowest;
	Range		highest;

	mhm_histogram_read(&reader, bytes, length);
	if (mhm_histogram_next(&reader))
	{
		first = reader.index;
		while (mhm_histogram_next(&reader))
			;
	}
	if (reader.problem != NULL)
		return psprintf("%s (at byte %d)", reader.problem, (int) (reader.at - reader.start));
	if (is_of_one_window(summary, reader.started, first, reader.index) !=
		(reader.version == VERSION_ONE_WINDOW))
		return psprintf("its version is %d, but its contents are those of the other one", reader.version);
	if (reader.total == 0)
		return NULL;

	end_ranges(summary, reader.started, first, reader.index, &lowest, &highest);
	if (summary->min > summary->max)
		return psprintf("min %s is above max %s",
						double_to_shortest_decimal(summary->min), double_to_shortest_decimal(summary->max));
	if (reader.total == 1 && summary->min < summary->max)
		return psprintf("its one observation is min %s and max %s",
						double_to_shortest_decimal(summary->min),
						double_to_shortest_decimal(summary->max));
	if (summary->min < lowest.least || summary->min > lowest.greatest)
		return psprintf("min %s is not in the lowest bucket that is filled, from %s to %s",
						double_to_shortest_decimal(summary->min),
						double_to_shortest_decimal(lowest.least), double_to_shortest_decimal(lowest.greatest));
	if (summary->max < highest.least || summary->max > highest.greatest)
		return psprintf("max %s is not in the highest bucket that is filled, from %s to %s",
						double_to_shortest_decimal(summary->max),
						double_to_shortest_decimal(highest.least), double_to_shortest_decimal(highest.greatest));
	return NULL;
}

/* The value, or the nearest in the range; the least for not a number */
static double
clamp(double value, Range range)
{
	if (!(value >= range.least))
		return range.least;
	/* A zero has no sign in a histogram */
	return Min(value, range.greatest) + 0.0;
}

/*
 * The histogram of an accumulator with lowest exponent min_exponent: buckets[k]
 * counts bucket 8 * min_exponent + 1 + k, zero what is at or below
 * 2^min_exponent, overflow what is above 2^(min_exponent + 32).
 *
 * The parts need not have been read at one moment.  Minimum and maximum are moved
 * into the lowest and highest bucket that is filled, a sum that is no number of
 * a histogram is mended, and without a count there is no sum.
 */
struct varlena *
mhm_histogram_from_window(int min_exponent, const uint64 *buckets,
						  uint64 zero, uint64 overflow,
						  double sum, double min, double max)
{
	MhmHistogramSummary summary = {
		.schema = MHM_HISTOGRAM_SCHEMA
	};
	int32		first = min_exponent * MHM_BUCKETS_PER_OCTAVE + 1;
	MhmEnd		below = {.index = first - 1,.count = zero};
	MhmEnd		above = {.index = first - 1 + MHM_HISTOGRAM_BUCKETS,.count = overflow};
	int32		lowest_filled = -1;
	int32		highest_filled = -1;
	uint64		total = zero;
	bool		too_many = zero > MHM_HISTOGRAM_COUNT_MAX;

	if (min_exponent < MHM_MIN_EXPONENT_LOWEST || min_exponent > MHM_MIN_EXPONENT_HIGHEST)
		elog(ERROR, "a histogram cannot begin at 2^%d", min_exponent);

	for (int32 k = 0; k < MHM_HISTOGRAM_BUCKETS; k++)
	{
		if (buckets[k] == 0)
			continue;
		if (lowest_filled < 0)
			lowest_filled = k;
		highest_filled = k;
		too_many = too_many || buckets[k] > MHM_HISTOGRAM_COUNT_MAX - total;
		total += buckets[k];
	}
	too_many = too_many || overflow > MHM_HISTOGRAM_COUNT_MAX - total;
	total += overflow;
	if (too_many)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("a histogram cannot count more than 9223372036854775807 observations"),
				 errhint("Reset the metric with meshhook_metrics.reset().")));

	if (zero > 0)
		summary.zero = (MhmEnds) {.size = 1,.at = &below};
	if (overflow > 0)
		summary.overflow = (MhmEnds) {.size = 1,.at = &above};

	if (total > 0)
	{
		Range		lowest;
		Range		highest;

		end_ranges(&summary, lowest_filled >= 0, first + lowest_filled, first + highest_filled,
				   &lowest, &highest);
		summary.max = clamp(max, highest);
		summary.min = total == 1 ? summary.max : Min(clamp(min, lowest), summary.max);
		summary.sum = clamp(sum, (Range) {0.0, DBL_MAX});
	}
	return mhm_histogram_compact(&summary, first, buckets, MHM_HISTOGRAM_BUCKETS);
}
