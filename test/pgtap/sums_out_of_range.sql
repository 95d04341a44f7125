-- Sums beyond a double are the largest one, and concern their metric only
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
select no_plan();

\set a '11111111-1111-1111-1111-111111111111'
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'a', timestamptz '2026-11-24 10:00:00+00' + i * interval '5 s', 5, array[1, 2, 3], array[1, 1, 1], array[1.7e308, -1.7e308, 3]
from generate_series(1, 3) i;
select is(meshhook_metrics.close_minutes('2026-11-24 10:01:00+00'), 3::bigint, 'a minute is closed in which sums are beyond a double');
select set_eq('select series_id, count, sum from meshhook_metrics.rollup_1m', $$ values
	(1::bigint, 3::bigint, 1.7976931348623157e308::float8), (2, 3, -1.7976931348623157e308), (3, 3, 9) $$,
	'they are the largest number of their sign, others what they are');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
values (:'a', '2026-11-24 10:00:59+00', 5, array[1, 2, 3], array[1, 1, 1], array[1.7e308, 1, 3]),
	(:'a', '2026-11-24 10:01:59+00', 5, array[1, 2, 3], array[1, 1, 1], array[1.7e308, 1, 3]);
select is(meshhook_metrics.close_minutes('2026-11-24 10:05:00+00'), 6::bigint, 'a minute can get a second helping of them');
select ok(meshhook_metrics.rollup() > 0, 'they are rolled up');
select set_eq('select series_id, count, sum from meshhook_metrics.rollup_5m', $$ values
	(1::bigint, 5::bigint, 1.7976931348623157e308::float8), (2, 5, -1.7976931348623157e308), (3, 5, 15) $$,
	'as the largest number');
select is(meshhook_metrics.sum_within_range(v), e, 'sum_within_range() of ' || n)
from (values
	('nothing', array[]::float8[], null::float8),
	('nulls', array[null, null]::float8[], null),
	('numbers', array[1, null, 2.5]::float8[], 3.5),
	('what comes back into range', array[1.7e308, 1.7e308, -1.7e308]::float8[], 1.7976931348623157e308::float8 - 1.7e308::float8)) t (n, v_, e)
cross join lateral (select unnest(t.v_)) u (v)
group by n, e;

select * from finish();
rollback;
