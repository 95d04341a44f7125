/*
 * registry_damage.c
 *		Proves that a damaged region is refused, or is whole when it is not.
 *
 * A region in which everything occurs is damaged in some places and recovered
 * between pages that cannot be touched. Recovery must come to an end without
 * touching them; where it finds nothing wrong, the registry is in one piece,
 * can be read, copied, written to and emptied, and fits into a larger region.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "registry_checks.h"

#include <signal.h>

#define SEED				UINT64CONST(0x5eed0fda3a9ed)
#define ROUNDS_BETWEEN_ALARMS 100
#define SECONDS_FOR_THEM	60

static MhmRegion *original;
static Size bytes;
static char *pages;				/* between two that cannot be touched */
static Size pages_bytes;
static MhmRegion *import_target;
static Size import_bytes;
static const MhmGeometry import_geometry = {16, 8, 40, 20, 16, 64, 16, 200, 4};
static long refused;
static long accepted;

/* Where damage hurts most: the parts that recovery trusts after a check */
typedef struct Part
{
	Size		offset;
	Size		length;
} Part;

static Part parts[6];

static void
die_of_signal(int number)
{
	char		line[400];
	int			length = snprintf(line, sizeof(line), "not ok %d - %s: signal %d\n",
								  tests_run + 1, about, number);

	if (write(STDOUT_FILENO, line, length) != length)
		_exit(2);
	_exit(1);
}

static void
fill(const char *metric, MhmKind kind, unsigned char tenant, char letter, uint32 length,
	 MhmOperation operation)
{
	MhmTarget	target;

	find_target(metric, kind, tenant, letter, length, &target);
	my_stripe = letter % mhm_region->geometry.stripes;
	for (int i = 0; i < 3; i++)
		mhm_accumulate(&target, operation, 1.5 * i, 1, stub_now);
}

static void
describe(const char *name, MhmKind kind, const char *help, const char *unit)
{
	MhmConflict conflict;
	MhmDescription description = {kind, help, strlen(help), unit, strlen(unit), NULL};

	(void) mhm_metric_describe(name, strlen(name), &description, &conflict);
}

static void
note_part(int number, void *start, Size length)
{
	parts[number].offset = (char *) start - (char *) original;
	parts[number].length = length;
}

static void
make_fixture(void)
{
	static const MhmGeometry geometry = {8, 4, 14, 6, 8, 16, 8, 60, 3};
	Size		page = sysconf(_SC_PAGESIZE);
	MhmTarget	target;
	MhmIntent  *intent;

	bytes = mhm_region_size(&geometry);
	original = shared_memory(bytes);
	make_test_region(original, &geometry);
	mhm_max_series_per_tenant = 4;
	describe("c", MHM_COUNTER, "a help text of more than one chunk", "bytes");
	describe("only_described", MHM_GAUGE, "help", "");

	/* Were the first a histogram, its samples would have the second's name */
	describe("m", MHM_GAUGE, "help", "");
	describe("m_sum", MHM_COUNTER, "help", "");
	fill("c", MHM_COUNTER, 1, 'a', 3, MHM_INC);
	fill("c", MHM_COUNTER, 2, 'b', 100, MHM_INC);
	fill("g", MHM_GAUGE, 1, 'a', 3, MHM_GAUGE_SET);
	fill("h", MHM_HISTOGRAM, 1, 'a', 30, MHM_OBSERVE);
	fill("h", MHM_HISTOGRAM, 2, 'b', 3, MHM_OBSERVE);
	fill("h_too", MHM_HISTOGRAM, 1, 'c', 3, MHM_OBSERVE);
	fill("c", MHM_COUNTER, 1, 'd', 3, MHM_INC);

	/* One that retires, and one with a sample that is being added */
	find_target("c", MHM_COUNTER, 2, 'b', 100, &target);
	begin_retiring(&(Retiring) {0}, target.series);
	find_target("h", MHM_HISTOGRAM, 2, 'b', 3, &target);
	pg_atomic_test_set_flag(&mhm_stripes[1].stripe.lock);
	intent = &mhm_stripes[1].stripe.intent;
	*intent = (MhmIntent) {MHM_INTENT_ARMED, target.series, 3, MHM_DISCARD_SERIES_LIMIT,
		mhm_cell(1, target.series)->count + 1, 7.5, 2.5, 12};

	note_part(0, original, sizeof(MhmRegion));
	note_part(1, mhm_stripes, geometry.stripes * sizeof(MhmStripePadded));
	note_part(2, mhm_metrics, geometry.metric_slots * sizeof(MhmMetric));
	note_part(3, mhm_series, geometry.series_slots * sizeof(MhmSeries));
	note_part(4, mhm_chunks, geometry.chunks * sizeof(MhmChunk));
	note_part(5, original, bytes);

	pages_bytes = TYPEALIGN(page, bytes);
	pages = mmap(NULL, pages_bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (pages == MAP_FAILED ||
		mprotect(pages + page, pages_bytes, PROT_READ | PROT_WRITE) != 0)
	{
		printf("Bail out! could not map memory\n");
		exit(1);
	}
	pages += page;
	import_bytes = mhm_region_size(&import_geometry);
	import_target = shared_memory(import_bytes);
}

/* A value that is likely to pass some check */
static uint64
odd_value(void)
{
	switch (random_below(6))
	{
		case 0:
			return PG_UINT64_MAX;
		case 1:
			return next_random();
		case 2:
			return mhm_bits_of_float8(random_below(2) ? NAN : INFINITY);
		default:
			return random_below(16);
	}
}

static void
damage(char *region)
{
	const Part *part = &parts[random_below(lengthof(parts))];
	Size		at = part->offset + random_below(part->length);
	uint64		value = odd_value();

	switch (random_below(6))
	{
		case 0:
			region[at] ^= 1 << random_below(8);
			break;
		case 1:
			region[at] = (char) value;
			break;
		case 2:
			memcpy(region + TYPEALIGN_DOWN(8, at), &value, 8);
			break;
		case 3:
			{
				/* One slot of a table as another one is, or as it was before */
				Size		unit = random_below(2) ? sizeof(MhmSeries) : sizeof(MhmMetric);
				Size		slots = Min(part->length, 8 * unit) / unit;

				if (slots > 0)
					memcpy(region + part->offset + random_below(slots) * unit,
						   (char *) original + part->offset + random_below(slots) * unit, unit);
				break;
			}
		default:
			memcpy(region + TYPEALIGN_DOWN(4, at), &value, 4);
			break;
	}
}

/* Everything that a server does with a region, on one that was accepted */
static void
use_region(void)
{
	MhmCollection *collection = mhm_collect(NULL, true);
	MhmTarget	target;

	REQUIRE(collection->series_count ==
			mhm_region->used_series + mhm_region->used_overflow_series,
			"%u series are copied", collection->series_count);
	for (uint32 i = 0; i < collection->series_count; i++)
	{
		const MhmCollectedSeries *series = &collection->series[i];
		uint64		in_buckets = 0;

		REQUIRE(isfinite(series->totals.sum) && isfinite(series->totals.last) &&
				!isnan(series->totals.min) && !isnan(series->totals.max),
				"series %u has the sum %g and the value %g", series->number,
				series->totals.sum, series->totals.last);
		for (int bucket = 0; series->counts != NULL && bucket < MHM_COUNTS; bucket++)
			in_buckets += series->counts[bucket];
		REQUIRE(series->counts == NULL || in_buckets == series->totals.count,
				"histogram %u has %lu in buckets and %lu counted", series->number,
				in_buckets, series->totals.count);
	}
	my_stripe = MHM_NONE;
	for (int i = 0; i < 12; i++)
	{
		bool		histogram = i % 3 == 0;

		if (find_target(histogram ? "h" : "c", histogram ? MHM_HISTOGRAM : MHM_COUNTER, i % 5,
						'a' + i % 4, i % 2 ? 3 : 100, &target) == MHM_FOUND)
			REQUIRE(mhm_accumulate(&target, histogram ? MHM_OBSERVE : MHM_INC, i, 1, stub_now),
					"a sample is turned away");
	}
	describe("described", MHM_GAUGE, "help", "unit");
	check_registry();
	(void) mhm_registry_retire_idle(stub_now);
	(void) mhm_registry_reset("h", 1, NULL);
	check_registry();
	(void) mhm_registry_reset(NULL, 0, NULL);
	check_registry();
	REQUIRE(mhm_region->used_series == 0 && mhm_region->used_overflow_series == 0,
			"series are left");
}

/* Move it to another size, as a change of settings does */
static void
import_region(MhmRegion *region)
{
	sigjmp_buf	raised;

	memset(import_target, 0, import_bytes);
	format_region(import_target, &import_geometry);
	REQUIRE(mhm_region_recover() == NULL, "an empty region cannot be used");
	stub_raise_to = &raised;
	if (sigsetjmp(raised, 1) == 0)
	{
		static Contents source;
		static Contents target;

		mhm_region_map(region);
		read_contents(&source);
		mhm_region_import(region, import_target);
		mhm_region_map(import_target);
		check_registry();
		read_contents(&target);
		REQUIRE(source.count == target.count, "%d things became %d", source.count, target.count);
	}
	else
		fail_case("an accepted region cannot be moved: %s", stub_message);
	stub_raise_to = NULL;
	reset_registry_lock();
	mhm_region_map(region);
}

static void
recover_damaged(MhmRegion *region, bool import)
{
	const char *problem = mhm_region_header_problem(region, bytes, SYSTEM_IDENTIFIER);

	cases++;
	reset_registry_lock();
	if (problem == NULL)
	{
		mhm_region_map(region);
		problem = mhm_region_recover();
	}
	if (problem != NULL)
	{
		refused++;
		return;
	}
	accepted++;
	check_registry();
	if (import)
		import_region(region);
	use_region();
}

static void
test_damage(long rounds)
{
	for (long round = 0; round < rounds; round++)
	{
		MhmRegion  *region = (MhmRegion *) (round % 2 ? pages : pages + pages_bytes - bytes);
		int			places = 1 + random_below(round % 3 ? 2 : 12);

		if (round % ROUNDS_BETWEEN_ALARMS == 0)
			alarm(SECONDS_FOR_THEM);
		snprintf(about, sizeof(about), "round %ld of seed %lx", round, SEED);
		memcpy(region, original, bytes);
		while (places-- > 0)
			damage((char *) region);
		recover_damaged(region, true);
	}
	printf("# seed %lx: %ld refused, %ld accepted\n", SEED, refused, accepted);
	REQUIRE(refused > rounds / 10 && accepted > rounds / 10, "%ld refused, %ld accepted",
			refused, accepted);
	report("a damaged region is refused or whole", "damaged regions");
}

/* Every byte once, so that no field is left out by chance */
static void
test_every_byte(void)
{
	static const unsigned char masks[] = {0x01, 0x80, 0xFF};

	for (Size at = 0; at < bytes; at++)
		for (int i = 0; i < lengthof(masks); i++)
		{
			MhmRegion  *region = (MhmRegion *) (at % 2 ? pages : pages + pages_bytes - bytes);

			if (at % ROUNDS_BETWEEN_ALARMS == 0)
				alarm(SECONDS_FOR_THEM);
			snprintf(about, sizeof(about), "byte %zu changed by %x", (size_t) at, masks[i]);
			memcpy(region, original, bytes);
			((unsigned char *) region)[at] ^= masks[i];
			recover_damaged(region, true);
		}
	report("a region with one byte changed is refused or whole", "changes");
}

/* Texts that fit the store and not the buffers that they are copied to */
static void
test_too_long(void)
{
	static char text[MHM_MAX_LABELS_LENGTH + 100];
	MhmTarget	target;

	for (int which = 0; which < 4; which++)
	{
		MhmMetric  *metric;
		const char *problem;
		bool		stored;

		cases++;
		memset(import_target, 0, import_bytes);
		make_test_region(import_target, &import_geometry);
		memset(text, 'x', sizeof(text));
		describe("d", MHM_COUNTER, "", "");
		find_target("m", MHM_COUNTER, 1, 'a', 3, &target);
		metric = &mhm_metrics[mhm_metric_find("d", 1)];
		if (which == 0)
		{
			stored = mhm_string_store(text, MHM_MAX_METRIC_LENGTH + 1, &metric->name);
			metric->hash = mhm_metric_hash(text, MHM_MAX_METRIC_LENGTH + 1);
		}
		else if (which == 1)
			stored = mhm_string_store(text, MHM_MAX_HELP_LENGTH + 1, &metric->help);
		else if (which == 2)
			stored = mhm_string_store(text, MHM_MAX_UNIT_LENGTH + 1, &metric->unit);
		else
		{
			MhmSeries  *series = &mhm_series[target.series];
			uint32		length = 0;

			while (length <= MHM_MAX_LABELS_LENGTH)
				length += encode_label(text + length, 'x', 50);
			stored = mhm_string_store(text, length, &series->labels);
			series->hash = mhm_series_hash(&series->tenant, series->metric, series->overflow,
										   text, length);
		}
		snprintf(about, sizeof(about), "text %d", which);
		REQUIRE(stored, "no room");
		problem = mhm_region_recover();
		REQUIRE(problem != NULL, "it is accepted");
	}
	report("a text that is too long is refused", "texts");
}

/* Nothing but the header may be read before the size is known to fit */
static void
test_header(long rounds)
{
	Size		page = sysconf(_SC_PAGESIZE);
	char	   *end = pages + pages_bytes;

	for (long round = 0; round < rounds; round++)
	{
		MhmRegion  *header = (MhmRegion *) (end - TYPEALIGN(8, sizeof(MhmRegion)));
		Size		claimed = random_below(2) ? bytes : next_random() % (4 * page);
		Size		at = random_below(sizeof(MhmRegion) / 4) * 4;
		uint64		value = odd_value();
		const char *problem;

		cases++;
		snprintf(about, sizeof(about), "header %ld of seed %lx", round, SEED);
		memcpy(header, original, sizeof(MhmRegion));
		memcpy((char *) header + Min(at, sizeof(MhmRegion) - 8), &value, round % 2 ? 4 : 8);
		problem = mhm_region_header_problem(header, claimed, SYSTEM_IDENTIFIER);
		REQUIRE(problem != NULL ||
				(mhm_region_size(&header->geometry) == claimed && claimed == bytes),
				"a geometry that does not fit is accepted");
	}
	report("a header that lies is refused by what it says alone", "headers");
}

int
main(void)
{
	make_fixture();
	random_state = SEED;
	signal(SIGALRM, die_of_signal);
	if (!SANITIZED)
	{
		signal(SIGSEGV, die_of_signal);
		signal(SIGBUS, die_of_signal);
		signal(SIGABRT, die_of_signal);
	}
	test_header(20000);
	test_too_long();
	test_every_byte();
	test_damage(effort(SANITIZED ? 5000 : 20000, 2000000));
	return finish_tests();
}
