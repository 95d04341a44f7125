/*-------------------------------------------------------------------------
 *
 * regionfile.c
 *	  The file that holds the region while the server is stopped.
 *
 * Owns the file in the data directory: the bytes of the region, and behind
 * them a checksum.  Called by region.c in the postmaster, at the start and
 * the end of the server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "port/pg_crc32c.h"
#include "region.h"
#include "storage/fd.h"
#include "utils/memutils.h"

#define SAVED_FILE_NEW		MHM_REGION_FILE ".new"
#define SAVED_FILE_BAD		MHM_REGION_FILE ".bad"

/* Read what the file should have, or say why not */
static bool
read_bytes(int fd, char *to, Size bytes, char *problem, Size problem_size)
{
	while (bytes > 0)
	{
		ssize_t		got = read(fd, to, bytes);

		if (got <= 0)
		{
			snprintf(problem, problem_size,
					 got < 0 ? "could not read file \"%s\": %m" : "file \"%s\" ends too soon",
					 MHM_REGION_FILE);
			return false;
		}
		to += got;
		bytes -= got;
	}
	return true;
}

/* What was written is not what is there now */
static void
report_damage(void)
{
	ereport(LOG,
			errcode(ERRCODE_DATA_CORRUPTED),
			errmsg("saved metrics in file \"%s\" are damaged and are not used", MHM_REGION_FILE),
			errdetail("The file is kept as \"%s\".", SAVED_FILE_BAD));
}

static MhmRegion *
read_file(int fd, Size *bytes, char *problem, Size problem_size)
{
	struct stat status;
	MhmRegion  *region;
	pg_crc32c	computed;
	pg_crc32c	stored;

	if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode))
	{
		snprintf(problem, problem_size, "\"%s\" is not a file", MHM_REGION_FILE);
		return NULL;
	}
	if (status.st_size < (off_t) (sizeof(MhmRegion) + sizeof(stored)))
	{
		report_damage();
		return NULL;
	}
	*bytes = status.st_size - sizeof(stored);
	region = AllocHugeSizeIsValid(status.st_size) ?
		palloc_extended(status.st_size, MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM) : NULL;
	if (region == NULL)
	{
		snprintf(problem, problem_size, "there is no memory to read file \"%s\" of %lld bytes",
				 MHM_REGION_FILE, (long long) status.st_size);
		return NULL;
	}
	if (!read_bytes(fd, (char *) region, status.st_size, problem, problem_size))
		return NULL;

	INIT_CRC32C(computed);
	COMP_CRC32C(computed, region, *bytes);
	FIN_CRC32C(computed);
	memcpy(&stored, (char *) region + *bytes, sizeof(stored));
	if (!EQ_CRC32C(computed, stored))
	{
		report_damage();
		return NULL;
	}
	return region;
}

/*
 * Read the file into memory of the caller's context; NULL when there is none or
 * it is no good.  A problem is told that is one of the file system.
 */
MhmRegion *
mhm_region_file_read(Size *bytes, char *problem, Size problem_size)
{
	MhmRegion  *region = NULL;

	/* Whatever is there: a pipe must not keep us waiting */
	int			fd = OpenTransientFile(MHM_REGION_FILE, O_RDONLY | O_NONBLOCK | PG_BINARY);

	if (fd >= 0)
	{
		region = read_file(fd, bytes, problem, problem_size);
		CloseTransientFile(fd);
	}
	else if (errno != ENOENT)
		snprintf(problem, problem_size, "could not open file \"%s\": %m", MHM_REGION_FILE);
	if (problem[0] != '\0')
		ereport(WARNING,
				errcode(ERRCODE_IO_ERROR),
				errmsg("saved metrics are not used: %s", problem),
				errdetail("It is kept as \"%s\".", SAVED_FILE_BAD));
	return region;
}

static bool
write_bytes(int fd, const char *from, Size bytes)
{
	while (bytes > 0)
	{
		ssize_t		put = write(fd, from, bytes);

		if (put == 0)
			errno = ENOSPC;
		if (put <= 0)
			return false;
		from += put;
		bytes -= put;
	}
	return true;
}

/* Write the file; false after saying why not */
bool
mhm_region_file_write(const MhmRegion *region, Size bytes)
{
	pg_crc32c	crc;
	int			fd;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, region, bytes);
	FIN_CRC32C(crc);

	fd = OpenTransientFile(SAVED_FILE_NEW, O_CREAT | O_WRONLY | O_TRUNC | PG_BINARY);
	if (fd < 0 ||
		!write_bytes(fd, (const char *) region, bytes) ||
		!write_bytes(fd, (const char *) &crc, sizeof(crc)) ||
		pg_fsync(fd) != 0)
	{
		ereport(LOG,
				errcode_for_file_access(),
				errmsg("could not save metrics to file \"%s\": %m", SAVED_FILE_NEW));
		if (fd >= 0)
			CloseTransientFile(fd);
		(void) unlink(SAVED_FILE_NEW);
		return false;
	}
	CloseTransientFile(fd);
	return durable_rename(SAVED_FILE_NEW, MHM_REGION_FILE, LOG) == 0;
}

/* What was in the file is in use: nobody may find it again */
bool
mhm_region_file_remove(void)
{
	if (unlink(MHM_REGION_FILE) == 0 || errno == ENOENT)
		return true;
	ereport(WARNING,
			errcode_for_file_access(),
			errmsg("could not remove file \"%s\": %m", MHM_REGION_FILE));
	return false;
}

/* What is in the file, if there is one, is no good: keep it out of the way */
bool
mhm_region_file_set_aside(void)
{
	if (rename(MHM_REGION_FILE, SAVED_FILE_BAD) == 0 || errno == ENOENT)
		return true;
	ereport(WARNING,
			errcode_for_file_access(),
			errmsg("could not rename file \"%s\" to \"%s\": %m", MHM_REGION_FILE, SAVED_FILE_BAD));
	return false;
}
