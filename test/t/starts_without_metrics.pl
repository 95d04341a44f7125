# Metrics never keep the server from starting. What is wrong with the places in
# which they are kept is logged and shown by status(), recording goes on in
# other memory, and only where there is none at all it says that it cannot.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use ServerFaults;
use Test::More;

my $node = new_metrics_cluster('starts_without_metrics', flush_interval => "'1s'", max_series => 1000, max_histograms => 100);
my $file = $node->data_dir . '/pg_stat/meshhook_metrics.region';
my $mark;

install_storage($node);
$node->safe_psql('postgres', "select meshhook_metrics.inc('kept_total', 7)");
start_faulty($node);
is(counter($node, 'kept_total'), 7, 'a restart keeps what was recorded');

sub complaint
{
	return $node->safe_psql('postgres', "select coalesce(last_error, '') from meshhook_metrics.status()");
}

# It has started: does it record, and store what was recorded?
sub works_ok
{
	my ($name, $complaint) = @_;

	$node->safe_psql('postgres', "select meshhook_metrics.inc('works_total')");
	is(counter($node, 'works_total'), 1, "$name: recording works");
	is(scalar($node->psql('postgres', 'select meshhook_metrics.flush()')), 0, "$name: and so does flushing");
	like(complaint(), $complaint, "$name: status() says what is wrong");
	return;
}

# Start anew, with nothing wrong, and with nothing of before
sub heal
{
	my ($name) = @_;

	$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
	my @objects = region_objects($node);
	$node->stop;
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $file, "$file.bad");
	unlink @objects;
	start_faulty($node);
	is(complaint(), '', "$name: mended, status() says nothing");
	return;
}

# Stop it, do something to the file, start it
sub start_with
{
	my ($work) = @_;

	$node->stop;
	$work->();
	$mark = log_mark($node);
	start_faulty($node);
	return;
}

start_with(sub { unlink $file; mkdir $file; append_to_file("$file/occupied", 'x') });
works_ok('a directory in place of the file', qr/^saved metrics were not found again: "\S+" is not a file$/);
ok($node->log_contains(qr/WARNING:  saved metrics are not used: "\S+" is not a file/, $mark), 'a directory: the log says so');
ok(-d "$file.bad", 'a directory: it is kept aside');
heal('a directory in place of the file');

start_with(sub { unlink $file; PostgreSQL::Test::Utils::system_or_bail('mkfifo', $file) });
works_ok('a pipe in place of the file', qr/^saved metrics were not found again: "\S+" is not a file$/);
heal('a pipe in place of the file');

start_with(sub { unlink $file; symlink $file, $file });
works_ok('a file that cannot be opened', qr/^saved metrics were not found again: could not open file "\S+": Too many levels/);
heal('a file that cannot be opened');

# What cannot be set aside is in the way of the next one
start_with(sub { unlink $file; mkdir $file; append_to_file("$file.bad", 'x') });
works_ok('a file that cannot be set aside', qr/^saved metrics were not found again/);
ok($node->log_contains(qr/WARNING:  could not rename file "\S+" to "\S+": Not a directory/, $mark), 'and the log says why');
$node->stop;
ok($node->log_contains(qr/LOG:  metrics stay in shared memory until the next start/, $mark), 'then metrics stay in shared memory');
start_faulty($node);
is(counter($node, 'works_total'), 1, 'where they are found again');
heal('a file that cannot be set aside');

# A file that claims to be longer than any memory
start_with(sub { truncate $file, 1 << 46 or truncate $file, 1 << 40 or die "truncate: $!" });
works_ok('a file that does not fit memory', qr/^saved metrics were not found again: there is no memory to read file|^$/);
heal('a file that does not fit memory');

# Shared memory objects that a killed server has left: no more files, no more memory
for my $fault (qw(open map))
{
	$node->safe_psql('postgres', "select meshhook_metrics.reset(), meshhook_metrics.inc('kept_total', 7)");
	my ($object) = region_objects($node);
	kill_server($node);
	$mark = log_mark($node);
	start_faulty($node, $fault);
	works_ok("an object that is there and fails to $fault",
		qr/^metrics in shared memory object "\S+" were not found again: could not $fault it: /);
	ok($node->log_contains(qr/WARNING:  could not $fault shared memory object/, $mark), "failing to $fault: the log says so");
	ok(-e $object, "failing to $fault: it stays");
	$node->safe_psql('postgres', "select meshhook_metrics.inc('anonymous_total', 3)");
	$node->stop;
	start_faulty($node);
	is(counter($node, 'anonymous_total'), 3, "failing to $fault: what was recorded meanwhile is saved at the end and goes on");
	is(complaint(), '', "failing to $fault: mended, status() says nothing");
	my @objects = glob($object =~ s/\w$/*/r);
	is(scalar @objects, 1, "failing to $fault: the old object is gone");
	heal("failing to $fault");
}

# A full disk where /dev/shm is
$node->stop;
$mark = log_mark($node);
start_faulty($node, 'full');
works_ok('a full /dev/shm', qr/^shared memory object of \d+ bytes could not be made: No space left on device$/);
heal('a full /dev/shm');

# No memory of any kind: the server works, and recording says why it does not
configure($node, max_series => 100000, max_histograms => 100000);
$node->stop;
$mark = log_mark($node);
start_faulty($node, 'nothing');
is($node->safe_psql('postgres', 'select 6 * 7'), 42, 'no memory at all: the server works');
ok($node->log_contains(qr/WARNING:  metrics are not recorded until the server is started again: could not map \d+ bytes/, $mark),
	'no memory at all: the log says so');
like(complaint(), qr/^shared memory object of \d+ bytes could not be made: /, 'no memory at all: status() says why');
my ($code, $out, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nselect meshhook_metrics.inc('m')");
like($error, qr/ERROR:  53200: meshhook_metrics has no memory to record in\nDETAIL:  When the server started: shared memory object/,
	'no memory at all: recording says why');
($code, $out, $error) = $node->psql('postgres', "set meshhook_metrics.on_error = warning; select meshhook_metrics.inc('m')");
is($code, 0, 'no memory at all: with on_error = warning it only warns');
like($error, qr/WARNING:  meshhook_metrics has no memory to record in/, 'and does');
for my $call ('snapshot()', 'prometheus()', 'flush()', "describe('m', 'counter')", 'reset()', q{record('[]')})
{
	($code, $out, $error) = $node->psql('postgres', "select meshhook_metrics.$call");
	like($error, qr/ERROR:  meshhook_metrics has no memory to record in|ERROR:  the flush worker .* is not running/,
		"no memory at all: $call says so");
}
my $pid = $node->safe_psql('postgres', q{select pid from pg_stat_activity where backend_type = 'checkpointer'});
kill 'KILL', $pid;
$node->poll_query_until('postgres', "select count(*) = 1 from pg_stat_activity where backend_type = 'checkpointer' and pid <> $pid");
is($node->safe_psql('postgres', 'select 6 * 7'), 42, 'no memory at all: it survives the crash of a process');
$node->stop;

# A copied directory whose journal cannot be written: what the other server may
# store is rather lost here than stored twice
configure($node, max_series => 1000, max_histograms => 100);
start_faulty($node);
my $lock = session($node);
$lock->query_safe('begin; lock table meshhook_metrics.flush_state in access exclusive mode');
$node->safe_psql('postgres', "select meshhook_metrics.inc('unstored_total', 7)");
$node->stop('immediate');
$lock->quit;
$node->backup_fs_cold('copy');
my $copy = PostgreSQL::Test::Cluster->new('copy_without_metrics');
$copy->init_from_backup($node, 'copy');
$mark = log_mark($copy);
start_faulty($copy, '', 'meshhook_metrics.flush');
ok($copy->log_contains(qr/WARNING:  metrics that the server from which this data directory was copied had not stored are not stored here: could not write file/, $mark),
	'a copy whose journal cannot be written: the log says so');
is($copy->safe_psql('postgres', 'select 6 * 7'), 42, 'a copy whose journal cannot be written: the server works');
free_disk($copy);
$copy->safe_psql('postgres', "select meshhook_metrics.inc('of_the_copy_total', 5)");
$copy->safe_psql('postgres', 'select meshhook_metrics.flush()');
is(stored_total($copy, 'of_the_copy_total'), '1|5', 'a copy whose journal cannot be written: it stores what is its own');
$copy->stop;
done_testing();
