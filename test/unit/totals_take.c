/*
 * totals_take.c
 *		Proves that what a flush takes belongs to exactly the same samples, and
 *		that none is lost or taken twice, wherever somebody is stopped or killed.
 *
 * First who takes is killed after every instruction that changes something,
 * while taking, while noting that it is stored, and while giving back; then it
 * is stopped everywhere, and samples are recorded meanwhile, and the other way
 * round; then both are killed.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "single_step.h"
#include "taken_parts.h"

#define SECONDS_AT_MOST	effort(100, 1200)

static MhmRegion *scratch;
static char *pristine;
static Journal *journal;		/* shared */
static Parts due;				/* in the pristine region, and not stored */

static void
step_take(const void *argument)
{
	take(journal);
}

static void
step_apply(const void *argument)
{
	apply(journal);
}

static void
step_keep(const void *argument)
{
	mhm_flush_keep_all_taken();
}

typedef struct Sample
{
	int			series;
	double		value;
} Sample;

static void
step_record(const void *argument)
{
	const Sample *sample = argument;

	if (!record(sample->series, sample->value))
		_exit(1);
}

static void
use_memory(const char *memory)
{
	memcpy(region, memory, bytes);
	mhm_region_map(region);
	reset_registry_lock();
	my_stripe = 1;
}

/* Some samples that are stored, with the widest extremes, and some that are not */
static void
make_fixture(void)
{
	static const int stored[] = {MHM_COUNT_ZERO, 0, MHM_COUNT_OVERFLOW, 7};
	static const int unstored[] = {5, 2, 3, 3};

	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	scratch = malloc(bytes);
	pristine = malloc(bytes);
	journal = shared_memory(sizeof(Journal));
	make_series();

	clear_parts(&due);
	for (int turn = 0; turn < 8; turn++)
	{
		if (turn == 4)
		{
			take(journal);
			apply(journal);
			clear_parts(&due);
		}
		my_stripe = turn % geometry.stripes;
		for (int i = 0; i < SERIES; i++)
		{
			double		value = i == COUNTER ? ADDED : i >= GAUGE ? turn + 1 :
				value_in_bucket(turn < 4 ? stored[turn] : unstored[turn - 4]);

			record(i, value);
			add_sample(&due, i, value);
		}
	}
	memcpy(pristine, region, bytes);
}

/* What snapshot() shows are the extremes of the lifetime */
static void
require_lifetime(int samples)
{
	MhmTotals	totals;

	mhm_accumulate_read(targets[HISTOGRAM].series, &totals, NULL);
	REQUIRE(totals.min == -2 && totals.max == 64, "the lifetime's extremes are %g and %g", totals.min, totals.max);
	mhm_accumulate_read(targets[GAUGE].series, &totals, NULL);
	REQUIRE(totals.min == 1 && totals.max == samples, "a gauge's lifetime's extremes are %g and %g", totals.min,
			totals.max);
}

/*
 * In a copy of the region as it is now, do what the next worker does: recover,
 * note what was committed if it was, give back what was taken and not stored.
 * Then the next flush has to have what is expected, and the ones after it
 * nothing, and what is recorded then.
 */
static void
check_next_worker(Journal *committed, const Parts *expected, const Parts *or_expected)
{
	uint32		lock_state = pg_atomic_read_u32(&mhm_registry_lock->state);
	static Journal next;
	Parts		parts;
	const char *problem;
	uint32		stripe = my_stripe;

	cases++;
	memcpy(scratch, region, bytes);
	mhm_region_map(scratch);
	reset_registry_lock();
	problem = mhm_region_recover();
	REQUIRE(problem == NULL, "recovery says %s", problem);
	if (committed != NULL)
		apply(committed);
	mhm_flush_keep_all_taken();
	take(&next);
	require_consistent(&next.parts, "the next flush");
	REQUIRE(same_parts(&next.parts, expected) || (or_expected != NULL && same_parts(&next.parts, or_expected)),
			"the next flush has %s instead of %s", show_parts(&next.parts), show_parts(expected));
	require_lifetime((int) mhm_float8_of_bits(pg_atomic_read_u64(&mhm_series[targets[GAUGE].series].lifetime_max)));
	apply(&next);

	take(&next);
	REQUIRE(next.changes_count == 0, "the flush after it has something again");
	clear_parts(&parts);
	for (int i = 0; i < SERIES; i++)
	{
		double		value = i == COUNTER ? ADDED : i >= GAUGE ? 20 : value_in_bucket(4);

		record(i, value);
		add_sample(&parts, i, value);
	}
	take(&next);
	REQUIRE(same_parts(&next.parts, &parts), "what came afterwards is %s instead of %s",
			show_parts(&next.parts), show_parts(&parts));
	require_lifetime(20);
	mhm_region_map(region);
	my_stripe = stripe;
	pg_atomic_write_u32(&mhm_registry_lock->state, lock_state);
}

static const char *killed_while;

static void
check_not_committed(long instruction, bool has_returned, void *argument)
{
	snprintf(about, sizeof(about), "killed while %s, after instruction %ld", killed_while, instruction);
	check_next_worker(NULL, &due, NULL);
}

static void
check_committed(long instruction, bool has_returned, void *argument)
{
	Parts		nothing;

	clear_parts(&nothing);
	snprintf(about, sizeof(about), "killed while %s, after instruction %ld", killed_while, instruction);
	check_next_worker(journal, &nothing, NULL);
}

static void
walk_through(const char *what, SteppedWork work, const char *memory, Visitor visit)
{
	Path		path;

	killed_while = what;
	use_memory(memory);
	path = walk(0, work, NULL, region, bytes, visit, NULL);
	REQUIRE(path.length > 100, "it took %ld instructions only", path.length);
	free(path.counters);
}

static void
test_killed_taker(void)
{
	char	   *taken = malloc(bytes);

	walk_through("taking", step_take, pristine, check_not_committed);
	report("who is killed while taking leaves everything to the next flush", "kills");

	use_memory(pristine);
	take(journal);
	snprintf(about, sizeof(about), "taken");
	REQUIRE(same_parts(&journal->parts, &due), "%s was taken instead of %s",
			show_parts(&journal->parts), show_parts(&due));
	memcpy(taken, region, bytes);
	walk_through("giving back", step_keep, taken, check_not_committed);
	report("who is killed while giving back leaves everything to the next flush", "kills");

	walk_through("noting what is stored", step_apply, taken, check_committed);
	report("what was committed is noted once, also by a process after the one that was killed", "kills");
	free(taken);
}

/* Let a stepped process finish its work */
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

/* Two flushes, of which the first is done, have everything between them */
static void
require_all_in_two(const Parts *all)
{
	static Journal second;
	Parts		both = journal->parts;

	cases++;
	require_consistent(&both, "the flush that was raced");
	apply(journal);
	take(&second);
	require_consistent(&second.parts, "the one after it");
	add_parts(&both, &second.parts);
	REQUIRE(same_parts(&both, all), "both flushes together have %s instead of %s",
			show_parts(&both), show_parts(all));
}

static int
stripes_held(void)
{
	int			held = 0;

	for (uint32 i = 0; i < geometry.stripes; i++)
		held += !pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock);
	return held;
}

static const Sample samples[] = {{COUNTER, ADDED}, {HISTOGRAM, -2}, {HISTOGRAM, 64}, {GAUGE, 9}};

static void
ignore(long instruction, bool has_returned, void *argument)
{
}

/* Where on its way who takes reads and changes things */
typedef struct Reach
{
	long		first;			/* change of the region */
	long		last;
	bool	   *changes_series; /* by instruction: what is not a stripe changes soon */
	char	   *series;
} Reach;

/* An exchange begins with a read so many instructions before it */
#define BEFORE_CHANGE		6

static void
note_reach(long instruction, bool has_returned, void *argument)
{
	Reach	   *reach = argument;
	Size		size = geometry.series_slots * sizeof(MhmSeries);

	if (instruction > 0 && !has_returned)
	{
		if (reach->first == 0)
			reach->first = instruction;
		reach->last = instruction;
		if (memcmp(reach->series, mhm_series, size) != 0)
			for (long i = Max(instruction - BEFORE_CHANGE, 0); i <= instruction; i++)
				reach->changes_series[i] = true;
	}
	memcpy(reach->series, mhm_series, size);
}

/* One sample while who takes is stopped at one place, and then at the next */
static void
test_sample_meanwhile(void)
{
	int			stride = (int) effort(19, 1);
	Reach		reach = {0};
	Path		path;

	reach.changes_series = calloc(MAX_INSTRUCTIONS, sizeof(bool));
	reach.series = malloc(geometry.series_slots * sizeof(MhmSeries));
	use_memory(pristine);
	path = walk(0, step_take, NULL, region, bytes, note_reach, &reach);
	for (long at = reach.first; at <= reach.last; at++)
	{
		const Sample *sample = &samples[at % lengthof(samples)];
		Parts		all = due;
		pid_t		pid;

		if (!reach.changes_series[at] && at % stride != 0)
			continue;
		use_memory(pristine);
		snprintf(about, sizeof(about), "a sample of series %d when taking is at instruction %ld",
				 sample->series, at);
		pid = begin_stepped(0, step_take, NULL);
		REQUIRE(run_to(pid, &path, 0, at), "did not get there");
		record(sample->series, sample->value);
		add_sample(&all, sample->series, sample->value);
		finish(pid, 0);
		kill_stepped(pid);
		require_all_in_two(&all);
	}
	free(path.counters);
	free(reach.changes_series);
	free(reach.series);
	report("a sample recorded while others are taken is in this flush or in the next", "moments");
}

/* So many samples meanwhile that no moment without one is found */
static void
test_samples_without_end(void)
{
	int			most_held = 0;

	for (int every = 40; every < 1000; every += (int) effort(160, 10))
	{
		Parts		all = due;
		double		gauge = 8;
		long		steps = 0;
		pid_t		pid;

		use_memory(pristine);
		snprintf(about, sizeof(about), "a sample every %d instructions", every);
		pid = begin_stepped(0, step_take, NULL);
		while (!returned[0] && step(pid))
		{
			int			held = stripes_held();

			most_held = Max(most_held, held);
			/* When all are held a recorder waits, as we must not */
			if (steps++ % every != 0 || held == geometry.stripes)
				continue;
			for (int i = 0; i < SERIES; i++)
			{
				double		value = i == COUNTER ? ADDED : i > GAUGE ? 0 : i == GAUGE ? ++gauge :
					value_in_bucket(random_below(MHM_COUNTS));

				if (i > GAUGE)
					continue;
				record(i, value);
				add_sample(&all, i, value);
			}
		}
		kill_stepped(pid);
		require_all_in_two(&all);
	}
	REQUIRE(most_held == geometry.stripes, "at most %d stripes were held at once", most_held);
	report("under a load that never pauses a flush has all stripes and takes what belongs together", "rates");
}

/* Who records is stopped at one place, and then at the next */
static void
test_stopped_recorder(void)
{
	int			stride = (int) effort(5, 1);
	long		waited = 0;

	for (int i = 0; i < lengthof(samples); i++)
	{
		Parts		all = due;
		Path		path;

		add_sample(&all, samples[i].series, samples[i].value);
		use_memory(pristine);
		path = walk(0, step_record, &samples[i], region, bytes, ignore, NULL);
		for (long at = 0; at <= path.length; at += stride)
		{
			pid_t		recorder;
			pid_t		taker;

			use_memory(pristine);
			snprintf(about, sizeof(about), "recording to series %d is at instruction %ld",
					 samples[i].series, at);
			recorder = begin_stepped(0, step_record, &samples[i]);
			REQUIRE(run_to(recorder, &path, 0, at), "did not get there");
			taker = begin_stepped(1, step_take, NULL);
			if (stripes_held() == 0)
				finish(taker, 1);
			for (int steps = 0; steps < 300 && !returned[1]; steps++)
				step(taker);
			waited += !returned[1];
			finish(recorder, 0);
			finish(taker, 1);
			kill_stepped(recorder);
			kill_stepped(taker);
			require_all_in_two(&all);
		}
		free(path.counters);
	}
	REQUIRE(waited > 0, "nobody waited for a stripe");
	report("a flush has what is being recorded as a whole or not at all", "moments");
}

/* Both go some way, by turns, and are killed */
static void
test_both_killed(long rounds)
{
	for (long round = 0; round < rounds; round++)
	{
		const Sample *sample = &samples[random_below(lengthof(samples))];
		Parts		with = due;
		pid_t		pids[2];

		use_memory(pristine);
		pids[0] = begin_stepped(0, step_record, sample);
		pids[1] = begin_stepped(1, step_take, NULL);
		for (int turn = random_below(6); turn >= 0; turn--)
		{
			int			which = random_below(2);

			for (int steps = random_below(which == 0 ? 60 : 900); steps > 0 && !returned[which]; steps--)
				step(pids[which]);
		}
		add_sample(&with, sample->series, sample->value);
		snprintf(about, sizeof(about), "round %ld, series %d", round, sample->series);
		if (sample->series == GAUGE)
		{
			/* Its value is exact at any moment; its statistics come after it */
			Parts		value_only = due;

			value_only.series[GAUGE].last =
				mhm_float8_of_bits(pg_atomic_read_u64(&mhm_series[targets[GAUGE].series].last));
			check_next_worker(NULL, returned[0] ? &with : &value_only, &with);
		}
		else
			check_next_worker(NULL, returned[0] ? &with : &due, &with);
		kill_stepped(pids[0]);
		kill_stepped(pids[1]);
	}
	report("a recorder and who takes, both killed, leave whole samples to the next flush", "rounds");
}

int
main(void)
{
	const char *problem = stepping_problem();

	/* A sanitizer marks every byte that is allocated, which takes long by steps */
	if (SANITIZED)
		problem = "a sanitized program is too slow to be stepped through allocations";
	if (problem != NULL)
	{
		printf("ok 1 # SKIP %s\n1..1\n", problem);
		return 0;
	}
	signal(SIGALRM, give_up);
	alarm(SECONDS_AT_MOST);
	make_fixture();
	test_killed_taker();
	test_sample_meanwhile();
	test_samples_without_end();
	test_stopped_recorder();
	test_both_killed(effort(150, 10000));
	return finish_tests();
}
