# The measurements behind bench/record, which prepares everything and starts
# this as an unprivileged user with the extension installed for PG_CONFIG:
# starts the clusters, measures, prints the table, writes MHM_TMP/record.json.

use strict;
use warnings;

use JSON::PP;
use POSIX qw(strftime uname);

use Cluster;
use Measures;
use Peer;
use Report;

$| = 1;
$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);
END { my $status = $?; Cluster::stop_all(); $? = $status }

my $quick = grep { $_ eq '--quick' } @ARGV;
Measures::be_quick() if $quick;

my $report = Report->new;
my $started = time;
my $cluster = Cluster->start;
my $session = Measures::new_session($cluster);
my $prom_client = Peer->prom_client('node/prom_client.mjs');

my %about = (
	measured_at => strftime('%Y-%m-%dT%H:%M:%SZ', gmtime $started),
	quick => $quick ? JSON::PP::true : JSON::PP::false,
	machine => { %{ machine() }, load_before => load() },
	versions => {
		postgresql => scalar $session->sql('show server_version'),
		meshhook_metrics =>
		  scalar $session->sql("select extversion from pg_extension where extname = 'meshhook_metrics'"),
		%{ $prom_client->{versions} },
	},
);
$session->close;

Measures::calls($report, $cluster, $prom_client);
$prom_client->close;
Measures::backends($report, $cluster);
Measures::batches($report, $cluster);
Measures::statements($report, $cluster);
$cluster->stop;
Measures::memory_and_exposition($report);

$about{seconds} = time - $started;
$about{machine}{load_after} = load();
print_about();
$report->print_table;
$report->write_json("$ENV{MHM_TMP}/record.json", %about);

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
	my ($machine, $versions) = @about{qw(machine versions)};
	print "\nmeshhook_metrics $versions->{meshhook_metrics}, PostgreSQL $versions->{postgresql}, ",
	  "prom-client $versions->{prom_client} on Node $versions->{node}\n",
	  "$machine->{cpu}, $machine->{cores} cores, $machine->{memory_gib} GiB, $machine->{system}\n",
	  "$about{measured_at}, $about{seconds} s, load $machine->{load_before} before",
	  $quick ? '; a quick run: its figures mean little' : '', "\n";
}
