-- status() tells how the extension is doing
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- Columns
select a.attname, a.atttypid::regtype
from pg_proc p, unnest(p.proargnames, p.proallargtypes, p.proargmodes::text[]) with ordinality a (attname, atttypid, mode, n)
where p.oid = 'meshhook_metrics.status()'::regprocedure
order by a.n;

-- Shared memory: what is used of it, and what it has room for
select preloaded, series_used, histograms_used,
	series_max = current_setting('meshhook_metrics.max_series')::int as series_max,
	histograms_max = current_setting('meshhook_metrics.max_histograms')::int as histograms_max,
	shared_memory_bytes > 0 as shared_memory
from meshhook_metrics.status();
select meshhook_metrics.inc('status_total', 1, jsonb_build_object('n', n)) from generate_series(1, 5) n \g /dev/null
select meshhook_metrics.gauge_set('status_depth', 1);
select meshhook_metrics.observe('status_seconds', 1, jsonb_build_object('n', n)) from generate_series(1, 2) n \g /dev/null
select series_used, histograms_used from meshhook_metrics.status();
select meshhook_metrics.reset('status_seconds');
select series_used, histograms_used from meshhook_metrics.status();

-- There is no storage in this database, and nothing is wrong
select storage_installed, worker_pid is not null as worker, flush_errors >= 0 as counted
from meshhook_metrics.status();

-- Every reason for which samples are discarded, counted since the region began
select key, jsonb_typeof(value), value::bigint >= 0 as counted
from meshhook_metrics.status(), jsonb_each(discarded)
order by key collate "C";
select discarded as before from meshhook_metrics.status() \gset
set client_min_messages = error;
set meshhook_metrics.on_error = warning;
select meshhook_metrics.inc('status_total', -1);
select meshhook_metrics.inc('status_total', 1.7e308);
reset meshhook_metrics.on_error;
reset client_min_messages;
select key, value::bigint - (:'before'::jsonb ->> key)::bigint as since
from meshhook_metrics.status(), jsonb_each_text(discarded)
where value::bigint <> (:'before'::jsonb ->> key)::bigint
order by key;

-- prometheus() says the same
select count(*) filter (where meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_discarded_total{reason="%s"} %s\n', key, value)) as reasons
from meshhook_metrics.status(), jsonb_each_text(discarded);
select meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_series %s\n', series_used) as series,
	meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_series_limit %s\n', series_max) as series_limit,
	meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_histograms %s\n', histograms_used) as histograms,
	meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_histograms_limit %s\n', histograms_max) as histograms_limit,
	meshhook_metrics.prometheus() ~ format(E'\nmeshhook_metrics_shared_memory_bytes %s\n', shared_memory_bytes) as shared_memory
from meshhook_metrics.status();

-- The storage is there when its tables are
begin;
create table meshhook_metrics.flush_state ();
select storage_installed from meshhook_metrics.status();
rollback;
select storage_installed from meshhook_metrics.status();
