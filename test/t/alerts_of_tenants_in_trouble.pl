# A tenant for whom evaluating fails, takes too long, needs too much memory or waits for rows
# that somebody has locked keeps no other tenant from being evaluated; it is tried again, and
# evaluated when that is over.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use AlertRounds;
use MetricsCluster;
use Test::More;

my $node = new_alert_cluster('main');
my @tenants = map { "00000000-0000-0000-0000-00000000000$_" } 1 .. 5;
my $bad = $tenants[2];
my @good = grep { $_ ne $bad } @tenants;
my $level = 1;

# A trigger stands for what one tenant has that others have not
keep($node, <<'SQL');
create table public.trouble (tenant_id uuid, what text);
create function public.trouble() returns trigger
language plpgsql as $$
declare
	met text;
begin
	for met in select t.what from public.trouble t where t.tenant_id = new.tenant_id loop
		case met
			when 'slow' then perform pg_sleep(3600);
			when 'big' then perform length(repeat('x', 200 * 1024 * 1024));
			when 'strange' then raise undefined_file using message = 'this was not foreseen';
			else raise '%', met using errcode = met;
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
	$node->safe_psql('postgres', 'select ' . join ', ', map { "meshhook_metrics.gauge_set('level', $level, '{}', '$_')" } @tenants);
	return;
}

sub await_change
{
	my ($name, @changing) = @_;
	my $list = join ', ', map { "'$_'" } @changing;
	my $expected = $level > 10 ? @changing : 0;

	await(sub { $node->safe_psql('postgres', "select count(*) from meshhook_metrics.alerts where tenant_id in ($list)") == $expected },
		"$name: these to be evaluated: $list");
	return;
}

sub errors_of_rules
{
	return $node->safe_psql('postgres', q{select string_agg(tenant_id || ' ' || last_error, ', ') from meshhook_metrics.alert_rules where last_error is not null});
}

level_rule($node, 'level', tenant_id => $_) for @tenants;
change_level();
await_change('before any trouble', @tenants);

for my $case (
	[ 'check_violation', 'check_violation' ],
	[ 'slow', 'canceling statement due to statement timeout' ],
	[ 'big', 'out of memory' ])
{
	my ($trouble, $error) = @$case;
	my $mark = log_mark($node);

	keep($node, "insert into public.trouble values ('$bad', '$trouble')");
	change_level();
	await_change($trouble, @good);
	await(sub { errors_of_rules() eq "$bad the rules of this tenant were not evaluated: could not evaluate a tenant's alert rules: $error" }, "$trouble: the rules to say so");
	is($node->safe_psql('postgres', "select count(*) from meshhook_metrics.alerts where tenant_id = '$bad'"), $level > 10 ? 0 : 1, "$trouble: its alerts stay as they are");
	my $seen = evaluations($node);
	change_level();
	await_change("$trouble, later", @good);
	await(sub { evaluations($node) >= $seen + 2 }, "$trouble: rounds of the others");
	await_status($node, 'last_error is null');
	is(scalar(() = log_since($node, $mark) =~ /WARNING: .*could not evaluate a tenant's alert rules: \Q$error\E/g), 1, "$trouble: the log has it once");
	like(log_since($node, $mark), qr/alert rules of tenant $bad/, "$trouble: and whose it was") if $trouble eq 'check_violation';
	keep($node, 'delete from public.trouble');
	change_level();
	await_change("$trouble is over", @tenants);
	await(sub { errors_of_rules() eq '' }, "$trouble is over: no rule to say so");
	is($node->safe_psql('postgres', 'select worker_pid from meshhook_metrics.status()'), worker_pid($node), "$trouble: the worker goes on");
}

# What has been in trouble stays alone, also where it had no rules meanwhile: the others need
# not wait until it is found again
for my $case ([ 'is well meanwhile', 'not_null_violation' ], [ 'has no rules meanwhile', 'exclusion_violation' ])
{
	my ($meanwhile, $error) = @$case;
	my $mark = log_mark($node);

	if ($meanwhile =~ /no rules/)
	{
		keep($node, "delete from meshhook_metrics.alert_rules where tenant_id = '$bad'");
		await(sub { $node->safe_psql('postgres', "select count(*) from meshhook_metrics.alerts where tenant_id = '$bad'") eq '0' }, 'alerts without a rule to end');
		await_evaluation($node);
	}
	keep($node, "insert into public.trouble values ('$bad', '$error')");
	level_rule($node, 'level', tenant_id => $bad) if $meanwhile =~ /no rules/;
	change_level() if $level < 10;
	await_change($meanwhile, @good);
	await(sub { log_since($node, $mark) =~ /could not evaluate a tenant's alert rules: $error/ }, "$meanwhile: it to fail");
	unlike(log_since($node, $mark), qr/could not evaluate alert rules/, "$meanwhile: it fails alone");
	keep($node, 'delete from public.trouble');
	await_change("$meanwhile, and trouble is over", @tenants);
	await_status($node, 'last_error is null');
}

# Rows that somebody has locked, and what is of none of these kinds, wait with status() saying so
for my $case ([ 'locked', 'canceling statement due to lock timeout' ], [ 'strange', 'this was not foreseen' ])
{
	my ($trouble, $error) = @$case;
	my $holder = session($node);

	if ($trouble eq 'locked')
	{
		# A row that changes: it has to be there
		if ($level < 10)
		{
			change_level();
			await_change('an alert', @tenants);
		}
		$holder->query_safe("begin; set local role keeper; select from meshhook_metrics.alerts where tenant_id = '$bad' for update");
	}
	else
	{
		keep($node, "insert into public.trouble values ('$bad', '$trouble')");
	}
	change_level();
	await_change($trouble, @good);
	await_status($node, "last_error = 'could not evaluate a tenant''s alert rules: $error'");
	is(errors_of_rules(), '', "$trouble: no rule is to blame");
	$holder->query_safe('rollback') if $trouble eq 'locked';
	keep($node, 'delete from public.trouble');
	await_change("$trouble is over", @tenants);
	await_status($node, 'last_error is null');
	$holder->quit;
}

# One among many is found by dividing those among whom it is, and no others: 60, 15, 3, 1.
# It may have been tried again since.
my @many = map { sprintf '00000000-0000-0000-0001-%012d', $_ } 1 .. 60 - @tenants;
my ($hidden) = splice @many, 34, 1;
level_rule($node, 'level', tenant_id => $_) for @many, $hidden;
@tenants = (@tenants, @many, $hidden);
change_level();
await_change('of many, before any trouble', @tenants);
change_level();
await_change('of many, before any trouble', @tenants);
keep($node, "insert into public.trouble values ('$hidden', 'check_violation')");
my $errors = $node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()');
change_level();
await(sub { errors_of_rules() =~ /^$hidden [^,]*check_violation$/ }, 'the one of many to be found');
cmp_ok($node->safe_psql('postgres', 'select flush_errors from meshhook_metrics.status()') - $errors, '<=', 5, 'one of many is found in few attempts');
keep($node, 'delete from public.trouble');
await_change('of many, trouble is over', @tenants);
transitions_ok($node, 'all of this');

$node->stop;
done_testing();
