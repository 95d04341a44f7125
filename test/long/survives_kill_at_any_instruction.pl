# As in make test, but really at every instruction, also of the long ways.

use strict;
use warnings;

use FindBin;

$ENV{MHM_STEP_EVERY_INSTRUCTION} = 1;
do "$FindBin::RealBin/../t/survives_kill_at_any_instruction.pl" or die $@ || $!;
