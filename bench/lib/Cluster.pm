# A private PostgreSQL cluster for one measurement: in a folder of its own
# below MHM_TMP, on a unix socket only, with the extension preloaded. A run makes
# and drops them; whatever ends it, stop_all() leaves no process and no shared
# memory object behind, and runner.sh removes what even that missed.

package Cluster;

use strict;
use warnings;

use File::Path qw(remove_tree);
use List::Util qw(sum);
use POSIX qw(sysconf _SC_CLK_TCK);

# Parallel plans and JIT would change what is compared in the middle of a run.
use constant SETTINGS => {
	listen_addresses => '',
	shared_preload_libraries => 'meshhook_metrics',
	max_connections => 40,
	jit => 'off',
	max_parallel_workers_per_gather => 0,
};

my %running;
my $started = 0;
my $bindir;

sub bindir
{
	return $bindir if defined $bindir;
	chomp($bindir = qx{$ENV{PG_CONFIG} --bindir});
	die "$ENV{PG_CONFIG} --bindir failed.\n" if $? != 0;
	return $bindir;
}

sub start
{
	my ($class, %settings) = @_;
	my $folder = "$ENV{MHM_TMP}/c/" . ++$started;
	mkdir $folder or die "$folder: $!\n";
	my $self = bless { folder => $folder, data => "$folder/data", shared_memory => [] }, $class;
	$running{$folder} = $self;

	$self->run_tool('initdb', '-D', $self->{data}, '-U', 'bench', '-A', 'trust', '-E', 'UTF8', '--locale=C',
		'--no-sync');
	$self->write_settings(%{ +SETTINGS }, unix_socket_directories => $folder, %settings);
	$self->run_tool('pg_ctl', '-D', $self->{data}, '-l', "$folder/server.log", '-w', 'start');
	$self->remember_shared_memory;
	return $self;
}

sub write_settings
{
	my ($self, %settings) = @_;
	open my $conf, '>>', "$self->{data}/postgresql.conf" or die "postgresql.conf: $!\n";
	print $conf "$_ = '$settings{$_}'\n" for sort keys %settings;
	close $conf or die "postgresql.conf: $!\n";
}

# Run one of the server's programs; its output is shown only if it fails
sub run_tool
{
	my ($self, $tool, @arguments) = @_;
	my $output = "$self->{folder}/$tool.out";
	my $child = fork() // die "fork: $!\n";
	if ($child == 0)
	{
		open STDOUT, '>', $output;
		open STDERR, '>&', \*STDOUT;
		exec bindir() . "/$tool", @arguments;
		exit 127;
	}
	waitpid $child, 0;
	return if $? == 0;
	die "$tool failed.\n" . read_file($output) . read_file("$self->{folder}/server.log");
}

sub read_file
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return scalar <$file>;
}

# The object that this postmaster has mapped, and no other cluster's
sub remember_shared_memory
{
	my ($self) = @_;
	my %mapped =
	  map { $_ => 1 } read_file('/proc/' . $self->postmaster . '/maps') =~ m{(/dev/shm/meshhook_metrics\.[^\s/]+)}g;
	$self->{shared_memory} = [ sort keys %mapped ];

	open my $list, '>', "$self->{folder}/shared_memory_objects" or die "shared_memory_objects: $!\n";
	print $list map { "$_\n" } @{ $self->{shared_memory} };
	close $list or die "shared_memory_objects: $!\n";
}

sub psql_command
{
	my ($self) = @_;
	return (bindir() . '/psql', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-h', $self->{folder}, '-U', 'bench', '-d',
		'postgres');
}

# Statements of a pgbench script per second, and per second of processor time
# that the server takes for them
sub pgbench
{
	my ($self, $script, @options) = @_;
	my @command = (bindir() . '/pgbench', '-n', '-h', $self->{folder}, '-U', 'bench', '-f', $script, @options,
		'postgres');
	my %others = map { $_ => 1 } $self->server_processes;
	my $used = $self->ended_processes_ticks;

	open my $out, '-|', @command or die "pgbench: $!\n";
	my $text = do { local $/; <$out> };
	close $out or die "pgbench failed: @command\n";
	my ($statements) = $text =~ /^number of transactions actually processed: (\d+)/m;
	my ($per_second) = $text =~ /^tps = ([\d.]+) \(without/m;
	die "pgbench printed no rate:\n$text" unless $statements && $per_second;

	# A backend's time is added to the postmaster's account when it is gone.
	1 while grep { !$others{$_} } $self->server_processes;
	$used = $self->ended_processes_ticks - $used;
	return {
		per_second => $per_second,
		per_processor_second => $statements / ($used / sysconf(_SC_CLK_TCK)),
	};
}

sub postmaster
{
	my ($self) = @_;
	my ($pid) = read_file("$self->{data}/postmaster.pid") =~ /^(\d+)/;
	return $pid // die "The server in $self->{data} does not run.\n";
}

sub server_processes
{
	my ($self) = @_;
	my $pid = $self->postmaster;
	return split ' ', read_file("/proc/$pid/task/$pid/children");
}

# What the server's processes that have ended took, user and system time
sub ended_processes_ticks
{
	my ($self) = @_;
	my ($fields) = read_file('/proc/' . $self->postmaster . '/stat') =~ /^.*\) (.*)/s;
	return sum((split ' ', $fields)[ 13, 14 ]);
}

sub stop
{
	my ($self) = @_;
	return unless delete $running{ $self->{folder} };
	if (-e "$self->{data}/postmaster.pid")
	{
		eval { $self->run_tool('pg_ctl', '-D', $self->{data}, '-m', 'fast', '-w', 'stop') };
		warn $@ if $@;
	}
	unlink @{ $self->{shared_memory} };
	remove_tree($self->{folder});
}

sub stop_all
{
	$_->stop for values %running;
}

1;
