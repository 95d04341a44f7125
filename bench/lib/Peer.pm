# A process that stays alive through a measurement and answers questions on a
# pipe: psql for a session in a cluster, node for prom-client.

package Peer;

use strict;
use warnings;

use IPC::Open2;
use JSON::PP;

use constant END_OF_ANSWER => '--- end of answer ---';

sub open_process
{
	my ($class, @command) = @_;
	my $pid = open2(my $from, my $to, @command);
	$to->autoflush(1);
	return bless { pid => $pid, from => $from, to => $to, name => $command[0] }, $class;
}

sub session
{
	my ($class, $cluster) = @_;
	return $class->open_process($cluster->psql_command);
}

sub prom_client
{
	my ($class, $script) = @_;
	my $self = $class->open_process('node', $script);
	$self->{versions} = decode_json($self->line);
	return $self;
}

sub line
{
	my ($self) = @_;
	my $line = readline $self->{from};
	die "$self->{name} ended in the middle of a measurement; its message is above.\n" unless defined $line;
	chomp $line;
	return $line;
}

# Send SQL without waiting for its end; answer() takes the rows
sub send_sql
{
	my ($self, $sql) = @_;
	print { $self->{to} } "$sql;\n\\echo " . END_OF_ANSWER . "\n";
}

sub answer
{
	my ($self) = @_;
	my @rows;
	while ((my $line = $self->line) ne END_OF_ANSWER)
	{
		push @rows, $line;
	}
	return wantarray ? @rows : $rows[0];
}

sub sql
{
	my ($self, $sql) = @_;
	$self->send_sql($sql);
	return $self->answer;
}

sub nanoseconds_per_call
{
	my ($self, $measure, $calls) = @_;
	print { $self->{to} } "$measure $calls\n";
	return $self->line;
}

sub close
{
	my ($self) = @_;
	close $self->{to};
	close $self->{from};
	waitpid $self->{pid}, 0;
}

1;
