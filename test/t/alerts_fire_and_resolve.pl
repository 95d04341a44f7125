# Alerts on their whole way: what clients record is flushed, evaluated by the worker right
# after, written as an event, announced, and put into the outbox; and the same when it is
# over. It takes a flush interval and what the evaluation takes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use IPC::Run ();
use JSON::PP ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';
my $node = new_alert_cluster('main');
my $listener = listening($node);

my $ratio = add_rule(
	$node,
	name => 'Too many runs fail',
	tenant_id => $tenant,
	metric => 'runs_total',
	labels => '{"status": "failed"}',
	denominator_metric => 'runs_total',
	denominator_min => 10,
	aggregate => 'increase',
	group_by => '{queue}',
	threshold => 0.2,
	time_window => '10 seconds',
	severity => 'critical',
	annotations => '{"summary": "{{ value }} of the runs in {{ labels.queue }} fail, more than {{ threshold }}", "runbook_url": "https://example.com/runs"}');
my $slow = add_rule(
	$node,
	name => 'Runs are slow',
	tenant_id => $tenant,
	metric => 'run_seconds',
	aggregate => 'p95',
	threshold => 5,
	time_window => '10 seconds',
	for_duration => '1 second');
$node->safe_psql('postgres', <<"SQL");
insert into meshhook_metrics.alert_receivers (tenant_id, name) values ('$tenant', 'on call'), ('$tenant', 'log')
SQL

# Clients with runs in two queues
sub start_load
{
	my ($name, $status, $seconds) = @_;
	my $script = $node->basedir . "/$name.sql";

	append_to_file($script, <<"SQL");
select
	meshhook_metrics.inc('runs_total', 1, '{"status": "ok", "queue": "good"}', '$tenant'),
	meshhook_metrics.inc('runs_total', 1, '{"status": "ok", "queue": "bad"}', '$tenant'),
	meshhook_metrics.inc('runs_total', 1, '{"status": "$status", "queue": "bad"}', '$tenant'),
	meshhook_metrics.observe('run_seconds', $seconds, '{}', '$tenant');
SQL
	return IPC::Run::start(
		[
			'pgbench', '-n', '-c', 2, '-j', 1, '-T', 600, '-R', 200, '-f', $script,
			$node->connstr('postgres') . " application_name=$name"
		],
		'>', '/dev/null', '2>', '/dev/null');
}

sub end_load
{
	my ($name, $load) = @_;

	$node->safe_psql('postgres', "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '$name'");
	IPC::Run::finish($load);
	return;
}

my $failing = start_load('failing', 'failed', 30);

await_alerts($node, 'Runs are slow firing, Too many runs fail {"queue": "bad"} firing');
is(events_of($node, 'Runs are slow'), 'pending firing', 'what has to hold for a while is pending first');
is(events_of($node, 'Too many runs fail'), 'firing', 'what has not, fires at once');
is($node->safe_psql('postgres', <<'SQL'), 't|t|t', 'an alert knows its value, since when, and what it is about');
select a.value > 0.4 and a.value < 0.6, a.since = e.at, a.started_at <= a.since
from meshhook_metrics.alerts a
join meshhook_metrics.alert_events e on e.id = a.fired_event_id
where a.name = 'Too many runs fail'
SQL
cmp_ok(notified($listener), '>=', 2, 'a session that listens is notified');

# The outbox, as Alertmanager's receivers read it
sub notifications
{
	my ($rule) = @_;

	return map { JSON::PP::decode_json($_) } split /\n/, $node->safe_psql('postgres',
		"select payload from meshhook_metrics.alert_notifications where rule_id = '$rule' order by id");
}

my @told = notifications($ratio);
is(join(', ', sort map { $_->{receiver} } @told), 'log, on call', 'each receiver is told, once');
my ($value) = $told[0]{alerts}[0]{annotations}{summary} =~ /^(0\.[0-9]{1,6}) of the runs in bad fail, more than 0\.2$/;
ok($value > 0.2, 'in words') or diag(explain($told[0]));
my ($starts_at) = split /\n/, $node->safe_psql('postgres', <<'SQL');
select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
from meshhook_metrics.alert_events
where name = 'Too many runs fail'
SQL
my %labels = (alertname => 'Too many runs fail', severity => 'critical', tenant_id => $tenant, queue => 'bad');
my %annotations = (summary => "$value of the runs in bad fail, more than 0.2", runbook_url => 'https://example.com/runs');
my %alert = (
	status => 'firing',
	labels => \%labels,
	annotations => \%annotations,
	startsAt => $starts_at,
	endsAt => '0001-01-01T00:00:00Z',
	generatorURL => '',
	fingerprint => $told[0]{alerts}[0]{fingerprint});
my %message = (
	version => '4',
	groupKey => qq({}/{rule_id="$ratio"}:{tenant_id="$tenant"}),
	truncatedAlerts => 0,
	status => 'firing',
	groupLabels => { alertname => 'Too many runs fail', tenant_id => $tenant },
	commonLabels => \%labels,
	commonAnnotations => \%annotations,
	externalURL => '',
	alerts => [ \%alert ]);
is_deeply($_, { %message, receiver => $_->{receiver} }, "the notification of $_->{receiver} is Alertmanager's, version 4") for @told;

# The load goes on, and nothing new happens
my $seen = evaluations($node);
notified($listener);
await(sub { evaluations($node) >= $seen + 2 }, 'further evaluations');
is(active($node), 'Runs are slow firing, Too many runs fail {"queue": "bad"} firing', 'while it holds nothing changes');
is(notified($listener), 0, 'and nobody is notified');

# The failures stop. Before they have left the window there is time to see how long it takes
# from a sample to the commit of what it brings about.
end_load('failing', $failing);
my $sound = start_load('sound', 'ok', 0.1);
my @latencies;
for my $round (1 .. 3)
{
	level_rule($node, "late_$round");
	my $recorded_at = $node->safe_psql('postgres', "select clock_timestamp() from meshhook_metrics.gauge_set('late_$round', 50)");

	$node->poll_query_until('postgres', "select exists (select from meshhook_metrics.alerts where name = 'late_$round')")
	  or die 'it does not fire';
	push @latencies, $node->safe_psql('postgres', <<"SQL");
select extract(epoch from pg_xact_commit_timestamp(e.xmin) - '$recorded_at')
from meshhook_metrics.alert_events e
where e.name = 'late_$round'
SQL
}
note("seconds from a sample to the commit of its event: @latencies");
is(scalar(grep { $_ < 0 || $_ > 30 } @latencies), 0, 'soon after the sample its event is committed');

await_alerts($node, 'late_1 firing, late_2 firing, late_3 firing');
is(events_of($node, 'Runs are slow'), 'pending firing resolved', 'runs are fast again');
is(events_of($node, 'Too many runs fail'), 'firing resolved', 'and none fails');
cmp_ok(notified($listener), '>=', 2, 'a session that listens is notified of that');
@told = notifications($ratio);
is(scalar @told, 4, 'each receiver is told, once');
$message{status} = $alert{status} = 'resolved';
($alert{endsAt}, $alert{annotations}{summary}) = split /\|/, $node->safe_psql('postgres', <<'SQL');
select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), annotations ->> 'summary'
from meshhook_metrics.alert_events
where name = 'Too many runs fail' and state = 'resolved'
SQL
is_deeply($_, { %message, receiver => $_->{receiver} }, "the end of it for $_->{receiver}") for @told[ 2, 3 ];
end_load('sound', $sound);

transitions_ok($node, 'after all of this');
unlike(slurp_file($node->logfile), qr/WARNING|ERROR/, 'and the log has nothing of it');

$listener->quit;
$node->stop;
done_testing();
