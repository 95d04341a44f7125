/*-------------------------------------------------------------------------
 *
 * prometheus.c
 *	  prometheus(): the metrics in Prometheus's text format 0.0.4
 *
 * Owns the format.  Works on a collection (collect.c), so that nothing shared
 * is held while writing.  Called by whoever is scraped.
 *
 * A histogram's buckets are exposed at powers of two, which are boundaries of
 * ours too: every count is exact.  All of the window's powers are written,
 * filled or not, so that the set of time series does not change from scrape
 * to scrape.  With a tenant only that tenant's series are written, and nothing
 * of the extension's own health, which would tell about others.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "collect.h"
#include "common/shortest_dec.h"
#include "fmgr.h"
#include "labels.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "registry.h"
#include "require.h"
#include "status.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/uuid.h"
#include "workerstate.h"

PG_FUNCTION_INFO_V1(mhm_prometheus);

/* From 1970 to 2000, in microseconds */
#define UNIX_EPOCH_BEFORE_OURS \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

#define WINDOW_OCTAVES		(MHM_HISTOGRAM_BUCKETS / MHM_BUCKETS_PER_OCTAVE)
#define BYTES_PER_SERIES	160 /* a guess to begin with */
#define BYTES_PER_HISTOGRAM 5000

/* Largest double whose integers print without an exponent */
#define LARGEST_PLAIN		1e15

/* The boundaries of a window as text; most histograms share one window */
typedef struct WindowText
{
	bool		valid;
	int			min_exponent;
	char		upper[WINDOW_OCTAVES + 1][DOUBLE_SHORTEST_DECIMAL_LEN];
} WindowText;

static void
append_string(StringInfo out, const char *string)
{
	appendBinaryStringInfo(out, string, strlen(string));
}

static void
append_uint64(StringInfo out, uint64 value)
{
	char		digits[MAXINT8LEN + 1];
	int			length = pg_ulltoa_n(value, digits);

	appendBinaryStringInfo(out, digits, length);
}

static void
append_value(StringInfo out, double value)
{
	if (value >= 0 && value < LARGEST_PLAIN && value == floor(value))
		append_uint64(out, (uint64) value);
	else
	{
		char		digits[DOUBLE_SHORTEST_DECIMAL_LEN];
		int			length = double_to_shortest_decimal_bufn(value, digits);

		appendBinaryStringInfo(out, digits, length);
	}
}

/* Append text with what the format has escapes for; quotes in labels only */
static void
append_escaped(StringInfo out, const char *text, uint32 length, bool quotes)
{
	uint32		plain = 0;

	for (uint32 i = 0; i < length; i++)
	{
		const char *instead;

		if (text[i] == '\\')
			instead = "\\\\";
		else if (text[i] == '\n')
			instead = "\\n";
		else if (text[i] == '"' && quotes)
			instead = "\\\"";
		else
			continue;
		appendBinaryStringInfo(out, text + plain, i - plain);
		append_string(out, instead);
		plain = i + 1;
	}
	appendBinaryStringInfo(out, text + plain, length - plain);
}

/* Append stored text, as this database can show it */
static void
append_stored(StringInfo out, const char *text, uint32 length, bool quotes)
{
	char	   *shown;

	if (GetDatabaseEncoding() == PG_UTF8)
	{
		append_escaped(out, text, length, quotes);
		return;
	}
	shown = mhm_text_for_database(text, length);
	append_escaped(out, shown, strlen(shown), quotes);
	pfree(shown);
}

static void
append_uuid(StringInfo out, const pg_uuid_t *uuid)
{
	static const char hex[] = "0123456789abcdef";
	char		text[36];
	char	   *at = text;

	for (int i = 0; i < UUID_LEN; i++)
	{
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = hex[uuid->data[i] >> 4];
		*at++ = hex[uuid->data[i] & 0x0F];
	}
	appendBinaryStringInfo(out, text, sizeof(text));
}

/* A series' labels without the closing brace, so that le can follow */
static void
append_labels(StringInfo out, const MhmCollectedSeries *series)
{
	const char *at = series->labels;
	const char *end = at + series->labels_length;

	append_string(out, "{tenant=\"");
	append_uuid(out, &series->tenant);
	appendStringInfoChar(out, '"');
	while (at < end)
	{
		MhmLabel	label;

		at = mhm_label_next(at, &label);
		appendStringInfoChar(out, ',');
		appendBinaryStringInfo(out, label.key, label.key_length);
		append_string(out, "=\"");
		append_stored(out, label.value, label.value_length, true);
		appendStringInfoChar(out, '"');
	}
	if (series->overflow)
		append_string(out, ",overflow=\"true\"");
}

static void
append_header(StringInfo out, const char *name, const char *help, const char *unit,
			  const char *kind)
{
	append_string(out, "# HELP ");
	append_string(out, name);
	appendStringInfoChar(out, ' ');
	append_stored(out, help, strlen(help), false);
	if (unit != NULL)
	{
		append_string(out, " Unit: ");
		append_stored(out, unit, strlen(unit), false);
		appendStringInfoChar(out, '.');
	}
	append_string(out, "\n# TYPE ");
	append_string(out, name);
	appendStringInfoChar(out, ' ');
	append_string(out, kind);
	appendStringInfoChar(out, '\n');
}

static void
append_metric_header(StringInfo out, const MhmCollectedMetric *metric)
{
	append_header(out, metric->name,
				  metric->help == NULL ?
				  "Not described yet, see meshhook_metrics.describe()." : metric->help,
				  metric->unit, mhm_kind_name(metric->kind));
}

static void
write_window(WindowText *window, int min_exponent)
{
	if (window->valid && window->min_exponent == min_exponent)
		return;
	for (int octave = 0; octave <= WINDOW_OCTAVES; octave++)
		double_to_shortest_decimal_buf(ldexp(1.0, min_exponent + octave),
									   window->upper[octave]);
	window->min_exponent = min_exponent;
	window->valid = true;
}

/* One line of a histogram: name, suffix, labels, perhaps le; the value follows */
static void
begin_histogram_line(StringInfo out, const MhmCollectedMetric *metric, const char *suffix,
					 const StringInfo labels, const char *le)
{
	appendBinaryStringInfo(out, metric->name, metric->name_length);
	append_string(out, suffix);
	appendBinaryStringInfo(out, labels->data, labels->len);
	if (le != NULL)
	{
		append_string(out, ",le=\"");
		append_string(out, le);
		appendStringInfoChar(out, '"');
	}
	append_string(out, "} ");
}

static void
append_bucket(StringInfo out, const MhmCollectedMetric *metric,
			  const StringInfo labels, const char *le, uint64 cumulative)
{
	begin_histogram_line(out, metric, "_bucket", labels, le);
	append_uint64(out, cumulative);
	appendStringInfoChar(out, '\n');
}

static void
append_histogram(StringInfo out, const MhmCollectedMetric *metric,
				 const MhmCollectedSeries *series, StringInfo labels, WindowText *window)
{
	uint64		cumulative = series->counts[MHM_COUNT_ZERO];

	resetStringInfo(labels);
	append_labels(labels, series);
	write_window(window, series->min_exponent);

	append_bucket(out, metric, labels, window->upper[0], cumulative);
	for (int octave = 0; octave < WINDOW_OCTAVES; octave++)
	{
		for (int i = 0; i < MHM_BUCKETS_PER_OCTAVE; i++)
			cumulative += series->counts[octave * MHM_BUCKETS_PER_OCTAVE + i];
		append_bucket(out, metric, labels, window->upper[octave + 1], cumulative);
	}
	cumulative += series->counts[MHM_COUNT_OVERFLOW];
	append_bucket(out, metric, labels, "+Inf", cumulative);

	begin_histogram_line(out, metric, "_sum", labels, NULL);
	append_value(out, series->totals.sum);
	appendStringInfoChar(out, '\n');
	begin_histogram_line(out, metric, "_count", labels, NULL);
	append_uint64(out, cumulative);
	appendStringInfoChar(out, '\n');
}

static void
append_plain(StringInfo out, const MhmCollectedMetric *metric,
			 const MhmCollectedSeries *series)
{
	appendBinaryStringInfo(out, metric->name, metric->name_length);
	append_labels(out, series);
	append_string(out, "} ");
	append_value(out, metric->kind == MHM_COUNTER ? series->totals.sum : series->totals.last);
	appendStringInfoChar(out, '\n');
}

static void
append_collection(StringInfo out, const MhmCollection *all)
{
	StringInfoData labels;
	WindowText	window;

	initStringInfo(&labels);
	window.valid = false;
	for (uint32 i = 0; i < all->series_count; i++)
	{
		const MhmCollectedSeries *series = &all->series[i];
		const MhmCollectedMetric *metric = &all->metrics[series->metric];

		CHECK_FOR_INTERRUPTS();
		if (i == 0 || series[-1].metric != series->metric)
			append_metric_header(out, metric);
		if (metric->kind == MHM_HISTOGRAM)
			append_histogram(out, metric, series, &labels, &window);
		else
			append_plain(out, metric, series);
	}
	pfree(labels.data);
}

static void
append_health_value(StringInfo out, const char *name, const char *help, double value)
{
	append_header(out, name, help, NULL, "gauge");
	append_string(out, name);
	appendStringInfoChar(out, ' ');
	append_value(out, value);
	appendStringInfoChar(out, '\n');
}

static void
append_health_counter(StringInfo out, const char *name, const char *help, uint64 value)
{
	append_header(out, name, help, NULL, "counter");
	append_string(out, name);
	appendStringInfoChar(out, ' ');
	append_uint64(out, value);
	appendStringInfoChar(out, '\n');
}

/* 0 for what has not happened */
static double
unix_seconds(TimestampTz at)
{
	return at == 0 ? 0 : (double) (at + UNIX_EPOCH_BEFORE_OURS) / USECS_PER_SEC;
}

/* How flushes and evaluations of alert rules are doing */
static void
append_worker(StringInfo out)
{
	MhmWorkerReport worker;

	mhm_worker_report(&worker);
	append_health_counter(out, "meshhook_metrics_flushes_total",
						  "Flushes that were stored.", worker.tick);
	append_health_counter(out, "meshhook_metrics_flush_errors_total",
						  "Attempts of the worker that failed, since the server started.",
						  worker.errors);
	append_health_value(out, "meshhook_metrics_flush_worker_up",
						"Whether the flush worker is running.", worker.pid != 0);
	append_health_value(out, "meshhook_metrics_last_flush_duration_seconds",
						"How long the last flush took.", worker.last_flush_ms / 1000);
	append_health_value(out, "meshhook_metrics_last_flush_timestamp_seconds",
						"When storage last held everything that was recorded; 0 if not since the server started.",
						unix_seconds(worker.last_flush_at));
	append_health_counter(out, "meshhook_metrics_alert_evaluations_total",
						  "Evaluations of the alert rules since the server started.", worker.evaluations);
	append_health_value(out, "meshhook_metrics_last_alert_evaluation_duration_seconds",
						"How long the last evaluation of the alert rules took.", worker.last_evaluation_ms / 1000);
	append_health_value(out, "meshhook_metrics_last_alert_evaluation_timestamp_seconds",
						"When the alert rules were evaluated last; 0 if not since the server started.",
						unix_seconds(worker.last_evaluation_at));
}

/* How the extension itself is doing */
static void
append_health(StringInfo out)
{
	MhmHealth	health;

	mhm_health_read(&health);
	append_header(out, "meshhook_metrics_discarded_total",
				  "Samples that did not reach the series they were meant for.",
				  NULL, "counter");
	for (int reason = 0; reason < MHM_DISCARD_REASONS; reason++)
	{
		append_string(out, "meshhook_metrics_discarded_total{reason=\"");
		append_string(out, mhm_discard_reason_name(reason));
		append_string(out, "\"} ");
		append_uint64(out, health.discarded[reason]);
		appendStringInfoChar(out, '\n');
	}
	append_health_value(out, "meshhook_metrics_histograms",
						"Histograms in shared memory.", health.histograms_used);
	append_health_value(out, "meshhook_metrics_histograms_limit",
						"Histograms that shared memory has room for.", health.histograms_max);
	append_health_value(out, "meshhook_metrics_series",
						"Series in shared memory.", health.series_used);
	append_health_value(out, "meshhook_metrics_series_limit",
						"Series that shared memory has room for.", health.series_max);
	append_health_value(out, "meshhook_metrics_shared_memory_bytes",
						"Size of the shared memory that holds the series.", health.bytes);
	append_worker(out);
}

Datum
mhm_prometheus(PG_FUNCTION_ARGS)
{
	MhmCollection *all;
	StringInfoData out;
	Size		guess = 4096;

	mhm_check_call(fcinfo, 1);
	all = mhm_collect(PG_ARGISNULL(0) ? NULL : PG_GETARG_UUID_P(0), false);
	for (uint32 i = 0; i < all->series_count; i++)
		guess += all->series[i].counts == NULL ? BYTES_PER_SERIES : BYTES_PER_HISTOGRAM;

	initStringInfo(&out);
	enlargeStringInfo(&out, VARHDRSZ + (int) Min(guess, MaxAllocSize / 4));
	appendStringInfoSpaces(&out, VARHDRSZ);
	append_collection(&out, all);
	if (PG_ARGISNULL(0))
		append_health(&out);
	SET_VARSIZE(out.data, out.len);
	PG_RETURN_TEXT_P((text *) out.data);
}
