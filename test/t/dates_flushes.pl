# The time that a flush is stored with: it ends where the next one begins, also where it
# came late, and it is not in a minute that has been closed, where readers would not look
# for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use ServerFaults;
use Test::More;

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '20s'
CONF
start_faulty($node);
install_storage($node);
my $worker = worker_pid($node);
my $ahead = 0;

# Where the server's minute is, and how far it is closed
sub server
{
	my ($expression) = @_;

	return $node->safe_psql('postgres', "select $expression from meshhook_metrics.rollup_state where target = '1m'");
}

# Put the server's clock forth to this second of the next minute
sub go_to_second
{
	my ($second) = @_;

	$ahead += $node->safe_psql('postgres', "select 60 + $second - extract(second from clock_timestamp())");
	set_clock($node, $ahead);
	flush($node);
	return;
}

# A flush that ends a minute, and comes late: the worker is stopped meanwhile
go_to_second(48);
$node->safe_psql('postgres', q{select meshhook_metrics.inc('late_total')});
my $minute = server(q{date_trunc('minute', clock_timestamp() + interval '1 minute')});
kill 'STOP', $worker;
await(sub { server("clock_timestamp() > timestamptz '$minute' + interval '2 seconds'") eq 't' }, 'the minute to be over');
kill 'CONT', $worker;
await(sub { stored_total($node, 'late_total') eq '1|1' }, 'the flush that ends the minute');
$node->safe_psql('postgres', q{select meshhook_metrics.inc('late_total')});
flush($node);
is($node->safe_psql('postgres', <<'SQL'), 't', 'the next flush begins where it ended');
select abs(extract(epoch from next.at - last.at) - next.seconds) < 0.5
from (select * from meshhook_metrics.live order by id desc limit 1) next,
	(select * from meshhook_metrics.live order by id desc offset 1 limit 1) last
SQL
note($node->safe_psql('postgres', 'select at, seconds from meshhook_metrics.live order by id'));

# The minute is closed while flushes fail
go_to_second(50);
my $locking = session($node);
$node->safe_psql('postgres', 'select meshhook_metrics.inc(\'blocked_total\', 7)');
$locking->query_safe('begin; lock table meshhook_metrics.flush_state in share mode');
$minute = server(q{date_trunc('minute', clock_timestamp() + interval '1 minute')});
await(sub { server("complete_until >= '$minute'") eq 't' }, 'the minute to be closed');
$locking->query_safe('commit');
flush($node);
is(stored_total($node, 'blocked_total'), '1|7', 'what was blocked is stored');
is($node->safe_psql('postgres', <<'SQL'), 'f', 'what is stored then is not of that minute');
select exists (
	select
	from meshhook_metrics.live l
	join meshhook_metrics.rollup_state s on s.target = '1m' and l.id > s.live_id and l.at < s.complete_until)
SQL
is($node->safe_psql('postgres', "select sum(value) from meshhook_metrics.query_range('blocked_total', timestamptz '$minute' - interval '1 hour', timestamptz '$minute' + interval '1 hour')"),
	7, 'and shows');
$locking->quit;

$node->stop;
done_testing();
