# The bytes of a saved file or a shared memory object, and ways to damage them.
# Where things are is asked of the probe module (test/modules/mhm_probe) while
# the server still runs.

package RegionBytes;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(
  read_layout part_bytes field_at element_count
  slurp_bytes make_bytes spew_bytes flip_bit random_bytes put_field refresh_checksum
);

my (%parts, %fields);

sub read_layout
{
	my ($node) = @_;

	$node->safe_psql('postgres', 'create extension if not exists mhm_probe');
	%parts = map { my ($part, @rest) = split /\|/; ($part => \@rest) }
	  split /\n/, $node->safe_psql('postgres', 'select * from mhm_probe.parts()');
	%fields = map { my ($part, $field, @rest) = split /\|/; ("$part.$field" => \@rest) }
	  split /\n/, $node->safe_psql('postgres', 'select * from mhm_probe.fields()');
	return;
}

sub element_count
{
	my ($part) = @_;

	return $parts{$part}[2];
}

# Offset and length of a whole part
sub part_bytes
{
	my ($part) = @_;
	my ($offset, $size, $number) = @{ $parts{$part} };

	return ($offset, $size * $number);
}

# Offset and length of a field of an element
sub field_at
{
	my ($field, $element) = @_;
	my ($part) = $field =~ /^(\w+)\./;
	my ($within, $length) = @{ $fields{$field} };

	return ($parts{$part}[0] + $parts{$part}[1] * ($element // 0) + $within, $length);
}

sub slurp_bytes
{
	my ($path) = @_;

	open my $file, '<:raw', $path or die "could not read \"$path\": $!";
	local $/ = undef;
	my $bytes = <$file>;
	close $file;
	return $bytes;
}

# Into the same file, so that its owner and permissions stay
sub spew_bytes
{
	my ($path, $bytes) = @_;

	open my $file, '+<:raw', $path or die "could not write \"$path\": $!";
	truncate $file, 0;
	print $file $bytes;
	close $file or die "could not write \"$path\": $!";
	return;
}

# A file of one's own, as the server makes it
sub make_bytes
{
	my ($path, $bytes) = @_;
	my $mask = umask 0077;

	open my $file, '>:raw', $path or die "could not write \"$path\": $!";
	print $file $bytes;
	close $file or die "could not write \"$path\": $!";
	umask $mask;
	return;
}

sub flip_bit
{
	my ($bytes, $offset) = @_;

	substr($$bytes, $offset, 1) ^= chr(1 << int rand 8);
	return;
}

sub random_bytes
{
	my ($length) = @_;

	return pack 'C*', map { int rand 256 } 1 .. $length;
}

# Write a number, low byte first, into a field
sub put_field
{
	my ($bytes, $field, $element, $value) = @_;
	my ($offset, $length) = field_at($field, $element);

	substr($$bytes, $offset, $length) = substr(pack('Q<', $value), 0, $length);
	return;
}

my @crc_table;

sub crc32c
{
	my ($bytes) = @_;
	my $crc = 0xFFFFFFFF;

	@crc_table = map {
		my $entry = $_;
		$entry = $entry & 1 ? ($entry >> 1) ^ 0x82F63B78 : $entry >> 1 for 1 .. 8;
		$entry;
	} 0 .. 255
	  unless @crc_table;
	$crc = ($crc >> 8) ^ $crc_table[ ($crc ^ $_) & 255 ] for unpack 'C*', $bytes;
	return $crc ^ 0xFFFFFFFF;
}

# Make the checksum at the end of a saved file fit what it holds
sub refresh_checksum
{
	my ($bytes) = @_;

	substr($$bytes, -4) = pack 'L<', crc32c(substr($$bytes, 0, -4));
	return;
}

1;
