# A standby keeps what is recorded there in memory, since it cannot store it.
# Promoted, it stores that under a region of its own, and nothing that its
# primary has stored is stored again, before or after the standby was copied from it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';

my $primary = new_plain_cluster('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
$primary->start;
remember_region($primary);
supabase_roles($primary, $tenant);
install_storage($primary, role => 'owner_role');

# The same series on both servers, and one of each server's own
sub record
{
	my ($node, $own, $times) = @_;

	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('shared_total', 1, '{"kind": "both"}', '$tenant'),
	meshhook_metrics.inc('$own', 2),
	meshhook_metrics.gauge_set('level', i),
	meshhook_metrics.observe('seconds', i)
from generate_series(1, $times) i
SQL
	return;
}

my $series = 'select id, tenant_id, metric, labels from meshhook_metrics.series order by id';

# A copy of a stopped server has what that had recorded and stored
record($primary, 'primary_total', 30);
$primary->stop;
$primary->backup_fs_cold('copy');
$primary->start;
remember_region($primary);
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
remember_region($standby);

# The primary goes on: while the standby is one, and with a last flush at its end
record($primary, 'primary_total', 20);
flush($primary);
$primary->safe_psql('postgres', "select meshhook_metrics.gauge_add('in_flight', 7)");
flush($primary);
my $known = $primary->safe_psql('postgres', $series);
$primary->wait_for_catchup($standby);

$standby->safe_psql('postgres', "select meshhook_metrics.gauge_add('in_flight', -1)");

record($standby, 'standby_total', 7);
is(totals($standby, 'shared_total'), '37|37', 'a standby records in memory');
my ($code, $out, $error) = $standby->psql('postgres', "\\set VERBOSITY verbose\nselect meshhook_metrics.flush()");
like($error, qr/ERROR:  25006: a standby cannot flush metrics\nHINT:  .*until this server is promoted/,
	'where flush() says that it cannot');
is($standby->safe_psql('postgres', 'select storage_installed, worker_pid, last_flush_at, flush_errors, last_error from meshhook_metrics.status()'),
	't|||0|', 'status() finds that in order');
is(stored_total($standby, 'shared_total'), '50|50', 'what the primary has stored can be read there');
is(as_tenant($standby, 'authenticated', $tenant, 'select metric from meshhook_metrics.series'), 'shared_total', 'by users, too, each of the own tenant');
is(as_tenant($standby, 'authenticated', 'no uuid', 'select count(*) from meshhook_metrics.series'), '0', 'or of none');

record($primary, 'primary_total', 10);
$primary->stop;
is(stored_total($standby, 'shared_total'), '60|60', 'the last flush of a primary that stops is streamed');

my $open = session($standby);
$open->query_safe("select meshhook_metrics.inc('standby_total', 2)");
$standby->promote;
await_status($standby, 'worker_pid is not null');
$open->query_safe("select meshhook_metrics.inc('standby_total', 2)");
flush($standby);
is(stored_total($standby, 'standby_total'), '9|18', 'promoted, it stores what it has recorded, before and after');
is(stored_total($standby, 'shared_total'), '67|67', 'a series of both servers has the samples of both, once');
is($standby->safe_psql('postgres', "select value from meshhook_metrics.snapshot() where metric = 'in_flight'"), 6,
	'a gauge that is only added to goes on at the level that the primary stored');
is(stored_total($standby, 'primary_total'), '60|120', "what was the primary's is not stored again");
is(stored_total($standby, 'seconds'), '67|' . (465 + 210 + 55 + 28), 'nor are its histograms');
is($standby->safe_psql('postgres', $series) =~ s/\n[^\n]*\|standby_total\|[^\n]*//r, $known, 'known series keep their ids');
is($standby->safe_psql('postgres', 'select count(*), count(distinct tick) from meshhook_metrics.flush_state'), '2|2',
	'under a region of its own');
is($standby->safe_psql('postgres', <<'SQL'), 't', 'live goes on with greater ids');
select min(live.id) filter (where live.at > status.since) > max(live.id) filter (where live.at <= status.since)
from meshhook_metrics.live,
	(select at as since from meshhook_metrics.flush_state order by tick limit 1) status
SQL
is($standby->safe_psql('postgres', 'select storage_installed, flush_errors, last_error from meshhook_metrics.status()'), 't|0|',
	'without an error');

# And through the end of the minute, and a crash
kill_server($standby);
$standby->start;
await_status($standby, 'worker_pid is not null');
flush($standby);
$standby->safe_psql('postgres', q{select meshhook_metrics.close_minutes(now() + interval '2 minutes'), meshhook_metrics.rollup()});
is(stored_total($standby, 'shared_total'), '67|67', 'nor is anything stored again after a crash');
record($standby, 'standby_total', 3);
flush($standby);
is(stored_total($standby, 'shared_total'), '70|70', 'and it goes on');

$open->quit;
$standby->stop;

# A server that was stopped before it could store what it had recorded, and that
# stores it later, is copied in between. Whoever sees it stored does not store it
# again; a copy that goes on by itself does.
$primary->start;
remember_region($primary);
my $locking = session($primary);
await_status($primary, 'worker_pid is not null');
flush($primary);
$locking->query_safe('begin; lock table meshhook_metrics.flush_state in access exclusive mode');
record($primary, 'unstored_total', 9);
$primary->stop('immediate');
$locking->quit;
$primary->backup_fs_cold('unstored');
$primary->start;
remember_region($primary);
my ($follower, $heir) = map { PostgreSQL::Test::Cluster->new($_) } 'follower', 'heir';
$follower->init_from_backup($primary, 'unstored', has_streaming => 1);
$heir->init_from_backup($primary, 'unstored');
for my $copy ($follower, $heir)
{
	$copy->start;
	remember_region($copy);
	is(totals($copy, 'unstored_total'), '9|18', $copy->name . ' has in memory what was not stored');
	record($copy, 'unstored_total', 7);
}
flush($heir);
is(stored_total($heir, 'unstored_total'), '16|32', 'a copy that goes on by itself stores that, with its own');
is(stored_total($heir, 'seconds'), '76|' . (465 + 210 + 55 + 45 + 28), 'and its histograms');

# It waits for its promotion over a restart, in which series get other numbers
$follower->restart;
remember_region($follower);
flush($primary);
$primary->safe_psql('postgres', "select meshhook_metrics.inc('unstored_total', 2)");
flush($primary);
$primary->wait_for_catchup($follower);
is(stored_total($follower, 'unstored_total'), '10|20', 'a standby sees it stored');
$primary->stop;
$follower->promote;
await_status($follower, 'worker_pid is not null');
flush($follower);
is(stored_total($follower, 'unstored_total'), '17|34', 'promoted, it stores its own only');
is(stored_total($follower, 'seconds'), '76|' . (465 + 210 + 55 + 45 + 28), 'and of histograms');
is($follower->safe_psql('postgres', <<'SQL'), '1|7', 'whose minimum and maximum are of its own');
select f.min, f.max
from meshhook_metrics.series s, meshhook_metrics.live l, unnest(l.series_id, l.min, l.max) f (id, min, max)
where s.metric = 'seconds' and f.id = s.id
order by l.id desc
limit 1
SQL

for my $copy ($follower, $heir)
{
	is($copy->safe_psql('postgres', 'select flush_errors, last_error from meshhook_metrics.status()'), '0|', $copy->name . ' has no trouble');
	$copy->stop;
}
done_testing();
