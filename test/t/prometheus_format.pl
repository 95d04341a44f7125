# What prometheus() writes is the text exposition format 0.0.4 as promtool and a
# strict reader of our own take it, and says exactly what snapshot() says, with
# many series of every kind and labels meant to break it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Exposition;
use IPC::Run ();
use JSON::PP ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The reader itself finds what it is there for
my $tenant = 'tenant="00000000-0000-0000-0000-000000000000"';
my $head = "# HELP h Help.\n# TYPE h histogram\n";
my $good = $head . join '', map { "$_\n" } "h_bucket{$tenant,le=\"1\"} 1", "h_bucket{$tenant,le=\"+Inf\"} 2",
  "h_sum{$tenant} 2.5", "h_count{$tenant} 2";
my %broken = (
	'neither header nor sample' => "h{$tenant} 1\n\n",
	'its last line has no end' => "# HELP h Help.",
	'it is not UTF-8' => "# HELP h \xff\n",
	'a family begins again' => $good . "# HELP g Help.\n# TYPE g gauge\ng{$tenant} 1\n" . $good,
	'a type without its help' => "# TYPE h counter\nh{$tenant} 1\n",
	'the type comes late' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant} 1\n# TYPE g gauge\n",
	'has no type' => "# HELP h Help.\n",
	'has no samples' => "# HELP h Help.\n# TYPE h counter\n",
	'a sample outside its family' => $good . "g{$tenant} 1\n",
	'a duplicate series' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant,a=\"1\",b=\"2\"} 1\ng{b=\"2\",$tenant,a=\"1\"} 2\n",
	'no tenant' => "# HELP g Help.\n# TYPE g gauge\ng 1\n",
	'our own health has a tenant' => "# HELP meshhook_metrics_g Help.\n# TYPE meshhook_metrics_g gauge\nmeshhook_metrics_g{$tenant} 1\n",
	'comes twice' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant,a=\"1\",a=\"2\"} 1\n",
	'is empty' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant,a=\"\"} 1\n",
	'labels that cannot be read' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant,a=\"\\t\"} 1\n",
	'a backslash that is no escape' => "# HELP g Tab\\t\n# TYPE g gauge\ng{$tenant} 1\n",
	'a value that is not finite' => "# HELP g Help.\n# TYPE g gauge\ng{$tenant} NaN\n",
	'a negative value' => "# HELP g Help.\n# TYPE g counter\ng{$tenant} -1\n",
	'no bucket +Inf before it' => $good =~ s/h_bucket\{[^}]*Inf.*\n//r,
	'unordered buckets' => $good =~ s/(h_bucket\{[^}]*"1".*\n)(h_bucket.*\n)/$2$1/r,
	'a bucket that is not cumulative' => $good =~ s/le="1"\} 1/le="1"} 3/r,
	'not the bucket +Inf' => $good =~ s/_count(.*) 2/_count$1 3/r,
	'no sum before it' => $good =~ s/h_sum.*\n//r,
	'a histogram in pieces' => $good . "h_bucket{$tenant,x=\"1\",le=\"+Inf\"} 0\nh_sum{$tenant,x=\"1\"} 0\nh_count{$tenant,x=\"1\"} 0\nh_sum{$tenant} 1\n",
	'the last histogram is not complete' => $good =~ s/h_count.*\n//r);
is_deeply(parse_exposition($good)->{problems}, [], 'the reader takes what is right');
for my $problem (sort keys %broken)
{
	like(join("\n", @{ parse_exposition($broken{$problem})->{problems} }), qr/\Q$problem\E/, "the reader finds: $problem");
}

# A registry full of everything
my $node = new_metrics_cluster('main');
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.describe(metric, kind, help, unit)
from (values
	('format_deliveries_total', 'counter', E'Deliveries, \\ "by" status\nand code; déjà vu.', 'deliveries'),
	('format_values_total', 'counter', 'Every sort of label value.', null),
	('format_depth', 'gauge', 'Deliveries that wait.', ''),
	('format_run_seconds', 'histogram', 'Duration of runs.', 'seconds'),
	('format_narrow_total', 'counter', 'As many labels as there can be.', null)) d (metric, kind, help, unit);
select meshhook_metrics.describe('format_payload_bytes', 'histogram', 'Size of payloads.', 'bytes', 0);
select meshhook_metrics.describe('format_smallest', 'histogram', 'As small as it gets.', null, -1022);
select meshhook_metrics.describe('format_largest', 'histogram', 'As large as it gets.', null, 991);

create function tenant(n int) returns uuid language sql as $$ select md5(n::text)::uuid $$;

select count(meshhook_metrics.inc('format_deliveries_total', n * 0.1, jsonb_build_object('status', 's' || n % 5, 'code', 200 + n % 7), tenant(n % 20)))
from generate_series(1, 5000) n;
select count(meshhook_metrics.gauge_set('format_depth', (random() - 0.5) * 10 ^ (n % 40 - 20), jsonb_build_object('queue', n), tenant(n % 20)))
from generate_series(1, 500) n;
select count(meshhook_metrics.observe('format_run_seconds', exp(25 * random() - 15), jsonb_build_object('workflow', n % 3), tenant(n % 20)))
from generate_series(1, 20000) n;
select count(meshhook_metrics.observe('format_run_seconds', 2 ^ n, '{"workflow": "powers"}')) from generate_series(-22, 14) n;
select count(meshhook_metrics.observe('format_payload_bytes', floor(exp(22 * random())), '{}', tenant(n % 20)))
from generate_series(0, 5000) n;
select count(meshhook_metrics.observe('format_smallest', 2::float8 ^ -1022 * n)) from generate_series(0, 100) n;
select count(meshhook_metrics.observe('format_largest', 2::float8 ^ (990 + n / 4.0))) from generate_series(0, 40) n;

-- Every character that a label can have, alone and in the company of escapes
select count(meshhook_metrics.inc('format_values_total', 1, jsonb_build_object('value', value), tenant(-1)))
from (
	select chr(n) from generate_series(1, 255) n
	union all select chr(n) from unnest(array[8232, 8233, 65279, 65533, 128029, 1114109]) n
	union all select '\' || chr(n) from generate_series(1, 127) n
	union all select repeat('\', n) || repeat('"', n % 3) || repeat(E'\n', n % 4) from generate_series(1, 60) n
	union all values (E'\n# TYPE format_forged counter\nformat_forged{tenant="x"} 1'), ('"} 1'), ('",tenant="other'), ('NaN'), ('+Inf'),
		(repeat('\', 256)), (repeat('"', 256)), (repeat(E'\n', 256)), (repeat(chr(128029), 64))) v (value);
select meshhook_metrics.inc('format_narrow_total', 1, jsonb_object_agg(rpad('k' || n, 64, '_'), repeat(chr(92), 256)), tenant(0))
from generate_series(1, 10) n;
-- A tenant over its quota, whose overflow series is there
select count(meshhook_metrics.inc('format_deliveries_total', 1, jsonb_build_object('n', n), tenant(20))) from generate_series(1, 2010) n;
SQL

my $text = $node->safe_psql('postgres', 'select meshhook_metrics.prometheus()');
my $exposition = parse_exposition($text);
is_deeply($exposition->{problems}, [], 'the exposition has nothing wrong with it');
cmp_ok(scalar keys %{ $exposition->{samples} }, '>', 5000, 'and much in it');

SKIP:
{
	my $promtool = find_program('promtool');
	skip 'promtool is not installed (Debian: apt-get install prometheus)', 2 if !$promtool;
	my ($out, $err) = ('', '');
	my $accepted = IPC::Run::run([ $promtool, 'check', 'metrics' ], '<', \$text, '>', \$out, '2>', \$err);
	ok($accepted, 'promtool accepts it');
	is($out . $err, '', 'without a word');
}

# Everything that snapshot() has, in the same numbers: powers of two as sums of
# the histogram's own buckets
my $rows = JSON::PP->new->utf8->decode(
	$node->safe_psql('postgres', <<'SQL'));
select coalesce(jsonb_agg(jsonb_build_object(
	'tenant', s.tenant_id, 'metric', s.metric, 'kind', s.kind, 'labels', s.labels,
	'value', s.value::text, 'count', s.count::text, 'sum', s.sum::text,
	'buckets', case when s.kind = 'histogram' then (
		select jsonb_agg(jsonb_build_array(
			(2::float8 ^ e)::text,
			(select coalesce(sum(b.count), 0)::text from meshhook_metrics.histogram_buckets(s.histogram) b where b.upper <= 2::float8 ^ e))
			order by e)
		from generate_series(coalesce(m.min_exponent, -20), coalesce(m.min_exponent, -20) + 32) e) end)), '[]')
from meshhook_metrics.snapshot() s
left join (values ('format_payload_bytes', 0), ('format_smallest', -1022), ('format_largest', 991)) m (metric, min_exponent)
	on m.metric = s.metric
SQL
my %unseen = map { $_ => 1 } grep { $_ !~ /^meshhook_metrics_/ } keys %{ $exposition->{samples} };
my @differences;

sub expect_sample
{
	my ($name, $row, $value, %more) = @_;
	my $key = Exposition::series_key($name, { %{ $row->{labels} }, tenant => $row->{tenant}, %more });
	my $sample = $exposition->{samples}{$key};

	delete $unseen{$key};
	if (!$sample)
	{
		push @differences, "$name is missing: $key";
	}
	elsif ($sample->{value} != $value)
	{
		push @differences, "$sample->{line}: snapshot() says $value";
	}
	return;
}

for my $row (@$rows)
{
	my $type = $exposition->{families}{ $row->{metric} }{type} // 'missing';

	push @differences, "$row->{metric}: type $type, kind $row->{kind}" if $type ne $row->{kind};
	if ($row->{kind} ne 'histogram')
	{
		expect_sample($row->{metric}, $row, $row->{value});
		next;
	}
	for my $bucket (@{ $row->{buckets} })
	{
		my ($upper, $cumulative) = @$bucket;
		# le is a label: the very text that the format's other users write
		expect_sample("$row->{metric}_bucket", $row, $cumulative, le => $upper);
	}
	expect_sample("$row->{metric}_bucket", $row, $row->{count}, le => '+Inf');
	expect_sample("$row->{metric}_sum", $row, $row->{sum});
	expect_sample("$row->{metric}_count", $row, $row->{count});
}
cmp_ok(scalar @$rows, '>', 2900, 'snapshot() has many series');
is_deeply([ @differences[ 0 .. ($#differences > 9 ? 9 : $#differences) ] ], [], 'every one of them is exposed with its labels and its exact values');
is_deeply([ sort keys %unseen ], [], 'and no other');
is($exposition->{families}{format_deliveries_total}{help},
	"Deliveries, \\ \"by\" status\nand code; d\x{e9}j\x{e0} vu. Unit: deliveries.", 'help and unit come back as they were given');
is(scalar(grep { $_->{labels}{overflow} } values %{ $exposition->{samples} }), 1, 'the overflow series is exposed');
ok(!$exposition->{families}{format_forged}, 'a label cannot forge a family');

# One tenant's is what the whole says of it, and nothing of the health
my $of_one = $node->safe_psql('postgres', 'select meshhook_metrics.prometheus(tenant(3))');
my $parsed = parse_exposition($of_one);
my $uuid = $node->safe_psql('postgres', 'select tenant(3)');
is_deeply($parsed->{problems}, [], 'the exposition of one tenant has nothing wrong with it');
is_deeply(
	[ map { $_->{line} } map { @{ $parsed->{families}{$_}{samples} } } @{ $parsed->{order} } ],
	[ map { $_->{line} } grep { ($_->{labels}{tenant} // '') eq $uuid }
		  map { @{ $exposition->{families}{$_}{samples} } } @{ $exposition->{order} } ],
	'and is that part of the whole');
cmp_ok(scalar keys %{ $parsed->{samples} }, '>', 100, 'which is not empty');
is($node->safe_psql('postgres', 'select length(meshhook_metrics.prometheus(tenant(99)))'), '0', 'a tenant without series has nothing');

# The health: all of status()
for my $pair (
	[ meshhook_metrics_series => 'series_used' ],
	[ meshhook_metrics_series_limit => 'series_max' ],
	[ meshhook_metrics_histograms => 'histograms_used' ],
	[ meshhook_metrics_histograms_limit => 'histograms_max' ],
	[ meshhook_metrics_shared_memory_bytes => 'shared_memory_bytes' ])
{
	my ($name, $column) = @$pair;
	is($exposition->{samples}{$name}{value}, $node->safe_psql('postgres', "select $column from meshhook_metrics.status()"), "$name is $column");
}
my $reasons = JSON::PP->new->decode($node->safe_psql('postgres', 'select discarded from meshhook_metrics.status()'));
is_deeply(
	{ map { $_->{labels}{reason} => $_->{value} } @{ $exposition->{families}{meshhook_metrics_discarded_total}{samples} } },
	$reasons, 'discards by every reason');
cmp_ok($reasons->{tenant_limit}, '>', 0, 'of which there were some');

$node->stop;
done_testing();
