# A dump of a database with the extension is restored whole, by a superuser and
# by the database's owner: extension, histograms, and who may call what.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main', database => 'app');
my $dump = $node->basedir . '/app.sql';

# Who has which rights on the functions, and how the histograms read
my $rights = <<'SQL';
select p.oid::regprocedure, a.grantee::regrole, a.is_grantable
from pg_proc p, aclexplode(p.proacl) a
where p.pronamespace = 'meshhook_metrics'::regnamespace
	and a.grantee in ('app_owner'::regrole, 'app_worker'::regrole)
order by 1, 2
SQL
my $kept = 'select id, histogram from app.kept order by id';

$node->safe_psql('postgres', <<'SQL');
create role app_owner login;
create role app_worker login;
create database app owner app_owner;
SQL
$node->safe_psql('app', <<'SQL', extra_params => [ '-U', 'app_owner' ]);
create extension meshhook_metrics;
grant usage on schema meshhook_metrics to app_worker;
grant execute on function meshhook_metrics.inc, meshhook_metrics.record to app_worker;
create schema app;
create table app.kept (id int primary key, histogram meshhook_metrics.histogram);
insert into app.kept select i, (select meshhook_metrics.histogram_of(x / 10.0) from generate_series(0, i * 100) x)
from generate_series(1, 5) i;
SQL
my $rights_before = $node->safe_psql('app', $rights);
my $kept_before = $node->safe_psql('app', $kept);

like($rights_before, qr/^meshhook_metrics.inc\(.*\)\|app_worker\|f$/m, 'the worker may record before');
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-f', $dump, 'app' ], 'the database is dumped');

for my $restorer ([ 'postgres', 'restored_by_superuser' ], [ 'app_owner', 'restored_by_owner' ])
{
	my ($role, $database) = @$restorer;

	$node->safe_psql('postgres', "create database $database owner app_owner");
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-h', $node->host, '-p', $node->port, '-U', $role,
			'-f', $dump, $database ], "$database: without an error");
	is($node->safe_psql($database, $rights), $rights_before, "$database: everybody may call what he might");
	is($node->safe_psql($database, $kept), $kept_before, "$database: the histograms are the same");
}

# Where the database is not the owner's yet, its grants cannot all come back,
# but the extension and the data must
$node->safe_psql('postgres', 'create database not_its_owners');
$node->psql('not_its_owners', slurp_file($dump));
is($node->safe_psql('not_its_owners', $kept), $kept_before, 'another database: the histograms are the same');

done_testing();
