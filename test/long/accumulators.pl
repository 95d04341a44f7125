# The unit tests of the accumulators and the registry, with many more rounds.

use strict;
use warnings;

use File::Temp;
use FindBin;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
my $include = `$pg_config --includedir-server`;
my $libraries = `$pg_config --pkglibdir`;
chomp($include, $libraries);
my $folder = File::Temp->newdir('accumulatorsXXXXXX', TMPDIR => 1);

$ENV{MHM_LONG} = 1;
for my $source (sort glob("$FindBin::RealBin/../unit/{accumulate,registry,totals}_*.c"))
{
	my ($name) = $source =~ m{([^/]+)\.c$};
	my $program = "$folder/$name";

	is(system('gcc', '-std=gnu99', '-O2', '-g', '-w', '-iquote', "$FindBin::RealBin/../../src", "-I$include",
			'-D_GNU_SOURCE', '-o', $program, $source, "-L$libraries",
			'-lpgcommon', '-lpgport', '-lm'),
		0, "$name compiles");
	my $output = `$program`;
	is($?, 0, "$name, many rounds") or diag($output);
	note($output);
}

done_testing();
