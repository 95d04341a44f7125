/*-------------------------------------------------------------------------
 *
 * region.c
 *	  The life of the shared region: made, found again, kept.
 *
 * Owns the POSIX shared memory object that holds the accumulators, and decides
 * when it gives way to the file (regionfile.c).  Works in the postmaster only:
 * backends inherit the mapping, so there are none where each begins as a program
 * of its own.  Nothing else may be using the region then: PostgreSQL starts no
 * second postmaster on a data directory while a process of the first is left,
 * and restarts after a crash only when its children are gone.
 *
 *	  a process crashes			the postmaster keeps the mapping and recovers
 *								what is in it
 *	  the postmaster is killed	the object stays and is found at the next start
 *	  the postmaster ends		the region is written to a file in the data
 *								directory and the object is removed, so that
 *								nothing is left behind when the directory goes
 *
 * A mapped file would need no saving.  But the kernel writes a mapped file's
 * dirty pages back, and who touches a page just then waits for the disk:
 * recording must not.
 *
 * Two objects can exist while the region moves to another size: their names
 * differ in the last letter.  Of what is found complete, objects and file, that
 * with the highest incarnation counts, which is the one that was made last.
 *
 * Nothing here keeps the server from starting.  Where the region cannot be had
 * as it should be, it lies in memory that does not outlive the postmaster, or
 * there is none; status() says why until the server is started again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/hashfn.h"
#include "flush.h"
#include "miscadmin.h"
#include "region.h"
#include "settings.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#ifdef EXEC_BACKEND
#error "meshhook_metrics needs backends that are forked from the postmaster and inherit its memory: it does not work on Windows, nor where PostgreSQL is built with EXEC_BACKEND"
#endif

#define LOCK_TRANCHE		"meshhook_metrics"
#define OBJECT_NAME_LENGTH	64
#define OBJECTS				2		/* names that the region alternates between */

/* Kept for overflow series, on top of what the settings ask for */
#define SERIES_RESERVE(n)		((n) / 32 + 32)
#define HISTOGRAM_RESERVE(n)	((n) / 64 + 16)

/* A metric for every so many series; what text a series has on average */
#define SERIES_PER_METRIC		8
#define CHUNKS_PER_SERIES		3

#define MIN_STRIPES				4
#define MAX_STRIPES				16

LWLock	   *mhm_registry_lock = NULL;

/* What came out of looking at an existing object or file */
typedef struct FoundRegion
{
	MhmRegion  *region;			/* NULL when there is none worth keeping */
	int			object;			/* which of the names, or -1 */
	bool		mapped;			/* by mmap(), else palloc'd */
	Size		bytes;
	bool		unreadable[OBJECTS];	/* there is one of this name, and it stays */
} FoundRegion;

static int	current_object = -1;	/* -1: anonymous memory */
static char complaint[512];

/*
 * What the postmaster knows of its region by itself: after a crash not even
 * the header can be believed.
 */
static Size current_bytes;
static MhmGeometry current_geometry;

const char *
mhm_region_complaint(void)
{
	return complaint[0] == '\0' ? NULL : complaint;
}

/* What status() is to say; the first trouble is the cause of others */
static void pg_attribute_printf(1, 2)
complain(const char *format,...)
{
	va_list		arguments;

	if (complaint[0] != '\0')
		return;
	va_start(arguments, format);
	vsnprintf(complaint, sizeof(complaint), format, arguments);
	va_end(arguments);
}

void
mhm_region_request(void)
{
	RequestNamedLWLockTranche(LOCK_TRANCHE, 1);
}

static uint32
power_of_two(uint32 at_least)
{
	uint32		power = 1;

	while (power < at_least)
		power *= 2;
	return power;
}

/* As many stripes as processors can be inside one at a time */
static uint32
wanted_stripes(void)
{
	long		processors = sysconf(_SC_NPROCESSORS_ONLN);

	return power_of_two(Min(Max(processors, MIN_STRIPES), MAX_STRIPES));
}

/* The geometry that the settings ask for, and that holds what there is */
static MhmGeometry
wanted_geometry(const MhmRegion *existing)
{
	MhmGeometry g;
	uint32		chunks = 0;

	g.max_series = mhm_max_series;
	g.max_histograms = Min(mhm_max_histograms, mhm_max_series);
	if (existing != NULL)
	{
		g.max_series = Max(g.max_series, existing->used_series);
		g.max_histograms = Max(g.max_histograms, existing->used_histograms);
	}
	g.series_slots = g.max_series + SERIES_RESERVE(g.max_series);
	g.histogram_slots = g.max_histograms + HISTOGRAM_RESERVE(g.max_histograms);
	g.metric_slots = Max(64, g.max_series / SERIES_PER_METRIC);
	if (existing != NULL)
	{
		g.series_slots = Max(g.series_slots, g.max_series + existing->used_overflow_series);
		g.histogram_slots = Max(g.histogram_slots,
								g.max_histograms + existing->used_overflow_histograms);
		g.metric_slots = Max(g.metric_slots, existing->used_metrics);
		chunks = existing->used_chunks;
	}
	g.series_heads = power_of_two(g.series_slots);
	g.metric_heads = power_of_two(g.metric_slots);
	g.chunks = Max(chunks, g.max_series * CHUNKS_PER_SERIES + g.metric_slots * MHM_CHUNKS_PER_METRIC);
	g.stripes = wanted_stripes();
	return g;
}

/*
 * What tells this data directory from others: its place on disk and the
 * identity of the cluster.  A copy of a cluster, or another one made in the
 * same place, is another home.
 */
static uint64
this_home(void)
{
	struct stat directory;
	uint64		identity[3];

	if (stat(DataDir, &directory) != 0)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not stat data directory \"%s\": %m", DataDir));
	identity[0] = (uint64) directory.st_dev;
	identity[1] = (uint64) directory.st_ino;
	identity[2] = GetSystemIdentifier();
	return hash_bytes_extended((const unsigned char *) identity, sizeof(identity), 0);
}

static void
object_name(int which, char *name)
{
	snprintf(name, OBJECT_NAME_LENGTH, "/meshhook_metrics.%016llx.%c",
			 (unsigned long long) this_home(), 'a' + which);
}

static void
remove_object(int which)
{
	char		name[OBJECT_NAME_LENGTH];

	object_name(which, name);
	if (shm_unlink(name) != 0 && errno != ENOENT)
		ereport(LOG,
				errcode_for_file_access(),
				errmsg("could not remove shared memory object \"%s\": %m", name));
}

/* An object that is probably ours, and that we cannot look into now */
static void
pass_over(const char *name, const char *problem, bool *unreadable)
{
	complain("metrics in shared memory object \"%s\" were not found again: could not %s it: %m",
			 name, problem);
	ereport(WARNING,
			errcode_for_file_access(),
			errmsg("could not %s shared memory object \"%s\": %m", problem, name),
			errdetail("The metrics in it are not used, and new ones are begun."));
	*unreadable = true;
}

/*
 * Map an existing object, and tell its size; NULL when there is none.  Anybody
 * can make an object of any name: only one that is ours alone is looked at.
 */
static MhmRegion *
map_object(int which, Size *bytes, bool *unreadable)
{
	char		name[OBJECT_NAME_LENGTH];
	struct stat status;
	void	   *memory;
	int			fd;

	object_name(which, name);
	fd = shm_open(name, O_RDWR, 0);
	if (fd < 0)
	{
		/* Another user's is not ours, and nothing to complain of */
		if (errno == EACCES)
			ereport(LOG,
					errcode_for_file_access(),
					errmsg("could not open shared memory object \"%s\": %m", name));
		else if (errno != ENOENT)
			pass_over(name, "open", unreadable);
		return NULL;
	}
	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) ||
		status.st_uid != geteuid() || (status.st_mode & (S_IRWXG | S_IRWXO)) != 0)
	{
		ereport(LOG,
				errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				errmsg("shared memory object \"%s\" is not this server's own and is not used",
					   name));
		close(fd);
		return NULL;
	}
	if (status.st_size < (off_t) sizeof(MhmRegion))
	{
		ereport(LOG,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("metrics found in shared memory are not used, since the object \"%s\" is too short",
					   name));
		close(fd);
		return NULL;
	}
	*bytes = status.st_size;
	memory = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
	{
		pass_over(name, "map", unreadable);
		memory = NULL;
	}
	close(fd);
	return memory;
}

/*
 * Make an object of zeroes.  All of its memory is taken now: a store to a
 * page for which there is none later would be a SIGBUS.
 */
static void *
create_object(int which, Size bytes, char *problem, Size problem_size)
{
	char		name[OBJECT_NAME_LENGTH];
	void	   *memory = MAP_FAILED;
	int			fd;
	int			error;

	object_name(which, name);
	(void) shm_unlink(name);
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, S_IRUSR | S_IWUSR);
	if (fd < 0)
		error = errno;
	else
	{
		do
			error = posix_fallocate(fd, 0, bytes);
		while (error == EINTR);
		if (error == 0)
		{
			memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			error = errno;
		}
		close(fd);
		if (memory == MAP_FAILED)
			(void) shm_unlink(name);
	}
	if (memory != MAP_FAILED)
		return memory;

	snprintf(problem, problem_size,
			 "shared memory object of %zu bytes could not be made: %s", bytes, strerror(error));
	ereport(WARNING,
			errcode(ERRCODE_OUT_OF_MEMORY),
			errmsg("could not make shared memory object \"%s\" of %zu bytes: %s",
				   name, bytes, strerror(error)),
			errdetail("Metrics are kept where they were or, if that was a file, in memory of the server process; what is in that is lost if the process is killed."),
			error == EEXIST ?
			errhint("Remove the object, which belongs to another user.") :
			errhint("Make room in /dev/shm, in containers with --shm-size, or lower meshhook_metrics.max_series and meshhook_metrics.max_histograms."));
	return NULL;
}

/* Memory that all children share, and that goes with the postmaster */
static void *
create_anonymous(Size bytes)
{
	void	   *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
							  MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		ereport(ERROR,
				errcode(ERRCODE_OUT_OF_MEMORY),
				errmsg("could not map %zu bytes of memory for meshhook_metrics: %m", bytes),
				errhint("Lower meshhook_metrics.max_series and meshhook_metrics.max_histograms."));
	return memory;
}

/* Check a region that was found; it is mapped afterwards when it is good */
static bool
is_trustworthy(MhmRegion *region, Size bytes, const char *where)
{
	const char *problem = mhm_region_header_problem(region, bytes, GetSystemIdentifier());

	if (problem == NULL)
	{
		mhm_region_map(region);
		problem = mhm_region_recover();
	}
	if (problem != NULL)
		ereport(LOG,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("metrics found in %s are not used, since %s", where, problem));
	return problem == NULL;
}

/* Take this one if it was made later than what was found so far */
static void
prefer_newer(FoundRegion *found, MhmRegion *region, Size bytes, int object)
{
	if (found->region == NULL || region->incarnation > found->region->incarnation)
	{
		if (found->mapped)
			munmap(found->region, found->bytes);
		found->region = region;
		found->bytes = bytes;
		found->object = object;
		found->mapped = object >= 0;
	}
	else if (object >= 0)
		munmap(region, bytes);
}

/* Find what is left of an earlier run: in an object, or in the file */
static FoundRegion
find_existing(void)
{
	FoundRegion found = {NULL, -1, false, 0, {false}};
	MhmRegion  *region;
	Size		bytes;
	char		problem[256] = "";

	for (int which = 0; which < OBJECTS; which++)
	{
		region = map_object(which, &bytes, &found.unreadable[which]);
		if (region != NULL && is_trustworthy(region, bytes, "shared memory"))
			prefer_newer(&found, region, bytes, which);
		else if (region != NULL)
			munmap(region, bytes);
	}
	region = mhm_region_file_read(&bytes, problem, sizeof(problem));
	if (region != NULL && is_trustworthy(region, bytes, "file \"" MHM_REGION_FILE "\""))
		prefer_newer(&found, region, bytes, -1);
	if (problem[0] != '\0')
		complain("saved metrics were not found again: %s", problem);
	return found;
}

/* Map a region for good */
static void
use_region(MhmRegion *region, Size bytes, int object)
{
	mhm_region_map(region);
	current_object = object;
	current_bytes = bytes;
	current_geometry = region->geometry;
}

/*
 * Give a new region its identity.  One that continues another in the same
 * data directory has that one's; a copied directory gets another, since its
 * samples will be flushed by two servers.
 */
static void
identify(MhmRegion *region, const MhmRegion *continued)
{
	region->system_identifier = GetSystemIdentifier();
	region->home = this_home();
	if (!pg_strong_random(&region->hash_seed, sizeof(region->hash_seed)) ||
		!pg_strong_random(&region->region_id, sizeof(region->region_id)))
		ereport(ERROR,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not generate a random number for meshhook_metrics"));
	if (continued != NULL && continued->home == region->home)
		region->region_id = continued->region_id;

	/* Later than what it continues, and than what could not be looked into */
	region->incarnation = (uint64) GetCurrentTimestamp();
	if (continued != NULL)
		region->incarnation = Max(region->incarnation, continued->incarnation + 1);
}

/*
 * A copied directory: what the other server had not stored is noted as pending
 * in that one's next flush.  Where that cannot be noted it is given up here:
 * rather lost than counted twice.
 */
static void
inherit(uint64 region_id)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		mhm_journal_inherit(region_id);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(WARNING,
				errcode(error->sqlerrcode),
				errmsg("metrics that the server from which this data directory was copied had not stored are not stored here: %s",
					   error->message));
		mhm_flush_give_up_unstored();
	}
	PG_END_TRY();
}

/* Make an object under one of the names; -1 when it cannot be had */
static int
create_any_object(const FoundRegion *found, Size bytes, MhmRegion **region)
{
	char		problem[256] = "";

	for (int i = 0; i < OBJECTS; i++)
	{
		int			which = (found->object + 1 + i) % OBJECTS;

		/* What is there may still be wanted; somebody else's is in the way of its name only */
		if (found->unreadable[which] || (found->mapped && which == found->object))
			continue;
		*region = create_object(which, bytes, problem, sizeof(problem));
		if (*region != NULL)
			return which;
	}
	complain("%s", problem[0] != '\0' ? problem : "no name is left for a shared memory object");
	return -1;
}

/* Make a region of a geometry, and fill it with what there was */
static void
make_region(const MhmGeometry *geometry, const FoundRegion *found, bool lasting)
{
	Size		bytes = mhm_region_size(geometry);
	MhmRegion  *region = NULL;
	int			which = lasting ? create_any_object(found, bytes, &region) : -1;
	const char *problem;

	if (lasting && which < 0 && found->mapped)
	{
		/* Rather the size that it has than memory that does not last */
		use_region(found->region, found->bytes, found->object);
		return;
	}
	if (which < 0)
		region = create_anonymous(bytes);
	mhm_region_format(region, geometry);
	identify(region, found->region);
	problem = mhm_region_recover();
	if (problem != NULL)
		elog(ERROR, "new metrics region cannot be used: %s", problem);
	if (found->region != NULL)
	{
		mhm_region_import(found->region, region);
		if (found->region->region_id != region->region_id)
			inherit(found->region->region_id);
	}

	/* From here on it counts, whoever is killed */
	pg_write_barrier();
	region->magic = MHM_REGION_MAGIC;
	use_region(region, bytes, which);
}

/*
 * The postmaster ends, by whatever kind of shutdown, and no other process is
 * left: write the region to the file.  When it cannot be written, the object
 * stays.  After a crash of one of its processes the postmaster does not end,
 * but comes here before it makes its shared memory anew.
 */
static void
save_at_exit(int code, Datum arg)
{
	if (!proc_exit_inprogress || mhm_region == NULL)
		return;
	if (mhm_region_file_write(mhm_region, current_bytes))
	{
		if (current_object >= 0)
			remove_object(current_object);
		return;
	}
	if (current_object >= 0)
		ereport(LOG,
				errmsg("metrics stay in shared memory until the next start of this server"));
}

/* What was found and is not used any more may not be found again */
static void
clear_away(const FoundRegion *found)
{
	bool		cleared = true;

	for (int which = 0; which < OBJECTS; which++)
		if (which != current_object && !found->unreadable[which])
			remove_object(which);
	/* Anonymous memory may be lost: then an old state is better than none */
	if (found->region == NULL)
		cleared = mhm_region_file_set_aside();
	else if (current_object >= 0)
		cleared = mhm_region_file_remove();
	if (!cleared)
		complain("file \"%s\" is in the way, metrics cannot be saved when the server stops",
				 MHM_REGION_FILE);
}

/* Get the region at the start of a server */
static void
begin_region(void)
{
	FoundRegion found = find_existing();
	MhmGeometry geometry = wanted_geometry(found.region);

	if (found.mapped && memcmp(&geometry, &found.region->geometry, sizeof(geometry)) == 0)
		use_region(found.region, found.bytes, found.object);
	else
	{
		make_region(&geometry, &found, true);
		if (found.mapped && mhm_region != found.region)
			munmap(found.region, found.bytes);
	}
	clear_away(&found);
}

/* Where that fails: an empty one that touches nothing of what there is */
static void
begin_anew(void)
{
	FoundRegion nothing = {NULL, -1, false, 0, {false}};
	MhmGeometry geometry = wanted_geometry(NULL);

	make_region(&geometry, &nothing, false);
	(void) mhm_region_file_set_aside();
}

/* After a crash of a process: nobody else uses the region now */
static void
resume_region(void)
{
	FoundRegion nothing = {NULL, current_object, false, 0, {false}};
	MhmRegion  *before = mhm_region;
	MhmGeometry geometry;
	const char *problem;

	problem = mhm_region_header_problem(mhm_region, current_bytes, GetSystemIdentifier());
	if (problem == NULL &&
		memcmp(&mhm_region->geometry, &current_geometry, sizeof(MhmGeometry)) != 0)
		problem = "its geometry has changed";
	if (problem == NULL)
		problem = mhm_region_recover();
	if (problem == NULL)
		return;

	ereport(LOG,
			errcode(ERRCODE_DATA_CORRUPTED),
			errmsg("metrics are reset after a crash, since %s", problem));
	complaint[0] = '\0';
	mhm_region = NULL;
	munmap(before, current_bytes);
	geometry = wanted_geometry(NULL);
	make_region(&geometry, &nothing, true);
	if (nothing.object >= 0 && nothing.object != current_object)
		remove_object(nothing.object);
}

/* Do it; false after a warning, with nothing mapped */
static bool
succeeds(void (*work) (void), const char *consequence)
{
	MemoryContext before = CurrentMemoryContext;
	MemoryContext temporary = AllocSetContextCreate(before, "meshhook_metrics start",
													ALLOCSET_DEFAULT_SIZES);
	bool		exit_on_any_error = ExitOnAnyError;
	volatile bool done = false;

	/* An error is one of metrics only, not of the server */
	ExitOnAnyError = false;
	PG_TRY();
	{
		MemoryContextSwitchTo(temporary);
		work();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(temporary);
		error = CopyErrorData();
		FlushErrorState();
		mhm_region = NULL;
		complain("%s", error->message);
		ereport(WARNING,
				errcode(error->sqlerrcode),
				errmsg("%s: %s", consequence, error->message),
				error->hint == NULL ? 0 : errhint("%s", error->hint));
	}
	PG_END_TRY();
	ExitOnAnyError = exit_on_any_error;
	MemoryContextSwitchTo(before);
	MemoryContextDelete(temporary);
	return done;
}

/*
 * Called whenever PostgreSQL makes its shared memory: at the start of the
 * server, and again after the crash of one of its processes.
 */
void
mhm_region_startup(void)
{
	mhm_registry_lock = &GetNamedLWLockTranche(LOCK_TRANCHE)->lock;
	if (mhm_region == NULL)
		complaint[0] = '\0';
	if (!succeeds(mhm_region == NULL ? begin_region : resume_region,
				  "metrics begin anew, in memory of the server process"))
		(void) succeeds(begin_anew, "metrics are not recorded until the server is started again");
	on_shmem_exit(save_at_exit, (Datum) 0);
}
