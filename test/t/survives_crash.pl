# SIGKILL of backends and of the postmaster under load loses no sample whose
# call came back and counts none twice.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use CrashRounds;
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 20);
my $object = (region_objects($node))[0];

for my $round (1 .. 2)
{
	crash_round($node, 'backend', "one backend killed, round $round");
	crash_round($node, 'several', "three backends killed at once, round $round");
	is((region_objects($node))[0], $object, 'the postmaster keeps its region');
	crash_round($node, 'postmaster', "the postmaster killed, round $round");
	is((region_objects($node))[0], $object, 'the next postmaster finds the region');
}

$node->stop;
ok(!-e $object, 'nothing is left behind');
done_testing();
