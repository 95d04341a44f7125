# Tables that version 0.1.0 made become those that are made today when the migrations are
# applied, without an error or a warning, and keep their rows. The extension is
# today's from the beginning.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';
my ($former, $listing) = map { MetricsCluster::checkout_files("test/sql/include/$_.sql") } qw(migrations_0.1.0 storage_listing);
my $node = new_metrics_cluster('main', database => 'upgraded');
supabase_roles($node, $tenant);

sub create_database
{
	my ($database) = @_;

	$node->safe_psql('postgres', "create database $database owner owner_role");
	$node->safe_psql($database, <<'SQL', extra_params => [ '-U', 'owner_role' ]);
set client_min_messages = error;
create publication supabase_realtime;
SQL
	return;
}

# What psql says of files that the owner applies
sub apply
{
	my ($database, @files) = @_;
	my $said = '';

	for my $file (@files)
	{
		my ($out, $error) = ('', '');

		IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-U', 'owner_role',
				'-c', 'set client_min_messages = warning', '-f', $file ], '<', \undef, '>', \$out, '2>', \$error);
		$said .= $out . $error;
	}
	return $said;
}

# Everything in the schema; leaves, which go by the day, without it. And in which order
# the columns are, which rows without names of columns go by.
sub storage
{
	my ($database) = @_;
	my $lines = $node->safe_psql($database, <<"SQL");
\\i $listing
select pg_temp.storage()
union all
select format('columns of %s: %s', a.attrelid::regclass, string_agg(a.attname, ' ' order by a.attnum))
from pg_attribute a
join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'meshhook_metrics'::regnamespace and a.attnum > 0 and not a.attisdropped
group by a.attrelid
SQL
	my %lines = map { s/(rollup_\d\w)_\d+/$1_leaf/gr => 1 } split /\n/, $lines;

	return join "\n", sort keys %lines;
}

create_database('upgraded');
$node->safe_psql('upgraded', 'create extension meshhook_metrics', extra_params => [ '-U', 'owner_role' ]);
is(apply('upgraded', $former), '', 'version 0.1.0 was installed');
$node->safe_psql('upgraded', <<"SQL");
begin;
select meshhook_metrics.create_leaf('1m', day) from (select distinct d::date from (values (now()), (now() - interval '1 minute')) t (d)) days (day);
insert into meshhook_metrics.series (tenant_id, metric, kind, labels) values ('$tenant', 'kept_total', 'counter', '{}');
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum) values ('$tenant', now(), 5, array[1], array[2], array[3]);
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum) values ('$tenant', 1, date_trunc('minute', now() - interval '1 minute'), 1, 4);
-- Its triggers call functions of the former extension
set local session_replication_role = replica;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window, annotations)
values ('$tenant', 'kept', 'kept_total', 'increase', 1, '1 hour', '{"summary": "{{ value }}"}');
insert into meshhook_metrics.alert_suspensions values ('$tenant', now(), 3, 'was slow');
insert into meshhook_metrics.settings (name, value) values ('retention_1m', '14 days');
commit;
SQL
# Without those that the worker may bring from live to rollup_1m meanwhile
my $rows = <<'SQL';
select s.tenant_id, s.metric, a.id, a.name, a.annotations, v.value
from meshhook_metrics.series s, meshhook_metrics.alert_rules a, meshhook_metrics.settings v
SQL
my $before = $node->safe_psql('upgraded', $rows);

is(apply('upgraded', MetricsCluster::migrations()), '', 'the migrations have nothing to say');
my $upgraded = storage('upgraded');
is($node->safe_psql('upgraded', $rows), $before, 'the rows are as they were');
is(stored_total($node, 'kept_total', 'upgraded'), '3|7', 'and so is what was stored');
is(apply('upgraded', MetricsCluster::migrations()), '', 'neither when they are applied again');
same_ok(storage('upgraded'), $upgraded, 'which changes nothing');

create_database('fresh');
is(apply('fresh', MetricsCluster::migrations()), '', 'a new database');
same_ok($upgraded, storage('fresh'), 'has the same tables, columns, triggers, policies, functions, comments and rights');

# And they work
$node->safe_psql('upgraded', "select meshhook_metrics.inc('kept_total', 5, '{}', '$tenant')");
await_status($node, 'storage_installed and last_error is null', 'upgraded');
flush($node, 'upgraded');
is(stored_total($node, 'kept_total', 'upgraded'), '4|12', 'the worker goes on with the series');
$node->safe_psql('upgraded', 'select meshhook_metrics.evaluate_alerts()');
is($node->safe_psql('upgraded', q{select string_agg(name || ' ' || state, ', ') from meshhook_metrics.alerts}), 'kept firing', 'and the rule fires');

$node->stop;
done_testing();
