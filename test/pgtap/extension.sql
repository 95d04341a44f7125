-- What the extension is made of, where that is, and that it explains itself
begin;
set local client_min_messages = warning;
create extension if not exists meshhook_metrics;
select no_plan();

select is(e.extnamespace::regnamespace::text, 'meshhook_metrics', 'it is in its schema') from pg_extension e where extname = 'meshhook_metrics';
select ok(not e.extrelocatable, 'and stays there') from pg_extension e where extname = 'meshhook_metrics';
select ok(e.extconfig is null, 'it has no tables for pg_dump') from pg_extension e where extname = 'meshhook_metrics';
select is(format('%s, superuser %s, trusted %s, relocatable %s, schema %s', version, superuser, trusted, relocatable, schema),
	'0.1.0, superuser t, trusted t, relocatable f, schema meshhook_metrics', 'its control file')
from pg_available_extension_versions
where name = 'meshhook_metrics' and installed;
select isnt(comment, null, 'which has a comment') from pg_available_extensions where name = 'meshhook_metrics';

create temp view members as
select d.classid, d.objid, d.objsubid, pg_describe_object(d.classid, d.objid, d.objsubid) as description, i.type, i.schema
from pg_depend d, pg_identify_object(d.classid, d.objid, d.objsubid) i
where d.refclassid = 'pg_extension'::regclass
	and d.refobjid = (select oid from pg_extension where extname = 'meshhook_metrics')
	and d.deptype = 'e'
	-- from 17 on the array type is one too; it comes with the type
	and not exists (select from pg_type t where t.oid = d.objid and d.classid = 'pg_type'::regclass and t.typcategory = 'A');

select is((select string_agg(distinct type, ', ' order by type) from members), 'aggregate, cast, function, type', 'its objects are of these sorts');
select is(schema, 'meshhook_metrics', description || ' is in the schema') from members where type <> 'cast' order by description;
select isnt(obj_description(objid, classid::regclass::name), null, description || ' has a comment') from members order by description;
select is_empty(
	$$ select p.oid::regprocedure
	from pg_proc p
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and not exists (select from members m where m.classid = 'pg_proc'::regclass and m.objid = p.oid) $$,
	'nothing else is in the schema');

-- Functions run as who calls them, with the caller's settings, from the library
select is_empty(
	$$ select oid::regprocedure from pg_proc where pronamespace = 'meshhook_metrics'::regnamespace and prosecdef $$,
	'no function is SECURITY DEFINER');
select is_empty(
	$$ select oid::regprocedure from pg_proc where pronamespace = 'meshhook_metrics'::regnamespace and proconfig is not null $$,
	'none brings settings');
select is_empty(
	$$ select p.oid::regprocedure
	from pg_proc p
	join pg_language l on l.oid = p.prolang
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and p.prokind = 'f'
		and (l.lanname <> 'c' or p.probin <> '$libdir/meshhook_metrics' or p.prosrc !~ '^mhm_') $$,
	'all are of the library');

-- Dropped, it leaves nothing but the schema; created again, it is whole
select lives_ok('drop extension meshhook_metrics', 'it can be dropped');
select is_empty(
	$$ select oid from pg_proc where pronamespace = 'meshhook_metrics'::regnamespace
	union all
	select oid from pg_type where typnamespace = 'meshhook_metrics'::regnamespace $$,
	'with all that it had');
select lives_ok('create extension meshhook_metrics', 'and created in a schema that is there already');
select lives_ok($$ select meshhook_metrics.inc('extension_total') $$, 'after which it records');

-- It cannot be elsewhere
select throws_ok('alter extension meshhook_metrics set schema public', '0A000', null, 'it cannot be moved');
drop extension meshhook_metrics;
select throws_ok('create extension meshhook_metrics schema public', '0A000', null, 'nor created elsewhere');

select * from finish();
rollback;
