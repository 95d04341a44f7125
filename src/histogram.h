/*
 * histogram.h
 *		The SQL type histogram: its model, its compact form, and the state in
 *		which histograms are merged.
 *
 * A histogram has sparse buckets over the positive doubles (histogrambucket.h),
 * a zero count for what lies at or below a zero threshold, an overflow count for
 * what lies above an overflow threshold, and the sum, minimum and maximum of all
 * observations.  Its count is the sum of these counts and stored nowhere.
 *
 * Thresholds are ends of buckets and kept as the index of that bucket, so they
 * are compared, rounded and downscaled as indexes are.  Merging takes the lowest
 * schema, the highest zero threshold and the lowest overflow threshold of its
 * inputs, each rounded outwards to an end of a bucket of that schema, and moves
 * the buckets beyond them into the zero and overflow counts.  All of it is
 * minimum, maximum, nested rounding and addition: the order does not matter.
 *
 * Where the zero threshold of one input is above the overflow threshold of
 * another, no order independent choice keeps the two apart.  Such a histogram
 * collapses: every observation goes into an overflow count above threshold 0,
 * which says no more than that it lies between the minimum and the maximum.
 */
#ifndef MHM_HISTOGRAM_H
#define MHM_HISTOGRAM_H

#include "histogrambucket.h"

#define MHM_HISTOGRAM_COUNT_MAX			((uint64) PG_INT64_MAX)

/*
 * Threshold indexes that are not an end of a bucket.  NONE lies below every
 * bucket: a zero count of exact zeros only, or the overflow count of a collapsed
 * histogram.  ALL lies above every bucket: no overflow.
 */
#define MHM_INDEX_NONE					PG_INT32_MIN
#define MHM_INDEX_ALL					PG_INT32_MAX

/* All of a histogram but its buckets */
typedef struct MhmHistogramSummary
{
	int			schema;			/* 3 to -4: bucket ends at 2^(i / 2^schema) */
	int32		zero_index;		/* zero counts buckets up to this one */
	int32		overflow_index; /* overflow counts buckets above this one */
	uint64		zero;
	uint64		overflow;
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
