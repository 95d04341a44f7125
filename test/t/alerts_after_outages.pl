# When storage comes back after an outage, what was recorded meanwhile arrives at once: no rule
# fires by that, nor by what could not be flushed, and a little later all are judged again.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');

add_rule($node, name => 'many', metric => 'runs_total', aggregate => 'increase', threshold => 500, time_window => '10 seconds');
add_rule($node, name => 'few', metric => 'beats_total', aggregate => 'increase', comparison => '<', threshold => 1, time_window => '10 seconds');
$node->safe_psql('postgres', q{select meshhook_metrics.inc('runs_total'), meshhook_metrics.inc('beats_total')});
flush($node);
await_evaluation($node);
is(active($node), '', 'before the outage nothing is active');

my $outage = session($node);
$outage->query_safe('begin; lock table meshhook_metrics.live in exclusive mode');
$node->safe_psql('postgres', q{select meshhook_metrics.inc('runs_total', 1000), meshhook_metrics.inc('beats_total', 0)});
await(
	sub {
		$node->safe_psql('postgres', q{select clock_timestamp() - last_flush_at > interval '12 seconds' from meshhook_metrics.status()}) eq 't';
	},
	'an outage for longer than the windows');
$outage->query_safe('commit');
flush($node);
await_evaluation($node);
is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_events'), 0, 'what comes after an outage, all at once, fires nothing');
is($node->safe_psql('postgres', q{select sum(value) from meshhook_metrics.query_range('runs_total', now() - interval '5 minutes')}), '1001', 'though it is stored');
is($node->safe_psql('postgres', q{select count(*) > 0 from meshhook_metrics.alert_gaps where ends - begins between interval '12 seconds' and interval '5 minutes'}), 't',
	'the gap is known');
$node->safe_psql('postgres', q{select meshhook_metrics.inc('runs_total', 1000)});
await_alerts($node, 'few firing, many firing');
pass('when a whole window has passed what happens is seen');

# A restart is an outage as well, though shorter than these windows it hides nothing
$node->safe_psql('postgres', 'truncate meshhook_metrics.alert_gaps');
$node->stop;
remember_stop();
$node->start;
await_evaluation($node);
# The flush that ends it may be dated back to the end of a minute; then the next one is about long, too
is($node->safe_psql('postgres', q{select max(ends) - min(begins) between interval '4 seconds' and interval '5 minutes' from meshhook_metrics.alert_gaps}), 't',
	'as is that of a server that was away');

# Whatever is wrong with the table of gaps, metrics are flushed; when it is mended, it has the gap
$node->safe_psql('postgres', <<'SQL');
truncate meshhook_metrics.alert_gaps;
create function public.refuse() returns trigger language plpgsql as $$ begin raise 'no gaps'; end $$;
create trigger refuse before insert on meshhook_metrics.alert_gaps for each row execute function public.refuse();
SQL
$node->stop;
remember_stop();
my $mark = log_mark($node);
$node->start;
for (1 .. 2)
{
	$node->safe_psql('postgres', q{select meshhook_metrics.inc('kept_total')});
	flush($node);
}
is(stored_total($node, 'kept_total'), '2|2', 'a table of gaps that refuses them holds up no flush');
is(scalar(() = log_since($node, $mark) =~ /WARNING: +table meshhook_metrics.alert_gaps did not take/g), 1, 'the log has it once');
$node->safe_psql('postgres', q{drop function public.refuse() cascade; select meshhook_metrics.inc('kept_total')});
flush($node);
is($node->safe_psql('postgres', q{select count(*) > 0 from meshhook_metrics.alert_gaps where ends - begins between interval '4 seconds' and interval '5 minutes'}), 't',
	'which it has as soon as it takes them');
$outage->quit;
$node->stop;
done_testing();

# Three flush intervals pass
sub remember_stop
{
	my $stopped = time;

	await(sub { time - $stopped >= 5 }, 'the server to be away');
	return;
}
