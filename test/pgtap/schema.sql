-- The extension is not created in a schema that somebody prepared for it
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
select no_plan();
drop extension meshhook_metrics;
drop schema meshhook_metrics;
create role regress_stranger nologin;
create role regress_owner nologin;
do $$begin execute format('grant create on database %I to regress_stranger, regress_owner', current_database()); end$$;

-- A schema of somebody else's
savepoint before;
create schema meshhook_metrics authorization regress_stranger;
select throws_ok('create extension meshhook_metrics', '42501',
	'schema "meshhook_metrics" belongs to regress_stranger, who could put functions of its own among the extension''s',
	'a superuser does not fall for it');
select throws_ok('set local role regress_owner; create extension meshhook_metrics', '42501', null, 'nor does anybody else');
select lives_ok('set local role regress_stranger; create extension meshhook_metrics; reset role', 'who owns the schema may own the extension');
rollback to savepoint before;

-- One with functions in it
create schema meshhook_metrics;
create function meshhook_metrics.inc(text) returns void language sql as $$ select $$;
select throws_ok('create extension meshhook_metrics', '55000', 'schema "meshhook_metrics" has functions already', 'functions in the schema are in the way');
drop function meshhook_metrics.inc(text);
select lives_ok('create extension meshhook_metrics', 'an empty one of the superuser''s is good');
rollback to savepoint before;

-- Given to the role that creates the extension, as the hint says
create schema meshhook_metrics authorization regress_stranger;
alter schema meshhook_metrics owner to regress_owner;
select lives_ok('set local role regress_owner; create extension meshhook_metrics; reset role', 'the hint helps');

select * from finish();
rollback;
