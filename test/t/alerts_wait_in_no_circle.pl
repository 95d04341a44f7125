# Who delivers notifications, writes rules or applies the migrations gets what is due to it,
# at the same time as others; nobody waits in a circle.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');

# Deliverers at the same time: each notification is one's, and those of a rule arrive in order
my $mark = log_mark($node);
keep($node, <<'SQL');
create table public.deliveries (notification bigint, client integer, claimed_at timestamptz, finished boolean, finished_at timestamptz);
insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload)
select '00000000-0000-0000-0000-000000000000', ('00000000-0000-0000-0000-' || lpad(rule::text, 12, '0'))::uuid, receiver, '{}'
from generate_series(1, 25) notification,
	generate_series(1, 8) rule,
	unnest(array['one', 'other']) receiver
SQL
start_clients($node, 'delivering', 4, <<'SQL');
insert into public.deliveries select id, :client_id, clock_timestamp() from meshhook_metrics.claim_notifications(3);
update public.deliveries
set finished = meshhook_metrics.finish_notification(notification), finished_at = clock_timestamp()
where client = :client_id and finished is null;
SQL
$node->poll_query_until('postgres', 'select count(*) = 400 from meshhook_metrics.alert_notifications where delivered_at is not null')
  or die 'not everything is delivered';
is(end_clients($node), 4, 'deliverers go on to the end');
is(errors_since($node, $mark), '', 'without an error');
is($node->safe_psql('postgres', 'select count(*), count(distinct notification), bool_and(finished) from public.deliveries'), '400|400|t',
	'each notification is taken by one, once');
cmp_ok($node->safe_psql('postgres', 'select count(distinct client) from public.deliveries'), '>', 1, 'of several');
is($node->safe_psql('postgres', <<'SQL'), 0, 'none is taken before its predecessor of the same rule and receiver has arrived');
select count(*)
from (
	select d.claimed_at, lag(d.finished_at) over (partition by n.rule_id, n.receiver order by n.id) as finished_before
	from public.deliveries d
	join meshhook_metrics.alert_notifications n on n.id = d.notification) o
where o.claimed_at <= o.finished_before
SQL

# The migrations again, and again
set_level($node, always => 50);
$mark = log_mark($node);
start_clients($node, 'evaluating', 2, "select meshhook_metrics.evaluate_alerts();\n\\sleep 20 ms\n");
start_clients($node, 'writing', 1, <<'SQL');
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window, repeat_interval)
values ('00000000-0000-0000-0000-000000000000', 'another', 'always', 'last', 10, '1 hour', null);
\sleep 20 ms
delete from meshhook_metrics.alert_rules where name = 'another';
SQL
start_clients($node, 'delivering', 1, <<'SQL');
begin;
insert into public.deliveries select id, :client_id, clock_timestamp() from meshhook_metrics.claim_notifications(3);
update public.deliveries
set finished = meshhook_metrics.finish_notification(notification), finished_at = clock_timestamp()
where client = :client_id and finished is null;
commit;
\sleep 20 ms
SQL
install_storage($node, role => 'keeper') for 1 .. 5;
is(end_clients($node), 4, 'migrations that are applied again hold up nobody for ever');
# The worker waits for 2 s, for which a migration may last, and tries again
is(join("\n", grep { !/could not .*: canceling statement due to lock timeout/ } split /\n/, errors_since($node, $mark)), '',
	'and nobody waits in a circle');
# The worker goes on, and sees that a rule is gone which was deleted before the last of
# the others had told of it
await_evaluation($node);
await_status($node, 'last_error is null');
pass('and the worker is content');
transitions_ok($node, 'migrations that are applied again');

$node->stop;
done_testing();
