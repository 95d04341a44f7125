/*
 * registry_checks.h
 *		Is the registry in one piece, and what does it hold?
 *
 * Included by tests after region_fixture.h. check_registry() looks at the
 * region that is mapped: every slot, body and chunk is either used exactly
 * once or free exactly once, every chain leads to all that belongs there, and
 * every number of things is right. read_contents() says what is in it, one
 * line for each metric and each series, so that two regions can be compared.
 */
#ifndef MHM_TEST_REGISTRY_CHECKS_H
#define MHM_TEST_REGISTRY_CHECKS_H

#define MAX_LINES		300
#define LINE_LENGTH		400

typedef struct Contents
{
	int			count;
	char		lines[MAX_LINES][LINE_LENGTH];
} Contents;

/* Mark one thing as met; at most once, and only if there is such a thing */
static bool
meet(bool *met, uint32 number, uint32 limit, const char *what)
{
	if (number >= limit)
	{
		fail_case("%s %u does not exist", what, number);
		return false;
	}
	if (met[number])
	{
		fail_case("%s %u is met twice", what, number);
		return false;
	}
	met[number] = true;
	return true;
}

/* Follow the chunks of a string, or the free ones; how many */
static uint32
meet_chunks(bool *met, uint32 number)
{
	uint32		count = 0;

	for (; number != MHM_NONE; number = mhm_chunks[number].next)
	{
		if (!meet(met, number, mhm_region->geometry.chunks, "chunk"))
			break;
		count++;
	}
	return count;
}

static uint32
meet_string(bool *met, MhmString string)
{
	uint32		count = meet_chunks(met, string.chunk);

	REQUIRE(count == mhm_string_chunks(string.length), "a string of %u bytes has %u chunks",
			string.length, count);
	return count;
}

static void
check_all_met(const bool *met, uint32 limit, const char *what)
{
	for (uint32 i = 0; i < limit; i++)
		REQUIRE(met[i], "%s %u is neither used nor free", what, i);
}

static void
check_metrics(bool *chunks, uint32 *used_chunks)
{
	const MhmGeometry *g = &mhm_region->geometry;
	bool	   *met = calloc(g->metric_slots, sizeof(bool));
	uint32		used = 0;

	for (uint32 head = 0; head < g->metric_heads; head++)
		for (uint32 i = mhm_metric_heads[head]; i != MHM_NONE; i = mhm_metrics[i].next)
		{
			MhmMetric  *metric = &mhm_metrics[i];
			char		name[MHM_MAX_METRIC_LENGTH];

			if (!meet(met, i, g->metric_slots, "metric"))
				break;
			used++;
			REQUIRE(metric->live == MHM_METRIC_LIVE, "metric %u is in a chain and is not live", i);
			*used_chunks += meet_string(chunks, metric->name) +
				meet_string(chunks, metric->help) + meet_string(chunks, metric->unit);
			mhm_string_copy(metric->name, name);
			REQUIRE(metric->hash == mhm_metric_hash(name, metric->name.length) &&
					(metric->hash & (g->metric_heads - 1)) == head,
					"metric %u is in the wrong chain", i);
			REQUIRE(metric->series > 0 || metric->described, "metric %u is of no use", i);
		}
	for (uint32 i = 0; i < g->metric_slots; i++)
	{
		if (mhm_metrics[i].live != MHM_METRIC_FORGOTTEN)
			continue;
		meet(met, i, g->metric_slots, "metric");
		used++;
		*used_chunks += meet_string(chunks, mhm_metrics[i].name) +
			meet_string(chunks, mhm_metrics[i].help) + meet_string(chunks, mhm_metrics[i].unit);
		REQUIRE((mhm_region->descriptions & MHM_DESCRIPTIONS_FORGOTTEN) != 0 &&
				(mhm_region->descriptions & MHM_DESCRIPTIONS_UNSTORED) != 0,
				"nobody knows that name %u is to be forgotten", i);
	}
	REQUIRE(used == mhm_region->used_metrics, "%u metrics are used, not %u",
			used, mhm_region->used_metrics);
	for (uint32 i = mhm_region->free_metric; i != MHM_NONE; i = mhm_metrics[i].next)
	{
		if (!meet(met, i, g->metric_slots, "metric"))
			break;
		REQUIRE(!mhm_metrics[i].live, "metric %u is free and live", i);
	}
	check_all_met(met, g->metric_slots, "metric");
	free(met);
}

static void
check_series(bool *chunks, bool *bodies, uint32 *used_chunks)
{
	const MhmGeometry *g = &mhm_region->geometry;
	bool	   *met = calloc(g->series_slots, sizeof(bool));
	uint32	   *of_metric = calloc(g->metric_slots, sizeof(uint32));
	uint32		ordinary = 0;
	uint32		overflow = 0;
	uint32		histograms = 0;
	uint32		overflow_histograms = 0;

	for (uint32 head = 0; head < g->series_heads; head++)
		for (uint32 i = mhm_series_heads[head]; i != MHM_NONE; i = mhm_series[i].next)
		{
			MhmSeries  *series = &mhm_series[i];
			char		labels[MHM_MAX_LABELS_LENGTH];

			if (!meet(met, i, g->series_slots, "series"))
				break;
			REQUIRE(series->live == MHM_SERIES_LIVE, "series %u is in a chain and is not live", i);
			if (series->metric >= g->metric_slots || mhm_metrics[series->metric].live != MHM_METRIC_LIVE)
			{
				fail_case("series %u has no metric", i);
				break;
			}
			of_metric[series->metric]++;
			REQUIRE(series->kind == mhm_metrics[series->metric].kind,
					"series %u is of another kind than its metric", i);
			REQUIRE((series->kind == MHM_HISTOGRAM) == (series->histogram != MHM_NONE),
					"series %u has a body for another kind", i);
			if (series->histogram != MHM_NONE)
				meet(bodies, series->histogram, g->histogram_slots, "body");
			if (series->overflow)
			{
				overflow++;
				overflow_histograms += series->histogram != MHM_NONE;
			}
			else
			{
				ordinary++;
				histograms += series->histogram != MHM_NONE;
			}
			*used_chunks += meet_string(chunks, series->labels);
			mhm_string_copy(series->labels, labels);
			REQUIRE(series->hash == mhm_series_hash(&series->tenant, series->metric, series->overflow,
													labels, series->labels.length) &&
					(series->hash & (g->series_heads - 1)) == head,
					"series %u is in the wrong chain", i);
		}
	for (uint32 i = mhm_region->free_series; i != MHM_NONE; i = mhm_series[i].next)
	{
		if (!meet(met, i, g->series_slots, "series"))
			break;
		REQUIRE(mhm_series[i].live == MHM_SERIES_FREE, "series %u is free and live", i);
	}
	check_all_met(met, g->series_slots, "series");
	REQUIRE(ordinary == mhm_region->used_series, "%u series are used, not %u",
			ordinary, mhm_region->used_series);
	REQUIRE(overflow == mhm_region->used_overflow_series, "%u overflow series are used, not %u",
			overflow, mhm_region->used_overflow_series);
	REQUIRE(histograms == mhm_region->used_histograms, "%u histograms are used, not %u",
			histograms, mhm_region->used_histograms);
	REQUIRE(overflow_histograms == mhm_region->used_overflow_histograms,
			"%u overflow histograms are used, not %u",
			overflow_histograms, mhm_region->used_overflow_histograms);
	for (uint32 i = 0; i < g->metric_slots; i++)
		REQUIRE(mhm_metrics[i].live != MHM_METRIC_LIVE || of_metric[i] == mhm_metrics[i].series,
				"metric %u has %u series, not %u", i, of_metric[i], mhm_metrics[i].series);
	free(met);
	free(of_metric);
}

/* One tenant: its numbers are those of its series, all of which are in its ring */
static void
check_tenant(uint32 number)
{
	MhmTenant  *tenant = &mhm_tenants[number];
	uint32		series = 0;
	uint32		overflow = 0;
	uint32		overflow_histograms = 0;
	uint32		in_ring = 0;
	uint32		at = tenant->hand;

	for (uint32 i = 0; i < mhm_region->geometry.series_slots; i++)
	{
		if (!mhm_series[i].live || !mhm_same_tenant(&mhm_series[i].tenant, &tenant->id))
			continue;
		series += !mhm_series[i].overflow;
		overflow += mhm_series[i].overflow;
		overflow_histograms += mhm_series[i].overflow && mhm_series[i].histogram != MHM_NONE;
	}
	REQUIRE(tenant->series == series && tenant->overflow_series == overflow &&
			tenant->overflow_histograms == overflow_histograms,
			"tenant %u has %u, %u and %u series, not %u, %u and %u", number, series, overflow,
			overflow_histograms, tenant->series, tenant->overflow_series, tenant->overflow_histograms);
	REQUIRE(series > 0 || overflow > 0 || tenant->quota != MHM_NONE, "tenant %u is of no use", number);
	while (at != MHM_NONE && in_ring <= series)
	{
		if (at >= mhm_region->geometry.series_slots || !mhm_series[at].live ||
			mhm_series[at].overflow || !mhm_same_tenant(&mhm_series[at].tenant, &tenant->id) ||
			mhm_tenant_links[mhm_tenant_links[at].next].previous != at)
		{
			fail_case("series %u does not belong into the ring of tenant %u", at, number);
			return;
		}
		in_ring++;
		at = mhm_tenant_links[at].next;
		if (at == tenant->hand)
			break;
	}
	REQUIRE(in_ring == series, "%u of the %u series of tenant %u are in its ring", in_ring, series, number);
}

static void
check_tenants(void)
{
	const MhmGeometry *g = &mhm_region->geometry;
	uint32		slots = mhm_tenant_slots(g);
	bool	   *met = calloc(slots, sizeof(bool));
	uint32		quotas = 0;

	for (uint32 head = 0; head < g->series_heads; head++)
		for (uint32 i = mhm_tenant_heads[head]; i != MHM_NONE; i = mhm_tenants[i].next)
		{
			if (!meet(met, i, slots, "tenant"))
				break;
			REQUIRE(tenant_head(&mhm_tenants[i].id) == &mhm_tenant_heads[head],
					"tenant %u is in the wrong chain", i);
			REQUIRE(mhm_tenant_find(&mhm_tenants[i].id) == &mhm_tenants[i], "tenant %u is there twice", i);
			quotas += mhm_tenants[i].quota != MHM_NONE;
			check_tenant(i);
		}
	for (uint32 i = mhm_region->free_tenant; i != MHM_NONE; i = mhm_tenants[i].next)
		if (!meet(met, i, slots, "tenant"))
			break;
	check_all_met(met, slots, "tenant");
	for (uint32 i = 0; i < g->series_slots; i++)
		REQUIRE(!mhm_series[i].live || mhm_tenant_find(&mhm_series[i].tenant) != NULL,
				"series %u has no tenant", i);
	REQUIRE(quotas == mhm_region->used_quotas, "%u quotas are used, not %u", quotas,
			mhm_region->used_quotas);
	free(met);
}

static void
check_registry(void)
{
	const MhmGeometry *g = &mhm_region->geometry;
	bool	   *chunks = calloc(g->chunks, sizeof(bool));
	bool	   *bodies = calloc(g->histogram_slots + 1, sizeof(bool));
	uint32		used_chunks = 0;
	uint32		free_chunks;

	check_metrics(chunks, &used_chunks);
	check_series(chunks, bodies, &used_chunks);
	check_tenants();
	free_chunks = meet_chunks(chunks, mhm_region->free_chunk);
	check_all_met(chunks, g->chunks, "chunk");
	REQUIRE(used_chunks == mhm_region->used_chunks && used_chunks + free_chunks == g->chunks,
			"%u chunks are used and %u are free, not %u", used_chunks, free_chunks,
			mhm_region->used_chunks);
	for (uint32 i = mhm_region->free_histogram; i != MHM_NONE; i = mhm_histograms[i].next_free)
		if (!meet(bodies, i, g->histogram_slots, "body"))
			break;
	check_all_met(bodies, g->histogram_slots, "body");
	for (uint32 i = 0; i < g->stripes; i++)
		REQUIRE(pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock) &&
				mhm_stripes[i].stripe.intent.phase == MHM_INTENT_NONE,
				"stripe %u is not free", i);
	free(chunks);
	free(bodies);
}

static int
compare_lines(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* A string as far as it fits a line, with how long it is */
static const char *
shown(MhmString string, char *buffer)
{
	static char text[MHM_MAX_LABELS_LENGTH + 1];

	mhm_string_copy(string, text);
	text[string.length] = '\0';
	for (uint32 i = 0; i < string.length; i++)
		if (text[i] < ' ' || text[i] > '~')
			text[i] = '.';
	snprintf(buffer, 60, "%.40s(%u)", text, string.length);
	return buffer;
}

static pg_attribute_unused() void
read_contents(Contents *contents)
{
	char		a[60];
	char		b[60];
	char		c[60];

	contents->count = 0;
	for (uint32 i = 0; i < mhm_region->geometry.metric_slots && contents->count < MAX_LINES; i++)
	{
		MhmMetric  *metric = &mhm_metrics[i];

		if (metric->live == MHM_METRIC_FORGOTTEN)
			snprintf(contents->lines[contents->count++], LINE_LENGTH, "forgotten %s", shown(metric->name, a));
		else if (metric->live)
			snprintf(contents->lines[contents->count++], LINE_LENGTH,
					 "metric %s kind %d described %d help %s unit %s window %d",
					 shown(metric->name, a), metric->kind, metric->described,
					 shown(metric->help, b), shown(metric->unit, c), metric->min_exponent);
	}
	for (uint32 i = 0; i < mhm_region->geometry.series_slots && contents->count < MAX_LINES; i++)
	{
		MhmSeries  *series = &mhm_series[i];
		MhmTotals	totals;
		uint64		counts[MHM_COUNTS];
		uint64		mixed = 0;

		if (!series->live)
			continue;
		mhm_accumulate_read(i, &totals, counts);
		if (series->histogram != MHM_NONE)
			for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
				mixed = mixed * 31 + counts[bucket];
		snprintf(contents->lines[contents->count++], LINE_LENGTH,
				 "series %s tenant %d labels %s window %d overflow %d count %lu sum %.17g last %.17g min %.17g max %.17g buckets %lx flushed %lu",
				 shown(mhm_metrics[series->metric].name, a), series->tenant.data[UUID_LEN - 1],
				 shown(series->labels, b),
				 series->histogram == MHM_NONE ? 0 : mhm_histograms[series->histogram].min_exponent,
				 series->overflow, totals.count, totals.sum, totals.last,
				 totals.min, totals.max, mixed, series->flushed_count);
	}
	qsort(contents->lines, contents->count, LINE_LENGTH, compare_lines);
}

static pg_attribute_unused() bool
contains(const Contents *contents, const char *line)
{
	for (int i = 0; i < contents->count; i++)
		if (strcmp(contents->lines[i], line) == 0)
			return true;
	return false;
}

static pg_attribute_unused() bool
same_contents(const Contents *a, const Contents *b)
{
	if (a->count != b->count)
		return false;
	for (int i = 0; i < a->count; i++)
		if (strcmp(a->lines[i], b->lines[i]) != 0)
			return false;
	return true;
}

#endif							/* MHM_TEST_REGISTRY_CHECKS_H */
