# The measurements behind bench/alerts

use strict;
use warnings;

use AlertMeasures;
use Cluster;
use Run;
use Storage;

Run::bench(
	'alerts',
	sub {
		my ($report, $versions) = @_;

		# The worker is kept busy elsewhere; checkpoints come when they are asked for
		my $cluster = Cluster->start(
			'meshhook_metrics.database' => 'template1',
			'meshhook_metrics.max_series' => 20_000,
			'meshhook_metrics.max_histograms' => 4_000,
			'shared_buffers' => '1GB',
			'checkpoint_timeout' => '1h',
			'max_wal_size' => '16GB',
		);
		my $session = Storage::session_with_tables($cluster, 'sql/alerts.sql');

		%$versions = Run::server_versions($session);
		AlertMeasures::evaluations($report, $session);

		# An event follows its sample within a flush_interval and a second, where every
		# flush is followed by an evaluation
		my $slow = AlertMeasures::size('slow_seconds');
		my ($rounds, $slow_rounds) = map { AlertMeasures::size($_) } qw(crossings slow_crossings);
		AlertMeasures::crossings_under_load($report, $cluster, $session, at_most => $slow + 1);
		$session->close;
		$cluster->stop;
		AlertMeasures::memory($report);
		AlertMeasures::crossings_alone($report, $rounds, 1, 1, at_most => 2);
		AlertMeasures::crossings_alone($report, $slow_rounds, $slow, $slow, at_most => $slow + 1);
		AlertMeasures::crossings_alone($report, $slow_rounds, $slow, 2 * $slow);
	});
