-- Malformed histograms, as text, as binary and on disk: refused by a clean error
-- or read as what they say, and never the end of the server
set client_min_messages = warning;
create extension if not exists meshhook_metrics;
reset client_min_messages;
set search_path = meshhook_metrics, public;

select setseed(0.202);

create function pg_temp.random_integer(first int, last int) returns int
language sql volatile
return first + floor(random() * (last - first + 1))::int;

create temporary table seeds as
select row_number() over () as i, h
from (
	select histogram_of(exp(random() * 8)) as h from generate_series(1, 180) i group by i % 3
	union all
	select histogram_of(x) from (values (0::float8), (5e-324), (1.7e308)) v (x)
	union all
	select h::histogram
	from (values
		('{"schema":3,"count":0,"sum":0,"min":null,"max":null,"zero":0,"offset":0,"buckets":[],"overflow":0}'),
		('{"schema":3,"count":12,"sum":1.5,"min":0.09,"max":0.12,"zero":0,"offset":-27,"buckets":[1,0,3,8],"overflow":0}'),
		('{"schema":0,"count":12,"sum":2000.25,"min":0,"max":1000,"zero":4,"zero_threshold":0.25,"offset":-1,"buckets":[1,5],"overflow":2,"overflow_threshold":16}'),
		('{"schema":-4,"count":900719925474099,"sum":1e18,"min":0,"max":70000,"zero":99,"zero_threshold":0,"offset":2,"buckets":[900719925474000],"overflow":0}'),
		('{"schema":2,"count":4,"sum":21,"min":0.5,"max":16,"zero":0,"offset":0,"buckets":[],"overflow":4,"overflow_threshold":0}'),
		('{"schema":3,"count":9,"sum":21,"min":0.05,"max":90000,"zero":2,"zero_threshold":1,"zeros":[[0.0625,1],[1,1]],"offset":-7,"buckets":[1,0,0,3],"overflow":3,"overflow_threshold":2,"overflows":[[2,1],[4096,2]]}')) v (h)
) s;

-- As text: one piece of it replaced by another, cut out, or doubled
create function pg_temp.mutated(input text) returns text
language plpgsql volatile as $$
declare
	pieces constant text[] := array['-1', '0', '1', '1.5', '7', '-27', '9223372036854775807', '9223372036854775808', '1e308', '1e400', '-0', '1e-400',
		'4', '-5', '8192', '2147483647', '-2147483648', 'null', 'true', '""', '"1"', '[]', '[1]', '[[1]]', '{}', 'NaN', 'Infinity', '\u0000', '"\u0000"',
		'"count"', '"buckets"', '"zero_threshold":0,', '"overflow_threshold":4,', ',', ':', '}', ']', ' ', 'é'];
	piece text := pieces[pg_temp.random_integer(1, cardinality(pieces))];
	tokens text[];
	i int;
begin
	case pg_temp.random_integer(1, 4)
		when 1 then
			i := pg_temp.random_integer(1, length(input));
			return overlay(input placing piece from i for pg_temp.random_integer(0, 2));
		when 2 then
			i := pg_temp.random_integer(1, length(input));
			return overlay(input placing '' from i for pg_temp.random_integer(1, 12));
		when 3 then
			i := pg_temp.random_integer(1, length(input));
			return overlay(input placing substr(input, i, 12) from i for 0);
		else
			select array_agg(m[1]) into tokens from regexp_matches(input, '"[a-z_]*"|[-+.0-9e]+|.', 'g') m;
			i := pg_temp.random_integer(1, cardinality(tokens));
			tokens[i] := piece;
			return array_to_string(tokens, '');
	end case;
end
$$;

create function pg_temp.read_text(input text, out state text, out h histogram)
language plpgsql as $$
begin
	h := input::histogram;
	state := '00000';
exception when others then
	state := sqlstate;
end
$$;

create temporary table texts as
select input, r.*
from (select pg_temp.mutated(h::text) as input from seeds, generate_series(1, 300) where length(h::text) < 2000) m, pg_temp.read_text(input) r;

select count(distinct input) > 1500 as many,
	count(*) filter (where state = '00000') > 50 as some_read,
	count(*) filter (where state <> '00000') > 1000 as some_refused,
	count(*) filter (where state not in ('00000', '22P02', '22003', '22P05')) as unclean,
	count(*) filter (where h is not null and histogram_send(h::text::histogram) <> histogram_send(h)) as changed
from texts;

-- As bytes: changed, cut, or grown by one or several.  A histogram that was read
-- from its binary form is the same in both forms.
create function pg_temp.mutated(input bytea) returns bytea
language plpgsql volatile as $$
declare
	result bytea := input;
	interesting constant int[] := array[0, 1, 2, 127, 128, 129, 254, 255];
	i int;
begin
	for n in 1 .. pg_temp.random_integer(1, 3) loop
		i := pg_temp.random_integer(0, greatest(length(result) - 1, 0));
		if length(result) = 0 then
			return '\x01';
		end if;
		result := case pg_temp.random_integer(1, 6)
			when 1 then set_byte(result, i, pg_temp.random_integer(0, 255))
			when 2 then set_byte(result, i, interesting[pg_temp.random_integer(1, 8)])
			when 3 then set_bit(result, i * 8 + pg_temp.random_integer(0, 7), pg_temp.random_integer(0, 1))
			when 4 then substr(result, 1, i)
			when 5 then substr(result, 1, i) || set_byte('\x00', 0, pg_temp.random_integer(0, 255)) || substr(result, i + 1)
			else substr(result, 1, i) || substr(result, i + 2)
		end;
	end loop;
	return result;
end
$$;

-- The binary form goes in as COPY reads it, each in a command of its own
create temporary table received (h histogram);
create function pg_temp.receive(input bytea, out state text, out h histogram)
language plpgsql as $$
declare
	stream bytea := '\x5047434f50590aff0d0a00' || int4send(0) || int4send(0)
		|| int2send(1::int2) || int4send(length(input)) || input || int2send((-1)::int2);
begin
	truncate received;
	execute format('copy received from program %L (format binary)',
		format('echo %s | base64 -d', replace(encode(stream, 'base64'), E'\n', '')));
	select received.h into h from received;
	state := '00000';
exception when others then
	state := sqlstate || case when sqlerrm like 'invalid binary input for type histogram: %' then '' else ' ' || sqlerrm end;
end
$$;

select count(*) as round_trips,
	count(*) filter (where (r).state <> '00000' or histogram_send((r).h) <> histogram_send(h)) as failures
from (select h, pg_temp.receive(histogram_send(h)) as r from seeds offset 0) s;

create temporary table binaries as
select input, r.*
from (select pg_temp.mutated(histogram_send(h)) as input from seeds, generate_series(1, 20)) m, pg_temp.receive(input) r;

select count(distinct input) > 150 as many,
	count(*) filter (where state = '00000') > 10 as some_read,
	count(*) filter (where state <> '00000') > 100 as some_refused,
	count(*) filter (where state not in ('00000', '22P03')) as unclean,
	count(*) filter (where h is not null and (histogram_send(h) <> input or histogram_send(h::text::histogram) <> input)) as changed
from binaries;

-- What the binary form may not be
create function pg_temp.refusal(input bytea) returns text
language plpgsql as $$
begin
	truncate received;
	execute format('copy received from program %L (format binary)',
		format('echo %s | base64 -d', replace(encode('\x5047434f50590aff0d0a00' || int4send(0) || int4send(0)
			|| int2send(1::int2) || int4send(length(input)) || input || int2send((-1)::int2), 'base64'), E'\n', '')));
	return 'accepted: ' || (select received.h::text from received);
exception when others then
	return sqlstate || ' ' || sqlerrm;
end
$$;

-- version, schema and flags, then sum, min and max, all 1
select note, pg_temp.refusal(input || case when length(input) >= 2 and position('empty' in note) = 0 then float8send(1) || float8send(1) || float8send(1) else '' end || rest)
from (values
	('one', '\x0107'::bytea, '\x0002'::bytea),
	('empty', '\x0107', ''),
	('empty of nothing', '', ''),
	('empty of a byte', '\x01', ''),
	('another version', '\x0307', '\x0002'),
	('many windows, but one', '\x0207', '\x0002'),
	('many windows, empty', '\x0207', ''),
	('an unknown flag', '\x0187', '\x0002'),
	('a threshold without its count', '\x0117', '\x0002'),
	('no counts', '\x0107', ''),
	('an index without a count', '\x0107', '\x00'),
	('a count of 0', '\x0107', '\x0000'),
	('a long 0', '\x0107', '\x00820000'),
	('a gap before the first', '\x0107', '\x000301'),
	('a gap of 0', '\x0107', '\x00020300'),
	('a huge gap', '\x0107', '\x000203ffffffff0f'),
	('an endless number', '\x0107', '\x0080808080808080808080808080'),
	('65 bits', '\x0107', '\x0080808080808080808002'),
	('a count of 2^63 - 1', '\x0107', '\x00feffffffffffffffff01'),
	('a count of 2^63', '\x0107', '\x00feffffffffffffffff0102'),
	('bucket 8192', '\x0107', '\x80800102'),
	('bucket 8193', '\x0107', '\x82800102'),
	('bucket -8593', '\x0107', '\xa1860102'),
	('bucket 2^31', '\x0107', '\x808080801002'),
	('zero, of threshold 2', '\x011f', '\x0102'),
	('zero, of threshold 2^1024', '\x011f', '\x018010'),
	('zero, of threshold 2^-1074', '\x011f', '\x01e310'),
	('zero, of threshold 2^-1075', '\x011f', '\x01e510'),
	('zero, of threshold 2 at schema -1', '\x011b', '\x0102'),
	('a bucket below zero', '\x011f', '\x01020002'),
	('a bucket above overflow', '\x0167', '\x01030002'),
	('overflow above 1/4', '\x0167', '\x0103'),
	('of many windows, a bucket below zero', '\x020f', '\x0103010002'),
	('of many windows, a bucket above overflow', '\x0227', '\x0104010002'),
	('of many windows, two zero counts', '\x020f', '\x0201010301'),
	('of many windows, an unknown flag', '\x021f', '\x0103010002'),
	('of many windows, no zero count', '\x020f', '\x000002'),
	('of many windows, more than there are bytes', '\x020f', '\x7f03010002'),
	('of many windows, 2^62 of them', '\x020f', '\x808080808080808040030103010002'),
	('of many windows, a threshold twice', '\x020f', '\x02030103010002'),
	('of many windows, thresholds that fall', '\x0227', '\x02030100010002'),
	('of many windows, a count of 0', '\x020f', '\x0103000002'),
	('of many windows, zero of threshold 2^1024', '\x020f', '\x018110010002'),
	('of many windows, zero of threshold 2^5000', '\x020f', '\x01914e010002'),
	('of many windows, threshold 2 at schema -1', '\x020b', '\x0103010002')) v (note, input, rest);
select pg_temp.refusal('\x0107' || float8send(a) || float8send(b) || float8send(c) || '\x0004') as refusal
from (values (1::float8, 1::float8, 1::float8), ('nan', 1, 1), (1, 'nan', 1), (1, 1, 'infinity'), (-1, 1, 1), ('-0', 1, 1), (1, 1.0001, 1.0001), (1, 1, 0.95), (1, 0.95, 1.1)) v (a, b, c);

-- On disk: a histogram whose bytes are anything is an error of the row that holds
-- it, in every function.  A cast that no one but a test should have puts it there.
create cast (bytea as histogram) without function;

create function pg_temp.used(input bytea) returns text
language plpgsql as $$
declare
	h histogram := input::histogram;
	states text[];
	state text;
	statement text;
begin
	foreach statement in array array[
		'select histogram_count($1) + histogram_sum($1) + histogram_avg($1) + histogram_min($1) + histogram_max($1)',
		'select histogram_quantile($1, 0), histogram_quantile($1, 0.5), histogram_quantile($1, 0.99), histogram_quantile($1, 1)',
		'select histogram_fraction($1, 0.5, 10)',
		'select count(*) from histogram_buckets($1)',
		'select $1::text, $1::json',
		'select histogram_merge(h) from (values ($1), (''{"schema":1,"count":2,"sum":2,"min":0.4,"max":9,"zero":1,"zero_threshold":0.5,"offset":0,"buckets":[],"overflow":1,"overflow_threshold":8}'')) v (h)',
		'select histogram_merge(h) from (values ((select histogram_of(x) from generate_series(0, 3) x)), ($1)) v (h)'] loop
		begin
			execute statement using h;
			state := '00000';
		exception when others then
			state := sqlstate;
		end;
		states := array_append(states, state);
	end loop;
	return array_to_string(array(select distinct unnest(states) order by 1), ' ');
end
$$;

create temporary table stored as
select input, pg_temp.used(input) as states
from (
	select pg_temp.mutated(histogram_send(h)) as input from seeds, generate_series(1, 120)
	union all
	select substr(histogram_send(h), 1, n) from seeds, generate_series(0, length(histogram_send(h))) n
	union all
	select set_byte(set_byte(decode(md5(n::text) || md5((n * 7)::text), 'hex'), 0, v), 1, n % 128) from generate_series(1, 500) n, generate_series(1, 2) v
) s;

-- 22003: a count that it claims to have is too large to add to
select count(distinct input) > 1500 as many,
	count(*) filter (where states = '00000') > 100 as some_read,
	count(*) filter (where states = 'XX001') > 500 as some_refused,
	count(*) filter (where states not in ('00000', 'XX001', '00000 22003')) as unclean
from stored;
select histogram_count(input::histogram)
from (values ('\x01'::bytea)) v (input);
select histogram_merge(input::histogram)
from (values ('\x0107'::bytea || float8send(1) || float8send(1) || float8send(1) || '\x000281'::bytea)) v (input);

drop cast (bytea as histogram);
