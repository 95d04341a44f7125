# Evaluations come one after the other, whoever asks for them, so that each change of an
# alert happens once. Who writes rules meanwhile, and keeps them locked, holds none of them
# up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');

# Who keeps the row of a rule locked holds up no evaluation; what there is to write into
# it is written later
{
	my $holder = session($node);
	my $changing = session($node);

	add_rule($node, name => 'wrong', metric => 'wrong_total', aggregate => 'p95', threshold => 1);
	level_rule($node, 'changed');
	level_rule($node, 'deleted');
	level_rule($node, 'other');
	$holder->query_safe(q{begin; select from meshhook_metrics.alert_rules where name = 'wrong' for update});
	$changing->query_safe(<<'SQL');
begin;
update meshhook_metrics.alert_rules set threshold = 100 where name = 'changed';
delete from meshhook_metrics.alert_rules where name = 'deleted';
SQL
	$node->safe_psql('postgres', q{select meshhook_metrics.inc('wrong_total')});
	set_level($node, changed => 50, deleted => 50, other => 50);
	await_alerts($node, 'changed firing, deleted firing, other firing');
	pass('rules are evaluated as they were committed, whoever holds them');
	await_evaluation($node);
	my $why = q{select coalesce(last_error, '') from meshhook_metrics.alert_rules where name = 'wrong'};
	is($node->safe_psql('postgres', $why), '', 'a rule that is held cannot be marked');
	is(keep($node, <<'SQL'), 'other', 'nor can it when the tenant is left alone, which does not wait either');
begin;
set local lock_timeout = '10s';
select from meshhook_metrics.note_alert_failure(now(), '00000000-0000-0000-0000-000000000000', 'tried');
select string_agg(name, ', ') from meshhook_metrics.alert_rules where last_error ~ 'tried$';
rollback;
SQL
	$_->query_safe('commit') for $holder, $changing;
	await(sub { $node->safe_psql('postgres', $why) eq '"wrong_total" is a counter, which has no p95' }, 'the mark');
	pass('and is as soon as it can be');
	await_alerts($node, 'other firing');
	is($node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()'), 0, 'nobody has waited too long');
	transitions_ok($node, 'rules that are held');
	$_->quit for $holder, $changing;
	keep($node, 'delete from meshhook_metrics.alert_rules');
	await_alerts($node, '');
}

# Everybody at the same time
my $mark = log_mark($node);
level_rule($node, 'toggled');
set_level($node, always => 50, toggled => 1);
flush($node);
start_clients($node, 'evaluating', 3, 'select meshhook_metrics.evaluate_alerts();');
start_clients($node, 'writing', 2, <<'SQL');
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window, repeat_interval)
values ('00000000-0000-0000-0000-000000000000', 'rule of :client_id', 'always', 'last', 10, '1 hour', null);
\sleep 100 ms
update meshhook_metrics.alert_rules set threshold = 20 where name = 'rule of :client_id';
\sleep 100 ms
delete from meshhook_metrics.alert_rules where name = 'rule of :client_id';
SQL
start_clients($node, 'holding', 1, <<'SQL');
begin;
select from meshhook_metrics.alert_rules where name = 'toggled' for update;
\sleep 200 ms
commit;
SQL
for my $time (1 .. 3)
{
	for my $level (50, 1)
	{
		set_level($node, toggled => $level);
		flush($node);
		$node->poll_query_until('postgres', "select exists (select from meshhook_metrics.alerts where name = 'toggled')", $level > 10 ? 't' : 'f')
		  or die 'nothing comes of the change';
	}
}
is(end_clients($node), 6, 'those who evaluate, write and hold rules go on to the end');
is(errors_since($node, $mark), '', 'without an error');
is(events_of($node, 'toggled'), join(' ', ('firing resolved') x 3), 'each change of a level is one of its alert');
cmp_ok($node->safe_psql('postgres', q{select count(*) from meshhook_metrics.alert_events where name like 'rule of %'}), '>=', 4,
	'rules that come and go are evaluated');
# What has been deleted since the last of them
await_evaluation($node);
transitions_ok($node, 'everybody at the same time');

# Who asks in a transaction that began before the last evaluation brings nothing of the past
# back
{
	my $late = session($node);

	keep($node, q{delete from meshhook_metrics.alert_rules where name <> 'toggled'});
	await_alerts($node, '');
	my $later = session($node);
	$late->query_safe('begin; set local role keeper; select now()');
	$later->query_safe('begin isolation level repeatable read; set local role keeper; select from meshhook_metrics.alert_state');
	set_level($node, toggled => 50);
	await_alerts($node, 'toggled firing');
	my $alert = q{select state, since, started_at, recovering_since from meshhook_metrics.alerts where name = 'toggled'};
	my $firing = $node->safe_psql('postgres', $alert);
	$late->query_safe('select meshhook_metrics.evaluate_alerts(); commit');
	is($node->safe_psql('postgres', $alert), $firing, 'a transaction that began before something fired lets it fire');
	$later->query('select meshhook_metrics.evaluate_alerts(); rollback');
	like($later->{stderr}, qr/could not serialize access/, 'one that sees what there was then is refused');
	await_evaluation($node);
	is(events_of($node, 'toggled'), join(' ', ('firing resolved') x 3, 'firing'), 'and nothing more has happened');
	$_->quit for $late, $later;
}

transitions_ok($node, 'transactions that began before');

# A rule that is changed in the middle of an evaluation is judged as it was, or as it is: what
# the old one has found is not held against the new threshold
{
	my $evaluating = session($node);
	my $holder = session($node);

	add_rule($node, name => 'wrong', metric => 'wrong_total', aggregate => 'p95', threshold => 1);
	level_rule($node, 'high', threshold => 100);
	set_level($node, high => 50, low => 1);
	await_evaluation($node);
	keep($node, <<'SQL');
create function public.hold() returns trigger
language plpgsql as $$
begin
	if pg_catalog.current_setting('application_name') = 'held' then
		perform pg_catalog.pg_advisory_xact_lock(4711);
	end if;
	return new;
end
$$;
create trigger hold before update of last_error on meshhook_metrics.alert_rules for each row execute function public.hold();
SQL
	$holder->query_safe('select pg_advisory_lock(4711)');
	$evaluating->query_until(qr/evaluating/,
		"set role keeper; set application_name = 'held';\n\\echo evaluating\nselect meshhook_metrics.evaluate_alerts();\n");
	$node->poll_query_until('postgres', q{select exists (select from pg_stat_activity where application_name = 'held' and wait_event = 'advisory')})
	  or die 'the session does not wait';
	keep($node, q{update meshhook_metrics.alert_rules set metric = 'low', threshold = 10 where name = 'high'});
	$holder->query_safe('select pg_advisory_unlock(4711)');
	$evaluating->query_safe('select 1');
	await_evaluation($node);
	is(events_of($node, 'high'), '', 'a rule that is changed in the middle of an evaluation does not fire by mistake');
	$_->quit for $evaluating, $holder;
}

$node->stop;
done_testing();
