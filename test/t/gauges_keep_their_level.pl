# A gauge that is only ever added to goes on where it was, whatever became of
# the memory that it was in: it rested for a day, the region was lost, a flush
# failed meanwhile. One that was reset begins at 0.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';
my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '60s'
meshhook_metrics.max_series = 20000
meshhook_metrics.max_series_per_tenant = 20000
CONF
$node->start;
remember_region($node);
install_storage($node);
$node->safe_psql('postgres', 'create extension mhm_probe');

sub run
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql);
}

# No flush begins in between
sub between_flushes
{
	my ($work) = @_;
	my $locker = session($node);

	$locker->query_safe('begin; lock table meshhook_metrics.flush_state in share row exclusive mode');
	$work->();
	$locker->query_safe('commit');
	$locker->quit;
	return;
}

sub add
{
	my ($metric, @values) = @_;

	run(join('', map { "select meshhook_metrics.gauge_add('$metric', $_, '{}', '$tenant');" } @values));
	return;
}

# The gauge's series is no longer in memory
sub rest
{
	my ($metric) = @_;

	run("select mhm_probe.age('$metric', '2 days')");
	return run(q{select mhm_probe.retire_idle(now() - interval '1 day')});
}

# As after a crash of the operating system, or in a new container
sub lose_region
{
	$node->stop;
	unlink $node->data_dir . '/pg_stat/meshhook_metrics.region' or die "there is no saved region: $!";
	$node->start;
	remember_region($node);
	return;
}

sub level
{
	my ($metric) = @_;

	return run("select value from meshhook_metrics.snapshot() where metric = '$metric'");
}

# What the newest flush stored of a gauge
sub stored
{
	my ($metric) = @_;

	return run(<<"SQL");
select e.count, e.sum, e.min, e.max, e.last
from meshhook_metrics.live l
cross join lateral unnest(l.series_id, l.count, l.sum, l.min, l.max, l.last) e (series_id, count, sum, min, max, last)
join meshhook_metrics.series s on s.id = e.series_id
where s.metric = '$metric'
order by l.id desc
limit 1
SQL
}

# New to storage too
between_flushes(sub { add('in_flight', 3, 4) });
flush($node);
is(stored('in_flight'), '2|10|3|7|7', 'a gauge that storage does not know begins at 0');

# A day of rest
is(rest('in_flight'), 1, 'it rests');
between_flushes(
	sub {
		add('in_flight', -1);
		is(level('in_flight'), '-1', 'until a flush has looked it up it shows what it was changed by');
	});
flush($node);
is(level('in_flight'), '6', 'then it goes on where it was');
is(stored('in_flight'), '1|6|6|6|6', 'and so does what is stored');
add('in_flight', 1);
flush($node);
is(stored('in_flight'), '1|7|7|7|7', 'from then on as ever');

rest('in_flight');
between_flushes(sub { add('in_flight', 1, 2, -5) });
flush($node);
is(stored('in_flight'), '3|23|5|10|5', 'minimum, maximum and sum are of the values after each call');
is(run(q{select count, sum, min, max from meshhook_metrics.snapshot() where metric = 'in_flight'}), '3|23|5|10',
	'in memory as well');

# Its level may be in any table
for my $table (qw(rollup_1m rollup_5m rollup_1h rollup_1d))
{
	add('in_flight', 1);
	flush($node);
	run(q{select meshhook_metrics.close_minutes(now() + interval '1 minute')});
	run(<<"SQL") if $table ne 'rollup_1m';
truncate meshhook_metrics.$table;
select meshhook_metrics.create_leaf(right('$table', 2), '2026-01-01 00:00 UTC');
insert into meshhook_metrics.$table (tenant_id, series_id, bucket, count, sum, min, max, last)
select tenant_id, id, '2026-01-01 00:00 UTC', 1, 1, 1, 1, 70 from meshhook_metrics.series where metric = 'in_flight'
SQL
	my $before = $table eq 'rollup_1m' ? level('in_flight') : 70;
	run('truncate meshhook_metrics.live');
	run('truncate meshhook_metrics.rollup_1m') if $table ne 'rollup_1m';
	rest('in_flight');
	add('in_flight', 2);
	flush($node);
	is(level('in_flight'), $before + 2, "its level is found in $table");
	run("truncate meshhook_metrics.$table");
}

# What fails meanwhile
my $level = level('in_flight');
rest('in_flight');
add('in_flight', 5);
my $locker = session($node);
$locker->query_safe('create or replace function public.boom() returns trigger language plpgsql as $$ begin raise exception \'boom\'; end $$');
$locker->query_safe('create trigger boom before insert on meshhook_metrics.live for each row execute function public.boom()');
my ($code) = $node->psql('postgres', q{select meshhook_metrics.flush('2 s')});
isnt($code, 0, 'a flush fails');
is(level('in_flight'), $level + 5, 'the level has been given');
$locker->query_safe('drop trigger boom on meshhook_metrics.live');
flush($node);
is(stored('in_flight'), join('|', 1, ($level + 5) x 4), 'and is stored once by the next one');
$locker->quit;

# The region is lost
lose_region();
add('in_flight', -2);
flush($node);
is(level('in_flight'), $level + 3, 'a gauge goes on where it was when the region is lost');
lose_region();
run("select meshhook_metrics.gauge_add('in_flight', -2, '{}', '$tenant'), meshhook_metrics.gauge_set('in_flight', 11, '{}', '$tenant')");
flush($node);
is(level('in_flight'), '11', 'unless somebody has set it');

# Reset
add('in_flight', 1);
flush($node);
run(q{select meshhook_metrics.reset('in_flight')});
add('in_flight', 4);
flush($node);
is(level('in_flight'), '4', 'one that was reset begins at 0');
rest('in_flight');
run(qq{select meshhook_metrics.reset('in_flight', '$tenant')});
add('in_flight', 3);
flush($node);
is(level('in_flight'), '3', 'also one that was resting');
run(q{select meshhook_metrics.close_minutes(now() + interval '1 minute')});
run('truncate meshhook_metrics.live');
rest('in_flight');
add('in_flight', 2);
flush($node);
is(level('in_flight'), '5', 'and what came since is its level, though the window in a rollup began before the reset');
run(q{select meshhook_metrics.reset()});
flush($node);
lose_region();
add('in_flight', 2);
flush($node);
is(level('in_flight'), '2', 'also when the region is lost afterwards');

# Many resets between two flushes of the clock
run(q{select meshhook_metrics.reset('another_' || i) from generate_series(1, 40) i});
run(q{select meshhook_metrics.reset(null, ('bbbbbbbb-0000-0000-0000-0000000000' || i)::uuid) from generate_series(10, 49) i});
flush($node);
lose_region();
add('in_flight', 1);
flush($node);
is(level('in_flight'), '3', "many resets of others' gauges leave a gauge what it was");

# The worker waits for its lock until the call is over
my $before = run('select clock_timestamp()');
between_flushes(sub { run(q{set statement_timeout = '60s'; select meshhook_metrics.reset('another_' || i) from generate_series(1, 40) i}) });
flush($node);
is(run("select count(*) from meshhook_metrics.series where reset_at > '$before'"), '1',
	'where no flush can make room, more resets than the region notes are one of everything');

# More of them than one flush looks up
run(q{select count(meshhook_metrics.gauge_add('many', i, jsonb_build_object('i', i))) from generate_series(1, 12000) i});
flush($node);
lose_region();
run(q{select count(meshhook_metrics.gauge_add('many', 1, jsonb_build_object('i', i))) from generate_series(1, 12000) i});
flush($node);
is(run(q{select count(*), count(*) filter (where value = (labels ->> 'i')::int + 1) from meshhook_metrics.snapshot() where metric = 'many'}),
	'12000|12000', 'so does each of many gauges');
is(run('select last_error from meshhook_metrics.status()'), '', 'without an error');

done_testing();
