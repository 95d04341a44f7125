# What has been granted to the roles of an API beyond what the migrations list, by
# Supabase's guide for custom schemas, by another role that may grant, or by
# membership: applied again they take it back where they may, and where not, they
# warn by name, with the statement that mends it and the role for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Cwd ();
use IPC::Run ();
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
$node->start;
remember_region($node);
supabase_roles($node);
$node->safe_psql('postgres', <<'SQL');
create role delegate login;
create role reader login;
SQL
install_storage($node, role => 'owner_role');

my ($security) = grep { -e } map { "$_/migrations/20261124190200_meshhook_metrics_security.sql" } Cwd::getcwd(), "$FindBin::RealBin/../..";

sub as
{
	my ($role, $sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $role ]);
}

# The warnings of the migration, each [ message, hint ]
sub apply
{
	my ($role) = @_;
	my ($out, $error) = ('', '');

	IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-U', $role,
			'-c', 'set client_min_messages = warning', '-f', $security ], '<', \undef, '>', \$out, '2>', \$error)
	  or die "could not apply \"$security\":\n$error";
	my @warnings;
	for my $line (split /\n/, $error)
	{
		push @warnings, [ $1, '' ] if $line =~ /WARNING:  (.*)/;
		$warnings[-1][1] = $1 if $line =~ /^HINT:  (.*)/;
	}
	return @warnings;
}

# All that the roles of the API can do here, as one finds out who asks for it
my $rights = <<'SQL';
with
	grantees as (
		select role
		from unnest(array['public', 'anon', 'authenticated', 'service_role']) role
	)
select role, 'schema', 'meshhook_metrics', privilege
from grantees, unnest(array['USAGE', 'CREATE']) privilege
where has_schema_privilege(role, 'meshhook_metrics', privilege)
union all
select role, 'table', c.relname, privilege
from grantees, pg_class c, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) privilege
where c.relnamespace = 'meshhook_metrics'::regnamespace and c.relkind in ('r', 'p') and has_table_privilege(role, c.oid, privilege)
union all
select role, 'column', c.relname || '.' || a.attname, privilege
from grantees, pg_class c join pg_attribute a on a.attrelid = c.oid, unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) privilege
where c.relnamespace = 'meshhook_metrics'::regnamespace and c.relkind in ('r', 'p') and has_column_privilege(role, c.oid, a.attnum, privilege)
	and not has_table_privilege(role, c.oid, privilege)
union all
select role, 'sequence', c.relname, privilege
from grantees, pg_class c, unnest(array['SELECT', 'USAGE', 'UPDATE']) privilege
where c.relnamespace = 'meshhook_metrics'::regnamespace and c.relkind = 'S' and has_sequence_privilege(role, c.oid, privilege)
union all
select role, 'function', p.oid::regprocedure::text, 'EXECUTE'
from grantees, pg_proc p
where p.pronamespace = 'meshhook_metrics'::regnamespace and has_function_privilege(role, p.oid, 'EXECUTE')
order by 1, 2, 3, 4
SQL

# Those of anon and of everybody, functions of the extension apart, if asked
sub of_anon
{
	my (%options) = @_;

	return join "\n", grep { /^(anon|public)\|/ and !($options{but_functions} && /\|function\|/) } split /\n/, $node->safe_psql('postgres', $rights);
}

my $right = $node->safe_psql('postgres', $rights);
is_deeply([ apply('owner_role') ], [], 'where nothing was granted, nothing is warned of');
same_ok($node->safe_psql('postgres', $rights), $right, 'and nothing changes');
like($right, qr/^service_role\|function\|meshhook_metrics\.inc\(/m, 'the service role records');
# The keys of what Realtime streams, without which it sends anon an empty event for each row
is(of_anon(), <<'ROWS' =~ s/\n\z//r, 'anon may use the schema and read the keys of what is streamed, and nothing else');
anon|column|alert_events.id|SELECT
anon|column|live.id|SELECT
anon|schema|meshhook_metrics|USAGE
ROWS

# Each hint, as the role that it says
sub mend
{
	my (@warnings) = @_;

	for my $warning (@warnings)
	{
		my ($role, $statement) = $warning->[1] =~ /^As (\w+): (revoke .*;)$/ or die "no statement in \"$warning->[1]\"";

		$node->safe_psql('postgres', "set role $role; $statement");
	}
	return;
}

# https://supabase.com/docs/guides/api/using-custom-schemas
my $guide = <<'SQL';
grant usage on schema meshhook_metrics to anon, authenticated, service_role;
grant all on all tables in schema meshhook_metrics to anon, authenticated, service_role;
grant all on all routines in schema meshhook_metrics to anon, authenticated, service_role;
grant all on all sequences in schema meshhook_metrics to anon, authenticated, service_role;
alter default privileges for role owner_role in schema meshhook_metrics grant all on tables to anon, authenticated, service_role;
alter default privileges for role owner_role in schema meshhook_metrics grant all on routines to anon, authenticated, service_role;
alter default privileges for role owner_role in schema meshhook_metrics grant all on sequences to anon, authenticated, service_role;
SQL

as('owner_role', $guide);
like($node->safe_psql('postgres', $rights), qr/^anon\|function\|meshhook_metrics\.reset\(/m, 'by the guide anon may reset everything');
is_deeply([ apply('owner_role') ], [], 'the owner takes back what it has granted');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it');
as('owner_role', $guide);
is_deeply([ apply('supabase_admin') ], [], 'a superuser takes that back as well');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it, too');

# The extension's functions are the superuser's; the owner cannot revoke what that granted
as('supabase_admin', $guide);
my @warnings = apply('owner_role');
is(scalar @warnings, 3, 'what a superuser has granted on its functions is warned of, once for each role') or diag(explain(\@warnings));
like($warnings[0][0], qr/^anon still has EXECUTE on \d+ routines of meshhook_metrics, granted by postgres$/, 'by name');
like($warnings[0][1], qr/^As postgres: revoke EXECUTE on routine .*meshhook_metrics\.reset\(pg_catalog\.text,pg_catalog\.uuid\), .*from anon cascade;$/, 'with what is to be done');
is(of_anon(but_functions => 1), join("\n", grep { /^anon\|/ } split /\n/, $right), 'the rest is gone');
mend(@warnings);
is_deeply([ apply('owner_role') ], [], 'who does it is rid of it');
same_ok($node->safe_psql('postgres', $rights), $right, 'entirely');
as('supabase_admin', $guide);
is_deeply([ apply('supabase_admin') ], [], 'the superuser takes it back itself');
same_ok($node->safe_psql('postgres', $rights), $right, 'entirely, too');

# A role that may grant further, and does, on tables, leaves, columns, sequences, functions and the schema
my $leaf = $node->safe_psql('postgres', q{select min(leaf) from meshhook_metrics.leaves('1m')});
my $delegate = <<"SQL";
grant all on all tables in schema meshhook_metrics to delegate with grant option;
grant all on all sequences in schema meshhook_metrics to delegate with grant option;
grant all on schema meshhook_metrics to delegate with grant option;
grant execute on function meshhook_metrics.inc, meshhook_metrics.labels_digest to delegate with grant option;
SQL
my $granted = <<"SQL";
grant create on schema meshhook_metrics to authenticated;
grant select, insert on meshhook_metrics.settings to authenticated;
grant select on meshhook_metrics.live to anon;
grant select on meshhook_metrics.live to authenticated with grant option;
grant update (url, headers) on meshhook_metrics.alert_receivers to authenticated;
grant select on meshhook_metrics.$leaf to public;
grant usage on sequence meshhook_metrics.series_id_seq to anon;
grant execute on function meshhook_metrics.inc, meshhook_metrics.labels_digest to anon;
grant select on meshhook_metrics.series to authenticated;
grant select on meshhook_metrics.series to reader;
SQL
as('owner_role', $delegate);
as('delegate', $granted);
$node->safe_psql('postgres', 'set role authenticated; grant select on meshhook_metrics.live to reader');
@warnings = apply('owner_role');
is_deeply(
	[ map { $_->[0] } @warnings ],
	[
		'anon still has EXECUTE on 2 routines of meshhook_metrics, granted by delegate',
		'anon still has USAGE on 1 sequence of meshhook_metrics, granted by delegate',
		'anon still has SELECT on 1 table of meshhook_metrics, granted by delegate',
		'authenticated still has CREATE on 1 schema of meshhook_metrics, granted by delegate',
		'authenticated still has INSERT, SELECT on 1 table of meshhook_metrics, granted by delegate',
		'authenticated still has SELECT on 1 table of meshhook_metrics, granted by delegate',
		'authenticated still has UPDATE (headers), UPDATE (url) on 1 table of meshhook_metrics, granted by delegate',
		'public still has SELECT on 1 table of meshhook_metrics, granted by delegate',
	],
	'what another role has granted, each by name');
like($warnings[7][1], qr/^As delegate: revoke SELECT on table meshhook_metrics\.$leaf from public cascade;$/, 'leaves as well');
mend(@warnings);
is_deeply([ apply('owner_role') ], [], 'who does what is said is rid of it');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it');
is($node->safe_psql('postgres', q{select has_table_privilege('reader', 'meshhook_metrics.series', 'select')}), 't', 'what a site has granted to its own role stays');

# Who may act as the other role takes it back
as('delegate', $granted);
$node->safe_psql('postgres', 'grant delegate to owner_role');
is_deeply([ apply('owner_role') ], [], 'a member of the other role takes it back');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it');
$node->safe_psql('postgres', 'revoke delegate from owner_role');
as('delegate', $granted);
is_deeply([ apply('supabase_admin') ], [], 'so does a superuser');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it');
# And goes on as whom it was
as('delegate', $granted);
is($node->safe_psql('postgres', "set role owner_role;\n" . PostgreSQL::Test::Utils::slurp_file($security) . ';select current_user', extra_params => [ '-1' ]),
	'owner_role', 'the migration ends as the role that it began with');
same_ok($node->safe_psql('postgres', $rights), $right, 'having taken it back');

# An API role that could grant, and did
as('owner_role', 'grant select on meshhook_metrics.settings to anon with grant option; grant usage on schema meshhook_metrics to anon');
$node->safe_psql('postgres', 'set role anon; grant select on meshhook_metrics.settings to reader');
is_deeply([ apply('owner_role') ], [], 'what the role has handed on goes with it');
same_ok($node->safe_psql('postgres', $rights), $right, 'all of it');
is($node->safe_psql('postgres', q{select has_table_privilege('reader', 'meshhook_metrics.settings', 'select')}), 'f', 'reader has nothing of it');

# Not granted at all: by membership, or as a superuser
$node->safe_psql('postgres', 'grant pg_read_all_data to anon');
@warnings = apply('owner_role');
is(scalar @warnings, 1, 'membership is warned of');
like($warnings[0][0], qr/^anon has rights in meshhook_metrics that nobody has granted to it: SELECT on meshhook_metrics\.alert_events_id_seq, .*SELECT on meshhook_metrics\.alert_receivers, /, 'with what it gives');
is($warnings[0][1], 'It is a member of pg_read_all_data: revoke that from it, as a superuser.', 'and how');
$node->safe_psql('postgres', 'revoke pg_read_all_data from anon; alter role anon superuser');
@warnings = apply('owner_role');
like($warnings[0][0], qr/^anon has rights in meshhook_metrics that nobody has granted to it: .* and so on$/, 'so is a superuser');
is($warnings[0][1], 'It is a superuser, or the owner: let it be another role, without these rights.', 'and how that ends');
$node->safe_psql('postgres', 'alter role anon nosuperuser');

# What needs no privilege
$node->safe_psql('postgres', 'alter role authenticated bypassrls');
is_deeply([ apply('owner_role') ],
	[ [ 'row level security does not keep authenticated to its own tenants', 'As a superuser: alter role authenticated nobypassrls;' ] ],
	'a role that bypasses row level security is warned of');
$node->safe_psql('postgres', 'alter role authenticated nobypassrls noinherit; grant service_role to authenticated');
is_deeply([ apply('owner_role') ],
	[ [ 'row level security does not keep authenticated to its own tenants', 'It can be service_role: revoke that from it, as a superuser.' ] ],
	'so is one that can become another, though it inherits nothing');
$node->safe_psql('postgres', 'revoke service_role from authenticated; alter role authenticated inherit');
is_deeply([ apply('owner_role') ], [], 'then all is well');
same_ok($node->safe_psql('postgres', $rights), $right, 'at last');

$node->stop;
done_testing();
