# The rows of a report: a median over rounds each, with the target it is held
# to, if it has one; printed as a table and written as JSON.

package Report;

use strict;
use warnings;

use JSON::PP;
use List::Util qw(max);

use constant JSON_DIGITS => 4;

sub new
{
	my ($class) = @_;
	return bless { rows => [] }, $class;
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	die "There is no median of no rounds.\n" unless @sorted;
	my $middle = int(@sorted / 2);
	return @sorted % 2 ? $sorted[$middle] : ($sorted[ $middle - 1 ] + $sorted[$middle]) / 2;
}

# add($group, $measure, $unit, \@rounds, at_most | at_least => $target): a row
# without a target is there to be compared with
sub add
{
	my ($self, $group, $measure, $unit, $rounds, %target) = @_;
	my %row = (
		group => $group,
		measure => $measure,
		unit => $unit,
		value => median(@$rounds),
		rounds => $rounds,
		%target);

	$row{met} = $row{value} <= $row{at_most} if exists $row{at_most};
	$row{met} = $row{value} >= $row{at_least} if exists $row{at_least};
	push @{ $self->{rows} }, \%row;
}

sub with_unit
{
	my ($number, $unit) = @_;
	my $digits = abs($number) >= 1000 || $number == int($number) ? 0 : abs($number) >= 10 ? 1 : 2;
	my $text = sprintf '%.*f', $digits, $number;
	1 while $text =~ s/^(-?\d+)(\d{3})/$1,$2/;
	return "$text $unit";
}

sub target_text
{
	my ($row) = @_;
	return '<= ' . with_unit($row->{at_most}, $row->{unit}) if exists $row->{at_most};
	return '>= ' . with_unit($row->{at_least}, $row->{unit}) if exists $row->{at_least};
	return '';
}

sub print_table
{
	my ($self) = @_;
	my $width = max map { length $_->{measure} } @{ $self->{rows} };
	my $group = '';
	for my $row (@{ $self->{rows} })
	{
		if ($row->{group} ne $group)
		{
			$group = $row->{group};
			printf "\n%-*s  %16s  %16s\n", $width + 2, $group, 'median', 'target';
		}
		my $verdict = !exists $row->{met} ? '' : $row->{met} ? 'met' : 'MISSED';
		(my $line = sprintf "  %-*s  %16s  %16s  %s", $width, $row->{measure},
			with_unit($row->{value}, $row->{unit}), target_text($row), $verdict) =~ s/\s+$//;
		print "$line\n";
	}
	my @judged = grep { exists $_->{met} } @{ $self->{rows} };
	my $met = grep { $_->{met} } @judged;
	printf "\n%d targets met, %d missed\n", $met, @judged - $met;
}

sub write_json
{
	my ($self, $path, %about) = @_;
	my @rows = map {
		my %row = %$_;
		$row{$_} = 0 + sprintf '%.*f', JSON_DIGITS, $row{$_} for grep { exists $row{$_} } qw(value at_most at_least);
		$row{rounds} = [ map { 0 + sprintf '%.*f', JSON_DIGITS, $_ } @{ $row{rounds} } ];
		$row{met} = $row{met} ? JSON::PP::true : JSON::PP::false if exists $row{met};
		\%row;
	} @{ $self->{rows} };

	open my $file, '>', $path or die "$path: $!\n";
	print $file JSON::PP->new->pretty->canonical->indent_length(1)->encode({ %about, rows => \@rows });
	close $file or die "$path: $!\n";
}

1;
