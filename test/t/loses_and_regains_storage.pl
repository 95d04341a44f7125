# Storage that is not there, or not whole, costs no sample and no patience: the
# worker waits, says what is missing, once, and goes on when it is there again.
# So it does without its database, and without a worker at all.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.database = 'app'
meshhook_metrics.flush_interval = '1s'
CONF

# What has been recorded in all; whatever happens, it is or will be stored
my ($calls, $sum) = (0, 0);

sub record
{
	my ($database) = @_;

	$node->safe_psql($database // 'app', "select meshhook_metrics.inc('work_total', 5)");
	$calls++;
	$sum += 5;
	return;
}

# Where the tables were lost, what was in them was lost with them
sub nothing_is_stored
{
	($calls, $sum) = (0, 0);
	return;
}

sub stored_ok
{
	my ($name, $database) = @_;

	$database //= 'app';
	flush($node, $database);
	is(stored_total($node, 'work_total', $database), "$calls|$sum", "$name: what was recorded is stored, once");
	await_status($node, 'storage_installed and last_error is null', $database);
	pass("$name: status() is content");
	return;
}

# Ask for flushes in vain until the worker has failed so many times more
sub fail_times
{
	my ($times) = @_;
	my $errors = 'select flush_errors from meshhook_metrics.status()';
	my $until = $node->safe_psql('app', $errors) + $times;

	await(
		sub {
			$node->psql('app', q{select meshhook_metrics.flush('50 ms')});
			return $node->safe_psql('app', $errors) >= $until;
		},
		"$times failed flushes");
	return;
}

# How flush() fails, with its SQLSTATE
sub failed_flush
{
	my ($database) = @_;
	my ($code, $out, $error) = $node->psql($database // 'app',
		"\\set VERBOSITY verbose\nselect meshhook_metrics.flush('300 ms')");

	return $error;
}

# Wait until the worker has done something some times. Waiting for nothing to
# happen, that is how long it takes.
sub let_it_work
{
	my ($times) = @_;
	my $seen = '';

	await(
		sub {
			my $state = $node->safe_psql('postgres',
				q{select pid || ' ' || coalesce(state_change::text, '') from pg_stat_activity where backend_type = 'meshhook_metrics worker'});

			$times-- if $state ne '' && $state ne $seen;
			$seen = $state if $state ne '';
			return $times < 0;
		},
		'the worker to work');
	return;
}

# What the worker and the postmaster said of the worker's troubles
sub complaints
{
	my ($mark) = @_;

	return grep { /(?:WARNING|FATAL|ERROR|LOG): .*(?:meshhook_metrics|database "\w+")/ && !/loses_and_regains_storage\.pl/ }
	  split /\n/, log_since($node, $mark);
}

# No process free for the worker
$node->append_conf('postgresql.conf', "max_worker_processes = 0\nmax_parallel_workers = 0");
$node->start;
remember_region($node);
$node->safe_psql('postgres', 'create database app; create database other; create extension meshhook_metrics');
install_storage($node, database => 'app');
record();
is($node->safe_psql('app', 'select worker_pid, last_error from meshhook_metrics.status()'),
	'|the flush worker is not running', 'without a process for the worker, status() says so');
like(failed_flush(), qr/ERROR:  55000: the flush worker of meshhook_metrics is not running\nHINT:  .*max_worker_processes/,
	'and flush() says what to do');
is(counter($node, 'work_total'), 5, 'recording works');
$node->adjust_conf('postgresql.conf', 'max_worker_processes', 8);
$node->safe_psql('app', 'drop schema meshhook_metrics cascade; create extension meshhook_metrics');
$node->restart;
remember_region($node);

# Storage that was never installed
my $mark = log_mark($node);
let_it_work(3);
record();
like(failed_flush(), qr/ERROR:  55000: there are no storage tables to flush metrics to\nHINT:  Apply the migrations/,
	'never installed: flush() says so');
is($node->safe_psql('app', 'select storage_installed, flush_errors, last_error from meshhook_metrics.status()'), 'f|0|',
	'never installed: status() says so, and no error');
is_deeply([ complaints($mark) ], [], 'never installed: the log says nothing');

# The worker works while some of the tables are there and others are not yet
$node->safe_psql('app', <<'SQL');
create function let_worker_work()
returns event_trigger
language plpgsql
as $$
declare
	times integer := 4;
	began constant timestamptz := clock_timestamp();
	seen timestamptz;
	now_seen timestamptz;
begin
	if not exists (
		select
		from pg_event_trigger_ddl_commands()
		where object_identity = 'meshhook_metrics.rollup_state')
	then
		return;
	end if;
	while times > 0 loop
		perform pg_stat_clear_snapshot();
		select state_change
		into now_seen
		from pg_stat_activity
		where backend_type = 'meshhook_metrics worker';
		if now_seen is distinct from seen then
			times := times - 1;
			seen := now_seen;
		end if;
		if clock_timestamp() > began + interval '3 minutes' then
			raise exception 'the worker does nothing any more';
		end if;
		perform pg_sleep(0.01);
	end loop;
end
$$;
create event trigger let_worker_work on ddl_command_end
when tag in ('CREATE TABLE')
execute function let_worker_work();
SQL
install_storage($node, database => 'app');
$node->safe_psql('app', 'drop event trigger let_worker_work; drop function let_worker_work()');
stored_ok('installed at last');
is($node->safe_psql('app', 'select flush_errors from meshhook_metrics.status()'), 0, 'installed at last: without an error meanwhile');
is_deeply([ complaints($mark) ], [], 'installed at last: the log says nothing');

# Tables and columns that are gone. What puts it right: the migrations, unless
# they know nothing of it.
for my $case (
	[ 'series', 'drop table meshhook_metrics.series cascade', qr/storage table meshhook_metrics\.series is missing/ ],
	[ 'live', 'drop table meshhook_metrics.live', qr/storage table meshhook_metrics\.live is missing/ ],
	[ 'flush_state', 'drop table meshhook_metrics.flush_state', qr/storage table meshhook_metrics\.flush_state is missing/ ],
	[ 'rollup_state', 'drop table meshhook_metrics.rollup_state', qr/storage table meshhook_metrics\.rollup_state is missing/ ],
	[ 'a column', 'alter table meshhook_metrics.live drop column histogram', qr/column "histogram" of relation "live" does not exist/ ],
	[ 'another column', 'alter table meshhook_metrics.live rename seconds to seconden', qr/column "seconds" of relation "live" does not exist/,
		'alter table meshhook_metrics.live rename seconden to seconds' ])
{
	my ($name, $loss, $complaint, $repair) = @$case;

	# All there is, is rolled up and an hour older: no table has what is lost with another.
	# It can be of yesterday then, whose leaf need not be there.
	record();
	flush($node, 'app');
	$node->safe_psql('app', <<'SQL');
select meshhook_metrics.close_minutes(now() + interval '2 minutes');
update meshhook_metrics.live set at = at - interval '1 hour';
select meshhook_metrics.create_leaf('1m', bucket - interval '1 hour') from (select distinct bucket from meshhook_metrics.rollup_1m) of_minutes;
update meshhook_metrics.rollup_1m set bucket = bucket - interval '1 hour';
update meshhook_metrics.rollup_state set complete_until = complete_until - interval '1 hour';
SQL
	$mark = log_mark($node);
	$node->safe_psql('app', $loss);
	record();
	my $said = '';
	await(sub { ($said = failed_flush()) =~ /DETAIL/ }, "a flush without $name to have failed");
	like($said, $complaint, "without $name: flush() says so");
	fail_times(3);
	like($node->safe_psql('app', 'select last_error from meshhook_metrics.status()'), qr/^could not flush: $complaint/,
		"without $name: status() says so");
	is(scalar(grep { /could not flush/ } complaints($mark)), 1, "without $name: the log says so once");
	record();
	$repair ? $node->safe_psql('app', $repair) : install_storage($node, database => 'app');
	if ($name eq 'series')
	{
		is($node->safe_psql('app', "select count(*) from meshhook_metrics.series"), 0, 'without series: it is made anew');
		flush($node, 'app');
		is($node->safe_psql('app', "select count(*) from meshhook_metrics.series where metric = 'work_total'"), 1,
			'without series: the series have ids again');
		# The ids of what was stored before mean nothing now
		$node->safe_psql('app', 'truncate meshhook_metrics.live, meshhook_metrics.rollup_1m');
		nothing_is_stored();
		record();
	}
	stored_ok("without $name, until now");
	# A minute later it is in rollup_1m, neither forgotten nor counted twice
	$node->safe_psql('app', q{select meshhook_metrics.close_minutes(now() + interval '2 minutes')});
	is(stored_total($node, 'work_total', 'app'), "$calls|$sum", "without $name, until now: so are the minutes");
}

# Series that are emptied get ids again
$node->safe_psql('app', 'truncate meshhook_metrics.series, meshhook_metrics.live, meshhook_metrics.rollup_1m');
nothing_is_stored();
record();
stored_ok('series truncated');

# What is dropped under a flush ends it, which is said once
sub complaints_later
{
	my ($mark) = @_;
	my @under_way = grep { /could not (?:flush|evaluate alert rules): .*(?:does not exist|is missing)/ } complaints($mark);

	return grep { $_ ne ($under_way[0] // '') } complaints($mark);
}

# The extension with all that depends on it, then the whole schema
$mark = log_mark($node);
record();
$node->safe_psql('app', 'set client_min_messages = warning; drop extension meshhook_metrics cascade');
let_it_work(3);
record('postgres');
is_deeply([ grep { /WARNING|ERROR|FATAL/ } complaints_later($mark) ], [], 'without the extension: the log says nothing');
install_storage($node, database => 'app');
record();
stored_ok('the extension created again');

record();
flush($node, 'app');
$mark = log_mark($node);
$node->safe_psql('app', 'set client_min_messages = warning; drop schema meshhook_metrics cascade');
nothing_is_stored();
let_it_work(3);
record('postgres');
is_deeply([ grep { /WARNING|ERROR|FATAL/ } complaints_later($mark) ], [], 'without the schema: the log says nothing');
install_storage($node, database => 'app');
record();
stored_ok('the schema created again');

# Another database goes at once
$node->safe_psql('postgres', q{set statement_timeout = '20s'; drop database other});
pass('another database is dropped');

# The served database is dropped under the worker, and another one while it waits
record();
flush($node, 'app');
$mark = log_mark($node);
$node->safe_psql('postgres', q{set statement_timeout = '20s'; drop database app with (force); create database other});
nothing_is_stored();
await(sub { log_since($node, $mark) =~ /meshhook_metrics waits for database "app"/ }, 'the worker to wait');
record('postgres');
my $waiting = $node->safe_psql('postgres', q{select pid from pg_stat_activity where backend_type = 'meshhook_metrics worker'});
$node->safe_psql('postgres', q{set statement_timeout = '20s'; drop database other});
pass('another database is dropped while the worker waits for its own');
like($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), qr/waits for database "app"/,
	'without its database: status() says what it waits for');
is($node->safe_psql('postgres', q{select pid from pg_stat_activity where backend_type = 'meshhook_metrics worker'}), $waiting,
	'without its database: it is one process that waits');
my @lines = complaints($mark);
cmp_ok(scalar @lines, '<=', 5, 'without its database: the log does not fill up') or diag(explain(\@lines));
$node->safe_psql('postgres', 'create database app');
install_storage($node, database => 'app');
await_status($node, 'worker_pid is not null', 'app');
record();
stored_ok('the database created again');

# To another database, as soon as the setting says so. What is not stored yet
# goes there.
$node->safe_psql('postgres', 'create database second');
install_storage($node, database => 'second');
my $worker = worker_pid($node);
$node->adjust_conf('postgresql.conf', 'meshhook_metrics.database', "'second'");
$node->reload;
await_status($node, "worker_pid <> $worker", 'second');
is($node->safe_psql('postgres', q{select datname from pg_stat_activity where backend_type = 'meshhook_metrics worker'}), 'second',
	'the worker moves to the database that is set');
nothing_is_stored();
record('second');
stored_ok('moved', 'second');

$node->stop;
done_testing();
