-- Takes away what tenancy.sql made
reset role;
drop extension meshhook_metrics cascade;
drop schema meshhook_metrics cascade;
drop publication supabase_realtime;
\ir meshhook_end.sql
do $$
declare
	role name;
begin
	execute format('revoke create on database %I from tenancy_owner', current_database());
	for role in
		select name
		from made_roles
	loop
		execute format('drop role %I', role);
	end loop;
end
$$;
