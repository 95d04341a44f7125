/*
 * accumulate_kill.c
 *		Proves that a sample is recorded as a whole or not at all when its
 *		process is killed, whichever instruction is the last.
 *
 * One process records one sample and is killed after its first instruction,
 * its second, and so on until the call has returned; each time recovery must
 * find the sample in all of count, sum, bucket, min, max and discard counter,
 * or in none of them, and in all of them once the call has returned. Then the
 * recovery is killed in the same way, and two or three processes at once.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "single_step.h"

#define SERIES			3
#define MAX_STATES		100

/* Values that a window beginning at 2^-20 puts below it, into it, above it */
#define BELOW			(-2.0)
#define WITHIN			(1.5 / 1048576)
#define WITHIN_TOO		(1.25 / 1048576)
#define ABOVE			64.0

typedef enum Which
{
	COUNTER,
	GAUGE,
	HISTOGRAM
} Which;

typedef struct Sample
{
	const char *name;
	Which		which;
	MhmOperation operation;
	double		value;
	uint64		calls;
	MhmDiscardReason reason;
} Sample;

static const Sample samples[] = {
	{"inc", COUNTER, MHM_INC, 3, 1, MHM_DISCARD_NONE},
	{"inc of several calls", COUNTER, MHM_INC, 7.5, 5, MHM_DISCARD_NONE},
	{"inc of an overflow series", COUNTER, MHM_INC, 3, 4, MHM_DISCARD_SERIES_LIMIT},
	{"inc out of range", COUNTER, MHM_INC, DBL_MAX, 1, MHM_DISCARD_NONE},
	{"gauge_set to a new minimum", GAUGE, MHM_GAUGE_SET, -100, 1, MHM_DISCARD_NONE},
	{"gauge_set of an overflow series", GAUGE, MHM_GAUGE_SET, 100, 1, MHM_DISCARD_TENANT_LIMIT},
	{"gauge_add", GAUGE, MHM_GAUGE_ADD, 50, 1, MHM_DISCARD_NONE},
	{"gauge_add of an overflow series", GAUGE, MHM_GAUGE_ADD, -50, 1, MHM_DISCARD_LABEL_MEMORY},
	{"gauge_set to the largest number", GAUGE, MHM_GAUGE_SET, DBL_MAX, 1, MHM_DISCARD_NONE},
	{"observe below the window", HISTOGRAM, MHM_OBSERVE, BELOW, 1, MHM_DISCARD_NONE},
	{"observe within the window", HISTOGRAM, MHM_OBSERVE, WITHIN, 1, MHM_DISCARD_NONE},
	{"observe above the window", HISTOGRAM, MHM_OBSERVE, ABOVE, 1, MHM_DISCARD_NONE},
	{"observe below, overflow series", HISTOGRAM, MHM_OBSERVE, BELOW, 1, MHM_DISCARD_METRIC_LIMIT},
	{"observe within, overflow series", HISTOGRAM, MHM_OBSERVE, WITHIN, 1, MHM_DISCARD_HISTOGRAM_LIMIT},
	{"observe above, overflow series", HISTOGRAM, MHM_OBSERVE, ABOVE, 1, MHM_DISCARD_TENANT_LIMIT},
};

/* What a region says about its series, apart from times */
typedef struct Totals
{
	uint64		count;
	double		sum;
	double		last;
	double		min;
	double		max;
	uint64		counts[MHM_COUNTS];
} Totals;

typedef struct Observed
{
	Totals		series[SERIES];
	uint64		discarded[MHM_DISCARD_REASONS];
} Observed;

static MhmRegion *region;
static MhmRegion *scratch;
static char *pristine;
static Size bytes;
static MhmTarget targets[SERIES];

/* Memory as it was at the stops of the last walk, and what that is worth */
typedef struct State
{
	long		instruction;
	char	   *memory;
} State;

static State states[MAX_STATES];
static int	states_count;

/* Read with nothing of what is tested, so that it can be compared by bytes */
static void
observe(Observed *observed)
{
	memset(observed, 0, sizeof(*observed));
	for (int i = 0; i < SERIES; i++)
	{
		MhmSeries  *series = &mhm_series[targets[i].series];
		Totals	   *totals = &observed->series[i];

		for (uint32 stripe = 0; stripe < mhm_region->geometry.stripes; stripe++)
		{
			totals->count += mhm_cell(stripe, targets[i].series)->count;
			totals->sum += mhm_cell(stripe, targets[i].series)->sum;
		}
		totals->last = mhm_float8_of_bits(pg_atomic_read_u64(series->kind == MHM_GAUGE &&
															 pg_atomic_read_u64(&series->last) == MHM_RELATIVE ?
															 &mhm_levels[targets[i].series].relative : &series->last));
		totals->min = mhm_float8_of_bits(pg_atomic_read_u64(&series->min));
		totals->max = mhm_float8_of_bits(pg_atomic_read_u64(&series->max));
		if (series->histogram != MHM_NONE)
			for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
				totals->counts[bucket] =
					pg_atomic_read_u64(&mhm_histograms[series->histogram].counts[bucket]);
	}
	for (uint32 stripe = 0; stripe < mhm_region->geometry.stripes; stripe++)
		for (int reason = 0; reason < MHM_DISCARD_REASONS; reason++)
			observed->discarded[reason] += mhm_stripes[stripe].stripe.discarded[reason];
}

/* Which bucket these tests' values belong to, said without the code's help */
static int
bucket_of(double value)
{
	if (value == BELOW)
		return MHM_COUNT_ZERO;
	if (value == ABOVE)
		return MHM_COUNT_OVERFLOW;
	/* 8 * log2(1.5) is 4.68, 8 * log2(1.25) is 2.58 */
	return value == WITHIN ? 4 : 2;
}

/* What one sample makes of what was there; its statistics and its value */
static void
apply(Observed *observed, const Sample *sample, bool statistics)
{
	Totals	   *totals = &observed->series[sample->which];
	double		value = sample->value;

	if (sample->operation == MHM_INC && fabs(value) > DBL_MAX / 1024)
	{
		observed->discarded[MHM_DISCARD_OUT_OF_RANGE]++;
		return;
	}
	if (sample->operation == MHM_GAUGE_ADD)
		value += totals->last;
	if (sample->which == GAUGE)
		totals->last = value;
	if (!statistics)
		return;
	totals->count += sample->calls;
	totals->sum += value;
	if (sample->which != COUNTER)
	{
		totals->min = Min(totals->min, value);
		totals->max = Max(totals->max, value);
	}
	if (sample->which == HISTOGRAM)
		totals->counts[bucket_of(value)]++;
	if (sample->reason != MHM_DISCARD_NONE)
		observed->discarded[sample->reason] += sample->calls;
}

static bool
same(const Observed *a, const Observed *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* Recover a copy of some memory, and check what recovery promises always */
static void
recover_copy(const void *memory, Observed *observed)
{
	static char *again = NULL;
	const char *problem;

	if (again == NULL)
		again = malloc(bytes);
	cases++;
	memcpy(scratch, memory, bytes);
	mhm_region_map(scratch);
	problem = mhm_region_recover();
	REQUIRE(problem == NULL, "recovery says %s", problem);
	observe(observed);
	for (uint32 i = 0; i < scratch->geometry.stripes; i++)
		REQUIRE(pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock) &&
				mhm_stripes[i].stripe.intent.phase == MHM_INTENT_NONE,
				"stripe %u is not free", i);
	memcpy(again, scratch, bytes);
	problem = mhm_region_recover();
	REQUIRE(problem == NULL, "the second recovery says %s", problem);
	REQUIRE(memcmp(again, scratch, bytes) == 0, "the second recovery changes something");
	mhm_region_map(region);
}

static Observed before;

/* One sample: in or out, and in when its call has returned */
static void
check_one(const void *memory, const Sample *sample, bool has_returned)
{
	Observed	after = before;
	Observed	value_only = before;
	Observed	found;

	apply(&after, sample, true);
	apply(&value_only, sample, false);
	recover_copy(memory, &found);
	if (has_returned)
		REQUIRE(same(&found, &after), "the call had returned, and the sample is not in");
	else
		REQUIRE(same(&found, &before) || same(&found, &after) ||
				(sample->which == GAUGE && same(&found, &value_only)),
				"the sample is half in: count %lu, sum %g, min %g, max %g, discarded %lu",
				found.series[sample->which].count, found.series[sample->which].sum,
				found.series[sample->which].min, found.series[sample->which].max,
				sample->reason == MHM_DISCARD_NONE ? 0 : found.discarded[sample->reason]);
}

static void
record(const void *argument)
{
	const Sample *sample = argument;
	MhmTarget	target = targets[sample->which];

	target.reason = sample->reason;
	if (!mhm_accumulate(&target, sample->operation, sample->value, sample->calls,
						stub_now + USECS_PER_SEC))
		_exit(1);
}

static void
recover(const void *argument)
{
	(void) mhm_region_recover();
}

static void
reset_region(const void *memory)
{
	memcpy(region, memory, bytes);
	mhm_region_map(region);
	my_stripe = 1;
}

/* Every series has samples already, in every stripe */
static void
make_fixture(void)
{
	static const MhmGeometry geometry = {4, 2, 6, 3, 4, 8, 4, 24, 4};

	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	scratch = malloc(bytes);
	pristine = malloc(bytes);
	make_test_region(region, &geometry);
	find_target("c", MHM_COUNTER, 1, 'a', 30, &targets[COUNTER]);
	find_target("g", MHM_GAUGE, 1, 'a', 3, &targets[GAUGE]);
	find_target("h", MHM_HISTOGRAM, 2, 'b', 3, &targets[HISTOGRAM]);
	for (uint32 stripe = 0; stripe < geometry.stripes; stripe++)
	{
		my_stripe = stripe;
		mhm_accumulate(&targets[COUNTER], MHM_INC, stripe, 2, stub_now);
		mhm_accumulate(&targets[GAUGE], MHM_GAUGE_ADD, 4.0, 1, stub_now);
		mhm_accumulate(&targets[HISTOGRAM], MHM_OBSERVE, WITHIN_TOO, 1, stub_now);
		mhm_stripes[stripe].stripe.discarded[MHM_DISCARD_TENANT_LIMIT] = stripe;
	}
	memcpy(pristine, region, bytes);
	observe(&before);
}

static void
keep_state(long instruction, bool has_returned, void *argument)
{
	State	   *state = &states[states_count];

	snprintf(about, sizeof(about), "%s, killed after instruction %ld",
			 ((const Sample *) argument)->name, instruction);
	check_one(region, argument, has_returned);
	if (states_count == MAX_STATES)
	{
		fail_case("more than %d changes of memory", MAX_STATES);
		return;
	}
	state->instruction = instruction;
	if (state->memory == NULL)
		state->memory = malloc(bytes);
	memcpy(state->memory, region, bytes);
	states_count++;
}

static Path
walk_sample(const Sample *sample)
{
	reset_region(pristine);
	states_count = 0;
	return walk(0, record, sample, region, bytes, keep_state, (void *) sample);
}

/*
 * Kill at an instruction for good: what a stop shows is what a kill leaves.
 */
static void
kill_at(const Sample *sample, const Path *path, long instruction)
{
	const State *state = NULL;
	pid_t		pid;

	reset_region(pristine);
	pid = begin_stepped(0, record, sample);
	REQUIRE(run_to(pid, path, 0, instruction), "did not get there");
	kill_stepped(pid);
	for (int i = 0; i < states_count && states[i].instruction <= instruction; i++)
		state = &states[i];
	REQUIRE(memcmp(region, state->memory, bytes) == 0, "a kill leaves what a stop does not show");
	check_one(region, sample, returned[0]);
}

static void
test_single_kills(void)
{
	long		stride = SANITIZED ? effort(11, 1) : 1;

	for (int i = 0; i < lengthof(samples); i++)
	{
		Path		path = walk_sample(&samples[i]);

		for (long at = 0; at <= path.length; at += stride)
		{
			snprintf(about, sizeof(about), "%s, killed after instruction %ld", samples[i].name, at);
			kill_at(&samples[i], &path, at);
		}
		REQUIRE(states_count > 2, "the sample changed nothing");
		free(path.counters);
	}
	report("a sample is in or out, whichever instruction its process is killed after", "kills");
}

/* What an uninterrupted recovery makes of the memory that is being recovered */
typedef struct Outcome
{
	Observed	expected;
	const char *name;
	bool		totals_only;	/* which bucket may differ, not how many are in all */
} Outcome;

static void
check_as_expected(const Observed *found, const Outcome *outcome, const char *which)
{
	Observed	compared = *found;
	int64		difference = 0;

	if (outcome->totals_only)
		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		{
			uint64	   *count = &compared.series[HISTOGRAM].counts[bucket];

			difference += *count - outcome->expected.series[HISTOGRAM].counts[bucket];
			*count = outcome->expected.series[HISTOGRAM].counts[bucket];
		}
	REQUIRE(difference == 0 && same(&compared, &outcome->expected),
			"%s finds something else", which);
}

static void
check_outcome(long instruction, bool has_returned, void *argument)
{
	const Outcome *outcome = argument;
	Observed	found;

	snprintf(about, sizeof(about), "%s, recovery killed after instruction %ld",
			 outcome->name, instruction);
	if (has_returned)
	{
		cases++;
		observe(&found);
		check_as_expected(&found, outcome, "a recovery in another process");
	}
	recover_copy(region, &found);
	check_as_expected(&found, outcome, "the recovery after it");
}

static void
walk_recovery(const char *memory, const char *name, bool totals_only)
{
	Outcome		outcome;
	Path		path;

	outcome.name = name;
	outcome.totals_only = totals_only;
	recover_copy(memory, &outcome.expected);
	reset_region(memory);
	path = walk(0, recover, NULL, region, bytes, check_outcome, &outcome);
	free(path.counters);
}

static void
test_killed_recovery(void)
{
	const Sample *sample = &samples[13];
	Path		path = walk_sample(sample);
	int			stride = (int) effort(SANITIZED ? 12 : 3, 1);

	for (int i = 1; i < states_count; i += stride)
		walk_recovery(states[i].memory, sample->name, false);
	free(path.counters);
	report("a recovery that is killed leaves the next one the same samples", "stops of recovery");
}

/*
 * Several processes, all of which observe one histogram; and which of them
 * had returned.  Every total is right; which bucket a sample is in is known
 * unless two processes were killed within the same two instructions.
 */
static void
check_several(const Sample *const *recording, int count)
{
	Observed	found;
	bool		explained = false;
	uint64		in_buckets = 0;
	Totals	   *totals = &found.series[HISTOGRAM];

	recover_copy(region, &found);
	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		in_buckets += totals->counts[bucket];
	REQUIRE(in_buckets == totals->count, "%lu samples are in buckets, %lu are counted",
			in_buckets, totals->count);
	for (int set = 0; set < 1 << count && !explained; set++)
	{
		Observed	expected = before;
		bool		same_value = true;
		bool		possible = true;

		for (int i = 0; i < count; i++)
		{
			if (set & 1 << i)
				apply(&expected, recording[i], true);
			else if (returned[i])
				possible = false;
			same_value = same_value && recording[i]->value == recording[0]->value;
		}
		if (!same_value)
			memcpy(expected.series[HISTOGRAM].counts, totals->counts, sizeof(totals->counts));
		explained = possible && same(&expected, &found);
	}
	REQUIRE(explained, "no set of whole samples gives count %lu, sum %g, min %g, max %g",
			totals->count, totals->sum, totals->min, totals->max);
}

/* The second one's walk while the first is stopped */
typedef struct Pair
{
	const Sample *recording[2];
	long		first;
} Pair;

static void
check_pair(long instruction, bool has_returned, void *argument)
{
	Pair	   *pair = argument;

	snprintf(about, sizeof(about), "%s killed after instruction %ld and %s after %ld",
			 pair->recording[0]->name, pair->first, pair->recording[1]->name, instruction);
	check_several(pair->recording, 2);
}

/* Every place of the first with every place of the second, in its way */
static void
test_pairs(const Sample *one, const Sample *other)
{
	Path		path = walk_sample(one);
	long		stops[MAX_STATES];
	int			stops_count = states_count;
	int			stride = SANITIZED ? (int) effort(5, 1) : 1;

	for (int i = 0; i < stops_count; i++)
		stops[i] = states[i].instruction;
	for (int i = 0; i < stops_count; i += stride)
	{
		Pair		pair = {{one, other}, stops[i]};
		Path		other_path;
		pid_t		pid;

		reset_region(pristine);
		pid = begin_stepped(0, record, one);
		REQUIRE(run_to(pid, &path, 0, stops[i]), "did not get to instruction %ld", stops[i]);
		other_path = walk(1, record, other, region, bytes, check_pair, &pair);
		free(other_path.counters);
		kill_stepped(pid);
	}
	free(path.counters);
}

/* Three processes go on by turns, as far as chance will have it, and die */
static void
test_interleaved(long rounds)
{
	enum
	{
		PROCESSES = 3
	};
	const Sample *recording[PROCESSES];
	Path		paths[lengthof(samples)];
	int			first = 9;
	int			kinds = lengthof(samples) - first;

	for (int i = 0; i < kinds; i++)
		paths[i] = walk_sample(&samples[first + i]);
	cases = 0;
	for (long round = 0; round < rounds; round++)
	{
		int			kind[PROCESSES];
		long		at[PROCESSES] = {0};
		pid_t		pids[PROCESSES];
		bool		lost[PROCESSES] = {false};
		int			turns = 3 + random_below(10);

		reset_region(pristine);
		for (int i = 0; i < PROCESSES; i++)
		{
			kind[i] = random_below(kinds);
			recording[i] = &samples[first + kind[i]];
			my_stripe = i;
			pids[i] = begin_stepped(i, record, recording[i]);
		}
		for (int turn = 0; turn < turns; turn++)
		{
			int			i = random_below(PROCESSES);
			const Path *path = &paths[kind[i]];
			long		to = at[i] + random_below(Min(path->length - at[i], 120) + 1);

			/* Whom another one made take another way is where it ends */
			if (!lost[i] && run_to(pids[i], path, at[i], to))
				at[i] = to;
			else
				lost[i] = true;
		}
		for (int i = 0; i < PROCESSES; i++)
			kill_stepped(pids[i]);
		snprintf(about, sizeof(about), "%s at %ld, %s at %ld, %s at %ld",
				 recording[0]->name, at[0], recording[1]->name, at[1], recording[2]->name, at[2]);
		check_several(recording, PROCESSES);
	}
	for (int i = 0; i < kinds; i++)
		free(paths[i].counters);
}

/*
 * Two killed between counting in a bucket and saying so.  Which of them had
 * counted is lost, and recovery decides; the totals are right all the same,
 * also when it is killed between adding to a bucket and saying so.
 */
static void
test_recovery_of_two(void)
{
	const Sample *one = &samples[10];
	const Sample *other = &samples[11];

	for (int counted = 0; counted < 4; counted++)
	{
		const Sample *both[] = {one, other};
		Observed	found;
		char	   *memory = malloc(bytes);

		reset_region(pristine);
		for (int i = 0; i < 2; i++)
		{
			MhmStripe  *stripe = &mhm_stripes[i].stripe;
			MhmCell    *cell = mhm_cell(i, targets[HISTOGRAM].series);
			MhmIntent  *intent = &stripe->intent;

			pg_atomic_test_set_flag(&stripe->lock);
			intent->series = targets[HISTOGRAM].series;
			intent->bucket = bucket_of(both[i]->value);
			intent->count = cell->count + 1;
			intent->sum = cell->sum + both[i]->value;
			intent->value = both[i]->value;
			intent->reason = MHM_DISCARD_NONE;
			intent->phase = MHM_INTENT_ARMED;
			if (counted & 1 << i)
				pg_atomic_fetch_add_u64(&mhm_histograms[0].counts[intent->bucket], 1);
		}
		memcpy(memory, region, bytes);
		snprintf(about, sizeof(about), "two were armed, %d had counted", counted);
		recover_copy(memory, &found);
		REQUIRE(found.series[HISTOGRAM].count == before.series[HISTOGRAM].count + 2,
				"count is %lu", found.series[HISTOGRAM].count);
		walk_recovery(memory, "two armed", true);
		free(memory);
	}
	report("two that may have counted in a bucket are recovered once, also by a killed recovery",
		   "stops of recovery");
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
	test_single_kills();
	test_killed_recovery();
	test_pairs(&samples[10], &samples[10]);
	report("two killed with the same value leave whole samples", "pairs of places");
	test_pairs(&samples[9], &samples[11]);
	test_pairs(&samples[13], &samples[10]);
	report("two killed with different values leave right totals", "pairs of places");
	test_interleaved(effort(SANITIZED ? 40 : 200, 20000));
	report("three that record by turns and are killed leave whole samples", "rounds");
	test_recovery_of_two();
	return finish_tests();
}
