/*-------------------------------------------------------------------------
 *
 * registry.h
 *	  Which metrics and series there are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef MHM_REGISTRY_H
#define MHM_REGISTRY_H

#include "accumulate.h"

/* What identifies a series; labels in the encoding of labels.h */
typedef struct MhmKey
{
	const pg_uuid_t *tenant;
	const char *metric;
	uint32		metric_length;
	const char *labels;
	uint32		labels_length;
} MhmKey;

typedef enum MhmFindResult
{
	MHM_FOUND,					/* the target is set, perhaps an overflow series */
	MHM_NOWHERE,				/* no room at all; target->reason says why */
	MHM_KIND_CONFLICT,			/* the metric is of another kind */
	MHM_NAME_CONFLICT			/* another metric would share sample names */
} MhmFindResult;

/* What a conflict was with */
typedef struct MhmConflict
{
	MhmKind		kind;
	int			min_exponent;	/* of a window */
	char		metric[MHM_MAX_METRIC_LENGTH + 1];
} MhmConflict;

#define MHM_MAX_HELP_LENGTH		1024
#define MHM_MAX_UNIT_LENGTH		64

extern MhmFindResult mhm_registry_find(const MhmKey *key, MhmKind kind,
									   MhmTarget *target, MhmConflict *conflict);
extern MhmFindResult mhm_registry_kind_fits(const MhmKey *key, MhmKind kind, MhmConflict *conflict);

/* The window of mhm_registry_locate(): that of the metric, or none */
#define MHM_WINDOW_CURRENT			PG_INT32_MIN

extern uint32 mhm_registry_locate(const MhmKey *key, bool overflow, int32 window);
extern bool mhm_series_is_superseded(const MhmSeries *series);
extern const char *mhm_kind_name(MhmKind kind);

/* metrics.c */
typedef enum MhmDescribeResult
{
	MHM_DESCRIBED,
	MHM_DESCRIBE_NO_ROOM,
	MHM_DESCRIBE_KIND_CONFLICT,
	MHM_DESCRIBE_NAME_CONFLICT,
	MHM_DESCRIBE_WINDOW_CONFLICT	/* its histograms have another window */
} MhmDescribeResult;

typedef struct MhmDescription
{
	MhmKind		kind;
	const char *help;			/* NULL: leave as it is */
	uint32		help_length;
	const char *unit;
	uint32		unit_length;
	const int16 *min_exponent;
} MhmDescription;

extern MhmDescribeResult mhm_metric_describe(const char *name, uint32 length,
											 const MhmDescription *description,
											 MhmConflict *conflict);

/* What table metrics says of a metric, or is to say */
typedef struct MhmStoredMetric
{
	uint32		number;			/* in the region */
	bool		forgotten;		/* it is to have no row */
	MhmKind		kind;
	int16		min_exponent;
	uint32		name_length;
	uint32		help_length;	/* 0: there is none */
	uint32		unit_length;
	char		name[MHM_MAX_METRIC_LENGTH];
	char		help[MHM_MAX_HELP_LENGTH];
	char		unit[MHM_MAX_UNIT_LENGTH];
} MhmStoredMetric;

extern bool mhm_metric_next_unstored(uint32 from, bool forgotten, MhmStoredMetric *metric);
extern bool mhm_metric_import_forgotten(const char *name, uint32 length);
extern void mhm_metrics_settle_stored(void);
extern void mhm_metrics_drop_forgotten(void);
extern uint32 mhm_metric_load(const MhmStoredMetric *row);
extern void mhm_metrics_miss_unless(const bool *seen, bool forget);
extern bool mhm_metrics_unstored(void);

extern PGDLLEXPORT uint32 mhm_metric_find(const char *name, uint32 length);
extern MhmFindResult mhm_metric_create(const char *name, uint32 length, MhmKind kind,
									   uint32 *metric, MhmConflict *conflict);
extern void mhm_metric_forget(uint32 metric);
extern bool mhm_metric_is_in_conflict(uint32 metric);
extern bool mhm_metric_name_is_free(const char *name, uint32 length, MhmKind kind,
									MhmConflict *conflict);
extern uint32 mhm_metric_hash(const char *name, uint32 length);

/* For recovery, which derives chains and counts anew (regionrecover.c) */
extern uint32 mhm_series_hash(const pg_uuid_t *tenant, uint32 metric, bool overflow,
							  const char *labels, uint32 labels_length);
extern uint32 mhm_registry_add(const MhmKey *key, uint32 metric, bool overflow);

/* For retirement (retire.c) */
extern void mhm_registry_remove(uint32 series);

#endif							/* MHM_REGISTRY_H */
