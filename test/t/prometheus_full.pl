# With shared memory full the exposition is as good as ever: what found no room
# is in overflow series, or counted among the discards, and adds up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Exposition;
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 10, max_series_per_tenant => 40);
my %tenant = map { $_ => (lc $_) x 8 . '-0000-0000-0000-000000000000' } 'A' .. 'D';

sub record
{
	my ($function, $metric, $tenant, $series) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select count(meshhook_metrics.$function('$metric', 1, jsonb_build_object('n', n), '$tenant{$tenant}'))
from generate_series(1, $series) n
SQL
}

sub exposed
{
	my $text = $node->safe_psql('postgres', 'select meshhook_metrics.prometheus()');
	my $exposition = parse_exposition($text);

	return ($exposition, $text, { map { $_->{labels}{reason} => $_->{value} } @{ $exposition->{families}{meshhook_metrics_discarded_total}{samples} } });
}

sub overflow_of
{
	my ($exposition, $name, $tenant) = @_;
	my $sample = $exposition->{samples}{ Exposition::series_key($name, { tenant => $tenant{$tenant}, overflow => 'true' }) };

	return $sample ? $sample->{value} : 'none';
}

$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.describe('full_total', 'counter', 'Counted.');
select meshhook_metrics.describe('full_seconds', 'histogram', 'Observed.');
SQL
record('observe', 'full_seconds', 'D', 12);
record('inc', 'full_total', 'A', 50);
record('inc', 'full_total', 'B', 30);
record('inc', 'full_total', 'C', 30);

my ($exposition, $text, $discarded) = exposed();
is_deeply($exposition->{problems}, [], 'the exposition has nothing wrong with it');
is(overflow_of($exposition, 'full_seconds_count', 'D'), 2, 'two more histograms than there is room for share one');
is(overflow_of($exposition, 'full_total', 'A'), 10, 'ten series over the quota share one');
is(overflow_of($exposition, 'full_total', 'B'), 'none', 'a tenant that had room has no such series');
is(overflow_of($exposition, 'full_total', 'C'), 10, 'ten series over the limit share one');
is_deeply($discarded,
	{ histogram_limit => 2, tenant_limit => 10, series_limit => 10, map { $_ => 0 } qw(invalid label_memory metric_limit out_of_range overflow_limit) },
	'each is counted by its reason');
is($exposition->{samples}{meshhook_metrics_series}{value}, 100, 'all series are in use');
is($exposition->{samples}{meshhook_metrics_histograms}{value}, 10, 'all histograms, too');

# Overflow series, until there is no room for those either
my $metrics = 200;
$node->safe_psql('postgres', <<"SQL");
select count(meshhook_metrics.inc(metric, 1, '{}', tenant::uuid))
from (select 'full_m' || n || '_total' from generate_series(1, $metrics) n) m (metric),
	unnest(array['$tenant{A}', '$tenant{B}', '$tenant{C}']) tenant
SQL
($exposition, $text, $discarded) = exposed();
is_deeply($exposition->{problems}, [], 'when there is no room for overflow series, too');
cmp_ok($discarded->{overflow_limit}, '>', 0, 'which is counted');
my $counted = 0;
$counted += $_->{value} for grep { $_->{name} =~ /^full_m\d+_total$/ } values %{ $exposition->{samples} };
is($counted + $discarded->{overflow_limit}, 3 * $metrics, 'every sample is in a series or among the discards');
cmp_ok($counted, '>', 0, 'and some are in series');

# Metrics, until there is no room for another
$node->safe_psql('postgres', <<'SQL');
do $$
begin
	for n in 1..10000 loop
		perform meshhook_metrics.describe('full_d' || n || '_total', 'counter', 'Described.');
	end loop;
	raise 'there is room for all';
exception when configuration_limit_exceeded then
	null;
end
$$
SQL
record('inc', 'full_new_total', 'D', 5);
($exposition, $text, $discarded) = exposed();
is_deeply($exposition->{problems}, [], 'when there is no room for metrics, too');
is($discarded->{metric_limit}, 5, 'which is counted');
ok(!$exposition->{families}{full_new_total}, 'a metric without room is not exposed');

SKIP:
{
	my $promtool = find_program('promtool');
	skip 'promtool is not installed (Debian: apt-get install prometheus)', 1 if !$promtool;
	my $out = '';
	IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$text, '>', \$out, '2>&1');
	is($out, '', 'promtool accepts it without a word');
}

# A description that finds no room says what to do
my ($code, $stdout, $error) = $node->psql('postgres', q(\set VERBOSITY verbose
select meshhook_metrics.describe('full_described_total', 'counter', 'One too many.')));
like($error, qr/ERROR:  53400: there is no room to describe metric "full_described_total"/, 'describe() refuses');
like($error, qr/HINT:  Raise meshhook_metrics.max_series, which metrics and texts share memory with, and restart the server; or forget metrics with meshhook_metrics.reset\(\)\./, 'and says what to do');

# Doing it helps
$node->safe_psql('postgres', "select meshhook_metrics.reset()");
is($node->safe_psql('postgres', "select meshhook_metrics.describe('full_described_total', 'counter', 'One.')"), '', 'after a reset there is room');
record('inc', 'full_total', 'C', 30);
($exposition) = exposed();
is_deeply($exposition->{problems}, [], 'and the exposition is good');
is(overflow_of($exposition, 'full_total', 'C'), 'none', 'without an overflow series');

$node->stop;
done_testing();
