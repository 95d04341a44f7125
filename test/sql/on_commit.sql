-- With on_commit = on what a transaction records counts when it commits
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

\pset format unaligned
\pset tuples_only on
create function pg_temp.counted(name text) returns table (labels jsonb, value float8, count bigint)
language sql as $$
	select s.labels, s.value, s.count
	from meshhook_metrics.snapshot() s
	where s.metric = name
	order by s.labels
$$;
set meshhook_metrics.on_commit = on;

-- A statement of its own is a transaction
select meshhook_metrics.inc('commit_total');
select * from pg_temp.counted('commit_total');

-- Nothing is seen before the commit, then all of it
begin;
select meshhook_metrics.inc('commit_total');
select meshhook_metrics.inc('commit_total', 2);
select meshhook_metrics.inc('commit_total', 4, '{"status": "ok"}');
select meshhook_metrics.inc('commit_total', 8);
select meshhook_metrics.observe('commit_seconds', 0.5);
select meshhook_metrics.observe('commit_seconds', 0.5);
select meshhook_metrics.gauge_set('commit_depth', 5);
select meshhook_metrics.gauge_add('commit_depth', 2);
select meshhook_metrics.gauge_set('commit_last', 1);
select meshhook_metrics.gauge_set('commit_last', 2);
select metric, labels, count from meshhook_metrics.snapshot() order by metric;
commit;
select metric, labels, value, count, sum, min, max from meshhook_metrics.snapshot() order by metric, labels;

-- Nothing after a rollback, asked for or not
begin;
select meshhook_metrics.inc('commit_rolled_back_total');
rollback;
begin;
select meshhook_metrics.inc('commit_rolled_back_total');
select 1 / 0;
commit;
begin;
select meshhook_metrics.inc('commit_rolled_back_total');
select meshhook_metrics.inc('commit_rolled_back_total', -1);
commit;
select meshhook_metrics.inc('commit_rolled_back_total', n / (n - 10)) from generate_series(11, 9, -1) n;
select count(*) from pg_temp.counted('commit_rolled_back_total');
select meshhook_metrics.inc('commit_rolled_back_total');
select * from pg_temp.counted('commit_rolled_back_total');

-- Savepoints: each power of two tells which samples counted
begin;
select meshhook_metrics.inc('commit_savepoint_total', 1);
savepoint a;
select meshhook_metrics.inc('commit_savepoint_total', 2);
savepoint b;
select meshhook_metrics.inc('commit_savepoint_total', 4);
rollback to savepoint b;
select meshhook_metrics.inc('commit_savepoint_total', 8);
release savepoint b;
select meshhook_metrics.inc('commit_savepoint_total', 16);
savepoint c;
savepoint d;
select meshhook_metrics.inc('commit_savepoint_total', 32);
release savepoint d;
select meshhook_metrics.inc('commit_savepoint_total', 64);
rollback to savepoint c;
select meshhook_metrics.inc('commit_savepoint_total', 128);
commit;
select value, count from pg_temp.counted('commit_savepoint_total');

-- Samples of a level that had none, released into a parent that had none
begin;
savepoint a;
savepoint b;
savepoint c;
select meshhook_metrics.inc('commit_released_total', 1);
release savepoint c;
release savepoint b;
savepoint b;
select meshhook_metrics.inc('commit_released_total', 2);
rollback to savepoint b;
release savepoint b;
select meshhook_metrics.inc('commit_released_total', 4);
release savepoint a;
select meshhook_metrics.inc('commit_released_total', 8);
savepoint a;
select meshhook_metrics.inc('commit_released_total', 16);
rollback to savepoint a;
select meshhook_metrics.inc('commit_released_total', 32);
rollback to savepoint a;
commit;
select value, count from pg_temp.counted('commit_released_total');
begin;
savepoint a;
savepoint b;
select meshhook_metrics.inc('commit_outer_total', 1);
release savepoint b;
rollback to savepoint a;
savepoint b;
select meshhook_metrics.inc('commit_outer_total', 2);
release savepoint b;
select meshhook_metrics.inc('commit_outer_total', 4);
commit;
select value, count from pg_temp.counted('commit_outer_total');

-- The order of what a gauge was given survives the rollback of a part
begin;
select meshhook_metrics.gauge_set('commit_order', 1);
savepoint a;
select meshhook_metrics.gauge_set('commit_order', 2);
rollback to savepoint a;
select meshhook_metrics.gauge_add('commit_order', 10);
savepoint a;
select meshhook_metrics.gauge_add('commit_order', 100);
release savepoint a;
commit;
select value, count from pg_temp.counted('commit_order');

-- Exception blocks
do $$
begin
	perform meshhook_metrics.inc('commit_block_total', 1);
	begin
		perform meshhook_metrics.inc('commit_block_total', 2);
		perform 1 / 0;
	exception when division_by_zero then
		perform meshhook_metrics.inc('commit_block_total', 4);
	end;
	begin
		perform meshhook_metrics.inc('commit_block_total', 8);
	exception when division_by_zero then
		perform meshhook_metrics.inc('commit_block_total', 16);
	end;
	begin
		begin
			perform meshhook_metrics.inc('commit_block_total', 32);
			perform 1 / 0;
		exception when undefined_table then
			perform meshhook_metrics.inc('commit_block_total', 64);
		end;
	exception when division_by_zero then
		perform meshhook_metrics.inc('commit_block_total', 128);
	end;
	for i in 1..100 loop
		begin
			perform meshhook_metrics.inc('commit_loop_total', 1);
			if i % 4 = 0 then
				raise exception 'every fourth';
			end if;
		exception when raise_exception then
			perform meshhook_metrics.inc('commit_loop_total', 1000);
		end;
	end loop;
end
$$;
select value, count from pg_temp.counted('commit_block_total');
select value, count from pg_temp.counted('commit_loop_total');

-- Transactions within a procedure
create procedure pg_temp.steps()
language plpgsql as $$
begin
	perform meshhook_metrics.inc('commit_steps_total', 1);
	commit;
	perform meshhook_metrics.inc('commit_steps_total', 2);
	rollback;
	perform meshhook_metrics.inc('commit_steps_total', 4);
end
$$;
call pg_temp.steps();
select value, count from pg_temp.counted('commit_steps_total');

-- Many samples, many series, many levels
begin;
select count(meshhook_metrics.inc('commit_many_total', 1, jsonb_build_object('n', n % 500))) from generate_series(1, 20000) n;
create function pg_temp.nest(depth int) returns void
language plpgsql as $$
begin
	perform meshhook_metrics.inc('commit_nested_total', depth);
	if depth > 0 then
		perform pg_temp.nest(depth - 1);
	end if;
	if depth % 2 = 1 then
		raise exception 'odd';
	end if;
exception when raise_exception then
	null;
end
$$;
select pg_temp.nest(50);
commit;
select count(*), sum(value) from pg_temp.counted('commit_many_total');
-- level 49 raises, and takes along what is below it
select value, count from pg_temp.counted('commit_nested_total');

-- SET LOCAL holds for a transaction; the setting at the time of the call decides
reset meshhook_metrics.on_commit;
begin;
select meshhook_metrics.inc('commit_local_total', 1);
set local meshhook_metrics.on_commit = on;
select meshhook_metrics.inc('commit_local_total', 2);
set local meshhook_metrics.on_commit = off;
select meshhook_metrics.inc('commit_local_total', 4);
select value, count from pg_temp.counted('commit_local_total');
rollback;
begin;
set local meshhook_metrics.on_commit = on;
select meshhook_metrics.inc('commit_local_total', 8);
commit;
begin;
select meshhook_metrics.inc('commit_local_total', 16);
rollback;
select value, count from pg_temp.counted('commit_local_total');

-- Mistakes are found at the call, not at the commit
set meshhook_metrics.on_commit = on;
begin;
select meshhook_metrics.inc('commit_total', -1);
rollback;
begin;
select meshhook_metrics.gauge_set('commit_total', 1);
rollback;
set meshhook_metrics.on_error = warning;
begin;
select meshhook_metrics.inc('commit_warned_total', 1);
select meshhook_metrics.inc('commit_warned_total', -1);
select meshhook_metrics.inc('commit_warned_total', 2);
commit;
select value, count from pg_temp.counted('commit_warned_total');
reset meshhook_metrics.on_error;

-- What reset() forgets before the commit, the commit counts anew
begin;
select meshhook_metrics.inc('commit_reset_total');
select meshhook_metrics.reset('commit_reset_total') > 0;
select meshhook_metrics.inc('commit_reset_total');
commit;
select value, count from pg_temp.counted('commit_reset_total');

-- A metric that became another kind meanwhile: the samples are discarded
select (discarded ->> 'invalid')::bigint as before from meshhook_metrics.status() \gset
begin;
select meshhook_metrics.inc('commit_changed');
select meshhook_metrics.inc('commit_changed');
select meshhook_metrics.reset('commit_changed') > 0;
set local meshhook_metrics.on_commit = off;
select meshhook_metrics.gauge_set('commit_changed', 7);
commit;
select value, count from pg_temp.counted('commit_changed');
select (discarded ->> 'invalid')::bigint - :before from meshhook_metrics.status();

-- A sum out of range is discarded at the commit, which goes on
select (discarded ->> 'out_of_range')::bigint as before from meshhook_metrics.status() \gset
begin;
select meshhook_metrics.inc('commit_range_total', 1.7e308);
select meshhook_metrics.inc('commit_range_total', 1.7e308, '{"other": 1}');
commit;
begin;
select meshhook_metrics.inc('commit_range_total', 1.7e308);
select meshhook_metrics.inc('commit_range_total', 1.7e308);
commit;
select count(*) from pg_temp.counted('commit_range_total');
select (discarded ->> 'out_of_range')::bigint - :before from meshhook_metrics.status();

-- A deferred trigger runs within the commit
create temp table work (n int);
create function pg_temp.note() returns trigger
language plpgsql as $$
begin
	perform meshhook_metrics.inc('commit_trigger_total', new.n);
	return null;
end
$$;
create constraint trigger note after insert on work deferrable initially deferred for each row execute function pg_temp.note();
begin;
insert into work values (1), (2);
select count(*) from pg_temp.counted('commit_trigger_total');
commit;
select value, count from pg_temp.counted('commit_trigger_total');
begin;
insert into work values (4);
rollback;
select value, count from pg_temp.counted('commit_trigger_total');
