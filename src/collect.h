/*-------------------------------------------------------------------------
 *
 * collect.h
 *	  A copy of what the region holds, for those who show or move it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_COLLECT_H
#define MHM_COLLECT_H

#include "accumulate.h"

typedef struct MhmCollectedMetric
{
	char	   *name;			/* terminated by a zero */
	uint32		name_length;
	char	   *help;			/* NULL when there is none */
	char	   *unit;
	MhmKind		kind;
	int			min_exponent;
	bool		described;
	uint8		stored;
	uint8		live;
} MhmCollectedMetric;

typedef struct MhmCollectedSeries
{
	uint32		number;			/* in the region */
	uint32		metric;			/* in the collection's metrics */
	pg_uuid_t	tenant;
	const char *labels;			/* as in labels.h */
	uint32		labels_length;
	bool		overflow;
	MhmTotals	totals;
	int			min_exponent;	/* of a histogram */
	uint64	   *counts;			/* of a histogram, else NULL */
} MhmCollectedSeries;

/* Series are sorted by name of metric, then tenant, then number of their slot */
typedef struct MhmCollection
{
	MhmCollectedMetric *metrics;
	uint32		metrics_count;
	MhmCollectedSeries *series;
	uint32		series_count;
} MhmCollection;

extern MhmCollection *mhm_collect(const pg_uuid_t *tenant, bool unused_too);

#endif							/* MHM_COLLECT_H */
