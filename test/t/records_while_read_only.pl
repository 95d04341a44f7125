# Recording works where nothing can be written: in read-only transactions, and
# on a hot standby, which has a region of its own and keeps it when promoted.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $primary = new_plain_cluster('primary', allows_streaming => 1);
$primary->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
max_connections = 30
CONF
$primary->start;
remember_region($primary);
$primary->safe_psql('postgres', 'create extension meshhook_metrics');

# Every way to record, also of series that are new
my $read_only = <<'SQL';
begin read only;
select
	meshhook_metrics.inc('reads_total'),
	meshhook_metrics.gauge_set('readers', 3),
	meshhook_metrics.observe('read_seconds', 0.5),
	meshhook_metrics.record('[{"op": "inc", "metric": "reads_total"}]');
set local meshhook_metrics.on_commit = on;
select meshhook_metrics.inc('read_commits_total');
commit;
select meshhook_metrics.describe('reads_total', 'counter', 'Reads');
SQL
my $recorded = <<'SQL';
select metric, value, count
from meshhook_metrics.snapshot()
order by metric
SQL
my $expected = "read_commits_total|1|1\nread_seconds||1\nreaders|3|1\nreads_total|2|2";

$primary->safe_psql('postgres', $read_only);
is($primary->safe_psql('postgres', $recorded), $expected, 'read-only transactions on a primary record');
$primary->safe_psql('postgres', "set default_transaction_read_only = on; select meshhook_metrics.inc('reads_total')");
is(counter($primary, 'reads_total'), 3, 'so does a session that is read-only');

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
remember_region($standby);
$primary->wait_for_catchup($standby);

is($standby->safe_psql('postgres', 'select pg_is_in_recovery()'), 't', 'the standby is one');
is($standby->safe_psql('postgres', $recorded), '', 'a standby begins with a region of its own');
$standby->safe_psql('postgres', $read_only);
is($standby->safe_psql('postgres', $recorded), $expected, 'a hot standby records');
is(counter($primary, 'reads_total'), 3, 'the primary sees nothing of it');
isnt((region_objects($standby))[0], (region_objects($primary))[0], 'they have different objects');

$standby->restart;
is($standby->safe_psql('postgres', $recorded), $expected, 'a restart of the standby loses nothing');
kill_server($standby);
$standby->start;
is($standby->safe_psql('postgres', $recorded), $expected, 'nor does a crash');

my $open = session($standby);
$open->query_safe("select meshhook_metrics.inc('reads_total')");
$standby->promote;
is($standby->safe_psql('postgres', 'select pg_is_in_recovery()'), 'f', 'the standby is promoted');
is(counter($standby, 'reads_total'), 3, 'a promotion loses nothing');
$open->query_safe("select meshhook_metrics.inc('reads_total')");
$standby->safe_psql('postgres', "create table t (a int); select meshhook_metrics.inc('reads_total')");
is(counter($standby, 'reads_total'), 5, 'the promoted server goes on, old sessions too');
$open->quit;

$standby->stop;
$primary->stop;
done_testing();
