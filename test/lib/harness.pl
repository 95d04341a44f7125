#!/usr/bin/env perl
#
# Runs TAP producers and counts their assertions. Called by test/lib/suites.sh.
# Appends "PASSED FAILED" to the results file and one line for every failed
# assertion to the failures file; a producer that ends badly without a failed
# assertion (wrong plan, bad exit status, no output, not at its end in --limit
# seconds) counts as one failure.

use strict;
use warnings;
use Getopt::Long;
use TAP::Harness;

my ($suite, $results, $failures, $exec, $binary, $logs);
my ($jobs, $limit) = (2, 400);
GetOptions(
	'suite=s' => \$suite,
	'results=s' => \$results,
	'failures=s' => \$failures,
	'exec=s' => \$exec,
	'binary' => \$binary,
	'jobs=i' => \$jobs,
	'limit=i' => \$limit,
	'logs=s' => \$logs) or exit 2;
my @files = @ARGV;

my %options = (verbosity => 0, failures => 1, comments => 0, timer => 1, jobs => $jobs, errors => 1);
my @command = $exec ? split(' ', $exec) : $binary ? () : ($^X);
$options{exec} = sub { return [ $^X, 'test/lib/limited.pl', $limit, @command, $_[1] ] };

my (%seen, %said);
my $harness = TAP::Harness->new(\%options);
$harness->callback(made_parser => sub {
	my ($parser, $job) = @_;
	$parser->callback(test => sub {
		my ($test) = @_;
		$said{ $job->[1] }{ $test->number } = $test->description;
	});
});
my $aggregate = $harness->runtests(
	map { my $name = $_; $name =~ s{.*/}{}; $seen{$name} = $_; [ $_, $name ] } @files);

my ($passed, $failed) = (0, 0);
my @names;
for my $name (sort keys %seen)
{
	my ($parser) = $aggregate->parsers($name);
	my @bad = $parser->failed;
	my $status = $parser->exit || $parser->wait;
	my $trouble = 0;

	$passed += scalar $parser->passed;
	push @names, "$suite/$name: test $_ " . ($said{$name}{$_} // '') for @bad;
	if (!@bad && $parser->parse_errors)
	{
		push @names, "$suite/$name: " . join('; ', $parser->parse_errors);
		$trouble = 1;
	}
	elsif (!@bad && $status)
	{
		push @names, "$suite/$name: ended with status " . ($status >> 8) . ", signal " . ($status & 127);
		$trouble = 1;
	}
	elsif (!$parser->tests_run && !$parser->skip_all)
	{
		push @names, "$suite/$name: ran no test";
		$trouble = 1;
	}
	print "# $name skipped: ", $parser->skip_all, "\n" if $parser->skip_all;
	$failed += @bad + $trouble;
	show_logs($name) if $logs && (@bad || $trouble);
}

append($results, "$passed $failed");
append($failures, $_) for @names;
exit($failed ? 1 : 0);

# The log of a failed PostgreSQL::Test::Cluster test and of its servers
sub show_logs
{
	my ($name) = @_;
	$name =~ s/\.pl$//;
	for my $log (glob("$logs/regress_log_$name $logs/${name}_*.log"))
	{
		open my $handle, '<', $log or next;
		my @lines = <$handle>;
		my $from = @lines > 60 ? @lines - 60 : 0;
		$log =~ s{.*/}{};
		print "---- $log (its end)\n", @lines[ $from .. $#lines ], "----\n";
	}
}

sub append
{
	my ($path, $line) = @_;
	open my $handle, '>>', $path or die "$path: $!\n";
	print $handle "$line\n";
	close $handle;
}
