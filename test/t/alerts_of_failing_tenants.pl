# A tenant for whom evaluating fails, or takes too long, is left alone by the worker, and says
# so; the others are evaluated as often as ever, apart as long as that is needed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');
my ($bad, $good) = map { "00000000-0000-0000-0000-00000000000$_" } 1, 2;
my $level = 1;

# A trigger stands for what one tenant has that others have not
keep($node, <<'SQL');
create table public.trouble (tenant_id uuid, state text, seconds double precision);
create function public.trouble() returns trigger
language plpgsql as $$
declare
	met public.trouble;
begin
	for met in select * from public.trouble t where t.tenant_id = new.tenant_id and t.state = new.state loop
		if met.seconds is null then
			raise check_violation using message = 'not this one';
		end if;
		perform pg_sleep(met.seconds);
	end loop;
	return new;
end
$$;
create trigger trouble before insert on meshhook_metrics.alert_events for each row execute function public.trouble()
SQL

sub set_levels
{
	my (%of) = @_;

	$node->safe_psql('postgres', join '; ', map { "select meshhook_metrics.gauge_set('level', $of{$_}, '{}', '$_')" } sort keys %of);
	return;
}

# The other tenant's alert comes and goes
sub others_evaluated_ok
{
	my ($name) = @_;

	for (1 .. 2)
	{
		$level = $level > 10 ? 1 : 50;
		set_levels($good => $level);
		flush($node);
		$node->poll_query_until('postgres',
			"select exists (select from meshhook_metrics.alerts where tenant_id = '$good')", $level > 10 ? 't' : 'f')
		  or die "$name: nobody evaluates the others";
	}
	pass("$name: the others are evaluated");
	return;
}

sub suspension
{
	return $node->safe_psql('postgres', 'select tenant_id, failures, error from meshhook_metrics.alert_suspensions');
}

sub await_suspension
{
	my ($error) = @_;

	await(sub { suspension() eq "$bad|1|could not evaluate a tenant's alert rules: $error" }, "a suspension for: $error");
	# It is to last until this test ends it
	keep($node, q{update meshhook_metrics.alert_suspensions set until = until + interval '1 hour'});
	return;
}

# As if its time were over
sub end_suspension
{
	keep($node, 'delete from public.trouble; delete from meshhook_metrics.alert_suspensions');
	return;
}

level_rule($node, 'level', tenant_id => $_) for $bad, $good;
set_levels($bad => 1, $good => 1);
others_evaluated_ok('before any trouble');

# An error
my $mark = log_mark($node);
my $seen = evaluations($node);
keep($node, "insert into public.trouble values ('$bad', 'firing')");
set_levels($bad => 50, $good => 50);
$level = 50;
flush($node);
await_suspension('not this one');
await_alerts($node, 'level firing');
is($node->safe_psql('postgres', 'select tenant_id from meshhook_metrics.alerts'), $good, 'what one tenant has keeps no other from being evaluated');
like($node->safe_psql('postgres', "select last_error from meshhook_metrics.alert_rules where tenant_id = '$bad'"),
	qr/^the rules of this tenant are not evaluated until .* UTC, since evaluating them failed: could not evaluate a tenant's alert rules: not this one$/,
	'its rules say that it is left alone');
await(sub { evaluations($node) > $seen }, 'an evaluation to be counted');
await_status($node, 'last_error is null');
pass('which the worker, who can do its work, does not complain of for ever');
others_evaluated_ok('a tenant that is left alone');
is(suspension(), "$bad|1|could not evaluate a tenant's alert rules: not this one", 'a tenant that is left alone is not tried');
is(join(' ', sort map { /WARNING:  meshhook_metrics (could not .*)/ } split /\n/, log_since($node, $mark)),
	q(could not evaluate a tenant's alert rules: not this one could not evaluate alert rules: not this one), 'the log has each once');
unlike(log_since($node, $mark), qr/can evaluate a tenant's alert rules again/, 'and not that it can, since it did not');
end_suspension();
$node->poll_query_until('postgres', "select count(*) = 1 from meshhook_metrics.alerts where tenant_id = '$bad'") or die 'it is not tried again';
is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_rules where last_error is not null'), 0, 'when it is over its rules are evaluated again');

# What ends is what cannot be written: it waits with the rest, and its rule is not needed for it
keep($node, "insert into public.trouble values ('$bad', 'resolved'); delete from meshhook_metrics.alert_rules where tenant_id = '$bad'");
flush($node);
await_suspension('not this one');
await_status($node, 'last_error is null');
others_evaluated_ok('an alert that cannot end');
await_evaluation($node);
is(suspension(), "$bad|1|could not evaluate a tenant's alert rules: not this one", 'an alert that cannot end is left alone, too');
is($node->safe_psql('postgres', "select state from meshhook_metrics.alerts where tenant_id = '$bad'"), 'firing', 'as it is');
end_suspension();
$node->poll_query_until('postgres', "select count(*) = 0 from meshhook_metrics.alerts where tenant_id = '$bad'") or die 'it does not end';
is($node->safe_psql('postgres', "select string_agg(state || ' ' || reason, ', ' order by id) from meshhook_metrics.alert_events where tenant_id = '$bad'"),
	'firing threshold, resolved deleted', 'until it can, once');

# Longer than all together may take, and than one may take apart
$seen = evaluations($node);
keep($node, "insert into public.trouble values ('$bad', 'firing', 60)");
level_rule($node, 'level', tenant_id => $bad);
await_suspension('it took more than 2000 ms');
await(sub { evaluations($node) > $seen }, 'an evaluation to be counted');
await_status($node, 'last_error is null');
others_evaluated_ok('a tenant that takes too long');
end_suspension();
$node->poll_query_until('postgres', "select count(*) = 1 from meshhook_metrics.alerts where tenant_id = '$bad'") or die 'it is not tried again';

# All together take too long, each apart does not
keep($node, <<'SQL');
insert into public.trouble
select ('00000000-0000-0000-0000-0000000001' || lpad(n::text, 2, '0'))::uuid, 'firing', 0.9
from generate_series(1, 14) n;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window, repeat_interval)
select t.tenant_id, 'level', 'level', 'last', 10, '1 hour', null
from public.trouble t
SQL
$node->safe_psql('postgres', q{select meshhook_metrics.gauge_set('level', 50, '{}', t.tenant_id) from public.trouble t});
my $of_these = q(from meshhook_metrics.alerts where tenant_id::text like '%01__');
$node->poll_query_until('postgres', "select count(*) > 0 $of_these") or die 'none is evaluated';
flush($node);
cmp_ok($node->safe_psql('postgres', "select count(*) $of_these"), '<', 14, 'where all together take too long the worker flushes before all are done');
$node->poll_query_until('postgres', "select count(*) = 14 $of_these") or die 'they are not evaluated';
is(suspension(), '', 'where all together take too long, and each one does not, none is left alone');
await_status($node, 'last_error is null');
await_evaluation($node);
transitions_ok($node, 'all of this');

$node->stop;
done_testing();
