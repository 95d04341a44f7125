# A clock that is set, back or forth, by seconds or a day: everything is stored
# once all the same, at once, in the minutes that the clock showed, and what
# had been rolled up of these is rolled up again. When a clock that was weeks
# ahead is set right, what was noted by it holds nothing up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use ServerFaults;
use Test::More;
use Time::HiRes qw(CLOCK_MONOTONIC clock_gettime);

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
start_faulty($node);
install_storage($node);

my $worker = worker_pid($node);
my $calls = 0;

# The same to a counter, a gauge and a histogram, so that their sums are too
sub record
{
	$calls++;
	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('work_total', $calls),
	meshhook_metrics.gauge_set('level', $calls),
	meshhook_metrics.observe('size', $calls)
SQL
	return;
}

sub recorded
{
	return "$calls|" . $calls * ($calls + 1) / 2;
}

# The worker does it by itself, and soon: nobody asks for a flush
sub stored_soon_ok
{
	my ($name) = @_;

	record();
	# Together or, if a flush is under way, apart
	my $all = join ' ', (recorded()) x 3;
	await(sub { join(' ', map { stored_total($node, $_) } qw(work_total level size)) eq $all }, "samples to be stored, $name");
	pass("$name: what was recorded is stored, once");
	return;
}

# What the worker has used: processor time in hundredths of a second, waits
sub used
{
	my ($time) = slurp_file("/proc/$worker/stat") =~ /^\d+ \(.*\) \S(?: \S+){10} (\d+ \d+)/;
	my ($waits) = slurp_file("/proc/$worker/status") =~ /^voluntary_ctxt_switches:\s*(\d+)/m;
	my ($user, $system) = split / /, $time;

	return ($user + $system, $waits, clock_gettime(CLOCK_MONOTONIC));
}

# Every coarser table says of its windows what the one before says
sub rolled_up_ok
{
	my ($name) = @_;

	for my $pair ([ '5m', '1m', '5 minutes' ], [ '1h', '5m', '1 hour' ], [ '1d', '1h', '1 day' ], [ '1h', '1m', '1 hour' ])
	{
		my ($target, $source, $step) = @$pair;

		is($node->safe_psql('postgres', <<"SQL"), '', "$name: rollup_$target is rollup_$source");
with
	expected as (
		select
			tenant_id,
			series_id,
			date_bin('$step', bucket, timestamptz 'epoch') as bucket,
			sum(count) as count,
			sum(sum) as sum,
			min(min) as min,
			max(max) as max,
			(array_agg(last order by bucket desc))[1] as last,
			meshhook_metrics.histogram_merge(histogram)::text as histogram
		from meshhook_metrics.rollup_$source
		where bucket < (select complete_until from meshhook_metrics.rollup_state where target = '$target')
		group by 1, 2, 3
	),
	found as (
		select tenant_id, series_id, bucket, count, sum, min, max, last, histogram::text
		from meshhook_metrics.rollup_$target
		where bucket < (select complete_until from meshhook_metrics.rollup_state where target = '$target')
	)
(select 'missing', * from expected except select 'missing', * from found)
union all
(select 'unexpected', * from found except select 'unexpected', * from expected)
SQL
	}
	return;
}

my $mark = log_mark($node);
stored_soon_ok('before the clock jumps');
for my $jump ([ 'back across a minute', -90 ], [ 'forth by minutes', 600 ], [ 'back by a day', -86400 ], [ 'forth by days', 86400 ],
	[ 'back to the truth', 0 ])
{
	my ($name, $seconds) = @$jump;
	my ($time, $waits, $began) = used();

	# Something is on its way when the clock jumps
	record();
	set_clock($node, $seconds);
	stored_soon_ok($name);
	stored_soon_ok("$name, then");
	my ($time_after, $waits_after, $ended) = used();
	my $elapsed = $ended - $began;

	note(sprintf '%s: in %.1f s %d hundredths of a second, %d waits', $name, $elapsed, $time_after - $time, $waits_after - $waits);
	cmp_ok($time_after - $time, '<', 60 * $elapsed, "$name: the worker rests");
	cmp_ok($waits_after - $waits, '<', 100 * $elapsed, "$name: and does not look at the clock all the time");

	# The minute that was open has been closed, or has been opened again
	await(
		sub {
			return $node->safe_psql('postgres', <<'SQL') eq 't';
select coalesce(bool_and(date_trunc('minute', at) = date_trunc('minute', clock_timestamp())), true)
from meshhook_metrics.live
where id > (select live_id from meshhook_metrics.rollup_state where target = '1m')
SQL
		},
		"minutes to be closed, $name");
	is(stored_total($node, 'size'), recorded(), "$name: the minute that was open before is closed");
	$node->safe_psql('postgres', 'select meshhook_metrics.rollup()');
	rolled_up_ok($name);
}
is($node->safe_psql('postgres', 'select count(*) > 0 and bool_and(seconds between 0.0001 and 30) from meshhook_metrics.live'), 't',
	'how long an interval was does not depend on the clock');

# Days later, everything has been rolled up to days
record();
flush($node);
set_clock($node, 3 * 86400);
await(sub { $node->safe_psql('postgres', <<'SQL') eq 't' }, 'the last minute to be closed');
select complete_until > clock_timestamp() - interval '2 minutes'
from meshhook_metrics.rollup_state
where target = '1m'
SQL
$node->safe_psql('postgres', 'select meshhook_metrics.rollup()');
rolled_up_ok('days later');
for my $table (qw(rollup_1m rollup_5m rollup_1h rollup_1d))
{
	is($node->safe_psql('postgres', <<"SQL"), join("\n", map { "$_|" . recorded() } qw(level size work_total)), "days later: $table has all there was");
select series.metric, sum(rollup.count), sum(rollup.sum)
from meshhook_metrics.$table rollup
	join meshhook_metrics.series on series.id = rollup.series_id
group by series.metric
order by series.metric
SQL
}
is($node->safe_psql('postgres', <<'SQL'), $calls * ($calls + 1) / 2, 'and whatever the clock was, all that is closed shows');
select sum(value)
from meshhook_metrics.query_range('work_total', now() - interval '1000 days', now() + interval '1000 days', '1 day')
SQL
# PostgreSQL's timeouts go by the clock that was set: a flush that was under way then may
# have ended by its own, and been repeated
my ($errors, $last_error, $pid) = split /\|/, $node->safe_psql('postgres', 'select flush_errors, last_error, worker_pid from meshhook_metrics.status()');
cmp_ok($errors, '<=', 3, 'the worker had no trouble but, perhaps, with jumps forth');
is("$last_error|$pid", "|$worker", 'none that has lasted');
is(scalar(grep { /WARNING|ERROR|FATAL/ && !/canceling statement due to (?:statement|lock) timeout/ } split /\n/, log_since($node, $mark)), 0,
	'nor the log');

# A session that has found no room looks again, whatever became of the clock
my $tenant = '00000000-0000-0000-0000-000000000001';
my $recorder = session($node);

sub record_third
{
	$recorder->query_safe("select meshhook_metrics.inc('room_total', 1, '{\"n\": \"3\"}', '$tenant')");
	return;
}

sub third_has_room
{
	return $node->safe_psql('postgres', "select count(*) from meshhook_metrics.snapshot('$tenant') where labels = '{\"n\": \"3\"}'") == 1;
}

$recorder->query_safe("select meshhook_metrics.inc('room_total', 1, jsonb_build_object('n', n::text), '$tenant') from generate_series(1, 2) n");
$node->safe_psql('postgres', "insert into meshhook_metrics.settings (name, tenant_id, value) values ('max_series', '$tenant', '2')");
await(
	sub {
		$node->safe_psql('postgres', "select meshhook_metrics.flush(); select meshhook_metrics.inc('full_total', 1, '{}', '$tenant')");
		return discarded($node, 'tenant_limit') > 0;
	},
	'the quota to be known');
record_third();
ok(!third_has_room(), 'a third series has no room');
$node->safe_psql('postgres', "update meshhook_metrics.settings set value = '10' where name = 'max_series'");
set_clock($node, 2 * 86400);
await(
	sub {
		$node->safe_psql('postgres', "select meshhook_metrics.flush(); select meshhook_metrics.inc('full_total', 1, '{}', '$tenant')");
		return $node->safe_psql('postgres', "select count(*) from meshhook_metrics.snapshot('$tenant') where metric = 'full_total' and labels = '{}'") == 1;
	},
	'the new quota to be known');
record_third();
ok(third_has_room(), 'the clock was set back, and a session that has found no room looks again');
$recorder->quit;

# Weeks ahead everything of the present is older than its retention
my $old_session = session($node);
set_clock($node, 3 * 86400);
record();
$node->safe_psql('postgres', q{select meshhook_metrics.inc('going_total'), meshhook_metrics.inc('staying_total')});
await(sub { stored_total($node, 'going_total') eq '1|1' }, 'samples of the present to be stored');
# It maintains the storage once an hour. Were the clock set while it is at it, it would
# look for old minutes before the last ones are closed, leave them, and come back in an
# hour. A flush that begins now is after all that followed the one before.
flush($node);
set_clock($node, 20 * 86400);
$node->safe_psql('postgres', q{select meshhook_metrics.inc('going_total'), meshhook_metrics.inc('staying_total')});
# So often that it has looked at the clock
$old_session->query_safe(q{select meshhook_metrics.inc('steady_total') from generate_series(1, 100)});
await(sub { $node->safe_psql('postgres', <<'SQL') eq 't' }, 'the worker to delete what is old');
select min(lower_bound) > clock_timestamp() - interval '9 days' and max(lower_bound) > clock_timestamp() + interval '1 day'
from meshhook_metrics.leaves('1m')
SQL
set_clock($node, 3 * 86400 + 3600);
$node->safe_psql('postgres', q{select meshhook_metrics.inc('staying_total')});
$old_session->query_safe(q{select meshhook_metrics.inc('steady_total')});
for my $metric (qw(staying_total steady_total))
{
	is($node->safe_psql('postgres', "select clock_timestamp() - updated_at < interval '1 minute' and updated_at <= clock_timestamp() from meshhook_metrics.snapshot() where metric = '$metric'"),
		't', "a sample of the present is the last one of its series: $metric");
}
$old_session->quit;
$node->safe_psql('postgres', q{select meshhook_metrics.inc('present_total', 10)});
await(sub { stored_total($node, 'present_total') eq '1|10' }, 'what is recorded when the clock is right to be stored');
set_clock($node, 3 * 86400 + 3 * 3600);
await(sub { $node->safe_psql('postgres', <<'SQL') eq 't' }, 'its minute to be closed');
select sum(rollup.count) = 1
from meshhook_metrics.rollup_1m rollup
	join meshhook_metrics.series on series.id = rollup.series_id
where series.metric = 'present_total'
SQL
await(sub { $node->safe_psql('postgres', <<'SQL') eq '0' }, 'times of series that are ahead to be set right');
select count(*) from meshhook_metrics.snapshot() where updated_at > clock_timestamp()
SQL
pass('a series that nobody records to any more is idle from now on');
is($node->safe_psql('postgres', q{select count(*) from meshhook_metrics.rollup_state where retained_from > clock_timestamp()}), 0,
	'nothing of the time to come counts as deleted');
$node->safe_psql('postgres', 'select meshhook_metrics.rollup()');
for my $table (qw(rollup_5m rollup_1h))
{
	is($node->safe_psql('postgres', <<"SQL"), 10, "what is recorded when the clock is right comes into $table");
select sum(rollup.sum)
from meshhook_metrics.$table rollup
	join meshhook_metrics.series on series.id = rollup.series_id
where series.metric = 'present_total'
SQL
}

# Who records in a statement that began long ago does so when it records, or commits
my $holder = session($node);
my $late = session($node);
for my $on_commit ('off', 'on')
{
	my $metric = "late_${on_commit}_total";

	set_clock($node, 4 * 86400);
	$node->safe_psql('postgres', "select meshhook_metrics.inc('$metric')");
	$holder->query_safe('select pg_advisory_lock(1)');
	$late->query_until(qr/begun/, <<"SQL");
set meshhook_metrics.on_commit = $on_commit;
\\echo begun
do \$\$ begin perform pg_advisory_xact_lock(1); perform meshhook_metrics.inc('$metric'); end \$\$;
\\echo ended
SQL
	await(sub { $node->safe_psql('postgres', q{select count(*) from pg_locks where locktype = 'advisory' and not granted}) == 1 }, 'the statement to have begun');
	set_clock($node, 4 * 86400 + 3600);
	$node->safe_psql('postgres', "select meshhook_metrics.inc('$metric')") if $on_commit eq 'off';
	$holder->query_safe('select pg_advisory_unlock(1)');
	$late->query_until(qr/ended/, '');
	is($node->safe_psql('postgres', "select value, clock_timestamp() - updated_at < interval '1 minute' from meshhook_metrics.snapshot() where metric = '$metric'"),
		$on_commit eq 'off' ? '3|t' : '2|t', "a late sample does not make its series older, with on_commit $on_commit");
}
$_->quit for $holder, $late;

$node->stop;
done_testing();
