/*
 * registry_tenants.c
 *		Proves that limits are exact, that no tenant makes others pay for its
 *		own, and that a new series costs the same however many there are.
 *
 * The cost is the number of instructions that a process executes, which no
 * machine's speed changes: a registry that goes through its slots, or through
 * those of a tenant, needs many times as many in the large region.
 */
#include "region_fixture.h"
#include "single_step.h"
#include "registry_checks.h"

#define TENANTS			2000
#define SERIES_EACH		10
#define LARGE_SERIES	(TENANTS * SERIES_EACH)

/* Looking a key up, making its series, and asking some others to give way */
#define MOST_INSTRUCTIONS	30000
#define FEW_INSTRUCTIONS	6000

typedef struct Sample
{
	uint32		tenant;
	uint32		label;
	MhmKind		kind;
	int			times;			/* with so many labels, one after the other */
} Sample;

static MhmRegion *region;

static pg_uuid_t
numbered_tenant(uint32 number)
{
	pg_uuid_t	tenant;

	memset(&tenant, 0, sizeof(tenant));
	memcpy(tenant.data, &number, sizeof(number));
	return tenant;
}

static MhmFindResult
find_numbered(uint32 tenant, MhmKind kind, uint32 label, MhmTarget *target)
{
	pg_uuid_t	uuid = numbered_tenant(tenant);
	char		labels[16];
	char		value[16];
	MhmConflict conflict;
	MhmKey		key = {.tenant = &uuid, .metric = kind == MHM_HISTOGRAM ? "h" : "c", .metric_length = 1};
	int			length = snprintf(value, sizeof(value), "%u", label);

	key.labels = labels;
	key.labels_length = encode_label(labels, 'x', length);
	memcpy(labels + 4, value, length);
	return mhm_registry_find(&key, kind, target, &conflict);
}

static void
make_region(uint32 series, uint32 histograms, uint32 quota)
{
	MhmGeometry geometry = {
		.max_series = series, .max_histograms = histograms,
		.series_slots = series + series / 32 + 32,
		.histogram_slots = histograms + histograms / 64 + 16,
		.metric_slots = 64, .metric_heads = 64,
		.series_heads = 1, .chunks = series * 3 + 200, .stripes = 4
	};

	while (geometry.series_heads < geometry.series_slots)
		geometry.series_heads *= 2;
	region = shared_memory(mhm_region_size(&geometry));
	make_test_region(region, &geometry);
	mhm_max_series_per_tenant = quota;
}

static void
drop_region(void)
{
	munmap(region, mhm_region_size(&region->geometry));
}

/* Record to it; with flushed, storage has got it */
static void
record(const MhmTarget *target, bool flushed)
{
	(void) mhm_accumulate(target, mhm_metrics[mhm_series[target->series].metric].kind == MHM_HISTOGRAM ?
						  MHM_OBSERVE : MHM_INC, 1.0, 1, stub_now);
	if (flushed)
		mhm_series[target->series].flushed_count++;
}

static void
fill_tenants(uint32 tenants, uint32 series_each, bool flushed)
{
	for (uint32 tenant = 1; tenant <= tenants; tenant++)
		for (uint32 label = 0; label < series_each; label++)
		{
			MhmTarget	target;

			if (find_numbered(tenant, MHM_COUNTER, label, &target) == MHM_FOUND)
				record(&target, flushed);
		}
}

static void
find_sample(const void *argument)
{
	const Sample *sample = argument;
	MhmTarget	target;

	for (int i = 0; i < sample->times; i++)
		(void) find_numbered(sample->tenant, sample->kind, sample->label + i, &target);
}

/* How many instructions it takes, or somewhat more than are allowed */
static long
instructions_of(const Sample *sample, long most)
{
	pid_t		pid = begin_stepped(0, find_sample, sample);
	long		count = 0;

	while (pid > 0 && !returned[0] && count <= most && step(pid))
		count++;
	if (pid > 0)
		kill_stepped(pid);
	/* It may have been stopped with the lock in its hands */
	reset_registry_lock();
	return count;
}

static void
check_cost(const char *what, const Sample *sample, long most)
{
	long		count = instructions_of(sample, most);

	cases++;
	snprintf(about, sizeof(about), "%s", what);
	REQUIRE(count > 50 && count <= most, "more than %ld instructions", most);
	printf("# %s: %ld instructions\n", what, count);
}

static void
test_cost(void)
{
	make_region(LARGE_SERIES + 1000, 100, SERIES_EACH);
	fill_tenants(TENANTS, SERIES_EACH, false);
	REQUIRE(region->used_series == LARGE_SERIES, "%u series", region->used_series);
	check_cost("the first series of a tenant", &(Sample) {TENANTS + 1, 0, MHM_COUNTER, 1}, FEW_INSTRUCTIONS);
	find_sample(&(Sample) {TENANTS + 2, 0, MHM_COUNTER, SERIES_EACH - 1});
	check_cost("the last series that fits a quota", &(Sample) {TENANTS + 2, SERIES_EACH, MHM_COUNTER, 1},
			   FEW_INSTRUCTIONS);
	check_cost("the overflow series of a tenant", &(Sample) {1, 1000, MHM_COUNTER, 1}, FEW_INSTRUCTIONS);
	check_cost("a hundred labels too many for a tenant", &(Sample) {1, 2000, MHM_COUNTER, 100},
			   100 * FEW_INSTRUCTIONS / 2);
	drop_region();

	/* One tenant, far below and at a quota that is large */
	make_region(LARGE_SERIES + 1000, 100, LARGE_SERIES);
	fill_tenants(1, LARGE_SERIES - 1, false);
	check_cost("one more of many", &(Sample) {1, LARGE_SERIES, MHM_COUNTER, 1}, FEW_INSTRUCTIONS);
	find_sample(&(Sample) {1, LARGE_SERIES, MHM_COUNTER, 1});
	check_cost("one too many of many", &(Sample) {1, LARGE_SERIES + 1, MHM_COUNTER, 1}, MOST_INSTRUCTIONS);
	drop_region();

	/* All is used, and nothing is idle */
	make_region(LARGE_SERIES, 100, 1000000);
	fill_tenants(TENANTS, SERIES_EACH, true);
	check_cost("a series for which the region is full", &(Sample) {7, 1000, MHM_COUNTER, 1}, MOST_INSTRUCTIONS);
	find_sample(&(Sample) {7, 1000, MHM_COUNTER, 1000});
	check_cost("another one, when nobody gives way", &(Sample) {7, 3000, MHM_COUNTER, 1}, FEW_INSTRUCTIONS);

	/* All is idle and stored */
	stub_now += USECS_PER_HOUR;
	check_cost("a series for which others give way", &(Sample) {8, 1000, MHM_COUNTER, 1}, 3 * MOST_INSTRUCTIONS);
	drop_region();
	report("a new series costs the same however many series and tenants there are", "costs");
}

static uint32
ordinary_of(uint32 tenant)
{
	pg_uuid_t	uuid = numbered_tenant(tenant);
	uint32		count = 0;

	for (uint32 i = 0; i < region->geometry.series_slots; i++)
		count += mhm_series[i].live && !mhm_series[i].overflow &&
			mhm_same_tenant(&mhm_series[i].tenant, &uuid);
	return count;
}

/* Each tenant gets what its quota says, whatever the others have */
static void
test_quotas(void)
{
	static MhmQuota quotas[6000];
	uint32		expected = 0;

	make_region(60000, 100, 5);
	for (uint32 i = 0; i < lengthof(quotas); i++)
		quotas[i] = (MhmQuota) {numbered_tenant(i + 1), i % 4};
	REQUIRE(mhm_quotas_replace(quotas, lengthof(quotas)), "not all quotas have room");
	fill_tenants(lengthof(quotas) + 10, 7, false);
	for (uint32 tenant = 1; tenant <= lengthof(quotas) + 10; tenant++)
	{
		uint32		quota = tenant <= lengthof(quotas) ? (tenant - 1) % 4 : 5;
		pg_uuid_t	uuid = numbered_tenant(tenant);
		MhmTenant  *entry = mhm_tenant_find(&uuid);

		cases++;
		expected += quota;
		REQUIRE(entry == NULL ? quota == 0 : entry->series == quota, "tenant %u has %u series, not %u",
				tenant, entry == NULL ? 0 : entry->series, quota);
	}
	REQUIRE(region->used_series == expected, "%u series, not %u", region->used_series, expected);
	for (uint32 tenant = 1; tenant <= 40; tenant++)
		REQUIRE(ordinary_of(tenant) == (tenant - 1) % 4, "tenant %u has %u series", tenant, ordinary_of(tenant));

	/* From another list: those that are left out have the general one, and the others theirs */
	for (uint32 i = 0; i < 1000; i++)
		quotas[i] = (MhmQuota) {numbered_tenant(2 * i + 1), 8};
	REQUIRE(mhm_quotas_replace(quotas, 1000), "not all quotas have room");
	REQUIRE(region->used_quotas == 1000, "%u quotas", region->used_quotas);
	fill_tenants(100, 12, false);
	for (uint32 tenant = 1; tenant <= 100; tenant++)
	{
		cases++;
		REQUIRE(ordinary_of(tenant) == (tenant % 2 == 1 ? 8 : 5), "tenant %u has %u series now", tenant,
				ordinary_of(tenant));
	}
	drop_region();
	report("quotas of thousands of tenants all hold", "tenants");
}

/* What there is no room for is said, and always concerns the same tenants */
static void
test_too_many_quotas(void)
{
	uint32		room;
	MhmQuota   *quotas;

	make_region(100, 10, 5);
	room = mhm_quota_slots(&region->geometry);
	quotas = malloc((room + 1) * sizeof(MhmQuota));
	for (int again = 0; again < 2; again++)
	{
		uint32		without = 0;

		cases++;
		for (uint32 i = 0; i <= room; i++)
		{
			uint32		number = again ? room - i : i;

			memset(&quotas[i], 0, sizeof(MhmQuota));
			quotas[i].tenant.data[0] = number >> 16;
			quotas[i].tenant.data[1] = number >> 8;
			quotas[i].tenant.data[2] = number;
			quotas[i].series = 3 + again;
		}
		REQUIRE(!mhm_quotas_replace(quotas, room + 1), "nothing is said");
		for (uint32 i = 0; i <= room; i++)
		{
			MhmTenant  *entry = mhm_tenant_find(&quotas[i].tenant);

			without += entry == NULL;
			REQUIRE((entry == NULL) == (i == room), "quota %u of %u", i, room);
		}
		REQUIRE(without == 1, "%u are without", without);
	}
	/* A tenant that has none has an entry as soon as it has a series */
	fill_tenants(20, 5, false);
	REQUIRE(region->used_series == 100, "%u series", region->used_series);
	check_tenants();
	free(quotas);
	drop_region();
	report("of too many quotas the first ones hold", "lists");
}

/* A tenant at its quota gets room from its own idle series and from no others */
static void
test_own_room(void)
{
	make_region(1000, 100, 10);
	fill_tenants(20, 10, true);
	stub_now += USECS_PER_HOUR;
	for (uint32 label = 100; label < 105; label++)
	{
		MhmTarget	target;

		cases++;
		find_numbered(3, MHM_COUNTER, label, &target);
		REQUIRE(target.reason == MHM_DISCARD_NONE, "its own idle series make no room");
		record(&target, false);
	}
	for (uint32 tenant = 1; tenant <= 20; tenant++)
	{
		cases++;
		REQUIRE(tenant == 3 || ordinary_of(tenant) == 10, "tenant %u has lost series to another", tenant);
	}
	/* Those that storage has not got never give way */
	drop_region();
	make_region(1000, 100, 10);
	fill_tenants(20, 10, false);
	stub_now += USECS_PER_HOUR;
	find_sample(&(Sample) {3, 100, MHM_COUNTER, 100});
	for (uint32 tenant = 1; tenant <= 20; tenant++)
	{
		cases++;
		REQUIRE(ordinary_of(tenant) == 10, "tenant %u has lost what is not stored", tenant);
	}
	check_tenants();
	drop_region();
	report("a tenant at its quota gets room from its own series only", "checks");
}

/* When the region is full, idle series of any tenant make room */
static void
test_room_of_all(void)
{
	make_region(1000, 100, 1000);
	fill_tenants(100, 10, true);
	stub_now += USECS_PER_HOUR;
	for (uint32 label = 0; label < 900; label++)
	{
		MhmTarget	target;

		cases++;
		find_numbered(1000, MHM_COUNTER, label, &target);
		REQUIRE(target.reason == MHM_DISCARD_NONE, "label %u finds no room", label);
		record(&target, false);
	}
	check_tenants();
	drop_region();
	report("when the region is full, idle series of all make room", "series");
}

/* Series of few tenants come and go at random */
static void
test_churn(long rounds)
{
	MhmQuota	quotas[6];

	make_region(60, 30, 12);
	for (long round = 0; round < rounds; round++)
	{
		MhmTarget	target;
		pg_uuid_t	tenant = numbered_tenant(1 + random_below(8));

		cases++;
		snprintf(about, sizeof(about), "round %ld", round);
		stub_now += random_below(USECS_PER_MINUTE);
		switch (random_below(20))
		{
			case 0:
				(void) mhm_registry_reset(NULL, 0, &tenant);
				break;
			case 1:
				(void) mhm_registry_reset("h", 1, random_below(2) ? &tenant : NULL);
				break;
			case 2:
				(void) mhm_registry_retire_idle(stub_now - 5 * USECS_PER_MINUTE);
				break;
			case 3:
				for (int i = 0; i < lengthof(quotas); i++)
					quotas[i] = (MhmQuota) {numbered_tenant(i * 2 + random_below(2)), random_below(20)};
				(void) mhm_quotas_replace(quotas, random_below(lengthof(quotas) + 1));
				break;
			default:
				if (find_numbered(1 + random_below(8), random_below(4) ? MHM_COUNTER : MHM_HISTOGRAM,
								  random_below(40), &target) == MHM_FOUND)
					record(&target, random_below(2));
		}
		check_registry();
	}
	REQUIRE(mhm_region_recover() == NULL, "recovery refuses it");
	check_registry();
	drop_region();
	report("entries of tenants are exact while series come and go", "rounds");
}

int
main(void)
{
	const char *problem = stepping_problem();

	if (SANITIZED)
		problem = "a sanitizer's instructions count too";
	if (problem == NULL)
		test_cost();
	else
		printf("ok %d - the cost of a new series # SKIP %s\n", ++tests_run, problem);
	test_quotas();
	test_too_many_quotas();
	test_own_room();
	test_room_of_all();
	test_churn(effort(3000, 300000));
	return finish_tests();
}
