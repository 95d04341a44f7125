# What the owner of the storage tables tries where code of his runs in the worker's process, or
# in anybody's who works for him: to have more rights than his own, and to leave something
# behind for the next transaction.

package OwnersAttempts;

use strict;
use warnings;

use Exporter 'import';
use Test::More;

our @EXPORT = qw(prepare_attempts attempts_fail_ok unharmed_ok);

my $proof;

sub keep
{
	my ($node, $sql) = @_;

	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', 'keeper' ]);
}

# As keeper, who owns the database and the tables: schema attack, with trigger(place) and the
# like, that make all attempts. The last argument is a file that the server must not write.
# "allowed" is what the owner may do, all else must fail.
sub prepare_attempts
{
	my ($node, $file) = @_;

	$proof = $file;
	keep($node, <<"SQL");
create schema attack;
create table attack.attempts (place text, what text, outcome text, who name, session name, path text, at timestamptz default clock_timestamp(), begun timestamptz default now());
create table attack.statements (what text, statement text);
insert into attack.statements values
	('become a superuser', 'alter role keeper superuser'),
	('make a superuser', 'create role risen superuser'),
	('make a role', 'create role risen'),
	('join the superuser', 'grant postgres to keeper'),
	('join who may run programs', 'grant pg_execute_server_program to keeper'),
	('run a program', \$x\$ copy (select 1) to program 'touch $proof' \$x\$),
	('write a file', \$x\$ copy (select 1) to '$proof' \$x\$),
	('read a file', \$x\$ select pg_catalog.pg_read_file('PG_VERSION') \$x\$),
	('list files', \$x\$ select pg_catalog.pg_ls_dir('.') \$x\$),
	('import a file', \$x\$ select pg_catalog.lo_import('PG_VERSION') \$x\$),
	('read passwords', 'select rolpassword from pg_catalog.pg_authid'),
	('write to the catalogue', 'update pg_catalog.pg_authid set rolsuper = true'),
	('change functions in the catalogue', 'update pg_catalog.pg_proc set prosecdef = true'),
	('be the superuser', 'set role postgres'),
	('be the superuser for a while', 'set local role postgres'),
	('be nobody in particular', 'set role none'),
	('be the session''s user', 'reset role'),
	('be another session''s user', 'set session authorization bystander'),
	('be the session''s user again', 'reset session authorization'),
	('be the default', 'set session authorization default'),
	('be the superuser by a function', \$x\$ select pg_catalog.set_config('role', 'postgres', false) \$x\$),
	('be none by a function', \$x\$ select pg_catalog.set_config('role', 'none', true) \$x\$),
	('be another by a function', \$x\$ select pg_catalog.set_config('session_authorization', 'postgres', false) \$x\$),
	('be called a superuser', \$x\$ select pg_catalog.set_config('is_superuser', 'on', false) \$x\$),
	('write system tables', 'set allow_system_table_mods = on'),
	('have no triggers', 'set session_replication_role = replica'),
	('log nothing', 'set log_min_messages = panic'),
	('load a library', \$x\$ load 'auto_explain' \$x\$),
	('write in C', \$x\$ create function attack.c() returns integer language c as 'meshhook_metrics', 'mhm_status' \$x\$),
	('change the extension', 'alter function meshhook_metrics.close_minutes(timestamptz) security definer'),
	('give a function away', 'create function attack.gift() returns integer language sql security definer as \$\$ select 1 \$\$; alter function attack.gift() owner to postgres'),
	('install a library', 'create extension mhm_probe'),
	('end a session of the superuser', 'select pg_catalog.pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity a where a.usename = ''postgres'' and a.pid <> pg_catalog.pg_backend_pid()'),
	('commit', 'commit'),
	('prepare for later', 'prepare later as select 1'),
	('keep a cursor', 'declare later cursor with hold for select 1'),
	('listen', 'listen later'),
	('keep a temporary table', 'create temporary table unnest (a integer)'),
	('keep a temporary function', 'create function pg_temp.unnest(bigint[]) returns setof bigint language sql as \$\$ select 1 \$\$'),
	('hand on a setting', \$x\$ select pg_catalog.set_config('attack.handed_on', 'yes', false) \$x\$),
	('hand on a path', \$x\$ select pg_catalog.set_config('search_path', 'attack, public', false) \$x\$),
	('defer', 'set constraints all deferred');

create function attack.attempt(place text) returns void
language plpgsql as \$\$
declare
	this record;
	outcome text;
begin
	-- Once in each transaction is enough, and where these run themselves not at all
	if coalesce(current_setting('attack.running', true), '') <> ''
		or exists (select from attack.attempts a where a.place = attempt.place and a.what = 'nothing' and a.at >= now())
	then
		return;
	end if;
	insert into attack.attempts values (place, 'nothing', 'handed on: ' || coalesce(current_setting('attack.handed_on', true), ''),
		current_user, session_user, current_setting('search_path'));
	perform set_config('attack.running', 'yes', true);
	for this in select * from attack.statements loop
		begin
			execute this.statement;
			outcome := 'succeeded';
		exception when others then
			outcome := sqlstate || ' ' || sqlerrm;
		end;
		insert into attack.attempts values (place, this.what, outcome, current_user, session_user, current_setting('search_path'));
	end loop;
	perform set_config('attack.running', '', true);
end
\$\$;
create function attack.trigger() returns trigger
language plpgsql as \$\$
begin
	perform attack.attempt(tg_argv[0]);
	return case when tg_op = 'DELETE' then old else new end;
end
\$\$;
-- The same for a value, which does not change
create function attack.value(place text, given anyelement) returns anyelement
language plpgsql immutable as \$\$
begin
	perform attack.attempt(place);
	return given;
end
\$\$;
create function attack.truth(place text) returns boolean
language plpgsql as \$\$
begin
	perform attack.attempt(place);
	return true;
end
\$\$;
create function attack.defined(place text) returns boolean
language plpgsql security definer as \$\$
begin
	perform attack.attempt(place);
	return true;
end
\$\$;
-- Whoever it runs as can say so
grant usage on schema attack to public;
grant all on all tables in schema attack to public;
SQL
	return;
}

# What the superuser has to be seen to have lost, were an attempt to succeed
sub unharmed_ok
{
	my ($node, $name) = @_;

	is($node->safe_psql('postgres', <<'SQL'), "postgres||f|keeper", "$name: roles and owners are who they were");
select
	(select string_agg(rolname, ' ') from pg_roles where rolsuper),
	(select string_agg(roleid::regrole::text, ' ') from pg_auth_members where member in ('keeper'::regrole, 'bystander'::regrole)),
	exists (select from pg_roles where rolname = 'risen'),
	(select relowner::regrole from pg_class where oid = 'meshhook_metrics.live'::regclass)
SQL
	ok(!-e $proof, "$name: nothing was written by the server");
	return;
}

# Every attempt of these places was made, as the owner, and has failed
sub attempts_fail_ok
{
	my ($node, $name, @places) = @_;
	my $list = join ', ', map { "'$_'" } @places;

	is(keep($node, "select string_agg(distinct place, ', ' order by place) from attack.attempts where place in ($list)"),
		join(', ', sort @places), "$name: it ran");
	is(keep($node, 'select count(*) from attack.attempts where who <> \'keeper\''), 0, "$name: always as the owner of the tables");
	is(keep($node, <<'SQL'), '', "$name: all it tried beyond the owner's rights has failed");
select distinct concat_ws(' | ', place, what, outcome)
from attack.attempts
where outcome !~ '^(42501|2D000|0A000|55P02|25001)'
	and what not in ('nothing', 'defer', 'hand on a setting', 'hand on a path', 'keep a temporary function', 'end a session of the superuser')
SQL
	is(keep($node, <<'SQL'), '', "$name: nothing was handed on to the worker's next transaction");
select distinct concat_ws(' | ', first.place, first.outcome, first.path)
from (
	select distinct on (begun) *
	from attack.attempts
	where what = 'nothing'
	order by begun, at
) first
where first.outcome <> 'handed on: '
	or first.path ~ 'attack|public'
SQL
	unharmed_ok($node, $name);
	keep($node, 'truncate attack.attempts');
	return;
}

1;
