/*
 * registry_copy.c
 *		Proves that a copy of a large registry, which lets others get by between
 *		its blocks, has every series once that was there all the time.
 *
 * Others get by where the copy looks for interrupts: there series come and go,
 * and come back in the slots of others.
 */
#include "region_fixture.h"

#define TENANTS		200
#define SERIES		12000

static MhmRegion *region;
static long times_let_by;
static long changes_left;

static void
find_numbered(uint32 number, MhmTarget *target)
{
	char		labels[16];
	char		value[8];
	pg_uuid_t	tenant = tenant_number(number % TENANTS);
	MhmConflict conflict;
	MhmKey		key = {.tenant = &tenant, .metric = "c", .metric_length = 1, .labels = labels};

	snprintf(value, sizeof(value), "%06u", number);
	key.labels_length = encode_label(labels, 'x', 6);
	memcpy(labels + 4, value, 6);
	(void) mhm_registry_find(&key, MHM_COUNTER, target, &conflict);
	(void) mhm_accumulate(target, MHM_INC, 1, 1, stub_now);
}

/* Two tenants' series change places, from one end of the table to the other */
static void
change_places(void)
{
	pg_uuid_t	tenants[] = {tenant_number(1), tenant_number(2)};
	MhmTarget	target;

	times_let_by++;
	if (changes_left-- <= 0)
		return;
	InterruptPending = false;
	for (int i = 0; i < lengthof(tenants); i++)
		(void) mhm_registry_reset("c", 1, &tenants[i]);
	for (int i = lengthof(tenants) - 1; i >= 0; i--)
		for (uint32 number = i + 1; number < SERIES; number += TENANTS)
			find_numbered(number, &target);
	InterruptPending = true;
}

static void
test_copies(void)
{
	static const long changes[] = {0, 1, 2, 3, 4, 1000};

	for (int i = 0; i < lengthof(changes); i++)
	{
		MhmCollection *copy;

		cases++;
		snprintf(about, sizeof(about), "%ld changes", changes[i]);
		changes_left = changes[i];
		times_let_by = 0;
		stub_interrupt = change_places;
		InterruptPending = true;
		copy = mhm_collect(NULL, false);
		InterruptPending = false;
		REQUIRE(times_let_by > 2, "nobody is let by");
		REQUIRE(copy->series_count == SERIES, "%u series are copied", copy->series_count);
		for (uint32 at = 1; at < copy->series_count; at++)
			for (uint32 before = at; before-- > 0 &&
				 mhm_same_tenant(&copy->series[before].tenant, &copy->series[at].tenant);)
				REQUIRE(memcmp(copy->series[before].labels, copy->series[at].labels,
							   copy->series[at].labels_length) != 0, "a series is copied twice");
	}
	report("a copy has every series once, whatever comes and goes meanwhile", "copies");
}

int
main(void)
{
	static const MhmGeometry geometry = {
		.max_series = SERIES, .max_histograms = 1, .series_slots = SERIES + 100, .histogram_slots = 2,
		.metric_slots = 8, .series_heads = 16384, .metric_heads = 8, .chunks = SERIES * 3, .stripes = 4
	};
	MhmTarget	target;

	region = shared_memory(mhm_region_size(&geometry));
	make_test_region(region, &geometry);
	for (uint32 number = 0; number < SERIES; number++)
		find_numbered(number, &target);
	test_copies();
	return finish_tests();
}
