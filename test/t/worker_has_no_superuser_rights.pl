# Whatever the owner of the storage tables hangs on them runs with his rights, never
# with the worker's, which is a superuser's process. Where it fails, so does the
# flush: that is reported, and nothing is lost when it is gone.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use OwnersAttempts;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_plain_cluster('main');
my $proof = $node->basedir . '/written_by_the_server';

$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = '1s'
CONF
$node->start;
remember_region($node);
$node->safe_psql('postgres', <<'SQL');
create role keeper login;
create role bystander login;
alter database postgres owner to keeper;
SQL
install_storage($node, role => 'keeper');

# As the owner of the database and the tables
sub keep
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'keeper' ]);
}

prepare_attempts($node, $proof);

my $rounds = 0;

# A series that is known and one that is new
sub record_round
{
	$rounds++;
	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('known_total', 3),
	meshhook_metrics.observe('new_seconds', $rounds, '{"round": $rounds}');
SQL
	return;
}

sub stored_ok
{
	my ($name) = @_;

	is(stored_total($node, 'known_total'), "$rounds|" . 3 * $rounds, "$name: what was recorded is stored, once");
	is(stored_total($node, 'new_seconds'), totals($node, 'new_seconds'), "$name: that of new series, too");
	return;
}

sub upkeep
{
	# A new worker does all that is due at once
	my $worker = worker_pid($node);

	$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
	await_status($node, "worker_pid <> $worker");
	return;
}

record_round();
flush($node);
stored_ok('before any attack');

# Triggers, on each row and on each statement, on all that a flush writes
my @hung;
for my $on (
	[ 'live', 'insert' ], [ 'series', 'insert' ], [ 'flush_state', 'insert' ], [ 'flush_state', 'update' ],
	[ 'rollup_state', 'update' ], [ 'rollup_1m', 'insert' ], [ 'live', 'delete' ])
{
	my ($table, $event) = @$on;

	for my $when (qw(before after))
	{
		for my $level (qw(row statement))
		{
			my $place = "$when $event on $table each $level";
			(my $name = $place) =~ tr/ /_/;

			keep("create trigger $name $when $event on meshhook_metrics.$table for each $level execute function attack.trigger('$place')");
			push @hung, [ $table, $name, $place ];
		}
	}
}
record_round();
flush($node);
stored_ok('triggers');
attempts_fail_ok($node, 'triggers of a flush', map { $_->[2] } grep { $_->[0] =~ /^(?:live|series|flush_state)$/ && $_->[2] !~ /delete|after insert on flush_state each row/ } @hung);

# The same when a minute is closed: its rows are there, of a minute ago, and old ones
keep(<<'SQL');
begin;
alter table meshhook_metrics.live disable trigger all;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select
	tenant_id,
	now() - interval '3 hours',
	seconds,
	series_id,
	array_fill(0::bigint, array[cardinality(series_id)]),
	array_fill(0::double precision, array[cardinality(series_id)])
from meshhook_metrics.live;
alter table meshhook_metrics.live enable trigger all;
commit;
SQL
upkeep();
await(sub { keep(q{select exists (select from attack.attempts where place = 'after delete on live each row')}) eq 't' },
	'the worker to close the minute');
attempts_fail_ok($node, 'triggers of a minute that is closed', map { $_->[2] } grep { $_->[2] =~ /rollup|delete/ } @hung);
keep("drop trigger $_->[1] on meshhook_metrics.$_->[0]") for @hung;
record_round();
flush($node);
stored_ok('without triggers');

# Everything else that can hold an expression
my %attacks = (
	'a default' => [
		"alter table meshhook_metrics.live add column more text default attack.value('a default', 'x'::text)",
		'alter table meshhook_metrics.live drop column more' ],
	'a check' => [
		"alter table meshhook_metrics.live add constraint more check (attack.truth('a check'))",
		'alter table meshhook_metrics.live drop constraint more' ],
	'a domain' => [
		"create domain attack.kind as text check (attack.value('a domain', value) = value); "
		  . 'alter table meshhook_metrics.series alter kind type attack.kind',
		'alter table meshhook_metrics.series alter kind type text; drop domain attack.kind' ],
	'a generated column' => [
		"alter table meshhook_metrics.live add column more uuid generated always as (attack.value('a generated column', tenant_id)) stored",
		'alter table meshhook_metrics.live drop column more' ],
	'an index' => [
		"create index more on meshhook_metrics.live (attack.value('an index', tenant_id))",
		'drop index meshhook_metrics.more' ],
	'an index of series' => [
		"create index more on meshhook_metrics.series (attack.value('an index of series', metric)) where attack.value('an index of series', true)",
		'drop index meshhook_metrics.more' ],
	'a policy' => [
		"create policy more on meshhook_metrics.live using (attack.truth('a policy')) with check (attack.truth('a policy')); "
		  . 'alter table meshhook_metrics.live force row level security',
		'alter table meshhook_metrics.live no force row level security; drop policy more on meshhook_metrics.live' ],
	'a policy of settings' => [
		"create policy more on meshhook_metrics.settings using (attack.truth('a policy of settings')); "
		  . 'alter table meshhook_metrics.settings force row level security; '
		  . "insert into meshhook_metrics.settings values ('max_series', gen_random_uuid(), '5')",
		'alter table meshhook_metrics.settings no force row level security; drop policy more on meshhook_metrics.settings; delete from meshhook_metrics.settings' ],
	'a policy of series' => [
		"create policy more on meshhook_metrics.series using (attack.truth('a policy of series')) with check (true); "
		  . 'alter table meshhook_metrics.series force row level security',
		'alter table meshhook_metrics.series no force row level security; drop policy more on meshhook_metrics.series' ],
	'tenant_ids()' => [
		'create table attack.definition as select pg_get_functiondef(\'meshhook_metrics.tenant_ids()\'::regprocedure) as text; '
		  . 'create or replace function meshhook_metrics.tenant_ids() returns setof uuid language sql volatile as '
		  . "\$\$ select attack.value('tenant_ids()', tenant) from unnest(array['00000000-0000-0000-0000-000000000000']::uuid[]) tenant \$\$; "
		  . 'create policy more on meshhook_metrics.live using (tenant_id in (select meshhook_metrics.tenant_ids())); '
		  . 'alter table meshhook_metrics.live force row level security',
		'alter table meshhook_metrics.live no force row level security; drop policy more on meshhook_metrics.live; '
		  . 'do $$ begin execute (select text from attack.definition); end $$; drop table attack.definition' ],
	'labels_digest()' => [
		'create table attack.definition as select pg_get_functiondef(\'meshhook_metrics.labels_digest(jsonb)\'::regprocedure) as text; '
		  . 'create or replace function meshhook_metrics.labels_digest(labels jsonb) returns bytea language sql immutable strict as '
		  . "\$\$ select attack.value('labels_digest()', sha256(convert_to(labels::text, 'UTF8'))) \$\$",
		'do $$ begin execute (select text from attack.definition); end $$; drop table attack.definition' ],
	'a rule' => [
		"create rule more as on insert to meshhook_metrics.live do also select attack.truth('a rule')",
		'drop rule more on meshhook_metrics.live' ],
	'a view' => [
		'alter table meshhook_metrics.settings rename to hidden; '
		  . "create view meshhook_metrics.settings as select name, tenant_id, value from meshhook_metrics.hidden union all select 'max_series', gen_random_uuid(), '5' where attack.truth('a view')",
		'drop view meshhook_metrics.settings; alter table meshhook_metrics.hidden rename to settings' ],
	'a function with rights of its owner' => [
		"alter table meshhook_metrics.live add constraint more check (attack.defined('a function with rights of its owner'))",
		'alter table meshhook_metrics.live drop constraint more' ]);

for my $place (sort keys %attacks)
{
	my ($hang, $take_away) = @{ $attacks{$place} };

	keep($hang);
	keep('truncate attack.attempts');
	record_round();
	flush($node);
	attempts_fail_ok($node, $place, $place);
	# Before the superuser of this test looks, who would run it as himself
	keep($take_away);
	stored_ok($place);
}

# What is to run when the transaction ends, after the worker has stopped being the
# owner: PostgreSQL refuses it, and so the flush fails, as with any other error
for my $attack (
	[ 'a deferred trigger', q{create constraint trigger more after insert on meshhook_metrics.live initially deferred for each row execute function attack.trigger('a deferred trigger')} ],
	[ 'a deferred trigger of flush_state', q{create constraint trigger more after insert or update on meshhook_metrics.flush_state initially deferred for each row execute function attack.trigger('a deferred trigger of flush_state')}, 'flush_state' ],
	[ 'a trigger that is deferred by another', <<'SQL' ])
create constraint trigger more after insert on meshhook_metrics.live deferrable initially immediate
for each row execute function attack.trigger('a trigger that is deferred by another');
create function attack.defer() returns trigger language plpgsql as $$ begin set constraints all deferred; return new; end $$;
create trigger first before insert on meshhook_metrics.live for each row execute function attack.defer();
SQL
{
	my ($place, $hang, $table) = @$attack;
	my $mark = log_mark($node);

	$table //= 'live';
	keep($hang);
	record_round();
	await_status($node, "last_error = 'could not flush: cannot fire deferred trigger within security-restricted operation'");
	pass("$place: the flush fails, and status() says why");
	record_round();
	is(keep("select count(*) from attack.attempts where place = '$place'"), 0, "$place: it has not run");
	my @logged = log_since($node, $mark) =~ /WARNING:  .*could not flush/g;
	is(scalar @logged, 1, "$place: the log has it once");
	keep("drop trigger more on meshhook_metrics.$table; drop trigger if exists first on meshhook_metrics.live");
	flush($node);
	stored_ok($place);
	unharmed_ok($node, $place);
}

# What fails itself
for my $table (qw(live series flush_state))
{
	keep(<<"SQL");
create or replace function attack.refuse() returns trigger language plpgsql as \$\$ begin raise 'no more of \%', tg_table_name; end \$\$;
create trigger more before insert or update on meshhook_metrics.$table for each statement execute function attack.refuse();
SQL
	record_round();
	my $error = '';
	await(
		sub {
			(undef, undef, $error) = $node->psql('postgres', "\\set VERBOSITY verbose\nselect meshhook_metrics.flush('500 ms')");
			return $error =~ /DETAIL/;
		},
		"a flush to have failed by $table");
	like($error, qr/57014: .*could not flush: no more of $table/s, "a trigger that refuses on $table: flush() says why");
	await_status($node, "last_error = 'could not flush: no more of $table'");
	record_round();
	is(totals($node, 'known_total'), "$rounds|" . 3 * $rounds, "a trigger that refuses on $table: recording goes on");
	keep("drop trigger more on meshhook_metrics.$table");
	flush($node);
	stored_ok("a trigger that refuses on $table");
	await_status($node, 'last_error is null');
}

# Functions and operators of the names that the worker and the functions it calls use,
# where anybody may create, in front of the path as far as the owner can have it so
$node->safe_psql('postgres', 'grant create on schema public to bystander; grant usage on schema attack to bystander; alter database postgres set search_path = public, attack, pg_catalog');
$node->safe_psql('postgres', <<'SQL', extra_params => [ '-U', 'bystander' ]);
create function public.note(what text) returns boolean
language plpgsql as $$
begin
	insert into attack.attempts (place, what, outcome, who, session) values ('planted', what, 'called', current_user, session_user);
	return true;
end
$$;
do $do$
declare
	planted record;
begin
	for planted in
		select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments,
			format_type(p.prorettype, null) as result, p.proretset as many
		from pg_proc p
		where p.pronamespace = 'pg_catalog'::regnamespace
			and p.prokind = 'f'
			and p.proname in (
				'sha256', 'convert_to', 'date_trunc', 'date_bin', 'now', 'clock_timestamp', 'to_char', 'format', 'int8eq', 'uuid_eq',
				'texteq', 'jsonb_eq', 'byteaeq', 'timestamptz_lt', 'to_regclass', 'current_setting', 'array_position', 'age', 'substring')
			and not p.prorettype = any (array['internal', 'anyelement', 'anycompatible']::regtype[])
			and '"any"'::regtype <> all (p.proargtypes::oid[])
	loop
		execute format('create function public.%I(%s) returns %s language plpgsql as $$ begin perform public.note(%L); return null; end $$',
			planted.name, planted.arguments, planted.result, planted.name);
	end loop;
	for planted in
		select o.oprname as name, format_type(o.oprleft, null) as l, format_type(o.oprright, null) as r
		from pg_operator o
		where o.oprnamespace = 'pg_catalog'::regnamespace
			and o.oprresult = 'boolean'::regtype
			and o.oprleft = any (array['bigint', 'uuid', 'text', 'jsonb', 'bytea', 'timestamptz', 'name', 'oid', 'regclass']::regtype[])
			and o.oprright = any (array['bigint', 'uuid', 'text', 'jsonb', 'bytea', 'timestamptz', 'name', 'oid', 'regclass']::regtype[])
	loop
		execute format('create or replace function public.operated(%s, %s) returns boolean language sql as $$ select public.note(%L) $$',
			planted.l, planted.r, 'operator');
		execute format('create operator public.%s (function = public.operated, leftarg = %s, rightarg = %s)', planted.name, planted.l, planted.r);
	end loop;
end
$do$;
create view public.flush_state as select public.note('view') as tick;
create view public.live as select public.note('view') as id;
create view public.new_series as select public.note('view') as number;
create view public.flushed as select public.note('view') as tenant_id;
SQL
{
	# What this test asks itself is not to call them
	local $ENV{PGOPTIONS} = '-c search_path=pg_catalog';

	keep('truncate attack.attempts');
	upkeep();
	record_round();
	flush($node);
	keep('truncate meshhook_metrics.flush_state');
	record_round();
	flush($node);
	is(keep('select string_agg(distinct what, $$, $$) from attack.attempts'), '', 'nothing of a name that the worker uses is called elsewhere');
	{
		local $ENV{PGOPTIONS};
		$node->safe_psql('postgres', q{select 1 where 'live'::text = 'dead'::text}, extra_params => [ '-U', 'bystander' ]);
	}
	is(keep('select string_agg(distinct what, $$, $$) from attack.attempts'), 'operator', 'where the path is that of the database, it is');
	$node->safe_psql('postgres', 'alter database postgres reset search_path; drop owned by bystander');
	upkeep();
}
stored_ok('planted functions');
unharmed_ok($node, 'planted functions');

# Tables whose columns are not what they were make an error, not a crash
my $postmaster = $node->safe_psql('postgres', 'select pg_postmaster_start_time()');
my $mark = log_mark($node);
for my $damage (
	[ 'a quota of nobody', 'alter table meshhook_metrics.settings drop constraint settings_pkey, alter tenant_id drop not null; '
		  . "insert into meshhook_metrics.settings values ('max_series', null, '5')",
		'delete from meshhook_metrics.settings; alter table meshhook_metrics.settings alter tenant_id set not null, add primary key (name, tenant_id)' ],
	[ 'quotas of numbers', 'alter table meshhook_metrics.settings disable trigger all, alter tenant_id drop default, alter tenant_id type bigint using 1; '
		  . "insert into meshhook_metrics.settings values ('max_series', 4711, '5')",
		'delete from meshhook_metrics.settings; alter table meshhook_metrics.settings enable trigger all, '
		  . "alter tenant_id type uuid using '00000000-0000-0000-0000-000000000000', alter tenant_id set default '00000000-0000-0000-0000-000000000000'" ],
	[ 'a quota without a value', 'alter table meshhook_metrics.settings disable trigger all, alter value drop not null; '
		  . "insert into meshhook_metrics.settings values ('max_series', gen_random_uuid(), null)",
		'delete from meshhook_metrics.settings; alter table meshhook_metrics.settings enable trigger all, alter value set not null' ],
	[ 'ids that are texts', q{create table attack.definition as select pg_get_triggerdef(oid) as text from pg_trigger where tgname = 'series_leave'; }
		  . 'drop trigger series_leave on meshhook_metrics.series; '
		  . 'alter table meshhook_metrics.series alter id drop identity; alter table meshhook_metrics.series alter id type text',
		'delete from meshhook_metrics.series where id is null; alter table meshhook_metrics.series alter id type bigint using id::bigint; '
		  . 'alter table meshhook_metrics.series alter id add generated always as identity (start with 1000); '
		  . 'do $$ begin execute (select text from attack.definition); end $$; alter table meshhook_metrics.series enable always trigger series_leave; '
		  . 'drop table attack.definition' ],
	[ 'ids that are null', 'alter table meshhook_metrics.series alter id drop identity, drop constraint series_pkey; alter table meshhook_metrics.series alter id drop not null',
		'delete from meshhook_metrics.series where id is null; alter table meshhook_metrics.series alter id set not null, add primary key (id); '
		  . 'alter table meshhook_metrics.series alter id add generated always as identity (start with 2000)' ],
	[ 'series that are there twice', 'drop index meshhook_metrics.series_key; insert into meshhook_metrics.series (tenant_id, metric, kind, labels) '
		  . q{select '00000000-0000-0000-0000-000000000000', 'new_seconds', 'histogram', jsonb_build_object('round', (} . "%ROUND%" . q{)::text) from generate_series(1, 3)},
		'delete from meshhook_metrics.series s using meshhook_metrics.series t where s.metric = t.metric and s.labels = t.labels and s.id > t.id; '
		  . 'create unique index series_key on meshhook_metrics.series (tenant_id, metric, meshhook_metrics.labels_digest(labels))' ],
	[ 'ticks that are texts', 'drop policy readers_see_how_far_it_is on meshhook_metrics.flush_state; alter table meshhook_metrics.flush_state alter tick type text', 'alter table meshhook_metrics.flush_state alter tick type bigint using tick::bigint' ],
	[ 'times that are texts', 'alter table meshhook_metrics.flush_state alter at type text', 'alter table meshhook_metrics.flush_state alter at type timestamptz using at::timestamptz' ],
	[ 'a state of nulls', 'alter table meshhook_metrics.flush_state alter at drop not null, alter tick drop not null; update meshhook_metrics.flush_state set at = null',
		'update meshhook_metrics.flush_state set at = now() where at is null; alter table meshhook_metrics.flush_state alter at set not null, alter tick set not null' ])
{
	my ($name, $do, $undo) = @$damage;

	# As one transaction, which the worker sees as a whole
	$do =~ s/%ROUND%/$rounds + 1/e;
	keep("begin; $do; commit");
	record_round();
	$node->psql('postgres', q{select meshhook_metrics.flush('1500 ms')});
	unlike(log_since($node, $mark), qr/was terminated by signal|TRAP:|PANIC:/, "$name: the worker goes on");
	last if log_since($node, $mark) =~ /was terminated by signal/;
	keep("begin; $undo; commit");
	flush($node);
	unlike(log_since($node, $mark), qr/was terminated by signal|TRAP:|PANIC:/, "$name: also afterwards");
	await_status($node, 'last_error is null');
	is(stored_total($node, 'known_total'), "$rounds|" . 3 * $rounds, "$name: what was recorded is stored, once");
}

sub await_flushing
{
	$node->poll_query_until('postgres',
		q{select exists (select from pg_stat_activity where backend_type = 'meshhook_metrics worker' and state = 'active' and query = 'flush')})
	  or die 'the worker does not flush';
	return;
}

sub end_worker
{
	my $worker = worker_pid($node);

	return $node->safe_psql('postgres', "select pg_terminate_backend($worker, 20000)");
}

# A trigger that will not end, and does not let itself be cancelled, does not keep the
# server from stopping
keep(<<'SQL');
create function attack.stay() returns trigger
language plpgsql as $$
begin
	loop
		begin
			loop
			end loop;
		exception when query_canceled then
			null;
		end;
	end loop;
end
$$;
create trigger more before insert on meshhook_metrics.live for each row execute function attack.stay();
SQL
record_round();
await_flushing();
is(end_worker(), 't', 'a worker in an endless trigger can be ended');
await_flushing();
ok($node->stop('fast', fail_ok => 1), 'and a server with one stopped') or $node->stop('immediate');
$node->start;
await_flushing();
# Until the next one comes, nobody holds the table
end_worker();
keep('drop trigger more on meshhook_metrics.live');
await_status($node, 'worker_pid is not null');
flush($node);
stored_ok('an endless trigger');

$node->stop;
done_testing();
