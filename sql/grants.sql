-- Who may call: nobody but the extension's owner, who grants it further

do $$
declare
	routine regprocedure;
	owner regrole;
begin
	for routine, owner in
		select
			d.objid::pg_catalog.regprocedure,
			e.extowner::pg_catalog.regrole
		from pg_catalog.pg_depend d
		join pg_catalog.pg_extension e
			on e.oid operator(pg_catalog.=) d.refobjid
		where d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			and d.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
			and d.deptype operator(pg_catalog.=) 'e'
			and e.extname operator(pg_catalog.=) 'meshhook_metrics'
	loop
		execute pg_catalog.format('revoke execute on routine %s from public', routine);
		execute pg_catalog.format('grant execute on routine %s to %s with grant option', routine, owner);
	end loop;
end
$$;
