# Whatever the owner of the tables hangs on those of alerting, and whatever he puts in the
# place of what an evaluation or a delivery calls, runs with his rights, never with the
# worker's, which is a superuser's process.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use OwnersAttempts;
use Test::More;

my $node = new_alert_cluster('main');
my $tenant = '00000000-0000-0000-0000-000000000000';
my $level = 1;

$node->safe_psql('postgres', 'create role bystander login');
prepare_attempts($node, $node->basedir . '/written_by_the_server');

# pg_net, as far as the worker looks at it, whose functions are the owner's
keep($node, <<"SQL");
create schema net;
create table net.http_request_queue (id bigint);
create table net.responses (id bigint, status_code integer, timed_out boolean, error_msg text);
create view net._http_response as
select * from net.responses where attack.truth('a view of responses');
create sequence net.requests;
create function net.http_post(url text, body jsonb, headers jsonb, timeout_milliseconds integer) returns bigint
language plpgsql as \$\$
declare
	id constant bigint = pg_catalog.nextval('net.requests');
begin
	perform attack.attempt('net.http_post');
	insert into net.responses values (id, 204, false, null);
	return id;
end
\$\$;
insert into meshhook_metrics.alert_receivers values ('$tenant', 'hook', 'https://example.com/hook')
SQL
$node->safe_psql('postgres', <<'SQL');
begin;
set local allow_system_table_mods = on;
insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
values (4711000, 'pg_net', 10, 'net'::regnamespace, false, '1');
alter extension pg_net add function net.http_post(text, jsonb, jsonb, integer);
commit;
SQL

# One that fires and is resolved, and one that cannot be evaluated, which is noted each time
level_rule($node, 'level');
add_rule($node, name => 'wrong', metric => 'calls_total', aggregate => 'p95', threshold => 1);
$node->safe_psql('postgres', q{select meshhook_metrics.inc('calls_total')});

# Everything that evaluations and deliveries write
sub evaluate_and_deliver
{
	for my $next (50, 60, 1)
	{
		set_level($node, level => $next);
		flush($node);
		$node->poll_query_until('postgres', <<"SQL") or die 'the worker does not evaluate';
select case $next
	when 1 then not exists (select from meshhook_metrics.alerts)
	else exists (select from meshhook_metrics.alerts where value = $next)
end
SQL
	}
	# The answers of a delivery are read after the next evaluation
	$node->poll_query_until('postgres', q{select not exists (select from meshhook_metrics.alert_notifications where delivered_at is null)})
	  or die 'the worker does not deliver';
	return;
}

evaluate_and_deliver();
is(events_of($node, 'level'), 'firing resolved', 'before any attack: what happens is seen');
attempts_fail_ok($node, 'before any attack', 'net.http_post', 'a view of responses');

my @hung;
for my $on (
	[ 'alert_state', 'update' ], [ 'alert_rules', 'update' ],
	[ 'alerts', 'insert' ], [ 'alerts', 'update' ], [ 'alerts', 'delete' ],
	[ 'alert_events', 'insert' ], [ 'alert_notifications', 'insert' ], [ 'alert_notifications', 'update' ])
{
	my ($table, $event) = @$on;

	for my $when (qw(before after))
	{
		for my $each (qw(row statement))
		{
			my $place = "$when $event on $table each $each";
			(my $name = $place) =~ tr/ /_/;

			keep($node, "create trigger $name $when $event on meshhook_metrics.$table for each $each execute function attack.trigger('$place')");
			push @hung, [ $table, $name, $place ];
		}
	}
}
evaluate_and_deliver();
attempts_fail_ok($node, 'triggers', map { $_->[2] } @hung);
keep($node, join '; ', map { "drop trigger $_->[1] on meshhook_metrics.$_->[0]" } @hung);
is(events_of($node, 'level'), 'firing resolved firing resolved', 'triggers: what happens is seen');
is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), '', 'triggers: and nothing has failed');

# Everything else that can hold an expression, all of it at once
my %attacks = (
	'a policy of alert_rules' => [
		"create policy more on meshhook_metrics.alert_rules as restrictive using (attack.truth('a policy of alert_rules')); "
		  . 'alter table meshhook_metrics.alert_rules force row level security',
		'alter table meshhook_metrics.alert_rules no force row level security; drop policy more on meshhook_metrics.alert_rules' ],
	'tenant_ids()' => [
		'create table attack.definition as select pg_get_functiondef(\'meshhook_metrics.tenant_ids()\'::regprocedure) as text; '
		  . 'create or replace function meshhook_metrics.tenant_ids() returns setof uuid language sql volatile as '
		  . "\$\$ select attack.value('tenant_ids()', '$tenant'::uuid) \$\$; "
		  . 'create policy more on meshhook_metrics.alerts using (true) with check (tenant_id in (select meshhook_metrics.tenant_ids())); '
		  . 'alter table meshhook_metrics.alerts force row level security',
		'alter table meshhook_metrics.alerts no force row level security; drop policy more on meshhook_metrics.alerts; '
		  . 'do $$ begin execute (select text from attack.definition); end $$; drop table attack.definition' ],
	'a default' => [
		"alter table meshhook_metrics.alert_notifications add column more text default attack.value('a default', 'x'::text)",
		'alter table meshhook_metrics.alert_notifications drop column more' ],
	'a check' => [
		"alter table meshhook_metrics.alert_events add constraint more check (attack.truth('a check'))",
		'alter table meshhook_metrics.alert_events drop constraint more' ],
	'a generated column' => [
		"alter table meshhook_metrics.alerts add column more uuid generated always as (attack.value('a generated column', tenant_id)) stored",
		'alter table meshhook_metrics.alerts drop column more' ],
	'an index' => [
		"create index more on meshhook_metrics.alert_state (attack.value('an index', evaluated_at))",
		'drop index meshhook_metrics.more' ],
	'a rule' => [
		"create rule more as on update to meshhook_metrics.alert_state do also select attack.truth('a rule')",
		'drop rule more on meshhook_metrics.alert_state' ],
	'a view' => [
		'alter table meshhook_metrics.alert_receivers rename to hidden; '
		  . "create view meshhook_metrics.alert_receivers as select * from meshhook_metrics.hidden where attack.truth('a view')",
		'drop view meshhook_metrics.alert_receivers; alter table meshhook_metrics.hidden rename to alert_receivers' ],
	'a function with rights of its owner' => [
		"alter table meshhook_metrics.alert_events add constraint own check (attack.defined('a function with rights of its owner'))",
		'alter table meshhook_metrics.alert_events drop constraint own' ]);

# As one transaction, which the worker sees as a whole
my $begin = 'begin; lock table meshhook_metrics.alert_state in access exclusive mode';
keep($node, join '; ', $begin, map({ $attacks{$_}[0] } sort keys %attacks), 'truncate attack.attempts', 'commit');
evaluate_and_deliver();
attempts_fail_ok($node, 'expressions', keys %attacks);
keep($node, join '; ', $begin, map({ $attacks{$_}[1] } sort keys %attacks), 'commit');
is(events_of($node, 'level'), join(' ', ('firing resolved') x 3), 'expressions: what happens is seen');
is($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'), '', 'expressions: and nothing has failed');

# What is to run when the transaction ends, when the worker is itself again: PostgreSQL
# refuses it, and so nothing is evaluated
keep($node, q{create constraint trigger more after insert on meshhook_metrics.alert_events initially deferred for each row execute function attack.trigger('a deferred trigger')});
set_level($node, level => 50);
await_status($node, "last_error = 'could not evaluate alert rules: cannot fire deferred trigger within security-restricted operation'");
is(keep($node, q{select count(*) from attack.attempts where place = 'a deferred trigger'}), 0, 'a deferred trigger does not run');
keep($node, 'drop trigger more on meshhook_metrics.alert_events');
await_alerts($node, 'level firing');
await_status($node, 'last_error is null');
unharmed_ok($node, 'a deferred trigger');
transitions_ok($node, 'all of this');

$node->stop;
done_testing();
