# Where pg_restore has several jobs, some tables are whole before others have
# their rows. Rules that are evaluated meanwhile must not resolve what fires,
# nor tell of it: what they are about is not there yet.

use strict;
use warnings;

use FindBin;
use IPC::Run ();
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';
my $happened = q{select string_agg(format('%s %s %s', name, state, reason), ', ' order by id) from meshhook_metrics.alert_events};
my $firing = 'group firing threshold, one firing threshold';

my $old = new_metrics_cluster('old');
install_storage($old);
$old->safe_psql('postgres', qq{select meshhook_metrics.inc('runs_total', 5, '{"queue": "in"}', '$tenant')});
flush($old);
$old->safe_psql('postgres', <<"SQL");
insert into meshhook_metrics.alert_rules (id, tenant_id, name, metric, aggregate, group_by, threshold, time_window)
values
	('aaaaaaaa-0000-4000-8000-000000000001', '$tenant', 'group', 'runs_total', 'increase', '{queue}', 1, '1 hour'),
	('aaaaaaaa-0000-4000-8000-000000000002', '$tenant', 'one', 'runs_total', 'increase', null, 1, '1 hour');
select meshhook_metrics.evaluate_alerts();
SQL
is($old->safe_psql('postgres', $happened), $firing, 'two alerts fire');
my $dump = $old->basedir . '/whole.dump';
command_ok([ 'pg_dump', '-h', $old->host, '-p', $old->port, '-d', 'postgres', '-Fc', '-f', $dump ], 'the database is dumped');
$old->stop;

# One after the other of what the values come from lags behind
for my $late ('live', 'series')
{
	my $node = new_plain_cluster("without_$late");
	my @to;

	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
	configure($node, flush_interval => "'1s'", alert_interval => "'1s'");
	$node->start;
	remember_region($node);
	@to = ('-h', $node->host, '-p', $node->port, '-d', 'postgres');
	command_ok([ 'pg_restore', @to, '--section=pre-data', $dump ], "$late: the tables are there");

	my $holder = session($node);
	$holder->query_safe("begin; lock table meshhook_metrics.$late in share mode");
	my $restore = IPC::Run::start([ 'pg_restore', @to, '-j', '2', '--section=data', '--section=post-data', $dump ]);
	# A table has its primary key once it has its rows
	$node->poll_query_until('postgres', <<"SQL") or die "timed out waiting for all but $late";
select coalesce(array_agg(c.relname) = '{$late}', false)
from pg_class c
where c.relnamespace = 'meshhook_metrics'::regnamespace
	and c.relkind in ('r', 'p')
	and not exists (
		select
		from pg_index
		where indrelid = c.oid
			and indisprimary
			and indisvalid)
SQL
	# Whether that is an error, or nothing
	$node->psql('postgres', 'select meshhook_metrics.evaluate_alerts()');
	is($node->safe_psql('postgres', $happened), $firing, "$late: while its rows are missing, no alert changes");

	$holder->query_safe('commit');
	$holder->quit;
	ok($restore->finish, "$late: all is restored");
	$node->safe_psql('postgres', 'select meshhook_metrics.evaluate_alerts()');
	is($node->safe_psql('postgres', $happened), $firing, "$late: and they go on");
	$node->stop;
}

done_testing();
