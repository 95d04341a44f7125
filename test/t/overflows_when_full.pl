# Where there is no room for another series its samples go to the overflow
# series of their tenant and metric: what was recorded is all there, discards
# are counted by reason, and room that appears is used again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $a = 'aaaaaaaa-0000-0000-0000-000000000000';
my $b = 'bbbbbbbb-0000-0000-0000-000000000000';
my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 10,
	max_series_per_tenant => 50);
my %before;

# Discards since the last call, but for those that are 0
sub new_discards
{
	my %now = map { split /\|/ } split /\n/, $node->safe_psql('postgres',
		'select key, value from meshhook_metrics.status(), jsonb_each_text(discarded)');
	my @new = map { "$_ " . ($now{$_} - ($before{$_} // 0)) }
	  grep { $now{$_} != ($before{$_} // 0) } sort keys %now;
	my $exposed = join "\n", sort grep { /^meshhook_metrics_discarded_total/ }
	  split /\n/, $node->safe_psql('postgres', 'select meshhook_metrics.prometheus()');
	my $expected = join "\n", sort map { qq{meshhook_metrics_discarded_total{reason="$_"} $now{$_}} } keys %now;

	is($exposed, $expected, 'prometheus() and status() agree about discards');
	%before = %now;
	return join ', ', @new;
}

sub series
{
	my ($where) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select
	count(*) filter (where not labels ? 'overflow'),
	count(*) filter (where labels = '{"overflow": "true"}'),
	sum(value),
	sum(value) filter (where labels ? 'overflow')
from meshhook_metrics.snapshot()
where $where
SQL
}

sub begin_again
{
	my (%settings) = @_;

	configure($node, %settings);
	$node->stop;
	$node->start;
	$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
	$node->restart;
	%before = ();
	new_discards();
	return;
}

# One tenant over its quota
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.inc('m', i, jsonb_build_object('i', i), '$a') from generate_series(1, 70) i;
select meshhook_metrics.inc('m', i, jsonb_build_object('i', i), '$a') from generate_series(1, 70) i;
SQL
is(series("tenant_id = '$a'"), '50|1|4970|2420', 'quota: 20 of 70 series overflow, and nothing is lost');
is(new_discards(), 'tenant_limit 40', 'quota: every overflowing sample is counted');
$node->safe_psql('postgres', "select meshhook_metrics.inc('other', 7, '{}', '$a'), meshhook_metrics.gauge_set('g', 3, '{}', '$a')");
is(series("tenant_id = '$a' and metric in ('other', 'g')"), '0|2|10|10', 'quota: each metric has an overflow series of its own');
is(new_discards(), 'tenant_limit 2', 'quota: so they are counted');

# Another one is not concerned
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.inc('m', 1, jsonb_build_object('i', i), '$b') from generate_series(1, 40) i;
SQL
is(series("tenant_id = '$b'"), '40|0|40|', 'quota: another tenant is not concerned');
is(new_discards(), '', 'quota: and has no discards');

# The server is full: 90 ordinary series so far, of 100
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.inc('m', 1, jsonb_build_object('i', i)) from generate_series(1, 25) i;
SQL
is(series("tenant_id = '00000000-0000-0000-0000-000000000000'"), '10|1|25|15', 'max_series: the rest overflows');
is(new_discards(), 'series_limit 15', 'max_series: and is counted');
is($node->safe_psql('postgres', 'select series_used, series_max from meshhook_metrics.status()'), '100|100',
	'max_series: status() says that it is full');

# Room that appears is used, also by those who had the overflow in their cache
my $cached = session($node);
$cached->query_safe("select meshhook_metrics.inc('m', 1, jsonb_build_object('i', i)) from generate_series(11, 20) i");
is(new_discards(), 'series_limit 10', 'a session overflows');
$node->safe_psql('postgres', "select meshhook_metrics.reset(null, '$b')");
$cached->query_safe("select meshhook_metrics.inc('m', 1, jsonb_build_object('i', i)) from generate_series(11, 20) i");
is(new_discards(), '', 'after a reset() of another tenant the same session has room');
is(series("tenant_id = '00000000-0000-0000-0000-000000000000'"), '20|1|45|25', 'and nothing is lost');
$cached->quit;

# A larger quota counts at once
$node->safe_psql('postgres', 'alter system set meshhook_metrics.max_series_per_tenant = 60');
$node->reload;
$node->poll_query_until('postgres', q{select current_setting('meshhook_metrics.max_series_per_tenant') = '60'});
$node->safe_psql('postgres', "select meshhook_metrics.inc('m', 1, jsonb_build_object('j', i), '$a') from generate_series(1, 15) i");
is(series("tenant_id = '$a' and metric = 'm'"), '60|1|4985|2425', 'a larger quota gives room for so many more');
is(new_discards(), 'tenant_limit 5', 'and not for more than that');
$node->safe_psql('postgres', 'alter system reset meshhook_metrics.max_series_per_tenant');

# Histograms
begin_again(max_series_per_tenant => 1000);
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.observe('h', 1, jsonb_build_object('i', i)) from generate_series(1, 14) i;
select meshhook_metrics.inc('c', 1, jsonb_build_object('i', i)) from generate_series(1, 50) i;
SQL
is(totals($node, 'h'), '14|14', 'max_histograms: nothing is lost');
is($node->safe_psql('postgres', <<'SQL'), '10|1|4', 'max_histograms: the rest overflows');
select
	count(*) filter (where not labels ? 'overflow'),
	count(*) filter (where labels ? 'overflow'),
	sum(count) filter (where labels ? 'overflow')
from meshhook_metrics.snapshot()
where metric = 'h'
SQL
is(new_discards(), 'histogram_limit 4', 'max_histograms: and is counted');
is(series("metric = 'c'"), '50|0|50|', 'max_histograms: counters have room');
consistent_ok($node, 'full of histograms');

# Long labels fill the memory for labels before there are many series
begin_again();
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.inc('m', 1, jsonb_object_agg('k' || k, repeat(chr(97 + i), 256)))
from generate_series(1, 25) i, generate_series(1, 10) k
group by i
SQL
my ($ordinary, $overflow, $sum) = split /\|/, series("metric = 'm'");
is("$overflow|$sum", '1|25', 'long labels: nothing is lost');
cmp_ok($ordinary, '<', 25, 'long labels: some overflow');
is(new_discards(), 'label_memory ' . (25 - $ordinary), 'long labels: as many are counted');
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
$node->safe_psql('postgres', "select meshhook_metrics.inc('m', 1, jsonb_build_object('i', i)) from generate_series(1, 60) i");
is(series("metric = 'm'"), '60|0|60|', 'long labels: after a reset there is room again');

# More metrics than there is room for: their samples go nowhere, but are counted
begin_again();
$node->safe_psql('postgres', "select meshhook_metrics.inc('m' || i, 1), meshhook_metrics.inc('m' || i, 1) from generate_series(1, 80) i");
is(series("true"), '64|0|128|', 'metrics: 64 of 80 find room');
is(new_discards(), 'metric_limit 32', 'metrics: samples of the others are counted');
$node->safe_psql('postgres', "select meshhook_metrics.inc('m3', 5)");
is(new_discards(), '', 'metrics: those that are known go on');
my ($code, $out, $error) = $node->psql('postgres', "select meshhook_metrics.describe('one_more', 'counter')");
like($error, qr/there is no room to describe metric "one_more"/, 'metrics: describe() says so');
like($error, qr/HINT:  Raise meshhook_metrics.max_series/, 'metrics: and what to do');

# Overflow series take only what is kept for them: one tenant that is over its
# quota in every metric leaves the others their room.
begin_again(max_series_per_tenant => 1);
$node->safe_psql('postgres', "select meshhook_metrics.inc('m' || i, 1, '{}', '$a') from generate_series(1, 60) i");
$node->safe_psql('postgres', "select meshhook_metrics.inc('m1', 1, '{}', md5(i::text)::uuid) from generate_series(1, 99) i");
is(series("tenant_id <> '$a'"), '99|0|99|', 'overflow series of one tenant leave room for the series of others');

# Without shared memory that can be named, metrics live as long as the server
configure($node, max_series => 100000, max_series_per_tenant => 1000);
$node->stop;
my $mark = log_mark($node);
{
	my $program = $node->installed_command('pg_ctl');
	my $data = $node->data_dir;
	my $log = $node->logfile;

	PostgreSQL::Test::Utils::system_or_bail('sh', '-c',
		'ulimit -f 34816; exec "$@"', 'sh', $program, '-w', '-D', $data, '-l', $log, 'start');
	$node->_update_pid(1);
}
ok($node->log_contains(qr/WARNING:  could not make shared memory object "\S+" of \d+ bytes: File too large/, $mark),
	'no shared memory: the log says so');
ok($node->log_contains(qr/HINT:  Make room in \/dev\/shm/, $mark), 'no shared memory: and what to do');
like($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'),
	qr/^shared memory object of \d+ bytes could not be made: File too large$/,
	'no shared memory: status() says so');
is(join(' ', region_objects($node)), '', 'no shared memory: there is no object');
$node->safe_psql('postgres', "select meshhook_metrics.inc('anonymous', 5)");
is(counter($node, 'anonymous'), 5, 'no shared memory: recording works');
my $pid = $node->safe_psql('postgres', 'select pid from pg_stat_activity where backend_type = \'checkpointer\'');
kill 'KILL', $pid;
$node->poll_query_until('postgres', "select count(*) = 1 from pg_stat_activity where backend_type = 'checkpointer' and pid <> $pid");
is(counter($node, 'anonymous'), 5, 'no shared memory: what was recorded survives the crash of a process');

$node->stop;
done_testing();
