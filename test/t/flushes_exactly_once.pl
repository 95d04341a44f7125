# What was recorded is stored exactly once, whoever is killed at whatever moment
# of a flush: count, sum, extremes and histogram of every series.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use FlushRounds;
use MetricsCluster;
use Test::More;

my $node = new_flush_cluster('main', max_series => 200, max_histograms => 50);
my $steps = steps_here($node);

# Before the commit: what was taken goes with the next flush
flush_round($node, 'the worker killed before its commit',
	faults => ['before_commit instructions 0 0 kill']);
flush_round($node, 'the worker killed before its commit while nobody records',
	quiet => 1, faults => ['before_commit instructions 0 0 kill']);

# After it, before the region knows: the next worker has it from the journal
flush_round($node, 'the worker killed after its commit',
	faults => ['after_commit instructions 0 0 kill']);
flush_round($node, 'the worker killed after its commit while nobody records',
	quiet => 1, faults => ['after_commit instructions 0 0 kill']);
flush_round($node, 'the worker killed again when it knows of the commit',
	faults => [ 'after_commit instructions 0 0 kill', 'settle instructions 0 0 kill' ]);

# A journal that is lost: nothing is stored twice all the same. Here nobody
# records after the commit, so that nothing is lost either.
my $mark = log_mark($node);
flush_round(
	$node,
	'the worker killed after its commit, and the journal lost',
	quiet => 1,
	faults => [ 'after_commit instructions 0 0 kill', 'settle instructions 0 0 stop' ],
	happen => sub {
		my ($worker) = @_;

		await_recovery($node, $mark, 1);
		$worker = worker_pid($node);
		await_stopped($worker);
		unlink $node->data_dir . '/pg_stat/meshhook_metrics.flush' or die 'there is no journal';
		kill 'CONT', $worker;
	});
like(log_since($node, $mark), qr/what flush \d+ of meshhook_metrics stored is not known/, 'a lost journal is reported');

SKIP:
{
	skip 'the probe can step x86-64 processors only', 8 if !$steps;

	flush_round($node, 'the worker killed while it has extremes and no journal',
		quiet => 1, faults => ['commit taken 3 40 kill']);
	flush_round($node, 'the worker killed while it holds a stripe',
		quiet => 1, faults => ['commit stripes 1 0 kill']);
	flush_round($node, 'the worker killed while it notes what is stored, and again when it does it anew',
		faults => [ 'after_commit applied 4 7 kill', 'settle applied 2 0 kill', 'settle applied 4 11 kill' ]);
	flush_round($node, 'the worker killed when all is noted',
		faults => ['after_commit settled 1 0 kill']);
}

# Others
flush_round($node, 'a backend killed',
	happen => sub {
		my ($backend) = split /\n/, $node->safe_psql('postgres', $recording_sessions);

		kill 'KILL', $backend;
	});
flush_round($node, 'the postmaster killed', server => 'ends', happen => sub { kill_server($node) });
flush_round($node, 'the postmaster and the worker killed after its commit',
	server => 'ends', faults => ['after_commit instructions 0 0 kill_server']);

# The region moves to another size, and series get other numbers: the journal
# finds them by their keys
for my $case ([ after_commit => 300 ], [ before_commit => 250 ])
{
	my ($point, $max_series) = @$case;

	flush_round(
		$node,
		"an immediate shutdown $point, and another max_series",
		server => 'ends',
		faults => ["$point instructions 0 0 stop"],
		happen => sub {
			my ($worker) = @_;

			quit_server_around($node, $worker);
			configure($node, max_series => $max_series);
		});
}

# Series that are reset while they are being flushed, and others in their slots:
# what was flushed is stored, and nothing of it is held against the others
for my $fate ('survives', 'is killed')
{
	my $worker = worker_pid($node);
	my $metric = $fate eq 'survives' ? 'doomed' : 'ill_fated';
	my $killed = log_mark($node);

	flush($node);
	stop_worker($node, $worker);
	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('${metric}_total', 1),
	meshhook_metrics.observe('${metric}_seconds', 2 ^ n)
from generate_series(1, 10) n
SQL
	plan_faults($node, ($fate eq 'survives' ? 'before' : 'after') . '_commit instructions 0 0 stop');
	kill 'CONT', $worker;
	await_stopped($worker);
	$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.reset('${metric}_seconds'), meshhook_metrics.reset('${metric}_total');
select
	meshhook_metrics.inc('heir_of_${metric}_total', 1),
	meshhook_metrics.observe('heir_of_${metric}_seconds', 1),
	meshhook_metrics.inc('${metric}_total', 1),
	meshhook_metrics.observe('${metric}_seconds', 1)
from generate_series(1, 12) n
SQL
	kill $fate eq 'survives' ? 'CONT' : 'KILL', $worker;
	if ($fate eq 'is killed')
	{
		await_recovery($node, $killed, 1);
		await_status($node, 'worker_pid is not null');
	}
	flush($node);
	is(stored_total($node, "${metric}_total"), '22|22', "a counter that is reset before the worker $fate");
	is(stored_total($node, "${metric}_seconds"), '22|2058', "a histogram that is reset before the worker $fate");
	is(stored_total($node, "heir_of_${metric}_total"), '12|12', "a counter in its slot when the worker $fate");
	is(stored_total($node, "heir_of_${metric}_seconds"), '12|12', "a histogram in its slot when the worker $fate");
}

consistent_ok($node, 'nothing contradicts itself');
$node->stop;
done_testing();
