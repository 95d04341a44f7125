# As in make test, but at nearly every instruction also of the long ways, on
# which a series is made or removed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t/lib";
use MetricsCluster;

$ENV{MHM_KILLS} ||= 3000;
do "$FindBin::RealBin/../t/survives_kill_at_any_instruction.pl" or die $@ || $!;
