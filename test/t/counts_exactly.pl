# Many clients, tenants and series at once: every total is exactly what was
# recorded.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main');
my ($clients, $transactions) = (8, 400);
my $calls = $clients * $transactions;
my $folder = $node->basedir;

sub pgbench_ok
{
	my ($name, $script) = @_;
	my ($output, $error) = ('', '');

	append_to_file("$folder/$name.sql", $script);
	my $done = IPC::Run::run(
		[
			'pgbench', '-n', '-c', $clients, '-j', 2, '-t', $transactions,
			'-h', $node->host, '-p', $node->port, '-f', "$folder/$name.sql", 'postgres'
		],
		'>', \$output, '2>', \$error);

	ok($done, "$name: the clients end well") or diag($error);
	return;
}

# Metrics as "name: calls sum", and each tenant's share where they have one
sub recorded
{
	return $node->safe_psql('postgres', <<'SQL');
select metric || ': ' || sum(count) || ' ' || sum(sum)
from meshhook_metrics.snapshot()
group by metric
order by metric collate "C"
SQL
}

pgbench_ok('immediate', <<'SQL');
\set tenant mod(:client_id, 3)
\set series random(1, 20)
select
	meshhook_metrics.inc('shared_total'),
	meshhook_metrics.inc('weighted_total', 0.25),
	meshhook_metrics.observe('shared_seconds', 0.5),
	meshhook_metrics.inc('many_total', 2, jsonb_build_object('series', :series),
		('00000000-0000-0000-0000-00000000000' || :tenant)::uuid),
	meshhook_metrics.observe('many_seconds', 2, jsonb_build_object('series', :series),
		('00000000-0000-0000-0000-00000000000' || :tenant)::uuid),
	meshhook_metrics.gauge_add('level', 1),
	meshhook_metrics.gauge_add('level', -1);
SQL
is(recorded(), join("\n",
	"level: " . 2 * $calls . ' ' . $node->safe_psql('postgres', "select sum from meshhook_metrics.snapshot() where metric = 'level'"),
	"many_seconds: $calls " . 2 * $calls, "many_total: $calls " . 2 * $calls,
	"shared_seconds: $calls " . $calls / 2, "shared_total: $calls $calls",
	"weighted_total: $calls " . $calls / 4), 'immediate: all totals are exact');
is($node->safe_psql('postgres', q{select value from meshhook_metrics.snapshot() where metric = 'level'}), 0,
	'immediate: a gauge that goes up and down is back at 0');
is($node->safe_psql('postgres', <<'SQL'), '1200|1200|800', 'immediate: each tenant has its own');
select string_agg(calls::text, '|' order by tenant_id)
from (
	select tenant_id, sum(count) as calls
	from meshhook_metrics.snapshot()
	where metric = 'many_total'
	group by tenant_id) t
SQL
consistent_ok($node, 'immediate');

$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
pgbench_ok('batches', <<'SQL');
\set series random(1, 50)
select meshhook_metrics.record(jsonb_agg(sample))
from (
	select jsonb_build_object('op', 'inc', 'metric', 'batch_total', 'labels', jsonb_build_object('i', i % 5)) as sample
	from generate_series(1, 50) i
	union all
	select jsonb_build_object('op', 'observe', 'metric', 'batch_seconds', 'value', 1, 'labels', jsonb_build_object('i', :series))
	from generate_series(1, 50) i) s;
SQL
is(recorded(), 'batch_seconds: ' . 50 * $calls . ' ' . 50 * $calls . "\nbatch_total: " . 50 * $calls . ' ' . 50 * $calls,
	'batches: all totals are exact');
consistent_ok($node, 'batches');

# With on_commit what is rolled back, wholly or to a savepoint, does not count;
# a table that the same transactions write to tells what should.
$node->safe_psql('postgres', 'select meshhook_metrics.reset(); create table expected (metric text, value float8)');
pgbench_ok('on_commit', <<'SQL');
\set whole random(0, 2)
\set part random(0, 1)
begin;
set local meshhook_metrics.on_commit = on;
insert into expected values ('kept_total', 1), ('kept_seconds', 0.5);
select meshhook_metrics.inc('kept_total'), meshhook_metrics.observe('kept_seconds', 0.5);
savepoint a;
insert into expected values ('kept_total', 10);
select meshhook_metrics.inc('kept_total', 10);
savepoint b;
insert into expected values ('kept_total', 100), ('kept_seconds', 4);
select meshhook_metrics.inc('kept_total', 100), meshhook_metrics.observe('kept_seconds', 4);
\if :part
rollback to a;
\else
release b;
\endif
insert into expected values ('kept_total', 1000);
select meshhook_metrics.inc('kept_total', 1000);
\if :whole
commit;
\else
rollback;
\endif
SQL
is(recorded(), $node->safe_psql('postgres', <<'SQL'), 'on_commit: all totals are those of the tables');
select metric || ': ' || count(*) || ' ' || sum(value)
from expected
group by metric
order by metric collate "C"
SQL
consistent_ok($node, 'on_commit');
is($node->safe_psql('postgres', <<'SQL'), 0, 'nothing was discarded');
select sum(value::int8)
from meshhook_metrics.status(), jsonb_each_text(discarded)
SQL

$node->stop;
done_testing();
