# Rolling up and maintaining happen in a process of their own: however long they take, the
# worker flushes and evaluates alert rules meanwhile. The process ends with the worker and
# with its database, there is never a second one, and it has no rights but those of the
# owner of the tables. Without a free process the worker does it itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.database = 'app'
meshhook_metrics.flush_interval = '1s'
meshhook_metrics.alert_interval = '1s'
CONF
$node->start;
remember_region($node);
supabase_roles($node);
$node->safe_psql('postgres', 'create database app owner owner_role');
install_storage($node, database => 'app', role => 'owner_role');

my @owner = (extra_params => [ '-U', 'owner_role' ]);

sub owner { return $node->safe_psql('app', shift, @owner) }

# The process that keeps the storage: its number, or nothing
sub upkeep_pid
{
	my ($and) = @_;

	return $node->safe_psql('postgres', q{select pid from pg_stat_activity where backend_type = 'meshhook_metrics upkeep'} . ($and // ''));
}

sub await_upkeep
{
	my ($other_than, $what) = @_;
	my $pid = '';

	await(
		sub {
			$pid = upkeep_pid(" and state = 'active' and query = '$what'");
			return $pid ne '' && $pid ne $other_than;
		},
		"the process to $what");
	return $pid;
}

# Ten minutes that are not rolled up yet
sub make_work
{
	owner(<<'SQL');
select meshhook_metrics.create_leaf('1m', now() - interval '30 minutes');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum)
select '11111111-1111-1111-1111-111111111111', 4711, date_trunc('minute', now()) - minutes_ago * interval '1 minute', 1, 1
from generate_series(1, 15) minutes_ago
on conflict do nothing;
update meshhook_metrics.rollup_state set complete_until = date_trunc('minute', now()) where target = '1m';
delete from meshhook_metrics.rollup_5m;
update meshhook_metrics.rollup_state set complete_until = date_bin('5 minutes', now() - interval '10 minutes', 'epoch') where target = '5m';
SQL
	return;
}

sub rolled_up
{
	return owner(q{select exists (select from meshhook_metrics.rollup_5m where series_id = 4711 and count = 5)}) eq 't';
}

# A new worker has it done at once
sub end_worker
{
	my $worker = worker_pid($node);

	$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
	await_status($node, "worker_pid <> $worker", 'app');
	return;
}

# What the owner hangs on a table that is rolled up into holds it up until the gate is open
owner(<<'SQL');
create schema site;
create table site.gate (closed boolean);
insert into site.gate values (true);
create table site.seen (who name, session name, application text, query text, pid integer default pg_backend_pid());
create function site.wait_at_gate() returns trigger language plpgsql as $$
begin
	insert into site.seen values (current_user, session_user, current_setting('application_name'), current_query());
	while (select g.closed from site.gate g) loop
		perform pg_sleep(0.02);
	end loop;
	return null;
end
$$;
create trigger wait_at_gate before insert on meshhook_metrics.rollup_5m for each statement execute function site.wait_at_gate();
SQL
make_work();
end_worker();
my $upkeep = await_upkeep('', 'roll up');
my $worker = worker_pid($node);
isnt($upkeep, $worker, 'what rolls up is another process than the worker');
is($node->safe_psql('app', 'select worker_pid from meshhook_metrics.status()'), $worker, 'status() names the worker');

# While it waits, and it does until the gate is opened: flushes, and alerts
$node->safe_psql('app', q{select meshhook_metrics.gauge_set('fire_level', 5, tenant => '11111111-1111-1111-1111-111111111111')});
flush($node, 'app');
owner(<<'SQL');
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, comparison, threshold, time_window)
values ('11111111-1111-1111-1111-111111111111', 'fire', 'fire_level', 'last', '>', 1, '5 minutes')
SQL
for my $round (1 .. 3)
{
	$node->safe_psql('app', "select meshhook_metrics.inc('flushed_total')");
	flush($node, 'app');
	is(stored_total($node, 'flushed_total', 'app'), "$round|$round", 'the worker flushes meanwhile');
}
ok($node->poll_query_until('app', q{select exists (select from meshhook_metrics.alerts where state = 'firing')}), 'and an alert fires');
is(upkeep_pid(), $upkeep, 'the same process is still at it, and is the only one');
is($node->safe_psql('app', 'select last_error from meshhook_metrics.status()'), '', 'nothing is wrong');
ok(!rolled_up(), 'it has not got any further');
owner('update site.gate set closed = false');
await(\&rolled_up, 'the rollup');
await(sub { upkeep_pid() eq '' }, 'the process to end');
pass('when it can, it rolls up and ends');
is(owner("select distinct who from site.seen where pid = $upkeep"), 'owner_role', 'it did so as the owner of the tables');
is(owner("select distinct application, query from site.seen where pid = $upkeep"), 'meshhook_metrics upkeep|select meshhook_metrics.rollup()',
	'code of the owner sees which application it is, and which query');

# The process is ended: it comes again. So it does after the worker, whose end is its own.
owner('update site.gate set closed = true');
make_work();
end_worker();
$upkeep = await_upkeep('', 'roll up');
$node->safe_psql('postgres', "select pg_terminate_backend($upkeep)");
my $next = await_upkeep($upkeep, 'roll up');
pass('a process that is ended comes again');
is($node->safe_psql('app', 'select last_error from meshhook_metrics.status()'), '', 'that is no error');
end_worker();
my $third = await_upkeep($next, 'roll up');
is(upkeep_pid(), $third, 'with the worker, the process ends, and the next worker has another one');
isnt($worker, worker_pid($node), 'as it is another worker');

# Killed, it takes the server down for a moment like any other process, and nothing is lost
$node->safe_psql('app', "select meshhook_metrics.inc('flushed_total')");
kill 'KILL', $third;
await(sub { $node->psql('postgres', 'select') == 0 && upkeep_pid() ne $third }, 'the server to recover');
$upkeep = await_upkeep($third, 'roll up');
flush($node, 'app');
is(stored_total($node, 'flushed_total', 'app'), '4|4', 'a process that is killed costs no sample');
is(upkeep_pid(), $upkeep, 'and there is another one');

# It holds up neither another database nor the end of its own
$node->safe_psql('postgres', q{create database other});
$node->safe_psql('postgres', q{set statement_timeout = '20s'; drop database other});
pass('another database is dropped meanwhile');
ok($node->stop('fast', fail_ok => 1), 'the server stops meanwhile') or $node->stop('immediate');
$node->start;
$upkeep = await_upkeep('', 'roll up');
owner('update site.gate set closed = false');
await(\&rolled_up, 'the rollup');
await(sub { upkeep_pid() eq '' }, 'the process to end');

# What fails is in status(), in the log once, and tried again
owner(<<'SQL');
create function site.refuse() returns trigger language plpgsql as $$ begin raise exception 'not today'; end $$;
create trigger refuse before insert on meshhook_metrics.rollup_5m for each statement execute function site.refuse();
SQL
make_work();
my $mark = log_mark($node);
end_worker();
await_status($node, q{last_error = 'could not roll up: not today'}, 'app');
my $errors = $node->safe_psql('app', 'select flush_errors from meshhook_metrics.status()');
await_status($node, "flush_errors > $errors + 1", 'app');
$node->safe_psql('app', "select meshhook_metrics.inc('flushed_total')");
flush($node, 'app');
is(stored_total($node, 'flushed_total', 'app'), '5|5', 'the worker flushes all the same');
owner('drop trigger refuse on meshhook_metrics.rollup_5m');
await_status($node, 'last_error is null', 'app');
await(\&rolled_up, 'the rollup');
my $log = log_since($node, $mark);
is(() = $log =~ /WARNING:  meshhook_metrics could not roll up: not today/g, 1, 'however often it fails, the log says so once');
like($log, qr/meshhook_metrics can roll up again after \d+ failed attempts/, 'and says when it is over');

# An event trigger of the owner's finds a query, as in any session
$node->safe_psql('app', <<'SQL');
create table site.ddl_log (tag text not null, query text not null, pid integer default pg_backend_pid());
alter table site.ddl_log owner to owner_role;
create function site.log_ddl() returns event_trigger language plpgsql as $$ begin insert into site.ddl_log values (tg_tag, current_query()); end $$;
alter function site.log_ddl() owner to owner_role;
create event trigger log_ddl on ddl_command_end execute function site.log_ddl();
SQL
owner(<<'SQL');
do $$
declare
	leaf text;
begin
	for leaf in select l.leaf from meshhook_metrics.leaves('1m') l where l.lower_bound > now() + interval '1 day' loop
		execute format('drop table meshhook_metrics.%I', leaf);
	end loop;
end
$$;
delete from site.ddl_log;
SQL
end_worker();
ok($node->poll_query_until('app', q{select count(*) > 0 from meshhook_metrics.leaves('1m') where lower_bound > now() + interval '1 day'}),
	'partitions are made where an event trigger wants to know the query');
is(owner(q{select distinct query from site.ddl_log where tag = 'CREATE TABLE' and pid <> pg_backend_pid()}), 'select meshhook_metrics.maintain()', 'which it is told');
owner(<<'SQL');
create table site.flushed (query text not null, application text not null);
create function site.note_flush() returns trigger language plpgsql as $$ begin insert into site.flushed values (current_query(), current_setting('application_name')); return null; end $$;
create trigger note_flush after insert on meshhook_metrics.live for each statement execute function site.note_flush();
SQL
$node->safe_psql('app', "select meshhook_metrics.inc('flushed_total')");
flush($node, 'app');
is(owner('select distinct query, application from site.flushed'), 'flush|meshhook_metrics worker', 'so is a trigger in the worker');
owner('drop trigger note_flush on meshhook_metrics.live');
$node->safe_psql('app', 'drop event trigger log_ddl');

# The database of a process that waits is dropped
owner('update site.gate set closed = true');
make_work();
end_worker();
$upkeep = await_upkeep('', 'roll up');
$node->safe_psql('postgres', q{set statement_timeout = '20s'; drop database app with (force)});
pass('the database is dropped under the process');
await(sub { upkeep_pid() eq '' }, 'the process to end');
pass('which ends');
$node->stop;

# No process is free: as long as that is so, the worker does it
$node->append_conf('postgresql.conf', "max_worker_processes = 1\nmax_parallel_workers = 0\nmax_logical_replication_workers = 0\nmeshhook_metrics.database = 'postgres'");
$node->start;
remember_region($node);
install_storage($node);
$node->safe_psql('postgres', <<'SQL');
create table public.seen (type text);
create function public.see() returns trigger language plpgsql as $$
begin
	insert into public.seen select a.backend_type from pg_stat_activity a where a.pid = pg_backend_pid();
	return null;
end
$$;
create trigger see before insert on meshhook_metrics.rollup_5m for each statement execute function public.see();
select meshhook_metrics.create_leaf('1m', now() - interval '30 minutes');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum)
select '11111111-1111-1111-1111-111111111111', 4711, date_trunc('minute', now()) - minutes_ago * interval '1 minute', 1, 1
from generate_series(1, 15) minutes_ago
on conflict do nothing;
update meshhook_metrics.rollup_state set complete_until = date_trunc('minute', now()) where target = '1m';
update meshhook_metrics.rollup_state set complete_until = date_bin('5 minutes', now() - interval '10 minutes', 'epoch') where target = '5m';
SQL
$worker = worker_pid($node);
$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
ok($node->poll_query_until('postgres', q{select exists (select from meshhook_metrics.rollup_5m where count = 5)}),
	'without a free process it is rolled up as well');
is($node->safe_psql('postgres', 'select distinct type from public.seen'), 'meshhook_metrics worker', 'by the worker');
is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), '', 'which is no error');

$node->stop;
done_testing();
