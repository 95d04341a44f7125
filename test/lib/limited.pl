#!/usr/bin/env perl
#
# limited.pl SECONDS COMMAND...: runs the command, for no longer than that. What
# hangs is shown, so that its end can be understood: every process of this user
# as it is then; and is ended with what it started, but for servers. harness.pl
# runs each test with it, so that one that hangs fails alone and by its name.

use strict;
use warnings;
use POSIX ();

my ($seconds, @command) = @ARGV;
my $child = fork // die "fork: $!\n";
if (!$child)
{
	# A group of its own, by which its children are found
	POSIX::setpgid(0, 0);
	exec @command or die "$command[0]: $!\n";
}

for my $signal (qw(HUP INT TERM))
{
	$SIG{$signal} = sub { end_all(); exit 1; };
}
$SIG{ALRM} = sub {
	print STDERR "# not at its end after $seconds s: @command\n";
	system("ps -u $> -o pid,ppid,pgid,stat,etimes,wchan:24,args >&2");
	end_all();
	exit 1;
};
alarm $seconds;
waitpid $child, 0;
alarm 0;
my $status = $?;
# What it has left holds its output open, for which the harness would wait
kill 'KILL', -$child;
exit($status & 127 ? 128 + ($status & 127) : $status >> 8);

# Servers that the test leaves are in groups of their own; test/lib/cleanup.sh
# ends them after the last test
sub end_all
{
	kill 'TERM', -$child;
	for (1 .. 50)
	{
		last if waitpid($child, POSIX::WNOHANG()) == $child;
		select undef, undef, undef, 0.1;
	}
	kill 'KILL', -$child;
	waitpid $child, 0;
}
