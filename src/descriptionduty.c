/*-------------------------------------------------------------------------
 *
 * descriptionduty.c
 *	  When what describe() said is exchanged with table metrics.
 *
 * Owns what the flush worker knows of that table: whether it is there, when it was
 * read, whether it may say something else.  Called by worker.c: before anything else,
 * before each flush, and on a standby.  What is exchanged is flushmetrics.c's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "descriptionduty.h"
#include "flush.h"
#include "registry.h"
#include "retire.h"
#include "utils/timestamp.h"

#define EXCHANGE_TIMEOUT_MS		(30 * 1000)

/* A dump may have been restored into it */
#define READ_EVERY				USECS_PER_MINUTE

static void exchange(void);

Duty		mhm_descriptions_duty = {
	.what = "exchange descriptions of metrics",
	.timeout_ms = EXCHANGE_TIMEOUT_MS,
	.perform = exchange
};

static Oid	table = InvalidOid; /* as the last transaction saw it */
static bool due = true;			/* it may say what we do not know */
static bool stores = false;		/* is there a table to write to? */
static bool superseded_left = true; /* there may be series that are superseded */
static TimestampTz read_at;

/*
 * Learn from the table what is described, and store there what describe() has said
 * since.  On a standby the table is its primary's.
 */
static void
exchange(void)
{
	bool		read_only = RecoveryInProgress();
	bool		there = false;

	if (mhm_store_enter())
	{
		there = mhm_metrics_exchange(read_only);
		table = mhm_metrics_table();
		mhm_store_leave();
	}
	CommitTransactionCommand();
	stores = there && !read_only;
	if (stores)
		mhm_metrics_exchanged();
	else
		mhm_metrics_drop_forgotten();
	due = false;
	superseded_left = true;
	read_at = GetCurrentTimestamp();
}

/* Has the table come or gone?  Wants mhm_store_enter(). */
bool
mhm_descriptions_table_changed(void)
{
	Oid			now = mhm_metrics_table();

	if (now == table)
		return false;
	table = now;
	due = true;
	return true;
}

/*
 * If it is time to, or anyway.  Before a flush, so that what was described before
 * flush() was called is stored when that returns.
 */
void
mhm_descriptions_exchange(bool anyway)
{
	TimestampTz now = GetCurrentTimestamp();
	double		waiting_ms;

	if ((anyway || due || now - read_at >= READ_EVERY || now < read_at ||
		 (stores && mhm_metrics_unstored())) &&
		!mhm_duty_backs_off(&mhm_descriptions_duty, &waiting_ms))
		(void) mhm_duty_attempt(&mhm_descriptions_duty);
	if (superseded_left)
		superseded_left = mhm_registry_retire_superseded();
}
