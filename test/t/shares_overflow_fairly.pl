# What is kept for overflow series is shared: a tenant over its quota that uses
# ever more metrics leaves room for the overflow series of others.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $greedy = 'aaaaaaaa-0000-0000-0000-000000000000';
my $modest = 'bbbbbbbb-0000-0000-0000-000000000000';
my $node = new_metrics_cluster('main', max_series => 1000, max_histograms => 200, max_series_per_tenant => 1);

# One sample each of so many new metrics
sub use_metrics
{
	my ($call, $tenant, $count) = @_;

	$node->safe_psql('postgres', <<"SQL");
select count(meshhook_metrics.$call('m_' || '$call' || n, 1, '{}', '$tenant'))
from generate_series(1, $count) n
SQL
	return;
}

sub overflow_samples
{
	my ($tenant, $kind) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select coalesce(sum(count), 0)
from meshhook_metrics.snapshot('$tenant')
where kind = '$kind' and labels ? 'overflow'
SQL
}

use_metrics('inc', $_, 1) for $greedy, $modest;
for my $case ([ 'observe', 'histogram' ], [ 'inc', 'counter' ])
{
	my ($call, $kind) = @$case;

	use_metrics($call, $greedy, 100);
	my $taken = overflow_samples($greedy, $kind);
	cmp_ok($taken, '>', 0, "$kind: the greedy tenant has overflow series");
	cmp_ok($taken, '<', 99, "$kind: but not one for each metric");
	use_metrics($call, $modest, 2);
	cmp_ok(overflow_samples($modest, $kind), '>=', 1, "$kind: the modest tenant's samples are kept");
}
is($node->safe_psql('postgres', "select discarded ->> 'overflow_limit' <> '0' from meshhook_metrics.status()"), 't',
	'what had no room is counted');
is($node->safe_psql('postgres', <<'SQL'), 206,
select (select sum(count) from meshhook_metrics.snapshot())
	+ (select (discarded ->> 'overflow_limit')::int from meshhook_metrics.status())
SQL
	'every sample is in a series or among those discards');

# A series that goes makes room at once
$node->safe_psql('postgres', "select meshhook_metrics.reset(null, '$greedy')");
use_metrics('inc', $greedy, 1);
is($node->safe_psql('postgres', "select count(*) from meshhook_metrics.snapshot('$greedy') where not labels ? 'overflow'"), 1,
	'after a reset the greedy tenant has a series of its own again');

done_testing();
