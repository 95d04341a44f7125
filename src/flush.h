/*-------------------------------------------------------------------------
 *
 * flush.h
 *	  Bringing what was recorded into the storage tables, exactly once.
 *
 * A flush goes through these files in this order: flushcollect.c takes what has
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

	uint64		count;
	double		sum;
	double		min;			/* infinite when there is none */
	double		max;
	double		last;
	struct varlena *histogram;	/* NULL unless it is one */

	uint64		count_after;
	double		sum_after;
	uint32		buckets_count;	/* the buckets that changed */
	uint16	   *buckets;
	uint64	   *buckets_after;
} MhmChange;

typedef struct MhmFlush
{
	uint64		tick;
	TimestampTz at;
	double		seconds;		/* that its changes took to come */
	MhmChange  *changes;
	uint32		changes_count;
} MhmFlush;

/* What is known of earlier flushes of this region, from flush_state */
typedef struct MhmStoredState
{
	bool		found;			/* is there a row of the region? */
	uint64		tick;
	TimestampTz at;
	uint64		highest_tick;	/* of any region */
} MhmStoredState;

/* flushcollect.c */
extern void mhm_flush_collect(MhmFlush *flush);
extern void mhm_flush_apply(const MhmFlush *flush);
extern void mhm_flush_put_back(const MhmChange *change);
extern void mhm_flush_keep_all_taken(void);
extern void mhm_flush_give_up_unstored(void);
extern bool mhm_flush_apply_to(uint32 number, uint64 count, double sum, uint32 buckets_count,
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
extern void mhm_store_write_state(const MhmFlush *flush);
extern uint64 mhm_store_write_live(const MhmFlush *flush);
extern void mhm_store_call(const char *query, TimestampTz now);
extern bool mhm_store_ask(const char *query, TimestampTz now);
extern void mhm_store_read_quotas(void);

/* For flushseries.c */
extern void mhm_store_check(int spi_result, const char *query);
extern Tuplestorestate *mhm_store_offer_rows(const char *name, TupleDesc columns, uint32 expected);
extern void mhm_store_withdraw_rows(const char *name, Tuplestorestate *rows);

/* flushseries.c */
extern void mhm_series_use_table(Oid relation);
extern bool mhm_series_identify(MhmFlush *flush);
extern void mhm_series_write_days(const MhmFlush *flush);
extern void mhm_series_remember(const MhmFlush *flush);

#endif							/* MHM_FLUSH_H */
