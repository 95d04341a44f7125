# What some tenants' evaluations wait for in vain, or else meet that is not of their own making,
# keeps no other tenant from being evaluated, nor is one left alone for it; where nobody can be
# evaluated that does not count as an evaluation.

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
my $watcher = session($node);
# It lasts for longer than a session may by itself
$_->set_query_timer_restart for $holder, $watcher;

my $level = 1;
my $mark;
my $errors;
my $seen;

# What a tenant meets is in a table; whoever locks it keeps the tenant waiting
$node->safe_psql('postgres', 'grant pg_read_all_stats to keeper; grant usage on schema mhm_probe to keeper');
keep($node, <<'SQL');
create table public.trouble (tenant_id uuid, met text);
create function public.trouble() returns trigger
language plpgsql as $$
declare
	met text;
	apart boolean;
begin
	for met, apart in
		select t.met, a.query = 'evaluate a tenant''s alert rules'
		from public.trouble t
		left join pg_stat_activity a
			on a.pid = pg_backend_pid()
		where t.tenant_id = new.tenant_id
	loop
		case met
			when 'lock' then
				lock table public.trouble in share mode;
			-- In all for longer than a tenant's own time, and then it goes on
			when 'locks' then
				for attempt in 1 .. case when apart then 25 else 1 end loop
					begin
						lock table public.trouble in share mode;
					exception when lock_not_available then
						null;
					end;
				end loop;
			when 'stop' then
				if apart then
					perform mhm_probe.stop();
				end if;
			when 'unforeseen' then
				if apart then
					raise 'this was not foreseen';
				end if;
			else
				raise '%', met using errcode = met;
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
	# In one statement, so that all change at once
	ask('select ' . join ', ', map { "meshhook_metrics.gauge_set('level', $level, '{}', '$_')" } @tenants);
	return;
}

# Of a session that is there: this test looks for changes most of its time
sub ask
{
	my ($sql) = @_;

	return $watcher->query_safe($sql);
}

sub await_status_is
{
	my ($condition) = @_;

	await(sub { ask("select $condition from meshhook_metrics.status()") eq 't' }, "status() to say: $condition");
	return;
}

sub counted
{
	my ($what) = @_;

	return ask("select (regexp_match(meshhook_metrics.prometheus(), '\\nmeshhook_metrics_$what (\\S+)'))[1]");
}

# Wait until all of these tenants' alerts have changed
sub await_change
{
	my ($name, @changing) = @_;
	my $list = join ', ', map { "'$_'" } @changing;

	await(
		sub {
			ask("select count(*) from meshhook_metrics.alerts where tenant_id in ($list)") == ($level > 10 ? @changing : 0);
		},
		"$name: these to be evaluated: $list");
	return;
}

sub errors
{
	return ask('select flush_errors from meshhook_metrics.status()');
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
	await_status_is('last_error is null');
	is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_suspensions'), 0, "$name: no tenant is left alone for it");
	return;
}

level_rule($node, 'level', tenant_id => $_) for @tenants;
change_level();
await_change('no trouble', @tenants);

# Rows that somebody has locked: all together wait for them in vain, and each other tenant does
# not; what the log has of this is no reason not to have it of the next time
for my $locked (1, 0)
{
	$mark = log_mark($node);
	$holder->query_safe("begin; set local role keeper; select from meshhook_metrics.alerts where tenant_id = '$tenants[$locked]' for update");
	change_level();
	await_change('rows that are locked', grep { $_ ne $tenants[$locked] } @tenants);
	$seen = counted('alert_evaluations_total');
	await(sub { counted('alert_evaluations_total') >= $seen + 2 }, 'evaluations without it to be counted');
	is($node->safe_psql('postgres', 'select tenant_id from meshhook_metrics.alerts'), $tenants[$locked], q(rows that are locked are no other tenant's trouble));
	is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), 'could not evaluate alert rules: canceling statement due to lock timeout',
		'status() says that not all is well');
	is(logged('WARNING: .*could not evaluate alert rules: canceling statement due to lock timeout'), 1, 'the log has it once');
	is(logged(q(WARNING: .*could not evaluate a tenant's alert rules: canceling statement due to lock timeout)), 1,
		'and of the tenant, whom it has waited for again and again');
	is(logged("alert rules of tenant $tenants[$locked]"), 1, 'it says which one that is');
	end_trouble('rows that are locked', @tenants);
	change_level();
	await_change('no trouble', @tenants);
}

# Of two at the beginning or the end of the list these may be the first that are tried. Memory
# that is used up is so by others, unless one is the only one who does not find any.
for my $case ([ 'lock', 0, 1 ], [ 'lock', 1, 2 ], [ 'deadlock_detected', 0, 1 ], [ 'out_of_memory', 1, 2 ])
{
	my ($met, @in_trouble) = @$case;
	my %in_trouble = map { $_ => $met } @tenants[@in_trouble];
	my $name = "$met of two of three";

	begin_trouble(%in_trouble);
	await_change($name, grep { !$in_trouble{$_} } @tenants);
	# All together, and each of both
	await_status_is("flush_errors >= $errors + 3");
	is($node->safe_psql('postgres', q(select string_agg(distinct tenant_id::text, ' ' order by tenant_id::text) from meshhook_metrics.alerts)),
		join(' ', grep { $level > 10 xor $in_trouble{$_} } @tenants), "$name: the others are evaluated");
	end_trouble($name, @tenants);
}

# Each meets something else: the log has each once, and not by turns
$mark = log_mark($node);
begin_trouble($tenants[0] => 'deadlock_detected', $tenants[1] => 'lock', $tenants[2] => 'out_of_memory');
await_status_is("flush_errors >= $errors + 10");
is(logged("WARNING: .*could not evaluate a tenant's alert rules: $_"), 1, "the log has it once: $_")
  for 'deadlock_detected', 'out_of_memory', 'canceling statement due to lock timeout';
is(logged(q(can evaluate a tenant's alert rules again)), 0, q(and does not take one tenant's success for another's));
end_trouble('each meets something else', @tenants);

# What is none of these, and is met on the way, is waited for, and ends no round: whoever is
# tried first, one of these is tried after it
$mark = log_mark($node);
for my $case ([ 0, 2 ], [ 2, 0 ])
{
	my ($in_trouble, $other) = @tenants[@$case];

	begin_trouble($in_trouble => 'deadlock_detected', $tenants[1] => 'unforeseen');
	await_change('something unforeseen', $other);
	await_status_is("flush_errors >= $errors + 3");
	end_trouble('something unforeseen', @tenants);
}
is(logged(q(WARNING: .*could not evaluate a tenant's alert rules: this was not foreseen)), 2, 'what is met on the way keeps those behind it from nothing');
is(logged(q(can evaluate a tenant's alert rules again)), 0, q(and another's success is not the end of it));

# Many locks that a tenant waits for, none of them long
begin_trouble($tenants[0] => 'deadlock_detected', $tenants[1] => 'locks');
await_change('many locks', @tenants[1, 2]);
end_trouble('many locks', @tenants);

# A worker that is stopped for longer than a tenant's time, in the middle of it
my $worker = worker_pid($node);
begin_trouble($tenants[0] => 'deadlock_detected', $tenants[1] => 'stop');
await_stopped($worker);
keep($node, "delete from public.trouble where met = 'stop'");
usleep(2_500_000);
kill 'CONT', $worker;
await_change('a worker that is stopped', @tenants[1, 2]);
is(worker_pid($node), $worker, 'a worker that is stopped goes on');
end_trouble('time in which the worker does not run', @tenants);

# Many who are waited for do not make the others wait for long
my @many = map { sprintf '00000000-0000-0000-0000-0000000001%02d', $_ } 1 .. 40;
keep($node, "insert into public.trouble select t.id, 'lock' from unnest('{@{[ join ', ', @many ]}}'::uuid[]) t (id)");
level_rule($node, 'level', tenant_id => $_) for @many;
@tenants = (@tenants, @many);
$holder->query_safe('begin; lock table public.trouble in row exclusive mode');
$level = 1;
change_level();
await_change('many who are waited for', @tenants[0 .. 2]);
# The first may have been together
$seen = counted('alert_evaluations_total');
await(sub { counted('alert_evaluations_total') > $seen }, 'a round to be counted');
my $flushes = counted('flushes_total');
await(sub { counted('alert_evaluations_total') >= $seen + 2 }, 'a whole round to be counted');
cmp_ok(counted('flushes_total') - $flushes, '<', 35, 'forty tenants who are waited for do not make the others wait as often for a flush');
end_trouble('many who are waited for', @tenants);
keep($node, q(delete from meshhook_metrics.alert_rules where tenant_id::text like '%01__'));
splice @tenants, 3;
await(sub { ask(q(select count(*) from meshhook_metrics.alerts where tenant_id::text like '%01__')) == 0 }, 'alerts of rules that are no more to end');

# Nobody can be evaluated: who is left alone does not count
keep($node, "delete from meshhook_metrics.alert_rules where tenant_id = '$tenants[2]'");
keep($node, "insert into meshhook_metrics.alert_suspensions (tenant_id, until, failures, error) values ('$tenants[0]', now() + interval '1 hour', 1, 'a test')");
await_evaluation($node);
begin_trouble($tenants[1] => 'lock');
await_status_is("flush_errors >= $errors + 2");
$seen = counted('alert_evaluations_total');
await_status_is("flush_errors >= $errors + 5");
is(counted('alert_evaluations_total'), $seen, 'where nobody can be evaluated that does not count as an evaluation');
keep($node, 'delete from meshhook_metrics.alert_suspensions');
end_trouble('nobody can be evaluated', $tenants[1]);

# A worker that is ended while it lists the tenants has not evaluated any; the next one does
sub await_listing
{
	my $listing = q(select count(*) from pg_stat_activity
		where backend_type = 'meshhook_metrics worker' and wait_event_type = 'Lock' and query = 'list tenants with alert rules');

	await(sub { ask($listing) == 1 }, 'the worker to wait while it lists the tenants');
	return;
}

begin_trouble($tenants[1] => 'deadlock_detected');
$holder->query_safe('lock table meshhook_metrics.alert_suspensions');
await_listing();
$worker = worker_pid($node);
$seen = counted('alert_evaluations_total');
ask("select pg_terminate_backend($worker)");
await_status_is("worker_pid <> $worker");
await_listing();
is(counted('alert_evaluations_total'), $seen, 'what is ended before the tenants are known does not count as an evaluation');
end_trouble('ended while tenants are listed', @tenants[0, 1]);

transitions_ok($node, 'all of this');

# Where there are no tables any more nothing is wrong with what cannot be done
begin_trouble($tenants[1] => 'deadlock_detected');
await_status_is("flush_errors >= $errors + 2 and last_error is not null");
keep($node, <<'SQL');
do $$
declare
	storage regclass;
begin
	-- In this order, as an evaluation does
	lock table meshhook_metrics.alert_state, meshhook_metrics.flush_state in access exclusive mode;
	for storage in select oid::regclass from pg_class where relnamespace = 'meshhook_metrics'::regnamespace and relkind in ('r', 'p') and not relispartition loop
		execute format('drop table %s cascade', storage);
	end loop;
end
$$
SQL
await_status_is('last_error is null');
pass('where there are no tables any more nothing is wrong with what cannot be done');

$_->quit for $holder, $watcher;
$node->stop;
done_testing();
