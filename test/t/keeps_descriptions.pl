# What describe() said outlives shared memory: it is in table metrics, which a
# promoted standby, a new container and a restored database read before they
# record. What was recorded before that is kept, and merged with the rest.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $described = 'select name, kind, help, unit, min_exponent from meshhook_metrics.metrics order by name';
my $again = "select meshhook_metrics.describe('payload_bytes', 'histogram', 'Size of a payload.', 'bytes', 0)";

# 1,000 to 100,000 bytes: the median is 50,000
sub observe_payloads
{
	my ($node) = @_;

	$node->safe_psql('postgres', "select meshhook_metrics.observe('payload_bytes', i * 1000) from generate_series(1, 100) i");
	return;
}

# Of everything that is stored, as an hour's or a day's rollup merges it
my $stored = <<'SQL';
select
	meshhook_metrics.histogram_count(h),
	abs(meshhook_metrics.histogram_quantile(h, 0.5) / 50000 - 1) < 0.044,
	meshhook_metrics.histogram_max(h)
from (
	select meshhook_metrics.histogram_merge(u.histogram) as h
	from meshhook_metrics.series s, meshhook_metrics.live l, unnest(l.series_id, l.histogram) u (id, histogram)
	where s.metric = 'payload_bytes' and u.id = s.id) m
SQL

# Of what came after a row of live
sub observed_since
{
	my ($node, $id) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select sum(meshhook_metrics.histogram_count(u.histogram)), sum((u.histogram::json ->> 'overflow')::bigint)
from meshhook_metrics.series s, meshhook_metrics.live l, unnest(l.series_id, l.histogram) u (id, histogram)
where s.metric = 'payload_bytes' and u.id = s.id and l.id > $id
SQL
}

# Does a server know that the window of a metric begins at 8?  What it has recorded
# before in another one is not shown.
sub await_known
{
	my ($node, $metric, $database) = @_;

	await(
		sub {
			return $node->safe_psql($database // 'postgres', <<"SQL") eq '0';
select meshhook_metrics.observe('$metric', 8e9) \\g /dev/null
select histogram::json -> 'overflow' from meshhook_metrics.snapshot() where metric = '$metric'
SQL
		},
		"$metric to be known");
	return;
}

my $primary = new_plain_cluster('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
$primary->start;
remember_region($primary);
install_storage($primary);

# Written with the next flush, whatever it is
$primary->safe_psql('postgres', $again);
$primary->safe_psql('postgres', "select meshhook_metrics.describe('depth', 'gauge', 'Waiting.'), meshhook_metrics.describe('runs_total', 'counter'), meshhook_metrics.describe('zero_bytes', 'histogram', min_exponent => 3)");
flush($primary);
is($primary->safe_psql('postgres', $described), <<"ROWS" =~ s/\n\z//r, 'what was described is in the table when flush() returns');
depth|gauge|Waiting.||
payload_bytes|histogram|Size of a payload.|bytes|0
runs_total|counter|||
zero_bytes|histogram|||3
ROWS
$primary->safe_psql('postgres', "select meshhook_metrics.describe('runs_total', 'counter', 'Runs.')");
flush($primary);
is($primary->safe_psql('postgres', "select help from meshhook_metrics.metrics where name = 'runs_total'"), 'Runs.', 'so is what was said later');
$primary->safe_psql('postgres', "select meshhook_metrics.reset('runs_total'), meshhook_metrics.reset(), meshhook_metrics.reset('depth', gen_random_uuid())");
flush($primary);
is($primary->safe_psql('postgres', 'select name from meshhook_metrics.metrics order by name'), "depth\npayload_bytes\nzero_bytes", 'a metric that was reset is forgotten there, too');
$primary->safe_psql('postgres', "select meshhook_metrics.describe('runs_total', 'gauge'), meshhook_metrics.reset('runs_total'), meshhook_metrics.describe('runs_total', 'counter')");
flush($primary);
is($primary->safe_psql('postgres', "select kind from meshhook_metrics.metrics where name = 'runs_total'"), 'counter', 'unless it was described again');

# A failover
$primary->backup('base');
observe_payloads($primary);
flush($primary);
$primary->safe_psql('postgres', "select meshhook_metrics.describe('later_bytes', 'histogram', min_exponent => 3), meshhook_metrics.describe('busy_bytes', 'histogram', min_exponent => 0)");
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
remember_region($standby);
await_known($standby, 'zero_bytes');
observe_payloads($standby);
is($standby->safe_psql('postgres', "select count, histogram::json -> 'overflow' from meshhook_metrics.snapshot() where metric = 'payload_bytes'"), '100|0',
	'a standby records in the window that its primary was told');
is($standby->safe_psql('postgres', 'select worker_pid, last_error from meshhook_metrics.status()'), '|', 'without a flush worker or an error');
flush($primary);
await_known($standby, 'later_bytes');
pass('a standby learns what is described later');
$primary->stop;
$standby->promote;
await_status($standby, 'worker_pid is not null');
flush($standby);
is($standby->safe_psql('postgres', $stored), '200|t|100000', 'after a failover the median of both servers is right');
my ($code, $out, $error) = $standby->psql('postgres', $again);
is($error, '', "the application's describe() is no mistake there");
($code, $out, $error) = $standby->psql('postgres', "\\set VERBOSITY verbose\nselect meshhook_metrics.describe('payload_bytes', 'histogram', min_exponent => 5)");
like($error, qr/55000: histogram "payload_bytes" has series.*\nDETAIL:  It is 0\.\nHINT:  .*reset\('payload_bytes'\)/, 'but another window is');
$standby->safe_psql('postgres', q{select meshhook_metrics.reset('payload_bytes'); select meshhook_metrics.describe('payload_bytes', 'histogram', min_exponent => 5)});
flush($standby);
is($standby->safe_psql('postgres', "select min_exponent from meshhook_metrics.metrics where name = 'payload_bytes'"), '5', 'and becomes possible as its hint says');
$standby->stop;

# A new container, whose memory is new; backends are quicker than the worker
unlink $primary->data_dir . '/pg_stat/meshhook_metrics.region' or die "no region to lose: $!";
configure($primary, database => "'nowhere'");
$primary->start;
remember_region($primary);
observe_payloads($primary);
is($primary->safe_psql('postgres', "select histogram::json -> 'overflow' from meshhook_metrics.snapshot() where metric = 'payload_bytes'"), '96',
	'before the descriptions are loaded another window is recorded in');
($code, $out, $error) = $primary->psql('postgres', $again);
is($error, '', 'describe() is no mistake then');
my $open = session($primary);
$open->query_safe("select meshhook_metrics.observe('payload_bytes', 50000)");
# Sessions that go on recording while one series gives way to the other
my @busy = map {
	my ($out, $error) = ('', '');

	{ error => \$error, run => IPC::Run::start([ 'psql', '-X', '-q', '-d', $primary->connstr('postgres'), '-c', <<'SQL' ], '>', \$out, '2>', \$error) };
do $$
begin
	for i in 1 .. 1000000 loop
		perform meshhook_metrics.observe('busy_bytes', 50000), meshhook_metrics.inc('busy_total')
		from generate_series(1, 100);
		exit when (
			select (histogram::json ->> 'overflow')::bigint = 0
			from meshhook_metrics.snapshot()
			where metric = 'busy_bytes');
	end loop;
end
$$
SQL
} 1 .. 3;
$primary->poll_query_until('postgres', "select count(*) > 0 from meshhook_metrics.snapshot() where metric = 'busy_total'") or die 'nobody is busy';
configure($primary, database => "'postgres'");
$primary->reload;
await_status($primary, 'worker_pid is not null');
flush($primary);
my $flushed = $primary->safe_psql('postgres', 'select max(id) from meshhook_metrics.live');
observe_payloads($primary);
$_->{run}->finish, is(${ $_->{error} }, '', 'a busy session saw the other window') for @busy;
flush($primary);
is(stored_total($primary, 'busy_bytes') =~ s/\|.*//r, stored_total($primary, 'busy_total') =~ s/\|.*//r, 'and recorded each sample once');
$open->query_safe("select meshhook_metrics.observe('payload_bytes', 50000)");
flush($primary);
is(observed_since($primary, $flushed), '101|0', 'after that the right one, also by old sessions');
is($primary->safe_psql('postgres', $stored), '302|t|100000', 'nothing is lost or counted twice, and the median is right');
is(stored_total($primary, 'payload_bytes'), '302|' . (3 * 5050 * 1000 + 100000), 'nor of the sum');
await_status($primary, 'series_used = 3 and histograms_used = 2');
is($primary->safe_psql('postgres', "select count(*) from meshhook_metrics.snapshot() where metric = 'payload_bytes'"), '1', 'one series is shown');
$open->quit;

# Killed before it is stored
my $locking = session($primary);
$locking->query_safe('begin; lock table meshhook_metrics.metrics in access exclusive mode');
$primary->safe_psql('postgres', "select meshhook_metrics.describe('killed_bytes', 'histogram', min_exponent => 7), meshhook_metrics.reset('depth'), meshhook_metrics.inc('others_total')");
flush($primary);
is(stored_total($primary, 'others_total'), '1|1', 'a lock on the table holds up nothing else for long');
kill_server($primary);
$locking->quit;
$primary->start;
await_status($primary, 'worker_pid is not null');
flush($primary);
is($primary->safe_psql('postgres', 'select name, min_exponent from meshhook_metrics.metrics order by name'),
	"busy_bytes|0\nkilled_bytes|7\nlater_bytes|3\npayload_bytes|0\nruns_total|\nzero_bytes|3", 'what was said and not stored is stored after a kill');

# and over a restart, in which metrics get other numbers
$locking = session($primary);
$locking->query_safe('begin; lock table meshhook_metrics.metrics in access exclusive mode');
$primary->safe_psql('postgres', "select meshhook_metrics.describe('restarted', 'gauge'), meshhook_metrics.reset('killed_bytes')");
$primary->stop('immediate');
$locking->quit;
configure($primary, max_series => 9000);
$primary->start;
remember_region($primary);
await_status($primary, 'worker_pid is not null');
flush($primary);
is($primary->safe_psql('postgres', 'select name from meshhook_metrics.metrics order by name'),
	"busy_bytes\nlater_bytes\npayload_bytes\nrestarted\nruns_total\nzero_bytes", 'or after a restart');

# What has gone from the table comes again; without the table all else goes on
$primary->safe_psql('postgres', 'truncate meshhook_metrics.metrics');
$primary->restart;
remember_region($primary);
await_status($primary, 'worker_pid is not null');
flush($primary);
flush($primary);
is($primary->safe_psql('postgres', 'select count(*) from meshhook_metrics.metrics'), '6', 'a table that was emptied is filled');
$primary->safe_psql('postgres', 'drop table meshhook_metrics.metrics');
$primary->safe_psql('postgres', "select meshhook_metrics.describe('tableless', 'gauge'), meshhook_metrics.inc('others_total')");
flush($primary);
flush($primary);
is(stored_total($primary, 'others_total'), '2|2', 'without the table metrics are stored');
is($primary->safe_psql('postgres', 'select flush_errors, last_error from meshhook_metrics.status()'), '0|', 'and that is no error');
install_storage($primary);
flush($primary);
flush($primary);
is($primary->safe_psql('postgres', 'select name, kind, min_exponent from meshhook_metrics.metrics order by name'),
	"busy_bytes|histogram|0\nlater_bytes|histogram|3\npayload_bytes|histogram|0\nrestarted|gauge|\nruns_total|counter|\ntableless|gauge|\nzero_bytes|histogram|3",
	'the migrations make it, and the worker fills it');

# A dump has it
my $dump = "$PostgreSQL::Test::Utils::tmp_check/described.sql";
$primary->command_ok([ 'pg_dump', '-f', $dump, '-d', $primary->connstr('postgres') ], 'pg_dump');
$primary->stop;
my $restored = new_plain_cluster('restored');
$restored->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
configure($restored, flush_interval => "'1s'");
$restored->start;
remember_region($restored);
$restored->safe_psql('postgres', "create database target");
$restored->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $restored->connstr('target') ], 'is restored');
configure($restored, database => "'target'");
$restored->reload;
await_known($restored, 'later_bytes', 'target');
pass('and a server that it is restored to knows it');
$restored->stop;
done_testing();
