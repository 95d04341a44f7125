# Rounds of load, SIGKILL and counting, for survives_crash.pl here and the long
# loops in test/long. Each client's own log says which of its transactions came
# back; what the server says after its recovery must be all of those, and at
# most the one more that each client had under way.

package CrashRounds;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(crash_round);

# What a transaction of each kind of client does, and how many samples it is.
# The statement client shows that what was acknowledged is there; the loop is
# nearly always within the recording functions when it is killed.
my %work = (
	statement => {
		clients => 4,
		samples => 1,
		script => <<'SQL',
select
	meshhook_metrics.inc('statement_total', 1, jsonb_build_object('client', :client_id)),
	meshhook_metrics.observe('statement_seconds', 1, jsonb_build_object('client', :client_id));
SQL
	},
	loop => {
		clients => 3,
		samples => 5000,
		script => <<'SQL',
select set_config('mhm_test.labels', jsonb_build_object('client', :client_id)::text, false);
do $$
declare
	mine jsonb := current_setting('mhm_test.labels')::jsonb;
begin
	for i in 1 .. 5000 loop
		perform meshhook_metrics.inc('loop_total', 1, mine);
		perform meshhook_metrics.observe('loop_seconds', 1, mine);
		perform meshhook_metrics.inc('shared_total', 1, '{}');
		perform meshhook_metrics.observe('shared_seconds', 1, '{}');
		perform meshhook_metrics.gauge_set('loop_value', i, mine);
	end loop;
end
$$;
SQL
	});

my $started = 0;

sub start_load
{
	my ($node) = @_;
	my %load;

	for my $kind (sort keys %work)
	{
		my $prefix = $node->basedir . "/$kind." . ++$started;
		my $output = '';

		PostgreSQL::Test::Utils::append_to_file("$prefix.sql", $work{$kind}{script});
		$load{$kind} = {
			prefix => $prefix,
			output => \$output,
			run => IPC::Run::start(
				[
					'pgbench', '-n', '-c', $work{$kind}{clients}, '-j', 1,
					'-T', 60,
					'-l', "--log-prefix=$prefix.log", '-f', "$prefix.sql",
					'-h', $node->host, '-p', $node->port, 'postgres'
				],
				'>', '/dev/null', '2>', \$output)
		};
	}
	return \%load;
}

# How many transactions of each client came back, once all clients have ended
sub acknowledged
{
	my ($load) = @_;
	my %came_back;

	IPC::Run::finish($load->{run});
	for my $log (glob "$load->{prefix}.log.*")
	{
		for my $line (split /\n/, slurp_file($log))
		{
			my ($client, undef, $time) = split / /, $line;

			$came_back{$client}++ if $time =~ /^[0-9]+$/;
		}
	}
	return \%came_back;
}

sub backends
{
	my ($node) = @_;

	return split /\n/, $node->safe_psql('postgres', <<'SQL');
select pid
from pg_stat_activity
where query like '%meshhook_metrics.inc(%' and pid <> pg_backend_pid()
order by random()
SQL
}

# Samples of each client and metric as "count|sum"
sub counted
{
	my ($node) = @_;

	return map { my ($metric, $client, @rest) = split /\|/; ("$metric $client" => \@rest) }
	  split /\n/, $node->safe_psql('postgres', <<'SQL');
select metric, coalesce(labels ->> 'client', ''), count, sum
from meshhook_metrics.snapshot()
SQL
}

sub client_ok
{
	my ($kind, $client, $came_back, $counted) = @_;
	my $samples = $work{$kind}{samples};
	my ($least, $most) = ($came_back * $samples, ($came_back + 1) * $samples);
	my %count;

	for my $metric ("${kind}_total", "${kind}_seconds")
	{
		my ($count, $sum) = @{ $counted->{"$metric $client"} // [ 0, 0 ] };

		$count{$metric} = $count;
		return "$metric of client $client: $count samples sum up to $sum" if $count != $sum;
		return "$metric of client $client: $count samples, where $least to $most were recorded"
		  if $count < $least || $count > $most;
	}
	my $ahead = $count{"${kind}_total"} - $count{"${kind}_seconds"};
	return "client $client is $ahead samples ahead in ${kind}_total" if $ahead < 0 || $ahead > 1;
	return;
}

# One round: load a server, kill as told, start it again if need be, and count
sub crash_round
{
	my ($node, $how, $name) = @_;
	my ($load, %counted, @wrong, $transactions);

	$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
	$load = start_load($node);
	$node->poll_query_until('postgres', <<'SQL') or die 'the load does not begin';
select count(*) = 14 and min(count) > 20
from meshhook_metrics.snapshot()
where metric ~ '^(loop|statement)_(total|seconds)$'
SQL
	if ($how eq 'postmaster')
	{
		kill_server($node);
	}
	else
	{
		my @victims = backends($node);

		die 'no backend works for the load' if @victims < 3;
		splice @victims, $how eq 'backend' ? 1 : 3;
		kill 'KILL', @victims;
	}
	my %came_back = map { $_ => acknowledged($load->{$_}) } keys %$load;
	$node->start if $how eq 'postmaster';
	$node->poll_query_until('postgres', 'select true') or die 'the server does not come back';

	%counted = counted($node);
	for my $kind (sort keys %work)
	{
		for my $client (0 .. $work{$kind}{clients} - 1)
		{
			push @wrong, client_ok($kind, $client, $came_back{$kind}{$client} // 0, \%counted);
			$transactions += $came_back{$kind}{$client} // 0;
		}
	}

	# A series that all clients share has what the clients' own ones have: each
	# of them can be one sample further in its own.
	for my $unit ('total', 'seconds')
	{
		my ($shared, $sum) = @{ $counted{"shared_$unit "} };
		my $own = 0;

		$own += $counted{"loop_$unit $_"}[0] for 0 .. $work{loop}{clients} - 1;
		push @wrong, "shared_$unit: $shared samples sum up to $sum" if $shared != $sum;
		push @wrong, "shared_$unit: $shared samples, where the clients have $own"
		  if $shared > $own || $shared < $own - $work{loop}{clients};
	}
	is(join('; ', @wrong), '', "$name: all that came back is there, and nothing twice");
	consistent_ok($node, "$name: nothing contradicts itself");
	note("$name: $transactions transactions came back");
	return;
}

1;
