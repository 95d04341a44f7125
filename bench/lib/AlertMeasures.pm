# What bench/alerts measures, one function per group of rows.

package AlertMeasures;

use strict;
use warnings;

use List::Util qw(max);

use Cluster;
use Peer;
use Report;
use Rounds qw(each_round progress ratio);
use Run;
use Storage;

# Every size as [full, quick]
use constant SIZES => {
	tenants => [ 1000, 50 ],
	cycles => [ 15, 1 ],
	few_rounds => [ 21, 2 ],
	crossings => [ 40, 1 ],
	slow_crossings => [ 8, 1 ],
	slow_seconds => [ 5, 2 ],
	large_rules => [ 100, 5 ],
	large_series => [ 9000, 300 ],
	rounds_not_counted => [ 1, 0 ],
};

use constant RULES_EACH => 10;
use constant SERIES_EACH => 10;
use constant TENANTS_OF_FEW_RULES => 10;

# Rules that query_range() answers for: those of every fiftieth tenant
use constant SHARE_QUERIED => 1 / 50;

sub size { return Run::size(SIZES, @_) }

# A number as people write it
sub written
{
	my ($number) = @_;
	1 while $number =~ s/^(\d+)(\d{3})/$1,$2/;
	return $number;
}

# Rules of as many tenants as there are, with nothing to tell, with something to tell
# in every tenth, and when that begins and ends
sub evaluations
{
	my ($report, $session) = @_;
	my $tenants = size('tenants');
	my $rules = $tenants * RULES_EACH;
	my $minute = $session->sql(q{select date_trunc('minute', now()) - interval '1 minute'});

	progress('evaluations: filling the tables with ' . written($tenants * SERIES_EACH) . ' series');
	$session->sql("call bench.fill($tenants, '$minute')");
	$session->sql("call bench.make_rules($tenants)");
	$session->sql('vacuum analyze');
	my %moment = map { $_ => "bench.flush_time('$minute', $_)" } 10 .. 12;
	my $wrong = $session->sql("select bench.wrong_values($moment{12})");
	die "$wrong rules have another value than the tables.\n" if $wrong;

	my $evaluate = sub {
		my ($flushes, $firing) = @_;
		my $round = Storage::timed($session, "select meshhook_metrics.evaluate_alerts($moment{$flushes})");
		my ($evaluated, $failing, $now_firing) = Storage::row($session, 'select * from bench.alerting()');
		die "Of $evaluated rules $failing failed, and $now_firing alerts fire.\n"
		  if $evaluated != $rules || $failing || $now_firing != $firing;
		return $round;
	};
	my %rounds;
	my $cycle = sub {
		push @{ $rounds{quiet} }, map { $evaluate->($_, 0) } 11, 12;
		push @{ $rounds{queries} }, Storage::timed($session, "call bench.query_each($moment{12})");
		$session->sql('call bench.set_firing(true)');
		push @{ $rounds{fires} }, $evaluate->(10, $tenants);
		push @{ $rounds{firing} }, map { $evaluate->($_, $tenants) } 11, 12;
		$session->sql('call bench.set_firing(false)');
		push @{ $rounds{resolves} }, $evaluate->(12, 0);
		my $told = join ' ', (Storage::row($session, 'select * from bench.alerting()'))[ 3 .. 5 ];
		die "$tenants alerts fired and were resolved; events and notifications are $told.\n"
		  if $told ne join ' ', $tenants, $tenants, 2 * $tenants;
		$session->sql('call bench.forget_alerts()');
	};

	progress("evaluations: @{[size('cycles')]} cycles of $rules rules without, with and again without alerts");
	$cycle->();
	%rounds = ();
	$cycle->() for 1 .. size('cycles');

	my $group = written($rules) . ' rules of ' . written($tenants) . ' tenants, ' . written($tenants * SERIES_EACH) . ' series';
	my $add = sub {
		my ($name, $measure, @target) = @_;
		$report->add($group, $measure, 'ms', each_round('clock', $rounds{$name}), @target);
		$report->add($group, '... by processor time', 'ms', each_round('cpu', $rounds{$name}));
	};
	my $alerts = written($tenants);
	$add->('quiet', 'evaluate_alerts(), nothing to tell', at_most => 1000);
	$add->('firing', "... with $alerts alerts that fire", at_most => 1000);
	$add->('fires', "... in which $alerts alerts begin to fire");
	$add->('resolves', "... in which $alerts alerts are resolved");
	for my $name (qw(quiet firing fires))
	{
		my $what = { quiet => 'nothing to tell', firing => "$alerts alerts fire", fires => "$alerts begin to" }->{$name};
		$report->add($group, "WAL, $what", 'kB', [ map { $_->{wal} / 1024 } @{ $rounds{$name} } ]);
	}

	my @first_of_cycle = @{ $rounds{quiet} }[ map { 2 * $_ } 0 .. size('cycles') - 1 ];
	for (@{ $rounds{queries} })
	{
		$_->{clock} /= SHARE_QUERIED;
		$_->{cpu} /= SHARE_QUERIED;
	}
	my $times = sub {
		my ($what) = @_;
		return ratio(each_round($what, $rounds{queries}), each_round($what, \@first_of_cycle));
	};
	$report->add($group, 'query_range() for each, out of ' . written($rules * SHARE_QUERIED) . ' rules', 'ms',
		each_round('clock', $rounds{queries}));
	$report->add($group, '... in times of evaluate_alerts()', 'x', $times->('clock'));
	$report->add($group, '... by processor time', 'x', $times->('cpu'));

	few_rules($report, $session, $moment{12});
}

# Few rules in the same tables, whose series are looked for one by one
sub few_rules
{
	my ($report, $session, $moment) = @_;
	my $rules = TENANTS_OF_FEW_RULES * RULES_EACH;

	progress("evaluations: @{[size('few_rounds')]} rounds of $rules rules");
	$session->sql("call bench.make_rules(@{[TENANTS_OF_FEW_RULES]})");
	$session->sql('vacuum analyze meshhook_metrics.alert_rules');
	my $evaluate = sub { return Storage::timed($session, "select meshhook_metrics.evaluate_alerts($moment)") };
	$evaluate->();
	my @rounds = map { $evaluate->() } 1 .. size('few_rounds');
	my ($evaluated, $failing) = Storage::row($session, 'select * from bench.alerting()');
	die "Of $evaluated rules $failing failed.\n" if $evaluated != $rules || $failing;

	my $group = "$rules rules of @{[TENANTS_OF_FEW_RULES]} tenants, in the same tables";
	$report->add($group, 'evaluate_alerts()', 'ms', each_round('clock', \@rounds));
	$report->add($group, '... by processor time', 'ms', each_round('cpu', \@rounds));
}

# What the worker has had of memory, ever, in MB; what it did not use counts as well
sub peak
{
	my ($pid) = @_;
	my ($kilobytes) = Cluster::read_file("/proc/$pid/status") =~ /^VmPeak:\s+(\d+) kB/m;
	return ($kilobytes // die "Process $pid has no VmPeak.\n") / 1024;
}

# Rules that have each a window of their own, over all the histograms of a tenant
sub memory
{
	my ($report) = @_;
	my ($rules, $series) = map { size($_) } qw(large_rules large_series);
	my $cluster = Cluster->start('meshhook_metrics.flush_interval' => '1s', 'meshhook_metrics.alert_interval' => '1s');
	my $session = Storage::session_with_tables($cluster, 'sql/large_rules.sql');
	my $group = "$rules rules of p95 over " . written($series) . ' histograms each';

	progress("memory: $group");
	$session->sql('call bench.await_evaluation(0)');
	my $worker = $session->sql(q{select pid from pg_stat_activity where backend_type = 'meshhook_metrics worker'});
	my $before = peak($worker);
	$session->sql("call bench.make_large_rules($rules, $series)");
	$session->sql("call bench.await_evaluation($rules)");
	my $after = peak($worker);
	my $wrong = $session->sql('select bench.wrong_large_rules()');
	die "$wrong of $rules rules failed, or have another value than all of them.\n" if $wrong;
	$report->add($group, 'peak memory of an evaluation', 'MB', [ $after - $before ], at_most => 64);
	$session->close;
	$cluster->stop;
}

# From a sample to what is told of it, with a worker that has nothing else to do
sub crossings_alone
{
	my ($report, $rounds, $flush_seconds, $alert_seconds, @target) = @_;
	my $cluster = Cluster->start(
		'meshhook_metrics.flush_interval' => "${flush_seconds}s",
		'meshhook_metrics.alert_interval' => "${alert_seconds}s",
	);
	my $session = Storage::session_with_tables($cluster, 'sql/crossing.sql');
	crossings($report, $session, $rounds, $flush_seconds, "alert_interval $alert_seconds s", @target);
	$session->close;
	$cluster->stop;
}

# ... and with one that flushes and evaluates all that evaluations() did; the last
# measurement in that cluster, since the worker then goes on with its tables
sub crossings_under_load
{
	my ($report, $cluster, $session, @target) = @_;
	my $seconds = size('slow_seconds');
	my $tenants = size('tenants');

	$session->sql("call bench.make_rules($tenants)");
	$session->sql("\\i sql/crossing.sql\n");
	# What the worker would make up for first
	$session->sql("select meshhook_metrics.$_()") for qw(close_minutes maintain);
	$session->sql('vacuum analyze');
	$session->sql("alter system set $_") for (
		"meshhook_metrics.flush_interval = '${seconds}s'",
		"meshhook_metrics.alert_interval = '${seconds}s'",
		"meshhook_metrics.database = 'postgres'");
	$session->sql('select pg_reload_conf()');
	my $recorder = Peer->session($cluster);
	$recorder->send_sql("call bench.keep_busy('$seconds s')");
	crossings($report, $session, size('slow_crossings'), $seconds,
		'alert_interval the same, ' . written($tenants * RULES_EACH) . ' rules', @target);
	$session->sql('delete from bench.busy');
	$recorder->answer;
	$recorder->close;

	my ($rules, $failing) = Storage::row($session, 'select * from bench.alerting()');
	die "Of $rules rules $failing failed.\n" if $rules != $tenants * RULES_EACH + 1 || $failing;
	my $discarded = $session->sql('select sum(value::bigint) from meshhook_metrics.status(), jsonb_each_text(discarded)');
	die "$discarded samples were discarded.\n" if $discarded;
}

sub crossings
{
	my ($report, $session, $rounds, $flush_seconds, $circumstances, @target) = @_;
	my $group = "from sample to event, flush_interval $flush_seconds s, $circumstances";
	my (%seconds, @evaluations);

	progress("$group: $rounds samples each way");
	for my $round (1 - size('rounds_not_counted') .. $rounds)
	{
		for ([ 200, 'firing' ], [ 50, 'resolved' ])
		{
			my ($value, $state) = @$_;
			my $seconds = $session->sql("select bench.cross($value, '$state', '$flush_seconds s')");
			next if $round < 1;
			push @{ $seconds{$state} }, $seconds;
			push @evaluations, $session->sql('select bench.evaluation_milliseconds()');
		}
	}
	for my $state (qw(firing resolved))
	{
		$report->add($group, $state, 's', $seconds{$state}, @target);
		$report->add($group, '... the longest', 's', [ max @{ $seconds{$state} } ], @target);
	}
	$report->add($group, 'an evaluation', 'ms', \@evaluations);
}

1;
