# One region serves all databases of a server, whatever their encoding, and is
# not touched by what happens to the extension in one of them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main');

$node->safe_psql('postgres', <<'SQL');
create database latin1 template template0 encoding 'LATIN1' locale 'C';
create database ascii template template0 encoding 'SQL_ASCII' locale 'C';
create database other;
SQL
$node->safe_psql($_, 'create extension meshhook_metrics') for qw(latin1 ascii other);

# What is recorded in one is seen in all
$node->safe_psql($_, "select meshhook_metrics.inc('databases', 1), meshhook_metrics.inc('db', 1, jsonb_build_object('name', current_database()))")
  for qw(postgres latin1 ascii other);
is($node->safe_psql($_, q{select value from meshhook_metrics.snapshot() where metric = 'databases'}), 4,
	"$_ sees what was recorded in all")
  for qw(postgres latin1 ascii other);

# Labels beyond ASCII come from databases in UTF8 only
sub refused_ok
{
	my ($database, $encoding, $sql, $error) = @_;
	my ($code, $out, $got) = $node->psql($database, "\\set VERBOSITY verbose\n$sql");

	like($got, $error, "$database: refused");
	like($got, qr/^DETAIL:  This database's encoding is $encoding\.$/m, "$database: says why");
	return;
}

refused_ok('latin1', 'LATIN1', q{select meshhook_metrics.inc('m', 1, jsonb_build_object('city', 'Z' || chr(252) || 'rich'))},
	qr/ERROR:  0A000: label "city" of metric "m" has a value outside ASCII$/m);
refused_ok('ascii', 'SQL_ASCII', q{select meshhook_metrics.inc('m', 1, jsonb_build_object('city', 'Z' || chr(195) || chr(188) || 'rich'))},
	qr/ERROR:  0A000: label "city" of metric "m" has a value outside ASCII$/m);
refused_ok('latin1', 'LATIN1', q{select meshhook_metrics.describe('m', 'counter', 'Caf' || chr(233))},
	qr/ERROR:  0A000: the help text has characters outside ASCII$/m);
$node->safe_psql('postgres', <<'SQL');
select
	meshhook_metrics.inc('cities', 1, '{"city": "Zürich"}'),
	meshhook_metrics.inc('cities', 2, '{"city": "東"}'),
	meshhook_metrics.describe('cities', 'counter', 'Städte');
SQL
my $shown = q{select labels from meshhook_metrics.snapshot() where metric = 'cities' order by value};
is($node->safe_psql('other', "set client_encoding = 'UTF8'; $shown"), qq({"city": "Z\xc3\xbcrich"}\n{"city": "\xe6\x9d\xb1"}),
	'another database in UTF8 shows them');
is($node->safe_psql($_, $shown), q({"city": "Z\\\\xc3\\\\xbcrich"}) . "\n" . q({"city": "\\\\xe6\\\\x9d\\\\xb1"}),
	"$_ shows the bytes, so that different labels stay different")
  for qw(latin1 ascii);
for my $database (qw(latin1 ascii))
{
	my $exposed = $node->safe_psql($database, 'select meshhook_metrics.prometheus()');

	like($exposed, qr/^# HELP cities St\\\\xc3\\\\xa4dte$/m, "$database: so does prometheus() in texts");
	like($exposed, qr/city="Z\\\\xc3\\\\xbcrich"/, "$database: and in labels");
}

# The extension goes and comes; the region stays
my $before = everything($node, 'postgres');
my $open = session($node, 'other');
$open->query_safe("select meshhook_metrics.inc('sessions')");
$node->safe_psql('other', 'drop extension meshhook_metrics; create extension meshhook_metrics');
same_ok($node->safe_psql('postgres', $MetricsCluster::EVERYTHING =~ s/\border by/where metric <> 'sessions'\norder by/r), $before,
	'dropping the extension and creating it again keeps what was recorded');
$open->query_safe("select meshhook_metrics.inc('sessions')");
is(counter($node, 'sessions'), 2, 'a session that had used it goes on');
$open->quit;
$node->safe_psql('postgres', 'drop database other');
is(counter($node, 'sessions'), 2, 'so it is when a database goes');
my ($code, $out, $error) = $node->psql('postgres', 'create extension meshhook_metrics schema public');
isnt($code, 0, 'it cannot be installed elsewhere');
$node->safe_psql('postgres', 'drop extension meshhook_metrics');
($code, $out, $error) = $node->psql('postgres', 'create extension meshhook_metrics schema public');
like($error, qr/ERROR:  extension "meshhook_metrics" must be installed in schema "meshhook_metrics"/,
	'which PostgreSQL says');
$node->safe_psql('postgres', 'create extension meshhook_metrics');

# Switched off, calls return and look at nothing
my $session = session($node);
$session->query_safe("select meshhook_metrics.inc('sessions')");
$node->safe_psql('postgres', 'alter system set meshhook_metrics.enabled = off');
$node->reload;
$node->poll_query_until('postgres', q{select current_setting('meshhook_metrics.enabled') = 'off'});
$before = everything($node);
$session->query_safe(<<'SQL');
select
	meshhook_metrics.inc('sessions'),
	meshhook_metrics.inc('not a name', -1),
	meshhook_metrics.gauge_set('off_gauge', 'nan'),
	meshhook_metrics.observe(null, null),
	meshhook_metrics.observe_since('off_seconds', now())
SQL
is($session->query_safe(q{select meshhook_metrics.record('[{"op": "inc", "metric": "sessions"}, 7]')}), 0,
	'switched off, record() counts nothing');
same_ok(everything($node), $before, 'switched off, nothing is recorded');
$node->safe_psql('postgres', 'alter system reset meshhook_metrics.enabled');
$node->reload;
$node->poll_query_until('postgres', q{select current_setting('meshhook_metrics.enabled') = 'on'});
$session->query_safe("select meshhook_metrics.inc('sessions')");
is(counter($node, 'sessions'), 4, 'switched on again, a session that was open goes on');
$session->quit;

$node->stop;
done_testing();
