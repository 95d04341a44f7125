/*-------------------------------------------------------------------------
 *
 * flushjournal.c
 *	  What a flush stores, kept until it is known whether it was stored.
 *
 * Owns the file pg_stat/meshhook_metrics.flush.  A process may be killed after
 * the commit of a flush and before the region has noted what is stored now.
 * Then the tick in flush_state says that it was committed, and this file what:
 * for each series its number and generation, its key, and the totals that are
 * stored.  Written by the flush worker before its transaction commits, read
 * after a restart; the region says whether it counts (pending_tick).  Written
 * also where a copy of a data directory is started first, of what the other
 * server may still store.
 *
 * The file need not be synced: processes that are killed leave it to the
 * kernel, and a crash of the operating system takes the region as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "flush.h"
#include "labels.h"
#include "lib/stringinfo.h"
#include "port/pg_crc32c.h"
#include "registry.h"
#include "storage/fd.h"

#define JOURNAL_FILE		"pg_stat/meshhook_metrics.flush"
#define JOURNAL_MAGIC		UINT64CONST(0x324C4E524A4D484D) /* "MHMJRNL2" */

typedef struct JournalHeader
{
	uint64		magic;
	uint64		region_id;
	uint64		tick;
	uint64		bytes;			/* of the entries that follow */
	uint32		entries;
	pg_crc32c	crc;			/* of the entries */
} JournalHeader;

/* Followed by metric, labels, the numbers of buckets and what they hold */
typedef struct JournalEntry
{
	uint32		number;
	uint32		generation;
	pg_uuid_t	tenant;
	uint64		count;
	double		relative;		/* what a relative gauge was changed by, else 0 */
	uint32		metric_length;
	uint32		labels_length;
	uint32		buckets_count;
	uint32		series_kind;	/* of overflow; of which window (below) */
} JournalEntry;

/*
 * Two series of a key can be histograms of different windows, one of them superseded.
 * The window is in the bits over the lowest one; 0: not a histogram.
 */
#define SERIES_OF_OVERFLOW		0x01
#define SERIES_OF_WINDOW(e)		((uint32) ((e) - MHM_MIN_EXPONENT_LOWEST + 1) << 1)
#define WINDOW_OF_SERIES(kind)	((kind) >> 1 == 0 ? MHM_WINDOW_CURRENT : (int32) ((kind) >> 1) + MHM_MIN_EXPONENT_LOWEST - 1)

static void
append_entry(StringInfo out, const MhmChange *change)
{
	JournalEntry entry = {
		.number = change->number,
		.generation = change->generation,
		.tenant = change->tenant,
		.count = change->count_after,
		.relative = change->relative ? change->last : 0,
		.metric_length = change->metric_length,
		.labels_length = change->labels_length,
		.buckets_count = change->buckets_count,
		.series_kind = (change->overflow ? SERIES_OF_OVERFLOW : 0) |
			(change->kind == MHM_HISTOGRAM ? SERIES_OF_WINDOW(change->min_exponent) : 0)
	};

	appendBinaryStringInfo(out, (char *) &entry, sizeof(entry));
	appendBinaryStringInfo(out, change->metric, change->metric_length);
	appendBinaryStringInfo(out, change->labels, change->labels_length);
	appendBinaryStringInfo(out, (char *) change->buckets, change->buckets_count * sizeof(uint16));
	appendBinaryStringInfo(out, (char *) change->buckets_after,
						   change->buckets_count * sizeof(uint64));
}

/* Entries go out in pieces, since a StringInfo has a limit */
static void
write_piece(int fd, const char *data, Size bytes)
{
	while (bytes > 0)
	{
		ssize_t		put;

		errno = 0;
		put = write(fd, data, bytes);
		if (put <= 0)
		{
			if (errno == EINTR)
				continue;
			if (errno == 0)
				errno = ENOSPC;
			ereport(ERROR,
					errcode_for_file_access(),
					errmsg("could not write file \"%s\": %m", JOURNAL_FILE));
		}
		data += put;
		bytes -= put;
	}
}

#define PIECE_BYTES			(1024 * 1024)

/*
 * Note what a flush stores under the id of a region, and in our region that it
 * may be stored from now on.  Raises an error when the file cannot be written;
 * then nothing is pending.
 */
void
mhm_journal_write(const MhmFlush *flush, uint64 region_id)
{
	JournalHeader header = {
		.magic = JOURNAL_MAGIC,
		.region_id = region_id,
		.tick = flush->tick,
		.entries = flush->changes_count
	};
	StringInfoData piece;
	int			fd = OpenTransientFile(JOURNAL_FILE, O_CREAT | O_WRONLY | O_TRUNC | PG_BINARY);

	if (fd < 0)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not open file \"%s\": %m", JOURNAL_FILE));
	INIT_CRC32C(header.crc);
	initStringInfo(&piece);
	write_piece(fd, (char *) &header, sizeof(header));
	for (uint32 i = 0; i < flush->changes_count; i++)
	{
		append_entry(&piece, &flush->changes[i]);
		if (piece.len >= PIECE_BYTES || i == flush->changes_count - 1)
		{
			COMP_CRC32C(header.crc, piece.data, piece.len);
			header.bytes += piece.len;
			write_piece(fd, piece.data, piece.len);
			resetStringInfo(&piece);
		}
	}
	FIN_CRC32C(header.crc);
	if (lseek(fd, 0, SEEK_SET) != 0)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not seek in file \"%s\": %m", JOURNAL_FILE));
	write_piece(fd, (char *) &header, sizeof(header));
	if (CloseTransientFile(fd) != 0)
		ereport(ERROR,
				errcode_for_file_access(),
				errmsg("could not close file \"%s\": %m", JOURNAL_FILE));
	pfree(piece.data);

	mhm_region->pending_region_id = region_id;
	mhm_region->pending_moved = false;
	/* Killed before this, nothing was pending; and nothing was committed */
	pg_write_barrier();
	mhm_region->pending_tick = flush->tick;
	pg_write_barrier();
}

/*
 * This region continues a copy of another one.  What that had not stored yet,
 * its own server may store, and this one see it stored: as its standby, or from
 * its WAL.  So it is pending, as that region's next flush.  Where that region
 * had a flush pending itself, its journal was copied along.  In the postmaster.
 */
void
mhm_journal_inherit(uint64 region_id)
{
	MhmFlush	unstored = {0};

	if (mhm_region->pending_tick != 0)
		return;
	mhm_flush_collect(&unstored, true);
	unstored.tick = mhm_region->flushed_tick + 1;
	if (unstored.changes_count > 0)
		mhm_journal_write(&unstored, region_id);
}

/* The journal's contents, or NULL when they are not what is asked for */
static char *
read_journal(uint64 region_id, uint64 tick, JournalHeader *header)
{
	struct stat status;
	pg_crc32c	crc;
	char	   *data = NULL;
	int			fd = OpenTransientFile(JOURNAL_FILE, O_RDONLY | PG_BINARY);

	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 &&
		read(fd, header, sizeof(*header)) == sizeof(*header) &&
		header->magic == JOURNAL_MAGIC && header->region_id == region_id &&
		header->tick == tick && status.st_size - sizeof(*header) == header->bytes)
	{
		Size		done = 0;
		ssize_t		got = 1;

		data = palloc_extended(header->bytes + 1, MCXT_ALLOC_HUGE);
		while (done < header->bytes && got > 0)
		{
			got = read(fd, data + done, header->bytes - done);
			done += Max(got, 0);
		}
		INIT_CRC32C(crc);
		COMP_CRC32C(crc, data, done);
		FIN_CRC32C(crc);
		if (done != header->bytes || !EQ_CRC32C(crc, header->crc))
		{
			pfree(data);
			data = NULL;
		}
	}
	CloseTransientFile(fd);
	return data;
}

/*
 * The series that an entry is about, or MHM_NONE when it is gone.  While series
 * keep their numbers the generation tells.  Where they were moved since, by a
 * restart, a series of the same key is it, unless it was begun anew after
 * having been reset: then it holds less than what is stored of the old one.  (One
 * that was reset in between, and got as many samples again before the restart, is
 * taken for the old one.)
 */
static uint32
series_of_entry(const JournalEntry *entry, const char *metric, const char *labels)
{
	uint32		number = entry->number;
	MhmTotals	totals;

	if (!mhm_region->pending_moved)
		return number < mhm_region->geometry.series_slots &&
			mhm_series[number].live == MHM_SERIES_LIVE &&
			pg_atomic_read_u32(&mhm_series[number].generation) == entry->generation ?
			number : MHM_NONE;

	number = mhm_registry_locate(&(MhmKey)
	{
		.tenant = &entry->tenant,
		.metric = metric,
		.metric_length = entry->metric_length,
		.labels = labels,
		.labels_length = entry->labels_length
	}, (entry->series_kind & SERIES_OF_OVERFLOW) != 0, WINDOW_OF_SERIES(entry->series_kind));
	if (number == MHM_NONE)
		return MHM_NONE;
	mhm_accumulate_read(number, &totals, NULL);
	return totals.count >= entry->count ? number : MHM_NONE;
}

/*
 * A flush was committed whose process was killed before the region knew: note
 * it now.  False when the file does not tell what it stored.
 */
bool
mhm_journal_apply(uint64 region_id, uint64 tick)
{
	JournalHeader header;
	char	   *data = read_journal(region_id, tick, &header);
	char	   *at = data;
	uint16		buckets[MHM_COUNTS];
	uint64		buckets_after[MHM_COUNTS];

	if (data == NULL)
		return false;
	LWLockAcquire(mhm_registry_lock, LW_SHARED);
	for (uint32 i = 0; i < header.entries; i++)
	{
		JournalEntry entry;
		const char *metric;
		const char *labels;
		uint32		number;

		memcpy(&entry, at, sizeof(entry));
		metric = at + sizeof(entry);
		labels = metric + entry.metric_length;
		at = (char *) labels + entry.labels_length;
		memcpy(buckets, at, entry.buckets_count * sizeof(uint16));
		at += entry.buckets_count * sizeof(uint16);
		memcpy(buckets_after, at, entry.buckets_count * sizeof(uint64));
		at += entry.buckets_count * sizeof(uint64);

		number = series_of_entry(&entry, metric, labels);
		if (number == MHM_NONE)
			continue;
		(void) mhm_flush_apply_to(number, entry.count, entry.buckets_count, buckets, buckets_after);
		mhm_levels[number].stored = entry.relative;
	}
	LWLockRelease(mhm_registry_lock);
	pfree(data);
	return true;
}

/* The server ends with nothing pending */
void
mhm_journal_remove(void)
{
	(void) unlink(JOURNAL_FILE);
}
