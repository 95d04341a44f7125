# What bench/rollup measures, one function per group of rows. Each begins with
# empty tables and takes days of its own, the past ones, as the real thing would.

package RollupMeasures;

use strict;
use warnings;

use List::Util qw(max sum);
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use Cluster;
use Peer;
use Report;
use Rounds qw(each_round progress ratio rounds);
use Run;
use Storage;

# Every size as [full, quick]
use constant SIZES => {
	minutes_before => [ 180, 5 ],
	minutes_closed => [ 20, 5 ],
	minutes_behind => [ 60, 3 ],
	event_series => [ 700, 20 ],
	event_rounds => [ 3, 1 ],
	leaf_series => [ 500, 200 ],
	leaf_minutes => [ 400, 200 ],
	range_days => [ 3, 1 ],
	range_rounds => [ 41, 3 ],
};

use constant MINUTES_OF_DAY => 1440;
use constant STEPS => 288;
use constant SERIES => 10_000;
use constant FLUSHES => 12;

# By how much a quantile out of buckets of schema 3 may be off
use constant QUANTILE_ERROR => 0.0443;

sub size { return Run::size(SIZES, @_) }

# The start of a day in the past, UTC
sub day
{
	my ($session, $ago) = @_;
	return scalar $session->sql("select date_trunc('day', now(), 'UTC') - interval '$ago days'");
}

# Closing minutes of twelve flushes of 10,000 series
sub minutes
{
	my ($report, $session) = @_;
	my $before = size('minutes_before');
	my $closed = size('minutes_closed');
	my $day = day($session, 4);
	my (@closings, @rollups);

	progress("minutes: closing $closed, after $before of the same series");
	$session->sql('call bench.empty_storage()');
	$session->sql("call bench.fill_minutes('$day', $before)");
	$session->sql('vacuum analyze meshhook_metrics.rollup_1m');
	my $minute = $before;
	my $close = sub {
		my $time = "'$day'::timestamptz + interval '1 minute' *";
		$session->sql("call bench.flush_minute($time $minute)");
		$minute++;
		return Storage::timed($session, "select meshhook_metrics.close_minutes($time $minute)");
	};
	my $close_after_checkpoint = sub {
		my ($compression) = @_;
		$session->sql("set wal_compression = $compression");
		$session->sql('checkpoint');
		return $close->();
	};
	my $compressed = $close_after_checkpoint->('on');
	my $after_checkpoint = $close_after_checkpoint->('off');
	$session->sql('select meshhook_metrics.rollup()');
	for my $round (1 .. $closed)
	{
		push @closings, $close->();
		push @rollups, Storage::timed($session, 'select meshhook_metrics.rollup()') if $minute % 5 == 0;
	}

	my $group = 'closing a minute of twelve flushes of 10,000 series';
	my $wal_of = sub {
		my ($units, @rounds) = @_;
		return [ map { $_->{wal} / $units } @rounds ];
	};
	$report->add($group, 'close_minutes()', 'ms', each_round('clock', \@closings));
	$report->add($group, '... by processor time', 'ms', each_round('cpu', \@closings));
	$report->add($group, 'WAL per minute row', 'bytes', $wal_of->(SERIES, @closings));
	$report->add($group, '... per changed series and flush', 'bytes', $wal_of->(SERIES * FLUSHES, @closings));
	$report->add($group, 'the first one after a checkpoint, WAL per minute row', 'bytes',
		$wal_of->(SERIES, $after_checkpoint));
	$report->add($group, '... with wal_compression', 'bytes', $wal_of->(SERIES, $compressed));
	$report->add($group, 'rollup() of five minutes of them', 'ms', each_round('clock', \@rollups));
	$report->add($group, '... WAL per row of five minutes', 'bytes', $wal_of->(SERIES, @rollups));
}

# Closing minutes that were left for an hour, step by step. The worker flushes after each
# step, so the longest one is what a flush waits for.
sub catching_up
{
	my ($report, $session) = @_;
	my $behind = size('minutes_behind');
	my $day = day($session, 3);

	for my $kind ([ 'histograms', 10_000 ], [ 'counters', 100_000 ])
	{
		my ($name, $series) = @$kind;
		my (@steps, $written);
		my $all = $behind * $series;

		progress("catching up: $behind minutes of $series $name");
		$session->sql('call bench.empty_storage()');
		$session->sql("call bench.leave_minutes('$name', $series, '$day', $behind)");
		$session->sql('vacuum analyze meshhook_metrics.live');
		$session->sql('checkpoint');
		for ($written = 0; $written < $all; $written = $session->sql('select count(*) from meshhook_metrics.rollup_1m'))
		{
			push @steps, Storage::timed($session, "select meshhook_metrics.close_minutes('$day'::timestamptz + $behind * interval '1 minute')");
			die "Minutes of $name were not closed.\n" if @steps > $behind;
		}
		die "$written minute rows were written, not $all.\n" if $written != $all;

		my $group = "catching up $behind minutes of $series $name, flushed every 5 s";
		$report->add($group, 'all of it', 's', [ sum(map { $_->{clock} } @steps) / 1000 ]);
		$report->add($group, 'the longest step, for which a flush waits', 'ms', [ max(map { $_->{clock} } @steps) ]);
	}
	$session->sql('call bench.empty_storage()');
}

# A day of minutes rolled up to hours, and the same hours from the events that the
# minutes stand for
sub hours
{
	my ($report, $session) = @_;
	my $series = size('event_series');
	my $rows = $series * MINUTES_OF_DAY;
	my $day = day($session, 1);
	my %ways = (
		'5m' => q{select meshhook_metrics.rollup('5m')},
		'1h' => q{select meshhook_metrics.rollup('1h')},
		'1d' => q{select meshhook_metrics.rollup('1d')},
		events => 'call bench.group_events()',
		narrow_events => 'call bench.group_narrow_events()',
	);

	progress("hours: $rows minute rows and ten events for each");
	$session->sql('call bench.empty_storage()');
	$session->sql("call bench.fill_events('$day', $series, @{[MINUTES_OF_DAY]})");
	$session->sql('vacuum analyze meshhook_metrics.rollup_1m, bench.events, bench.narrow_events');
	$session->sql('checkpoint');

	progress("hours: @{[size('event_rounds')]} rounds of rolling them up, and of group by over the events");
	my $measure = sub {
		my ($way) = @_;
		$session->sql('call bench.forget_rollups()') if $way ne '1d';
		return Storage::timed($session, $ways{$way});
	};
	my @order = qw(5m 1h narrow_events events);
	$measure->($_) for @order[ 0, 1 ];
	my %rounds = rounds(size('event_rounds'), \@order, $measure);

	$measure->('1h');
	my $days = $measure->('1d');
	Storage::timed($session, $ways{narrow_events});
	my ($agreeing, $hours, $worst) = Storage::row($session, 'select * from bench.compare_hours()');
	die "Only $agreeing of $hours hours are what the events say.\n" if $agreeing != $hours || $hours != 24 * $series;
	die "A quantile is off by $worst.\n" if $worst > QUANTILE_ERROR;

	my $group = "$rows minute rows of histograms, ten events each, to hours";
	my $times_of_rollup = sub {
		my ($way, $what) = @_;
		return ratio(each_round($what, $rounds{$way}), each_round($what, $rounds{'1h'}));
	};
	$report->add($group, 'percentile_disc of the events, in times of rollup()', 'x', $times_of_rollup->('events', 'clock'),
		at_least => 5);
	$report->add($group, '... by processor time', 'x', $times_of_rollup->('events', 'cpu'));
	$report->add($group, '... of events that have a number for their series', 'x',
		$times_of_rollup->('narrow_events', 'clock'), at_least => 5);
	$report->add($group, '... by processor time', 'x', $times_of_rollup->('narrow_events', 'cpu'));
	$report->add($group, 'rollup() to hours', 'ms', each_round('clock', $rounds{'1h'}));
	$report->add($group, '... of the same minutes to five minutes', 'ms', each_round('clock', $rounds{'5m'}));
	$report->add($group, '... of the hours to a day', 'ms', [ $days->{clock} ]);
	$report->add($group, 'count, sum, min, max, percentile_disc by hour', 'ms', each_round('clock', $rounds{events}));
	$report->add($group, '... of events that have a number for their series', 'ms',
		each_round('clock', $rounds{narrow_events}));
	$report->add($group, 'quantiles off by at most', '%', [ 100 * $worst ]);
}

# What rows take, indexes included, before and after maintain()
sub sizes
{
	my ($report, $session) = @_;
	my %days = (counter => day($session, 2), histogram => day($session, 3));
	my ($series, $minutes) = (size('leaf_series'), size('leaf_minutes'));
	my %bytes;

	progress("sizes: $minutes minutes of $series counters, and of as many histograms");
	$session->sql('call bench.empty_storage()');
	$session->sql("call bench.fill_leaf('$days{$_}', '$_', $series, $minutes)") for sort keys %days;
	$session->sql("update meshhook_metrics.rollup_state set complete_until = '@{[day($session, 0)]}' where target = '1m'");
	my $measure = sub {
		return
		  map { $_ => scalar $session->sql("select bench.bytes_per_row(bench.leaf('1m', '$days{$_}'))") } keys %days;
	};
	my %before = $measure->();
	# A run compacts one leaf
	my $leaves = $session->sql('select count(*) from meshhook_metrics.rollup_targets() t cross join lateral meshhook_metrics.leaves(t.target)');
	my @runs = map { Storage::timed($session, 'select meshhook_metrics.maintain()')->{clock} } 0 .. $leaves;
	my $again = pop @runs;
	my %after = $measure->();

	my $group = 'a minute row, indexes included';
	$report->add($group, 'counter', 'bytes', [ $after{counter} ], at_most => 140);
	$report->add($group, 'histogram of 30 filled buckets', 'bytes', [ $after{histogram} ], at_most => 260);
	$report->add($group, 'counter, on the day itself', 'bytes', [ $before{counter} ]);
	$report->add($group, 'histogram, on the day itself', 'bytes', [ $before{histogram} ]);
	$report->add($group, 'maintain() after these days, run by run: rolls up, compacts', 'ms', [ sum @runs ]);
	$report->add($group, 'maintain() with nothing to do', 'ms', [$again]);
}

# A day in steps of five minutes, as a tenant's user asks for it
sub ranges
{
	my ($report, $cluster, $session) = @_;
	my $until = $session->sql(q{select date_trunc('minute', now()) + interval '35 seconds'});
	my $range = "'$until'::timestamptz - interval '1 day', '$until', interval '5 minutes'";
	my $metrics = sub { return "select * from meshhook_metrics.query_range($_[0], $range" . ($_[1] // '') . ')' };
	my %queries = (
		increase => $metrics->(q{'bench_deliveries_total'}),
		p95 => $metrics->(q{'bench_duration_seconds'}),
		increase_by_queue => $metrics->(q{'bench_deliveries_total'}, q{, group_by => '{queue}'}),
		p95_by_status => $metrics->(q{'bench_duration_seconds'}, q{, group_by => '{status}'}),
		p95_of_one_queue => $metrics->(q{'bench_duration_seconds'}, q{, labels => '{"queue": "queue_3"}'}),
	);

	progress("ranges: @{[size('range_rounds')]} rounds of queries over a day, in @{[size('range_days')]} days");
	$session->sql('call bench.empty_storage()');
	$session->sql("call bench.fill_ranges('$until', @{[size('range_days')]})");
	$session->sql('vacuum analyze meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_5m, meshhook_metrics.rollup_1m');
	my $tenant = $session->sql('select bench.tenant(7)');
	my $user = Peer->session($cluster);
	$user->sql('set role authenticated');
	$user->sql(qq{set request.jwt.claims = '{"app_metadata": {"tenant_ids": ["$tenant"]}}'});
	check_increase($session, $user, $queries{increase}, $tenant, $until);

	my $measure = sub {
		my ($query) = @_;
		my $used = $user->sql('select mhm_empty.cpu_nanoseconds()');
		my $started = clock_gettime(CLOCK_MONOTONIC);
		my @rows = $user->sql($queries{$query});
		my $clock = (clock_gettime(CLOCK_MONOTONIC) - $started) * 1000;
		$used = $user->sql('select mhm_empty.cpu_nanoseconds()') - $used;
		die "$queries{$query} has " . @rows . " rows.\n" if @rows < STEPS;
		return { clock => $clock, cpu => $used / 1e6 };
	};
	my @order = qw(increase p95 increase_by_queue p95_by_status p95_of_one_queue);
	$measure->($_) for @order;
	my %rounds = rounds(size('range_rounds'), \@order, $measure);
	$user->close;

	my $group = 'query_range of 24 h at 5 min by a user, 100 series, 10 tenants';
	my %wanted = (
		increase => 'increase of a counter',
		p95 => 'p95 of a histogram',
		increase_by_queue => 'increase by one of two labels, 20 groups',
		p95_by_status => 'p95 by the other, 5 groups',
		p95_of_one_queue => 'p95 of the 5 series with one label',
	);
	for my $query (@order)
	{
		$report->add($group, $wanted{$query}, 'ms', each_round('clock', $rounds{$query}),
			$query =~ /_/ ? () : (at_most => 30));
		$report->add($group, '... by processor time of the server', 'ms', each_round('cpu', $rounds{$query}))
		  unless $query =~ /_/;
	}
}

# What the user gets is what the tables hold for his tenant
sub check_increase
{
	my ($session, $user, $query, $tenant, $until) = @_;
	my $got = $user->sql("select sum(value) from ($query) range");
	my $held = $session->sql(
		"select sum(t.sum)
		from (
			select r.series_id, r.bucket, r.sum from meshhook_metrics.rollup_5m r
			union all
			select r.series_id, r.bucket, r.sum from meshhook_metrics.rollup_1m r
			union all
			select e.id, l.at, e.sum from meshhook_metrics.live l cross join unnest(l.series_id, l.sum) e (id, sum)) t
		join meshhook_metrics.series s on s.id = t.series_id
		where s.tenant_id = '$tenant'
			and s.metric = 'bench_deliveries_total'
			and t.bucket >= date_bin('5 minutes', '$until'::timestamptz - interval '1 day', 'epoch')");
	die "query_range() has an increase of $got, the tables have $held.\n" if $got != $held;
}

1;
