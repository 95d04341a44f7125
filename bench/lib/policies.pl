# The measurements behind bench/policies

use strict;
use warnings;

use Cluster;
use PolicyMeasures;
use Run;
use Storage;

Run::bench(
	'policies',
	sub {
		my ($report, $versions) = @_;

		# The worker is kept busy elsewhere; checkpoints come when they are asked for
		my $cluster = Cluster->start(
			'meshhook_metrics.database' => 'template1',
			'shared_buffers' => '1GB',
			'checkpoint_timeout' => '1h',
			'max_wal_size' => '16GB',
		);
		my $session = Storage::session_with_tables($cluster, 'sql/policies.sql');

		%$versions = Run::server_versions($session);
		PolicyMeasures::queries($report, $cluster, $session);
		PolicyMeasures::calls($report, $cluster, $session);
		$session->close;
		$cluster->stop;
	});
