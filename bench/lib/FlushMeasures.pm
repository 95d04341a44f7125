# What bench/flush measures, one function per group of rows.

package FlushMeasures;

use strict;
use warnings;

use Cluster;
use Peer;
use Report;
use Rounds qw(by_round progress ratio rounds);
use Run;
use Storage;

# Every size as [full, quick]
use constant SIZES => {
	flush_rounds => [ 41, 3 ],
	checkpoint_rounds => [ 7, 1 ],
	loop_rounds => [ 61, 2 ],
	loop_calls => [ 10_000_000, 4_000_000 ],
};

use constant SERIES => 10_000;
use constant BUCKETS => 30_000;

use constant TENANT => q{'11111111-1111-4111-8111-000000000001'};

sub size { return Run::size(SIZES, @_) }

# Change all series and flush them, in a minute that the worker has begun; what
# happened at the end of a minute does not count
sub flush
{
	my ($session) = @_;
	my $worker = $session->sql('select worker_pid from meshhook_metrics.status()');
	for (1 .. 10)
	{
		1 until $session->sql('select bench.is_calm()') eq 't';
		$session->sql('select bench.touch()');
		my %flush;
		my $used = processor_milliseconds($worker);
		@flush{qw(clock worker wal_bytes series buckets finished)} = Storage::row($session, 'select * from bench.flush()');
		$flush{cpu} = processor_milliseconds($worker) - $used;
		next if $session->sql('select bench.is_calm()') ne 't';
		die "A flush brought $flush{series} series and $flush{buckets} buckets.\n"
		  if $flush{series} != SERIES || $flush{buckets} != BUCKETS;
		return \%flush;
	}
	die "No flush was undisturbed by the end of a minute.\n";
}

# Time that a process has had a processor
sub processor_milliseconds
{
	my ($process) = @_;
	my ($nanoseconds) = Cluster::read_file("/proc/$process/schedstat") =~ /^(\d+)/
	  or die "Process $process has no schedstat.\n";
	return $nanoseconds / 1e6;
}

# The flush in which all series are new
sub first_flush
{
	my ($report, $session) = @_;
	my $flush = flush($session);
	$report->add('10,000 series of 100 tenants, all new', 'flush()', 'ms', [ $flush->{clock} ]);
	$report->add('10,000 series of 100 tenants, all new', 'WAL per series', 'bytes', [ $flush->{wal_bytes} / SERIES ]);
}

# Flushes beside COPY of the rows that a flush writes, and their WAL
sub flushes
{
	my ($report, $cluster, $session) = @_;
	my $measure = sub {
		my ($way) = @_;
		return flush($session) if $way eq 'flush';
		my %copy;
		@copy{qw(clock cpu)} = Storage::row($session, "call bench.copy('$cluster->{folder}', '$way', null, null)");
		return \%copy;
	};
	my @ways = qw(flush binary text);

	progress("flushes: @{[size('flush_rounds')]} rounds of a flush of 10,000 changed series and of COPY");
	$measure->('flush');
	$session->sql("call bench.write_files('$cluster->{folder}')");
	$measure->($_) for @ways;
	my %rounds = rounds(size('flush_rounds'), \@ways, $measure);
	my $each = sub {
		my ($way, $what) = @_;
		return by_round(sub { $_[0]{$what} }, $rounds{$way});
	};
	my $times_of_copy = sub {
		my ($way, $what) = @_;
		return ratio($each->($way, $what), $each->('flush', $what));
	};

	my $group = '10,000 changed series of 100 tenants';
	$report->add($group, 'flush()', 'ms', $each->('flush', 'clock'), at_most => 150);
	$report->add($group, '... by the clock of the worker, last_flush_ms', 'ms', $each->('flush', 'worker'), at_most => 150);
	$report->add($group, '... by processor time of the worker', 'ms', $each->('flush', 'cpu'));
	for my $format (qw(text binary))
	{
		$report->add($group, "speed, in times of COPY of the same rows, $format", 'x', $times_of_copy->($format, 'clock'),
			at_least => 0.5);
		$report->add($group, '... by processor time', 'x', $times_of_copy->($format, 'cpu'));
		$report->add($group, "COPY of the same rows, $format", 'ms', $each->($format, 'clock'));
	}

	my @after_checkpoint = map { $session->sql('checkpoint'); flush($session) } 1 .. size('checkpoint_rounds');
	$group = 'WAL per changed series and flush';
	my $per_series = sub {
		my ($flushes) = @_;
		return [ map { $_->{wal_bytes} / SERIES } @$flushes ];
	};
	$report->add($group, 'flush', 'bytes', $per_series->($rounds{flush}), at_most => 150);
	$report->add($group, 'the first flush after a checkpoint, with images of full pages', 'bytes',
		$per_series->(\@after_checkpoint));

	$group = 'tables, indexes included';
	my ($live, $table) = Storage::row($session, 'select * from bench.bytes()');
	$report->add($group, 'live, per changed series and flush', 'bytes', [$live]);
	$report->add($group, 'series, per series', 'bytes', [$table]);
}

# Recording in a backend that has one core for itself, while on another one 10,000
# series change in every round, and are flushed in every other
sub slow_down
{
	my ($report, $cluster, $session) = @_;
	my ($own_core, $other_core) = cores();
	my $group = 'slow-down of recording on one core by flushes on the other';
	if (!defined $other_core)
	{
		progress('slow-down: not measured, there is one core only');
		return;
	}

	my $calls = size('loop_calls');
	my $loop = "from (select generate_series(1, $calls) as i) loop";
	my $labels = q{'{"queue": "queue_0", "status": "failed"}'};
	my %loops = (
		inc => "select count(meshhook_metrics.inc('bench_deliveries_total', 1, $labels, @{[TENANT]})) $loop",
		observe =>
		  "select count(meshhook_metrics.observe('bench_duration_seconds', 0.0001::float8 * (i % 1000), "
		  . q{'{"queue": "queue_18", "status": "failed"}'}
		  . ", @{[TENANT]})) $loop",
	);
	my $recorder = Peer->session($cluster);
	pin($other_core, $$, $session->{pid}, $recorder->{pid}, $cluster->postmaster, $cluster->server_processes);
	pin($own_core, $recorder->sql('select pg_backend_pid()'));

	my $measure = sub {
		my ($loop, $flushing) = split / /, shift;
		my %round;
		1 until $session->sql('select bench.is_calm()') eq 't';
		$recorder->send_sql("select * from bench.time(\$\$$loops{$loop}\$\$)");
		$session->send_sql('select bench.touch()');
		$session->answer;
		if ($flushing)
		{
			@round{qw(flush_milliseconds flush_worker flush_wal series buckets flush_finished)} =
			  Storage::row($session, 'select * from bench.flush()');
		}
		@round{qw(seconds cpu_seconds finished)} = split /\|/, $recorder->answer;
		if ($flushing)
		{
			die "A flush brought $round{series} series.\n" if $round{series} < SERIES;
			$round{outlasted} = 1 if $round{flush_finished} > $round{finished};
		}
		return \%round;
	};
	progress("slow-down: @{[size('loop_rounds')]} rounds of $calls calls with and without a flush");
	my @order = map { ("$_ 0", "$_ 1") } sort keys %loops;
	$measure->($_) for @order;
	my %rounds = rounds(size('loop_rounds'), \@order, $measure);
	$recorder->close;

	my $slow_down = sub {
		my ($loop, $clock) = @_;
		return by_round(sub { ($_[0]{$clock} / $_[1]{$clock} - 1) * 100 }, @rounds{ "$loop 1", "$loop 0" });
	};
	for my $loop (sort keys %loops)
	{
		$report->add($group, $loop, '%', $slow_down->($loop, 'seconds'), at_most => 3);
		$report->add($group, '... by processor time', '%', $slow_down->($loop, 'cpu_seconds'));
		$report->add($group, '... of the rounds without a flush among each other', '%', spread($rounds{"$loop 0"}));
	}
	my @flushed = map { @{ $rounds{"$_ 1"} } } keys %loops;
	$report->add($group, 'seconds of a round, of which one flush', 's', [ map { $_->{seconds} } @flushed ]);
	$report->add($group, 'a flush, on the core of the other session', 'ms',
		[ map { $_->{flush_milliseconds} } @flushed ]);
	$report->add($group, 'flushes that outlasted their round', 'flushes', [ scalar grep { $_->{outlasted} } @flushed ]);
}

# What a round differs by from the one before it, without any reason
sub spread
{
	my ($rounds) = @_;
	return [ map { abs($rounds->[$_]{seconds} / $rounds->[ $_ - 1 ]{seconds} - 1) * 100 } 1 .. $#$rounds ];
}

# The first two cores that this process may run on
sub cores
{
	my ($list) = Cluster::read_file('/proc/self/status') =~ /^Cpus_allowed_list:\s*(\S+)/m;
	return map { /^(\d+)-(\d+)$/ ? $1 .. $2 : $_ } split /,/, $list;
}

sub pin
{
	my ($core, @processes) = @_;
	for my $process (@processes)
	{
		system("taskset -cp $core $process >/dev/null") == 0 or die "taskset cannot pin process $process to core $core.\n";
	}
}

1;
