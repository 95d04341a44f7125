/*
 * histogram.h
 *		The SQL type histogram: its model, its compact form, and the state in
 *		which histograms are merged.
 *
 * A histogram has sparse buckets over the positive doubles (histogrambucket.h),
 * zero counts for what lies at or below a zero threshold, overflow counts for
 * what lies above an overflow threshold, and the sum, minimum and maximum of all
 * observations.  Its count is the sum of these counts and stored nowhere.
 *
 * What one accumulator recorded has at most one zero count and one overflow
 * count, and no bucket beyond their thresholds.  Merged with what another window
 * recorded it keeps all buckets of both, and the zero and overflow counts of both
 * side by side, each with its own threshold: what one of them knew exactly is not
 * given up because the other did not.  Buckets can lie beyond a threshold then;
 * histogrammath.c says what a quantile is.
 *
 * Thresholds are ends of buckets and kept as the index of that bucket, so they
 * are compared, rounded and downscaled as indexes are.  Merging takes the lowest
 * schema of its inputs, rounds each threshold outwards to an end of a bucket of
 * that schema, and adds.  All of it is minimum, nested rounding and addition: the
 * order does not matter.
 */
#ifndef MHM_HISTOGRAM_H
#define MHM_HISTOGRAM_H

#include "histogrambucket.h"

#define MHM_HISTOGRAM_COUNT_MAX			((uint64) PG_INT64_MAX)

/*
 * The threshold index that is not an end of a bucket.  It lies below every
 * bucket: a zero count of exact zeros only, or an overflow count of observations
 * of which nothing is known but that they lie between the minimum and the maximum.
 */
#define MHM_INDEX_NONE					PG_INT32_MIN

/* Observations of which no more is known than on which side of a threshold they lie */
typedef struct MhmEnd
{
	int32		index;			/* of the bucket that ends at the threshold */
	uint64		count;			/* above 0 */
} MhmEnd;

/* Such observations of one side, in the order of their thresholds */
typedef struct MhmEnds
{
	int			size;
	int			room;			/* of a state: how many `at` has room for */
	MhmEnd	   *at;
} MhmEnds;

/* All of a histogram but its buckets */
typedef struct MhmHistogramSummary
{
	int			schema;			/* 3 to -4: bucket ends at 2^(i / 2^schema) */
	MhmEnds		zero;			/* of buckets up to their index, and zeros */
	MhmEnds		overflow;		/* of buckets above their index */
	double		sum;			/* saturates at the largest double */
	double		min;			/* 0, like sum and max, while there is no count */
	double		max;
} MhmHistogramSummary;

/*
 * Reads the compact form in place.  Nothing in it is trusted: what is malformed
 * ends the reading with `problem` set.
 */
typedef struct MhmHistogramReader
{
	MhmHistogramSummary summary;
	int32		index;			/* of the bucket last read */
	uint64		count;			/* its count, above 0 */
	uint64		total;			/* zero, overflow and the buckets so far */
	bool		started;		/* has a bucket been read? */
	int			version;		/* of the compact form */
	MhmEnd		own[2];			/* a single zero and a single overflow count */
	const char *problem;		/* what is malformed, or NULL */
	const unsigned char *start;
	const unsigned char *at;
	const unsigned char *end;
} MhmHistogramReader;

/* Histograms and values being added up, with a dense array of counts */
typedef struct MhmHistogramState
{
	MhmHistogramSummary summary;
	uint64		total;
	int32		first;			/* bucket of counts[0] */
	int32		size;			/* number of counts */
	uint64	   *counts;
	MemoryContext context;		/* where the state and its counts live */
} MhmHistogramState;

/* histogramcodec.c */
extern struct varlena *mhm_histogram_from_window(int min_exponent, const uint64 *buckets,
												 uint64 zero, uint64 overflow,
												 double sum, double min, double max);
extern struct varlena *mhm_histogram_compact(const MhmHistogramSummary *summary, int32 first,
											 const uint64 *counts, int32 size);
extern void mhm_histogram_read(MhmHistogramReader *reader, const void *bytes, size_t length);
extern bool mhm_histogram_next(MhmHistogramReader *reader);
extern bool mhm_histogram_is_of_many_windows(const MhmHistogramReader *reader);
extern char *mhm_histogram_problem(const void *bytes, size_t length);
extern int32 mhm_threshold_index(int exponent, int schema);
extern double mhm_threshold_value(int32 index, int schema);

/* histogramstate.c */
extern MhmHistogramState *mhm_state_create(MemoryContext context);
extern void mhm_state_observe(MhmHistogramState *state, double value);
extern void mhm_state_merge(MhmHistogramState *state, MhmHistogramReader *reader);
extern void mhm_state_combine(MhmHistogramState *state, const MhmHistogramState *other);

/* histogrammath.c */
extern void mhm_histogram_open(MhmHistogramReader *reader, const struct varlena *histogram);
extern void mhm_histogram_close(const MhmHistogramReader *reader);

#endif							/* MHM_HISTOGRAM_H */
