# While clients record, make series and forget them, every exposition is whole:
# nothing in it contradicts itself, and no counter or bucket ever goes back. When
# they have ended it has exactly what they recorded.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Exposition;
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $clients = 4;
my $transactions = 1500;
my $script = PostgreSQL::Test::Utils::tempdir() . '/record.pgbench';
PostgreSQL::Test::Utils::append_to_file($script, <<'PGBENCH');
\set n random(1, 50)
select meshhook_metrics.inc('concurrent_total', 1, '{"status": "ok"}'), meshhook_metrics.inc('concurrent_total', 2, jsonb_build_object('n', :n)), meshhook_metrics.observe('concurrent_seconds', :n / 10.0), meshhook_metrics.observe('concurrent_seconds', 0.25, jsonb_build_object('n', :n)), meshhook_metrics.gauge_set('concurrent_depth', :n);
select meshhook_metrics.record('[{"op": "inc", "metric": "concurrent_batch_total"}, {"op": "observe", "metric": "concurrent_batch_seconds", "value": 1}]');
select meshhook_metrics.observe('churn_seconds', 1, jsonb_build_object('n', :n)), meshhook_metrics.inc('churn_' || :n || '_total'), meshhook_metrics.reset('churn_seconds'), meshhook_metrics.reset('churn_' || (:n + 7) % 50 + 1 || '_total');
PGBENCH

my $node = new_metrics_cluster('main');
my ($out, $err) = ('', '');
my $pgbench = IPC::Run::start(
	[ 'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $transactions, '-f', $script, $node->connstr('postgres') ],
	'>', \$out, '2>', \$err);

my (@problems, @backward, %before, $expositions, $while_recording);
do
{
	my $running = $pgbench->pumpable;
	my $exposition = parse_exposition($node->safe_psql('postgres', 'select meshhook_metrics.prometheus()'));

	$expositions++;
	push @problems, @{ $exposition->{problems} };
	for my $sample (values %{ $exposition->{samples} })
	{
		next if $sample->{name} !~ /^concurrent_(?!depth)/;
		my $last = $before{ $sample->{key} };

		push @backward, "$sample->{line} after $last" if defined $last && $sample->{value} < $last;
		delete $before{ $sample->{key} };
	}
	push @backward, map { 'gone: ' . s/\0/ /gr } sort keys %before;
	%before = map { $_->{key} => $_->{value} } grep { $_->{name} =~ /^concurrent_(?!depth)/ } values %{ $exposition->{samples} };
	$while_recording++ if $running && keys %before;
	$pgbench->pump_nb if $running;
} while ($pgbench->pumpable);
ok($pgbench->finish, 'pgbench ended well') or diag($err);
note("$expositions expositions, $while_recording of them while clients recorded");

cmp_ok($while_recording, '>=', 3, 'there were expositions while clients recorded');
is_deeply([ splice @problems, 0, 10 ], [], 'none of them had anything wrong with it');
is_deeply([ splice @backward, 0, 10 ], [], 'nothing went back or away');

# At the end: each transaction once
my $total = $clients * $transactions;
my $exposition = parse_exposition($node->safe_psql('postgres', 'select meshhook_metrics.prometheus()'));
my %sum;
for my $sample (values %{ $exposition->{samples} })
{
	$sum{ $sample->{name} } += $sample->{value} if ($sample->{labels}{le} // '+Inf') eq '+Inf';
}
is($sum{concurrent_total}, 3 * $total, 'the counter is exact');
is($sum{concurrent_batch_total}, $total, 'the batches are, too');
is($sum{concurrent_seconds_count}, 2 * $total, 'and the histogram');
is($sum{concurrent_seconds_bucket}, 2 * $total, 'with its buckets');
is($sum{concurrent_batch_seconds_sum}, $total, 'and its sum');
is_deeply([ map { "$_->{labels}{reason} $_->{value}" } grep { $_->{value} } @{ $exposition->{families}{meshhook_metrics_discarded_total}{samples} } ],
	[], 'nothing was discarded');

$node->stop;
done_testing();
