# Measuring in rounds: what the benches do alike. Variants are measured in
# turn, round after round and every other round backwards, so that what else the
# machine does meets all of them alike; they are compared within a round before
# the median is taken.

package Rounds;

use strict;
use warnings;

use Exporter qw(import);

our @EXPORT_OK = qw(by_round difference each_round progress ratio rounds);

sub progress
{
	my ($text) = @_;
	print STDERR "# $text\n";
}

# Run each of the named measurements once a round; returns the rounds by name
sub rounds
{
	my ($rounds, $order, $measure) = @_;
	my %results;
	for my $round (1 .. $rounds)
	{
		for my $name ($round % 2 ? @$order : reverse @$order)
		{
			push @{ $results{$name} }, $measure->($name);
		}
	}
	return %results;
}

# Combine rounds, each with its own peers only
sub by_round
{
	my ($combine, @series) = @_;
	return [
		map {
			my $round = $_;
			$combine->(map { $_->[$round] } @series)
		} 0 .. $#{ $series[0] }
	];
}

# One of the figures of all rounds
sub each_round
{
	my ($what, $rounds) = @_;
	return by_round(sub { $_[0]{$what} }, $rounds);
}

sub difference { return by_round(sub { $_[0] - $_[1] }, @_) }
sub ratio { return by_round(sub { $_[0] / $_[1] }, @_) }

1;
