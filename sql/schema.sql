-- The schema, if it was there before the extension, must be in good hands

do $$
declare
	planted text;
	objects bigint;
begin
	select n.nspowner::pg_catalog.regrole::pg_catalog.text
	into planted
	from pg_catalog.pg_namespace n
	where n.nspname operator(pg_catalog.=) 'meshhook_metrics'
		and not exists (
			select
			from pg_catalog.pg_roles r
			where r.oid operator(pg_catalog.=) n.nspowner
				and (
					r.rolsuper
					or r.oid operator(pg_catalog.=) (
						select d.datdba
						from pg_catalog.pg_database d
						where d.datname operator(pg_catalog.=) pg_catalog.current_database())
					or r.oid operator(pg_catalog.=) (
						select e.extowner
						from pg_catalog.pg_extension e
						where e.extname operator(pg_catalog.=) 'meshhook_metrics')));
	if planted is not null then
		raise exception 'schema "meshhook_metrics" belongs to %, who could put functions of its own among the extension''s', planted
			using
				errcode = 'insufficient_privilege',
				hint = 'Drop the schema, or give it to the role that creates the extension.';
	end if;

	select pg_catalog.count(*)
	into objects
	from pg_catalog.pg_proc p
	join pg_catalog.pg_namespace n
		on n.oid operator(pg_catalog.=) p.pronamespace
	where n.nspname operator(pg_catalog.=) 'meshhook_metrics';
	if objects operator(pg_catalog.>) 0 then
		raise exception 'schema "meshhook_metrics" has functions already'
			using
				errcode = 'object_not_in_prerequisite_state',
				hint = 'Drop them, and create the extension before anything else in its schema.';
	end if;
end
$$;
