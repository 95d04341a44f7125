-- alert_totals() with arguments that alert_values() does not give, and with tables that are
-- not as the worker writes them: a clear error or an answer, and never the end of the server
\getenv folder PG_ABS_SRCDIR
\set mistakes :folder /sql/include/mistake.sql
\set migrations :folder /sql/include/migrations.sql
\set ECHO none
set client_min_messages = warning;
\i :mistakes
begin;
\i :migrations
set timezone = 'UTC';
set datestyle = 'ISO';
create cast (bytea as meshhook_metrics.histogram) without function;
\set ECHO all

\pset format unaligned
\pset tuples_only on
create table pg_temp.defaults as
select *
from (
	values
		(1, $$timestamptz '2026-01-01 12:30:30'$$, 'timestamptz'),
		(2, $$'{11111111-1111-1111-1111-111111111111}'$$, 'uuid[]'),
		(3, $$'{900001}'$$, 'bigint[]'),
		(4, $$'{1}'$$, 'integer[]'),
		(5, $$'{1}'$$, 'integer[]'),
		(6, $$'{t}'$$, 'boolean[]'),
		(7, $$'{2026-01-01 12:25:30}'$$, 'timestamptz[]'),
		(8, $$'{2026-01-01 12:26:00}'$$, 'timestamptz[]'),
		(9, $$'{2026-01-01 12:26:00}'$$, 'timestamptz[]'),
		(10, $$'{2026-01-01 12:26:00}'$$, 'timestamptz[]'),
		(11, $$'{2026-01-01 12:30:00}'$$, 'timestamptz[]'),
		(12, $$array[null]$$, 'text[]'),
		(13, $$'{t}'$$, 'boolean[]')
) d (no, given, type);

-- A call with some arguments different from a good one's
create function pg_temp.statement(changed jsonb default '{}') returns text
language sql as $$
	select format('select * from meshhook_metrics.alert_totals(%s)',
		string_agg(format('%s::%s', coalesce(changed ->> no::text, given), type), ', ' order by no))
	from defaults
$$;
create function pg_temp.ask(changed jsonb default '{}') returns text
language plpgsql as $$
declare
	answer text;
begin
	execute format(
		'select string_agg(concat_ws(%L, t.target, t.count, t.sum, t.min, t.max, t.last, meshhook_metrics.histogram_count(t.histogram)), %L order by t.target) from (%s) t',
		' ', ', ', pg_temp.statement(changed))
	into answer;
	return coalesce(answer, 'nothing');
exception when others then
	return pg_temp.brief_mistake(pg_temp.statement(changed));
end
$$;

-- What there is: a minute in the rollup and in live, and a row of live after it
insert into meshhook_metrics.series (id, tenant_id, metric, kind, labels) overriding system value
values (900001, '11111111-1111-1111-1111-111111111111', 'sizes', 'histogram', '{}');
select meshhook_metrics.create_leaf('1m', '2026-01-01');
update meshhook_metrics.rollup_state set live_id = 900000 where target = '1m';
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
select '11111111-1111-1111-1111-111111111111', 900001, '2026-01-01 12:27:00', 2, 3, 1, 2, 2, meshhook_metrics.histogram_of(x)
from (values (1::double precision), (2)) v (x);
insert into meshhook_metrics.live (id, tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram) overriding system value
select 900001, '11111111-1111-1111-1111-111111111111', '2026-01-01 12:30:10', 5, '{900001}', '{1}', '{4}', '{4}', '{4}', '{4}', array[meshhook_metrics.histogram_of(4)];
select pg_temp.ask();

-- Nulls, arrays of other lengths or shapes, and with nulls: which arguments bring which answer
create function pg_temp.ask_each(replacement text, types text default '%[]') returns table (numbers text, answer text)
language sql as $$
	select string_agg(d.no::text, ' ' order by d.no), a.answer
	from defaults d
	cross join lateral pg_temp.ask(jsonb_build_object(d.no, format(replacement, format('(%s::%s)[1]', d.given, d.type)))) a (answer)
	where d.type like types
	group by a.answer
	order by min(d.no)
$$;
select * from pg_temp.ask_each('null', '%');
select * from pg_temp.ask_each($$'{}'$$);
select * from pg_temp.ask_each('array[%1$s, %1$s]');
select * from pg_temp.ask_each('array[array[%1$s]]');
select * from pg_temp.ask_each('array[array[%1$s, %1$s], array[%1$s, %1$s]]');
select * from pg_temp.ask_each('array[null]');
select * from pg_temp.ask_each('array_fill(%1$s, array[1], array[-5])');
select pg_temp.ask('{"2": "''{}''", "3": "''{}''", "4": "''{}''", "5": "''{}''", "6": "''{}''"}');
select pg_temp.ask('{"7": "''{}''", "8": "''{}''", "9": "''{}''", "10": "''{}''", "11": "''{}''", "12": "''{}''", "13": "''{}''"}');
select pg_temp.ask((select jsonb_object_agg(no, $$'{}'$$) from defaults where type like '%[]'));

-- Numbers of windows and targets
select given, pg_temp.ask(jsonb_build_object('4', format('array[%s]', given))), pg_temp.ask(jsonb_build_object('5', format('array[%s]', given)))
from unnest(array['0', '-1', '2', '2147483647', '-2147483648']) given;
select pg_temp.ask(jsonb_build_object('2', format('array_fill(%L::uuid, array[4])', '11111111-1111-1111-1111-111111111111'), '3', 'array[900001, 7, -1, 900001]',
	'4', 'array[1, 1, 1, 1]', '5', 'array[4, 4, 2, 4]', '6', 'array[false, true, true, true]'));
select pg_temp.ask('{"3": "array[9223372036854775807]"}'), pg_temp.ask('{"3": "array[-9223372036854775808]"}');
select count(*), sum(t.count), max(t.count)
from meshhook_metrics.alert_totals('2026-01-01 12:30:30', array_fill('11111111-1111-1111-1111-111111111111'::uuid, array[20000]),
	array_fill(900001::bigint, array[20000]), array_fill(1, array[20000]), (select array_agg(n::integer) from generate_series(1, 20000) n),
	array_fill(true, array[20000]), '{2026-01-01 12:25:30}', '{2026-01-01 12:26:00}', '{2026-01-01 12:26:00}', '{2026-01-01 12:26:00}', '{2026-01-01 12:30:00}', '{5m}', '{f}') t;

-- Times without an end, and in no order
select infinite, pg_temp.ask(jsonb_build_object('1', format('%L', infinite)))
from unnest(array['infinity', '-infinity', '4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00', '2026-01-01 12:28:30']) infinite;
select infinite, e.*
from unnest(array['infinity', '-infinity', '4714-11-24 00:00:00+00 BC', '294276-12-31 23:59:59.999999+00', '2026-01-01 12:28:30']) infinite
cross join pg_temp.ask_each(format($$'{%s}'$$, infinite), 'timestamptz[]') e;
select scanned, pg_temp.ask((select jsonb_object_agg(no, $$'{infinity}'$$) from defaults where type = 'timestamptz[]') || jsonb_build_object('13', format('array[%s]', scanned)))
from unnest(array['true', 'false']) scanned;

-- What is read in place of whole windows
select given, pg_temp.ask(jsonb_build_object('12', format('array[%L]', given), '10', $$'{2026-01-01 12:30:00}'$$))
from unnest(array['1m', '5m', '1h', '1d', '2m', '', $$'; drop table live$$]) given;

-- Rows of live that the worker does not write; each is taken as far as it goes
create function pg_temp.with_live(columns text, histograms text default 'null') returns text
language plpgsql as $$
declare
	answer text;
begin
	execute format('insert into meshhook_metrics.live (id, tenant_id, at, seconds, series_id, count, sum, min, max, last, histogram) overriding system value '
		'values (900002, %L, %L, 5, %s, %s)', '11111111-1111-1111-1111-111111111111', '2026-01-01 12:30:20', columns, histograms);
	answer := pg_temp.ask();
	raise exception using errcode = 'ZZ999';
exception when sqlstate 'ZZ999' then
	return answer;
end
$$;
select pg_temp.with_live($$'{900001}', '{1}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001,900001,900001}', '{1,1,1}', '{5,6,7}', '{5,6,7}', '{5,6,7}', '{5,6,7}'$$);
select pg_temp.with_live($$'{900001,900001,900001}', '{1}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001}', '{1,2,3}', '{5,6,7}', '{5,6,7}', '{5,6,7}', '{5,6,7}'$$);
select pg_temp.with_live($$'{900001}', '{}', '{}', '{}', '{}', '{}'$$);
select pg_temp.with_live($$'{}', '{1}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001,null}', '{null,null}', '{null,null}', '{null,null}', '{null,null}', '{null,null}'$$);
select pg_temp.with_live($$'{null}', '{1}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{{900001}}', '{1}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001}', '{{1},{1}}', '{5}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001}', '{1}', '{5}', '{{5,6},{7,8}}', '{5}', '{5}'$$);
select pg_temp.with_live($$'{900001}', '{1}', '{5}', '{5}', '{5}', '{5}'$$, 'array[array[(select meshhook_metrics.histogram_of(5))]]');
select pg_temp.with_live($$'[-3:-2]={7,900001}', '[8:9]={3,1}', '[0:1]={3,5}', '{3,5}', '{3,5}', '{3,5}'$$, $$'[5:5]={null}'$$);
select pg_temp.with_live($$'{900001}', '{-1}', '{-5}', '{Infinity}', '{-Infinity}', '{NaN}'$$);
select pg_temp.with_live($$'{900001}', '{9223372036854775807}', '{1e308}', '{NaN}', '{NaN}', '{1e308}'$$);
select pg_temp.with_live($$'{900001}', '{-9223372036854775808}', '{Infinity}', '{5}', '{5}', '{5}'$$);
select pg_temp.with_live($$array_fill(900001::bigint, array[50000])$$ || repeat($$, array_fill(1, array[50000])$$, 5));

-- Tables whose columns are not what they were
create function pg_temp.altered(alteration text, target text default 'live') returns text
language plpgsql as $$
declare
	answer text;
begin
	execute format('alter table meshhook_metrics.%I %s', target, alteration);
	answer := pg_temp.ask();
	raise exception using errcode = 'ZZ999';
exception when sqlstate 'ZZ999' then
	return answer;
end
$$;
select pg_temp.altered('alter count type text[]');
select pg_temp.altered($$alter count type text[] using '{many}'$$);
select pg_temp.altered($$alter count type jsonb using '[1]'$$);
select pg_temp.altered('alter count type text using count::text');
select pg_temp.altered('alter count type bigint using 1');
select pg_temp.altered('alter sum type numeric[]');
select pg_temp.altered($$alter sum type numeric[] using '{1e309}'$$);
select pg_temp.altered('alter series_id type integer[]');
select pg_temp.altered('alter histogram type text[]');
select pg_temp.altered($$alter histogram type bytea[] using '{"\\x0107"}'$$);
select pg_temp.altered('drop column min');
select pg_temp.altered('drop column histogram');
select pg_temp.altered('alter at type text');
select pg_temp.altered('alter id drop identity; alter table meshhook_metrics.live alter id type text');
select pg_temp.altered('rename to hidden');
select pg_temp.altered('alter count type text', 'rollup_1m');
select pg_temp.altered($$alter count type text using 'many'$$, 'rollup_1m');
select pg_temp.altered('alter histogram type text', 'rollup_1m');
select pg_temp.altered('drop column last', 'rollup_1m');
select pg_temp.altered('rename to hidden', 'rollup_1m');
-- No window reads it
select pg_temp.altered('rename to hidden', 'rollup_1h');
select pg_temp.altered('alter live_id type text', 'rollup_state');

-- Histograms whose bytes were changed, in both tables
select setseed(0.707);
create function pg_temp.damaged(input bytea) returns bytea
language plpgsql volatile as $$
declare
	at constant integer := floor(random() * length(input));
begin
	return case floor(random() * 4)
		when 0 then substr(input, 1, at)
		when 1 then set_byte(input, at, floor(random() * 256)::integer)
		when 2 then substr(input, 1, at) || set_byte('\x00', 0, floor(random() * 256)::integer) || substr(input, at + 1)
		else substr(input, 1, at) || substr(input, at + 2)
	end;
end
$$;
create function pg_temp.outcome_of_damage(target text, n integer) returns text
language plpgsql as $$
declare
	good constant bytea := meshhook_metrics.histogram_send(meshhook_metrics.histogram_of(x)) from (values (1::double precision), (2), (0), (1e6), (3)) v (x);
	bad constant bytea := pg_temp.damaged(good);
begin
	if target = 'live' then
		update meshhook_metrics.live set histogram = array[bad::meshhook_metrics.histogram] where id = 900001;
	else
		update meshhook_metrics.rollup_1m set histogram = bad::meshhook_metrics.histogram where bucket = '2026-01-01 12:27:00';
	end if;
	execute format('select * from (%s) t', pg_temp.statement());
	return 'read';
exception when others then
	return sqlstate;
end
$$;
select target, outcome, count(*) > 4 as often
from unnest(array['live', 'rollup_1m']) target
cross join generate_series(1, 40) n
cross join lateral pg_temp.outcome_of_damage(target, n) outcome
group by target, outcome
order by target, outcome;

-- A rule that such data is about is the one that is marked, and others are evaluated
update meshhook_metrics.live set histogram = array['\x0108'::bytea::meshhook_metrics.histogram] where id = 900001;
insert into meshhook_metrics.series (id, tenant_id, metric, kind, labels) overriding system value
values (900002, '11111111-1111-1111-1111-111111111111', 'sound_total', 'counter', '{}');
insert into meshhook_metrics.live (id, tenant_id, at, seconds, series_id, count, sum) overriding system value
values (900003, '11111111-1111-1111-1111-111111111111', '2026-01-01 12:30:20', 5, '{900002}', '{1}', '{100}');
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
values
	('11111111-1111-1111-1111-111111111111', 'sound', 'sound_total', 'increase', 10),
	('11111111-1111-1111-1111-111111111111', 'ill', 'sizes', 'p95', 10);
-- Where there is storage already, the worker has evaluated rules since
update meshhook_metrics.alert_state set evaluated_at = '-infinity';
select meshhook_metrics.evaluate_alerts('2026-01-01 12:30:30');
select name, last_error from meshhook_metrics.alert_rules order by name;
select name, state, value from meshhook_metrics.alerts;
rollback;
