/*-------------------------------------------------------------------------
 *
 * region.c
 *	  The life of the shared region: made, found again, kept.
 *
 * Owns the POSIX shared memory object that holds the accumulators and the
 * file that takes its place while the server is stopped.  Works in the
 * postmaster only: backends inherit the mapping.  Nothing else may be using
 * the region then: PostgreSQL starts no second postmaster on a data directory
 * while a process of the first is left, and restarts after a crash only when
 * its children are gone.
 *
 *	  a process crashes			the postmaster keeps the mapping and recovers
 *								what is in it
 *	  the postmaster is killed	the object stays and is found at the next start
 *	  the server stops			the region is written to a file in the data
 *								directory and the object is removed, so that
 *								nothing is left behind when the directory goes
 *
 * A mapped file would need no saving.  But the kernel writes a mapped file's
 * dirty pages back, and who touches a page just then waits for the disk:
 * recording must not.
 *
 * Two objects can exist while the region moves to another size: their names
 * differ in the last letter, and the one with the higher incarnation counts
 * once it is complete.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "region.h"
#include "settings.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "strings.h"
#include "utils/guc.h"

#define LOCK_TRANCHE		"meshhook_metrics"
#define SAVED_FILE			PGSTAT_STAT_PERMANENT_DIRECTORY "/meshhook_metrics.region"
#define SAVED_FILE_NEW		SAVED_FILE ".new"

#define OBJECT_NAME_LENGTH	64
#define OBJECTS				2		/* names that the region alternates between */

/* Kept for overflow series, on top of what the settings ask for */
#define SERIES_RESERVE(n)		((n) / 32 + 8)
#define HISTOGRAM_RESERVE(n)	((n) / 64 + 4)

/* A metric for every so many series; bytes of text for each of both */
#define SERIES_PER_METRIC		16
#define CHUNKS_PER_SERIES		3
#define CHUNKS_PER_METRIC		4

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
} FoundRegion;

static int	current_object = -1;	/* -1: anonymous memory */
static char complaint[256];

const char *
mhm_region_complaint(void)
{
	return complaint[0] == '\0' ? NULL : complaint;
}

void
mhm_region_require(void)
{
	const char *preloaded;

	if (mhm_region != NULL)
		return;
	preloaded = GetConfigOption("shared_preload_libraries", true, false);
	ereport(ERROR,
			errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			errmsg("meshhook_metrics must be loaded when the server starts"),
			errhint("Put the line \"shared_preload_libraries = '%s%smeshhook_metrics'\" into postgresql.conf and restart the server.",
					preloaded == NULL ? "" : preloaded,
					preloaded == NULL || *preloaded == '\0' ? "" : ", "));
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
	g.series_slots = g.max_series + SERIES_RESERVE(g.max_series);
	g.histogram_slots = g.max_histograms + HISTOGRAM_RESERVE(g.max_histograms);
	g.metric_slots = Max(64, g.max_series / SERIES_PER_METRIC);
	if (existing != NULL)
	{
		g.max_series = Max(g.max_series, existing->used_series);
		g.max_histograms = Max(g.max_histograms, existing->used_histograms);
		g.series_slots = Max(g.series_slots,
							 g.max_series + existing->used_overflow_series);
		g.histogram_slots = Max(g.histogram_slots,
								g.max_histograms + existing->used_overflow_series);
		g.metric_slots = Max(g.metric_slots, existing->used_metrics);
		chunks = existing->used_chunks;
	}
	g.series_heads = power_of_two(g.series_slots);
	g.metric_heads = power_of_two(g.metric_slots);
	g.chunks = Max(chunks, g.max_series * CHUNKS_PER_SERIES + g.metric_slots * CHUNKS_PER_METRIC);
	g.stripes = wanted_stripes();
	return g;
}

/*
 * The names of our objects: one pair for each data directory, told apart by
 * its place on disk and by the identity of the cluster.  A copy of a cluster
 * or another one made in the same place have other names.
 */
static void
object_name(int which, char *name)
{
	struct stat directory;
	uint64		identity[3];

	if (stat(DataDir, &directory) != 0)
		ereport(FATAL,
				errcode_for_file_access(),
				errmsg("could not stat data directory \"%s\": %m", DataDir));
	identity[0] = (uint64) directory.st_dev;
	identity[1] = (uint64) directory.st_ino;
	identity[2] = GetSystemIdentifier();
	snprintf(name, OBJECT_NAME_LENGTH, "/meshhook_metrics.%016llx.%c",
			 (unsigned long long) mhm_hash_bytes((char *) identity, sizeof(identity), 0),
			 'a' + which);
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

/* Map an existing object, and tell its size; NULL when there is none */
static MhmRegion *
map_object(int which, Size *bytes)
{
	char		name[OBJECT_NAME_LENGTH];
	struct stat status;
	void	   *memory = MAP_FAILED;
	int			fd;

	object_name(which, name);
	fd = shm_open(name, O_RDWR, 0);
	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(LOG,
					errcode_for_file_access(),
					errmsg("could not open shared memory object \"%s\": %m", name));
		return NULL;
	}
	if (fstat(fd, &status) == 0 && status.st_size >= (off_t) sizeof(MhmRegion))
	{
		*bytes = status.st_size;
		memory = mmap(NULL, *bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	close(fd);
	return memory == MAP_FAILED ? NULL : memory;
}

/*
 * Make an object of zeroes.  All of its memory is taken now: a store to a
 * page for which there is none later would be a SIGBUS.
 */
static void *
create_object(int which, Size bytes)
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

	snprintf(complaint, sizeof(complaint),
			 "shared memory object of %zu bytes could not be made (%s); metrics that are not flushed are lost when the server stops",
			 bytes, strerror(error));
	ereport(WARNING,
			errcode(ERRCODE_OUT_OF_MEMORY),
			errmsg("could not make shared memory object \"%s\" of %zu bytes: %s",
				   name, bytes, strerror(error)),
			errdetail("Metrics stay where they are, or are kept in memory that does not outlive this server process."),
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
		ereport(FATAL,
				errcode(ERRCODE_OUT_OF_MEMORY),
				errmsg("could not map %zu bytes of memory for meshhook_metrics: %m", bytes),
				errhint("Lower meshhook_metrics.max_series and meshhook_metrics.max_histograms."));
	return memory;
}

/* Read the saved file into memory; its last four bytes are a checksum */
static MhmRegion *
read_saved_file(Size *bytes)
{
	struct stat status;
	MhmRegion  *region;
	pg_crc32c	computed;
	pg_crc32c	stored;
	int			fd = OpenTransientFile(SAVED_FILE, O_RDONLY | PG_BINARY);

	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(LOG,
					errcode_for_file_access(),
					errmsg("could not open file \"%s\": %m", SAVED_FILE));
		return NULL;
	}
	if (fstat(fd, &status) != 0 || status.st_size < (off_t) (sizeof(MhmRegion) + sizeof(stored)))
	{
		CloseTransientFile(fd);
		return NULL;
	}
	*bytes = status.st_size - sizeof(stored);
	region = palloc_extended(status.st_size, MCXT_ALLOC_HUGE);
	for (Size done = 0; done < (Size) status.st_size;)
	{
		ssize_t		got = read(fd, (char *) region + done, status.st_size - done);

		if (got <= 0)
		{
			ereport(LOG,
					errcode_for_file_access(),
					errmsg("could not read file \"%s\": %m", SAVED_FILE));
			CloseTransientFile(fd);
			return NULL;
		}
		done += got;
	}
	CloseTransientFile(fd);

	INIT_CRC32C(computed);
	COMP_CRC32C(computed, region, *bytes);
	FIN_CRC32C(computed);
	memcpy(&stored, (char *) region + *bytes, sizeof(stored));
	if (!EQ_CRC32C(computed, stored))
	{
		ereport(LOG,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("saved metrics in file \"%s\" are damaged and are not used", SAVED_FILE));
		return NULL;
	}
	return region;
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

/* Find what is left of an earlier run: in an object, else in the file */
static FoundRegion
find_existing(void)
{
	FoundRegion found = {NULL, -1, false, 0};
	MhmRegion  *mapped[OBJECTS];
	Size		sizes[OBJECTS];

	for (int which = 0; which < OBJECTS; which++)
	{
		mapped[which] = map_object(which, &sizes[which]);
		if (mapped[which] != NULL &&
			!is_trustworthy(mapped[which], sizes[which], "shared memory"))
		{
			munmap(mapped[which], sizes[which]);
			mapped[which] = NULL;
		}
		if (mapped[which] != NULL &&
			(found.region == NULL || mapped[which]->incarnation > found.region->incarnation))
		{
			found.region = mapped[which];
			found.object = which;
			found.mapped = true;
			found.bytes = sizes[which];
		}
	}
	for (int which = 0; which < OBJECTS; which++)
		if (mapped[which] != NULL && mapped[which] != found.region)
			munmap(mapped[which], sizes[which]);
	if (found.region == NULL)
	{
		MhmRegion  *saved = read_saved_file(&found.bytes);

		if (saved != NULL && is_trustworthy(saved, found.bytes, "file \"" SAVED_FILE "\""))
			found.region = saved;
	}
	return found;
}

/* Make a region of a geometry, and fill it with what there was */
static void
make_region(const MhmGeometry *geometry, const FoundRegion *found)
{
	Size		bytes = mhm_region_size(geometry);
	int			which = (found->object + 1) % OBJECTS;
	MhmRegion  *region = create_object(which, bytes);
	uint64		region_id;
	const char *problem;

	current_object = which;
	if (region == NULL && found->mapped)
	{
		/* Rather the size that it has than memory that does not last */
		mhm_region_map(found->region);
		current_object = found->object;
		return;
	}
	if (region == NULL)
	{
		region = create_anonymous(bytes);
		current_object = -1;
	}
	if (found->region != NULL)
		region_id = found->region->region_id;
	else if (!pg_strong_random(&region_id, sizeof(region_id)))
		ereport(FATAL,
				errcode(ERRCODE_INTERNAL_ERROR),
				errmsg("could not generate a random number for meshhook_metrics"));

	mhm_region_format(region, geometry, GetSystemIdentifier(), region_id);
	problem = mhm_region_recover();
	if (problem != NULL)
		elog(FATAL, "new metrics region cannot be used: %s", problem);
	if (found->region != NULL)
	{
		region->incarnation = found->region->incarnation + 1;
		mhm_region_import(found->region, region);
	}

	/* From here on it counts, whoever is killed */
	pg_write_barrier();
	region->magic = MHM_REGION_MAGIC;
}

static bool
write_saved_file(void)
{
	const char *from = (const char *) mhm_region;
	Size		bytes = mhm_region->total_bytes;
	pg_crc32c	crc;
	int			fd;

	fd = OpenTransientFile(SAVED_FILE_NEW, O_CREAT | O_WRONLY | O_TRUNC | PG_BINARY);
	if (fd < 0)
		return false;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, from, bytes);
	FIN_CRC32C(crc);
	for (Size done = 0; done < bytes;)
	{
		ssize_t		put = write(fd, from + done, bytes - done);

		if (put <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			CloseTransientFile(fd);
			return false;
		}
		done += put;
	}
	if (write(fd, &crc, sizeof(crc)) != sizeof(crc) || pg_fsync(fd) != 0)
	{
		CloseTransientFile(fd);
		return false;
	}
	if (CloseTransientFile(fd) != 0)
		return false;
	return durable_rename(SAVED_FILE_NEW, SAVED_FILE, LOG) == 0;
}

/*
 * The server stops: write the region to the file.  After a crash of one of
 * its processes (code is not 0) it is about to start again, and the mapping
 * stays; when the file cannot be written, the object does.
 */
static void
save_at_exit(int code, Datum arg)
{
	if (code != 0 || mhm_region == NULL)
		return;
	errno = 0;
	if (write_saved_file())
	{
		if (current_object >= 0)
			remove_object(current_object);
		return;
	}
	ereport(LOG,
			errcode_for_file_access(),
			errmsg("could not save metrics to file \"%s\": %m", SAVED_FILE_NEW),
			current_object >= 0 ? errdetail("They stay in shared memory until the next start.") : 0);
	(void) unlink(SAVED_FILE_NEW);
}

/* Get the region at the start of a server */
static void
begin_region(void)
{
	FoundRegion found = find_existing();
	MhmGeometry geometry = wanted_geometry(found.region);

	complaint[0] = '\0';
	if (found.mapped && memcmp(&geometry, &found.region->geometry, sizeof(geometry)) == 0)
	{
		mhm_region_map(found.region);
		current_object = found.object;
	}
	else
	{
		make_region(&geometry, &found);
		if (found.mapped && mhm_region != found.region)
			munmap(found.region, found.bytes);
		else if (!found.mapped && found.region != NULL)
			pfree(found.region);
	}

	/* What is not current is older, and may not be found again */
	for (int which = 0; which < OBJECTS; which++)
		if (which != current_object)
			remove_object(which);
	if (unlink(SAVED_FILE) != 0 && errno != ENOENT)
		ereport(LOG,
				errcode_for_file_access(),
				errmsg("could not remove file \"%s\": %m", SAVED_FILE));
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
		begin_region();
	else
	{
		const char *problem = mhm_region_recover();

		if (problem != NULL)
		{
			FoundRegion nothing = {NULL, current_object, false, 0};
			MhmGeometry geometry = wanted_geometry(NULL);

			ereport(LOG,
					errcode(ERRCODE_DATA_CORRUPTED),
					errmsg("metrics are reset after a crash, since %s", problem));
			munmap(mhm_region, mhm_region->total_bytes);
			make_region(&geometry, &nothing);
			if (nothing.object >= 0)
				remove_object(nothing.object);
		}
	}
	on_shmem_exit(save_at_exit, (Datum) 0);
}
