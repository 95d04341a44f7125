# Many rounds of kills around the evaluation of alert rules, at places that chance picks;
# MHM_CRASH_ROUNDS says how many (100). MHM_SEED repeats the choices of a run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t/lib";
use AlertRounds;
use FlushRounds;
use MetricsCluster;
use Test::More;

my $seed = srand($ENV{MHM_SEED} || time);
note("MHM_SEED=$seed");

my $node = new_alert_cluster('main', probe => 1);
my $steps = steps_here($node);
my @names = qw(a b c d);

sub below
{
	my ($limit) = @_;

	return int rand $limit;
}

# Some that fire at once, some that are pending for a moment, and some that go on for one
level_rule($node, 'a');
level_rule($node, 'b', for_duration => '1 second');
level_rule($node, 'c', keep_firing_for => '1 second');
level_rule($node, 'd', for_duration => '1 second', keep_firing_for => '1 second');
my %level = map { $_ => 1 } @names;
my %changes = map { $_ => 0 } @names;
set_level($node, %level);
await_evaluation($node);

# Where the worker is killed: right before and after its commit of a change, or so many
# instructions from there
my @places = (sub { 'before_alerts instructions 0 0' }, sub { 'after_alerts instructions 0 0' });
push @places,
  sub { 'before_alerts instructions ' . below(60_000) . ' 0' },
  sub { 'after_alerts instructions ' . below(20_000) . ' 0' }
  if $steps;

my @ends = (
	sub { my ($place) = @_; plan_faults($node, "$place kill"); return "the worker killed at $place" },
	sub {
		my $place = 'before_alerts instructions 0 0';

		plan_faults($node, "$place kill", "$place kill");
		return "the worker killed at $place, twice";
	},
	sub { my ($place) = @_; plan_faults($node, "$place kill_server"); return "the server killed at $place" },
	sub { return 'the worker killed by chance' },
	sub { return 'a session killed that evaluates' },
	sub { return 'the postmaster killed' },
	sub { return 'an immediate shutdown' },
	sub { return 'a restart' });

# After an end that is not the probe's
my %happen = (
	'the worker killed by chance' => sub { kill 'KILL', worker_pid($node) },
	'a session killed that evaluates' => sub {
		my $session = session($node);
		my $pid = $session->query_safe('select pg_backend_pid()');

		$session->query_safe('begin; set local role keeper; select meshhook_metrics.evaluate_alerts()');
		flush($node);
		$session->query_safe('select meshhook_metrics.evaluate_alerts(clock_timestamp())');
		kill 'KILL', $pid;
		eval { $session->quit };
	},
	'the postmaster killed' => sub { kill_server($node); $node->start },
	'an immediate shutdown' => sub { $node->stop('immediate'); $node->start },
	'a restart' => sub { $node->restart });

for my $round (1 .. $ENV{MHM_CRASH_ROUNDS} || 100)
{
	my $place = $places[ below(scalar @places) ]->();
	my $what = $ends[ $round % @ends ]->($place);
	my $name = "round $round, $what";
	my $mark = log_mark($node);
	my @changed = grep { below(2) } @names;

	@changed = ($names[ below(scalar @names) ]) if !@changed;
	$level{$_} = $level{$_} > 10 ? 1 : 50 for @changed;
	$changes{$_}++ for @changed;
	set_level($node, %level);
	$happen{$what}->() if $happen{$what};
	if ($what =~ /^the server killed at/)
	{
		await_end_of_server($node);
		$node->start;
	}
	elsif ($what =~ /killed/ && $what !~ /postmaster/)
	{
		await_recovery($node, $mark, $what =~ /twice/ ? 2 : 1);
	}
	await_alerts($node, join ', ', map { "$_ firing" } grep { $level{$_} > 10 } @names);
	for my $alert (@names)
	{
		my @way = map { $_ % 2 ? 'firing' : 'resolved' } 1 .. $changes{$alert};
		my $seen = events_of($node, $alert) =~ s/pending //gr;

		is($seen, "@way", "$name: the events of $alert") or die "$name: what comes of it is of no interest";
	}
	transitions_ok($node, $name);
}

$node->stop;
done_testing();
