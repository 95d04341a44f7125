/*-------------------------------------------------------------------------
 *
 * regionrecover.c
 *	  Trusting a region that was found, and moving it to another size.
 *
 * Owns the checks that a region passes before anybody uses it: after a crash
 * restart, after a restart of the server, and when it comes from a file.
 * Called by region.c in the postmaster, when no other process uses it.
 *
 * Only what cannot be derived is trusted, and that only after a check: the
 * metrics, the keys of series, their strings, cells and counts.  Hash chains,
 * free lists and numbers of things are derived anew, so that whoever was
 * killed while changing them leaves no trace.  Samples that were half-way
 * into their series are finished in between (mhm_accumulate_redo).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "collect.h"
#include "labels.h"
#include "registry.h"
#include "retire.h"
#include "stringstore.h"
#include "tenant.h"

/* Marks of what a string or a series has been seen to use */
typedef struct Claims
{
	bool	   *chunks;
	bool	   *histograms;
} Claims;

/* Claim the chunks of a string; no two strings may share one */
static bool
claim_string(Claims *claims, MhmString string, uint32 longest)
{
	uint32		chunk = string.chunk;

	if (string.length > longest)
		return false;
	for (uint32 i = mhm_string_chunks(string.length); i > 0; i--)
	{
		if (chunk >= mhm_region->geometry.chunks || claims->chunks[chunk])
			return false;
		claims->chunks[chunk] = true;
		chunk = mhm_chunks[chunk].next;
	}
	return chunk == MHM_NONE;
}

static bool
claim_metric(Claims *claims, MhmMetric *metric)
{
	char		name[MHM_MAX_METRIC_LENGTH];

	if (metric->live > MHM_METRIC_FORGOTTEN ||
		metric->kind < MHM_COUNTER || metric->kind > MHM_HISTOGRAM ||
		metric->min_exponent < MHM_MIN_EXPONENT_LOWEST ||
		metric->min_exponent > MHM_MIN_EXPONENT_HIGHEST ||
		metric->name.length == 0 ||
		!claim_string(claims, metric->name, MHM_MAX_METRIC_LENGTH) ||
		!claim_string(claims, metric->help, MHM_MAX_HELP_LENGTH) ||
		!claim_string(claims, metric->unit, MHM_MAX_UNIT_LENGTH))
		return false;
	mhm_string_copy(metric->name, name);
	return metric->hash == mhm_metric_hash(name, metric->name.length);
}

static bool
claim_series(Claims *claims, MhmSeries *series)
{
	char		labels[MHM_MAX_LABELS_LENGTH];

	if (series->metric >= mhm_region->geometry.metric_slots ||
		mhm_metrics[series->metric].live != MHM_METRIC_LIVE ||
		mhm_metrics[series->metric].kind != series->kind || series->overflow > true ||
		(series->histogram != MHM_NONE) != (series->kind == MHM_HISTOGRAM))
		return false;
	if (series->histogram != MHM_NONE)
	{
		if (series->histogram >= mhm_region->geometry.histogram_slots ||
			claims->histograms[series->histogram])
			return false;
		claims->histograms[series->histogram] = true;
		if (mhm_histograms[series->histogram].min_exponent < MHM_MIN_EXPONENT_LOWEST ||
			mhm_histograms[series->histogram].min_exponent > MHM_MIN_EXPONENT_HIGHEST)
			return false;
	}
	if (!claim_string(claims, series->labels, MHM_MAX_LABELS_LENGTH))
		return false;
	mhm_string_copy(series->labels, labels);
	return mhm_labels_well_formed(labels, series->labels.length) &&
		series->hash == mhm_series_hash(&series->tenant, series->metric, series->overflow,
										labels, series->labels.length);
}

static const char *
check_parts(Claims *claims)
{
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
		if (mhm_metrics[i].live && !claim_metric(claims, &mhm_metrics[i]))
			return "a metric makes no sense";
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
		if (mhm_series[i].live && !claim_series(claims, &mhm_series[i]))
			return "a series makes no sense";
	return NULL;
}

static const char *
check_intents(void)
{
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		MhmIntent  *intent = &mhm_stripes[i].stripe.intent;

		if (intent->phase == MHM_INTENT_NONE)
			continue;
		if (intent->phase > MHM_INTENT_TAKING ||
			intent->series >= mhm_region->geometry.series_slots ||
			!mhm_series[intent->series].live)
			return "a sample that was being recorded makes no sense";
		if (intent->phase == MHM_INTENT_TAKING)
			continue;
		if (intent->reason < MHM_DISCARD_NONE || intent->reason >= MHM_DISCARD_REASONS ||
			(intent->bucket != MHM_NONE) != (mhm_series[intent->series].kind == MHM_HISTOGRAM) ||
			(intent->bucket != MHM_NONE && intent->bucket >= MHM_COUNTS))
			return "a sample that was being recorded makes no sense";
	}
	if (!mhm_level_intent_makes_sense())
		return "a gauge that was given its level makes no sense";
	if (!mhm_resets_make_sense())
		return "what was reset makes no sense";
	return NULL;
}

static const char *
check_totals(void)
{
	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		const char *problem;

		if (!mhm_series[i].live)
			continue;
		problem = mhm_accumulate_contradiction(i);
		if (problem != NULL)
			return problem;
	}
	return NULL;
}

/* String all free chunks, bodies and slots into their lists, lowest first */
static void
derive_free_lists(const Claims *claims)
{
	MhmRegion  *region = mhm_region;
	MhmGeometry *g = &region->geometry;

	region->free_chunk = region->free_histogram = MHM_NONE;
	region->free_metric = region->free_series = MHM_NONE;
	region->used_chunks = region->used_metrics = 0;
	for (uint32 i = g->chunks; i-- > 0;)
	{
		if (claims->chunks[i])
		{
			region->used_chunks++;
			continue;
		}
		mhm_chunks[i].next = region->free_chunk;
		region->free_chunk = i;
	}
	for (uint32 i = g->histogram_slots; i-- > 0;)
	{
		if (claims->histograms[i])
			continue;
		mhm_histograms[i].next_free = region->free_histogram;
		region->free_histogram = i;
	}
	for (uint32 i = g->metric_slots; i-- > 0;)
	{
		if (mhm_metrics[i].live)
			continue;
		mhm_metrics[i].next = region->free_metric;
		region->free_metric = i;
	}
	for (uint32 i = g->series_slots; i-- > 0;)
	{
		if (mhm_series[i].live)
			continue;
		mhm_series[i].next = region->free_series;
		region->free_series = i;
	}
}

static void
derive_metric_chains(void)
{
	MhmGeometry *g = &mhm_region->geometry;

	for (uint32 i = 0; i < g->metric_heads; i++)
		mhm_metric_heads[i] = MHM_NONE;
	for (uint32 i = 0; i < g->metric_slots; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];
		uint32	   *head;

		if (!metric->live)
			continue;
		metric->series = 0;
		mhm_region->used_metrics++;
		mhm_region->descriptions |= MHM_DESCRIPTIONS_UNSTORED | MHM_DESCRIPTIONS_FORGOTTEN;
		if (metric->live != MHM_METRIC_LIVE)
			continue;
		head = &mhm_metric_heads[metric->hash & (g->metric_heads - 1)];
		metric->next = *head;
		*head = i;
	}
}

static void
derive_series_chains(void)
{
	MhmRegion  *region = mhm_region;
	MhmGeometry *g = &region->geometry;

	region->used_series = region->used_overflow_series = 0;
	region->used_histograms = region->used_overflow_histograms = 0;
	region->hand = region->asked = 0;
	mhm_tenants_clear();
	for (uint32 i = 0; i < g->series_heads; i++)
		mhm_series_heads[i] = MHM_NONE;
	for (uint32 i = 0; i < g->series_slots; i++)
	{
		MhmSeries  *series = &mhm_series[i];
		uint32	   *head;

		if (!series->live)
		{
			mhm_series_settle_generation(series);
			continue;
		}
		series->live = MHM_SERIES_LIVE;
		mhm_series_settle_generation(series);
		head = &mhm_series_heads[series->hash & (g->series_heads - 1)];
		series->next = *head;
		*head = i;
		mhm_metrics[series->metric].series++;
		if (series->overflow)
		{
			region->used_overflow_series++;
			region->used_overflow_histograms += (series->histogram != MHM_NONE);
		}
		else
		{
			region->used_series++;
			region->used_histograms += (series->histogram != MHM_NONE);
		}
		mhm_tenant_count(i);
	}
}

/* No two metrics may have samples of one name; wants the chains of metrics */
static const char *
check_names(void)
{
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
		if (mhm_metrics[i].live == MHM_METRIC_LIVE && mhm_metric_is_in_conflict(i))
			return "two metrics have samples of one name";
	return NULL;
}

/* A metric that nobody described and whose first series never came */
static void
forget_unused_metrics(void)
{
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots; i++)
		if (mhm_metrics[i].live == MHM_METRIC_LIVE && !mhm_metrics[i].described && mhm_metrics[i].series == 0)
			mhm_metric_forget(i);
}

/*
 * Check the current region, finish what was interrupted and derive what is
 * derived.  Returns what is wrong with it, or NULL when it can be used.
 */
const char *
mhm_region_recover(void)
{
	Claims		claims;
	const char *problem;

	claims.chunks = palloc_extended(mhm_region->geometry.chunks,
									MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	claims.histograms = palloc0(Max(mhm_region->geometry.histogram_slots, 1));

	problem = check_parts(&claims);
	if (problem == NULL)
		problem = check_intents();
	if (problem == NULL)
	{
		mhm_level_redo();
		mhm_accumulate_redo();
		problem = check_totals();
	}
	if (problem == NULL)
	{
		derive_free_lists(&claims);
		derive_metric_chains();
		derive_series_chains();
		forget_unused_metrics();
		problem = check_names();
	}
	pfree(claims.chunks);
	pfree(claims.histograms);
	return problem;
}

/* What a flush has taken stays taken, until it is known whether it was stored */
static void
import_extremes(MhmSeries *series, const MhmSeries *raw)
{
	series->min = raw->min;
	series->max = raw->max;
	series->taken_min = raw->taken_min;
	series->taken_max = raw->taken_max;
	series->lifetime_min = raw->lifetime_min;
	series->lifetime_max = raw->lifetime_max;
}

/*
 * Sums in one cell instead of several.  What was shown of a counter must not be
 * less because of that.
 */
static void
import_sums(uint32 number, const MhmTotals *totals)
{
	double		earlier = mhm_saturated(totals->sum - totals->in_cells);

	while (mhm_saturated(earlier + totals->in_cells) < totals->sum)
		earlier = nextafter(earlier, INFINITY);
	mhm_cell(0, number)->count = totals->count;
	mhm_cell(0, number)->sum = totals->in_cells;
	*mhm_earlier(0, number) = earlier;
}

/* Bring one series over, with all that was recorded in it */
static void
import_series(const MhmCollectedSeries *from, const MhmSeries *raw, const MhmLevel *raw_level,
			  const MhmHistogramBody *raw_body, const char *metric, uint32 metric_number)
{
	MhmKey		key;
	uint32		number;
	MhmSeries  *series;

	key.tenant = &from->tenant;
	key.metric = metric;
	key.metric_length = strlen(metric);
	key.labels = from->labels;
	key.labels_length = from->labels_length;
	number = mhm_registry_add(&key, metric_number, from->overflow);
	if (number == MHM_NONE)
		elog(ERROR, "no room for a series in a region that was made to hold it");

	series = &mhm_series[number];
	import_sums(number, &from->totals);
	series->last = raw->last;
	mhm_levels[number] = *raw_level;
	import_extremes(series, raw);
	pg_atomic_write_u64(&series->updated_at, (uint64) from->totals.updated_at);
	series->flushed_count = raw->flushed_count;
	series->taken_sum = raw->taken_sum;
	if (from->counts != NULL)
	{
		MhmHistogramBody *body = &mhm_histograms[series->histogram];

		body->min_exponent = from->min_exponent;
		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		{
			pg_atomic_write_u64(&body->counts[bucket], from->counts[bucket]);
			body->flushed[bucket] = raw_body->flushed[bucket];
		}
	}
}

/*
 * Bring everything from a recovered region into an empty one, which is large
 * enough and whose free lists have been derived.  Leaves the target mapped.
 */
void
mhm_region_import(MhmRegion *source, MhmRegion *target)
{
	MhmCollection *all;
	uint64		discarded[MHM_DISCARD_REASONS];
	MhmSeries  *raw_series;
	MhmLevel   *raw_levels;
	MhmHistogramBody *raw_bodies;
	uint32	   *numbers;
	MhmConflict conflict;

	mhm_region_map(source);
	all = mhm_collect(NULL, true);
	mhm_accumulate_read_discarded(discarded);
	raw_series = mhm_series;
	raw_levels = mhm_levels;
	raw_bodies = mhm_histograms;

	mhm_region_map(target);
	numbers = palloc(Max(all->metrics_count, 1) * sizeof(uint32));
	for (uint32 i = 0; i < all->metrics_count; i++)
	{
		MhmCollectedMetric *from = &all->metrics[i];
		MhmMetric  *metric;

		if (from->live == MHM_METRIC_FORGOTTEN)
		{
			if (!mhm_metric_import_forgotten(from->name, from->name_length))
				elog(ERROR, "no room for a name in a region that was made to hold it");
			continue;
		}
		if (mhm_metric_create(from->name, from->name_length, from->kind,
							  &numbers[i], &conflict) != MHM_FOUND)
			elog(ERROR, "no room for a metric in a region that was made to hold it");
		metric = &mhm_metrics[numbers[i]];
		metric->min_exponent = from->min_exponent;
		metric->described = from->described;
		metric->stored = from->stored;
		if (from->help != NULL)
			(void) mhm_string_store(from->help, strlen(from->help), &metric->help);
		if (from->unit != NULL)
			(void) mhm_string_store(from->unit, strlen(from->unit), &metric->unit);
	}
	for (uint32 i = 0; i < all->series_count; i++)
	{
		MhmCollectedSeries *from = &all->series[i];
		MhmSeries  *raw = &raw_series[from->number];

		import_series(from, raw, &raw_levels[from->number],
					  raw->histogram == MHM_NONE ? NULL : &raw_bodies[raw->histogram],
					  all->metrics[from->metric].name, numbers[from->metric]);
	}
	for (int reason = 0; reason < MHM_DISCARD_REASONS; reason++)
		mhm_stripes[0].stripe.discarded[reason] = discarded[reason];
	target->has_relative = true;
	target->resets_count = source->resets_count;
	memcpy(target->resets, source->resets, sizeof(target->resets));
	target->descriptions |= source->descriptions;
	target->flushed_tick = source->flushed_tick;
	target->pending_tick = source->pending_tick;
	target->pending_region_id = source->pending_region_id;
	target->pending_moved = true;
}
