# Where evaluating all tenants together fails, and goes on to, each is evaluated apart, as
# often as ever: that counts as an evaluation, and adds up what it leaves out. Who keeps the
# state of alerting locked meanwhile costs nobody more than that time.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');
my @tenants = map { "00000000-0000-0000-0000-00000000000$_" } 1 .. 3;

# What stands for a load that is too much for one transaction knows it by what the worker does
$node->safe_psql('postgres', 'grant pg_read_all_stats to keeper');
keep($node, <<'SQL');
create function public.too_much() returns trigger
language plpgsql as $$
begin
	if exists (select from pg_stat_activity a where a.pid = pg_backend_pid() and a.query = 'evaluate alert rules') then
		raise query_canceled using message = 'too much at once';
	end if;
	return new;
end
$$
SQL

sub errors
{
	return $node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()');
}

# Evaluations go on, each second or so, while all together is tried at most once more
sub evaluated_apart_ok
{
	my ($name) = @_;
	my $errors = errors();
	my $seen = evaluations($node);

	await(sub { evaluations($node) >= $seen + 3 }, "$name: evaluations");
	cmp_ok(errors() - $errors, '<=', 1, "$name: tenants are evaluated apart, more often than together");
	return;
}

sub set_levels
{
	my ($level) = @_;

	$node->safe_psql('postgres', join '; ', map { "select meshhook_metrics.gauge_set('level', $level, '{}', '$_')" } @tenants);
	return;
}

level_rule($node, 'level', tenant_id => $_) for @tenants;
set_levels(1);
await_evaluation($node);
keep($node, 'create trigger too_much before update on meshhook_metrics.alert_state for each row execute function public.too_much()');

# Until all together is tried eight seconds apart
my $before = errors();
await(sub { errors() >= $before + 4 }, 'evaluations that fail');
evaluated_apart_ok('a failure that goes on');
is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_suspensions'), 0, 'nobody is left alone for it');
await_status($node, "last_error = 'could not evaluate alert rules: too much at once'");
set_levels(50);
await_alerts($node, join ', ', ('level firing') x 3);
pass('what happens is seen');

# None is left out, whatever was
keep($node, 'update meshhook_metrics.alert_state set alerts_left_out = 7');
await_evaluation($node);
is($node->safe_psql('postgres', 'select alerts_left_out from meshhook_metrics.alert_state'), 0, 'how many alerts are left out begins anew each time');

# Somebody evaluates, and takes long for it, until all together has failed for that
my $mark = log_mark($node);
my $holder = session($node);
$holder->query_safe('begin; set local role keeper; select from meshhook_metrics.alert_state for update');
await(sub { log_since($node, $mark) =~ /could not list tenants with alert rules: canceling statement due to lock timeout/ }, 'the worker to wait in vain');
await_status($node, "last_error = 'could not evaluate alert rules: canceling statement due to lock timeout'");
$holder->query_safe('commit');
evaluated_apart_ok('a lock that others had');
is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_suspensions'), 0, 'nor is anybody for that');

$holder->quit;
transitions_ok($node, 'all of this');

$node->stop;
done_testing();
