# What is found at a start is used only when it is whole: a damaged, foreign or
# copied file or object never keeps the server from starting, never crashes it
# and never shows what contradicts itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use RegionBytes;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 10);
my $seed = int rand 2**31;
srand $seed;
note("seed of the damage: $seed");
read_layout($node);
my $saved = $node->data_dir . '/pg_stat/meshhook_metrics.region';

sub record_something
{
	my ($server) = @_;

	$server->safe_psql('postgres', <<'SQL');
select meshhook_metrics.describe('runs_total', 'counter', 'Runs of workflows', 'runs');
select meshhook_metrics.describe('idle', 'counter', 'Described only');
select meshhook_metrics.describe('idle_count', 'counter', 'Described only');
select meshhook_metrics.inc('runs_total', 1, jsonb_build_object('status', 's' || i % 7, 'some_label', repeat('x', i % 50)))
from generate_series(1, 40) i;
select meshhook_metrics.gauge_set('depth', i, jsonb_build_object('queue', i)) from generate_series(1, 10) i;
select meshhook_metrics.observe('run_seconds', i / 100.0, jsonb_build_object('n', i % 3)) from generate_series(1, 1000) i;
SQL
	return everything($server);
}

# After damage the server serves all it had, or begins anew and says so
sub exact_or_reset_ok
{
	my ($before, $mark, $name) = @_;
	my ($code, $after, $error) = $node->psql('postgres', $MetricsCluster::EVERYTHING);

	is("$code|$error", '0|', "$name: everything can be shown");
	if ($after eq '')
	{
		ok($node->log_contains(qr/LOG:  .*metrics.*(?:damaged|not used)/, $mark),
			"$name: it begins anew and says so");
	}
	else
	{
		same_ok($after, $before, "$name: all is as it was");
	}
	consistent_ok($node, "$name: nothing contradicts itself");
	return;
}

# Damage the file of a stopped server, which must then begin anew
sub damaged_file_ok
{
	my ($name, $damage, $reason) = @_;
	my $mark;

	record_something($node);
	$node->stop;
	my $bytes = slurp_bytes($saved);
	$damage->(\$bytes);
	spew_bytes($saved, $bytes);
	$mark = log_mark($node);
	$node->start;
	is(everything($node), '', "$name: the metrics begin anew");
	ok($node->log_contains($reason, $mark), "$name: the log says why");
	ok(!-e $saved, "$name: the file is not kept");
	$node->safe_psql('postgres', "select meshhook_metrics.inc('fresh')");
	is(counter($node, 'fresh'), 1, "$name: recording works");
	return;
}

my $damaged = qr/LOG:  saved metrics in file "pg_stat\/meshhook_metrics.region" are damaged and are not used/;

damaged_file_ok('flipped bit at the beginning', sub { flip_bit(shift, 3) }, $damaged);
damaged_file_ok('flipped bit in the middle', sub { flip_bit($_[0], length(${ $_[0] }) / 2) }, $damaged);
damaged_file_ok('flipped bit in the checksum', sub { flip_bit($_[0], length(${ $_[0] }) - 1) }, $damaged);
damaged_file_ok('truncated by a byte', sub { chop ${ $_[0] } }, $damaged);
damaged_file_ok('truncated to a half', sub { substr(${ $_[0] }, length(${ $_[0] }) / 2) = '' }, $damaged);
damaged_file_ok('truncated to a few bytes', sub { substr(${ $_[0] }, 40) = '' }, $damaged);
damaged_file_ok('empty', sub { ${ $_[0] } = '' }, $damaged);
damaged_file_ok('random bytes', sub { ${ $_[0] } = random_bytes(length ${ $_[0] }) }, $damaged);
damaged_file_ok('of another cluster',
	sub { put_field($_[0], 'header.system_identifier', 0, 4711); refresh_checksum($_[0]) },
	qr/LOG:  metrics found in file "\S+" are not used, since it belongs to another database cluster/);
damaged_file_ok('of another version',
	sub { put_field($_[0], 'header.layout_version', 0, 99); refresh_checksum($_[0]) },
	qr/LOG:  metrics found in file "\S+" are not used, since it was made by another version of meshhook_metrics/);
damaged_file_ok('with a larger geometry than its size',
	sub { put_field($_[0], 'header.geometry.series_slots', 0, 2000); refresh_checksum($_[0]) },
	qr/LOG:  metrics found in file "\S+" are not used, since its size does not fit its geometry/);

# A copy of a stopped cluster goes its own way, also while the original runs
my $before = record_something($node);
$node->stop;
my $copy = new_plain_cluster('copy');
my $copied_port = $copy->port;
my $copied_host = $copy->host;
system_or_bail('rm', '-r', $copy->data_dir);
system_or_bail('cp', '-a', $node->data_dir, $copy->data_dir);
$copy->append_conf('postgresql.conf', "port = $copied_port\nunix_socket_directories = '$copied_host'");
$node->start;
$copy->start;
remember_region($copy);
isnt((region_objects($copy))[0], (region_objects($node))[0], 'a copied cluster has an object of its own');
same_ok(everything($copy), $before, 'a copied cluster begins with what was copied');
$copy->safe_psql('postgres', "select meshhook_metrics.inc('only_here')");
is(counter($node, 'only_here'), 0, 'the original does not see what the copy records');
kill_server($copy);
kill_server($node);
$node->start;
$copy->start;
same_ok(everything($node), $before, 'each finds its own after a crash: the original');
is(counter($copy, 'only_here'), 1, 'each finds its own after a crash: the copy');
$copy->stop;

# What a killed server left, to be damaged in many ways
my $whole = record_something($node);
my $object = remember_region($node);
kill_server($node);
my $left = slurp_bytes($object);

# What nothing can tell from the truth (a byte of a label, a count) may change
# what is shown; otherwise all is exact or all is reset.
sub damaged_object_ok
{
	my ($name, $damage, $undetectable) = @_;
	my ($bytes, $mark) = ($left, log_mark($node));

	$damage->(\$bytes);
	make_bytes($object, $bytes);
	unlink $saved;
	if (!$node->start(fail_ok => 1))
	{
		fail("$name: the server starts");
		diag(grep { /FATAL|PANIC|signal/ } split /^/, log_since($node, $mark));
		unlink glob substr($object, 0, -1) . '*';
		return;
	}
	pass("$name: the server starts");
	remember_region($node);
	exact_or_reset_ok($whole, $mark, $name) unless $undetectable;
	consistent_ok($node, "$name: nothing contradicts itself") if $undetectable;
	$node->psql('postgres', "select meshhook_metrics.reset('fresh')");
	is($node->safe_psql('postgres', <<'SQL'), 1, "$name: recording works");
do $$ begin perform meshhook_metrics.inc('fresh'); end $$;
select value from meshhook_metrics.snapshot() where metric = 'fresh'
SQL
	$node->stop('immediate');
	return;
}

sub noise
{
	my ($bytes, $offset, $length) = @_;

	substr($$bytes, $offset, $length) = random_bytes($length);
	return;
}

# Noise in a field of every element of a part
sub noise_in_field
{
	my ($field) = @_;
	my ($part) = $field =~ /^(\w+)\./;

	return sub {
		my ($bytes) = @_;

		noise($bytes, field_at($field, $_)) for 0 .. element_count($part) - 1;
	};
}

damaged_object_ok('object truncated to nothing', sub { ${ $_[0] } = '' });
damaged_object_ok('object truncated to its header', sub { substr(${ $_[0] }, 200) = '' });
damaged_object_ok('object truncated to a half', sub { substr(${ $_[0] }, length(${ $_[0] }) / 2) = '' });
damaged_object_ok('object that has grown', sub { ${ $_[0] } .= "\0" x 4096 });
damaged_object_ok('object with a header of noise', sub { noise($_[0], part_bytes('header')) });
damaged_object_ok('object with noise behind its magic number',
	sub { noise($_[0], 8, (part_bytes('header'))[1] - 8) });
damaged_object_ok('object of another version', sub { put_field($_[0], 'header.layout_version', 0, 2) });
damaged_object_ok('object of another cluster', sub { put_field($_[0], 'header.system_identifier', 0, 1) });
damaged_object_ok('object that was not completed', sub { put_field($_[0], 'header.magic', 0, 0) });
damaged_object_ok("object with noise as its $_", noise_in_field("header.geometry.$_"))
  for qw(max_series max_histograms series_slots metric_slots chunks stripes series_heads);

# What is derived may be anything
damaged_object_ok('object with noise in all that is derived', sub {
	my ($bytes) = @_;

	noise($bytes, part_bytes($_)) for qw(tenants tenant_links tenant_heads series_heads metric_heads);
	noise_in_field($_)->($bytes)
	  for qw(header.used_series header.used_chunks header.free_series header.free_chunk
	  metrics.next metrics.series series.hash series.next series.generation
	  histograms.next_free stripes.lock header.region_id);
});

# What is not derived is checked
damaged_object_ok("object with noise in $_", noise_in_field($_))
  for qw(metrics.name metrics.help metrics.kind metrics.live metrics.min_exponent
  series.metric series.labels series.histogram series.kind series.live series.overflow
  series.updated_at histograms.min_exponent histograms.counts chunks.next stripes.intent);
damaged_object_ok("object with noise in $_", noise_in_field($_), 1) for qw(series.last series.min series.max);

damaged_object_ok('object with noise in its strings', noise_in_field('chunks.payload'));
damaged_object_ok('object with all ones for ' . $_,
	do { my $part = $_; sub { my ($at, $length) = part_bytes($part); substr(${ $_[0] }, $at, $length) = "\xff" x $length } })
  for qw(stripes metrics series histograms chunks);

# A kind that nothing contradicts until the region moves to another size: there
# a histogram and its own counter would share sample names
configure($node, max_series => 150);
damaged_object_ok("another kind for metric $_, and a larger region",
	do { my $number = $_; sub { put_field($_[0], 'metrics.kind', $number, 3) } }, 1)
  for 0 .. 3;
configure($node, max_series => 100);

# A few bytes of noise anywhere, many times
damaged_object_ok("object with noise in one place, round $_",
	sub { noise($_[0], int rand(length(${ $_[0] }) - 8), 8) for 1 .. 20 }, 1)
  for 1 .. 10;

done_testing();
