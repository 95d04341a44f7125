-- Functions mean the same where strings are read as before PostgreSQL 9.1, with
-- backslashes that are no characters of their own: a role or database can have that.
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

-- Each function: E'' is read the same everywhere, and nothing else has a backslash
select is_empty($$
	select p.oid::regprocedure
	from pg_proc p
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and regexp_replace(p.prosrc, $e$\mE'([^'\\]|\\.|'')*'$e$, '', 'g') ~ '\\' $$, 'no function has a string that depends on it');

-- What depended on it
select array_agg(l.leaf) as leaves from meshhook_metrics.leaves('1m') l \gset
select pg_temp.rule('{"annotations": {"summary": "{{ labels.queue }}: {{ value }} > {{threshold}}"}, "group_by": ["queue"]}');
select pg_temp.sample('depth', pg_temp.t(0), 11.5, '{"queue": "a"}');
set local standard_conforming_strings = off;
-- What has run in this session was read before
do $$
declare
	function regprocedure;
begin
	for function in
		select p.oid
		from pg_proc p
		join pg_language l on l.oid = p.prolang
		where p.pronamespace = 'meshhook_metrics'::regnamespace and l.lanname = 'plpgsql'
	loop
		execute format('alter function %s cost 100', function);
	end loop;
end
$$;
set local escape_string_warning = off;
select is((select array_agg(l.leaf) from meshhook_metrics.leaves('1m') l), :'leaves'::text[], 'partitions are found');
select lives_ok('select meshhook_metrics.maintain()', 'and kept');
select meshhook_metrics.evaluate_alerts(pg_temp.t(0));
select is((select annotations ->> 'summary' from meshhook_metrics.alerts), 'a: 11.5 > 10', 'texts of alerts are filled in');
select throws_ok(format($$ select pg_temp.rule('{"annotations": {"summary": "{{ %s }}"}}') $$, wrong), '22023', null, 'what is not known is refused: ' || wrong)
from unnest(array['values', 'labelsxqueue', 'labels.']) wrong;
select throws_ok($$ select pg_temp.rule('{"name": "  "}') $$, '22023', null, 'names are checked');
select throws_ok($$ insert into meshhook_metrics.alert_receivers (tenant_id, name, url) values ('11111111-1111-1111-1111-111111111111', 'ops', 'https://example.org/a b') $$, '22023', null, 'and urls');
select lives_ok($$ insert into meshhook_metrics.alert_receivers (tenant_id, name, url, headers) values ('11111111-1111-1111-1111-111111111111', 'ops', 'https://example.org/sss', '{"a": "rn"}') $$, 'but not more than that');
select throws_ok($$ insert into meshhook_metrics.alert_receivers (tenant_id, name, headers) values ('11111111-1111-1111-1111-111111111111', 'pager', '{"a": "r\\nn"}') $$, '22023', null, 'and what is in headers');
select is(meshhook_metrics.query_range_aggregate('p99.9', 'histogram', 'size'), 'p99.9', 'aggregates are understood');
select throws_ok($$ select meshhook_metrics.query_range_aggregate('p99x9', 'histogram', 'size') $$, '22023', null, 'or refused');
select * from finish();
rollback;
