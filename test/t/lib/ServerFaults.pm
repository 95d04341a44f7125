# Servers whose clock jumps and whose disk is full when a test says so, without
# any rights: see server_faults.c, which is compiled here and preloaded into
# them. Clients see the clock that all tests see, that of the machine unless they
# run at another time (CLOCK, test/lib/suites.sh).

package ServerFaults;

use strict;
use warnings;

use Exporter 'import';
use Fcntl qw(SEEK_SET O_RDWR O_CREAT);
use File::Basename qw(dirname);
use MetricsCluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(start_faulty set_clock fill_disk free_disk times_full);

# As struct Faults: what the clock is off by, how often a write has failed,
# what is in the paths of files that cannot grow, and which memory there is not
my $layout = 'q q Z240 Z16';
my $library;

# What the clock of all tests is off by
my $clock = $ENV{MHM_FAULTS} ? unpack 'q', slurp_file($ENV{MHM_FAULTS}) : 0;

sub library
{
	return $library if defined $library;
	my $path = "$PostgreSQL::Test::Utils::tmp_check/server_faults.so";

	system_or_bail('gcc', '-shared', '-fPIC', '-O2', '-o', $path,
		dirname(__FILE__) . '/server_faults.c', '-ldl');
	return $library = $path;
}

sub faults_file
{
	my ($node) = @_;

	return $node->basedir . '/faults';
}

sub put_faults
{
	my ($node, $at, $bytes) = @_;

	sysopen my $file, faults_file($node), O_RDWR | O_CREAT or die 'faults of ' . $node->name . ": $!";
	sysseek $file, $at, SEEK_SET or die "sysseek: $!";
	(syswrite($file, $bytes) // 0) == length $bytes or die "syswrite: $!";
	close $file;
	return;
}

# Start or restart a server that is to have faults; it has none yet, unless
# there is memory that it does not find when it makes the region, or files that
# cannot grow already
sub start_faulty
{
	my ($node, $without, $full_where) = @_;

	put_faults($node, 0, pack $layout, $clock, 0, $full_where // '', $without // '');
	local $ENV{MHM_FAULTS} = faults_file($node);
	local $ENV{LD_PRELOAD} = library();
	defined $node->{_pid} ? $node->restart : $node->start;
	remember_region($node);
	return;
}

# From now on the server's clock is so many seconds ahead of its clients'
sub set_clock
{
	my ($node, $seconds) = @_;

	put_faults($node, 0, pack 'q', $clock + $seconds * 1_000_000);
	return;
}

# Files with this in their path cannot grow any more
sub fill_disk
{
	my ($node, $where) = @_;

	put_faults($node, 8, pack 'q Z240', 0, $where);
	return;
}

sub free_disk
{
	my ($node) = @_;

	put_faults($node, 16, pack 'Z240', '');
	return;
}

# How often something could not be written since the disk was filled
sub times_full
{
	my ($node) = @_;
	my $bytes = slurp_file(faults_file($node));

	return (unpack $layout, $bytes)[1];
}

1;
