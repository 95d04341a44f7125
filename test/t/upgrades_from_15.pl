# pg_upgrade from an earlier PostgreSQL takes everything along: what is stored,
# who sees it, what is streamed; and the new server goes on.
#
# MHM_OLD_PG_CONFIG names the earlier one's pg_config, which must have the
# extension installed; test/run sets it where there is one.

use strict;
use warnings;

use File::Basename qw(dirname);
use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'there is no earlier PostgreSQL, from 15 on, with its headers beside the one under test'
  if !$ENV{MHM_OLD_PG_CONFIG};

await_midnight();
my $tenant_a = 'aaaaaaaa-0000-0000-0000-000000000001';
my $tenant_b = 'bbbbbbbb-0000-0000-0000-000000000002';
my $old_bindir = dirname($ENV{MHM_OLD_PG_CONFIG});
my $preload = <<'CONF';
shared_preload_libraries = 'meshhook_metrics'
jit = off
CONF

# What must be the same on both sides
my %kept = (
	'the rows of tenants' => <<'SQL',
select
	tables.name,
	xpath('//text()', query_to_xml(format(
		$query$
			select count(*), md5(string_agg(t::text, E'\n' order by t::text collate "C"))
			from meshhook_metrics.%I t
			where t.tenant_id <> '00000000-0000-0000-0000-000000000000'
		$query$, tables.name), true, true, ''))
from unnest(array['series', 'live', 'rollup_1m', 'rollup_5m', 'rollup_1h', 'rollup_1d']) tables (name)
SQL
	'the settings' => 'select * from meshhook_metrics.settings',
	'what was described' => 'select * from meshhook_metrics.metrics',
	'the tables, their owner and row level security' => <<'SQL',
select c.oid::regclass, c.relkind, c.relowner::regrole, c.relrowsecurity, pg_get_expr(c.relpartbound, c.oid), c.reloptions
from pg_class c
where c.relnamespace = 'meshhook_metrics'::regnamespace
SQL
	'the policies' => q{select * from pg_policies where schemaname = 'meshhook_metrics'},
	'the publication' => q{select * from pg_publication_tables where pubname = 'supabase_realtime'},
	'the grants on tables' => <<'SQL',
select c.oid::regclass, a.grantee::regrole, a.privilege_type
from pg_class c, aclexplode(c.relacl) a
where c.relnamespace = 'meshhook_metrics'::regnamespace
	and a.grantee <> c.relowner
SQL
	'the functions and the grants on them' => <<'SQL',
select p.oid::regprocedure, p.proowner::regrole, p.proconfig, a.grantee::regrole, a.is_grantable
from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
where p.pronamespace = 'meshhook_metrics'::regnamespace
SQL
	'the members of the extension' => <<'SQL',
select pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_depend d
	join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
	left join pg_type t on t.oid = d.objid and d.classid = 'pg_type'::regclass
where d.deptype = 'e'
	and e.extname = 'meshhook_metrics'
	and t.typelem is distinct from 'meshhook_metrics.histogram'::regtype
SQL
	'what a tenant reads' => undef);

sub what_is_kept
{
	my ($node) = @_;
	my %found =
	  map { $_ => join "\n", sort split /\n/, $kept{$_} ? $node->safe_psql('postgres', $kept{$_}) : '' } keys %kept;

	$found{'what a tenant reads'} = as_tenant($node, 'authenticated', $tenant_a, <<'SQL');
select metric, labels, kind, sum(count), sum(sum), meshhook_metrics.histogram_merge(histogram)
from meshhook_metrics.rollup_1m
	join meshhook_metrics.series on series.id = series_id
group by 1, 2, 3
order by 1, 2
SQL
	return %found;
}

my $old = new_plain_cluster('old', install_path => dirname($old_bindir));
$old->append_conf('postgresql.conf', $preload);
$old->start;
remember_region($old);
supabase_roles($old, $tenant_a, $tenant_b);
install_storage($old, role => 'owner_role');

my $record = <<"SQL";
select meshhook_metrics.describe('payload_bytes', 'histogram', 'Size of a payload.', 'bytes', 0);
select meshhook_metrics.inc('runs_total', i, jsonb_build_object('status', 's' || i % 3), tenant)
from generate_series(1, 300) i,
	unnest(array['$tenant_a', '$tenant_b']::uuid[]) tenant;
select meshhook_metrics.gauge_set('depth', i, '{"queue": "Z\x{fc}rich"}', '$tenant_a')
from generate_series(1, 10) i;
select meshhook_metrics.observe('run_seconds', i * 0.25, '{}', tenant)
from generate_series(1, 1000) i,
	unnest(array['$tenant_a', '$tenant_b']::uuid[]) tenant;
SQL
utf8::encode($record);
$old->safe_psql('postgres', $record);
flush($old);

# As of half an hour later everything is in minutes and rolled up, so that no
# worker has a reason to change it; and there are days of long ago.
$old->safe_psql('postgres', <<"SQL", extra_params => [ '-U', 'owner_role' ]);
insert into meshhook_metrics.settings
values ('retention_live', default, '1 hour'), ('max_series', '$tenant_b', '50');
select meshhook_metrics.close_minutes(now() + interval '30 minutes');
select meshhook_metrics.rollup();
select meshhook_metrics.create_leaf('1h', now() - interval '50 days'), meshhook_metrics.create_leaf('1d', now() - interval '500 days');
insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
select tenant_id, series_id, date_trunc('hour', now() - interval '50 days'), count, sum, min, max, last, histogram
from meshhook_metrics.rollup_1m;
insert into meshhook_metrics.rollup_1d (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
select tenant_id, series_id, date_trunc('day', now() - interval '500 days'), count, sum, min, max, last, histogram
from meshhook_metrics.rollup_1m;
SQL
maintain_wholly($old, extra_params => [ '-U', 'owner_role' ]);
my %before = what_is_kept($old);
my %totals = map { $_ => stored_total($old, $_) } qw(runs_total depth run_seconds);
is_deeply(\%totals, { runs_total => '600|90300', depth => '10|55', run_seconds => '2000|250250' },
	'before the upgrade everything that was recorded is stored');
is_deeply([ grep { $before{$_} eq '' } sort keys %before ], [], 'and there is something of everything');
like($before{'what a tenant reads'}, qr/^depth\|.*\nrun_seconds\|.*\nruns_total\|/, 'which its tenant reads');

# Shared memory is not upgraded: the last samples must be stored at the stop
$old->safe_psql('postgres', "select meshhook_metrics.inc('last_total', 7)");
$old->stop;

my $new = new_plain_cluster('new');
$new->append_conf('postgresql.conf', $preload);
chdir $PostgreSQL::Test::Utils::tmp_check or die "could not enter tmp_check: $!";
command_ok(
	[
		'pg_upgrade', '--no-sync',
		'--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir,
		'--old-bindir', $old_bindir, '--new-bindir', $new->config_data('--bindir'),
		'--socketdir', $new->host, '--old-port', $old->port, '--new-port', $new->port ],
	'pg_upgrade');
$new->start;
remember_region($new);
cmp_ok($new->safe_psql('postgres', q{select current_setting('server_version_num')}) =~ s/....$//r,
	'>', $old->pg_version =~ s/^(\d+).*/$1/r, 'the new server is of a later version');

my %after = what_is_kept($new);
same_ok($after{$_}, $before{$_}, "$_: as before") for sort keys %kept;
is_deeply({ map { $_ => stored_total($new, $_) } keys %totals }, \%totals, 'the totals are as before');
is(stored_total($new, 'last_total'), '1|7', 'what was recorded right before the stop is there');

# Life goes on: known series keep their ids, and old and new add up
$new->safe_psql('postgres', $record);
flush($new);
is_deeply(
	{ map { $_ => stored_total($new, $_) } keys %totals },
	{ runs_total => '1200|180600', depth => '20|110', run_seconds => '4000|500500' },
	'the new server goes on flushing, and adds to what was there');
is($new->safe_psql('postgres', 'select count(*) from meshhook_metrics.series'), 10, 'in the same series');
is($new->safe_psql('postgres', 'select count(*) from meshhook_metrics.flush_state'), 2, 'from a region of its own');
$new->safe_psql('postgres', <<'SQL', extra_params => [ '-U', 'owner_role' ]);
select meshhook_metrics.close_minutes(now() + interval '40 minutes');
select meshhook_metrics.rollup();
select meshhook_metrics.maintain();
SQL
is($new->safe_psql('postgres', <<'SQL'), '1200|180600', 'minutes are closed, and rolled up');
select sum(count), sum(sum)
from meshhook_metrics.rollup_5m
	join meshhook_metrics.series on series.id = series_id
where metric = 'runs_total'
SQL
is($new->safe_psql('postgres', 'select flush_errors, last_error from meshhook_metrics.status()'), '0|', 'without an error');

$new->stop;
done_testing();
