/*
 * region_fixture.h
 *		A shared region without a server: the sources that own it, a way to
 *		make one, and what the tests say about themselves in TAP.
 *
 * With SMALL_REGION defined before, a histogram has eight buckets and there is
 * room for two quotas: the same code over fewer of the same things, for tests
 * that stop at every instruction.
 */
#ifndef MHM_TEST_REGION_FIXTURE_H
#define MHM_TEST_REGION_FIXTURE_H

#include "backend_stubs.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#ifdef SMALL_REGION
#include "../../src/histogrambucket.h"
#undef MHM_HISTOGRAM_BUCKETS
#define MHM_HISTOGRAM_BUCKETS	8
#define MHM_LEAST_QUOTAS		2
#endif

#include "../../src/regionlayout.c"
#include "../../src/stringstore.c"
#include "../../src/labels.c"
#include "../../src/accumulate.c"
#include "../../src/totals.c"
#include "../../src/levels.c"
#define replace_text	replace_metric_text /* also a function of the backend */
#include "../../src/metrics.c"
#undef replace_text
#include "../../src/tenant.c"
#include "../../src/retire.c"
#include "../../src/registry.c"
#include "../../src/collect.c"
#include "../../src/regionrecover.c"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED	true
/* A killed or stopped process cannot be searched for leaks */
const char *
__asan_default_options(void)
{
	return "detect_leaks=0";
}
#else
#define SANITIZED	false
#endif

#define SYSTEM_IDENTIFIER	UINT64CONST(0x123456789)
#define HASH_SEED			UINT64CONST(0xfeedfacecafebeef)

static int	tests_run = 0;
static bool all_ok = true;

/* Wrong cases of the property under test, and the first of them */
static long cases = 0;
static long wrong = 0;
static char wrong_first[2048];

/* The case being checked, for a message about it */
static char about[256];

static pg_attribute_unused() void
fail_case(const char *format,...)
{
	va_list		arguments;
	int			length;

	if (wrong++ > 0)
		return;
	length = snprintf(wrong_first, sizeof(wrong_first), "%s: ", about);
	va_start(arguments, format);
	vsnprintf(wrong_first + length, sizeof(wrong_first) - length, format, arguments);
	va_end(arguments);
}

#define REQUIRE(condition, ...) \
	do { \
		if (!(condition)) \
			fail_case(__VA_ARGS__); \
	} while (0)

/* One line of TAP for all cases since the last */
static void
report(const char *property, const char *unit)
{
	bool		ok = wrong == 0 && cases > 0;

	printf("%sok %d - %s (%ld %s)\n", ok ? "" : "not ", ++tests_run, property, cases, unit);
	if (!ok)
		printf("# %ld wrong, the first: %s\n", wrong, wrong_first);
	fflush(stdout);
	all_ok = all_ok && ok;
	cases = wrong = 0;
	wrong_first[0] = '\0';
}

static int
finish_tests(void)
{
	printf("1..%d\n", tests_run);
	return all_ok ? 0 : 1;
}

/* MHM_LONG=1 multiplies what is tried */
static pg_attribute_unused() long
effort(long usual, long longer)
{
	const char *wanted = getenv("MHM_LONG");

	return wanted != NULL && *wanted != '\0' && strcmp(wanted, "0") != 0 ? longer : usual;
}

/* xorshift64*, so that a run can be repeated */
static uint64 random_state = UINT64CONST(0x9e3779b97f4a7c15);

static pg_attribute_unused() uint64
next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64CONST(0x2545f4914f6cdd1d);
}

static pg_attribute_unused() uint32
random_below(uint32 limit)
{
	return (uint32) ((next_random() >> 32) % limit);
}

/* Memory that children share, with zeroes in it */
static void *
shared_memory(Size bytes)
{
	void	   *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
	{
		printf("Bail out! could not map %zu bytes\n", (size_t) bytes);
		exit(1);
	}
	return memory;
}

/* As PostgreSQL does when it makes its shared memory anew after a crash */
static void
reset_registry_lock(void)
{
	if (mhm_registry_lock == NULL)
		mhm_registry_lock = shared_memory(sizeof(LWLock));
	pg_atomic_init_u32(&mhm_registry_lock->state, 0);
}

/* Empty, identified and mapped, in zeroed memory */
static void
format_region(MhmRegion *region, const MhmGeometry *geometry)
{
	mhm_region_format(region, geometry);
	region->system_identifier = SYSTEM_IDENTIFIER;
	region->hash_seed = HASH_SEED;
}

/* Make a region that can be recorded to */
static void
make_test_region(MhmRegion *region, const MhmGeometry *geometry)
{
	const char *problem;

	reset_registry_lock();
	format_region(region, geometry);
	problem = mhm_region_recover();
	if (problem != NULL)
	{
		printf("Bail out! an empty region cannot be used: %s\n", problem);
		exit(1);
	}
	region->magic = MHM_REGION_MAGIC;
}

static pg_uuid_t
tenant_number(unsigned char number)
{
	pg_uuid_t	tenant;

	memset(&tenant, 0, sizeof(tenant));
	tenant.data[UUID_LEN - 1] = number;
	return tenant;
}

/* One label of so many bytes, filled with the letter, as labels.h stores it */
static uint32
encode_label(char *encoded, char letter, uint32 value_length)
{
	encoded[0] = 1;
	encoded[1] = 'k';
	encoded[2] = (char) (value_length & 0xFF);
	encoded[3] = (char) (value_length >> 8);
	memset(encoded + 4, letter, value_length);
	return 4 + value_length;
}

/* Find or make the series of a metric, a tenant and one label */
static pg_attribute_unused() MhmFindResult
find_target(const char *metric, MhmKind kind, unsigned char tenant, char letter,
			uint32 value_length, MhmTarget *target)
{
	pg_uuid_t	uuid = tenant_number(tenant);
	char		labels[4 + MHM_MAX_LABEL_VALUE_LENGTH];
	MhmKey		key;
	MhmConflict conflict;

	key.tenant = &uuid;
	key.metric = metric;
	key.metric_length = strlen(metric);
	key.labels = labels;
	key.labels_length = encode_label(labels, letter, value_length);
	return mhm_registry_find(&key, kind, target, &conflict);
}

#endif							/* MHM_TEST_REGION_FIXTURE_H */
