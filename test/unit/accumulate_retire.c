/*
 * accumulate_retire.c
 *		Proves that a sample never gets into a series that was retired, nor
 *		into the one that has its slot now, whichever the moment.
 *
 * A process is stopped after every instruction of recording a sample. If it
 * holds no stripe there, its series is retired at that moment, and another one
 * is made in the same slot; if it holds one, who retires the series has to
 * wait for it. Then it goes on. A sample that was accepted is in what was read
 * when nobody held a stripe any more, and one that was not is nowhere.
 */
#define SMALL_REGION
#include "region_fixture.h"
#include "single_step.h"

typedef struct Sample
{
	const char *name;
	MhmKind		kind;
	MhmOperation operation;
} Sample;

static const Sample samples[] = {
	{"inc", MHM_COUNTER, MHM_INC},
	{"gauge_set", MHM_GAUGE, MHM_GAUGE_SET},
	{"gauge_add", MHM_GAUGE, MHM_GAUGE_ADD},
	{"observe", MHM_HISTOGRAM, MHM_OBSERVE},
};

#define VALUE		8.0
#define EARLIER		4.0			/* in the series already */

static const MhmGeometry geometry = {4, 2, 6, 3, 4, 8, 4, 24, 3};
static MhmRegion *region;
static char *pristine;
static Size bytes;
static MhmTarget target;

/* What the stepped processes say; shared */
typedef struct Notes
{
	volatile bool accepted;
	volatile bool quiesced;
} Notes;

static Notes *notes;

static uint64
count_in(uint32 number)
{
	uint64		count = 0;

	for (uint32 i = 0; i < region->geometry.stripes; i++)
		count += mhm_cell(i, number)->count;
	return count;
}

static uint64
count_in_buckets(uint32 number)
{
	uint64		count = 0;

	for (int bucket = 0; bucket < MHM_COUNTS; bucket++)
		count += pg_atomic_read_u64(&mhm_histograms[mhm_series[number].histogram].counts[bucket]);
	return count;
}

static bool
any_stripe_held(void)
{
	for (uint32 i = 0; i < region->geometry.stripes; i++)
		if (!pg_atomic_unlocked_test_flag(&mhm_stripes[i].stripe.lock))
			return true;
	return false;
}

static void
record(const void *argument)
{
	const Sample *sample = argument;

	notes->accepted = mhm_accumulate(&target, sample->operation, VALUE, 1, stub_now);
}

static Retiring retiring;

static void
retire(const void *argument)
{
	retiring.count = 0;
	begin_retiring(&retiring, target.series);
	mhm_accumulate_quiesce();
	notes->quiesced = true;
}

/* Let a process that is stopped finish its work */
static void
finish(pid_t pid)
{
	int			status;

	while (!returned[0])
		if (ptrace(PTRACE_CONT, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
			!WIFSTOPPED(status) || WSTOPSIG(status) != SIGSTOP)
		{
			fail_case("it was stopped by something else");
			break;
		}
}

static void
reset_region(void)
{
	memcpy(region, pristine, bytes);
	reset_registry_lock();
	mhm_region_map(region);
	memset(notes, 0, sizeof(*notes));
	my_stripe = 1;
}

static void
ignore(long instruction, bool has_returned, void *argument)
{
}

/* Retire the series now, and use its slot again before the process goes on */
static void
retire_meanwhile(pid_t pid, const Sample *sample)
{
	uint64		retired;
	MhmTarget	next;
	double		last;
	MhmSeries  *series;

	retire(NULL);
	retired = count_in(target.series);
	finish_retiring(&retiring, true);
	find_target("m", sample->kind, 2, 'b', 3, &next);
	series = &mhm_series[next.series];
	last = mhm_last(next.series);
	finish(pid);

	REQUIRE(next.series == target.series, "the slot was not used again");
	REQUIRE(retired == (notes->accepted ? 2 : 1), "%lu samples were retired, the last was %s",
			retired, notes->accepted ? "accepted" : "not accepted");
	REQUIRE(count_in(next.series) == 0 && isinf(mhm_float8_of_bits(pg_atomic_read_u64(&series->min))) &&
			mhm_last(next.series) == last,
			"the sample is in the next series of the slot");
	if (sample->kind == MHM_HISTOGRAM)
		REQUIRE(count_in_buckets(next.series) == 0, "the next series has it in a bucket");
}

/* It holds a stripe: who retires waits until it has gone on */
static void
retire_after(pid_t pid, const Sample *sample)
{
	pid_t		retirer = begin_stepped(1, retire, NULL);

	for (int i = 0; i < 500 && !notes->quiesced; i++)
		if (!step(retirer))
			break;
	REQUIRE(!notes->quiesced, "who retires did not wait");
	finish(pid);
	for (int i = 0; i < 20000 && !notes->quiesced; i++)
		if (!step(retirer))
			break;
	REQUIRE(notes->quiesced, "who retires still waits");
	REQUIRE(count_in(target.series) == (notes->accepted ? 2 : 1), "%lu samples, the last was %s",
			count_in(target.series), notes->accepted ? "accepted" : "not accepted");
	kill_stepped(retirer);
}

static void
test_sample(const Sample *sample, long *held)
{
	Path		path;

	memset(region, 0, bytes);
	make_test_region(region, &geometry);
	find_target("m", sample->kind, 1, 'a', 3, &target);
	my_stripe = 0;
	mhm_accumulate(&target, sample->operation, EARLIER, 1, stub_now);
	memcpy(pristine, region, bytes);
	reset_region();
	path = walk(0, record, sample, region, bytes, ignore, NULL);

	for (long at = 0; at <= path.length; at++)
	{
		pid_t		pid;

		reset_region();
		snprintf(about, sizeof(about), "%s, at instruction %ld", sample->name, at);
		pid = begin_stepped(0, record, sample);
		REQUIRE(run_to(pid, &path, 0, at), "did not get there");
		if (!any_stripe_held())
		{
			cases++;
			retire_meanwhile(pid, sample);
		}
		/* A wait is stepped through, so a few will do */
		else if ((*held)++ % (SANITIZED ? effort(60, 6) : effort(20, 1)) == 0)
		{
			cases++;
			retire_after(pid, sample);
		}
		kill_stepped(pid);
	}
	free(path.counters);
}

int
main(void)
{
	const char *problem = stepping_problem();
	long		held = 0;

	if (problem != NULL)
	{
		printf("ok 1 # SKIP %s\n1..1\n", problem);
		return 0;
	}
	bytes = mhm_region_size(&geometry);
	region = shared_memory(bytes);
	notes = shared_memory(sizeof(Notes));
	pristine = malloc(bytes);
	for (int i = 0; i < lengthof(samples); i++)
		test_sample(&samples[i], &held);
	REQUIRE(held > 0, "no stripe was ever held");
	report("a sample is in a retired series only if it was accepted, and never in its successor",
		   "moments");
	return finish_tests();
}
