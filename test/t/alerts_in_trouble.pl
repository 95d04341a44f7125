# Whatever is wrong with the tables of alerting, metrics are flushed as ever; status() says
# what is wrong, the log has it once, and when it is mended the alerts go on by themselves.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');
my $rounds = 0;
my $level = 1;
my $changes = 0;

level_rule($node, 'level');
$node->safe_psql('postgres', 'create role stranger');

# Something that is flushed, and a change that the rule has to see
sub record
{
	$rounds++;
	$level = $level > 10 ? 1 : 50;
	$node->safe_psql('postgres', "select meshhook_metrics.inc('calls_total', 3)");
	set_level($node, level => $level);
	return;
}

sub flushed_ok
{
	my ($name) = @_;

	flush($node);
	is(stored_total($node, 'calls_total'), "$rounds|" . 3 * $rounds, "$name: what was recorded is stored, once");
	return;
}

sub evaluated_ok
{
	my ($name) = @_;
	my @way = map { $_ % 2 ? 'firing' : 'resolved' } 1 .. ++$changes;

	await_alerts($node, $level > 10 ? 'level firing' : '');
	is(events_of($node, 'level'), "@way", "$name: what has changed meanwhile is seen");
	return;
}

record();
flushed_ok('before any trouble');
evaluated_ok('before any trouble');

# How each is made, what status() says of it, and how it is mended. The rule and what has
# become of it stay.
for my $trouble (
	[
		'a table that is missing',
		'alter table meshhook_metrics.alert_receivers rename to hidden',
		'table meshhook_metrics.alert_receivers is missing',
		'alter table meshhook_metrics.hidden rename to alert_receivers'
	],
	[
		'a table of another role\'s',
		'alter table meshhook_metrics.alert_events owner to stranger',
		'table meshhook_metrics.alert_events belongs to another role than the storage tables',
		'alter table meshhook_metrics.alert_events owner to keeper'
	],
	[
		'the row of the state deleted',
		'delete from meshhook_metrics.alert_state',
		'meshhook_metrics.alert_state has lost its row',
		'insert into meshhook_metrics.alert_state default values'
	],
	[
		'a trigger that refuses events',
		<<'SQL',
create function public.refuse() returns trigger language plpgsql as $$ begin raise insufficient_privilege using message = 'no more of ' || tg_table_name; end $$;
create trigger refuse before insert on meshhook_metrics.alert_events for each row execute function public.refuse()
SQL
		'no more of alert_events',
		'drop function public.refuse() cascade'
	],
	[
		'a column that is missing',
		'alter table meshhook_metrics.alert_notifications rename payload to cargo',
		'column "payload" of relation "alert_notifications" does not exist',
		'alter table meshhook_metrics.alert_notifications rename cargo to payload'
	],
	[
		'arrays in live that are texts',
		'alter table meshhook_metrics.live alter min type text[]',
		undef,
		'alter table meshhook_metrics.live alter min type double precision[] using min::double precision[]'
	])
{
	my ($name, $make, $error, $mend) = @$trouble;
	my $mark = log_mark($node);

	$node->safe_psql('postgres', "begin; set local lock_timeout = '30s'; $make; commit");
	record();
	flushed_ok($name);
	if (defined $error)
	{
		ok( $node->poll_query_until('postgres', <<"SQL"), "$name: status() says so");
select last_error is not distinct from 'could not evaluate alert rules: ' || '$error'
from meshhook_metrics.status()
SQL
	}
	else
	{
		# What it does not matter for goes on meanwhile
		evaluated_ok($name);
	}
	record();
	record() if defined $error;
	flushed_ok("$name, later");
	my @warnings = log_since($node, $mark) =~ /WARNING: +(.*)/g;
	is(scalar(grep { /could not evaluate alert rules: / } @warnings), defined $error ? 1 : 0, "$name: the log has it once");
	# Where no rules can be evaluated, notifications are sent, or that fails as well
	my $same = $error // 'none';
	# Nor can a minute be closed that ends while the arrays are texts
	@warnings = grep { !/could not close a minute: column "min" is of type/ } @warnings if !defined $error;
	is(join("\n", grep { !/could not (?:evaluate alert rules|send notifications): \Q$same\E/ } @warnings), '', "$name: and nothing else");
	$node->safe_psql('postgres', "begin; set local lock_timeout = '30s'; $mend; commit");
	await_status($node, 'last_error is null');
	evaluated_ok($name);
}
transitions_ok($node, 'all of this');

# No alerting at all: what was there is gone, and the migrations bring it back empty
my $mark = log_mark($node);
# That of the state first, as an evaluation does
keep($node, 'drop table ' . (join ', ', map { "meshhook_metrics.alert$_" } qw(_state s _rules _gaps _events _receivers _notifications)) . ' cascade');
record();
flushed_ok('no alerting');
# But for an evaluation that was waiting for the table when it was dropped
await_status($node, 'last_error is null');
pass('no alerting: that is no error');
install_storage($node, role => 'keeper');
level_rule($node, 'level');
set_level($node, level => 50);
await_alerts($node, 'level firing');
is(scalar(grep { !/could not evaluate alert rules: relation "meshhook_metrics.alert_state" does not exist/ } log_since($node, $mark) =~ /WARNING: +(.*)/g), 0,
	'no alerting: the log says nothing');
transitions_ok($node, 'new tables');

$node->stop;
done_testing();
