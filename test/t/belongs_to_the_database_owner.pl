# The owner of a database who is no superuser can install the extension, use it
# and let others use it; nobody else can until then.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main', database => 'app');

$node->safe_psql('postgres', <<'SQL');
create role app_owner login;
create role app_worker login;
create role app_reader login;
create role app_admin login;
create role stranger login;
create database app owner app_owner;
SQL

sub as
{
	my ($role, $sql) = @_;
	my ($code, $out, $error) = $node->psql('app', $sql, extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);

	return $code == 0 ? "ok $out" : $error;
}

like(as('stranger', 'create extension meshhook_metrics'), qr/ERROR:  42501: permission denied/,
	'somebody else cannot install it');
is(as('app_owner', 'create extension meshhook_metrics'), 'ok ', 'the owner of the database can');
is(as('app_owner', q{select extowner::regrole from pg_extension where extname = 'meshhook_metrics'}), 'ok app_owner',
	'and owns the extension');

my @calls = (
	[ "inc('m')", 'inc' ],
	[ "gauge_set('g', 1)", 'gauge_set' ],
	[ "gauge_add('g', 1)", 'gauge_add' ],
	[ "observe('h', 1)", 'observe' ],
	[ "observe_since('h', now())", 'observe_since' ],
	[ q{record('[{"op": "inc", "metric": "m"}]')}, 'record' ],
	[ "describe('m', 'counter', 'Help')", 'describe' ],
	[ 'status()', 'status' ],
	[ 'snapshot()', 'snapshot' ],
	[ 'prometheus()', 'prometheus' ],
	[ "reset('m')", 'reset' ]);

for my $call (@calls)
{
	my ($text, $function) = @$call;

	like(as('app_owner', "select count(*) from (select meshhook_metrics.$text) t"), qr/^ok \d+$/, "the owner calls $function()");
	like(as('stranger', "select meshhook_metrics.$text"),
		qr/ERROR:  42501: permission denied for (?:schema meshhook_metrics|function $function)\b/,
		"somebody else does not call $function()");
}

# The owner gives some of it away, and the right to do so
is(as('app_owner', <<'SQL'), 'ok ', 'the owner grants');
grant usage on schema meshhook_metrics to app_worker, app_reader, app_admin, stranger;
grant execute on function
	meshhook_metrics.inc(text, double precision, jsonb, uuid),
	meshhook_metrics.observe(text, double precision, jsonb, uuid)
to app_worker;
grant execute on function meshhook_metrics.snapshot(uuid) to app_admin with grant option;
SQL
like(as('app_worker', "select meshhook_metrics.inc('granted_total'), meshhook_metrics.observe('granted_seconds', 1)"), qr/^ok/,
	'a worker records');
for my $call (grep { $_->[1] !~ /^(?:inc|observe)$/ } @calls)
{
	my ($text, $function) = @$call;

	like(as('app_worker', "select meshhook_metrics.$text"),
		qr/ERROR:  42501: permission denied for function $function\b/, "a worker does not call $function()");
}
is(as('app_admin', 'grant execute on function meshhook_metrics.snapshot(uuid) to app_reader'), 'ok ',
	'what is granted with grant option is granted further');
is(as('app_reader', "select value from meshhook_metrics.snapshot() where metric = 'granted_total'"), 'ok 1',
	'and used');
like(as('stranger', "select meshhook_metrics.inc('m')"), qr/ERROR:  42501: permission denied for function inc\b/,
	'a role that sees the schema calls nothing');

# Another database is not served, except to superusers
$node->safe_psql('postgres', q{grant usage on schema meshhook_metrics to app_worker;
	grant execute on function meshhook_metrics.inc(text, double precision, jsonb, uuid) to app_worker});
my ($code, $out, $error) = $node->psql('postgres', "select meshhook_metrics.inc('granted_total')",
	extra_params => [ '-U', 'app_worker', '-v', 'VERBOSITY=verbose' ]);
like($error, qr/ERROR:  42501: meshhook_metrics serves database "app", not "postgres"$/m,
	'a database that is not served is refused');
like($error, qr/^HINT:  Connect to that database, or have meshhook_metrics\.database changed; elsewhere only superusers may call\.$/m,
	'and it is said what to do');
$node->safe_psql('postgres', "select meshhook_metrics.inc('granted_total')");
is(counter($node, 'granted_total'), 2, 'superusers record everywhere');

# Settings: a session's own can be set by anybody, the server's by nobody
is(as('stranger', <<'SQL'), 'ok ', 'anybody sets on_error, tenant and on_commit');
set meshhook_metrics.on_error = warning;
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111';
set meshhook_metrics.on_commit = on;
SQL
like(as('app_owner', "set meshhook_metrics.$_ = 1"), qr/ERROR:  55P02: parameter "meshhook_metrics\.$_" cannot be changed/,
	"nobody sets $_ in a session")
  for qw(database max_series max_histograms max_series_per_tenant enabled);
like(as('stranger', "set meshhook_metrics.tenant = 'me'"),
	qr/ERROR:  22023: invalid value for parameter "meshhook_metrics.tenant": "me".*DETAIL:  "me" is not a UUID\..*HINT:  Set it to the id of the project/s,
	'a tenant is a UUID');
like(as('stranger', 'set meshhook_metrics.no_such_setting = 1'), qr/ERROR:  42602: invalid configuration parameter name/,
	'a setting that does not exist is an error');

is(as('app_owner', 'drop extension meshhook_metrics'), 'ok ', 'the owner removes it');

$node->stop;
done_testing();
