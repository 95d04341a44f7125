# series.last_day says when a series was flushed last, written for some series in a flush.
# Series without data are deleted, and never one whose data is being written.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

# Which day it is matters
await_midnight();
my $node = new_metrics_cluster('forgets_dead_series', flush_interval => "'1s'");
install_storage($node);

sub sql { return $node->safe_psql('postgres', shift) }

# Storage is maintained when the test says so
sql(<<'SQL');
create or replace function meshhook_metrics.scheduled_by_pg_cron() returns boolean language sql stable return true;
update meshhook_metrics.rollup_state set complete_until = 'infinity' where target = '5m';
SQL

sub new_worker
{
	my $worker = worker_pid($node);

	sql("select pg_terminate_backend($worker)");
	await_status($node, "worker_pid <> $worker");
	return;
}

sub age_series
{
	my ($days) = @_;

	sql("update meshhook_metrics.series set last_day = (now() at time zone 'UTC')::date - $days");
	new_worker();
	return;
}
my $lagging = q{select count(*) from meshhook_metrics.series where last_day < (now() at time zone 'UTC')::date};

# New series are of today. Then each day it is written, of those that have samples.
my $many = 1500;
sql("select meshhook_metrics.inc('busy_total', labels => jsonb_build_object('n', n)) from generate_series(1, $many) n; select meshhook_metrics.inc('quiet_total')");
flush($node);
is(sql($lagging), 0, 'a new series had its first flush today');
age_series(1);
sql(<<'SQL');
vacuum full meshhook_metrics.series;
create table public.touched (rows bigint);
create function public.note() returns trigger language plpgsql as $$
begin
	insert into public.touched select count(*) from changed;
	return null;
end
$$;
create trigger note after update on meshhook_metrics.series referencing new table as changed for each statement execute function public.note();
SQL
my $size = sql(q{select sum(pg_relation_size(indexrelid)) from pg_index where indrelid = 'meshhook_metrics.series'::regclass});
await(
	sub {
		sql("select meshhook_metrics.inc('busy_total', labels => jsonb_build_object('n', n)) from generate_series(1, $many) n");
		flush($node);
		return sql($lagging) == 1;
	},
	'the days to be written');
is(sql(q{select metric from meshhook_metrics.series where last_day < (now() at time zone 'UTC')::date}), 'quiet_total', 'the day is written of all that had samples');
is(sql(q{select sum(rows) from public.touched}), $many, 'once');
cmp_ok(sql(q{select max(rows) from public.touched}), '<=', 1000, 'for a part of them in a flush');
is(sql(q{select sum(pg_relation_size(indexrelid)) from pg_index where indrelid = 'meshhook_metrics.series'::regclass}), $size, 'and no index grows by it');

# Somebody has a row locked: its turn comes later, and no flush waits
age_series(1);
my $one = session($node);
$one->query_safe(q{begin; select id from meshhook_metrics.series where metric = 'quiet_total' for update;});
sql(q{select meshhook_metrics.inc('quiet_total')});
flush($node);
sql(q{select meshhook_metrics.inc('quiet_total')});
flush($node);
is(stored_total($node, 'quiet_total'), '3|3', 'a row that is locked holds up no flush');
$one->query_safe('commit;');
await(
	sub {
		sql(q{select meshhook_metrics.inc('other_total')});
		flush($node);
		return sql(q{select last_day = (now() at time zone 'UTC')::date from meshhook_metrics.series where metric = 'quiet_total'}) eq 't';
	},
	'the day of the row that was locked');

# A histogram that began in another window than table metrics says: two series of one
# row, both of them after a rest
sql(q{select meshhook_metrics.observe('wide_bytes', 1)});
flush($node);
age_series(20);
$one->query_safe('begin; lock table meshhook_metrics.flush_state;');
sql(q{select meshhook_metrics.observe('wide_bytes', 2); insert into meshhook_metrics.metrics (name, kind, min_exponent) values ('wide_bytes', 'histogram', 3)});
new_worker();
sql(q{select meshhook_metrics.observe('wide_bytes', 4)});
is(sql(q{select count from meshhook_metrics.snapshot() where metric = 'wide_bytes'}), 1, 'a histogram goes on in another series');
$one->query_safe('commit;');
flush($node);
is(stored_total($node, 'wide_bytes'), '3|7', 'both are stored after a rest');
is(sql(q{select count(*) from meshhook_metrics.series where metric = 'wide_bytes' and last_day = (now() at time zone 'UTC')::date}), 1, 'under one row');

# A series without data, that is recorded to again while it is being deleted. Its rollups
# are gone; the worker remembers its id.
sub prepare_death
{
	my ($metric) = @_;

	sql("select meshhook_metrics.inc('$metric')");
	flush($node);
	sql('truncate meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1h, meshhook_metrics.rollup_1d');
	age_series(20);
	return sql("select id from meshhook_metrics.series where metric = '$metric'");
}
my $id = prepare_death('comes_back_total');
$one->query_safe('begin; select meshhook_metrics.prune_series();');
sql(q{select meshhook_metrics.inc('comes_back_total', 5)});
ok($node->poll_query_until('postgres', q{select exists (select from pg_stat_activity where backend_type = 'meshhook_metrics worker' and wait_event_type = 'Lock')}),
	'the flush of a series that is being deleted waits');
$one->query_safe('commit;');
await(sub { sql(q{select exists (select from meshhook_metrics.series where metric = 'comes_back_total')}) eq 't' }, 'the series to be there again');
isnt(sql(q{select id from meshhook_metrics.series where metric = 'comes_back_total'}), $id, 'and gives it a new id');
is(stored_total($node, 'comes_back_total'), '1|5', 'under which its data is stored, once');
is(sql(q{select count(*) from meshhook_metrics.live l where exists (select from unnest(l.series_id) i where not exists (select from meshhook_metrics.series s where s.id = i))}),
	0, 'none is stored of a series that is not there');
await_status($node, 'last_error is null');

# The other way round: what a flush has begun to write, is left alone
$id = prepare_death('keeps_going_total');
sql(<<'SQL');
create table public.gate (closed boolean);
insert into public.gate values (true);
create function public.wait_at_gate() returns trigger language plpgsql as $$
begin
	while (select g.closed from public.gate g) loop
		perform pg_sleep(0.02);
	end loop;
	return null;
end
$$;
create trigger wait_at_gate after insert on meshhook_metrics.live for each statement execute function public.wait_at_gate();
select meshhook_metrics.inc('keeps_going_total', 7);
SQL
ok($node->poll_query_until('postgres', q{select exists (select from pg_stat_activity where backend_type = 'meshhook_metrics worker' and wait_event = 'PgSleep')}), 'a flush has not committed');
$one->query_until(qr/asked/, "\\echo asked\nselect meshhook_metrics.prune_series();\n");
ok($node->poll_query_until('postgres', q{select exists (select from pg_stat_activity where query ~ 'prune_series' and backend_type = 'client backend' and wait_event_type = 'Lock')}),
	'what deletes series waits for it');
sql('update public.gate set closed = false');
flush($node);
await(sub { sql(q{select exists (select from meshhook_metrics.series where metric = 'comes_back_total')}) eq 'f' }, 'series to be deleted');
$one->quit;
is(sql(q{select id from meshhook_metrics.series where metric = 'keeps_going_total'}), $id, 'a series of which data is being written is not deleted');
is(stored_total($node, 'keeps_going_total'), '1|7', 'nor is its data lost');
is(sql(q{select count(*) from meshhook_metrics.series where metric <> 'keeps_going_total'}), 0, 'but all others are');

$node->stop;
done_testing();
