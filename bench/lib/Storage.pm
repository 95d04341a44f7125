# The storage tables in a cluster, as the migrations make them

package Storage;

use strict;
use warnings;

use Peer;

# A session in a new cluster with the extension, the roles of an API, the tables,
# and what a bench's file of SQL adds
sub session_with_tables
{
	my ($cluster, $setup) = @_;
	my $session = Peer->session($cluster);
	$session->sql('set client_min_messages = warning');
	$session->sql("\\i sql/clock.sql\n");
	$session->sql("create role $_") for qw(anon authenticated service_role);
	my @migrations = sort glob '../migrations/*.sql' or die "There are no migrations.\n";
	$session->sql("\\i $_\n") for @migrations;
	$session->sql("\\i $setup\n");
	return $session;
}

# The values of the one row of a query
sub row
{
	my ($session, $query) = @_;
	return split /\|/, scalar $session->sql($query);
}

1;
