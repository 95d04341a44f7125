# What some tenants' evaluations wait for in vain, or are in a deadlock with, keeps no other
# tenant from being evaluated, nor is one left alone for it; where nobody can be evaluated that
# does not count as an evaluation.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use FlushRounds;
use MetricsCluster;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_alert_cluster('main', probe => 1);
my @tenants = map { "00000000-0000-0000-0000-00000000000$_" } 1 .. 3;
my $holder = session($node);
my $level = 1;
my $mark = log_mark($node);
my $errors;
my $seen;

# What a tenant meets is in a table; whoever locks it keeps the tenant waiting, with a good part
# of its own time gone
$node->safe_psql('postgres', 'grant pg_read_all_stats to keeper; grant usage on schema mhm_probe to keeper');
keep($node, <<'SQL');
create table public.trouble (tenant_id uuid, met text);
create function public.trouble() returns trigger
language plpgsql as $$
declare
	met text;
begin
	for met in select t.met from public.trouble t where t.tenant_id = new.tenant_id loop
		case met
			when 'lock' then
				perform pg_sleep(1);
				lock table public.trouble in share mode;
			when 'deadlock' then
				raise deadlock_detected using message = 'a deadlock';
			when 'stop' then
				perform mhm_probe.stop()
				from pg_stat_activity a
				where a.pid = pg_backend_pid()
					and a.query = 'evaluate a tenant''s alert rules';
		end case;
	end loop;
	return new;
end
$$;
create trigger trouble before insert on meshhook_metrics.alert_events for each row execute function public.trouble()
SQL

# Of all tenants, so that all alerts are to fire, or to be resolved
sub change_level
{
	$level = $level > 10 ? 1 : 50;
	$node->safe_psql('postgres', join '; ', map { "select meshhook_metrics.gauge_set('level', $level, '{}', '$_')" } @tenants);
	return;
}

# Wait until all of these tenants' alerts have changed
sub await_change
{
	my ($name, @changing) = @_;
	my $list = join ', ', map { "'$_'" } @changing;

	$node->poll_query_until('postgres',
		"select count(*) = @{[ $level > 10 ? scalar @changing : 0 ]} from meshhook_metrics.alerts where tenant_id in ($list)")
	  or die "$name: these are not evaluated: $list";
	return;
}

sub errors
{
	return $node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()');
}

# How often the log has this
sub logged
{
	my ($message) = @_;

	return scalar(() = log_since($node, $mark) =~ /$message/g);
}

sub begin_trouble
{
	my (%met) = @_;

	$errors = errors();
	keep($node, join '; ', map { "insert into public.trouble values ('$_', '$met{$_}')" } sort keys %met);
	$holder->query_safe('begin; lock table public.trouble in row exclusive mode');
	change_level();
	return;
}

# What failed for the trouble is done then
sub end_trouble
{
	my ($name, @involved) = @_;

	keep($node, 'delete from public.trouble');
	$holder->query_safe('commit');
	await_change($name, @involved);
	is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_suspensions'), 0, "$name: no tenant is left alone for it");
	return;
}

level_rule($node, 'level', tenant_id => $_) for @tenants;
change_level();
await_change('no trouble', @tenants);

# Rows that somebody has locked: all together wait for them in vain, and each other tenant does not
$holder->query_safe("begin; set local role keeper; select from meshhook_metrics.alerts where tenant_id = '$tenants[1]' for update");
change_level();
await_change('rows that are locked', @tenants[0, 2]);
$seen = evaluations($node);
await(sub { evaluations($node) >= $seen + 3 }, 'evaluations without it to be counted');
is($node->safe_psql('postgres', 'select tenant_id from meshhook_metrics.alerts'), $tenants[1], q(rows that are locked are no other tenant's trouble));
is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), 'could not evaluate alert rules: canceling statement due to lock timeout',
	'status() says that not all is well');
is(logged('WARNING: .*could not evaluate alert rules: canceling statement due to lock timeout'), 1, 'the log has it once');
is(logged(q(WARNING: .*could not evaluate a tenant's alert rules: canceling statement due to lock timeout)), 1, 'and of the tenant, whom it has waited for again and again');
is(logged("alert rules of tenant $tenants[1]"), 1, 'it says which one that is');
end_trouble('rows that are locked', @tenants);

# Of two at the beginning or the end of the list these may be the first that are tried
for my $case ([ 'lock', 0, 1 ], [ 'lock', 1, 2 ], [ 'deadlock', 0, 1 ], [ 'deadlock', 1, 2 ])
{
	my ($met, @in_trouble) = @$case;
	my %in_trouble = map { $_ => $met } @tenants[@in_trouble];
	my $name = "$met of two of three";

	begin_trouble(%in_trouble);
	await_change($name, grep { !$in_trouble{$_} } @tenants);
	# All together, and each of both
	await_status($node, "flush_errors >= $errors + 3");
	is($node->safe_psql('postgres', q(select string_agg(distinct tenant_id::text, ' ' order by tenant_id::text) from meshhook_metrics.alerts)),
		join(' ', grep { $level > 10 xor $in_trouble{$_} } @tenants), "$name: the others are evaluated");
	end_trouble($name, @tenants);
}

# A worker that is stopped for longer than a tenant's time, in the middle of it
my $worker = worker_pid($node);
begin_trouble($tenants[0] => 'deadlock', $tenants[1] => 'stop');
await_stopped($worker);
keep($node, "delete from public.trouble where met = 'stop'");
usleep(2_500_000);
kill 'CONT', $worker;
await_change('a worker that is stopped', @tenants[1, 2]);
is(worker_pid($node), $worker, 'a worker that is stopped goes on');
end_trouble('time in which the worker does not run', @tenants);

# Nobody can be evaluated
keep($node, "delete from meshhook_metrics.alert_rules where tenant_id <> '$tenants[1]'");
await_evaluation($node);
begin_trouble($tenants[1] => 'lock');
await_status($node, "flush_errors >= $errors + 2");
$seen = evaluations($node);
await_status($node, "flush_errors >= $errors + 5");
is(evaluations($node), $seen, 'where nobody can be evaluated that does not count as an evaluation');
end_trouble('nobody can be evaluated', $tenants[1]);
await_status($node, 'last_error is null');
transitions_ok($node, 'all of this');
is(logged(q(WARNING: .*could not evaluate a tenant's alert rules: )), 3, 'the log has each in turn once');
is(logged(q(can evaluate a tenant's alert rules again)), 0, q(and does not take one tenant's success for another's));

$holder->quit;
$node->stop;
done_testing();
