# The flush worker through its life: ended or cancelled by an administrator it
# comes again and loses nothing; with the server it ends last, after a flush of
# all that was recorded until then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use FlushRounds;
use IPC::Run ();
use MetricsCluster;
use POSIX qw(SIGTERM);
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_flush_cluster('main', max_series => 200, max_histograms => 50);
my $journal = $node->data_dir . '/pg_stat/meshhook_metrics.flush';

sub new_worker
{
	my ($old) = @_;
	my $new;

	await(
		sub {
			$new = worker_pid($node);
			return $new != $old;
		},
		'another worker');
	await_status($node, "worker_pid = $new");
	return $new;
}

# Ended while others record, over and over
flush_round(
	$node,
	'the worker ended under load',
	server => 'stays',
	happen => sub {
		my ($worker) = @_;

		for my $time (1 .. 2)
		{
			$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
			my $next = new_worker($worker);
			isnt($next, $worker, "there is another worker, time $time");
			$worker = $next;
			flush($node);
		}
	});

# Ended or cancelled while its transaction waits for a lock; flush() waits
for my $signal ('terminate', 'cancel')
{
	my $before = flush($node);

	flush_round(
		$node,
		"a flush that waits for a lock, $signal",
		quiet => 1,
		server => 'stays',
		happen => sub {
			my ($worker) = @_;
			my $locking = session($node);
			my $flushing = session($node);

			$locking->query_safe('begin');
			$locking->query_safe('lock table meshhook_metrics.flush_state in access exclusive mode');
			$flushing->query_until(qr/^started$/m, "\\echo started\nselect 'stored as ' || meshhook_metrics.flush('3 minutes');\n");
			$node->poll_query_until('postgres', <<"SQL") or die 'the worker does not wait';
select wait_event_type = 'Lock'
from pg_stat_activity
where pid = $worker
SQL
			$node->safe_psql('postgres', "select pg_${signal}_backend($worker)");
			if ($signal eq 'terminate')
			{
				await_death($worker);
			}
			else
			{
				await_status($node, q{last_error like 'could not flush: canceling statement%'});
			}
			$locking->query_safe('commit');
			$locking->quit;
			$flushing->query_until(qr/^stored as \d+$/m, "\n");
			pass("flush() outlives it, $signal");
			$flushing->quit;
		});
	cmp_ok(flush($node), '>=', $before, "ticks go on, $signal");
}
await_status($node, 'last_error is null');

# A series whose flush is not noted yet is not idle, however long nobody has
# recorded to it
{
	my $worker = worker_pid($node);

	flush($node);
	stop_worker($node, $worker);
	$node->safe_psql('postgres', q{select meshhook_metrics.inc('idle_total', 5)});
	plan_faults($node, 'before_commit instructions 0 0 stop', 'after_commit instructions 0 0 stop');
	kill 'CONT', $worker;
	for my $moment ('before the commit', 'after it')
	{
		await_stopped($worker);
		is( $node->safe_psql('postgres', <<'SQL'), "1\n0", "an idle series stays while its flush is under way, $moment");
select mhm_probe.age('idle_total', '2 days');
select mhm_probe.retire_idle(now() - interval '1 day');
SQL
		kill 'CONT', $worker;
	}
	flush($node);
	# Unless the worker has done it, at the end of a minute
	is( $node->safe_psql('postgres', <<'SQL'), "t\n0", 'and goes when it is stored');
select mhm_probe.retire_idle(now() - interval '1 day') <= 1;
select count(*) from meshhook_metrics.snapshot() where metric = 'idle_total';
SQL
	$node->safe_psql('postgres', q{select meshhook_metrics.inc('idle_total', 2)});
	flush($node);
	is(stored_total($node, 'idle_total'), '2|7', 'what comes to it again is added');
}

# What the server has when it is stopped is stored: without a worker nothing
# can have been flushed after the start
sub stored_without_worker_ok
{
	my ($name, $last_metric, $look) = @_;

	ok(!-e $journal, "$name: no journal is left");
	$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
	$node->start;
	is($node->safe_psql('postgres', 'select worker_pid is null from meshhook_metrics.status()'), 't', "$name: there is no worker");
	$look->() if defined $look;
	is(stored_total($node, $last_metric), '1|4', "$name: the last sample of all is stored");
	$node->append_conf('postgresql.conf', 'max_worker_processes = 8');
	$node->restart;
	return;
}

sub round_stored_without_worker_ok
{
	my ($round, $came_back, $name, $last_metric) = @_;

	stored_without_worker_ok(
		$name,
		$last_metric,
		sub {
			recorded_ok($node, $round, $came_back, $name);
			stored_ok($node, $round, $name);
		});
	return;
}

# How often a process has waited for something; undef when it has ended
sub times_slept
{
	my ($pid) = @_;

	return process_state($pid) =~ /^[ZX]?$/ ? undef :
	  slurp_file("/proc/$pid/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : undef;
}

# A session that is in the middle of a row when it is told to end records what is
# left of that row; the worker waits for it
{
	my $load = start_recording($node, 'fast');
	my $worker = worker_pid($node);
	my $slow = session($node);
	my ($slow_pid, $stopping, $slept);

	await_samples($node, $load);
	$slow_pid = $slow->query_safe('select pg_backend_pid()');
	$slow->query_until(qr/^stopping$/m, <<'SQL');
\echo stopping
select mhm_probe.stop(), meshhook_metrics.inc('late_total', 4);
SQL
	await_stopped($slow_pid);
	$stopping = IPC::Run::start([ 'pg_ctl', '-D', $node->data_dir, '-m', 'fast', 'stop' ], '>', '/dev/null');
	await(sub { has_signal($slow_pid, SIGTERM) }, 'the signal to end');
	$slept = times_slept($worker);
	await(
		sub {
			my $now = times_slept($worker);

			return !defined $now || $now > $slept + 20;
		},
		'the worker to wait or to end');
	kill 'CONT', $slow_pid;
	IPC::Run::finish($stopping) or die 'the server does not stop';
	$node->stop('fast', fail_ok => 1);
	round_stored_without_worker_ok('fast', end_recording($load), 'a fast shutdown under load', 'late_total');
}

# The one who ends the others is the last to record, and to leave
{
	my $load = start_recording($node, 'smart');
	my $last = session($node);
	my $stopping;

	await_samples($node, $load);
	$stopping = IPC::Run::start([ 'pg_ctl', '-D', $node->data_dir, '-m', 'smart', 'stop' ], '>', '/dev/null');
	await(sub { slurp_file($node->data_dir . '/postmaster.pid') =~ /stopping/ }, 'the shutdown');
	$last->query_safe($end_sessions);
	my $came_back = end_recording($load);
	$last->query_safe(q{select meshhook_metrics.inc('last_total', 4)});
	$last->quit;
	IPC::Run::finish($stopping) or die 'the server does not stop';
	$node->stop('smart', fail_ok => 1);
	round_stored_without_worker_ok('smart', $came_back, 'a smart shutdown under load', 'last_total');
}

# The postmaster signals each process twice, by itself and with its group, and the
# second can come late: the last flush is not cancelled by it
{
	my $name = 'a last flush that is told to end';
	my $worker = worker_pid($node);
	my ($mark, $stopping);

	$node->safe_psql('postgres', <<'SQL');
create function take_long()
returns trigger
language plpgsql
as $$
begin
	raise log 'the flush takes long';
	while (pg_catalog.pg_stat_file('told_to_end', true)).size is null loop
		perform pg_catalog.pg_sleep(0.01);
	end loop;
	return null;
end
$$;
create trigger take_long
after insert on meshhook_metrics.live
for each statement
execute function take_long();
SQL
	stop_worker($node, $worker);
	$node->safe_psql('postgres', q{select meshhook_metrics.inc('last_flush_total', 4)});
	$mark = log_mark($node);
	$stopping = IPC::Run::start([ 'pg_ctl', '-D', $node->data_dir, '-m', 'fast', 'stop' ], '>', '/dev/null');
	await(sub { has_signal($worker, SIGTERM) }, 'the signal to end');
	kill 'CONT', $worker;
	await(sub { log_since($node, $mark) =~ /the flush takes long/ }, 'the last flush');
	kill 'TERM', $worker;
	PostgreSQL::Test::Utils::append_to_file($node->data_dir . '/told_to_end', "twice\n");
	IPC::Run::finish($stopping) or die 'the server does not stop';
	$node->stop('fast', fail_ok => 1);
	stored_without_worker_ok($name, 'last_flush_total');
	$node->safe_psql('postgres', 'drop function take_long() cascade');
}

$node->stop;
done_testing();
