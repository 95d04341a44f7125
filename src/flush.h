/*-------------------------------------------------------------------------
 *
 * flush.h
 *	  Bringing what was recorded into the storage tables, exactly once.
 *
 * What is described is exchanged with its table before (descriptionduty.c, flushmetrics.c).
 * A flush goes through these files in this order: flushlevels.c gives gauges that
 * are new in the region the level that storage has, flushcollect.c takes what has
 * changed, flushseries.c gives ids to the series, flushjournal.c notes in a file
 * what is stored, flushstore.c writes it to the tables in one transaction,
 * flushcollect.c notes in the region that it is stored.  worker.c leads it
 * through.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_FLUSH_H
#define MHM_FLUSH_H

#include "access/tupdesc.h"
#include "region.h"
#include "utils/date.h"
#include "utils/tuplestore.h"

/* What came to one series since the last flush, and what it held afterwards */
typedef struct MhmChange
{
	uint32		number;			/* in the region */
	uint32		generation;
	pg_uuid_t	tenant;
	MhmKind		kind;
	bool		overflow;
	const char *metric;
	uint32		metric_length;
	const char *labels;			/* as in labels.h */
	uint32		labels_length;
	int64		id;				/* in table series; 0 until it is known */
	DateADT		last_day;		/* there */
	bool		was_reset;		/* there, and nothing was stored of it since */

	uint64		count;
	double		sum;
	double		min;			/* infinite when there is none */
	double		max;
	double		last;
	struct varlena *histogram;	/* NULL unless it is one */
	int			min_exponent;	/* of its window */

	uint64		count_after;
	bool		relative;		/* a gauge: last is what it was changed by */
	uint32		buckets_count;	/* the buckets that changed */
	uint16	   *buckets;
	uint64	   *buckets_after;
} MhmChange;

typedef struct MhmFlush
{
	uint64		tick;
	TimestampTz at;
	double		seconds;		/* before at, in which its changes came */
	MhmChange  *changes;
	uint32		changes_count;
} MhmFlush;

/* What is known of earlier flushes of this region, from flush_state */
typedef struct MhmStoredState
{
	bool		found;			/* is there a row of the region? */
	uint64		tick;
	TimestampTz at;				/* ... or when the last minute was closed after it */
	uint64		highest_tick;	/* of any region */
} MhmStoredState;

/* flushlevels.c */
extern bool mhm_levels_settle(void);
extern void mhm_levels_committed(void);

/* flushcollect.c */
extern void mhm_flush_collect(MhmFlush *flush, bool relative_too);
extern bool mhm_flush_find_relative(MhmFlush *keys, uint32 most);
extern void mhm_flush_apply(const MhmFlush *flush);
extern void mhm_flush_put_back(const MhmChange *change);
extern void mhm_flush_keep_all_taken(void);
extern void mhm_flush_give_up_unstored(void);
extern bool mhm_flush_apply_to(uint32 number, uint64 count, uint32 buckets_count,
							   const uint16 *buckets, const uint64 *buckets_after);

/* flushjournal.c */
extern void mhm_journal_write(const MhmFlush *flush, uint64 region_id);
extern void mhm_journal_inherit(uint64 region_id);
extern bool mhm_journal_apply(uint64 region_id, uint64 tick);
extern void mhm_journal_remove(void);

/* flushstore.c; all but the first need mhm_store_enter() */
extern bool mhm_store_enter(void);
extern void mhm_store_leave(void);
extern bool mhm_store_is_writable_anew(void);
extern bool mhm_store_has_alerts(void);
extern void mhm_store_read_state(uint64 region_id, MhmStoredState *state);
extern void mhm_store_lock(void);
extern void mhm_store_mend(void);
extern void mhm_store_write_state(const MhmFlush *flush);
extern bool mhm_store_is_closed(TimestampTz minute_end);
extern uint64 mhm_store_write_live(const MhmFlush *flush);
extern void mhm_store_call(const char *query, TimestampTz now);
extern bool mhm_store_ask(const char *query, TimestampTz now);
extern void mhm_store_read_quotas(void);

/* For those who have statements of their own */
extern void mhm_store_check(int spi_result, const char *query);
extern Tuplestorestate *mhm_store_offer_rows(const char *name, TupleDesc columns, uint32 expected);
extern void mhm_store_withdraw_rows(const char *name, Tuplestorestate *rows);

extern Oid	mhm_store_owner_of(Oid relation);

/* flushgap.c */
extern void mhm_store_note_gap(const MhmFlush *flush);

/* flushmetrics.c */
extern Oid	mhm_metrics_table(void);
extern bool mhm_metrics_exchange(bool read_only);
extern void mhm_metrics_exchanged(void);

/* flushseries.c */
extern void mhm_series_use_table(Oid relation);
extern void mhm_series_find(MhmFlush *keys);
extern bool mhm_series_identify(MhmFlush *flush);
extern void mhm_series_write_days(const MhmFlush *flush);
extern void mhm_series_remember(const MhmFlush *flush);

#endif							/* MHM_FLUSH_H */
