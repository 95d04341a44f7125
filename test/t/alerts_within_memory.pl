# A hundred quantile rules over nine thousand histograms, with a window of its own each, are
# evaluated within 64 MB of memory, by the worker and by whoever calls evaluate_alerts().

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_alert_cluster('main');
my $allowed_kb = 64 * 1024;

# What the process has ever had of address space, in kB: what it did not use counts as well
sub peak
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^VmPeak:\s+(\d+) kB/m ? $1 : die "process $pid has no VmPeak";
}

sub reload_interval
{
	my ($interval) = @_;

	$node->adjust_conf('postgresql.conf', 'meshhook_metrics.alert_interval', "'$interval'");
	$node->reload;
	return;
}

# The worker has all that it keeps for evaluations, and then leaves them to others
await_evaluation($node);
reload_interval('1h');
await(sub { $node->safe_psql('postgres', 'show meshhook_metrics.alert_interval') eq '1h' }, 'the setting');
flush($node) for 1 .. 2;
keep($node, <<'SQL');
insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
select '11111111-1111-1111-1111-111111111111', 'run_seconds', 'histogram', jsonb_build_object('n', n)
from generate_series(1, 9000) n;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum, min, max, histogram)
select s.tenant_id, now() - interval '1 minute', 1, array_agg(s.id), array_agg(1), array_agg(h.sum), array_agg(h.min), array_agg(h.max), array_agg(h.histogram)
from meshhook_metrics.series s
cross join (
	select sum(v), min(v), max(v), meshhook_metrics.histogram_of(v) as histogram
	from (select exp(g / 4.0) as v from generate_series(-20, 20) g) g) h
group by s.tenant_id, s.id / 500;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window)
select '11111111-1111-1111-1111-111111111111', n, 'run_seconds', 'p95', 1, interval '10 minutes' + n * interval '1 second'
from generate_series(1, 100) n;
analyze meshhook_metrics.series
SQL

# Without a limit of time
my $session = session($node);
$session->set_query_timer_restart;
my $pid = $session->query_safe('select pg_backend_pid()');
my $before = peak($pid);
$session->query_safe('set role keeper');
is($session->query_safe('select meshhook_metrics.evaluate_alerts()'), 100, 'all rules are evaluated');
cmp_ok(peak($pid) - $before, '<=', $allowed_kb, 'within 64 MB');
is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_rules where last_error is not null'), 0, 'without an error');
is($node->safe_psql('postgres', 'select count(distinct value) from meshhook_metrics.alerts'), 1, 'to the same value, since all windows have it');

# The worker, however long it may take
$pid = worker_pid($node);
$before = peak($pid);
my $seen = evaluations($node);
reload_interval('1s');
await(sub { evaluations($node) > $seen }, 'an evaluation by the worker');
is(worker_pid($node), $pid, 'the worker evaluates them, or says that it cannot, and goes on');
cmp_ok(peak($pid) - $before, '<=', $allowed_kb + 1024, 'within 64 MB');

$session->quit;
$node->stop;
done_testing();
