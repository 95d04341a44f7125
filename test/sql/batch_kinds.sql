-- A batch that is refused has fixed no kind and taken no series
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- Its samples contradict each other about a metric that is new
select pg_temp.mistake($$ select meshhook_metrics.record('[
	{"op": "inc", "metric": "kinds_new"}, {"op": "inc", "metric": "kinds_other"}, {"op": "gauge_set", "metric": "kinds_new", "value": 1}]') $$);
select meshhook_metrics.gauge_set('kinds_new', 2), meshhook_metrics.gauge_set('kinds_other', 3);

-- A later one is named like a histogram's samples
select meshhook_metrics.observe('kinds_seconds', 1);
select pg_temp.mistake($$ select meshhook_metrics.record('[
	{"op": "inc", "metric": "kinds_third"}, {"op": "inc", "metric": "kinds_seconds_sum"}]') $$);
select meshhook_metrics.gauge_set('kinds_third', 4);

-- A later one is no sample at all
select pg_temp.mistake($$ select meshhook_metrics.record('[{"op": "inc", "metric": "kinds_fourth"}, 1]') $$);
select meshhook_metrics.gauge_set('kinds_fourth', 5);

select metric, kind, value, count from meshhook_metrics.snapshot() order by metric collate "C";
select series_used from meshhook_metrics.status();
