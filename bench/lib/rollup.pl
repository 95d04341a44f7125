# The measurements behind bench/rollup

use strict;
use warnings;

use Cluster;
use RollupMeasures;
use Run;
use Storage;

Run::bench(
	'rollup',
	sub {
		my ($report, $versions) = @_;

		# The worker is kept busy elsewhere; checkpoints come when they are asked for
		my $cluster = Cluster->start(
			'meshhook_metrics.database' => 'template1',
			'shared_buffers' => '1GB',
			'checkpoint_timeout' => '1h',
			'max_wal_size' => '16GB',
		);
		my $session = Storage::session_with_tables($cluster, 'sql/rollup.sql');

		%$versions = Run::server_versions($session);
		RollupMeasures::minutes($report, $session);
		RollupMeasures::catching_up($report, $session);
		RollupMeasures::hours($report, $session);
		RollupMeasures::sizes($report, $session);
		RollupMeasures::ranges($report, $cluster, $session);
		$session->close;
		$cluster->stop;
	});
