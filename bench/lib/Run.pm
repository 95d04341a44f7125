# A run of one of the benches, which prepared everything and started this as an
# unprivileged user with the extension installed for PG_CONFIG: measures, says
# on what, prints the table, writes MHM_TMP/NAME.json, leaves no cluster behind.

package Run;

use strict;
use warnings;

use JSON::PP;
use POSIX qw(strftime uname);

use Cluster;
use Report;

$| = 1;
$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
END { my $status = $?; Cluster::stop_all(); $? = $status }

my $quick = grep { $_ eq '--quick' } @ARGV;

# One of some sizes, which are [full, quick]
sub size
{
	my ($sizes, $name) = @_;
	return $sizes->{$name}[$quick ? 1 : 0];
}

# bench($name, $measure): $measure gets the report, and a hash for the versions of
# what takes part
sub bench
{
	my ($name, $measure) = @_;
	my $report = Report->new;
	my $started = time;
	my %about = (
		measured_at => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $started),
		quick => $quick ? JSON::PP::true : JSON::PP::false,
		machine => { %{ machine() }, load_before => load() },
		versions => {},
	);

	$measure->($report, $about{versions});
	$about{seconds} = time - $started;
	$about{machine}{load_after} = load();
	print_about(\%about);
	$report->print_table;
	$report->write_json("$ENV{MHM_TMP}/$name.json", %about);
}

# The versions that a session can tell
sub server_versions
{
	my ($session) = @_;
	return (
		postgresql => scalar $session->sql('show server_version'),
		meshhook_metrics =>
		  scalar $session->sql("select extversion from pg_extension where extname = 'meshhook_metrics'"),
	);
}

sub machine
{
	my ($cpu) = Cluster::read_file('/proc/cpuinfo') =~ /^model name\s*:\s*(.*)/m;
	my @cores = Cluster::read_file('/proc/cpuinfo') =~ /^(processor)\s*:/mg;
	my ($kilobytes) = Cluster::read_file('/proc/meminfo') =~ /^MemTotal:\s*(\d+)/;
	my ($system, undef, $release, undef, $architecture) = uname();
	return {
		cpu => $cpu // 'unknown',
		cores => scalar @cores,
		memory_gib => 0 + sprintf('%.1f', $kilobytes / 1024**2),
		system => "$system $release $architecture",
	};
}

# Processes that wanted a processor, over the last minute
sub load
{
	return 0 + (split ' ', Cluster::read_file('/proc/loadavg'))[0];
}

sub print_about
{
	my ($about) = @_;
	my ($machine, $versions) = @$about{qw(machine versions)};
	print "\nmeshhook_metrics $versions->{meshhook_metrics}, PostgreSQL $versions->{postgresql}",
	  defined $versions->{prom_client} ? ", prom-client $versions->{prom_client} on Node $versions->{node}" : '', "\n",
	  "$machine->{cpu}, $machine->{cores} cores, $machine->{memory_gib} GiB, $machine->{system}\n",
	  "$about->{measured_at}, $about->{seconds} s, load $machine->{load_before} before",
	  $quick ? '; a quick run: its figures mean little' : '', "\n";
}

1;
