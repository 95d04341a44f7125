# What was recorded survives a clean restart, an immediate stop, a killed
# postmaster and another size of the region, and leaves nothing in /dev/shm
# while the server is stopped.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 200, max_histograms => 20);
my $saved = $node->data_dir . '/pg_stat/meshhook_metrics.region';

# Some of everything: kinds, tenants, labels, texts, windows, discards
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.describe('runs_total', 'counter', 'Runs of workflows', 'runs');
select meshhook_metrics.describe('payload_bytes', 'histogram', 'Size of "payloads"', 'bytes', 0);
select meshhook_metrics.describe('never_used', 'gauge', 'Described only');
select meshhook_metrics.inc('runs_total', i, jsonb_build_object('status', 's' || i % 7),
	('00000000-0000-0000-0000-0000000000' || lpad((i % 5)::text, 2, '0'))::uuid)
from generate_series(1, 1000) i;
select meshhook_metrics.inc('plain', 0.1) from generate_series(1, 10);
select meshhook_metrics.gauge_set('depth', -3.5, '{"queue": "a\"b\\c", "name": "Zürich 東京"}');
select meshhook_metrics.gauge_add('depth', 1e300, '{"queue": "b"}');
select meshhook_metrics.observe('payload_bytes', 1.7 ^ i) from generate_series(-2, 60) i;
select meshhook_metrics.observe('run_seconds', i / 1000.0, jsonb_build_object('n', i % 3))
from generate_series(0, 10000) i;
set meshhook_metrics.on_error = warning;
select meshhook_metrics.inc('runs_total', -1) from generate_series(1, 3);
SQL
my $before = everything($node);
my $exposed = exposition($node);
like($exposed, qr/^meshhook_metrics_discarded_total\{reason="invalid"\} 3$/m, 'there are discards to keep');
like($exposed, qr/^# HELP payload_bytes Size of "payloads" Unit: bytes\.$/m, 'there are texts to keep');

sub as_before_ok
{
	my ($how) = @_;

	same_ok(everything($node), $before, "$how: every series is as it was");
	same_ok(exposition($node), $exposed, "$how: texts, windows and discards are as they were");
	consistent_ok($node, "$how: nothing contradicts itself");
	return;
}

my $object = (region_objects($node))[0];
ok(-e $object, 'a running server has an object in /dev/shm');
ok(!-e $saved, 'a running server has no saved file');

for my $mode ('fast', 'smart', 'immediate')
{
	$node->stop($mode);
	ok(!-e $object, "$mode stop: the object is gone");
	ok(-s $saved, "$mode stop: the file is there");
	$node->start;
	remember_region($node);
	ok(!-e $saved, "$mode stop: the file is gone after the start");
	as_before_ok("$mode stop");
}

kill_server($node);
ok(-e $object, 'killed postmaster: the object stays');
ok(!-e $saved, 'killed postmaster: there is no file');
$node->start;
as_before_ok('killed postmaster');

# A killed server that is then stopped immediately, and so on: which of object
# and file is the newer one must always be right.
$node->safe_psql('postgres', "select meshhook_metrics.inc('steps')");
kill_server($node);
$node->start;
$node->safe_psql('postgres', "select meshhook_metrics.inc('steps')");
$node->stop('immediate');
$node->start;
$node->safe_psql('postgres', "select meshhook_metrics.inc('steps')");
kill_server($node);
$node->start;
is(counter($node, 'steps'), 3, 'object and file take turns and nothing is lost');
$node->safe_psql('postgres', "select meshhook_metrics.reset('steps')");

# A start that fails after it has taken the file has lost nothing
$node->stop;
append_to_file($node->data_dir . '/recovery.signal', '');
is($node->start(fail_ok => 1), 0, 'a server without a restore command does not start for recovery');
unlink $node->data_dir . '/recovery.signal';
$node->start;
as_before_ok('a start that fails');

# Where the file cannot be written the object stays
mkdir "$saved.new" or die "could not make \"$saved.new\": $!";
my $mark = log_mark($node);
$node->stop;
rmdir "$saved.new";
ok($node->log_contains(qr/LOG:  could not save metrics to file "\S+": Is a directory\n.*LOG:  metrics stay in shared memory until the next start/, $mark),
	'no file can be written: the log says so');
ok(-e $object, 'no file can be written: the object stays');
$node->start;
as_before_ok('no file can be written');

# A single-user server is a server, too
$node->stop;
my $single = IPC::Run::run(
	[ $node->installed_command('postgres'), '--single', '-D', $node->data_dir, 'postgres' ],
	'<', \"select meshhook_metrics.inc('single_total');\n", '>', \my $output, '2>', \my $error);
ok($single, 'a single-user server records') or diag($error);
ok(!-e $object && -s $saved, 'it leaves the file and no object');
$node->start;
is(counter($node, 'single_total'), 1, 'what it recorded is there');
$node->safe_psql('postgres', "select meshhook_metrics.reset('single_total')");
as_before_ok('single-user server');

# The saved file and the object can carry the region to any size
my @sizes = ([ 400, 10 ], [ 100, 10 ], [ 5000, 500 ], [ 100, 10 ]);
for my $how ('stop', 'kill')
{
	for my $size (@sizes)
	{
		my ($series, $histograms) = @$size;
		my $name = "$how, then max_series = $series, max_histograms = $histograms";

		configure($node, max_series => $series, max_histograms => $histograms);
		$how eq 'stop' ? $node->stop : kill_server($node);
		$node->start;
		remember_region($node);
		as_before_ok($name);
		is($node->safe_psql('postgres', 'select series_max, histograms_max from meshhook_metrics.status()'),
			"$series|$histograms", "$name: the limits are those");
	}
}
my @left = grep { -e } map { (my $other = $object) =~ s/.$/$_/; $other } 'a', 'b';
is(scalar @left, 1, 'moving leaves one object behind, not two');

# Below what is used, the region keeps what there is
configure($node, max_series => 300, max_histograms => 60);
$node->restart;
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.inc('many', 1, jsonb_build_object('i', i)) from generate_series(1, 200) i;
select meshhook_metrics.observe('many_seconds', i, jsonb_build_object('i', i)) from generate_series(1, 40) i;
SQL
$before = everything($node);
$exposed = exposition($node);
configure($node, max_series => 100, max_histograms => 10);
$node->restart;
as_before_ok('limits below what is used');
is($node->safe_psql('postgres', <<'SQL'), 't|t', 'limits below what is used: they are what is used');
select series_max = series_used, histograms_max = histograms_used
from meshhook_metrics.status()
SQL
$node->safe_psql('postgres', q{select meshhook_metrics.inc('many', 5, '{"i": "new"}')});
is($node->safe_psql('postgres', <<'SQL'), '5', 'limits below what is used: what is new overflows');
select value
from meshhook_metrics.snapshot()
where metric = 'many' and labels = '{"overflow": "true"}'
SQL
$before = everything($node);
$exposed = exposition($node);
$node->restart;
as_before_ok('limits below what is used, once more');
kill_server($node);
$node->start;
as_before_ok('limits below what is used, once more, killed');

$node->stop;
done_testing();
