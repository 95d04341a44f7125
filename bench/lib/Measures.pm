# What bench/record measures, one function per group of rows.

package Measures;

use strict;
use warnings;

use List::Util qw(max min sum);

use Cluster;
use Peer;
use Report;
use Rounds qw(by_round difference progress ratio rounds);
use Run;

# Every size as [full, quick]
use constant SIZES => {
	call_rounds => [ 31, 2 ],
	calls => [ 500_000, 20_000 ],
	statement_rounds => [ 25, 1 ],
	statement_seconds => [ 1, 1 ],
	backend_rounds => [ 15, 2 ],
	backend_rounds_tried => [ 400, 2 ],
	backend_calls => [ 100_000, 100_000 ],
	batch_rounds => [ 31, 2 ],
	batch_repeats => [ 5, 2 ],
	exposition_rounds => [ 15, 2 ],
	new_series_tenants => [ 20_000, 400 ],
};

use constant CLIENTS => 8;

# Fewer rounds have no median worth the name
use constant FEWEST_ROUNDS => 5;

# Backends that had a processor for less of the time were in each other's way,
# or something else was
use constant UNDISTURBED => 0.95;

use constant TENANT => q{'11111111-1111-4111-8111-111111111111'};
use constant LABELS => q{'{"queue": "webhooks", "status": "ok"}'};

sub size { return Run::size(SIZES, @_) }

sub new_session
{
	my ($cluster, $prepared) = @_;
	my $session = Peer->session($cluster);
	$session->sql("\\i sql/setup.sql\n") unless $prepared;
	return $session;
}

# inc and observe in a loop inside one statement, against the empty function in
# the same loop, and against prom-client
sub calls
{
	my ($report, $cluster, $prom_client) = @_;
	my $session = new_session($cluster, 1);
	my $calls = size('calls');

	# The loop that costs least: no row is stored, none is sent, and count()
	# only looks whether the result is null.
	my $loop = "from (select generate_series(1, $calls) as i) loop";
	my $many = "from bench.label_sets cross join (select generate_series(1, $calls / 100) as i) loop";
	my $inc = "inc('bench_deliveries_total', 1, @{[LABELS]}, @{[TENANT]})";
	my $observe = "observe('bench_duration_seconds', 0.0123, @{[LABELS]}, @{[TENANT]})";
	my $inc_many = "inc('bench_many_total', 1, labels, @{[TENANT]})";
	my $observe_many = "observe('bench_many_seconds', 0.0001::float8 * i, labels, @{[TENANT]})";
	my %statements = (
		loop => "select count(i) $loop",
		empty_inc => "select count(mhm_empty.$inc) $loop",
		inc => "select count(meshhook_metrics.$inc) $loop",
		empty_observe => "select count(mhm_empty.$observe) $loop",
		observe => "select count(meshhook_metrics.$observe) $loop",
		empty_inc_many => "select count(mhm_empty.$inc_many) $many",
		inc_many => "select count(meshhook_metrics.$inc_many) $many",
		empty_observe_many => "select count(mhm_empty.$observe_many) $many",
		observe_many => "select count(meshhook_metrics.$observe_many) $many",
	);
	my $nanoseconds = sub {
		my ($name) = @_;
		return $prom_client->nanoseconds_per_call($1, $calls) if $name =~ /^prom_(.*)/;
		return $session->sql("select bench.cpu_nanoseconds(\$\$$statements{$name}\$\$)") / $calls;
	};

	progress("calls: @{[size('call_rounds')]} rounds of $calls calls of each variant");
	$nanoseconds->($_) for keys %statements;
	my %ns = rounds(
		size('call_rounds'),
		[
			qw(loop empty_inc inc prom_inc prom_inc_tenant empty_observe observe prom_observe prom_observe_tenant
			  empty_inc_many inc_many empty_observe_many observe_many)
		],
		$nanoseconds);
	$session->close;

	for ([ inc => 80, 4 ], [ observe => 110, 5 ])
	{
		my ($function, $at_most, $times) = @$_;
		my $group = "$function in a loop inside one statement";
		my $net = difference($ns{$function}, $ns{"empty_$function"});

		$report->add($group, 'two labels and a tenant, above the empty function', 'ns', $net, at_most => $at_most);
		$report->add($group, "prom-client's labelled $function, in times of it", 'x', ratio($ns{"prom_$function"}, $net),
			at_least => $times);
		$report->add($group, '... with the tenant as third label, in times of it', 'x',
			ratio($ns{"prom_${function}_tenant"}, $net));
		$report->add($group, 'over 100 label sets read from a table, above the empty function', 'ns',
			difference($ns{"${function}_many"}, $ns{"empty_${function}_many"}));
		$report->add($group, 'with the loop and the call', 'ns', $ns{$function});
		$report->add($group, 'empty function, with the loop and the call', 'ns', $ns{"empty_$function"});
		$report->add($group, 'the loop alone', 'ns', $ns{loop});
		$report->add($group, "prom-client $function, two labels", 'ns', $ns{"prom_$function"});
		$report->add($group, "prom-client $function, two labels and the tenant", 'ns', $ns{"prom_${function}_tenant"});
	}
}

# Prepared statements of several clients
sub statements
{
	my ($report, $cluster) = @_;
	my $seconds = size('statement_seconds');
	my @options = ('-M', 'prepared', '-c', CLIENTS, '-j', 2, '-T', $seconds);

	# The closest comparison, inc with the empty function, is measured twice a
	# round around the others.
	my @order = qw(empty inc select_1 insert update insert_async update_async inc_again empty_again);

	progress("statements: @{[size('statement_rounds')]} rounds of $seconds s of each of " . @order . ' variants');
	my %runs = rounds(
		size('statement_rounds'),
		\@order,
		sub {
			my ($script) = @_;
			local $ENV{PGOPTIONS} = $script =~ s/_async$// ? '-c synchronous_commit=off' : '';
			$script =~ s/_again$//;
			return $cluster->pgbench("pgbench/$script.sql", @options);
		});
	my (%rate, %processor_rate);
	for my $script (keys %runs)
	{
		$rate{$script} = by_round(sub { $_[0]{per_second} }, $runs{$script});
		$processor_rate{$script} = by_round(sub { $_[0]{per_processor_second} }, $runs{$script});
	}
	for my $rates (\%rate, \%processor_rate)
	{
		$rates->{$_} = by_round(sub { sum(@_) / @_ }, $rates->{$_}, $rates->{"${_}_again"}) for qw(empty inc);
	}

	my $group = 'prepared statements, ' . CLIENTS . ' clients';
	$report->add($group, 'select inc(...), in times of the empty function', 'x', ratio($rate{inc}, $rate{empty}),
		at_least => 0.97);
	$report->add($group, 'select inc(...), in times of INSERT of an event', 'x', ratio($rate{inc}, $rate{insert}),
		at_least => 2.5);
	$report->add($group, 'select inc(...), in times of UPDATE of a counter row', 'x', ratio($rate{inc}, $rate{update}),
		at_least => 3);
	$report->add($group, '... of the empty function, by processor time of the server', 'x',
		ratio(@processor_rate{qw(inc empty)}));
	$report->add($group, '... of INSERT with synchronous_commit = off', 'x', ratio($rate{inc}, $rate{insert_async}));
	$report->add($group, '... of UPDATE with synchronous_commit = off', 'x', ratio($rate{inc}, $rate{update_async}));
	$report->add($group, 'select inc(...)', '/s', $rate{inc});
	$report->add($group, 'select of the empty function', '/s', $rate{empty});
	$report->add($group, 'select 1', '/s', $rate{select_1});
	$report->add($group, 'INSERT of an event', '/s', $rate{insert});
	$report->add($group, 'UPDATE of one of 100 counter rows', '/s', $rate{update});
}

# One backend and two backends on one series. Two backends need both processors
# of a small machine for themselves, so rounds are short, and those count in
# which they had them; if there are too few of these, all count.
sub backends
{
	my ($report, $cluster) = @_;
	my $calls = size('backend_calls');
	my $starter = new_session($cluster, 1);
	my @backends = map { new_session($cluster, 1) } 1 .. 2;
	my %functions = (
		inc => "meshhook_metrics.inc('bench_deliveries_total', 1, @{[LABELS]}, @{[TENANT]})",
		observe => "meshhook_metrics.observe('bench_duration_seconds', 0.0123, @{[LABELS]}, @{[TENANT]})",
		observe_spread =>
		  "meshhook_metrics.observe('bench_duration_seconds', 0.0001::float8 * (i % 1000), @{[LABELS]}, @{[TENANT]})",
		empty => "mhm_empty.inc('bench_deliveries_total', 1, @{[LABELS]}, @{[TENANT]})",
	);
	my $run = sub {
		my ($function, $count) = split / /, shift;
		my $statement = "select count($functions{$function}) from (select generate_series(1, $calls) as i) loop";
		return together($starter, $calls, $statement, @backends[ 0 .. $count - 1 ]);
	};

	my $wanted = size('backend_rounds');
	my $at_most = size('backend_rounds_tried');
	progress("backends: $wanted undisturbed rounds, of $at_most at most, of $calls calls in one and in two backends");
	my @order = map { ("$_ 1", "$_ 2") } qw(inc empty observe observe_spread);
	$run->($_) for @order;
	my (%rounds, %undisturbed);
	my ($tried, $found) = (0, 0);
	while ($found < $wanted && $tried < $at_most)
	{
		my %more = rounds(2, \@order, $run);
		for my $function (keys %functions)
		{
			my $pairs = by_round(sub { { one => $_[0], two => $_[1] } }, @more{ "$function 1", "$function 2" });
			push @{ $rounds{$function} }, @$pairs;
			push @{ $undisturbed{$function} }, grep { $_->{one}{undisturbed} && $_->{two}{undisturbed} } @$pairs;
		}
		$tried += 2;
		$found = min(map { scalar @$_ } values %undisturbed);
	}
	$_->close for $starter, @backends;
	for my $function (keys %functions)
	{
		$rounds{$function} = $undisturbed{$function} if @{ $undisturbed{$function} } >= FEWEST_ROUNDS;
	}

	my $group = 'two backends on one series, in times of one';
	my $scaling = sub {
		my ($function) = @_;
		return [ map { $_->{two}{per_second} / $_->{one}{per_second} } @{ $rounds{$function} } ];
	};
	my $processor_scaling = sub {
		my ($function) = @_;
		return [ map { 2 * $_->{two}{per_processor_second} / $_->{one}{per_processor_second} }
			  @{ $rounds{$function} } ];
	};
	$report->add($group, 'inc', 'x', $scaling->('inc'), at_least => 1.8);
	$report->add($group, 'observe, durations of 0 to 100 ms', 'x', $scaling->('observe_spread'));
	$report->add($group, 'observe, always the same duration', 'x', $scaling->('observe'));
	$report->add($group, 'empty function: what this machine can do', 'x', $scaling->('empty'));
	$report->add($group, 'inc, by processor time', 'x', $processor_scaling->('inc'));
	$report->add($group, 'observe, durations of 0 to 100 ms, by processor time', 'x',
		$processor_scaling->('observe_spread'));
	$report->add($group, 'observe, always the same duration, by processor time', 'x', $processor_scaling->('observe'));
	$report->add($group, 'empty function, by processor time', 'x', $processor_scaling->('empty'));
	$report->add($group, 'inc, two backends', '/s', [ map { $_->{two}{per_second} } @{ $rounds{inc} } ]);
	$report->add($group, 'undisturbed rounds of inc', 'rounds', [ scalar @{ $undisturbed{inc} } ]);
	$report->add($group, 'rounds tried', 'rounds', [$tried]);
}

# Run a statement of so many calls in all of the sessions at once, by the
# clocks inside them
sub together
{
	my ($starter, $calls, $statement, @sessions) = @_;

	$starter->sql('select pg_advisory_lock(1)');
	$_->send_sql("select * from bench.started_together(\$\$$statement\$\$)") for @sessions;
	my $waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
	1 until $starter->sql($waiting) == @sessions;
	$starter->sql('select pg_advisory_unlock(1)');

	my @runs = map { [ split /\|/, $_->answer ] } @sessions;
	my $seconds = max(map { $_->[1] } @runs) - min(map { $_->[0] } @runs);
	my $processor_seconds = sum(map { $_->[2] } @runs) / 1e9;
	return {
		per_second => @sessions * $calls / $seconds,
		per_processor_second => @sessions * $calls / $processor_seconds,
		undisturbed => $processor_seconds >= UNDISTURBED * @sessions * $seconds,
	};
}

# A batch of 1,000 samples, each in a transaction of its own
sub batches
{
	my ($report, $cluster) = @_;
	my $session = new_session($cluster, 1);
	my $repeats = size('batch_repeats');
	my @ways = (
		'empty', 'record', 'insert', 'insert indexed', 'insert arrays', 'insert values', 'record from text',
		'insert from text');
	my $microseconds = sub { return $session->sql("call bench.take_batch('$_[0]', $repeats, null)") };

	progress("batches: @{[size('batch_rounds')]} rounds of $repeats batches of 1,000 samples");
	$microseconds->($_) for @ways;
	my %us = rounds(size('batch_rounds'), \@ways, $microseconds);
	$session->close;

	my $group = 'record with 1,000 samples, per sample';
	$report->add($group, 'record', 'us', $us{record}, at_most => 1);
	$report->add($group, 'INSERT of the same 1,000 rows, in times of it', 'x', ratio($us{insert}, $us{record}),
		at_least => 5);
	$report->add($group, '... into a table with a primary key and an index', 'x',
		ratio($us{'insert indexed'}, $us{record}));
	$report->add($group, '... from arrays', 'x', ratio($us{'insert arrays'}, $us{record}));
	$report->add($group, '... as one statement of 1,000 VALUES', 'x', ratio($us{'insert values'}, $us{record}));
	$report->add($group, '... both given JSON text to parse first', 'x',
		ratio($us{'insert from text'}, $us{'record from text'}));
	$report->add($group, 'record, from JSON text', 'us', $us{'record from text'});
	$report->add($group, 'INSERT of 1,000 rows from the same jsonb', 'us', $us{insert});
	$report->add($group, 'INSERT of 1,000 rows from arrays', 'us', $us{'insert arrays'});
	$report->add($group, 'INSERT of 1,000 rows as VALUES', 'us', $us{'insert values'});
	$report->add($group, 'empty function', 'us', $us{empty});
}

# Shared memory of a series, from clusters of different size; that it is real,
# by filling one; and prometheus() in the others
sub memory_and_exposition
{
	my ($report) = @_;
	my $group = 'shared memory';
	my $small = Cluster->start(sized(10_000, 2_000));
	my $more_series = Cluster->start(sized(20_000, 2_000));
	my $more_histograms = Cluster->start(sized(10_000, 4_000));
	my ($small_session, $series_session, $histograms_session) =
	  map { new_session($_) } $small, $more_series, $more_histograms;
	my ($bytes, $bytes_series, $bytes_histograms) =
	  map { $_->sql('select shared_memory_bytes from meshhook_metrics.status()') } $small_session, $series_session,
	  $histograms_session;

	progress('shared memory: three clusters, one filled');
	my $counter = ($bytes_series - $bytes) / 10_000;
	my $histogram = $counter + ($bytes_histograms - $bytes) / 2_000;
	$report->add($group, 'a counter, labels of 64 bytes included', 'bytes', [$counter], at_most => 384);
	$report->add($group, 'a histogram, likewise', 'bytes', [$histogram], at_most => 4_600);

	$small_session->sql("\\i sql/fill_registry.sql\n");
	my ($series, $histograms, $discarded) = split /\|/,
	  $small_session->sql('select series_used, histograms_used, discarded from bench.registry()');
	$report->add($group, 'series with such labels that max_series = 10,000 holds', 'series', [$series],
		at_least => 10_000);
	$report->add($group, 'of them histograms, with max_histograms = 2,000', 'series', [$histograms], at_least => 2_000);
	$report->add($group, 'samples discarded while filling both', 'samples', [$discarded], at_most => 0);
	$report->add($group, 'the whole region, 10,000 series and 2,000 histograms', 'MB', [ $bytes / 1e6 ]);
	$small_session->close;
	$small->stop;

	exposition($report, $series_session, 'over 10,000 counters of 100 tenants', 'sql/fill_counters.sql', 10_000, 25);
	$more_series->stop;
	exposition($report, $histograms_session, 'over 1,000 histograms', 'sql/fill_histograms.sql', 1_000, 40);
	$more_histograms->stop;
}

# A registry for a million series, which is filled, and asked for more than it holds
sub new_series
{
	my ($report) = @_;
	my $group = 'a million series';
	my $tenants = size('new_series_tenants');
	my ($labels, $too_many) = (50, 10);
	my $cluster = Cluster->start(sized($tenants * $labels, 10), 'meshhook_metrics.max_series_per_tenant' => $labels);
	my ($session, $bystander) = (new_session($cluster), new_session($cluster, 1));
	my $microseconds = sub {
		my ($first, $count) = @_;
		my $empty = $session->sql("select bench.new_series('mhm_empty.inc', $tenants, $first, $count)");
		my $made = $session->sql("select bench.new_series('meshhook_metrics.inc', $tenants, $first, $count)");
		return ($made - $empty) / 1000 / $tenants / $count;
	};

	$session->sql("\\i sql/new_series.sql\n");
	progress(sprintf '%d tenants get %d series each, and want %d more', $tenants, $labels, $too_many);
	$report->add($group, 'a new series, of tenants with a quota of 50', 'µs', [ $microseconds->(1, $labels - 1) ],
		at_most => 5);
	$report->add($group, 'a label too many for its tenant', 'µs', [ $microseconds->($labels + 1, $too_many) ], at_most => 5);
	$report->add($group, '... where the tenant has its overflow series', 'µs',
		[ $microseconds->($labels + $too_many + 1, $too_many) ], at_most => 5);
	$bystander->send_sql('select * from bench.longest_call(1000)');
	$session->sql("select bench.new_series('meshhook_metrics.inc', $tenants, 1000, 2)") for 1 .. 3;
	my ($longest, $calls) = split /\|/, $bystander->answer;
	$report->add($group, 'longest wait of a session that makes some of its own', 'ms', [$longest]);
	$report->add($group, '... of so many', 'calls', [$calls]);
	$_->close for $session, $bystander;
	$cluster->stop;
}

sub sized
{
	my ($max_series, $max_histograms) = @_;
	return (
		'meshhook_metrics.max_series' => $max_series,
		'meshhook_metrics.max_histograms' => $max_histograms,
	);
}

sub exposition
{
	my ($report, $session, $what, $fill, $series, $at_most) = @_;
	my $milliseconds = sub {
		return $session->sql("select bench.cpu_nanoseconds('select length(meshhook_metrics.prometheus())')") / 1e6;
	};

	progress("prometheus() $what");
	$session->sql("\\i $fill\n");
	my $found = $session->sql('select count(*) from bench.exposed_series()');
	die "prometheus() shows $found series $what.\n" if $found != $series;
	$milliseconds->();
	my @milliseconds = map { $milliseconds->() } 1 .. size('exposition_rounds');
	my $bytes = $session->sql('select octet_length(meshhook_metrics.prometheus())');
	$report->add('prometheus()', $what, 'ms', \@milliseconds, at_most => $at_most);
	$report->add('prometheus()', '... its text', 'MB', [ $bytes / 1e6 ]);
	$session->close;
}

1;
