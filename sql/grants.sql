-- Who may call: nobody but the extension's owner, who grants it further. And the
-- database's owner, where the schema is his: he could have made the extension,
-- and after a restore by a superuser his dump grants in his name.

do $$
declare
	routine regprocedure;
	favoured regrole;
	trusted regrole;
begin
	for routine in
		select d.objid::pg_catalog.regprocedure
		from pg_catalog.pg_depend d
		join pg_catalog.pg_extension e
			on e.oid operator(pg_catalog.=) d.refobjid
		where d.refclassid operator(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
			and d.classid operator(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
			and d.deptype operator(pg_catalog.=) 'e'
			and e.extname operator(pg_catalog.=) 'meshhook_metrics'
	loop
		execute pg_catalog.format('revoke execute on routine %s from public', routine);
		-- Default privileges may have given it to others
		for favoured in
			select distinct a.grantee::pg_catalog.regrole
			from pg_catalog.pg_proc p
			cross join lateral pg_catalog.aclexplode(p.proacl) a
			where p.oid operator(pg_catalog.=) routine
				and a.grantee operator(pg_catalog.<>) 0
				and a.grantee operator(pg_catalog.<>) p.proowner
		loop
			execute pg_catalog.format('revoke all on routine %s from %s', routine, favoured);
		end loop;
		for trusted in
			select e.extowner::pg_catalog.regrole
			from pg_catalog.pg_extension e
			where e.extname operator(pg_catalog.=) 'meshhook_metrics'
			union
			select d.datdba::pg_catalog.regrole
			from pg_catalog.pg_database d
			join pg_catalog.pg_namespace n
				on n.nspowner operator(pg_catalog.=) d.datdba
			where d.datname operator(pg_catalog.=) pg_catalog.current_database()
				and n.nspname operator(pg_catalog.=) 'meshhook_metrics'
		loop
			execute pg_catalog.format('grant execute on routine %s to %s with grant option', routine, trusted);
		end loop;
	end loop;
end
$$;
