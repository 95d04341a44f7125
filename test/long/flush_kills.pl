# Many rounds of kills around flushing, at places that chance picks;
# MHM_CRASH_ROUNDS says how many (100). MHM_SEED repeats the choices of a run.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t/lib";
use FlushRounds;
use MetricsCluster;
use Test::More;

my $seed = srand($ENV{MHM_SEED} || time);
note("MHM_SEED=$seed");

my $node = new_flush_cluster('main', max_series => 200, max_histograms => 50);
my $steps = steps_here($node);

sub below
{
	my ($limit) = @_;

	return int rand $limit;
}

# Where a worker is, that is about to be killed: anywhere in a tick and the next
# one, or where the care is needed that the tests are about
my @places = (
	sub { 'before_commit instructions 0 0' },
	sub { 'after_commit instructions 0 0' });
push @places,
  sub { 'commit instructions ' . below(400_000) . ' 0' },
  sub { 'commit instructions ' . below(20_000) . ' 0' },
  sub { 'commit taken ' . (1 + below(6)) . ' ' . below(3000) },
  sub { 'commit stripes ' . (1 + below(2)) . ' ' . below(200) },
  sub { 'commit pending 1 ' . below(100_000) },
  sub { 'before_commit instructions ' . below(30_000) . ' 0' },
  sub { 'after_commit instructions ' . below(10_000) . ' 0' },
  sub { 'after_commit applied ' . (1 + below(10)) . ' ' . below(300) },
  sub { 'after_commit settled 1 ' . below(3000) }
  if $steps;

# Where the worker after it is killed, which may have a journal to apply
my @next_places = (sub { 'settle instructions 0 0' });
push @next_places,
  sub { 'settle instructions ' . below(5000) . ' 0' },
  sub { 'settle applied ' . (1 + below(6)) . ' ' . below(200) }
  if $steps;

sub any_of
{
	return $_[ below(scalar @_) ]->();
}

# So many series that changes have other numbers in the next region
sub resize
{
	configure($node, max_series => 150 + below(500));
	return;
}

my @rounds = (
	sub {
		my ($round) = @_;
		my $place = any_of(@places);

		flush_round($node, "round $round, the worker killed at $place", quiet => below(2), faults => ["$place kill"]);
	},
	sub {
		my ($round) = @_;
		my $place = any_of(@next_places);

		flush_round(
			$node,
			"round $round, the worker killed after its commit, and the next one at $place",
			quiet => below(2),
			faults => [ 'after_commit instructions 0 0 kill', "$place kill" ]);
	},
	sub {
		my ($round) = @_;
		my $place = any_of(@places);

		flush_round($node, "round $round, the server killed at $place", server => 'ends', faults => ["$place kill_server"]);
	},
	sub {
		my ($round) = @_;

		flush_round(
			$node,
			"round $round, a postmaster that was killed, and another max_series",
			server => 'ends',
			happen => sub { kill_server($node); resize() });
	},
	sub {
		my ($round) = @_;
		my $place = below(2) ? 'after_commit' : 'before_commit';

		flush_round(
			$node,
			"round $round, an immediate shutdown $place, and another max_series",
			server => 'ends',
			faults => ["$place instructions 0 0 stop"],
			happen => sub {
				my ($worker) = @_;

				quit_server_around($node, $worker);
				resize();
			});
	},
	sub {
		my ($round) = @_;

		flush_round(
			$node,
			"round $round, the worker killed by chance",
			happen => sub { kill 'KILL', $_[0] });
	},
	sub {
		my ($round) = @_;

		flush_round(
			$node,
			"round $round, the worker ended",
			server => 'stays',
			happen => sub { $node->safe_psql('postgres', "select pg_terminate_backend($_[0])"); await_death($_[0]) });
	});

for my $round (1 .. $ENV{MHM_CRASH_ROUNDS} || 100)
{
	$rounds[ $round % @rounds ]->($round);
}

consistent_ok($node, 'nothing contradicts itself');
$node->stop;
done_testing();
