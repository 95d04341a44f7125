/*
 * registry_kill.c
 *		Proves that series and metrics come and go as a whole when the process
 *		that makes, describes or retires them is killed at any instruction.
 *
 * Each operation runs in a process that is stopped wherever it has changed
 * memory, and killed at those places and between them. What is recovered is in
 * one piece (registry_checks.h), holds everything that the operation does not
 * touch with all that was recorded in it, and of what it does touch each part
 * as it was before or as it is afterwards; all of it once the call returned.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "single_step.h"
#include "registry_checks.h"

#define MAX_STATES		1000
#define TENANT_QUOTA	3

/* What may be seen of an operation that was not finished */
typedef enum Granularity
{
	NOTHING_TO_SEE,				/* changes no metric and no series */
	AT_ONCE,					/* nothing */
	ITEM_BY_ITEM,				/* some metrics and series as they will be */
	STEP_BY_STEP				/* a metric with a part of its description */
} Granularity;

typedef struct Operation
{
	const char *name;
	SteppedWork work;
	Granularity granularity;
	bool		full;			/* starts with no room for ordinary series */
	bool		may_retire;		/* idle series give way to those that want room */
	bool		has_quotas;		/* of tenants 1 and 5 */
} Operation;

static MhmRegion *region;
static MhmRegion *scratch;
static char *roomy;
static char *crowded;
static Size bytes;
static Contents before;
static Contents after;
static char *kept_memory[MAX_STATES];
static long kept_at[MAX_STATES];
static int	kept;

static void
make(const char *metric, MhmKind kind, unsigned char tenant, char letter, uint32 length)
{
	MhmTarget	target;

	(void) find_target(metric, kind, tenant, letter, length, &target);
}

static void
new_series_of_new_metric(const void *argument)
{
	make("a_new_metric_with_a_name_of_two_chunks", MHM_COUNTER, 9, 'z', 70);
}

static void
new_series_of_known_metric(const void *argument)
{
	make("c", MHM_COUNTER, 9, 'z', 3);
}

static void
new_histogram(const void *argument)
{
	make("h", MHM_HISTOGRAM, 9, 'z', 40);
}

static void
overflow_of_tenant(const void *argument)
{
	make("c", MHM_COUNTER, 1, 'z', 3);
}

static void
overflow_of_histograms(const void *argument)
{
	make("h", MHM_HISTOGRAM, 9, 'y', 3);
}

static void
one_more_than_fits(const void *argument)
{
	make("another", MHM_COUNTER, 9, 'x', 3);
}

static void
reset_metric(const void *argument)
{
	(void) mhm_registry_reset("h", 1, NULL);
}

static void
reset_described_metric(const void *argument)
{
	(void) mhm_registry_reset("c", 1, NULL);
}

static void
reset_tenant(const void *argument)
{
	pg_uuid_t	tenant = tenant_number(1);

	(void) mhm_registry_reset(NULL, 0, &tenant);
}

static void
reset_all(const void *argument)
{
	(void) mhm_registry_reset(NULL, 0, NULL);
}

static void
retire_idle(const void *argument)
{
	(void) mhm_registry_retire_idle(stub_now + 1);
}

static void
give_quota(const void *argument)
{
	MhmQuota	quota = {tenant_number(5), 7};

	(void) mhm_quotas_replace(&quota, 1);
}

static void
take_quotas(const void *argument)
{
	MhmQuota	none;

	(void) mhm_quotas_replace(&none, 0);
}

static void
describe(const char *name, MhmKind kind, const char *help, const char *unit, const int16 *window)
{
	MhmConflict conflict;
	MhmDescription description = {
		.kind = kind,
		.help = help,
		.help_length = help == NULL ? 0 : strlen(help),
		.unit = unit,
		.unit_length = unit == NULL ? 0 : strlen(unit),
		.min_exponent = window
	};

	(void) mhm_metric_describe(name, strlen(name), &description, &conflict);
}

static void
describe_new(const void *argument)
{
	describe("d", MHM_COUNTER, NULL, NULL, NULL);
}

static void
describe_help(const void *argument)
{
	describe("c", MHM_COUNTER, "another help text, which takes two chunks", NULL, NULL);
}

static void
remove_help(const void *argument)
{
	describe("c", MHM_COUNTER, "", NULL, NULL);
}

static void
describe_everything(const void *argument)
{
	int16		window = 0;

	describe("new_histogram", MHM_HISTOGRAM, "a help text which takes two chunks of it",
			 "seconds", &window);
}

static void
describe_other_kind(const void *argument)
{
	describe("described_only", MHM_GAUGE, NULL, NULL, NULL);
}

/* As the flush worker does it; what is between is a transaction */
static void
store_descriptions(const void *argument)
{
	MhmStoredMetric metric;

	for (int forgotten = 1; forgotten >= 0; forgotten--)
		for (uint32 from = 0; mhm_metric_next_unstored(from, forgotten, &metric); from = metric.number + 1)
			;
	mhm_metrics_settle_stored();
}

static uint32
load(const char *name, MhmKind kind, int16 window)
{
	MhmStoredMetric row = {
		.kind = kind,
		.min_exponent = window,
		.name_length = strlen(name),
		.help_length = 38
	};

	memcpy(row.name, name, row.name_length);
	memcpy(row.help, "a help text that table metrics brings.", row.help_length);
	return mhm_metric_load(&row);
}

static void
load_new_metric(const void *argument)
{
	(void) load("n", MHM_HISTOGRAM, 0);
}

static void
load_window(const void *argument)
{
	(void) load("h", MHM_HISTOGRAM, 0);
	(void) mhm_registry_retire_superseded();
}

static void
describe_what_is_forgotten(const void *argument)
{
	/* What the table still says is no news */
	(void) load("gone", MHM_COUNTER, MHM_DEFAULT_MIN_EXPONENT);
	describe("gone", MHM_GAUGE, NULL, NULL, NULL);
}

static void
miss_all(const void *argument)
{
	static const bool none[8];

	store_descriptions(NULL);
	mhm_metrics_miss_unless(none, true);
}

static const Operation operations[] = {
	{"a series of a new metric", new_series_of_new_metric, AT_ONCE, false, false, false},
	{"a series of a known metric", new_series_of_known_metric, AT_ONCE, false, false, false},
	{"a histogram", new_histogram, AT_ONCE, false, false, false},
	{"the overflow series of a tenant", overflow_of_tenant, AT_ONCE, false, false, false},
	{"the overflow series of histograms", overflow_of_histograms, AT_ONCE, true, false, false},
	{"retiring to make room", one_more_than_fits, ITEM_BY_ITEM, true, true, false},
	{"retiring a tenant's own to make room", overflow_of_tenant, ITEM_BY_ITEM, false, true, false},
	{"giving a tenant without series a quota", give_quota, NOTHING_TO_SEE, false, false, false},
	{"taking the quotas of tenants with and without series", take_quotas, NOTHING_TO_SEE, false, false, true},
	{"reset of a metric", reset_metric, ITEM_BY_ITEM, false, false, false},
	{"reset of a described metric", reset_described_metric, ITEM_BY_ITEM, false, false, false},
	{"reset of a tenant", reset_tenant, ITEM_BY_ITEM, false, false, false},
	{"reset of all", reset_all, ITEM_BY_ITEM, true, false, false},
	{"retiring idle series", retire_idle, ITEM_BY_ITEM, true, false, false},
	{"describing a new metric", describe_new, AT_ONCE, false, false, false},
	{"describing a known metric", describe_help, AT_ONCE, false, false, false},
	{"removing a help text", remove_help, AT_ONCE, false, false, false},
	{"describing everything of a metric", describe_everything, STEP_BY_STEP, false, false, false},
	{"describing as another kind", describe_other_kind, ITEM_BY_ITEM, false, false, false},
	{"storing descriptions", store_descriptions, ITEM_BY_ITEM, false, false, false},
	{"loading a new description", load_new_metric, STEP_BY_STEP, false, false, false},
	{"loading another window", load_window, STEP_BY_STEP, false, false, false},
	{"describing what is being forgotten", describe_what_is_forgotten, AT_ONCE, false, false, false},
	{"missing descriptions", miss_all, STEP_BY_STEP, false, false, false},
};

static void
fill(const char *metric, MhmKind kind, unsigned char tenant, char letter, uint32 length,
	 MhmOperation operation, bool flushed)
{
	MhmTarget	target;

	find_target(metric, kind, tenant, letter, length, &target);
	my_stripe = letter % mhm_region->geometry.stripes;
	for (int i = 0; i < 3; i++)
		mhm_accumulate(&target, operation, 2.0 * i + letter, 1, stub_now);
	if (flushed)
		mhm_series[target.series].flushed_count = 3;
}

static void
make_fixture(void)
{
	static const MhmGeometry geometry = {8, 3, 12, 5, 8, 8, 4, 40, 2};

	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	scratch = malloc(bytes);
	roomy = malloc(bytes);
	crowded = malloc(bytes);
	make_test_region(region, &geometry);
	stub_now -= USECS_PER_HOUR;
	mhm_max_series_per_tenant = TENANT_QUOTA;
	fill("c", MHM_COUNTER, 1, 'a', 3, MHM_INC, false);
	fill("c", MHM_COUNTER, 1, 'b', 60, MHM_INC, true);
	fill("h", MHM_HISTOGRAM, 1, 'a', 3, MHM_OBSERVE, false);
	fill("g", MHM_GAUGE, 2, 'a', 3, MHM_GAUGE_SET, true);
	fill("h", MHM_HISTOGRAM, 2, 'b', 3, MHM_OBSERVE, true);
	describe("c", MHM_COUNTER, "a help text", NULL, NULL);
	describe("described_only", MHM_COUNTER, NULL, NULL, NULL);
	describe("gone", MHM_COUNTER, "help", NULL, NULL);
	(void) mhm_registry_reset("gone", 4, NULL);
	memcpy(roomy, region, bytes);
	fill("h", MHM_HISTOGRAM, 3, 'c', 3, MHM_OBSERVE, false);
	fill("c", MHM_COUNTER, 3, 'd', 3, MHM_INC, false);
	fill("c", MHM_COUNTER, 4, 'e', 3, MHM_INC, false);
	memcpy(crowded, region, bytes);
	stub_now += USECS_PER_HOUR;
}

static void
reset_region(const char *memory)
{
	memcpy(region, memory, bytes);
	reset_registry_lock();
	mhm_region_map(region);
	my_stripe = 0;
}

/* Recover a copy, and compare what is in it */
static void
check_memory(const char *memory, const Operation *operation, bool has_returned)
{
	static Contents found;
	static Contents again;
	const char *problem;

	cases++;
	memcpy(scratch, memory, bytes);
	mhm_region_map(scratch);
	problem = mhm_region_recover();
	if (problem != NULL)
		fail_case("recovery says %s", problem);
	else
	{
		check_registry();
		read_contents(&found);
		for (int i = 0; i < found.count; i++)
			REQUIRE(contains(&before, found.lines[i]) || contains(&after, found.lines[i]) ||
					operation->granularity == STEP_BY_STEP,
					"neither before nor after: %s", found.lines[i]);
		for (int i = 0; i < before.count; i++)
			REQUIRE(!contains(&after, before.lines[i]) || contains(&found, before.lines[i]),
					"lost: %s", before.lines[i]);
		if (has_returned)
			REQUIRE(same_contents(&found, &after), "the call had returned");
		else if (operation->granularity == AT_ONCE || operation->granularity == NOTHING_TO_SEE)
			REQUIRE(same_contents(&found, &before) || same_contents(&found, &after),
					"half of it is to be seen");
		problem = mhm_region_recover();
		read_contents(&again);
		REQUIRE(problem == NULL && same_contents(&again, &found),
				"the second recovery changes something");
		check_registry();
		if (operation->work == load_new_metric || operation->work == load_window)
		{
			/* The next process reads the table again; the lock is that of who was stopped */
			LWLock	   *held = mhm_registry_lock;
			LWLock		free_lock = {0};

			mhm_registry_lock = &free_lock;
			operation->work(NULL);
			mhm_registry_lock = held;
			read_contents(&again);
			REQUIRE(same_contents(&again, &after), "what was loaded in part is not loaded again");
		}
	}
	mhm_region_map(region);
}

static void
visit_operation(long instruction, bool has_returned, void *argument)
{
	const Operation *operation = argument;

	snprintf(about, sizeof(about), "%s, killed after instruction %ld", operation->name, instruction);
	check_memory((char *) region, operation, has_returned);
	if (kept == MAX_STATES)
	{
		fail_case("more than %d changes of memory", MAX_STATES);
		return;
	}
	kept_at[kept] = instruction;
	if (kept_memory[kept] == NULL)
		kept_memory[kept] = malloc(bytes);
	memcpy(kept_memory[kept++], region, bytes);
}

static void
prepare(const Operation *operation)
{
	reset_region(operation->full ? crowded : roomy);
	region->last_retirement = operation->may_retire ? 0 : stub_now;
	for (uint32 i = 0; i < mhm_tenant_slots(&region->geometry); i++)
		mhm_tenants[i].asked_all_at = operation->may_retire ? 0 : this_second();
	if (operation->has_quotas)
	{
		MhmQuota	quotas[] = {{tenant_number(1), 3}, {tenant_number(5), 7}};

		(void) mhm_quotas_replace(quotas, lengthof(quotas));
	}
}

/* Do it without being stopped, to know what comes out */
static void
foresee(const Operation *operation)
{
	prepare(operation);
	read_contents(&before);
	operation->work(NULL);
	check_registry();
	read_contents(&after);
	REQUIRE(same_contents(&before, &after) == (operation->granularity == NOTHING_TO_SEE),
			"%s does nothing, or what it should not", operation->name);
}

static Path
walk_operation(const Operation *operation)
{
	foresee(operation);
	prepare(operation);
	kept = 0;
	return walk(0, operation->work, NULL, region, bytes, visit_operation, (void *) operation);
}

/* Kill for good where memory has just changed, and in between */
static void
kill_for_good(const Operation *operation, const Path *path, int stride)
{
	for (int i = 0; i < kept; i += stride)
	{
		long		until = i + 1 < kept ? kept_at[i + 1] : path->length + 1;
		long		at = kept_at[i] + random_below(until - kept_at[i]);
		pid_t		pid;

		snprintf(about, sizeof(about), "%s, killed after instruction %ld", operation->name, at);
		prepare(operation);
		pid = begin_stepped(0, operation->work, NULL);
		REQUIRE(run_to(pid, path, 0, at), "did not get there");
		kill_stepped(pid);
		REQUIRE(memcmp(region, kept_memory[i], bytes) == 0, "a kill leaves what a stop does not show");
		check_memory((char *) region, operation, returned[0]);
	}
}

static void
test_operations(void)
{
	int			stride = (int) effort(SANITIZED ? 40 : 10, 1);

	for (int i = 0; i < lengthof(operations); i++)
	{
		Path		path = walk_operation(&operations[i]);

		REQUIRE(kept > 2, "%s was stopped at %d places", operations[i].name, kept);
		kill_for_good(&operations[i], &path, stride);
		free(path.counters);
	}
	report("what is killed leaves every series whole and every slot used or free", "places");
}

static void
recover(const void *argument)
{
	(void) mhm_region_recover();
}

static void
visit_recovery(long instruction, bool has_returned, void *argument)
{
	static Contents found;
	const Contents *expected = argument;
	const char *problem;

	snprintf(about, sizeof(about), "recovery killed after instruction %ld", instruction);
	cases++;
	memcpy(scratch, region, bytes);
	mhm_region_map(scratch);
	problem = mhm_region_recover();
	REQUIRE(problem == NULL, "recovery says %s", problem);
	check_registry();
	read_contents(&found);
	REQUIRE(same_contents(&found, expected), "another recovery finds something else");
	mhm_region_map(region);
}

/* Kill the recovery of what operations left half-way */
static void
test_killed_recovery(void)
{
	static const int half_way[] = {0, 5, 12};
	static Contents expected;
	long		places = effort(1, 8);

	for (int i = 0; i < (SANITIZED ? effort(1, 3) : lengthof(half_way)); i++)
	{
		Path		path = walk_operation(&operations[half_way[i]]);

		for (long place = 1; place <= places; place++)
		{
			Path		of_recovery;

			memcpy(scratch, kept_memory[kept * place / (places + 1)], bytes);
			mhm_region_map(scratch);
			if (mhm_region_recover() != NULL)
				fail_case("recovery finds a problem");
			read_contents(&expected);
			reset_region(kept_memory[kept * place / (places + 1)]);
			of_recovery = walk(0, recover, NULL, region, bytes, visit_recovery, &expected);
			free(of_recovery.counters);
		}
		free(path.counters);
	}
	report("a recovery that is killed leaves the next one the same registry", "places");
}

int
main(void)
{
	const char *problem = stepping_problem();

	if (problem != NULL)
	{
		printf("ok 1 # SKIP %s\n1..1\n", problem);
		return 0;
	}
	make_fixture();
	test_operations();
	test_killed_recovery();
	return finish_tests();
}
