# Series that were flushed and that nobody records to give way when there is no
# room; those that hold something unflushed never do. Sessions that knew a
# retired series go on with the one in its place.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 10);
$node->safe_psql('postgres', 'create extension mhm_probe');

sub probe
{
	my ($call) = @_;

	return $node->safe_psql('postgres', "select mhm_probe.$call");
}

sub inc_many
{
	my ($metric, $from, $to) = @_;

	$node->safe_psql('postgres',
		"select meshhook_metrics.inc('$metric', 1, jsonb_build_object('i', i)) from generate_series($from, $to) i");
	return;
}

sub ordinary
{
	my ($metric) = @_;

	return $node->safe_psql('postgres',
		"select count(*) from meshhook_metrics.snapshot() where metric = '$metric' and not labels ? 'overflow'");
}

# What retires, and what does not
inc_many('flushed_idle', 1, 10);
inc_many('flushed_busy', 1, 10);
inc_many('idle', 1, 10);
$node->safe_psql('postgres', q{
	select meshhook_metrics.observe('flushed_seconds', i) from generate_series(1, 10) i;
	select meshhook_metrics.gauge_set('flushed_gauge', 1)});
is(probe("flush('$_')"), $_ eq 'flushed_gauge' ? 1 : 10, "$_ is flushed")
  for qw(flushed_idle flushed_busy flushed_seconds flushed_gauge);
probe("age('$_', '1 hour')") for qw(flushed_idle idle flushed_seconds flushed_gauge);
is(probe(q{retire_idle(now() - interval '30 minutes')}), 12, 'what is flushed and idle retires');
is(ordinary('flushed_idle') . ordinary('flushed_busy') . ordinary('idle') . ordinary('flushed_seconds'), '010100',
	'what is unflushed or busy does not');
is(totals($node, 'idle'), '10|10', 'and has all it had');

# A flushed series that was recorded to since is not flushed
inc_many('flushed_busy', 3, 3);
probe("age('flushed_busy', '1 hour')");
is(probe(q{retire_idle(now() - interval '30 minutes')}), 9, 'one that was recorded to since stays');
is(totals($node, 'flushed_busy'), '2|2', 'with all it had');

# Under pressure: nobody needs to ask
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
inc_many('old', 1, 60);
inc_many('young', 1, 40);
probe("flush('old')");
probe("flush('young')");
inc_many('new', 1, 5);
is(ordinary('new'), 0, 'a full registry whose series are young: new ones overflow');
probe("age('old', '11 minutes')");
inc_many('new', 1, 20);
is(ordinary('young') . ' ' . ordinary('new'), '40 20', 'idle ones give way when there is no room');
cmp_ok(ordinary('old'), '<=', 40, 'as many as are needed, or more');
is(totals($node, 'new'), '25|25', 'and nothing of the new ones is lost');

# Under pressure unflushed series do not give way
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
inc_many('old', 1, 100);
probe("age('old', '1 day')");
inc_many('new', 1, 20);
is(ordinary('old') . ' ' . ordinary('new'), '100 0', 'unflushed ones never give way');
is(totals($node, 'new'), '20|20', 'the new ones overflow');

# A tenant at its quota has no other tenant's series leave memory, however long
# they have been idle; its own make room for it
my ($greedy, $neighbour) = map { "00000000-0000-0000-0000-0000000000a$_" } 1 .. 2;
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
$node->append_conf('postgresql.conf', 'meshhook_metrics.max_series_per_tenant = 20');
$node->reload;
$node->poll_query_until('postgres', q{select current_setting('meshhook_metrics.max_series_per_tenant') = '20'});
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.gauge_add('in_flight', 7, '{}', '$neighbour');
select meshhook_metrics.inc('neighbours_total', 1, jsonb_build_object('i', i), '$neighbour') from generate_series(1, 10) i;
select meshhook_metrics.inc('greedy_total', 1, jsonb_build_object('i', i), '$greedy') from generate_series(1, 30) i;
SQL
for my $metric (qw(in_flight neighbours_total))
{
	probe("flush('$metric')");
	probe("age('$metric', '23 hours')");
}
$node->safe_psql('postgres',
	"select meshhook_metrics.inc('greedy_total', 1, jsonb_build_object('i', i), '$greedy') from generate_series(31, 100) i");
is(ordinary('in_flight') . ' ' . ordinary('neighbours_total'), '1 10', 'a tenant at its quota takes nothing from its neighbours');
$node->safe_psql('postgres', "select meshhook_metrics.gauge_add('in_flight', -1, '{}', '$neighbour')");
is($node->safe_psql('postgres', "select value from meshhook_metrics.snapshot() where metric = 'in_flight'"), '6',
	'so that their gauges go on from where they were');
is(ordinary('greedy_total'), 20, 'and it stays within its quota');
probe("flush('greedy_total')");
probe("age('greedy_total', '11 minutes')");
$node->safe_psql('postgres',
	"select meshhook_metrics.inc('greedy_too_total', 1, jsonb_build_object('i', i), '$greedy') from generate_series(1, 20) i");
is(ordinary('greedy_too_total'), 20, 'its own idle series make room for it');
is(ordinary('in_flight') . ' ' . ordinary('neighbours_total'), '1 10', 'and still nobody else\'s');
$node->append_conf('postgresql.conf', 'meshhook_metrics.max_series_per_tenant = 2000');
$node->reload;
$node->poll_query_until('postgres', q{select current_setting('meshhook_metrics.max_series_per_tenant') = '2000'});

# A session that knows a series which retires and comes back
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
my $session = session($node);
$session->query_safe("select meshhook_metrics.inc('c', 1), meshhook_metrics.observe('h', 1), meshhook_metrics.gauge_set('g', 1)");
for my $metric (qw(c h g))
{
	probe("flush('$metric')");
	probe("age('$metric', '1 hour')");
}
is(probe(q{retire_idle(now())}), 3, 'the series of a session retire');
inc_many('others_in_their_slots', 1, 50);
$session->query_safe("select meshhook_metrics.inc('c', 5), meshhook_metrics.observe('h', 5), meshhook_metrics.gauge_add('g', 5)");
is($node->safe_psql('postgres', <<'SQL'), "c|5|1|5\nh||1|5", 'what it records then is in series of its own');
select metric, value, count, sum
from meshhook_metrics.snapshot()
where metric in ('c', 'h')
order by metric
SQL
is(totals($node, 'others_in_their_slots'), '50|50', 'and nothing of it is in what took their slots');

# The name may have become another metric's meanwhile: that is a mistake, of
# which a session is told as any other is
$node->safe_psql('postgres', "select meshhook_metrics.reset('c'), meshhook_metrics.gauge_set('c', 1)");
$session->{stderr} = '';
$session->query("select meshhook_metrics.inc('c', 1)");
like($session->{stderr}, qr/ERROR:  metric "c" is a gauge, not a counter/,
	'a session that knew a metric of another kind is told that it changed');
$session->quit;

# Recording against retirement: whatever retires had been flushed, so what was
# flushed over time is what was recorded. Each round flushes and retires what
# it can, busy or not, so sessions find their series gone again and again.
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
my $script = $node->basedir . '/record.sql';
append_to_file($script, <<'SQL');
\set a random(1, 8)
select meshhook_metrics.inc('raced_total', 1, jsonb_build_object('i', :a)),
	meshhook_metrics.observe('raced_seconds', 1, jsonb_build_object('i', :a)),
	meshhook_metrics.gauge_set('raced_value', :a);
SQL
my @pgbench = ('pgbench', '-n', '-h', $node->host, '-p', $node->port);
my $recording = IPC::Run::start([ @pgbench, '-c', 4, '-t', 3000, '-f', $script, 'postgres' ], '>', \my $output, '2>&1');
my $flushing = session($node);
my %flushed;
my $retired = 0;
my $recording_goes_on = 1;
while ($recording_goes_on)
{
	# one more round after the last sample
	$recording_goes_on = $recording->pumpable;
	$recording->pump_nb if $recording_goes_on;
	for my $metric (qw(raced_total raced_seconds raced_value))
	{
		$flushed{$metric} += $flushing->query_safe("select mhm_probe.flush('$metric')");
	}
	$retired += $flushing->query_safe(q{select mhm_probe.retire_idle('infinity')});
}
ok($recording->finish, 'recording goes on under retirement') or diag($output);
$flushing->quit;
is(join(' ', map { $flushed{$_} } qw(raced_total raced_seconds raced_value)), '12000 12000 12000',
	'retiring whatever is flushed while others record loses nothing');
cmp_ok($retired, '>', 10, 'many series were retired');
consistent_ok($node, 'after retiring against recording');
note("$retired series were retired");

# reset() against recording: a sample counts before it, and is gone, or after
# it. Never in a series that somebody else has.
append_to_file("$script.reset", <<'SQL');
select meshhook_metrics.reset('raced_total'), meshhook_metrics.reset('raced_seconds');
select meshhook_metrics.inc('bystander_total', 1, jsonb_build_object('i', :client_id));
SQL
my $resetting = IPC::Run::start([ @pgbench, '-c', 2, '-t', 1500, '-f', "$script.reset", 'postgres' ], '>', \my $reset_output, '2>&1');
$recording = IPC::Run::start([ @pgbench, '-c', 4, '-t', 3000, '-f', $script, 'postgres' ], '>', \$output, '2>&1');
ok($recording->finish, 'recording goes on under reset()');
ok($resetting->finish, 'and so does reset()');
is(totals($node, 'bystander_total'), '3000|3000', 'series that are not reset get theirs and nothing else');
my ($count, $sum) = split /\|/, totals($node, 'raced_total');
cmp_ok($count, '<=', 12000, 'no sample counts twice');
is($count, $sum, 'count and sum agree');
consistent_ok($node, 'after reset() against recording');
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
is(probe('usage()'), '(0,0,0,0,0)', 'nothing has leaked');

$node->stop;
done_testing();
