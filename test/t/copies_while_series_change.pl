# snapshot() and prometheus() copy a large registry in blocks, so that others get
# by in between. Whatever comes and goes meanwhile, no series is shown twice, and
# none that was there all the time is missing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

use constant STABLE => 9000;

my $node = new_metrics_cluster('main', max_series => 12000, max_histograms => 10, max_series_per_tenant => 12000);

# Every third slot is for what comes and goes
$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('stable_total', 1, jsonb_build_object('i', i)),
	case when i % 3 = 0 then meshhook_metrics.inc('churning_total', 1, jsonb_build_object('i', i)) end
from generate_series(1, @{[ STABLE ]}) i;
select meshhook_metrics.reset('churning_total');
SQL

my $script = $node->basedir . '/churn.sql';
append_to_file($script, <<'SQL');
\set first random(1, 1000)
select count(meshhook_metrics.inc('churning_total', 1, jsonb_build_object('i', i))) from generate_series(:first, :first + 20) i;
select meshhook_metrics.reset('churning_total');
select meshhook_metrics.inc('metric_' || :first, 1), meshhook_metrics.reset('metric_' || :first);
SQL
my $churning = IPC::Run::start([ 'pgbench', '-n', '-h', $node->host, '-p', $node->port, '-c', 2, '-t', 300, '-f', $script, 'postgres' ],
	'>', \my $output, '2>&1');
my ($copies, $twice, $missing) = (0, 0, 0);
do
{
	my ($stable, $rows, $distinct) = split /\|/, $node->safe_psql('postgres', <<'SQL');
select count(*) filter (where metric = 'stable_total'), count(*), count(distinct (metric, labels))
from meshhook_metrics.snapshot()
SQL
	$copies++;
	$twice += $rows - $distinct;
	$missing += STABLE - $stable;
	my %met;
	my @lines = grep { /^\w+(?:\{.*\})? / && !/^meshhook_metrics_/ } split /\n/,
	  $node->safe_psql('postgres', 'select meshhook_metrics.prometheus()');
	$twice += grep { $met{ s/ [^ ]*$//r }++ } @lines;
	$missing += STABLE - grep { /^stable_total/ } @lines;
	$churning->pump_nb;
} while ($churning->pumpable);
ok($churning->finish, 'series come and go') or diag($output);
is($twice, 0, "no series is shown twice in $copies copies");
is($missing, 0, 'and none is missing that was there all the time');
consistent_ok($node, 'after copying');

# reset() can be cancelled before it has gone through everything
my $before = $node->safe_psql('postgres', 'select series_used from meshhook_metrics.status()');
my ($code, $out, $error) = $node->psql('postgres', 'select pg_cancel_backend(pg_backend_pid()), meshhook_metrics.reset()');
like($error, qr/canceling statement due to user request/, 'reset() is cancelled');
is($node->safe_psql('postgres', 'select series_used from meshhook_metrics.status()'), $before, 'at once');

$node->stop;
done_testing();
