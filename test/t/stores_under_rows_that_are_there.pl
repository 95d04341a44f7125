# What the worker remembers, and where the tables stand, may be no longer so: rows
# of series are deleted, sequences begin anew, rows come with a restore. What is
# recorded then is stored under rows that are there, and counted once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
$node->start;
remember_region($node);
install_storage($node);

sub run
{
	my ($sql, $database) = @_;

	return $node->safe_psql($database // 'postgres', $sql);
}

# All that query_range() shows of a counter
sub shown
{
	my ($metric) = @_;

	return run("select sum(value) from meshhook_metrics.query_range('$metric', now() - interval '30 minutes')");
}

my $orphans = <<'SQL';
select count(*)
from meshhook_metrics.live l
cross join lateral unnest(l.series_id) i (id)
where l.id > (select coalesce(max(id), 0) from before)
	and not exists (select from meshhook_metrics.series s where s.id = i.id and s.tenant_id = l.tenant_id)
SQL

run('create table before (id bigint)');

# Record a counter whose row the worker knows, lose the row, and record again
sub lose_row_ok
{
	my ($name, $lose) = @_;

	run("select meshhook_metrics.inc('lost_total')");
	flush($node);
	ref $lose ? $lose->() : run($lose);
	run('insert into before select max(id) from meshhook_metrics.live');
	run("select meshhook_metrics.inc('lost_total', 100)");
	flush($node);
	is(run("select count(*) from meshhook_metrics.series where metric = 'lost_total'"), 1, "$name: there is a row of the series");
	is(run($orphans), 0, "$name: nothing is stored under an id that no row has");
	is(shown('lost_total'), 100, "$name: what came afterwards shows");
	run("delete from meshhook_metrics.series where metric = 'lost_total'");
	return;
}

lose_row_ok('delete', q{delete from meshhook_metrics.series where metric = 'lost_total'});
lose_row_ok('delete by a session that is a replica', q{set session_replication_role = replica; delete from meshhook_metrics.series where metric = 'lost_total'});
lose_row_ok('truncate', q{truncate meshhook_metrics.series});
lose_row_ok('truncate restart identity', q{truncate meshhook_metrics.series restart identity});
lose_row_ok('another key', q{update meshhook_metrics.series set metric = 'found_total' where metric = 'lost_total'});
lose_row_ok('a delete that takes its time', sub {
	my $deleter = session($node);

	$deleter->query_safe(q{begin; delete from meshhook_metrics.series where metric = 'lost_total'});
	run("select meshhook_metrics.inc('lost_total', 0)");
	my ($code) = $node->psql('postgres', q{select meshhook_metrics.flush('500 ms')});
	isnt($code, 0, 'no flush stores anything while rows are being deleted');
	$deleter->query_safe('commit');
	$deleter->quit;
});
run(q{select meshhook_metrics.inc('kept_total')});
flush($node);
run(q{begin; delete from meshhook_metrics.series where metric = 'kept_total'; rollback});
run(q{select meshhook_metrics.inc('kept_total')});
flush($node);
is(run(q{select count(*) from meshhook_metrics.series where metric = 'kept_total'}) . shown('kept_total'), '12',
	'a delete that is rolled back changes nothing');
run(q{delete from meshhook_metrics.series where metric <> 'kept_total'});

# A new series does not get the id of one whose rollups are there
sub ids_are_new_ok
{
	my ($name, $lose) = @_;
	my $highest = run('select max(s.id) from meshhook_metrics.series s');

	run($lose);
	run("select meshhook_metrics.inc('kept_total', 1, jsonb_build_object('n', '$name'))");
	flush($node);
	cmp_ok(run("select max(id) from meshhook_metrics.series where labels ->> 'n' = '$name'"), '>', $highest,
		"$name: a new series has an id that none had");
	return;
}

ids_are_new_ok('restarted', 'truncate meshhook_metrics.series restart identity');
ids_are_new_ok('set back', q{select setval('meshhook_metrics.series_id_seq', 1)});
ids_are_new_ok('set back and emptied', q{delete from meshhook_metrics.series; select setval('meshhook_metrics.series_id_seq', 1)});
$node->stop;
my $highest = run_between_starts();
ids_are_new_ok('restarted before the worker was there', 'select 1');
cmp_ok(run('select max(id) from meshhook_metrics.series'), '>', $highest, 'above those that rollups have');

# The worker is not there while the table begins anew
sub run_between_starts
{
	$node->append_conf('postgresql.conf', "meshhook_metrics.database = 'another'");
	$node->start;
	my $id = run('select max(id) from meshhook_metrics.series');
	run(q{truncate meshhook_metrics.series restart identity});
	$node->append_conf('postgresql.conf', "meshhook_metrics.database = 'postgres'");
	$node->restart;
	remember_region($node);
	return $id;
}

# Close the minute of all that has been flushed, as if it had been a minute ago. The minute
# of the clock stays open, as it is for those who read.
sub close_flushed
{
	run(q{update meshhook_metrics.live set at = at - interval '1 minute'});
	run(q{select meshhook_metrics.close_minutes()});
	return;
}

# Rows of live that lie behind the watermark
sub live_goes_on_ok
{
	my ($name, $spoil) = @_;

	run(q{select meshhook_metrics.reset('behind_total')});
	run(q{delete from meshhook_metrics.series where metric = 'behind_total'});
	run(q{select meshhook_metrics.inc('behind_total', 1)});
	flush($node);
	close_flushed();
	run($spoil);
	run(q{select meshhook_metrics.inc('behind_total', 7)});
	flush($node);
	is(shown('behind_total'), 8, "$name: what is flushed next shows");
	close_flushed();
	is(run(q{select sum(r.sum) from meshhook_metrics.rollup_1m r join meshhook_metrics.series s on s.id = r.series_id where s.metric = 'behind_total'}),
		8, "$name: and is rolled up");
	is(run('select last_error from meshhook_metrics.status()'), '', "$name: without an error");
	return;
}

live_goes_on_ok('truncate restart identity', 'truncate meshhook_metrics.live restart identity');
live_goes_on_ok('setval', q{select setval('meshhook_metrics.live_id_seq', 1)});
live_goes_on_ok('a sequence that was not copied along', q{alter table meshhook_metrics.live alter id restart with 1});
live_goes_on_ok('a watermark ahead', q{update meshhook_metrics.rollup_state set live_id = 1000000 where target = '1m'});

# Rows restored into what the migrations made
run(q{select meshhook_metrics.inc('dumped_total', 10)});
flush($node);
run(q{select meshhook_metrics.close_minutes(now() + interval '1 minute')});
my $dump = $node->basedir . '/data.sql';
system_or_bail('pg_dump', '-a', '-t', 'meshhook_metrics.series', '-t', 'meshhook_metrics.live', '-t', 'meshhook_metrics.rollup_1m*',
	'-f', $dump, '-d', $node->connstr('postgres'));
$node->safe_psql('postgres', 'create database restored');
install_storage($node, database => 'restored');
system_or_bail('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump);
my $all = q{select sum(value) from meshhook_metrics.query_range('dumped_total', now() - interval '30 minutes')};
run('select meshhook_metrics.mend_state()', 'restored');
is(run($all, 'restored'), 10, 'what was restored into a fresh state is counted once');
run(q{select meshhook_metrics.close_minutes(now() + interval '2 minutes')}, 'restored');
is(run($all, 'restored'), 10, 'also when the next minute is closed');
is(run(q{select sum(sum) from meshhook_metrics.rollup_1m r join meshhook_metrics.series s on s.id = r.series_id where metric = 'dumped_total'}, 'restored'),
	10, 'and in rollup_1m');

# The sum of an interval is its own, whatever came before
run(q{select meshhook_metrics.gauge_set('own_level', 1e17), meshhook_metrics.observe('own_seconds', 1e17), meshhook_metrics.inc('own_total', 1e17)});
flush($node);
run(q{select meshhook_metrics.gauge_set('own_level', 5), meshhook_metrics.observe('own_seconds', 0.2), meshhook_metrics.inc('own_total', 5)});
flush($node);
my $own = <<'SQL';
select s.metric, e.sum, e.min, e.max, meshhook_metrics.histogram_sum(e.histogram)
from meshhook_metrics.live l
cross join lateral unnest(l.series_id, l.sum, l.min, l.max, l.histogram) e (series_id, sum, min, max, histogram)
join meshhook_metrics.series s on s.id = e.series_id
where s.metric like 'own_%' and l.id = (select max(l.id) from meshhook_metrics.live l)
order by s.metric
SQL
is(run($own), "own_level|5|5|5|\nown_seconds|0.2|0.2|0.2|0.2\nown_total|5|||", 'a small sum after a large one');
run(q{select meshhook_metrics.gauge_set('own_level', 1e306), meshhook_metrics.observe('own_seconds', 1e306)});
flush($node);
is(run($own), "own_level|1e+306|1e+306|1e+306|\nown_seconds|1e+306|1e+306|1e+306|1e+306", 'and a very large one');

done_testing();
