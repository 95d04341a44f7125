# The worker evaluates the rules after a flush, at most once in alert_interval, which can be
# changed while it works; and it says how that is doing.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

my $node = new_alert_cluster('main');
my $listener = listening($node);

# Before there is a rule
await_evaluation($node);
is(active($node), '', 'without rules nothing is active');
is($node->safe_psql('postgres', 'select rules, rules_failing from meshhook_metrics.alert_state'), '0|0', 'and none is counted');
is(notified($listener), 0, 'and nobody is notified');

# What the extension says of itself
level_rule($node, 'one');
level_rule($node, 'two');
set_level($node, one => 50, two => 50);
await_alerts($node, 'one firing, two firing');
my ($evaluated_at, $timestamp) = split /\|/, $node->safe_psql('postgres', <<'SQL');
select extract(epoch from evaluated_at), (regexp_match(meshhook_metrics.prometheus(), '\nmeshhook_metrics_last_alert_evaluation_timestamp_seconds (\S+)'))[1]
from meshhook_metrics.alert_state
SQL
cmp_ok(abs($evaluated_at - $timestamp), '<', 2, 'prometheus() says when the rules were evaluated last');
my $took = health($node, 'last_alert_evaluation_duration_seconds');
ok($took > 0 && $took < 2, 'and how long it took') or diag($took);
is($node->safe_psql('postgres', 'select rules, rules_failing from meshhook_metrics.alert_state'), '2|0', 'the rules are counted');
is($node->safe_psql('postgres', 'select flush_errors, last_error from meshhook_metrics.status()'), '0|', 'and nothing is wrong');

# Evaluations that find the same as before tell nobody
notified($listener);
await_evaluation($node);
is(notified($listener), 0, 'evaluations without a change notify nobody');

# Flushes that somebody asks for bring no more evaluations than the interval allows
my $began = clock_gettime(CLOCK_MONOTONIC);
my $seen = evaluations($node);
$node->safe_psql('postgres', 'select meshhook_metrics.flush() from generate_series(1, 200)');
my $more = evaluations($node) - $seen;
cmp_ok($more, '<=', (clock_gettime(CLOCK_MONOTONIC) - $began) / 0.5 + 1, 'flush() does not bring further evaluations');

# The interval is changed while the server runs
sub reload_interval
{
	my ($interval) = @_;

	$node->adjust_conf('postgresql.conf', 'meshhook_metrics.alert_interval', "'$interval'");
	$node->reload;
	return;
}

sub seconds_without
{
	return $node->safe_psql('postgres', <<'SQL');
select extract(epoch from s.last_flush_at) - (regexp_match(meshhook_metrics.prometheus(), '\nmeshhook_metrics_last_alert_evaluation_timestamp_seconds (\S+)'))[1]::numeric
from meshhook_metrics.status() s
SQL
}
reload_interval('1h');
await(sub { seconds_without() >= 3 }, 'flushes without evaluations');
$seen = evaluations($node);
set_level($node, one => 1);
flush($node) for 1 .. 5;
is(evaluations($node), $seen, 'with a long interval flushes go on, and the rules are not evaluated');
is(events_of($node, 'one'), 'firing', 'so nothing changes');
is(keep($node, 'select meshhook_metrics.evaluate_alerts()'), 1, 'but who calls evaluate_alerts() has them evaluated');
is(evaluations($node), $seen, 'which is not counted as the worker\'s');
set_level($node, two => 1);
reload_interval('1s');
await_alerts($node, '');
await(sub { evaluations($node) > $seen }, 'an evaluation to be counted');
pass('with a short one they are, soon');

transitions_ok($node, 'after all of this');
unlike(slurp_file($node->logfile), qr/WARNING|ERROR/, 'and the log has nothing of it');

$listener->quit;
$node->stop;
done_testing();
