/*
 * accumulate_race.c
 *		Proves that samples of many processes add up exactly, while series are
 *		read, retired and made again, and when all of them are killed.
 *
 * Eight processes record into the same few series and into series of their
 * own, and keep in memory of the test's how many samples they began and how
 * many were accepted. First they end by themselves: then what is in the live
 * series and what was in the retired ones is exactly what was accepted. Then
 * they are killed at some moment, over and over: then recovery finds no less
 * than what was accepted, and no more than what was begun.
 */
#include "region_fixture.h"
#include "registry_checks.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define WORKERS			8
#define VALUE			1.5
#define SECONDS_AT_MOST	effort(100, 1200)

/* Lets the reader and who retires in, though there are fewer processors */
#define BETWEEN_YIELDS	64
#define UNTIL_KILLED	PG_UINT64_MAX

typedef enum Purpose
{
	SHARED_COUNTER,
	OWN_COUNTER,
	SHARED_HISTOGRAM,
	OWN_HISTOGRAM,
	SHARED_GAUGE,
	RETIRING_COUNTER,
	RETIRING_HISTOGRAM
} Purpose;

#define PURPOSES	(RETIRING_HISTOGRAM + 1)

typedef struct Series
{
	const char *metric;
	MhmKind		kind;
	MhmOperation operation;
	bool		own;			/* one for each process */
} Series;

static const Series series_of[PURPOSES] = {
	{"counter", MHM_COUNTER, MHM_INC, false},
	{"counter", MHM_COUNTER, MHM_INC, true},
	{"histogram", MHM_HISTOGRAM, MHM_OBSERVE, false},
	{"histogram", MHM_HISTOGRAM, MHM_OBSERVE, true},
	{"gauge", MHM_GAUGE, MHM_GAUGE_ADD, false},
	{"retiring_counter", MHM_COUNTER, MHM_INC, false},
	{"retiring_histogram", MHM_HISTOGRAM, MHM_OBSERVE, false},
};

/* What a worker says about itself */
typedef struct Worker
{
	volatile uint64 begun[PURPOSES];
	volatile uint64 accepted[PURPOSES];
	volatile uint64 looked_up;
	char		pad[128];
} Worker;

typedef struct Shared
{
	Worker		workers[WORKERS];
	volatile bool stop;
	uint64		retired[PURPOSES];
	uint64		retirements;
	volatile uint64 readings;
	volatile uint64 wrong_readings;
	char		first_wrong[200];
} Shared;

static MhmRegion *region;
static Shared *shared;

static char
letter_of(Purpose purpose, int worker)
{
	return series_of[purpose].own ? 'A' + worker : 'z';
}

static void
look_up(Purpose purpose, int worker, MhmTarget *target)
{
	if (find_target(series_of[purpose].metric, series_of[purpose].kind, 1,
					letter_of(purpose, worker), 20, target) != MHM_FOUND)
		_exit(1);
}

static void
work(int number, uint64 samples)
{
	Worker	   *me = &shared->workers[number];
	MhmTarget	targets[PURPOSES];

	for (int purpose = 0; purpose < PURPOSES; purpose++)
		look_up(purpose, number, &targets[purpose]);
	for (uint64 i = 0; i < samples; i++)
	{
		Purpose		purpose = random_below(PURPOSES);

		me->begun[purpose]++;
		pg_compiler_barrier();
		while (!mhm_accumulate(&targets[purpose], series_of[purpose].operation, VALUE, 1, stub_now))
		{
			me->looked_up++;
			look_up(purpose, number, &targets[purpose]);
		}
		pg_compiler_barrier();
		me->accepted[purpose]++;
		if (samples != UNTIL_KILLED && i % BETWEEN_YIELDS == 0)
			sched_yield();
	}
}

/* The totals of a slot that nobody records to, read without a stripe */
static uint64
counted_in(uint32 number, double *sum, uint64 *in_buckets)
{
	uint64		count = 0;

	*sum = 0;
	*in_buckets = 0;
	for (uint32 i = 0; i < mhm_region->geometry.stripes; i++)
	{
		count += mhm_cell(i, number)->count;
		*sum += mhm_cell(i, number)->sum;
	}
	if (mhm_series[number].histogram != MHM_NONE)
		for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
			*in_buckets +=
				pg_atomic_read_u64(&mhm_histograms[mhm_series[number].histogram].counts[bucket]);
	return count;
}

/* Retire what is there to be retired, and note what was in it */
static void
retire_once(Purpose purpose)
{
	uint32		metric;

	LWLockAcquire(mhm_registry_lock, LW_EXCLUSIVE);
	metric = mhm_metric_find(series_of[purpose].metric, strlen(series_of[purpose].metric));
	for (uint32 i = 0; i < mhm_region->geometry.series_slots && metric != MHM_NONE; i++)
		if (mhm_series[i].live && mhm_series[i].metric == metric)
		{
			double		sum;
			double		later_sum;
			uint64		in_buckets;
			uint64		count;
			Retiring	retiring = {0};

			begin_retiring(&retiring, i);
			mhm_accumulate_quiesce();
			count = counted_in(i, &sum, &in_buckets);
			finish_retiring(&retiring, true);
			if (counted_in(i, &later_sum, &in_buckets) != count || later_sum != sum ||
				sum != count * VALUE ||
				(series_of[purpose].kind == MHM_HISTOGRAM && in_buckets != count))
				snprintf(shared->first_wrong, sizeof(shared->first_wrong),
						 "a series changed while it was retired: %lu, %lu in buckets, sum %g then %g",
						 count, in_buckets, sum, later_sum);
			shared->retired[purpose] += count;
			shared->retirements++;
			break;
		}
	LWLockRelease(mhm_registry_lock);
}

static void
retire(int number, uint64 unused)
{
	while (!shared->stop)
	{
		retire_once(RETIRING_COUNTER);
		retire_once(RETIRING_HISTOGRAM);
		sched_yield();
	}
}

/* Read a series while others record to it */
static void
read_series(int number, uint64 unused)
{
	MhmTarget	targets[2];
	uint64		before[2] = {0, 0};

	look_up(SHARED_COUNTER, 0, &targets[0]);
	look_up(SHARED_HISTOGRAM, 0, &targets[1]);
	while (!shared->stop)
	{
		int			which = shared->readings++ % 2;
		MhmTotals	totals;
		uint64		counts[MHM_COUNTS];
		uint64		in_buckets = 0;

		LWLockAcquire(mhm_registry_lock, LW_SHARED);
		mhm_accumulate_read(targets[which].series, &totals, counts);
		LWLockRelease(mhm_registry_lock);
		if (which == 1)
			for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
				in_buckets += counts[bucket];
		else
			in_buckets = totals.count;
		/* The sum of a histogram may lead or lag by what is being recorded */
		if (in_buckets != totals.count || totals.count < before[which] ||
			(which == 0 && totals.sum != totals.count * VALUE) ||
			(which == 1 && totals.count > 0 && totals.min != VALUE && totals.max != VALUE))
		{
			snprintf(shared->first_wrong, sizeof(shared->first_wrong),
					 "series %d: count %lu after %lu, %lu in buckets, sum %g", which,
					 totals.count, before[which], in_buckets, totals.sum);
			shared->wrong_readings++;
		}
		before[which] = totals.count;
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

/* Compare one series with what those who record to it say */
static void
check_series_totals(Purpose purpose, int worker, uint64 accepted, uint64 begun)
{
	MhmTarget	target;
	MhmTotals	totals;
	uint64		counts[MHM_COUNTS];
	uint64		in_buckets = 0;
	uint64		count;

	cases++;
	look_up(purpose, worker, &target);
	mhm_accumulate_read(target.series, &totals, counts);
	count = totals.count + shared->retired[purpose];
	if (series_of[purpose].kind == MHM_GAUGE)
	{
		/* Its value is exact; its statistics may miss what was being recorded */
		count = totals.last / VALUE;
		REQUIRE(totals.count <= count, "%lu counted, and the gauge is %g", totals.count, totals.last);
	}
	REQUIRE(count >= accepted && count <= begun, "%s %c: %lu counted, %lu accepted, %lu begun",
			series_of[purpose].metric, letter_of(purpose, worker), count, accepted, begun);
	if (series_of[purpose].kind == MHM_GAUGE)
		return;
	REQUIRE(totals.sum == totals.count * VALUE, "%s %c: %lu counted, and the sum is %g",
			series_of[purpose].metric, letter_of(purpose, worker), totals.count, totals.sum);
	if (series_of[purpose].kind != MHM_HISTOGRAM)
		return;
	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		in_buckets += counts[bucket];
	REQUIRE(in_buckets == totals.count, "%s: %lu in buckets, %lu counted",
			series_of[purpose].metric, in_buckets, totals.count);
	REQUIRE(totals.count == 0 ||
			(totals.min == VALUE && totals.max == VALUE && counts[8 * 20 + 4] == totals.count),
			"%s: another value than the one recorded", series_of[purpose].metric);
}

static void
check_all_totals(int purposes)
{
	for (int purpose = 0; purpose < purposes; purpose++)
	{
		uint64		accepted = 0;
		uint64		begun = 0;

		for (int worker = 0; worker < WORKERS; worker++)
		{
			accepted += shared->workers[worker].accepted[purpose];
			begun += shared->workers[worker].begun[purpose];
			if (series_of[purpose].own)
			{
				check_series_totals(purpose, worker, accepted, begun);
				accepted = begun = 0;
			}
		}
		if (!series_of[purpose].own)
			check_series_totals(purpose, 0, accepted, begun);
	}
}

static void
test_exact(uint64 samples)
{
	pid_t		workers[WORKERS];
	pid_t		retirer;
	pid_t		reader;
	uint64		looked_up = 0;

	retirer = begin(retire, WORKERS, 0);
	reader = begin(read_series, WORKERS + 1, 0);
	for (int i = 0; i < WORKERS; i++)
		workers[i] = begin(work, i, samples);
	for (int i = 0; i < WORKERS; i++)
		end(workers[i], true);
	shared->stop = true;
	end(retirer, true);
	end(reader, true);

	snprintf(about, sizeof(about), "%d processes", WORKERS);
	for (int i = 0; i < WORKERS; i++)
		looked_up += shared->workers[i].looked_up;
	check_registry();
	check_all_totals(PURPOSES);
	REQUIRE(shared->retirements > 2 && looked_up > 0, "%lu retirements met %lu samples",
			shared->retirements, looked_up);
	printf("# %lu retirements, met by %lu samples of %lu\n", shared->retirements, looked_up,
		   WORKERS * samples);
	cases = WORKERS * samples;
	report("live and retired series hold exactly the samples that were accepted", "samples");

	cases = shared->readings;
	REQUIRE(shared->wrong_readings == 0 && shared->first_wrong[0] == '\0',
			"%lu wrong, the last: %s", shared->wrong_readings, shared->first_wrong);
	report("a reader among them sees counts that agree and never fall", "readings");
}

/* Make and retire series of all sorts, to be killed in the middle of that */
static void
churn(int number, uint64 unused)
{
	for (;;)
	{
		MhmTarget	target;

		(void) find_target("churning", MHM_HISTOGRAM, number, 'a' + random_below(26),
						   1 + random_below(100), &target);
		if (target.series != MHM_NONE)
			(void) mhm_accumulate(&target, MHM_OBSERVE, random_below(100), 1, stub_now);
		if (random_below(8) == 0)
			(void) mhm_registry_reset("churning", 8, NULL);
		if (random_below(8) == 0)
			(void) mhm_registry_reset("retiring_histogram", 18, NULL);
	}
}

static uint64
accepted_by_all(void)
{
	uint64		accepted = 0;

	for (int i = 0; i < WORKERS; i++)
		for (int purpose = 0; purpose < PURPOSES; purpose++)
			accepted += shared->workers[i].accepted[purpose];
	return accepted;
}

/* What was recovered counts as accepted from here on */
static void
settle(void)
{
	for (int purpose = 0; purpose < RETIRING_COUNTER; purpose++)
	{
		uint64		others = 0;

		for (int i = 0; i < WORKERS; i++)
		{
			Worker	   *worker = &shared->workers[i];
			MhmTarget	target;
			MhmTotals	totals;
			uint64		count;

			look_up(purpose, i, &target);
			mhm_accumulate_read(target.series, &totals, NULL);
			count = series_of[purpose].kind == MHM_GAUGE ? totals.last / VALUE : totals.count;
			if (series_of[purpose].own || i == WORKERS - 1)
				worker->accepted[purpose] = count - others;
			if (!series_of[purpose].own)
				others += worker->accepted[purpose];
			worker->begun[purpose] = worker->accepted[purpose];
		}
	}
}

static void
test_killed(long rounds)
{
	uint64		in_flight = 0;

	memset(shared, 0, sizeof(*shared));
	mhm_registry_reset(NULL, 0, NULL);
	for (long round = 0; round < rounds; round++)
	{
		pid_t		pids[WORKERS + 1];
		uint64		enough = accepted_by_all() + 1 + random_below(20000);
		const char *problem;

		for (int i = 0; i < WORKERS; i++)
			pids[i] = begin(work, i, UNTIL_KILLED);
		pids[WORKERS] = begin(churn, WORKERS, 0);
		while (accepted_by_all() < enough)
			sched_yield();
		for (int i = 0; i <= WORKERS; i++)
			kill(pids[i], SIGKILL);
		for (int i = 0; i <= WORKERS; i++)
			end(pids[i], false);
		next_random();

		snprintf(about, sizeof(about), "round %ld", round);
		reset_registry_lock();
		for (uint32 i = 0; i < region->geometry.stripes; i++)
			in_flight += mhm_stripes[i].stripe.intent.phase != MHM_INTENT_NONE;
		problem = mhm_region_recover();
		REQUIRE(problem == NULL, "recovery says %s", problem);
		check_registry();
		check_all_totals(RETIRING_COUNTER);
		/* What is broken now would be, too, in the next round */
		if (wrong > 0)
			break;
		settle();
	}
	printf("# %lu samples, %lu of them being added when their process was killed\n",
		   accepted_by_all(), in_flight);
	cases = rounds;
	REQUIRE(in_flight > 0, "no process was killed while it added a sample");
	report("nothing accepted is lost and nothing is counted twice when all are killed", "rounds");
}

/* Somebody waits for what never comes; the children die with us */
static void
give_up(int number)
{
	char		line[200];
	int			length = snprintf(line, sizeof(line), "not ok %d - it came to no end\n1..%d\n",
								  tests_run + 1, tests_run + 1);

	_exit(write(STDOUT_FILENO, line, length) == length ? 1 : 2);
}

int
main(void)
{
	static const MhmGeometry geometry = {64, 32, 80, 40, 16, 128, 16, 400, 4};

	signal(SIGALRM, give_up);
	alarm(SECONDS_AT_MOST);
	region = shared_memory(mhm_region_size(&geometry));
	shared = shared_memory(sizeof(Shared));
	make_test_region(region, &geometry);
	test_exact(effort(SANITIZED ? 30000 : 300000, 3000000));
	test_killed(effort(SANITIZED ? 50 : 200, 10000));
	return finish_tests();
}
