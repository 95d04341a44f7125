# Clusters that evaluate alert rules each second, and what must be true of their alerts,
# events and notifications whatever has happened, for test/t/alerts_*.pl and the loop in
# test/long.
#
# Rules here never repeat themselves and are not silenced, so that each event that people
# are told of has its one place in the outbox.

package AlertRounds;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  new_alert_cluster keep add_rule set_level level_rule
  health evaluations await_evaluation await_alerts events_of active transitions_ok
  listening notified start_clients end_clients errors_since
);

# A running cluster whose storage belongs to "keeper", who is no superuser. With probe => 1
# there is the one that kills its worker; other settings as of new_metrics_cluster().
sub new_alert_cluster
{
	my ($name, %settings) = @_;
	my $probe = delete $settings{probe} ? ', mhm_probe' : '';
	my $node = new_plain_cluster($name);

	$node->append_conf('postgresql.conf', <<"CONF");
shared_preload_libraries = 'meshhook_metrics$probe'
track_commit_timestamp = on
CONF
	configure($node, flush_interval => "'1s'", alert_interval => "'1s'", max_series => 300, max_histograms => 50, %settings);
	$node->start;
	remember_region($node);
	$node->safe_psql('postgres', 'create role keeper login; alter database postgres owner to keeper');
	install_storage($node, role => 'keeper');
	$node->safe_psql('postgres', 'create extension mhm_probe') if $probe;
	return $node;
}

# As the owner of the database and the storage
sub keep
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'keeper' ]);
}

# A rule of these columns; what it is about is up to them
sub add_rule
{
	my ($node, %columns) = @_;
	my %rule = (tenant_id => '00000000-0000-0000-0000-000000000000', repeat_interval => undef, %columns);
	my @names = sort keys %rule;
	my $values = join ', ', map { defined $rule{$_} ? "'" . $rule{$_} =~ s/'/''/gr . "'" : 'null' } @names;

	return keep($node, "insert into meshhook_metrics.alert_rules (@{[ join ', ', @names ]}) values ($values) returning id");
}

# A rule of a gauge of its name: above 10 it is met, at once
sub level_rule
{
	my ($node, $name, %columns) = @_;

	return add_rule($node, name => $name, metric => $name, aggregate => 'last', threshold => 10, time_window => '1 hour', %columns);
}

# What such gauges show from now on: name => value
sub set_level
{
	my ($node, %levels) = @_;
	my $calls = join ', ', map { "meshhook_metrics.gauge_set('$_', $levels{$_})" } sort keys %levels;

	$node->safe_psql('postgres', "select $calls");
	return;
}

# A number of the extension's own health in prometheus()
sub health
{
	my ($node, $name) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select (regexp_match(meshhook_metrics.prometheus(), '\\nmeshhook_metrics_$name (\\S+)'))[1]
SQL
}

sub evaluations
{
	my ($node) = @_;

	return health($node, 'alert_evaluations_total');
}

# Wait until the worker has evaluated what there is now
sub await_evaluation
{
	my ($node) = @_;
	my $until;

	flush($node);
	# One may be under way that has not seen it
	$until = evaluations($node) + 2;
	await(sub { evaluations($node) >= $until }, 'the worker to evaluate the rules');
	return;
}

# What is active: "name state" of each, in order
sub active
{
	my ($node) = @_;

	return $node->safe_psql('postgres', <<'SQL');
select coalesce(string_agg(concat_ws(' ', name, nullif(labels::text, '{}'), state), ', ' order by name, labels), '')
from meshhook_metrics.alerts
SQL
}

# Wait until just these are active
sub await_alerts
{
	my ($node, $expected) = @_;
	my $found;

	eval {
		await(sub { $found = active($node); $found eq $expected }, "alerts to be: $expected");
		1;
	} or die "$@ (they are: $found)";
	return;
}

# The states through which the alerts of a rule have gone
sub events_of
{
	my ($node, $name) = @_;

	return $node->safe_psql('postgres',
		"select coalesce(string_agg(state, ' ' order by id), '') from meshhook_metrics.alert_events where name = '$name'");
}

# Every alert's way is a legal one, what is active is where its way has come to, and the
# outbox has each event that people are told of once. Where rules are deleted meanwhile, an
# evaluation must have seen the last of it: one that loses its rule between firing and
# telling is told of neither time, and resolved by the next evaluation.
sub transitions_ok
{
	my ($node, $name) = @_;
	my $problems = $node->safe_psql('postgres', <<'SQL');
with
	ways as (
		select
			e.*,
			lag(e.state) over way as state_before,
			lag(e.id) over way as id_before,
			lag(e.at) over way as at_before,
			lag(e.started_at) over way as started_before,
			lead(e.id) over way is null as is_last
		from meshhook_metrics.alert_events e
		window way as (partition by e.rule_id, e.fingerprint order by e.id)
	),
	told as (
		select
			n.id,
			n.rule_id,
			n.receiver,
			n.created_at,
			a.alert ->> 'fingerprint' as fingerprint,
			a.alert ->> 'status' as status,
			(a.alert ->> 'startsAt')::timestamptz as starts_at,
			(a.alert ->> 'endsAt')::timestamptz as ends_at
		from meshhook_metrics.alert_notifications n
			cross join lateral jsonb_array_elements(n.payload -> 'alerts') a (alert)
	),
	to_tell as (
		select e.*, coalesce(r.name, 'default') as receiver
		from meshhook_metrics.alert_events e
			left join meshhook_metrics.alert_receivers r on r.tenant_id = e.tenant_id
		where e.state in ('firing', 'resolved')
	)
select format('no legal step after %s: %s', coalesce(w.state_before, 'nothing'), w)
from ways w
where (coalesce(w.state_before, 'inactive'), w.state) not in (
	('inactive', 'pending'), ('inactive', 'firing'), ('resolved', 'pending'), ('resolved', 'firing'),
	('pending', 'firing'), ('pending', 'inactive'), ('firing', 'resolved'))
union all
select format('resolves another one than %s: %s', w.id_before, w)
from ways w
where w.fired_event_id is distinct from case when w.state = 'resolved' then w.id_before end
union all
select format('before its predecessor of %s: %s', w.at_before, w)
from ways w
where w.at < w.at_before
union all
select format('began at another time than its predecessor, %s: %s', w.started_before, w)
from ways w
where w.state_before in ('pending', 'firing') and w.started_at <> w.started_before
union all
select format('fired too early: %s', w)
from ways w
	join meshhook_metrics.alert_rules r on r.id = w.rule_id
where w.state = 'firing' and w.reason = 'threshold' and w.at - w.started_at < r.for_duration
union all
select format('active, but not so: %s, last event %s', a, w)
from (select * from ways where is_last) w
	full join meshhook_metrics.alerts a on a.rule_id = w.rule_id and a.fingerprint = w.fingerprint
where (a.state, a.since, a.started_at, a.fired_event_id) is distinct from
	case when w.state in ('pending', 'firing') then (w.state, w.at, w.started_at, case w.state when 'firing' then w.id end) end
	and not (a.rule_id is null and w.state in ('resolved', 'inactive'))
union all
select format('told of %s times: %s', t.times, e)
from to_tell e
	cross join lateral (
		select count(*) as times
		from told t
		where t.rule_id = e.rule_id
			and t.receiver = e.receiver
			and t.fingerprint = e.fingerprint
			and t.status = e.state
			and t.created_at = e.at) t
where t.times > 1
	or t.times = 0
	and not exists (
		-- A rule that is deleted while it fires may be told of neither time
		select
		from meshhook_metrics.alert_events r
		where r.fired_event_id = coalesce(e.fired_event_id, e.id)
			and r.reason in ('deleted', 'disabled')
			and not exists (select from told o where o.fingerprint = r.fingerprint and o.created_at in (r.at, e.at)))
union all
select format('told of, but has not happened: %s', t)
from told t
where not exists (
	select
	from to_tell e
		left join meshhook_metrics.alert_events f on f.id = e.fired_event_id
	where e.rule_id = t.rule_id
		and e.fingerprint = t.fingerprint
		and case t.status
			when 'firing' then e.state = 'firing' and e.at = t.starts_at and t.ends_at = '0001-01-01 00:00:00+00'
			else e.state = 'resolved' and e.at = t.ends_at and f.at = t.starts_at
		end)
union all
select format('told of in another order: notification %s before %s', t.id, u.id)
from told t
	join told u on u.rule_id = t.rule_id and u.fingerprint = t.fingerprint and u.receiver = t.receiver
		and u.id < t.id and coalesce(nullif(u.ends_at, '0001-01-01 00:00:00+00'), u.starts_at) > coalesce(nullif(t.ends_at, '0001-01-01 00:00:00+00'), t.starts_at)
limit 10
SQL

	is($problems, '', "$name: no change is lost, and none happens twice");
	return;
}

# A session that is notified of changes
sub listening
{
	my ($node) = @_;
	my $session = session($node);

	$session->query_safe('listen meshhook_metrics_alerts');
	return $session;
}

# How often it was notified since it was asked last
sub notified
{
	my ($session) = @_;

	return scalar(() = $session->query_safe('select 1') =~
		  /Asynchronous notification "meshhook_metrics_alerts" with payload "changed" received/g);
}

my @clients;

# Clients that do the same over and over, as the owner, until end_clients()
sub start_clients
{
	my ($node, $name, $count, $script) = @_;
	my $file = $node->basedir . "/$name.sql";
	my $output = '';

	unlink $file;
	append_to_file($file, $script);
	push @clients, {
		name => $name,
		run => IPC::Run::start(
			[
				'pgbench', '-n', '-c', $count, '-j', 1, '-T', 600, '-f', $file,
				$node->connstr('postgres') . " user=keeper application_name=$name"
			],
			'>', '/dev/null', '2>', \$output)
	};
	$node->poll_query_until('postgres', "select count(*) = $count from pg_stat_activity where application_name = '$name'")
	  or die "no clients are $name: $output";
	return;
}

# How many of them were there to the end
sub end_clients
{
	my ($node) = @_;
	my $left = 0;

	for my $client (@clients)
	{
		$left += $node->safe_psql('postgres', <<"SQL");
select count(pg_terminate_backend(pid))
from pg_stat_activity
where application_name = '$client->{name}'
SQL
		IPC::Run::finish($client->{run});
	}
	@clients = ();
	return $left;
}

# What the log has of errors since a mark
sub errors_since
{
	my ($node, $mark) = @_;

	return join "\n", grep { /(?:ERROR|WARNING|PANIC): / } split /\n/, log_since($node, $mark);
}

1;
