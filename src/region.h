/*-------------------------------------------------------------------------
 *
 * region.h
 *	  The shared region: its layout, and how it outlives processes.
 *
 * One contiguous piece of memory, addressed by offsets and indexes only, in
 * this order: header, stripes, metrics, series, tenants, which series a tenant
 * has, hash heads, cells (one array a stripe), earlier sums, levels, histogram
 * bodies, string chunks.
 *
 * Who may write what:
 *	  header, metrics, series keys, tenants, chains,
 *	  chunks										  the registry lock, exclusive
 *	  cells, earlier sums, a stripe's intent and discards	  the holder of that stripe
 *	  series' atomics, histogram counts				  anybody, atomically, while
 *													  holding any stripe
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_REGION_H
#define MHM_REGION_H

#include "datatype/timestamp.h"
#include "histogrambucket.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/uuid.h"

#define MHM_REGION_MAGIC			UINT64CONST(0x4E4F494745524D48) /* "HMREGION" */
#define MHM_LAYOUT_VERSION			3

#define MHM_NONE					PG_UINT32_MAX	/* no index */
#define MHM_CHUNK_PAYLOAD			28

/* Of the chunks, so many are for the texts of each metric */
#define MHM_CHUNKS_PER_METRIC		2

typedef enum MhmKind
{
	MHM_COUNTER = 1,
	MHM_GAUGE,
	MHM_HISTOGRAM
} MhmKind;

/* Why a sample did not reach the series that it was meant for */
typedef enum MhmDiscardReason
{
	MHM_DISCARD_NONE = -1,
	MHM_DISCARD_SERIES_LIMIT,	/* max_series reached */
	MHM_DISCARD_TENANT_LIMIT,	/* max_series_per_tenant reached */
	MHM_DISCARD_HISTOGRAM_LIMIT,	/* max_histograms reached */
	MHM_DISCARD_LABEL_MEMORY,	/* no room for another set of labels */
	MHM_DISCARD_METRIC_LIMIT,	/* too many metrics */
	MHM_DISCARD_OVERFLOW_LIMIT, /* no room even for an overflow series */
	MHM_DISCARD_OUT_OF_RANGE,	/* the sum would be too large */
	MHM_DISCARD_INVALID			/* a mistake, while on_error = warning */
} MhmDiscardReason;

#define MHM_DISCARD_REASONS			8

/*
 * A string in the chunk store; {MHM_NONE, 0} when empty.  Aligned so that one
 * store replaces it.
 */
typedef struct pg_attribute_aligned(8) MhmString
{
	uint32		chunk;
	uint32		length;
} MhmString;

typedef struct MhmChunk
{
	uint32		next;
	char		payload[MHM_CHUNK_PAYLOAD];
} MhmChunk;

typedef struct MhmMetric
{
	uint32		hash;
	uint32		next;			/* in its hash chain, or in the free list */
	MhmString	name;
	MhmString	help;
	MhmString	unit;
	uint32		series;			/* how many series it has */
	int16		min_exponent;	/* of its histograms' window */
	uint8		kind;
	uint8		live;
	uint8		described;		/* outlives its series */
	uint8		stored;			/* has table metrics its description? */
} MhmMetric;

/* States of MhmMetric.live */
#define MHM_METRIC_FREE				0
#define MHM_METRIC_LIVE				1
#define MHM_METRIC_FORGOTTEN		2	/* in no chain: a name that table metrics is to forget */

/*
 * States of MhmMetric.stored, which the flush worker changes while it holds the
 * registry lock, shared or not, and describe() and reset() set to NO.
 */
#define MHM_METRIC_STORED_NO		0
#define MHM_METRIC_STORED_YES		1
#define MHM_METRIC_STORED_PENDING	2	/* it is being written: NO to the next process */

/*
 * One series.  The first cache line is its key and changes only when the
 * series comes or goes; the second is written by those who record gauges
 * and histograms.
 */
typedef struct MhmSeries
{
	pg_uuid_t	tenant;
	uint32		hash;
	uint32		metric;
	MhmString	labels;			/* see labels.h for the encoding */
	uint32		next;			/* in its hash chain, or in the free list */
	uint32		histogram;		/* its body, or MHM_NONE */
	pg_atomic_uint32 generation;	/* odd while retiring, another one afterwards */
	uint8		kind;
	uint8		live;
	uint8		overflow;		/* the overflow series of its metric and tenant */
	pg_atomic_uint64 updated_at;	/* TimestampTz, to the second */
	uint64		flushed_count;	/* what storage holds already; the flush
								 * worker's own, like taken_sum */

	pg_atomic_uint64 last;		/* float8: a gauge's value, or MHM_RELATIVE */
	pg_atomic_uint64 min;		/* float8: gauges and histograms; infinite */
	pg_atomic_uint64 max;		/* when nothing came since the last flush */
	double		taken_sum;		/* of what storage has not got, as far as it
								 * has left the cells */
	pg_atomic_uint64 taken_min; /* of the flush under way, else infinite */
	pg_atomic_uint64 taken_max;
	pg_atomic_uint64 lifetime_min;	/* of all that was taken */
	pg_atomic_uint64 lifetime_max;
} MhmSeries;

/* States of MhmSeries.live */
#define MHM_SERIES_FREE				0
#define MHM_SERIES_LIVE				1
#define MHM_SERIES_RETIRING			2

/*
 * A series' share in one stripe.  count is of all time; sum is what came since a
 * flush last took it, mhm_earlier() what came before that.
 */
typedef struct MhmCell
{
	uint64		count;
	double		sum;
} MhmCell;

/* As a gauge's last: nobody has said what it is, only by how much it changed */
#define MHM_RELATIVE			UINT64CONST(0x7FF8000000000001) /* not a number */

/* A gauge that is relative (levels.c) */
typedef struct MhmLevel
{
	pg_atomic_uint64 relative;	/* float8: what it was changed by */
	double		stored;			/* as much of that is in storage already */
} MhmLevel;

#define MHM_COUNT_ZERO				MHM_HISTOGRAM_BUCKETS
#define MHM_COUNT_OVERFLOW			(MHM_HISTOGRAM_BUCKETS + 1)
#define MHM_COUNTS					(MHM_HISTOGRAM_BUCKETS + 2)

typedef struct MhmHistogramBody
{
	uint32		next_free;
	int32		min_exponent;
	uint64		reserved;
	pg_atomic_uint64 counts[MHM_COUNTS];
	uint64		flushed[MHM_COUNTS];	/* what storage holds already */
} MhmHistogramBody;

/* How far the holder of a stripe has come with one sample */
typedef enum MhmIntentPhase
{
	MHM_INTENT_NONE,
	MHM_INTENT_ARMED,
	MHM_INTENT_BUCKET_COUNTED,
	MHM_INTENT_TAKING			/* the flush worker's: sum is what is taken
								 * afterwards, value what came earlier */
} MhmIntentPhase;

typedef struct MhmIntent
{
	uint32		phase;
	uint32		series;
	uint32		bucket;			/* a histogram's, else MHM_NONE */
	int32		reason;			/* discard to count too, or -1 */
	uint64		count;			/* what the cell holds afterwards */
	double		sum;
	double		value;			/* for min and max */
	uint64		discarded;		/* what the discard counter holds afterwards */
} MhmIntent;

typedef struct MhmStripe
{
	pg_atomic_flag lock;
	MhmIntent	intent;
	uint64		discarded[MHM_DISCARD_REASONS];
} MhmStripe;

typedef union MhmStripePadded
{
	MhmStripe	stripe;
	char		pad[PG_CACHE_LINE_SIZE * 2];
} MhmStripePadded;

/* A tenant that has series, or a quota of its own */
typedef struct MhmTenant
{
	pg_uuid_t	id;
	uint32		next;			/* in its hash chain, or in the free list */
	uint32		quota;			/* its own, or MHM_NONE */
	uint32		series;			/* ordinary ones */
	uint32		overflow_series;
	uint32		overflow_histograms;	/* ... that are histograms */
	uint32		hand;			/* one of its ordinary series, all of which are
								 * in a ring: the next one that is asked to
								 * give way */
	uint32		asked;			/* so many in a row did not */
	uint32		asked_all_at;	/* second in which all of them had been asked */
} MhmTenant;

/* A series' neighbours in the ring of its tenant's ordinary series */
typedef struct MhmTenantLink
{
	uint32		next;
	uint32		previous;
} MhmTenantLink;

/* What a gauge holds once its level is known: the intent of levels.c */
typedef struct MhmLevelIntent
{
	uint32		armed;
	uint32		series;
	double		last;
	double		min;
	double		max;
	double		lifetime_min;
	double		lifetime_max;
	double		taken_sum;
	double		earlier;		/* of the first stripe */
} MhmLevelIntent;

/* Metrics are named by as many bytes at most */
#define MHM_MAX_METRIC_LENGTH		128

/* Gauges that were reset: what storage has of them does not come back */
typedef struct MhmReset
{
	TimestampTz at;
	pg_uuid_t	tenant;
	uint8		of_tenant;		/* else of all of them */
	uint8		metric_length;	/* 0: of all metrics */
	char		metric[MHM_MAX_METRIC_LENGTH];
} MhmReset;

#define MHM_RESETS				16

typedef struct MhmGeometry
{
	uint32		max_series;		/* ordinary series */
	uint32		max_histograms; /* of them histograms */
	uint32		series_slots;	/* with those kept for overflow series */
	uint32		histogram_slots;
	uint32		metric_slots;
	uint32		series_heads;	/* powers of two */
	uint32		metric_heads;
	uint32		chunks;
	uint32		stripes;
} MhmGeometry;

typedef struct MhmRegion
{
	uint64		magic;			/* written last when the region is made */
	uint32		layout_version;
	uint32		struct_sizes;	/* a checksum of sizeof() of all parts */
	uint64		total_bytes;
	uint64		system_identifier;
	uint64		home;			/* which data directory it was made for */
	uint64		region_id;		/* random */
	uint64		hash_seed;		/* random, and never leaves the server */
	uint64		incarnation;	/* which of two objects is the newer one */

	/*
	 * The flush worker's own: the last flush that is known to be stored, and the
	 * one that was about to be (flushjournal.c has what it stores; 0: none).
	 */
	uint64		flushed_tick;
	uint64		pending_tick;
	uint64		pending_region_id;	/* under which storage knows it */
	uint32		pending_moved;	/* series have other numbers since */

	/* Gauges' levels (levels.c): written with the registry lock held */
	uint32		has_relative;	/* a series may be relative */
	uint32		resets_count;
	uint64		resets_noted;	/* changes with the resets */
	MhmReset	resets[MHM_RESETS];
	MhmLevelIntent level_intent;	/* of who holds all stripes */
	MhmGeometry geometry;

	/* Derived from the parts when a process attaches, and kept up to date */
	uint32		used_series;	/* ordinary ones */
	uint32		used_overflow_series;
	uint32		used_histograms;	/* ordinary ones */
	uint32		used_overflow_histograms;
	uint32		used_metrics;
	uint32		used_chunks;
	uint32		used_quotas;	/* tenants with a quota of their own */
	uint32		free_series;
	uint32		free_histogram;
	uint32		free_metric;
	uint32		free_chunk;
	uint32		free_tenant;

	/* Moves when room appears: then overflowing samples try again */
	pg_atomic_uint32 room_epoch;

	/* Of what describe() said, and table metrics has: the bits below */
	uint32		descriptions;

	/* Series that are asked to give way when the region is full */
	uint32		hand;			/* the next one */
	uint32		asked;			/* so many in a row did not */
	TimestampTz last_retirement;	/* when all had been asked */
} MhmRegion;

/*
 * Has it been looked what is described in storage?  Is there something to store?
 * Are there names that are being forgotten?
 */
#define MHM_DESCRIPTIONS_LOADED		0x01
#define MHM_DESCRIPTIONS_UNSTORED	0x02
#define MHM_DESCRIPTIONS_FORGOTTEN	0x04

/* This process's view of the region; NULL where there is none */
extern PGDLLEXPORT MhmRegion *mhm_region;
extern PGDLLEXPORT MhmStripePadded *mhm_stripes;
extern PGDLLEXPORT MhmMetric *mhm_metrics;
extern PGDLLEXPORT MhmSeries *mhm_series;
extern PGDLLEXPORT MhmTenant *mhm_tenants;
extern PGDLLEXPORT MhmTenantLink *mhm_tenant_links;
extern PGDLLEXPORT uint32 *mhm_tenant_heads;
extern PGDLLEXPORT uint32 *mhm_series_heads;
extern PGDLLEXPORT uint32 *mhm_metric_heads;
extern PGDLLEXPORT MhmCell *mhm_cells;
extern PGDLLEXPORT double *mhm_earlier_sums;
extern PGDLLEXPORT MhmLevel *mhm_levels;
extern PGDLLEXPORT MhmHistogramBody *mhm_histograms;
extern PGDLLEXPORT MhmChunk *mhm_chunks;

extern PGDLLEXPORT LWLock *mhm_registry_lock;

static inline MhmCell *
mhm_cell(uint32 stripe, uint32 series)
{
	return &mhm_cells[(Size) stripe * mhm_region->geometry.series_slots + series];
}

/* What a flush has taken out of a cell, ever; the stripes of a series are neighbours */
static inline double *
mhm_earlier(uint32 stripe, uint32 series)
{
	return &mhm_earlier_sums[(Size) series * mhm_region->geometry.stripes + stripe];
}

static inline double
mhm_float8_of_bits(uint64 bits)
{
	double		value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static inline uint64
mhm_bits_of_float8(double value)
{
	uint64		bits;

	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

extern void mhm_region_request(void);
extern void mhm_region_startup(void);

/* Why the region is not as it should be, or is not there; NULL when all is well */
extern const char *mhm_region_complaint(void);

/* The file of a server that is stopped (regionfile.c); relative to its data directory */
#define MHM_REGION_FILE		"pg_stat/meshhook_metrics.region"

extern MhmRegion *mhm_region_file_read(Size *bytes, char *problem, Size problem_size);
extern bool mhm_region_file_write(const MhmRegion *region, Size bytes);
extern bool mhm_region_file_remove(void);
extern bool mhm_region_file_set_aside(void);

/* Laying out (regionlayout.c) */
extern Size mhm_region_size(const MhmGeometry *geometry);
extern PGDLLEXPORT uint32 mhm_tenant_slots(const MhmGeometry *geometry);
extern uint32 mhm_quota_slots(const MhmGeometry *geometry);
extern void mhm_region_format(MhmRegion *region, const MhmGeometry *geometry);
extern void mhm_region_map(MhmRegion *region);
extern const char *mhm_region_header_problem(const MhmRegion *region, Size bytes,
											 uint64 system_identifier);

/* Trusting what was found (regionrecover.c); both work on the mapped region */
extern PGDLLEXPORT const char *mhm_region_recover(void);
extern void mhm_region_import(MhmRegion *source, MhmRegion *target);

#endif							/* MHM_REGION_H */
