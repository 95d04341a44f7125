# Where nothing can be stored, because the disk is full, the database read-only
# or a table locked, what was recorded stays in memory and goes with a later
# flush, exactly once. Meanwhile recording goes on, flush() and status() name
# the trouble, and the log has it once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use ServerFaults;
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
start_faulty($node);
install_storage($node);

my $rounds = 0;

# A counter that is known and one that is new, and of a gauge and a histogram
# what would go first if a failed flush took it along: their extremes
sub record_round
{
	$rounds++;
	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('known_total', 3),
	meshhook_metrics.inc('new_total', 2, '{"round": $rounds}');
SQL
	return;
}

sub record_extremes
{
	my ($value) = @_;

	$node->safe_psql('postgres',
		"select meshhook_metrics.gauge_set('level', $value), meshhook_metrics.observe('size', $value)");
	return;
}

# How flush() fails, with its SQLSTATE
sub failed_flush
{
	my ($timeout) = @_;
	my ($code, $out, $error) = $node->psql('postgres',
		"\\set VERBOSITY verbose\nselect meshhook_metrics.flush('$timeout')");

	return $error;
}

sub errors
{
	return $node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()');
}

# Have the worker try again and again, until it has failed so many times more
sub fail_times
{
	my ($times) = @_;
	my $until = errors() + $times;

	await(sub { failed_flush('50 ms'); errors() >= $until }, "$times failed flushes");
	return;
}

sub last_error
{
	return $node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()');
}

# What the log has of a pattern, without times and processes
sub lines
{
	my ($mark, $pattern) = @_;

	return map { s/^.*?\] //r } grep { /$pattern/ } split /\n/, log_since($node, $mark);
}

# The log names each trouble, and each once
sub logged_once_ok
{
	my ($mark, $name) = @_;
	my @lines = lines($mark, 'WARNING: .*could not flush');
	my %distinct = map { $_ => 1 } @lines;

	ok(@lines > 0 && @lines == keys %distinct, "$name: the log has it once") or diag(explain(\@lines));
	return;
}

# All of it is stored, once, and nobody complains any longer
sub stored_ok
{
	my ($name) = @_;

	is(stored_total($node, 'known_total'), "$rounds|" . 3 * $rounds, "$name: what was recorded is stored, once");
	is(stored_total($node, 'new_total'), "$rounds|" . 2 * $rounds, "$name: that of new series, too");
	await_status($node, 'last_error is null');
	pass("$name: status() is content again");
	return;
}

# What came of the extremes since a trouble began, be it in one flush or, where
# the last attempt was under way already, in two
sub extremes_ok
{
	my ($since, $name) = @_;

	is($node->safe_psql('postgres', <<"SQL"), "level|3|5|7|6|0\nsize|3|5|7|7|3", "$name: minimum and maximum are those of all attempts");
select
	series.metric,
	sum(flushed.count),
	min(flushed.min),
	max(flushed.max),
	coalesce((array_agg(flushed.last order by live.id desc))[1], meshhook_metrics.histogram_max(meshhook_metrics.histogram_merge(flushed.histogram))),
	coalesce(meshhook_metrics.histogram_count(meshhook_metrics.histogram_merge(flushed.histogram)), 0)
from meshhook_metrics.live,
	unnest(live.series_id, live.count, live.min, live.max, live.last, live.histogram)
		flushed (series_id, count, min, max, last, histogram)
	join meshhook_metrics.series on series.id = flushed.series_id
where live.id > $since
	and series.metric in ('level', 'size')
group by series.metric
order by series.metric
SQL
	return;
}

# For extremes_ok()
sub last_live
{
	return $node->safe_psql('postgres', 'select coalesce(max(id), 0) from meshhook_metrics.live');
}

record_round();
flush($node);
stored_ok('before any trouble');

# A disk that is full for the journal, and one that is full for the tables: there
# a flush fails that is pending already
for my $case (
	[ 'no room for the journal', $node->data_dir . '/pg_stat', qr{could not write file "pg_stat/meshhook_metrics\.flush": No space left on device} ],
	[ 'no room for tables', $node->data_dir . '/base', qr{could not extend file "base/\d+/\w+": No space left on device} ])
{
	my ($name, $where, $complaint) = @$case;
	my $mark = log_mark($node);
	my $since = last_live();

	# Enough that tables and indexes must grow
	fill_disk($node, $where);
	record_round();
	record_extremes(7);
	$node->safe_psql('postgres', <<"SQL");
select count(meshhook_metrics.inc('many_total', 1, jsonb_build_object('case', '$name', 'number', i)))
from generate_series(1, 700) i
SQL
	await_status($node, "last_error like 'could not flush: %No space left on device%'");
	like(last_error(), qr/^could not flush: $complaint$/, "$name: status() names it");
	record_round();
	record_extremes(5);
	like(failed_flush('300 ms'), qr/
		ERROR:\ \ 57014:\ metrics\ were\ not\ flushed\ within\ the\ timeout\n
		DETAIL:\ \ The\ flush\ worker\ reports:\ could\ not\ flush:\ $complaint.*\n
		HINT:\ \ Nothing\ is\ lost/x, "$name: flush() names it");
	fail_times(3);
	cmp_ok(times_full($node), '>=', 3, "$name: the worker has met it");
	record_extremes(6);
	is(counter($node, 'known_total'), 3 * $rounds, "$name: recording goes on");
	logged_once_ok($mark, "$name");

	free_disk($node);
	flush($node);
	stored_ok($name);
	is(stored_total($node, 'many_total'), join('|', (counter($node, 'many_total')) x 2), "$name: all series are stored");
	extremes_ok($since, $name);
	is(scalar(lines($mark, 'LOG: .*can flush again after \d+ failed attempts')), 1, "$name: the log has its end");
}

# A database that is read-only, for all servers' databases and for this one
my $mark = log_mark($node);
my $since = last_live();
$node->safe_psql('postgres', 'alter system set default_transaction_read_only = on');
$node->reload;
await(sub { $node->safe_psql('postgres', 'show default_transaction_read_only') eq 'on' }, 'the new setting');
record_round();
record_extremes(7);
await_status($node, "last_error like 'could not flush: %read-only%'");
like(last_error(), qr/^could not flush: cannot execute \w+ in a read-only transaction$/, 'read-only: status() names it');
record_round();
record_extremes(5);
like(failed_flush('300 ms'), qr/ERROR:  57014: .*\nDETAIL:  .* cannot execute \w+ in a read-only transaction/,
	'read-only: flush() names it');
fail_times(3);
record_extremes(6);
is(counter($node, 'known_total'), 3 * $rounds, 'read-only: recording goes on');
logged_once_ok($mark, 'read-only');
$node->safe_psql('postgres', 'alter system reset default_transaction_read_only');
$node->reload;
flush($node);
stored_ok('read-only');
extremes_ok($since, 'read-only');

my $worker = worker_pid($node);
$node->safe_psql('postgres', "alter database postgres set default_transaction_read_only = on; select pg_terminate_backend($worker)");
await_status($node, "worker_pid <> $worker");
record_round();
await_status($node, "last_error like 'could not flush: %read-only%'");
record_round();
$node->safe_psql('postgres',
	'set default_transaction_read_only = off; alter database postgres reset default_transaction_read_only');
await(sub { stored_total($node, 'known_total') eq "$rounds|" . 3 * $rounds }, 'a worker that knows the database is writable');
stored_ok('a read-only database');

# Tables that somebody has locked for longer than the worker waits for a lock.
# When it goes away, the worker finds out by itself.
my $locker = session($node);
$locker->set_query_timer_restart;
for my $table (qw(live series flush_state rollup_state))
{
	my $errors = errors();

	$mark = log_mark($node);
	$since = last_live();
	$locker->query_safe("begin; lock table meshhook_metrics.$table in access exclusive mode");
	record_round();
	record_extremes(7);
	await_status($node, "last_error like 'could not flush: %lock timeout%'");
	like(failed_flush('300 ms'), qr/
		ERROR:\ \ 57014:\ metrics\ were\ not\ flushed\ within\ the\ timeout\n
		DETAIL:\ \ The\ flush\ worker\ reports:\ could\ not\ flush:\ canceling\ statement\ due\ to\ lock\ timeout\n
		HINT:\ \ .*A\ lock\ on\ a\ storage\ table/x, "$table is locked: flush() names it");
	like(last_error(), qr/lock timeout/, "$table is locked: status() names it");
	record_round();
	record_extremes(5);
	is(counter($node, 'known_total'), 3 * $rounds, "$table is locked: recording goes on");
	await_status($node, "flush_errors >= $errors + 2") if $table eq 'live';
	logged_once_ok($mark, "$table is locked");
	like(log_since($node, $mark), qr/(?:CONTEXT|QUERY):[^\n]*(?:\n\t[^\n]*)*\bmeshhook_metrics\.$table\b/, "$table is locked: with what it waited for");
	record_extremes(6);
	$locker->query_safe('commit');
	await(sub { stored_total($node, 'known_total') eq "$rounds|" . 3 * $rounds }, 'the worker to go on');
	stored_ok("$table is locked");
	extremes_ok($since, "$table is locked");
}

# A lock that keeps minutes from being closed does not keep samples from being
# stored, as long as it lets others read how far they are. The first thing that a
# new worker does is to close minutes.
$worker = worker_pid($node);
$locker->query_safe('begin; lock table meshhook_metrics.rollup_state in exclusive mode');
$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
await_status($node, "last_error = 'could not close a minute: canceling statement due to lock timeout'");
record_round();
flush($node);
$locker->query_safe('commit');
stored_ok('rollup_state takes no writes');
is($node->safe_psql('postgres', <<'SQL'), 't', 'rollup_state takes no writes: the minute is closed later');
select complete_until > clock_timestamp() - interval '2 minutes'
from meshhook_metrics.rollup_state
where target = '1m'
SQL

$locker->quit;
$node->stop;
done_testing();
