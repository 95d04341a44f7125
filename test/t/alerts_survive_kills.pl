# Whoever is killed while alert rules are evaluated, and whatever ends the server: no change
# of an alert is lost, none happens or is told of twice, and what is pending or firing goes
# on as it was.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use FlushRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main', probe => 1);

level_rule($node, 'quick');
level_rule($node, 'slow', for_duration => '15 seconds');
level_rule($node, 'steady');
set_level($node, quick => 1, slow => 1, steady => 50);
await_alerts($node, 'steady firing');

# Of what is active, what has to outlive everything
sub state_of
{
	my ($name) = @_;

	return $node->safe_psql('postgres',
		"select state, since, started_at, fired_event_id, notified_at from meshhook_metrics.alerts where name = '$name'");
}
my $steady = state_of('steady');

# The worker, at the change that these levels bring
sub killed_ok
{
	my ($name, $point, $levels, $alerts, %events) = @_;
	my $mark = log_mark($node);
	my $committed;

	plan_faults($node, "$point instructions 0 0 kill");
	set_level($node, %$levels);
	await_recovery($node, $mark, 1);
	ok(!faults_left($node), "$name: it was killed there");
	await_alerts($node, $alerts);
	$committed = $node->safe_psql('postgres', <<'SQL');
select max(e.at) < (select a.backend_start from pg_stat_activity a where a.backend_type = 'meshhook_metrics worker')
from meshhook_metrics.alert_events e
SQL
	is($committed, $point eq 'after_alerts' ? 't' : 'f', "$name: what was committed is not done again, what was not is");
	is(events_of($node, $_), $events{$_}, "$name: the events of $_") for sort keys %events;
	transitions_ok($node, $name);
	return;
}

killed_ok('killed before it commits that something fires', 'before_alerts', { quick => 50 }, 'quick firing, steady firing', quick => 'firing');
killed_ok('killed after it has committed that something is resolved', 'after_alerts', { quick => 1 }, 'steady firing', quick => 'firing resolved');

# What is pending goes on counting
killed_ok('killed before it commits that something is pending', 'before_alerts', { slow => 50 }, 'slow pending, steady firing', slow => 'pending');
my $began = q{select started_at from meshhook_metrics.alerts where name = 'slow'};
my $pending = $node->safe_psql('postgres', $began);
$node->restart;
remember_region($node);
is($node->safe_psql('postgres', $began), $pending, 'a restart while it is pending: it began when it did');
await_alerts($node, 'slow firing, steady firing');
is($node->safe_psql('postgres', <<'SQL'), 't', 'it fires when it has held for as long as it must, restarts included');
select f.started_at = p.started_at and f.at - p.started_at >= interval '15 seconds'
from meshhook_metrics.alert_events p
join meshhook_metrics.alert_events f on f.name = p.name and f.state = 'firing'
where p.name = 'slow' and p.state = 'pending'
SQL
transitions_ok($node, 'a restart while something is pending');

# What fires outlives every way to end the server
my $firing = state_of('slow');
$node->restart;
is(state_of('slow'), $firing, 'a restart: what fires goes on as it was');
$node->stop('immediate');
$node->start;
is(state_of('slow'), $firing, 'an immediate shutdown: what fires goes on as it was');
kill_server($node);
$node->start;
is(state_of('slow'), $firing, 'the postmaster killed: what fires goes on as it was');
await_evaluation($node);
is(state_of('slow'), $firing, 'also when it was evaluated again');

# A session that evaluates, with changes that are not committed
sub killed_session_ok
{
	my ($name, $levels, $hold, $alerts) = @_;
	my $session = session($node);
	my $other = session($node);
	my $mark = log_mark($node);
	my $pid = $session->query_safe('select pg_backend_pid()');

	# Nobody else evaluates from here on
	$session->query_safe('begin; set local role keeper; select meshhook_metrics.evaluate_alerts();');
	set_level($node, %$levels);
	flush($node);
	$hold->($session, $other);
	kill 'KILL', $pid;
	await_recovery($node, $mark, 1);
	await_alerts($node, $alerts);
	transitions_ok($node, $name);
	# They have lost their server
	eval { $_->quit } for $session, $other;
	return;
}

killed_session_ok(
	'a session killed that has evaluated',
	{ quick => 50 },
	sub {
		my ($session) = @_;

		is($session->query_safe('select meshhook_metrics.evaluate_alerts(clock_timestamp())'), 1, 'a session changes an alert');
	},
	'quick firing, slow firing, steady firing');

keep($node, <<'SQL');
create function public.hold() returns trigger
language plpgsql as $$
begin
	if pg_catalog.current_setting('application_name') = 'held' then
		perform pg_catalog.pg_advisory_xact_lock(4711);
	end if;
	return new;
end
$$;
create trigger hold before insert on meshhook_metrics.alert_events for each row execute function public.hold();
SQL
killed_session_ok(
	'a session killed in the middle of an evaluation',
	{ quick => 1, slow => 1 },
	sub {
		my ($session, $other) = @_;

		$other->query_safe('select pg_advisory_lock(4711)');
		$session->query_until(qr/evaluating/, "set local application_name = 'held';\n\\echo evaluating\nselect meshhook_metrics.evaluate_alerts(clock_timestamp());\n");
		$node->poll_query_until('postgres', q{select exists (select from pg_stat_activity where application_name = 'held' and wait_event = 'advisory')})
		  or die 'the session does not wait';
		return;
	},
	'steady firing');
keep($node, 'drop function public.hold() cascade');

is(events_of($node, 'quick'), 'firing resolved firing resolved', 'in all, everything has happened once');
is(events_of($node, 'slow'), 'pending firing resolved', 'of what has to hold for a while, too');
is(state_of('steady'), $steady, 'and what has fired from the beginning does so as from the beginning');

$node->stop;
done_testing();
