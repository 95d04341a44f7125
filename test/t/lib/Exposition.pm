# A strict reader of Prometheus's text exposition format 0.0.4, for the tests of
# prometheus(). It finds what promtool lets pass: families in pieces, a header
# that comes twice, late or not at all, duplicate series, histograms whose
# buckets are unordered, not cumulative, without +Inf or at odds with their
# count, escapes that no reader would undo, values that are no numbers.
#
# It also knows what is ours: each series has a tenant, but for the extension's
# own health, which has none.

package Exposition;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(parse_exposition find_program);

my $NAME = qr/[a-zA-Z_:][a-zA-Z0-9_:]*/;
my $LABEL = qr/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"/;
my $NUMBER = qr/-?(?:\d+(?:\.\d+)?(?:e[+-]?\d+)?)/;
my $UUID = qr/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
my %UNESCAPED = ('\\\\' => '\\', '\\"' => '"', '\\n' => "\n");

# Read an exposition, given as bytes. Returns a hash:
#   problems   what is wrong with it, as an array of sentences
#   families   by name: { type, help, samples }, samples as
#              { name, labels (a hash), value (a string), key, line (bytes) }
#   samples    all of them, by key
sub parse_exposition
{
	my ($bytes) = @_;
	my $self = { problems => [], families => {}, samples => {}, order => [] };
	my $text = $bytes;

	if (!utf8::decode($text))
	{
		push @{ $self->{problems} }, 'it is not UTF-8';
		return $self;
	}
	push @{ $self->{problems} }, 'its last line has no end' if $text ne '' && $text !~ /\n\z/;

	my $family;
	my $number = 0;
	for my $line (split /\n/, $text, -1)
	{
		$number++;
		last if $number > ($text =~ tr/\n//);
		my $shown = $line;
		utf8::encode($shown);
		my $problem = sub { push @{ $self->{problems} }, "line $number, $shown: $_[0]" };

		if ($line =~ /^# HELP ($NAME) (.*)\z/s)
		{
			$problem->('a family begins again') if $self->{families}{$1};
			$family = { name => $1, help => $2, samples => [] };
			$self->{families}{$1} = $family;
			push @{ $self->{order} }, $1;
			$problem->('a backslash that is no escape') if $family->{help} !~ /^(?:[^\\]|\\[\\n])*\z/;
			$family->{help} =~ s/(\\[\\n])/$UNESCAPED{$1}/g;
		}
		elsif ($line =~ /^# TYPE ($NAME) (counter|gauge|histogram)\z/)
		{
			if (!$family || $family->{name} ne $1)
			{
				$problem->('a type without its help');
				next;
			}
			$problem->('the type comes twice') if $family->{type};
			$problem->('the type comes late') if @{ $family->{samples} };
			$family->{type} = $2;
		}
		elsif ($line =~ /^($NAME)(?:\{(.*)\})? ($NUMBER|NaN|[+-]Inf)\z/s)
		{
			sample($self, $family, $1, $2 // '', $3, $shown, $problem);
		}
		else
		{
			$problem->('neither header nor sample');
		}
	}
	for my $name (@{ $self->{order} })
	{
		my $each = $self->{families}{$name};

		push @{ $self->{problems} }, "$name has no type" if !$each->{type};
		push @{ $self->{problems} }, "$name has no samples" if !@{ $each->{samples} };
		histograms($self, $each) if ($each->{type} // '') eq 'histogram';
	}
	return $self;
}

sub sample
{
	my ($self, $family, $name, $written, $value, $line, $problem) = @_;
	my (%labels, @order);
	my $rest = $written;

	while ($rest =~ s/^$LABEL(?:,(?=.)|\z)//s)
	{
		my ($label, $text) = ($1, $2);

		$problem->("label $label comes twice") if exists $labels{$label};
		$problem->("label $label is empty") if $text eq '';
		$text =~ s/(\\[\\"n])/$UNESCAPED{$1}/g;
		$labels{$label} = $text;
		push @order, $label;
	}
	$problem->("labels that cannot be read: $rest") if $rest ne '';

	my $base = $family ? $family->{name} : '';
	my $type = $family ? $family->{type} // '' : '';
	my $belongs = $type eq 'histogram' ? $name =~ /^\Q$base\E_(?:bucket|sum|count)\z/ : $name eq $base;
	return $problem->('a sample outside its family') if !$type || !$belongs;

	if ($name =~ /^meshhook_metrics_/)
	{
		$problem->('our own health has a tenant') if exists $labels{tenant};
	}
	else
	{
		$problem->('no tenant') if ($labels{tenant} // '') !~ $UUID;
	}
	$problem->('a sample has le') if exists $labels{le} && $name !~ /_bucket\z/;
	$problem->('a value that is not finite') if $value !~ /^$NUMBER\z/;
	$problem->('a negative value') if $type ne 'gauge' && $value =~ /^-/;
	$problem->('a count that is no whole number')
	  if $type eq 'histogram' && $name !~ /_sum\z/ && $value !~ /^\d+\z/;

	my $key = series_key($name, \%labels);
	$problem->('a duplicate series') if $self->{samples}{$key};
	my $sample = { name => $name, labels => \%labels, value => $value, key => $key, line => $line };
	$self->{samples}{$key} = $sample;
	push @{ $family->{samples} }, $sample;
	return;
}

# A series' name and labels as one string
sub series_key
{
	my ($name, $labels) = @_;

	return join "\0", $name, map { "$_\0$labels->{$_}" } sort keys %$labels;
}

# The samples of each histogram: buckets in order, their sum, their count
sub histograms
{
	my ($self, $family) = @_;
	my $name = $family->{name};
	my (%open, $current, $state);
	my $problem = sub { push @{ $self->{problems} }, "$_[0]->{line}: $_[1]" };

	for my $sample (@{ $family->{samples} })
	{
		my %labels = %{ $sample->{labels} };
		my $le = delete $labels{le};
		my $key = series_key($name, \%labels);

		if (!defined $current || $key ne $current)
		{
			$problem->($sample, 'the histogram before is not complete') if $state && $state->{stage} ne 'count';
			$problem->($sample, 'a histogram in pieces') if $open{$key};
			$current = $key;
			$state = $open{$key} = { stage => 'bucket', le => undef, cumulative => 0 };
		}
		if ($sample->{name} eq "${name}_bucket")
		{
			if (!defined $le || $le !~ /^(?:$NUMBER|\+Inf)\z/)
			{
				$problem->($sample, 'a bucket without an upper end');
				next;
			}
			$problem->($sample, 'a bucket after the last') if $state->{stage} ne 'bucket' || $state->{infinite};
			my $upper = $le eq '+Inf' ? 9**9**9 : $le;
			$problem->($sample, 'unordered buckets') if defined $state->{le} && $upper <= $state->{le};
			$problem->($sample, 'a bucket that is not cumulative') if $sample->{value} < $state->{cumulative};
			$state->{infinite} = 1 if $le eq '+Inf';
			@$state{qw(le cumulative)} = ($upper, $sample->{value});
		}
		elsif ($sample->{name} eq "${name}_sum")
		{
			$problem->($sample, 'no bucket +Inf before it') if !$state->{infinite};
			$state->{stage} = 'sum';
		}
		else
		{
			$problem->($sample, 'no sum before it') if $state->{stage} ne 'sum';
			$problem->($sample, "not the bucket +Inf, $state->{cumulative}") if $sample->{value} ne $state->{cumulative};
			$state->{stage} = 'count';
		}
	}
	push @{ $self->{problems} }, "$name: the last histogram is not complete" if $state && $state->{stage} ne 'count';
	return;
}

# Where a program is in PATH, or nothing
sub find_program
{
	my ($name) = @_;

	for my $folder (split /:/, $ENV{PATH})
	{
		return "$folder/$name" if -x "$folder/$name" && !-d _;
	}
	return;
}

1;
