/*
 * levels_kill.c
 *		Proves that a gauge that is new in the region goes on at the level that it
 *		had, exactly once, and that sums are the interval's own, whichever
 *		instruction somebody is killed after.
 *
 * The worker that gives a level is killed after each of its instructions, and so
 * are those who set and add meanwhile; after recovery the next worker gives the
 * level, if it still has to. Then a flush is killed that takes a small sum after
 * a large one.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "single_step.h"
#include "../../src/flushcollect.c"

#define SECONDS_AT_MOST	effort(100, 1200)
#define LEVEL			100.0
#define SET				-40.0
#define ADDED			7.0

static const MhmGeometry geometry = {4, 2, 6, 3, 4, 8, 4, 24, 4};
static const double changes[] = {3, -1, 2, 5};	/* 3, 2, 4, 9 */

static MhmRegion *region;
static MhmRegion *scratch;
static char *pristine;
static Size bytes;
static MhmTarget gauge;
static MhmTarget counter;
static MhmTarget histogram;

/* What flushcollect.c wants of a backend and of histogramcodec.c */


struct varlena *
mhm_histogram_from_window(int min_exponent, const uint64 *buckets, uint64 zero, uint64 overflow,
						  double sum, double min, double max)
{
	return NULL;
}

/* What a gauge has after some samples */
typedef struct Gauge
{
	uint64		count;
	double		sum;
	double		min;
	double		max;
	double		last;
} Gauge;

static const Gauge absolute = {4, 18 + 4 * LEVEL, 2 + LEVEL, 9 + LEVEL, 9 + LEVEL};
static const Gauge with_added = {5, 18 + 16 + 5 * LEVEL, 2 + LEVEL, 16 + LEVEL, 16 + LEVEL};

/* Who adds was killed between its value and its statistics, which miss it then */
static const Gauge value_only = {4, 18 + 4 * LEVEL, 2 + LEVEL, 9 + LEVEL, 16 + LEVEL};

static void
use_memory(const void *memory)
{
	memcpy(region, memory, bytes);
	mhm_region_map(region);
	my_stripe = 1;
}

static Gauge
read_gauge(void)
{
	MhmTotals	totals;

	mhm_accumulate_read(gauge.series, &totals, NULL);
	return (Gauge) {totals.count, totals.sum, totals.min, totals.max, totals.last};
}

static bool
same(const Gauge *a, const Gauge *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

static void
recover(const void *argument)
{
	(void) mhm_region_recover();
}

/* Everything there is is shown, and all of it is what the next flush takes */
static void
require_gauge(const Gauge *one, const Gauge *other)
{
	Gauge		found = read_gauge();
	const Gauge *expected = same(&found, other) ? other :
		other == &with_added && same(&found, &value_only) ? &value_only : one;
	MhmTotals	taken;

	REQUIRE(same(&found, expected), "it shows %lu, sum %g, %g to %g, last %g",
			found.count, found.sum, found.min, found.max, found.last);
	mhm_accumulate_take(gauge.series, &taken, NULL);
	REQUIRE(taken.count == expected->count && taken.sum == expected->sum && taken.min == expected->min &&
			taken.max == expected->max && taken.last == expected->last,
			"a flush takes %lu, sum %g, %g to %g, last %g",
			taken.count, taken.sum, taken.min, taken.max, taken.last);
}

/* All are dead: recover a copy, and have the next worker do what there is to do */
static void
check_after(const void *memory, const Gauge *one, const Gauge *other)
{
	const char *problem;

	cases++;
	memcpy(scratch, memory, bytes);
	mhm_region_map(scratch);
	problem = mhm_region_recover();
	REQUIRE(problem == NULL, "recovery says %s", problem);
	REQUIRE(mhm_region->has_relative, "nobody would look for relative gauges");
	(void) mhm_level_give(gauge.series, LEVEL);
	REQUIRE(!mhm_is_relative(&mhm_series[gauge.series]), "it is relative still");
	REQUIRE(!mhm_level_give(gauge.series, LEVEL), "a level was given twice");
	require_gauge(one, other);
	mhm_region_map(region);
}

static void
step_give(const void *argument)
{
	(void) mhm_level_give(gauge.series, LEVEL);
}

static void
step_set(const void *argument)
{
	if (!mhm_accumulate(&gauge, MHM_GAUGE_SET, SET, 1, stub_now))
		_exit(1);
}

static void
step_add(const void *argument)
{
	if (!mhm_accumulate(&gauge, MHM_GAUGE_ADD, ADDED, 1, stub_now))
		_exit(1);
}

static void
check_recovery(long instruction, bool has_returned, void *argument)
{
	snprintf(about, sizeof(about), "recovery killed after instruction %ld", instruction);
	check_after(region, &absolute, &absolute);
}

#define MAX_STATES		100

static char *states[MAX_STATES];
static int	states_count;

static void
check_given(long instruction, bool has_returned, void *argument)
{
	snprintf(about, sizeof(about), "the worker killed after instruction %ld", instruction);
	if (states_count < MAX_STATES)
	{
		states[states_count] = malloc(bytes);
		memcpy(states[states_count++], region, bytes);
	}
	check_after(region, &absolute, &absolute);
}

static void
test_killed_giver(void)
{
	Path		path;

	use_memory(pristine);
	path = walk(0, step_give, NULL, region, bytes, check_given, NULL);
	REQUIRE(states_count > 15, "giving a level changed memory %d times only", states_count);
	free(path.counters);
	report("a gauge has its level once, whichever instruction the worker is killed after", "kills");

	for (int i = 0; i < states_count; i += SANITIZED ? 5 : 1)
	{
		use_memory(states[i]);
		path = walk(0, recover, NULL, region, bytes, check_recovery, NULL);
		free(path.counters);
	}
	report("and whichever instruction a recovery is killed after", "kills");
}

/* The level comes to who was killed while setting: it is set, or has its level */
static void
check_set(long instruction, bool has_returned, void *argument)
{
	double		last;

	cases++;
	snprintf(about, sizeof(about), "setting killed after instruction %ld", instruction);
	memcpy(scratch, region, bytes);
	mhm_region_map(scratch);
	REQUIRE(mhm_region_recover() == NULL, "recovery refuses it");
	(void) mhm_level_give(gauge.series, LEVEL);
	last = mhm_last(gauge.series);
	REQUIRE(last == SET || (!has_returned && last == absolute.last), "it is %g", last);
	mhm_region_map(region);
}

static void
test_killed_setter(void)
{
	Path		path;

	use_memory(pristine);
	path = walk(0, step_set, NULL, region, bytes, check_set, NULL);
	free(path.counters);
	report("a gauge that is set has no other level, whichever instruction its setter is killed after", "kills");
}

static void
finish(pid_t pid, int number)
{
	int			status;

	while (!returned[number])
		if (ptrace(PTRACE_CONT, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
			!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		{
			fail_case("it was stopped by something else");
			break;
		}
}

static void
ignore(long instruction, bool has_returned, void *argument)
{
}

static int
stripes_held(void)
{
	int			held = 0;

	for (uint32 i = 0; i < geometry.stripes; i++)
		held += !pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock);
	return held;
}

/* One who adds is stopped at one place, and then at the next; then both are killed, or go on */
static void
test_stopped_adder(void)
{
	Path		path;
	long		waited = 0;

	use_memory(pristine);
	path = walk(0, step_add, NULL, region, bytes, ignore, NULL);
	for (long at = 0; at <= path.length; at += SANITIZED ? (int) effort(7, 1) : 1)
	{
		pid_t		adder;
		pid_t		giver;
		double		last;

		use_memory(pristine);
		snprintf(about, sizeof(about), "adding is at instruction %ld, and the gauge is set", at);
		adder = begin_stepped(0, step_add, NULL);
		REQUIRE(run_to(adder, &path, 0, at), "did not get there");
		my_stripe = 2;
		step_set(NULL);
		finish(adder, 0);
		kill_stepped(adder);
		last = mhm_last(gauge.series);
		REQUIRE(last == SET || last == SET + ADDED, "it is %g", last);
		REQUIRE(at > 0 || last == SET + ADDED, "what was added after it was set is lost");
		REQUIRE(!mhm_level_give(gauge.series, LEVEL), "a gauge that was set was given a level");
		cases++;

		use_memory(pristine);
		snprintf(about, sizeof(about), "adding is at instruction %ld, and the worker comes", at);
		adder = begin_stepped(0, step_add, NULL);
		REQUIRE(run_to(adder, &path, 0, at), "did not get there");
		giver = begin_stepped(1, step_give, NULL);
		if (stripes_held() == 0)
			finish(giver, 1);
		for (int steps = 0; steps < 400 && !returned[1]; steps++)
			step(giver);
		waited += !returned[1];
		check_after(region, &absolute, &with_added);
		finish(adder, 0);
		finish(giver, 1);
		kill_stepped(adder);
		kill_stepped(giver);
		mhm_region_map(region);
		cases++;
		require_gauge(&with_added, &with_added);
	}
	REQUIRE(waited > 0, "the worker never waited for a stripe");
	free(path.counters);
	report("what is added meanwhile is added once, to the level or to what was set", "moments");
}

static void
observe_in(uint32 stripe, double value)
{
	my_stripe = stripe;
	mhm_accumulate(&histogram, MHM_OBSERVE, value, 1, stub_now);
	mhm_accumulate(&counter, MHM_INC, value, 1, stub_now);
	mhm_accumulate(&gauge, MHM_GAUGE_SET, value, 1, stub_now);
}

static const MhmTarget *const all_targets[] = {&gauge, &counter, &histogram};
static double shown[lengthof(all_targets)];

/* A flush, and that it is stored */
static void
flush_everything(double *sums, bool stored)
{
	for (int i = 0; i < lengthof(all_targets); i++)
	{
		uint32		number = all_targets[i]->series;
		uint64		counts[MHM_COUNTS];
		MhmTotals	totals;

		mhm_accumulate_take(number, &totals, i == 2 ? counts : NULL);
		sums[i] = totals.sum;
		if (stored)
		{
			mhm_series[number].flushed_count = totals.count;
			if (i == 2)
				for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
					mhm_histograms[mhm_series[number].histogram].flushed[bucket] = counts[bucket];
			mhm_accumulate_drop_taken(number);
		}
		else
			mhm_accumulate_keep_taken(number);
	}
}

static void
step_flush(const void *argument)
{
	double		sums[lengthof(all_targets)];

	flush_everything(sums, false);
}

/* Killed while taking: nothing shows otherwise than before, and the next flush has it all */
static void
check_taken(long instruction, bool has_returned, void *argument)
{
	double		sums[lengthof(all_targets)];

	cases++;
	snprintf(about, sizeof(about), "taking killed after instruction %ld", instruction);
	memcpy(scratch, region, bytes);
	mhm_region_map(scratch);
	REQUIRE(mhm_region_recover() == NULL, "recovery refuses it");
	for (int i = 0; i < lengthof(all_targets); i++)
	{
		MhmTotals	totals;

		mhm_accumulate_read(all_targets[i]->series, &totals, NULL);
		REQUIRE(totals.sum == shown[i], "series %d shows %.17g instead of %.17g", i, totals.sum, shown[i]);
	}
	flush_everything(sums, true);
	for (int i = 0; i < lengthof(all_targets); i++)
		REQUIRE(sums[i] == 0.2, "of series %d the sum is %.17g instead of 0.2", i, sums[i]);
	mhm_region_map(region);
}

static void
require_sums(const char *what, double expected)
{
	double		sums[lengthof(all_targets)];

	snprintf(about, sizeof(about), "%s", what);
	flush_everything(sums, true);
	for (int i = 0; i < lengthof(all_targets); i++)
		REQUIRE(sums[i] == expected, "of series %d the sum is %.17g instead of %.17g", i, sums[i], expected);
	cases++;
}

/* A counter takes no more than its largest sum; the others stop at the largest number */
static void
test_large_sums(void)
{
	double		sums[lengthof(all_targets)];

	use_memory(pristine);
	flush_everything(sums, true);
	observe_in(0, 1e17);
	require_sums("a large one", 1e17);
	for (int i = 0; i < 5; i++)
		observe_in(i % geometry.stripes, 5);
	require_sums("small ones after it", 25);
	observe_in(3, 1e305);
	require_sums("a larger one", 1e305);
	observe_in(2, 0.2);
	require_sums("a single one", 0.2);

	for (int i = 0; i < 3; i++)
	{
		my_stripe = i;
		mhm_accumulate(&histogram, MHM_OBSERVE, 1e308, 1, stub_now);
		mhm_accumulate(&gauge, MHM_GAUGE_SET, 1e308, 1, stub_now);
	}
	flush_everything(sums, true);
	REQUIRE(sums[0] == DBL_MAX && sums[2] == DBL_MAX, "three of 1e308 have the sums %g and %g", sums[0], sums[2]);
	mhm_accumulate(&histogram, MHM_OBSERVE, 1e306, 1, stub_now);
	flush_everything(sums, true);
	REQUIRE(sums[2] == 1e306, "one of 1e306 has the sum %g", sums[2]);
	cases += 2;
	report("the sum of an interval is of its own samples, whatever came before", "intervals");
}

static void
test_killed_taking(void)
{
	double		sums[lengthof(all_targets)];
	Path		path;

	use_memory(pristine);
	for (int i = 0; i < 40; i++)
		observe_in(i % geometry.stripes, 0.1 * i);
	flush_everything(sums, true);
	observe_in(1, 1e17);
	flush_everything(sums, true);
	observe_in(2, 0.2);
	for (int i = 0; i < lengthof(all_targets); i++)
	{
		MhmTotals	totals;

		mhm_accumulate_read(all_targets[i]->series, &totals, NULL);
		shown[i] = totals.sum;
	}
	path = walk(0, step_flush, NULL, region, bytes, check_taken, NULL);
	REQUIRE(path.length > 100, "it took %ld instructions only", path.length);
	free(path.counters);
	report("who is killed while taking changes nothing that is shown or that a flush stores", "kills");
}

/* Is this reset noted, or a wider one? */
static bool
is_noted(char letter)
{
	for (uint32 i = 0; i < mhm_region->resets_count; i++)
	{
		const MhmReset *reset = &mhm_region->resets[i];

		if (!reset->of_tenant &&
			(reset->metric_length == 0 || (reset->metric_length == 1 && reset->metric[0] == letter)))
			return true;
	}
	return false;
}

static void
step_reset(const void *argument)
{
	mhm_resets_note(argument, 1, NULL);
}

static void
check_resets(long instruction, bool has_returned, void *argument)
{
	const int  *earlier = argument;

	cases++;
	snprintf(about, sizeof(about), "a reset after %d others, killed after instruction %ld", *earlier, instruction);
	memcpy(scratch, region, bytes);
	mhm_region_map(scratch);
	REQUIRE(mhm_region_recover() == NULL, "recovery refuses it");
	for (int i = 0; i < *earlier; i++)
		REQUIRE(is_noted('a' + i), "reset %d is forgotten", i);
	REQUIRE(!has_returned || is_noted('z'), "what has returned is not noted");
	mhm_region_map(region);
}

static void
test_killed_reset(void)
{
	static const int before[] = {0, 5, MHM_RESETS};

	for (int i = 0; i < lengthof(before); i++)
	{
		Path		path;

		use_memory(pristine);
		for (int j = 0; j < before[i]; j++)
			mhm_resets_note(&(char) {'a' + j}, 1, NULL);
		path = walk(0, step_reset, "z", region, bytes, check_resets, (void *) &before[i]);
		free(path.counters);
	}
	report("what was reset stays noted, whichever instruction another reset is killed after", "kills");
}

static void
give_up(int number)
{
	char		line[200];
	int			length = snprintf(line, sizeof(line), "not ok %d - it came to no end\n1..%d\n",
								  tests_run + 1, tests_run + 1);

	_exit(write(STDOUT_FILENO, line, length) == length ? 1 : 2);
}

static void
make_fixture(void)
{
	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	scratch = malloc(bytes);
	pristine = malloc(bytes);
	make_test_region(region, &geometry);
	find_target("c", MHM_COUNTER, 1, 'a', 30, &counter);
	find_target("g", MHM_GAUGE, 1, 'a', 3, &gauge);
	find_target("h", MHM_HISTOGRAM, 2, 'b', 3, &histogram);
	for (uint32 i = 0; i < lengthof(changes); i++)
	{
		my_stripe = i;
		mhm_accumulate(&gauge, MHM_GAUGE_ADD, changes[i], 1, stub_now);
	}
	memcpy(pristine, region, bytes);
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
	signal(SIGALRM, give_up);
	alarm(SECONDS_AT_MOST);
	make_fixture();
	test_killed_giver();
	test_killed_setter();
	test_stopped_adder();
	test_large_sums();
	test_killed_taking();
	test_killed_reset();
	return finish_tests();
}
