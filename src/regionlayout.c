/*-------------------------------------------------------------------------
 *
 * regionlayout.c
 *	  Where the parts of the shared region lie.
 *
 * Owns the arithmetic from a geometry to offsets, the formatting of an empty
 * region and the pointers of this process into the current one.  Everything
 * here is a function of the header's geometry, so that a region made with
 * other settings can be read as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "region.h"

MhmRegion  *mhm_region = NULL;
MhmStripePadded *mhm_stripes = NULL;
MhmMetric  *mhm_metrics = NULL;
MhmSeries  *mhm_series = NULL;
MhmTenant  *mhm_tenants = NULL;
MhmTenantLink *mhm_tenant_links = NULL;
uint32	   *mhm_tenant_heads = NULL;
uint32	   *mhm_series_heads = NULL;
uint32	   *mhm_metric_heads = NULL;
MhmCell    *mhm_cells = NULL;
double	   *mhm_earlier_sums = NULL;
MhmLevel   *mhm_levels = NULL;
MhmHistogramBody *mhm_histograms = NULL;
MhmChunk   *mhm_chunks = NULL;

StaticAssertDecl(sizeof(MhmSeries) == 128, "a series is two cache lines");
StaticAssertDecl(sizeof(MhmChunk) == 32, "a chunk is half a cache line");
StaticAssertDecl(sizeof(MhmStripe) <= sizeof(MhmStripePadded), "a stripe has its lines to itself");

#ifndef MHM_LEAST_QUOTAS
#define MHM_LEAST_QUOTAS	16384
#endif

typedef struct RegionOffsets
{
	Size		stripes;
	Size		metrics;
	Size		series;
	Size		tenants;
	Size		tenant_links;
	Size		tenant_heads;
	Size		series_heads;
	Size		metric_heads;
	Size		cells;
	Size		earlier_sums;
	Size		levels;
	Size		histograms;
	Size		chunks;
	Size		end;
} RegionOffsets;

/* So many tenants may have a quota of their own, whether they have series or not */
uint32
mhm_quota_slots(const MhmGeometry *g)
{
	return Max(g->max_series / 8, MHM_LEAST_QUOTAS);
}

/* Each series may be another tenant's */
uint32
mhm_tenant_slots(const MhmGeometry *g)
{
	return g->series_slots + mhm_quota_slots(g);
}

/* Take room for count parts of the given size, on a line of its own */
static Size
place(Size *end, Size count, Size size)
{
	Size		offset = CACHELINEALIGN(*end);

	*end = offset + count * size;
	return offset;
}

static RegionOffsets
region_offsets(const MhmGeometry *g)
{
	RegionOffsets offsets;
	Size		end = sizeof(MhmRegion);

	offsets.stripes = place(&end, g->stripes, sizeof(MhmStripePadded));
	offsets.metrics = place(&end, g->metric_slots, sizeof(MhmMetric));
	offsets.series = place(&end, g->series_slots, sizeof(MhmSeries));
	offsets.tenants = place(&end, mhm_tenant_slots(g), sizeof(MhmTenant));
	offsets.tenant_links = place(&end, g->series_slots, sizeof(MhmTenantLink));
	offsets.tenant_heads = place(&end, g->series_heads, sizeof(uint32));
	offsets.series_heads = place(&end, g->series_heads, sizeof(uint32));
	offsets.metric_heads = place(&end, g->metric_heads, sizeof(uint32));
	offsets.cells = place(&end, (Size) g->stripes * g->series_slots, sizeof(MhmCell));
	offsets.earlier_sums = place(&end, (Size) g->stripes * g->series_slots, sizeof(double));
	offsets.levels = place(&end, g->series_slots, sizeof(MhmLevel));
	offsets.histograms = place(&end, g->histogram_slots, sizeof(MhmHistogramBody));
	offsets.chunks = place(&end, g->chunks, sizeof(MhmChunk));
	offsets.end = CACHELINEALIGN(end);
	return offsets;
}

Size
mhm_region_size(const MhmGeometry *geometry)
{
	return region_offsets(geometry).end;
}

/* Tells a build whose structs are shaped otherwise from ours */
static uint32
struct_sizes(void)
{
	uint32		sum = 0;

	sum = sum * 31 + sizeof(MhmRegion);
	sum = sum * 31 + sizeof(MhmStripe);
	sum = sum * 31 + sizeof(MhmStripePadded);
	sum = sum * 31 + sizeof(MhmMetric);
	sum = sum * 31 + sizeof(MhmSeries);
	sum = sum * 31 + sizeof(MhmTenant);
	sum = sum * 31 + sizeof(MhmTenantLink);
	sum = sum * 31 + sizeof(MhmCell);
	sum = sum * 31 + sizeof(MhmLevel);
	sum = sum * 31 + sizeof(MhmChunk);
	sum = sum * 31 + sizeof(MhmHistogramBody);
	return sum;
}

/* Point this process at a region */
void
mhm_region_map(MhmRegion *region)
{
	RegionOffsets offsets = region_offsets(&region->geometry);
	char	   *base = (char *) region;

	mhm_region = region;
	mhm_stripes = (MhmStripePadded *) (base + offsets.stripes);
	mhm_metrics = (MhmMetric *) (base + offsets.metrics);
	mhm_series = (MhmSeries *) (base + offsets.series);
	mhm_tenants = (MhmTenant *) (base + offsets.tenants);
	mhm_tenant_links = (MhmTenantLink *) (base + offsets.tenant_links);
	mhm_tenant_heads = (uint32 *) (base + offsets.tenant_heads);
	mhm_series_heads = (uint32 *) (base + offsets.series_heads);
	mhm_metric_heads = (uint32 *) (base + offsets.metric_heads);
	mhm_cells = (MhmCell *) (base + offsets.cells);
	mhm_earlier_sums = (double *) (base + offsets.earlier_sums);
	mhm_levels = (MhmLevel *) (base + offsets.levels);
	mhm_histograms = (MhmHistogramBody *) (base + offsets.histograms);
	mhm_chunks = (MhmChunk *) (base + offsets.chunks);
}

/*
 * Make an empty region in zeroed memory.  Its identity, and the magic number
 * without which nobody trusts it, are left to the caller.
 */
void
mhm_region_format(MhmRegion *region, const MhmGeometry *geometry)
{
	region->layout_version = MHM_LAYOUT_VERSION;
	region->struct_sizes = struct_sizes();
	region->total_bytes = mhm_region_size(geometry);
	region->geometry = *geometry;
	pg_atomic_init_u32(&region->room_epoch, 1);

	mhm_region_map(region);
	for (uint32 i = 0; i < geometry->stripes; i++)
		pg_atomic_init_flag(&mhm_stripes[i].stripe.lock);
	for (uint32 i = 0; i < geometry->series_slots; i++)
	{
		pg_atomic_init_u32(&mhm_series[i].generation, 2);
		pg_atomic_init_u64(&mhm_series[i].updated_at, 0);
		pg_atomic_init_u64(&mhm_series[i].last, 0);
		pg_atomic_init_u64(&mhm_series[i].min, 0);
		pg_atomic_init_u64(&mhm_series[i].max, 0);
		pg_atomic_init_u64(&mhm_series[i].taken_min, 0);
		pg_atomic_init_u64(&mhm_series[i].taken_max, 0);
		pg_atomic_init_u64(&mhm_series[i].lifetime_min, 0);
		pg_atomic_init_u64(&mhm_series[i].lifetime_max, 0);
		pg_atomic_init_u64(&mhm_levels[i].relative, 0);
	}
	for (uint32 i = 0; i < geometry->histogram_slots; i++)
		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
			pg_atomic_init_u64(&mhm_histograms[i].counts[bucket], 0);
}

/*
 * What is wrong with the header of something that should be a region of so
 * many bytes, or NULL.  Reads nothing but the header.
 */
const char *
mhm_region_header_problem(const MhmRegion *region, Size bytes,
						  uint64 system_identifier)
{
	const MhmGeometry *g = &region->geometry;

	if (bytes < sizeof(MhmRegion))
		return "it is too short";
	if (region->magic != MHM_REGION_MAGIC)
		return "it was not completed";
	if (region->layout_version != MHM_LAYOUT_VERSION ||
		region->struct_sizes != struct_sizes())
		return "it was made by another version of meshhook_metrics";
	if (region->system_identifier != system_identifier)
		return "it belongs to another database cluster";
	if (g->max_series == 0 || g->max_series > 100000000 ||
		g->series_slots < g->max_series || g->series_slots > 200000000 ||
		g->max_histograms > g->histogram_slots || g->histogram_slots > 20000000 ||
		g->metric_slots == 0 || g->metric_slots > 100000000 ||
		g->chunks == 0 || g->chunks > 2000000000 ||
		g->stripes == 0 || g->stripes > 1024 ||
		g->series_heads == 0 || (g->series_heads & (g->series_heads - 1)) != 0 ||
		g->metric_heads == 0 || (g->metric_heads & (g->metric_heads - 1)) != 0)
		return "its geometry makes no sense";
	if (region->total_bytes != bytes || mhm_region_size(g) != bytes)
		return "its size does not fit its geometry";
	return NULL;
}
