/*
 * totals_race.c
 *		Proves that flushes which race with recorders store every sample once,
 *		also when all of them are killed at some moment.
 *
 * Recorders write down what they began and what was accepted. The flusher
 * follows the worker's protocol, with two states of storage and a word that
 * says which is committed; what it takes is checked each time. A reader looks
 * at what snapshot() shows meanwhile.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "registry_checks.h"
#include "taken_parts.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define UNTIL_KILLED	PG_UINT64_MAX
#define SECONDS_AT_MOST	effort(100, 1200)
#define FLUSHES_AT_LEAST effort(60, 2000)

/* Shared between the processes of the race; as storage, it survives them */
typedef struct Shared
{
	Journal		journal;
	volatile uint64 begun[RECORDERS];
	volatile uint64 accepted[RECORDERS];
	volatile bool stop;

	/* Two states of storage, and which of them is the committed one */
	Parts		stored[2];
	uint64		stored_tick[2];
	volatile uint32 committed;
	volatile uint64 pending_tick;
	volatile uint64 flushes;
	volatile uint64 readings;
	uint64		wrong_count;
	char		first_wrong[sizeof(wrong_first)];
} Shared;

static Shared *shared;

/*
 * Of two that are killed while they add to a histogram recovery cannot always
 * tell who had been in which bucket; so where they are killed, one has it.
 */
static bool
has_histogram(int number, bool will_be_killed)
{
	return number == 0 || !will_be_killed;
}

static void
record_freely(int number, uint64 samples_wanted)
{
	uint64		at_least = FLUSHES_AT_LEAST;

	for (uint64 i = 0; i < samples_wanted || shared->flushes < at_least; i++)
	{
		shared->begun[number]++;
		pg_compiler_barrier();
		record(COUNTER, ADDED);
		if (has_histogram(number, samples_wanted == UNTIL_KILLED))
			record(HISTOGRAM, value_in_bucket(random_below(MHM_COUNTS)));
		record(GAUGE + number, shared->begun[number]);
		pg_compiler_barrier();
		shared->accepted[number]++;
		if (i % 64 == 0)
			sched_yield();
	}
}

static void
note_wrong(void)
{
	if (wrong == 0)
		return;
	shared->wrong_count += wrong;
	memcpy(shared->first_wrong, wrong_first, sizeof(wrong_first));
	wrong = 0;
}

static void
settle(void)
{
	if (shared->pending_tick != 0 && shared->stored_tick[shared->committed] == shared->pending_tick)
		apply(&shared->journal);
	shared->pending_tick = 0;
	mhm_flush_keep_all_taken();
}

static void
flush_once(bool commits)
{
	uint32		other = 1 - shared->committed;
	uint64		tick = shared->stored_tick[shared->committed] + 1;

	take(&shared->journal);
	require_consistent(&shared->journal.parts, "a flush");
	note_wrong();
	pg_write_barrier();
	shared->pending_tick = tick;
	shared->stored[other] = shared->stored[shared->committed];
	add_parts(&shared->stored[other], &shared->journal.parts);
	shared->stored_tick[other] = tick;
	pg_write_barrier();
	sched_yield();
	if (commits)
	{
		shared->committed = other;
		pg_write_barrier();
		sched_yield();
		apply(&shared->journal);
	}
	else
		mhm_flush_keep_all_taken();
	shared->pending_tick = 0;
	shared->flushes++;
}

static void
flush_freely(int number, uint64 unused)
{
	snprintf(about, sizeof(about), "the race");
	settle();
	while (!shared->stop)
	{
		flush_once(random_below(3) > 0);
		sched_yield();
	}
}

/* The lifetime's extremes only ever widen, and never leave what was recorded */
static void
read_freely(int number, uint64 unused)
{
	double		least[SERIES];
	double		greatest[SERIES];

	for (int i = 0; i < SERIES; i++)
	{
		least[i] = INFINITY;
		greatest[i] = -INFINITY;
	}
	snprintf(about, sizeof(about), "reading");
	while (!shared->stop)
	{
		int			which = 1 + shared->readings++ % (SERIES - 1);
		MhmTotals	totals;

		mhm_accumulate_read(targets[which].series, &totals, NULL);
		REQUIRE(totals.min <= least[which] && totals.max >= greatest[which],
				"series %d: %g to %g after %g to %g", which, totals.min, totals.max,
				least[which], greatest[which]);
		REQUIRE(totals.count == 0 || totals.min <= totals.max, "series %d: %g to %g", which,
				totals.min, totals.max);
		note_wrong();
		least[which] = totals.min;
		greatest[which] = totals.max;
	}
}

static pid_t
begin(void (*body) (int, uint64), int number, uint64 argument)
{
	pid_t		pid = fork();

	if (pid == 0)
	{
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent wants to know in time when to kill */
		if (nice(5) == -1)
			_exit(1);
		random_state += UINT64CONST(0x9e3779b97f4a7c15) * (number + 1);
		next_random();
		my_stripe = MHM_NONE;
		body(number, argument);
		_exit(0);
	}
	if (pid < 0)
	{
		printf("Bail out! could not fork\n");
		exit(1);
	}
	return pid;
}

static void
end(pid_t pid, bool by_itself)
{
	int			status;

	REQUIRE(waitpid(pid, &status, 0) == pid && (!by_itself || status == 0),
			"a process ended with status %d", status);
}

static void
begin_race(void)
{
	memset(region, 0, bytes);
	make_series();
	memset(shared, 0, sizeof(*shared));
	clear_parts(&shared->stored[0]);
}

/* After a last flush: storage has what the recorders say, and the region shows it */
static void
check_stored(bool killed)
{
	const Parts *stored;
	uint64		accepted[GAUGE] = {0, 0};
	uint64		begun[GAUGE] = {0, 0};

	flush_once(true);
	stored = &shared->stored[shared->committed];
	for (int i = 0; i < RECORDERS; i++)
	{
		const Part *part = &stored->series[GAUGE + i];

		for (int which = COUNTER; which <= HISTOGRAM; which++)
			if (which == COUNTER || has_histogram(i, killed))
			{
				accepted[which] += shared->accepted[i];
				begun[which] += shared->begun[i];
			}
		REQUIRE(part->count >= shared->accepted[i] && part->count <= shared->begun[i] &&
				(part->count == 0 || (part->min == 1 && part->max == part->count)),
				"gauge %d: %lu stored, %g to %g, of %lu to %lu", i, part->count, part->min,
				part->max, shared->accepted[i], shared->begun[i]);
	}
	for (int i = COUNTER; i <= HISTOGRAM; i++)
		REQUIRE(stored->series[i].count >= accepted[i] && stored->series[i].count <= begun[i],
				"series %d: %lu stored, of %lu to %lu", i, stored->series[i].count, accepted[i], begun[i]);
	for (int i = 0; i < SERIES; i++)
	{
		MhmTotals	totals;
		uint64		counts[MHM_COUNTS];
		const Part *part = &stored->series[i];

		mhm_accumulate_read(targets[i].series, &totals, counts);
		REQUIRE(totals.count == part->count && totals.sum == part->sum &&
				(i == COUNTER || (totals.min == part->min && totals.max == part->max)),
				"series %d: %lu, sum %g, %g to %g is recorded; %lu, sum %g, %g to %g stored", i,
				totals.count, totals.sum, totals.min, totals.max, part->count, part->sum, part->min, part->max);
		if (i == HISTOGRAM)
			REQUIRE(memcmp(counts, part->counts, sizeof(counts)) == 0, "other buckets are stored than recorded");
	}
	REQUIRE(shared->wrong_count == 0, "%lu wrong, the last: %s", shared->wrong_count, shared->first_wrong);
}

static void
test_race(uint64 samples_each)
{
	pid_t		recorders[RECORDERS];
	pid_t		flusher;
	pid_t		reader;

	begin_race();
	flusher = begin(flush_freely, RECORDERS, 0);
	reader = begin(read_freely, RECORDERS + 1, 0);
	for (int i = 0; i < RECORDERS; i++)
		recorders[i] = begin(record_freely, i, samples_each);
	for (int i = 0; i < RECORDERS; i++)
		end(recorders[i], true);
	shared->stop = true;
	end(flusher, true);
	end(reader, true);
	snprintf(about, sizeof(about), "%d recorders", RECORDERS);
	check_stored(false);
	printf("# %lu flushes, %lu readings\n", shared->flushes, shared->readings);
	cases = 0;
	for (int i = 0; i < RECORDERS; i++)
		cases += 3 * shared->accepted[i];
	report("flushes that race with recorders store every sample once", "samples");
}

static uint64
accepted_by_all(void)
{
	uint64		accepted = 0;

	for (int i = 0; i < RECORDERS; i++)
		accepted += shared->accepted[i];
	return accepted;
}

static void
test_killed_race(long rounds)
{
	uint64		pending = 0;
	uint64		repeated = 0;

	for (long round = 0; round < rounds && wrong == 0; round++)
	{
		pid_t		pids[RECORDERS + 1];
		uint64		enough;
		const char *problem;

		begin_race();
		pids[RECORDERS] = begin(flush_freely, RECORDERS, 0);
		for (int i = 0; i < RECORDERS; i++)
			pids[i] = begin(record_freely, i, UNTIL_KILLED);
		enough = 1 + random_below(20000);
		while (accepted_by_all() < enough || shared->flushes < 2)
			sched_yield();
		for (int i = 0; i <= RECORDERS; i++)
			kill(pids[i], SIGKILL);
		for (int i = 0; i <= RECORDERS; i++)
			end(pids[i], false);
		next_random();

		snprintf(about, sizeof(about), "round %ld", round);
		reset_registry_lock();
		problem = mhm_region_recover();
		REQUIRE(problem == NULL, "recovery says %s", problem);
		check_registry();
		pending += shared->pending_tick != 0;
		repeated += shared->pending_tick != 0 &&
			shared->stored_tick[shared->committed] == shared->pending_tick;
		settle();
		check_stored(true);
	}
	printf("# %lu flushes were pending, %lu of them committed\n", pending, repeated);
	if (!SANITIZED)
		REQUIRE(repeated > 0 && repeated < pending, "no flush was killed before, or none after its commit");
	cases = rounds;
	report("and so they do when all are killed", "rounds");
}

int
main(void)
{
	signal(SIGALRM, give_up);
	alarm(SECONDS_AT_MOST);
	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	shared = shared_memory(sizeof(Shared));
	test_race(effort(SANITIZED ? 50000 : 200000, 2000000));
	test_killed_race(effort(SANITIZED ? 40 : 100, 5000));
	return finish_tests();
}
