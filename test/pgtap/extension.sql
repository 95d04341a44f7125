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
	$$ select p.oid::regprocedure
	from pg_proc p
	join pg_language l on l.oid = p.prolang
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and l.lanname = 'c'
		and p.proconfig is not null $$,
	'those in C bring no settings');
select is_empty(
	$$ select p.oid::regprocedure
	from pg_proc p
	join pg_language l on l.oid = p.prolang
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and p.prokind = 'f'
		and l.lanname in ('sql', 'plpgsql')
		and not coalesce(p.proconfig && array['search_path=""', 'search_path=pg_catalog, pg_temp'], false) $$,
	'those in SQL bring a search_path that nobody else can write to');
select is_empty(
	$$ select p.oid::regprocedure
	from pg_proc p
	join pg_language l on l.oid = p.prolang
	where p.pronamespace = 'meshhook_metrics'::regnamespace
		and p.prokind = 'f'
		and l.lanname not in ('sql', 'plpgsql')
		and (l.lanname <> 'c' or p.probin <> '$libdir/meshhook_metrics' or p.prosrc !~ '^mhm_') $$,
	'all others are of the library');

-- Dropped, it leaves nothing but the schema; created again, it is whole
select lives_ok('drop extension meshhook_metrics', 'it can be dropped');
select is_empty(
	$$ select oid from pg_proc where pronamespace = 'meshhook_metrics'::regnamespace
	union all
	select oid from pg_type where typnamespace = 'meshhook_metrics'::regnamespace $$,
	'with all that it had');
select lives_ok('create extension meshhook_metrics', 'and created in a schema that is there already');
select lives_ok($$ select meshhook_metrics.inc('extension_total') $$, 'after which it records');

-- Functions of an older or newer extension than the library are told apart, not
-- trusted: those here have arguments that the library does not expect
do $$
declare
	symbol text;
begin
	foreach symbol in array array['inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since', 'record', 'describe', 'reset', 'snapshot', 'prometheus', 'status'] loop
		execute format($f$ create function pg_temp.%s(a int default 1, b int default 2, c int default 3, d int default 4, e int default 5, f int default 6)
			returns void as '$libdir/meshhook_metrics', 'mhm_%s' language c $f$, symbol, symbol);
	end loop;
end
$$;
select throws_ok(format('select pg_temp.%s()', symbol), '42P13',
	format('function of meshhook_metrics is declared with 6 arguments, not %s', arguments),
	format('%s() of another version is refused', symbol))
from (values ('inc', 4), ('gauge_set', 4), ('gauge_add', 4), ('observe', 4), ('observe_since', 4), ('record', 1), ('describe', 5),
	('reset', 2), ('snapshot', 1), ('prometheus', 1), ('status', 0)) s (symbol, arguments);

-- It cannot be elsewhere
select throws_ok('alter extension meshhook_metrics set schema public', '0A000', null, 'it cannot be moved');
drop extension meshhook_metrics;
select throws_ok('create extension meshhook_metrics schema public', '0A000', null, 'nor created elsewhere');

select * from finish();
rollback;
