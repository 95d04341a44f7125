# Locks that others hold on the tables of alerting, and a disk that is full for them, cost
# evaluations and nothing else: metrics are flushed, status() says what is wrong, the log has
# it once, and the alerts go on when it is over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use ServerFaults;
use Test::More;

my $node = new_alert_cluster('main');
my $rounds = 0;

start_faulty($node);

sub record
{
	my ($level) = @_;

	$rounds++;
	$node->safe_psql('postgres', "select meshhook_metrics.inc('calls_total', 3)");
	set_level($node, level => $level);
	return;
}

# Meanwhile the worker flushes, and goes on to do so; it has evaluated in vain
sub goes_on_ok
{
	my ($name, $mark, $error) = @_;

	await_status($node, "last_error = 'could not evaluate alert rules: $error'");
	pass("$name: status() says so");
	flush($node) for 1 .. 3;
	is(stored_total($node, 'calls_total'), "$rounds|" . 3 * $rounds, "$name: what was recorded is stored, once");
	is(scalar(() = log_since($node, $mark) =~ /WARNING: /g), 1, "$name: the log has it once");
	return;
}

# Where nothing has been written yet the tables have to grow
for my $table (qw(alert_events alert_notifications))
{
	keep($node, 'truncate meshhook_metrics.alert_events, meshhook_metrics.alert_notifications');
	my $path = $node->safe_psql('postgres', "select pg_relation_filepath('meshhook_metrics.$table')");
	my $mark = log_mark($node);

	level_rule($node, 'first');
	fill_disk($node, $node->data_dir . "/$path");
	set_level($node, first => 50);
	record(1);
	goes_on_ok("a disk that is full for $table", $mark, qq(could not extend file "$path": No space left on device));
	free_disk($node);
	await_alerts($node, 'first firing');
	await_status($node, 'last_error is null');
	is(events_of($node, 'first'), 'firing', "a disk that has room for $table again: it fires, once");
	keep($node, 'delete from meshhook_metrics.alert_rules');
	await_alerts($node, '');
	transitions_ok($node, "a disk that was full for $table");
}

# Who holds them
level_rule($node, 'level');
my $up = 0;
for my $lock (
	[ 'alert_rules', 'lock table meshhook_metrics.alert_rules in access exclusive mode' ],
	[ 'alerts', 'lock table meshhook_metrics.alerts in share mode' ],
	[ 'alert_events', 'lock table meshhook_metrics.alert_events in share mode' ],
	[ 'alert_state', 'lock table meshhook_metrics.alert_state in share mode' ],
	[ 'what is evaluated', 'select meshhook_metrics.evaluate_alerts()' ])
{
	my ($what, $sql) = @$lock;
	my $holder = session($node);
	my $mark = log_mark($node);

	$up = !$up;
	$holder->query_safe("begin; $sql");
	record($up ? 50 : 1);
	goes_on_ok("$what held", $mark, 'canceling statement due to lock timeout');
	$holder->query_safe('commit');
	$holder->quit;
	await_status($node, 'last_error is null');
	await_alerts($node, $up ? 'level firing' : '');
}
is(events_of($node, 'level'), 'firing resolved firing resolved firing', 'after locks: what has changed meanwhile is seen, once');

# Who delivers, and takes long for it, holds up nobody: what he has taken neither gives way to
# the next that fires, nor does the next wait for it
add_rule($node, name => 'grouped', metric => 'grouped', aggregate => 'last', threshold => 10, time_window => '1 hour', group_by => '{queue}');
$node->safe_psql('postgres', q{select meshhook_metrics.gauge_set('grouped', 50, '{"queue": "a"}')});
await_alerts($node, 'grouped {"queue": "a"} firing, level firing');
keep($node, <<'SQL');
insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload, attempts)
values ('00000000-0000-0000-0000-000000000000', gen_random_uuid(), 'default', '{}', 12)
SQL
my $deliverer = session($node);
my $mark = log_mark($node);
is($deliverer->query_safe('begin; select count(*) > 1 from meshhook_metrics.claim_notifications(100)'), 't', 'somebody takes notifications');
$node->safe_psql('postgres', q{select meshhook_metrics.gauge_set('grouped', 50, '{"queue": "b"}')});
record(1);
await_alerts($node, 'grouped {"queue": "a"} firing, grouped {"queue": "b"} firing');
is(events_of($node, 'level'), 'firing resolved firing resolved firing resolved', 'a deliverer that takes long: the rules are evaluated');
is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), '', 'and nobody complains');
is(errors_since($node, $mark), '', 'nor has anybody');
my $grouped = q{from meshhook_metrics.alert_notifications n join meshhook_metrics.alert_rules r on r.id = n.rule_id and r.name = 'grouped'};
is($node->safe_psql('postgres', "select count(*), count(n.dead_at) $grouped"), '2|0', 'what is being delivered does not give way');
is(keep($node, q{set lock_timeout = '10s'; select count(*) from meshhook_metrics.claim_notifications(100) where payload = '{}'}), 0, 'nor does another deliverer wait');
$deliverer->query_safe('rollback');
$deliverer->quit;
$node->safe_psql('postgres', q{select meshhook_metrics.gauge_set('grouped', 50, '{"queue": "c"}')});
await_alerts($node, join ', ', map { qq(grouped {"queue": "$_"} firing) } qw(a b c));
is($node->safe_psql('postgres', "select count(*), count(n.dead_at) $grouped"), '3|2', 'and does when it is not any more');
transitions_ok($node, 'all of this');

$node->stop;
done_testing();
