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

# Milliseconds of a statement by the clock and of processor time, and bytes of WAL;
# for a setup that includes sql/storage.sql
sub timed
{
	my ($session, $statement) = @_;
	my %took;
	@took{qw(clock cpu wal)} = row($session, "call bench.time(\$\$$statement\$\$, null, null, null)");
	return \%took;
}

1;
