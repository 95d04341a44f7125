/*-------------------------------------------------------------------------
 *
 * server_faults.c
 *	  A server whose clock jumps and whose disk is full when a test says so.
 *
 * Compiled and preloaded into a test's server by ServerFaults.pm, and into all
 * programs of a run at another time by test/lib/suites.sh; needs no rights.
 * Both faults are what the C library reports: the real-time clock (never the
 * monotonic one) is off by so many microseconds, and what would make a file
 * longer fails with ENOSPC while blocks that exist can be overwritten, as it is
 * on a full disk.
 *
 * The test writes into a file that all processes of the server have mapped, so
 * a fault begins and ends at once, everywhere.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* As ServerFaults.pm writes it */
struct Faults
{
	int64_t		clock_offset_us;
	int64_t		times_full;		/* how often a write has failed */
	char		full_where[240];	/* in the path of files that cannot grow; empty: none */
	char		no_memory[16];	/* of what there is none when the region is made; see below */
};

static volatile struct Faults *faults = NULL;

__attribute__((constructor)) static void
attach_faults(void)
{
	const char *path = getenv("MHM_FAULTS");
	int			fd = path == NULL ? -1 : open(path, O_RDWR);
	void	   *mapped;

	if (fd < 0)
		return;
	mapped = mmap(NULL, sizeof(struct Faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mapped != MAP_FAILED)
		faults = mapped;
	close(fd);
}

static int64_t
clock_offset(void)
{
	return faults == NULL ? 0 : faults->clock_offset_us;
}

EXPORT int
clock_gettime(clockid_t clock, struct timespec *at)
{
	static int	(*real) (clockid_t, struct timespec *) = NULL;
	int			result;
	int64_t		ns;

	if (real == NULL)
		real = (int (*) (clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
	result = real(clock, at);
	if (result != 0 || clock_offset() == 0 ||
		(clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE))
		return result;
	ns = at->tv_nsec + clock_offset() % 1000000 * 1000;
	at->tv_sec += clock_offset() / 1000000;
	at->tv_sec += ns < 0 ? -1 : ns / 1000000000;
	at->tv_nsec = ns < 0 ? ns + 1000000000 : ns % 1000000000;
	return 0;
}

EXPORT int
gettimeofday(struct timeval *restrict at, void *restrict zone)
{
	struct timespec now;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

EXPORT time_t
time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at != NULL)
		*at = now.tv_sec;
	return now.tv_sec;
}

/* Would this make a file longer that cannot grow?  At its end if end < 0. */
static int
is_full(int fd, off_t end)
{
	char		link[64];
	char		path[PATH_MAX];
	ssize_t		length;
	struct stat status;

	if (faults == NULL || faults->full_where[0] == '\0')
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0)
		return 0;
	path[length] = '\0';
	if (strstr(path, (const char *) faults->full_where) == NULL ||
		fstat(fd, &status) != 0 || !S_ISREG(status.st_mode) || end <= status.st_size)
		return 0;
	__atomic_add_fetch(&faults->times_full, 1, __ATOMIC_RELAXED);
	return 1;
}

static int
cannot_append(int fd, size_t bytes)
{
	return faults != NULL && faults->full_where[0] != '\0' &&
		is_full(fd, lseek(fd, 0, SEEK_CUR) + (off_t) bytes);
}

/*
 * Named shared memory of the region's: "open": none can be opened, "map": none
 * can be mapped, "full": none has room, "nothing": neither that nor memory
 * without a name that is larger than a shared_buffers of a test.
 */
#define LARGEST_ANONYMOUS	(200 * 1024 * 1024)

static int
is_without(const char *what)
{
	return faults != NULL && strcmp((const char *) faults->no_memory, what) == 0;
}

static int
is_of_region(int fd)
{
	char		link[64];
	char		path[PATH_MAX];
	ssize_t		length;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	path[length < 0 ? 0 : length] = '\0';
	return strstr(path, "/dev/shm/meshhook_metrics") != NULL;
}

EXPORT int
shm_open(const char *name, int flags, mode_t mode)
{
	static int	(*real) (const char *, int, mode_t) = NULL;

	if (is_without("open") && strstr(name, "meshhook_metrics") != NULL)
	{
		errno = EMFILE;
		return -1;
	}
	if (real == NULL)
		real = (int (*) (const char *, int, mode_t)) dlsym(RTLD_NEXT, "shm_open");
	return real(name, flags, mode);
}

EXPORT void *
mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t at)
{
	if ((is_without("map") && fd >= 0 && is_of_region(fd)) ||
		(is_without("nothing") && fd < 0 && (flags & MAP_SHARED) && bytes > LARGEST_ANONYMOUS))
	{
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return (void *) syscall(SYS_mmap, address, bytes, protection, flags, fd, at);
}

EXPORT void *
mmap64(void *address, size_t bytes, int protection, int flags, int fd, off64_t at)
{
	return mmap(address, bytes, protection, flags, fd, at);
}

#define FAIL_FULL do { errno = ENOSPC; return -1; } while (0)

EXPORT ssize_t
write(int fd, const void *data, size_t bytes)
{
	if (cannot_append(fd, bytes))
		FAIL_FULL;
	return syscall(SYS_write, fd, data, bytes);
}

EXPORT ssize_t
pwrite(int fd, const void *data, size_t bytes, off_t at)
{
	if (is_full(fd, at + (off_t) bytes))
		FAIL_FULL;
	return syscall(SYS_pwrite64, fd, data, bytes, at);
}

EXPORT ssize_t
pwritev(int fd, const struct iovec *pieces, int count, off_t at)
{
	static ssize_t (*real) (int, const struct iovec *, int, off_t) = NULL;
	off_t		end = at;

	for (int i = 0; i < count; i++)
		end += (off_t) pieces[i].iov_len;
	if (is_full(fd, end))
		FAIL_FULL;
	if (real == NULL)
		real = (ssize_t (*) (int, const struct iovec *, int, off_t)) dlsym(RTLD_NEXT, "pwritev");
	return real(fd, pieces, count, at);
}

EXPORT int
posix_fallocate(int fd, off_t at, off_t bytes)
{
	static int	(*real) (int, off_t, off_t) = NULL;

	if (is_full(fd, at + bytes) ||
		((is_without("full") || is_without("nothing")) && is_of_region(fd)))
		return ENOSPC;
	if (real == NULL)
		real = (int (*) (int, off_t, off_t)) dlsym(RTLD_NEXT, "posix_fallocate");
	return real(fd, at, bytes);
}

/* Their names where off_t is asked to have 64 bits */
EXPORT ssize_t
pwrite64(int fd, const void *data, size_t bytes, off64_t at)
{
	return pwrite(fd, data, bytes, at);
}

EXPORT ssize_t
pwritev64(int fd, const struct iovec *pieces, int count, off64_t at)
{
	return pwritev(fd, pieces, count, at);
}

EXPORT int
posix_fallocate64(int fd, off64_t at, off64_t bytes)
{
	return posix_fallocate(fd, at, bytes);
}
