/*-------------------------------------------------------------------------
 *
 * flushgap.c
 *	  That nothing was flushed for long, as alert rules need to know it.
 *
 * Owns the statement on table alert_gaps.  Called by the flush worker within the
 * flush that ends a gap, so that rules never see what it brought without it.  The
 * table is alerting's: whatever is wrong with it must keep nothing from being
 * stored.  So it is written in a subtransaction, and what it does not take is
 * noted with one of the next flushes, of this process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "flush.h"
#include "miscadmin.h"
#include "settings.h"
#include "utils/lsyscache.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

/* What came in a longer time is not known well enough to judge by parts of it */
#define INTERVALS_OF_A_GAP		3.0

/* One that is not noted yet; both 0 when there is none */
static TimestampTz begins;
static TimestampTz ends;

static void
write_gap(void)
{
	static const char query[] =
		"with old as (delete from meshhook_metrics.alert_gaps g where g.ends < $2 - interval '32 days') "
		"insert into meshhook_metrics.alert_gaps as g (begins, ends) "
		"values ($1, $2) "
		"on conflict (ends) do update set begins = least(g.begins, excluded.begins)";
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};
	Datum		values[2];

	values[0] = TimestampTzGetDatum(begins);
	values[1] = TimestampTzGetDatum(ends);
	mhm_store_check(SPI_execute_with_args(query, lengthof(types), types, values, NULL, false, 0), query);
}

/* False, and nothing has changed, when the table does not take it */
static bool
try_to_write_gap(void)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile bool written = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		write_gap();
		ReleaseCurrentSubTransaction();
		written = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		/* The whole flush has to end */
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(error);
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return written;
}

/*
 * Note the gap that a flush ends, if it is one, and what was not noted earlier.
 * Where there is no alerting, or its table is another's, nobody needs to know.
 */
void
mhm_store_note_gap(const MhmFlush *flush)
{
	static bool warned = false;
	Oid			table;

	if (flush->seconds > INTERVALS_OF_A_GAP * mhm_flush_interval / 1000.0)
	{
		TimestampTz began = flush->at - (TimestampTz) (flush->seconds * USECS_PER_SEC);

		begins = ends == 0 ? began : Min(begins, began);
		ends = flush->at;
	}
	if (ends == 0)
		return;
	table = get_relname_relid("alert_gaps", get_namespace_oid("meshhook_metrics", false));
	if (!OidIsValid(table) || mhm_store_owner_of(table) != GetUserId() || try_to_write_gap())
	{
		begins = ends = 0;
		warned = false;
		return;
	}
	if (!warned)
		ereport(WARNING,
				errmsg("table meshhook_metrics.alert_gaps did not take that nothing was flushed for a while"),
				errdetail("From %s on. Until it does, alert rules take what came then for what came at once.",
						  timestamptz_to_str(begins)),
				errhint("Look for a lock, a trigger or a rule on the table."));
	warned = true;
}
