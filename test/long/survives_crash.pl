# Many rounds of SIGKILL under load; MHM_CRASH_ROUNDS says how many (100).

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t/lib";
use CrashRounds;
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 20);

for my $round (1 .. $ENV{MHM_CRASH_ROUNDS} || 100)
{
	crash_round($node, 'backend', "one backend killed, round $round");
	crash_round($node, 'several', "three backends killed at once, round $round");
	crash_round($node, 'postmaster', "the postmaster killed, round $round");
}

$node->stop;
done_testing();
