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

/* Read the file into memory of the caller's context; NULL when it is no good */
MhmRegion *
mhm_region_file_read(Size *bytes)
{
	struct stat status;
	MhmRegion  *region;
	pg_crc32c	computed;
	pg_crc32c	stored;
	int			fd = OpenTransientFile(MHM_REGION_FILE, O_RDONLY | PG_BINARY);

	if (fd < 0)
	{
		if (errno != ENOENT)
			ereport(LOG,
					errcode_for_file_access(),
					errmsg("could not open file \"%s\": %m", MHM_REGION_FILE));
		return NULL;
	}
	if (fstat(fd, &status) != 0 || status.st_size < (off_t) (sizeof(MhmRegion) + sizeof(stored)))
	{
		ereport(LOG,
				errcode(ERRCODE_DATA_CORRUPTED),
				errmsg("saved metrics in file \"%s\" are damaged and are not used", MHM_REGION_FILE));
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
					got < 0 ? errmsg("could not read file \"%s\": %m", MHM_REGION_FILE) :
					errmsg("file \"%s\" ends too soon", MHM_REGION_FILE));
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
				errmsg("saved metrics in file \"%s\" are damaged and are not used", MHM_REGION_FILE));
		return NULL;
	}
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
void
mhm_region_file_remove(void)
{
	if (unlink(MHM_REGION_FILE) != 0 && errno != ENOENT)
		ereport(LOG,
				errcode_for_file_access(),
				errmsg("could not remove file \"%s\": %m", MHM_REGION_FILE));
}

/* What is in the file, if there is one, is no good: keep it out of the way */
void
mhm_region_file_set_aside(void)
{
	if (rename(MHM_REGION_FILE, SAVED_FILE_BAD) != 0 && errno != ENOENT)
		ereport(LOG,
				errcode_for_file_access(),
				errmsg("could not rename file \"%s\" to \"%s\": %m", MHM_REGION_FILE, SAVED_FILE_BAD));
}
