# The measurements behind bench/flush

use strict;
use warnings;

use Cluster;
use FlushMeasures;
use Run;
use Storage;

Run::bench(
	'flush',
	sub {
		my ($report, $versions) = @_;

		# Flushes come when they are asked for, checkpoints too. Realtime reads WAL.
		my $cluster = Cluster->start(
			'meshhook_metrics.flush_interval' => '60s',
			'meshhook_metrics.max_series' => 20_000,
			'checkpoint_timeout' => '1h',
			'max_wal_size' => '16GB',
			'wal_level' => 'logical',
		);
		my $session = Storage::session_with_tables($cluster, 'sql/flush.sql');

		%$versions = Run::server_versions($session);
		FlushMeasures::first_flush($report, $session);
		FlushMeasures::flushes($report, $cluster, $session);
		FlushMeasures::slow_down($report, $cluster, $session);
		$session->close;
		$cluster->stop;
	});
