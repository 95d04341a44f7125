# Clusters with meshhook_metrics preloaded, for the TAP tests here and in
# test/long. Owns what those clusters leave behind when a test kills them: at
# the end every server is stopped and its shared memory object removed.

package MetricsCluster;

use strict;
use warnings;

use Exporter 'import';
use Cwd ();
use Fcntl ':seek';
use File::Basename qw(dirname);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes ();

our @EXPORT = qw(
  new_metrics_cluster new_plain_cluster configure session
  region_objects remember_region kill_server
  totals everything exposition counter discarded
  same_ok consistent_ok log_mark log_since await await_midnight
  install_storage supabase_roles as_tenant
  flush maintain_wholly await_status stored_total worker_pid
);

# What a test may compare before and after: every series with all it holds
our $EVERYTHING = <<'SQL';
select
	tenant_id, metric, kind, labels, value, count, sum, min, max, histogram, updated_at
from meshhook_metrics.snapshot()
order by metric collate "C", tenant_id, labels
SQL

my @nodes;
my %objects;

# A cluster that is initialized but not started. Options are those of init(),
# and install_path, of another PostgreSQL.
sub new_plain_cluster
{
	my ($name, %init) = @_;
	my $path = delete $init{install_path};
	my $node = PostgreSQL::Test::Cluster->new($name, defined $path ? (install_path => $path) : ());

	$node->init(extra => [ '--no-locale', '--encoding=UTF8' ], %init);
	$node->append_conf('postgresql.conf', <<'CONF');
restart_after_crash = on
log_statement = none
autovacuum = off
max_connections = 30
max_prepared_transactions = 10
CONF
	push @nodes, $node;
	return $node;
}

# A running cluster with the extension and these meshhook_metrics settings
sub new_metrics_cluster
{
	my ($name, %settings) = @_;
	my $node = new_plain_cluster($name);

	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
	configure($node, %settings);
	$node->start;
	remember_region($node);
	$node->safe_psql('postgres', 'create extension meshhook_metrics');
	return $node;
}

# Settings without their prefix; they count from the next start or reload
sub configure
{
	my ($node, %settings) = @_;

	$node->append_conf('postgresql.conf', "meshhook_metrics.$_ = $settings{$_}")
	  for sort keys %settings;
	return;
}

# A session that stays open; errors are left to the test in $session->{stderr}
sub session
{
	my ($node, $database) = @_;

	return $node->background_psql($database // 'postgres', on_error_stop => 0);
}

# The shared memory objects that a server has mapped
sub region_objects
{
	my ($node) = @_;
	my %found;

	open my $maps, '<', "/proc/$node->{_pid}/maps" or return;
	while (my $line = <$maps>)
	{
		$found{$1} = 1 if $line =~ m{(/dev/shm/meshhook_metrics\.\S+)};
	}
	close $maps;
	return sort keys %found;
}

# Note a server's objects, so that they go also when the test ends badly, or
# is itself killed: then the test runner removes what stands in its list
sub remember_region
{
	my ($node) = @_;
	my @found = region_objects($node);

	$objects{$_} = 1 for @found;
	if (defined $ENV{MHM_TMP})
	{
		open my $list, '>>', "$ENV{MHM_TMP}/shared_memory_objects" or die "list of objects: $!";
		print $list map { "$_\n" } @found;
		close $list or die "list of objects: $!";
	}
	return $found[0];
}

# A zombie has ended, whether or not anybody has asked for its status
sub is_running
{
	my ($pid) = @_;

	open my $file, '<', "/proc/$pid/stat" or return 0;
	my $line = <$file> // '';
	close $file;
	return $line =~ /^\d+ \(.*\) [^ZX]/;
}

sub children_of
{
	my ($pid) = @_;
	my @children;

	for my $stat (glob '/proc/[0-9]*/stat')
	{
		open my $file, '<', $stat or next;
		my $line = <$file> // '';
		close $file;
		push @children, $1 if $line =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $pid;
	}
	return @children;
}

# Wait for a condition, as poll_query_until does for one in SQL
sub await
{
	my ($condition, $what) = @_;
	my $attempts = 10 * $PostgreSQL::Test::Utils::timeout_default;

	while (!$condition->())
	{
		die "timed out waiting for $what" if $attempts-- <= 0;
		Time::HiRes::usleep(100_000);
	}
	return;
}

# Where a day is over, the worker makes and compacts partitions. A test that counts
# these begins after midnight where it might not end before.
sub await_midnight
{
	await(sub { time % 86400 < 86400 - 120 }, 'midnight');
	return;
}

# SIGKILL the postmaster, and wait until its orphans have ended by themselves
sub kill_server
{
	my ($node) = @_;
	my $postmaster = $node->{_pid};
	my @left;

	remember_region($node);
	@left = ($postmaster, children_of($postmaster));
	$node->kill9;
	await(sub { @left = grep { is_running($_) } @left; !@left }, 'the processes of a killed server');

	# Until somebody asks for the status of the dead postmaster, its number looks
	# taken to the next one; that can take init a while, or for ever.
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock'
	  if kill 0, $postmaster;
	return;
}

sub everything
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres', $EVERYTHING);
}

# prometheus() in a form that does not depend on the places of series, on flushes nor on
# the size of the region
sub exposition
{
	my ($node) = @_;
	my $text = $node->safe_psql('postgres', 'select meshhook_metrics.prometheus()');

	return join "\n", sort grep { !/^meshhook_metrics_(\w+_limit|shared_memory_bytes|flush\w*|last_flush\w+|alert\w+|last_alert\w+) / } split /\n/, $text;
}

# "calls|sum" over all series of a metric, overflow included
sub totals
{
	my ($node, $metric) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select coalesce(sum(count), 0), coalesce(sum(sum), 0)
from meshhook_metrics.snapshot()
where metric = '$metric'
SQL
}

sub counter
{
	my ($node, $metric) = @_;

	return (split /\|/, totals($node, $metric))[1];
}

# Files of the checkout, by a pattern. Tests run from the root of a copy of it.
sub checkout_files
{
	my ($pattern) = @_;
	my @files;

	for my $root (Cwd::getcwd(), dirname(Cwd::abs_path(__FILE__)) . '/../../..')
	{
		@files = sort glob "$root/$pattern";
		return @files if @files;
	}
	die "there is no $pattern, neither in the current directory nor beside test/t";
}

# The migrations in the order in which they are applied
sub migrations
{
	return checkout_files('migrations/*.sql');
}

# Apply the migrations as a person does with psql, each in a transaction: the worker,
# which may look at any time, finds all of the tables or none. Options: database;
# role, who then owns the extension and the storage.
sub install_storage
{
	my ($node, %options) = @_;
	my $database = $options{database} // 'postgres';
	my $role = $options{role};
	my @as = defined $role ? ('-U', $role) : ();

	# An extension of somebody else's has a schema that the role cannot use
	$node->safe_psql($database, <<"SQL") if defined $role;
do \$\$
begin
	if exists (
		select
		from pg_extension
		where extname = 'meshhook_metrics'
			and extowner <> '$role'::regrole
	) then
		drop extension meshhook_metrics;
	end if;
end
\$\$
SQL
	$node->safe_psql($database, 'set client_min_messages = warning; create extension if not exists meshhook_metrics',
		extra_params => \@as);
	for my $file (migrations())
	{
		my ($out, $error) = ('', '');

		IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), @as, '-f', $file ],
			'<', \undef, '>', \$out, '2>', \$error)
		  or die "could not apply \"$file\":\n$error";
	}
	return;
}

# The roles of a Supabase project, its publication, and MeshHook's schema. The one
# who on Supabase is "postgres", no superuser but owner of the database, is
# owner_role here, as "postgres" is the superuser of a test's cluster. Each tenant is a
# project of a user whose id is that of the project.
sub supabase_roles
{
	my ($node, @tenants) = @_;

	$node->safe_psql('postgres', <<'SQL');
create role supabase_admin superuser login;
create role owner_role login createdb createrole replication bypassrls;
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit;
grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role to owner_role with admin option;
alter database postgres owner to owner_role;
create publication supabase_realtime;
alter publication supabase_realtime owner to owner_role;
SQL
	my ($schema) = checkout_files('test/sql/include/meshhook.sql');
	$node->safe_psql('postgres', "set client_min_messages = warning;\n\\set keeper owner_role\n\\i $schema\n");
	$node->safe_psql('postgres', "insert into public.projects (id, owner, name) values ('$_', '$_', 'project')") for @tenants;
	return;
}

# What a role of the API gets for SQL, as PostgREST would run it: the result,
# or the error with its SQLSTATE. The tenant is one of supabase_roles(), or undef for
# a request without claims. Options: database.
sub as_tenant
{
	my ($node, $role, $tenant, $sql, %options) = @_;
	my $claims = defined $tenant ? qq({"role": "$role", "sub": "$tenant"}) : '';

	my ($code, $out, $error) = $node->psql($options{database} // 'postgres', <<"SQL",
set role $role;
set request.jwt.claims = '$claims';
$sql
SQL
		extra_params => [ '-U', 'authenticator', '-v', 'VERBOSITY=verbose' ]);
	return $code == 0 ? $out : $error;
}

# Have everything that was recorded until now written: the tick that did it
sub flush
{
	my ($node, $database) = @_;

	return $node->safe_psql($database // 'postgres', 'select meshhook_metrics.flush()');
}

# maintain(), which does little in a run, until nothing is left to drop or to compact
sub maintain_wholly
{
	my ($node, %psql) = @_;
	my ($before, $after) = ('', 'not looked at');

	while ($before ne $after)
	{
		$before = $after;
		$after = $node->safe_psql('postgres', <<'SQL', %psql);
select from meshhook_metrics.maintain();
select relname, pg_relation_filenode(oid)
from pg_class
where relnamespace = 'meshhook_metrics'::regnamespace and relname ~ '^rollup_.*_pkey$'
order by relname
SQL
	}
	return;
}

# Wait until status() meets a condition in SQL over its columns
sub await_status
{
	my ($node, $condition, $database) = @_;

	$node->poll_query_until($database // 'postgres', "select coalesce(($condition), false) from meshhook_metrics.status()")
	  or die "timed out waiting for status() to say: $condition";
	return;
}

# The worker's process, once there is one
sub worker_pid
{
	my ($node) = @_;
	my $pid = '';

	await(
		sub {
			$pid = $node->safe_psql('postgres',
				q{select pid from pg_stat_activity where backend_type = 'meshhook_metrics worker'});
			return $pid ne '';
		},
		'the worker');
	return $pid;
}

# "count|sum" of what is stored of a metric: its minutes, and those rows of
# live that are in no minute yet. Comparable with totals(), after flush().
sub stored_total
{
	my ($node, $metric, $database) = @_;

	return $node->safe_psql($database // 'postgres', <<"SQL");
with
	stored as (
		select
			series_id,
			count,
			sum
		from meshhook_metrics.rollup_1m
		union all
		select
			flushed.series_id,
			flushed.count,
			flushed.sum
		from meshhook_metrics.live,
			unnest(live.series_id, live.count, live.sum) flushed (series_id, count, sum)
		where live.id > coalesce((select live_id from meshhook_metrics.rollup_state where target = '1m'), 0)
	)
select
	coalesce(sum(stored.count), 0),
	coalesce(sum(stored.sum), 0)
from stored
	join meshhook_metrics.series on series.id = stored.series_id
where series.metric = '$metric'
SQL
}

# How many samples status() says were discarded for a reason
sub discarded
{
	my ($node, $reason) = @_;

	return $node->safe_psql('postgres',
		"select discarded ->> '$reason' from meshhook_metrics.status()");
}

# Compare long texts, and show only the lines in which they differ
sub same_ok
{
	my ($got, $expected, $name) = @_;
	my %expected = map { $_ => 1 } split /\n/, $expected;
	my %got = map { $_ => 1 } split /\n/, $got;
	my @missing = grep { !$got{$_} } sort keys %expected;
	my @unexpected = grep { !$expected{$_} } sort keys %got;

	return ok(1, $name) if $got eq $expected;
	ok(0, $name);
	splice @missing, 5;
	splice @unexpected, 5;
	diag(map { "$_\n" } 'missing, among others:', @missing, 'unexpected, among others:', @unexpected);
	return;
}

# Nothing that is shown may contradict itself, whatever happened before
sub consistent_ok
{
	my ($node, $name) = @_;
	my ($code, $out, $err) = $node->psql('postgres', <<'SQL');
with
	shown as materialized (select * from meshhook_metrics.snapshot())
select 'histogram ' || metric || labels
from shown s
where kind = 'histogram'
	and (count <> meshhook_metrics.histogram_count(histogram)
		or count <> (select sum(b.count) from meshhook_metrics.histogram_buckets(s.histogram) b))
union all
select 'twice ' || metric || labels
from shown
group by tenant_id, metric, labels
having count(*) > 1
union all
select 'not finite ' || metric || labels
from shown
where sum::text in ('NaN', 'Infinity', '-Infinity')
	or value::text in ('NaN', 'Infinity', '-Infinity')
	or min > max
	or min::text in ('NaN', 'Infinity', '-Infinity')
	or max::text in ('NaN', 'Infinity', '-Infinity')
union all
select 'more series shown than used'
from meshhook_metrics.status()
where series_used < (select count(*) from shown where not labels ? 'overflow')
union all
select 'no exposition'
where length(meshhook_metrics.prometheus()) < 100
SQL

	is("$code|$out|$err", '0||', $name);
	return;
}

# For what a server logs from here on
sub log_mark
{
	my ($node) = @_;

	return -s $node->logfile // 0;
}

sub log_since
{
	my ($node, $mark) = @_;

	return PostgreSQL::Test::Utils::slurp_file($node->logfile, $mark);
}

# Runs before PostgreSQL::Test::Cluster's own, which cleans up less
END
{
	my $status = $?;

	for my $node (@nodes)
	{
		$node->stop('immediate', fail_ok => 1) if defined $node->{_pid};
	}
	unlink keys %objects;
	$? = $status;
}

1;
