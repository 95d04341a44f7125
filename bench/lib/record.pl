# The measurements behind bench/record

use strict;
use warnings;

use Cluster;
use Measures;
use Peer;
use Run;

Run::bench(
	'record',
	sub {
		my ($report, $versions) = @_;
		my $cluster = Cluster->start;
		my $session = Measures::new_session($cluster);
		my $prom_client = Peer->prom_client('node/prom_client.mjs');

		%$versions = (Run::server_versions($session), %{ $prom_client->{versions} });
		$session->close;
		Measures::calls($report, $cluster, $prom_client);
		$prom_client->close;
		Measures::backends($report, $cluster);
		Measures::batches($report, $cluster);
		Measures::statements($report, $cluster);
		$cluster->stop;
		Measures::memory_and_exposition($report);
		Measures::new_series($report);
	});
