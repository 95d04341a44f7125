# Rounds of load, kills of whoever takes part in flushing, and a comparison of
# what is stored with what was recorded, for flushes_exactly_once.pl here and
# the long loops in test/long.
#
# Each client records into series of its own, sample after sample, the whole
# numbers from 1 on. So a row of storage says by itself whether its count, sum,
# min, max, last and histogram are of the same samples, and rows that follow
# each other whether a sample is in two of them or in none. All clients share
# a histogram of powers of two, each of which has a bucket of its own.

package FlushRounds;

use strict;
use warnings;

use Cwd ();
use Exporter 'import';
use IPC::Run ();
use MetricsCluster;
use POSIX qw(SIGQUIT);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  new_flush_cluster plan_faults faults_left steps_here
  start_recording end_recording await_samples $recording_sessions $end_sessions
  process_state has_signal await_death await_stopped await_recovery stop_worker quit_server_around
  await_end_of_server
  recorded_ok stored_ok flush_round
);

# Clients of the load, and samples of one metric in one of their transactions
my $CLIENTS = 3;
my $SAMPLES = 50;

my $started = 0;

# A running cluster with storage, and with the probe that kills its worker
sub new_flush_cluster
{
	my ($name, %settings) = @_;
	my $node = new_plain_cluster($name);

	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics, mhm_probe'");
	configure($node, flush_interval => "'1s'", %settings);
	$node->start;
	remember_region($node);
	install_storage($node);
	$node->safe_psql('postgres', 'create extension mhm_probe');
	return $node;
}

sub faults_file
{
	my ($node) = @_;

	return $node->data_dir . '/mhm_probe.faults';
}

# What is to happen to the worker, and to those after it; see workerfaults.c
sub plan_faults
{
	my ($node, @faults) = @_;
	my $file = faults_file($node);

	PostgreSQL::Test::Utils::append_to_file("$file.planned", join('', map { "$_\n" } @faults));
	rename "$file.planned", $file or die "could not rename \"$file.planned\": $!";
	return;
}

sub faults_left
{
	my ($node) = @_;

	return -e faults_file($node);
}

# Can the probe step this machine's processor?
sub steps_here
{
	my ($node) = @_;
	my ($code, undef, $error) = $node->psql('postgres',
		q{select mhm_probe.die_at('meshhook_metrics.reset(text, uuid)', '{nothing,null}', 0)});

	return $code == 0 || $error !~ /x86-64 processors only/;
}

sub process_state
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return '';
	my $line = <$file> // '';
	close $file;
	return $line =~ /^\d+ \(.*\) (\S)/ ? $1 : '';
}

sub await_death
{
	my ($pid) = @_;

	await(sub { process_state($pid) =~ /^[ZX]?$/ }, "the end of process $pid");
	return;
}

# Stop the worker at the end of a transaction, where it holds nothing that those who
# record wait for. It may have locks on tables, of whichever transaction that is: who
# wants one of these meanwhile waits for ever.
sub stop_worker
{
	my ($node, $worker) = @_;

	plan_faults($node, 'commit instructions 0 0 stop');
	await_stopped($worker);
	return;
}

sub await_stopped
{
	my ($pid) = @_;

	await(sub { process_state($pid) eq 'T' }, "the stop of process $pid");
	return;
}

# Is a signal waiting for a process that is stopped?
sub has_signal
{
	my ($pid, $signal) = @_;

	return slurp_file("/proc/$pid/status") =~ /^ShdPnd:\s*([0-9a-f]+)/m && hex($1) & 1 << ($signal - 1);
}

# An immediate shutdown while the worker is stopped, which it does not survive
# to do another step: it is let go on when it has the signal to quit
sub quit_server_around
{
	my ($node, $stopped) = @_;
	my $stopping;

	await_stopped($stopped);
	$stopping = IPC::Run::start([ 'pg_ctl', '-D', $node->data_dir, '-m', 'immediate', 'stop' ],
		'>', '/dev/null', '2>', '/dev/null');
	await(sub { has_signal($stopped, SIGQUIT) }, "the signal to quit for process $stopped");
	kill 'CONT', $stopped;
	IPC::Run::finish($stopping) or die 'the server does not stop';

	# It is noted that there is no server any more
	$node->stop('immediate', fail_ok => 1);
	return;
}

# Wait until the server has come back after so many crashes since a mark
sub await_recovery
{
	my ($node, $mark, $crashes) = @_;

	await(
		sub {
			my ($lived, @died) = split /was terminated by signal 9/, log_since($node, $mark);

			return @died >= $crashes && $died[-1] =~ /database system is ready to accept connections/;
		},
		"the server to come back after $crashes crashes");
	return;
}

# Clients that record until they are ended or lose their server. Each round has
# series of its own, by the label "round".
sub start_recording
{
	my ($node, $round) = @_;
	my $prefix = $node->basedir . '/recording.' . ++$started;
	my $output = '';

	PostgreSQL::Test::Utils::append_to_file("$prefix.sql", <<"SQL");
\\set first :done + 1
\\set done :done + $SAMPLES
select
	meshhook_metrics.inc('calls_total', 1, own),
	meshhook_metrics.gauge_set('progress', n, own),
	meshhook_metrics.observe('sizes', n, own),
	meshhook_metrics.inc('shared_total', 1, shared),
	meshhook_metrics.observe('shared_sizes', 2 ^ (n % 12), shared)
from
	generate_series(:first, :done) n,
	jsonb_build_object('round', '$round', 'client', ':client_id') own,
	jsonb_build_object('round', '$round') shared;
SQL
	return {
		prefix => $prefix,
		round => $round,
		output => \$output,
		run => IPC::Run::start(
			[
				'pgbench', '-n', '-c', $CLIENTS, '-j', 1, '-T', 600, '-D', 'done=0',
				'-l', "--log-prefix=$prefix.log", '-f', "$prefix.sql",
				$node->connstr('postgres') . ' application_name=recording'
			],
			'>', '/dev/null', '2>', \$output)
	};
}

# Wait until every client has recorded, and have some of that flushed
sub await_samples
{
	my ($node, $load) = @_;

	$node->poll_query_until('postgres', <<"SQL") or die "the load does not begin: ${$load->{output}}";
select count(*) = 3 * $CLIENTS and min(count) > 100
from meshhook_metrics.snapshot()
where labels \@> '{"round": "$load->{round}"}' and labels ? 'client'
SQL
	flush($node);
	return;
}

our $recording_sessions = <<'SQL';
select pid
from pg_stat_activity
where application_name = 'recording'
SQL

# Have the clients lose their sessions, so that pgbench ends by itself
our $end_sessions = <<'SQL';
select pg_terminate_backend(pid)
from pg_stat_activity
where application_name = 'recording'
SQL

# Wait until all clients have ended: how many transactions of each came back
sub end_recording
{
	my ($load) = @_;
	my %came_back = map { $_ => 0 } 0 .. $CLIENTS - 1;

	IPC::Run::finish($load->{run});
	for my $log (glob "$load->{prefix}.log.*")
	{
		for my $line (split /\n/, slurp_file($log))
		{
			my ($client, undef, $time) = split / /, $line;

			$came_back{$client}++ if $time =~ /^[0-9]+$/;
		}
	}
	return \%came_back;
}

# What is in the region of a round is what came back, and at most the one
# transaction more that each client had under way
sub recorded_ok
{
	my ($node, $round, $came_back, $name) = @_;
	my (@wrong, %own, %shared);

	for my $line (split /\n/, $node->safe_psql('postgres', <<"SQL"))
select metric, coalesce(labels ->> 'client', ''), count
from meshhook_metrics.snapshot()
where labels \@> '{"round": "$round"}'
SQL
	{
		my ($metric, $client, $count) = split /\|/, $line;

		if ($client eq '')
		{
			$shared{$metric} = $count;
			next;
		}
		my $least = $came_back->{$client} * $SAMPLES;
		my $most = $least + $SAMPLES;
		push @wrong, "$metric of client $client: $count samples, where $least to $most were recorded"
		  if $count < $least || $count > $most;
		$own{$metric} += $count;
	}
	push @wrong, "shared_total: $shared{shared_total}, where the clients have $own{sizes}"
	  if $shared{shared_total} > $own{sizes} || $shared{shared_total} < $own{sizes} - $CLIENTS;
	is(join('; ', @wrong), '', "$name: what came back is recorded");
	return;
}

# What is stored of a round, after a flush, is what the region has of it: count,
# sum, extremes and buckets of every series. And each flush's row, as long as
# it is kept, is right by itself and follows its predecessor.
sub stored_ok
{
	my ($node, $round, $name) = @_;
	my $of_round = qq(labels \@> '{"round": "$round"}');
	my $problems = $node->safe_psql('postgres', <<"SQL");
set jit = off;

create temporary table ours as
select
	s.id,
	s.metric,
	s.labels
from meshhook_metrics.series s
where s.$of_round;

create temporary table flushed as
select
	ours.id,
	ours.metric,
	ours.labels ? 'client' as own,
	l.id as live_id,
	f.count,
	f.sum,
	f.min,
	f.max,
	f.last,
	f.histogram
from meshhook_metrics.live l
	cross join unnest(l.series_id, l.count, l.sum, l.min, l.max, l.last, l.histogram)
		f (series_id, count, sum, min, max, last, histogram)
	join ours on ours.id = f.series_id;

with
	everything as (
		select
			f.id,
			f.count,
			f.sum,
			f.min,
			f.max,
			f.histogram
		from flushed f
		where f.live_id > coalesce((select r.live_id from meshhook_metrics.rollup_state r where r.target = '1m'), 0)
		union all
		select
			r.series_id,
			r.count,
			r.sum,
			r.min,
			r.max,
			r.histogram
		from meshhook_metrics.rollup_1m r
			join ours on ours.id = r.series_id
	),
	stored as (
		select
			o.metric,
			o.labels,
			sum(e.count) as count,
			sum(e.sum) as sum,
			min(e.min) as min,
			max(e.max) as max,
			meshhook_metrics.histogram_merge(e.histogram)::text as histogram
		from everything e
			join ours o on o.id = e.id
		group by o.metric, o.labels
	),
	recorded as (
		select
			r.metric,
			r.labels,
			r.count,
			r.sum,
			r.min,
			r.max,
			r.histogram::text
		from meshhook_metrics.snapshot() r
		where r.$of_round and r.count > 0
	),
	in_order as (
		select
			f.*,
			lag(f.max) over following as max_before,
			lead(f.live_id) over following is null as is_newest
		from flushed f
		where f.own and f.metric in ('progress', 'sizes')
		window following as (partition by f.id order by f.live_id)
	)
select format('recorded, and not stored so: %s', r)
from (table recorded except table stored) r
union all
select format('stored, and not recorded so: %s', s)
from (table stored except table recorded) s
union all
select format('not of the same samples: row %s, %s', i.live_id, i)
from in_order i
where i.count is distinct from i.max - i.min + 1
	or i.sum is distinct from (i.min + i.max) * (i.max - i.min + 1) / 2
	or (i.metric = 'progress' and i.last <> i.max and not (i.is_newest and i.last = i.max + 1))
	or (i.metric = 'sizes' and exists (
		select
		from meshhook_metrics.histogram_buckets(i.histogram) b
		where b.count <> floor(least(b.upper, i.max)) - floor(greatest(b.lower, i.min - 1))))
	or meshhook_metrics.histogram_count(i.histogram) <> i.count
union all
select format('does not follow the one before, up to %s: row %s, %s', i.max_before, i.live_id, i)
from in_order i
where i.min <> coalesce(i.max_before, 0) + 1
union all
select format('not of the same samples: row %s, %s', f.live_id, f)
from flushed f
	cross join lateral (
		select
			sum(b.count) as count,
			sum(b.upper * b.count) as sum,
			min(b.upper) as min,
			max(b.upper) as max
		from meshhook_metrics.histogram_buckets(f.histogram) b) b
where f.metric = 'shared_sizes'
	and (f.count, f.sum, f.min, f.max) is distinct from (b.count, b.sum, b.min, b.max)
union all
select 'nothing is stored'
where not exists (select from flushed)
limit 10
SQL

	is($problems, '', "$name: stored exactly once");
	return;
}

# All processes of a server, whoever is their parent by now
sub server_processes
{
	my ($node) = @_;
	my $folder = Cwd::abs_path($node->data_dir);

	return grep { (readlink("/proc/$_/cwd") // '') eq $folder && process_state($_) ne 'Z' }
	  map { m{(\d+)$} } glob '/proc/[0-9]*';
}

# After the postmaster was killed by somebody else: as kill_server does
sub await_end_of_server
{
	my ($node) = @_;

	await(sub { !server_processes($node) }, 'the end of all processes of a killed server');
	kill_server($node);
	return;
}

my $rounds = 0;

# One round: record, meanwhile let something happen, bring the server back if
# need be, flush, and compare. Options:
#   faults	of the worker, as plan_faults() takes them
#   happen	what else, once they are planned
#   quiet	nobody records any more when they happen
#   server	'ends', and has to be started again, or 'stays', without any crash
sub flush_round
{
	my ($node, $name, %options) = @_;
	my $round = ++$rounds;
	my $load = start_recording($node, $round);
	my $server = $options{server} // '';
	my $mark = log_mark($node);
	my ($worker, $came_back);

	await_samples($node, $load);
	$worker = worker_pid($node);
	if ($options{quiet})
	{
		# What has come until then is left for the flush that is meant
		stop_worker($node, $worker);
		$node->safe_psql('postgres', $end_sessions);
		$came_back = end_recording($load);
	}
	plan_faults($node, @{ $options{faults} }) if $options{faults};
	kill 'CONT', $worker if $options{quiet};
	$options{happen}->($worker) if $options{happen};
	$node->safe_psql('postgres', $end_sessions) if $server eq 'stays';
	$came_back //= end_recording($load);
	if ($server eq 'ends')
	{
		await_end_of_server($node) if defined $node->{_pid};
		$node->start;
	}
	await(sub { !faults_left($node) }, 'faults that are still planned') if $options{faults};
	if ($server eq '')
	{
		await_recovery($node, $mark, scalar(grep { / kill$/ } @{ $options{faults} }) || 1);
	}
	recorded_ok($node, $round, $came_back, $name);
	await_status($node, 'worker_pid is not null');
	flush($node);
	stored_ok($node, $round, $name);
	$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
	return;
}

1;
