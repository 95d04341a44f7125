/*-------------------------------------------------------------------------
 *
 * alerttotals.h
 *	  What came to many series within many windows of time.
 *
 * alertread.c reads the rows that alerttotals.c adds up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_ALERTTOTALS_H
#define MHM_ALERTTOTALS_H

#include "datatype/timestamp.h"

/* Arguments of alert_totals() */
enum
{
	MHM_ALERT_ARGUMENT_AT,
	MHM_ALERT_ARGUMENT_TENANTS,
	MHM_ALERT_ARGUMENT_SERIES,
	MHM_ALERT_ARGUMENT_WINDOWS,
	MHM_ALERT_ARGUMENT_TARGETS,
	MHM_ALERT_ARGUMENT_QUANTILES,
	MHM_ALERT_ARGUMENT_STARTS,
	MHM_ALERT_ARGUMENT_FIRST_MINUTES,
	MHM_ALERT_ARGUMENT_FIRST_COARSE,
	MHM_ALERT_ARGUMENT_LAST_COARSE,
	MHM_ALERT_ARGUMENT_LAST_MINUTES,
	MHM_ALERT_ARGUMENT_COARSE,
	MHM_ALERT_ARGUMENT_SCANNED,
	MHM_ALERT_ARGUMENTS
};

/* Which windows a row is offered to: the one that it was read for, or all */
#define MHM_ALL_WINDOWS		0

/* Where a row comes from; the numbers are in the queries */
typedef enum MhmAlertSource
{
	MHM_FROM_LIVE,					/* in no minute yet */
	MHM_FROM_END,					/* of live, after the last whole minute */
	MHM_FROM_MINUTES,				/* read for all windows that share them */
	MHM_FROM_ROLLUP,				/* read for one window, which it is within */
	MHM_FROM_BEGINNING				/* of live, in the minute in which one window begins */
} MhmAlertSource;

/* What one row says of one series */
typedef struct MhmAlertPart
{
	MhmAlertSource source;
	int			window;
	TimestampTz begins;			/* a row of live is about (begins, at] */
	TimestampTz at;
	int64		id;
	double		count;
	double		sum;
	double		min;
	double		max;
	double		last;
	bool		has_min;
	bool		has_max;
	bool		has_last;
	struct varlena *histogram;
} MhmAlertPart;

typedef struct MhmAlertTotals MhmAlertTotals;
typedef struct MhmAlertSeries MhmAlertSeries;

/* alerttotals.c */
extern const Oid mhm_alert_argument_types[MHM_ALERT_ARGUMENTS];
extern const MhmAlertSeries *mhm_alert_find_series(const MhmAlertTotals *totals, int64 series_id);
extern void mhm_alert_offer(MhmAlertTotals *totals, const MhmAlertSeries *series, const MhmAlertPart *part);

/* alertread.c */
extern void mhm_alert_read(MhmAlertTotals *totals, const Datum *arguments);

#endif							/* MHM_ALERTTOTALS_H */
