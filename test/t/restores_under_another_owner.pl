# A dump that is restored into a database of another owner, by a superuser or by that owner,
# with the roles of the dump or as one's own: applied again, the migrations make it whole,
# or say in a sentence who has to do what, after which they do.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';
my $old = new_plain_cluster('old');
$old->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
$old->start;
remember_region($old);
supabase_roles($old, $tenant);
install_storage($old, role => 'owner_role');
$old->safe_psql('postgres', "select meshhook_metrics.inc('kept_total', 3, '{}', '$tenant')");
flush($old);
my $dump = $old->basedir . '/whole.dump';
command_ok([ 'pg_dump', '-h', $old->host, '-p', $old->port, '-d', 'postgres', '-Fc', '-N', 'auth', '-f', $dump ], 'the old server is dumped');
# Which Supabase has in each database before
my $auth = $old->basedir . '/auth.sql';
command_ok([ 'pg_dump', '-h', $old->host, '-p', $old->port, '-d', 'postgres', '-n', 'auth', '-x', '-f', $auth ], 'schema auth is dumped by itself');
$old->stop;

# Databases of new_owner; owner_role, whose it was, is there in one of them only
my $node = new_plain_cluster('new');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
configure($node, flush_interval => "'1s'");
$node->start;
remember_region($node);
$node->safe_psql('postgres', <<'SQL');
create role new_owner login;
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
SQL

my $database;

sub restore
{
	my ($role, @options) = @_;
	my $log = '';

	$node->safe_psql('postgres', "create database $database owner new_owner");
	$node->safe_psql($database, slurp_file($auth) . ';grant usage on schema auth to public');
	# Grants of others' fail where the restore is not a superuser's
	IPC::Run::run([ 'pg_restore', @options, '-h', $node->host, '-p', $node->port, '-U', $role, '-d', $database, $dump ], '<', \undef, '>&', \$log);
	note($log);
	return;
}

# The migrations, as a person applies them; the error and its hint
sub apply
{
	my ($role) = @_;

	for my $file (MetricsCluster::migrations())
	{
		my ($out, $error) = ('', '');

		IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-U', $role,
				'-c', 'set client_min_messages = warning', '-f', $file ], '<', \undef, '>', \$out, '2>', \$error);
		return $error =~ s/^psql:\S+ //mgr if $error ne '';
	}
	return '';
}

# Of all that the migrations have made
sub owners
{
	return $node->safe_psql($database, <<'SQL');
select string_agg(distinct owner::regrole::text, ' ')
from (
	select relowner from pg_class where relnamespace = 'meshhook_metrics'::regnamespace
	union all
	select proowner
	from pg_proc p
	where pronamespace = 'meshhook_metrics'::regnamespace
		and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
) o (owner)
SQL
}

sub whole_ok
{
	my ($owner, $name) = @_;

	$node->append_conf('postgresql.conf', "meshhook_metrics.database = '$database'");
	$node->reload;
	$node->poll_query_until('postgres', "select current_setting('meshhook_metrics.database') = '$database'") or die 'timed out waiting for the setting';
	is(owners(), $owner, "$name: everything belongs to $owner");
	$node->safe_psql($database, "select meshhook_metrics.inc('kept_total', 4, '{}', '$tenant')");
	await_status($node, 'storage_installed and last_error is null', $database);
	flush($node, $database);
	is(stored_total($node, 'kept_total', $database), '2|7', "$name: the worker adds to what was there");
	is($node->safe_psql($database, 'select meshhook_metrics.evaluate_alerts(); select meshhook_metrics.rollup(); select meshhook_metrics.maintain()', extra_params => [ '-U', $owner ]), "0\n0\n",
		"$name: its owner evaluates, rolls up and maintains");
	is(as_tenant($node, 'authenticated', $tenant, q{select sum(value) from meshhook_metrics.query_range('kept_total', now() - interval '1 day')}, database => $database), 7,
		"$name: a tenant reads it");
	is(as_tenant($node, 'service_role', undef, q{select meshhook_metrics.inc('more_total')}, database => $database), '', "$name: the service role records");
	is(apply($owner), '', "$name: the migrations are applied again");
	$node->append_conf('postgresql.conf', "meshhook_metrics.database = 'postgres'");
	$node->reload;
	$node->poll_query_until('postgres', "select current_setting('meshhook_metrics.database') = 'postgres'") or die 'timed out waiting for the setting';
	return;
}

# By the new owner, who is no superuser: it is all its own
$database = 'by_owner';
restore('new_owner', '--no-owner');
is(apply('new_owner'), '', 'by the owner, without owners: the migrations are applied');
whole_ok('new_owner', 'by the owner, without owners');

$database = 'by_owner_with_owners';
restore('new_owner');
is(apply('new_owner'), '', 'by the owner, with owners that are not there: the migrations are applied');
whole_ok('new_owner', 'by the owner, with owners that are not there');

# By a superuser as the new owner
$database = 'as_owner';
restore('postgres', '--no-owner', '--role=new_owner');
is(apply('new_owner'), '', 'by a superuser as the owner: the migrations are applied');
whole_ok('new_owner', 'by a superuser as the owner');

# By a superuser, whose it is then
$database = 'by_superuser';
restore('postgres', '--no-owner');
my $hint = qr/^HINT:  As a superuser: alter schema meshhook_metrics owner to new_owner; then apply the migrations once as the superuser/m;
like(apply('new_owner'), qr/^ERROR:  schema meshhook_metrics belongs to postgres, and new_owner may not change it\n$hint/m, 'by a superuser, without owners: it is said whose it is');
$node->safe_psql($database, 'alter schema meshhook_metrics owner to new_owner');
like(apply('new_owner'), qr/^ERROR:  table meshhook_metrics\.\w+ belongs to postgres, and new_owner may not change it\n$hint/m, 'half of it is not enough');
is(apply('postgres'), '', 'the superuser does so');
whole_ok('new_owner', 'by a superuser, without owners');

# Whatever of it is not the owner's is named, and given back
my @things = split /\n/, $node->safe_psql($database, <<'SQL');
select 'table ' || c.oid::regclass
from pg_class c
where c.relnamespace = 'meshhook_metrics'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
union all
select 'function ' || p.oid::regprocedure
from pg_proc p
where p.pronamespace = 'meshhook_metrics'::regnamespace
	and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
SQL
for my $table (grep { /^table/ } @things)
{
	$node->safe_psql($database, "alter $table owner to postgres");
	like(apply('new_owner'), qr/^ERROR:  $table belongs to postgres, and new_owner may not change it\n$hint/m, "$table is not the owner's: that is said");
	$node->safe_psql($database, "alter $table owner to new_owner");
}
$node->safe_psql($database, join(';', map { "alter $_ owner to postgres" } grep { !/ meshhook_metrics[.]live$/ } @things));
is(apply('postgres'), '', 'a superuser applies them where all but one table are a superuser\'s');
is(owners(), 'new_owner', 'and they go to whom that belongs');

# By a superuser, with the role whose it was, in another's database
$node->safe_psql('postgres', 'create role owner_role login createdb createrole replication bypassrls');
$database = 'of_another';
restore('postgres');
like(apply('new_owner'), qr/^ERROR:  schema meshhook_metrics belongs to owner_role, and new_owner may not change it\nHINT:  Apply the migrations as owner_role\.$/m,
	'by a superuser, with owners: the owner of the database is told whose it is');
like(apply('owner_role'), qr/^ERROR:  owner_role may not call the functions of the extension meshhook_metrics\n.*\nHINT:  Apply the migrations once as a superuser,/m,
	'and whose it is, what is missing');
is(apply('postgres'), '', 'a superuser does so');
whole_ok('owner_role', 'by a superuser, with owners');

$node->stop;
done_testing();
