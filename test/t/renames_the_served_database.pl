# The served database is renamed, and made a template of, by the statements of
# docs/operations.md: the worker leaves it, finds it again, and goes on in the same tables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main', database => 'app', flush_interval => "'1s'");
$node->safe_psql('postgres', 'create role app_owner login; create database app owner app_owner');
install_storage($node, database => 'app', role => 'app_owner');

# As soon as the worker is there
sub flush_served
{
	my ($database) = @_;

	await(sub { ($node->psql($database, 'select meshhook_metrics.flush()'))[0] == 0 }, "a flush into $database");
	return;
}

$node->safe_psql('app', "select meshhook_metrics.inc('kept_total', 3)");
flush_served('app');

# From postgres, until nobody is connected any more
sub serve
{
	my ($database, $statement) = @_;

	$node->safe_psql('postgres', "alter system set meshhook_metrics.database = '$database'");
	$node->reload;
	return if !defined $statement;
	await(
		sub {
			my ($code, $out, $error) = $node->psql('postgres', $statement);

			die $error if $code != 0 && $error !~ /is being accessed by other users/;
			return $code == 0;
		},
		$statement);
	return 1;
}

ok(serve('app2', 'alter database app rename to app2'), 'the served database is renamed');
$node->safe_psql('app2', "select meshhook_metrics.inc('kept_total', 4)");
flush_served('app2');
is(stored_total($node, 'kept_total', 'app2'), '2|7', 'and is flushed into as before');

$node->safe_psql('app2', "select meshhook_metrics.inc('kept_total', 5)");
ok(serve('nobody', 'create database copy template app2'), 'it is made a template of');
serve('app2');
flush_served('app2');
is(stored_total($node, 'kept_total', 'app2'), '3|12', 'and gets what was recorded meanwhile');
like(stored_total($node, 'kept_total', 'copy'), qr/^(?:2\|7|3\|12)$/, 'the copy has what was there then');
$node->safe_psql('app2', "select meshhook_metrics.inc('kept_total', 6)");
flush_served('app2');
is(stored_total($node, 'kept_total', 'app2'), '4|18', 'only the one');
unlike(stored_total($node, 'kept_total', 'copy'), qr/18/, 'and not the copy goes on');
$node->stop;
done_testing();
