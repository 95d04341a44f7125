# Data alone, restored into a database where the migrations are applied, by the statements
# of docs/operations.md: everything is there as it was, once, and goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Cwd ();
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

await_midnight();
my $tenant = 'aaaaaaaa-0000-0000-0000-000000000001';

sub new_node
{
	my ($name) = @_;
	my $node = new_plain_cluster($name);

	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'meshhook_metrics'");
	configure($node, flush_interval => "'1s'");
	$node->start;
	remember_region($node);
	supabase_roles($node);
	install_storage($node, role => 'owner_role');
	return $node;
}

# All that is stored but flush_state, as one statement that runs in the transaction that restores it
my @tables = qw(series live rollup_1m rollup_5m rollup_1h rollup_1d rollup_state metrics settings alert_state alert_gaps alert_rules alerts alert_events alert_receivers alert_notifications);
my $stored = join ' union all ', map { "select '$_ ' || t::text from meshhook_metrics.$_ t" } @tables;
$stored .= " order by 1";

my $source = new_node('source');
$source->safe_psql('postgres', <<"SQL");
select meshhook_metrics.describe('kept_seconds', 'histogram', 'How long it took.', 'seconds', -14);
select
	meshhook_metrics.inc('kept_total', i, jsonb_build_object('status', 's' || i % 3), '$tenant'),
	meshhook_metrics.observe('kept_seconds', i / 10.0, '{}', '$tenant')
from generate_series(1, 30) i
SQL
flush($source);

# More rules than without the setting, partitions that are none here, errors and times that a trigger would write anew
$source->safe_psql('postgres', <<"SQL", extra_params => [ '-U', 'owner_role' ]);
insert into meshhook_metrics.settings values ('max_alert_rules', '$tenant', '120'), ('retention_1m', default, '30 days'), ('retention_live', default, '1 hour');
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window)
select '$tenant', 'rule ' || n, 'kept_total', 'increase', 1, '1 day' from generate_series(1, 110) n;
select meshhook_metrics.evaluate_alerts();
select meshhook_metrics.create_leaf('1m', now() - interval '20 days'), meshhook_metrics.create_leaf('1h', now() - interval '300 days');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum)
select tenant_id, id, date_trunc('minute', now() - interval '20 days'), 1, 1 from meshhook_metrics.series;
insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum)
select tenant_id, id, date_trunc('hour', now() - interval '300 days'), 1, 1 from meshhook_metrics.series;
select meshhook_metrics.close_minutes(now() + interval '30 minutes');
update meshhook_metrics.alert_rules set last_error = 'it failed', last_error_at = now() - interval '1 hour', updated_at = now() - interval '1 day' where name = 'rule 7';
SQL
my $dumps = $source->basedir;
my ($dump, $leaves) = ("$dumps/data.sql", "$dumps/leaves.sql");

# The statements of the manual
my $manual = slurp_file((grep { -e } map { "$_/docs/operations.md" } Cwd::getcwd(), "$FindBin::RealBin/../..")[0]);
my ($section) = $manual =~ /^\*\*Only the data\*\*(.*?)^\*\*/ms or die 'operations.md does not say how';
my ($list_leaves, $empty) = $section =~ /^```sql\n(.*?)^```.*?^```sql\n(.*?)^```/ms or die 'operations.md lacks its statements';
my ($options) = $section =~ /^pg_dump (.*) -d source/m or die 'operations.md does not say how to dump';

$source->stop;
# Nobody rolls up between the listing and the dump
$source->append_conf('postgresql.conf', "meshhook_metrics.enabled = off\nmeshhook_metrics.database = 'nowhere'");
$source->start;
my $before = $source->safe_psql('postgres', $stored);
command_ok([ 'pg_dump', '-h', $source->host, '-p', $source->port, '-U', 'owner_role', '-d', 'postgres', split(/ /, $options), '-f', $dump ], 'the owner dumps the data');
append_to_file($leaves, $source->safe_psql('postgres', $list_leaves, extra_params => [ '-U', 'owner_role' ]));
append_to_file("$dumps/empty.sql", $empty);
append_to_file("$dumps/check.sql", "\\o $dumps/restored\n$stored;\n");
$source->stop;

my $target = new_node('target');
$target->safe_psql('postgres', <<"SQL");
select meshhook_metrics.describe('own_total', 'counter', 'Its own.'), meshhook_metrics.describe('kept_seconds', 'histogram', 'How long it takes here.');
select meshhook_metrics.inc('own_total', 5, '{}', '$tenant');
SQL
flush($target);
my ($out, $error) = ('', '');
ok(IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-d', $target->connstr('postgres'), '-U', 'owner_role',
		'-At', (map { ('-f', "$dumps/$_.sql") } qw(empty leaves data check)) ], '<', \undef, '>', \$out, '2>', \$error), 'the owner restores them, with the worker at work') or diag($error);
same_ok(slurp_file("$dumps/restored") =~ s/\n\z//r, $before, 'everything is as it was');

# And goes on: the worker adds to it, with its own series as well
await_status($target, 'last_error is null');
$target->safe_psql('postgres', "select meshhook_metrics.inc('kept_total', 1000, '{\"status\": \"s1\"}', '$tenant'), meshhook_metrics.inc('own_total', 7, '{}', '$tenant')");
flush($target);
is(stored_total($target, 'kept_total'), '34|1468', 'the worker adds to it');
is(stored_total($target, 'own_total'), '1|7', 'what was there before is gone, and begins anew');
is($target->safe_psql('postgres', q{select help, min_exponent from meshhook_metrics.metrics where name = 'kept_seconds'}), 'How long it took.|-14', 'a metric is described as it was');
is($target->safe_psql('postgres', 'select state, reason, count(*) from meshhook_metrics.alerts group by 1, 2'), 'firing|threshold|110', 'the alerts are as they were');
is($target->safe_psql('postgres', 'select meshhook_metrics.evaluate_alerts()', extra_params => [ '-U', 'owner_role' ]), 0, 'no alert fires a second time');
$target->stop;
done_testing();
