-- The roles of an API server, in the transaction of the test. The migrations grant to
-- those that are there, so this comes before them.
do $$
declare
	api_role text;
begin
	foreach api_role in array array['anon', 'authenticated', 'service_role'] loop
		if not exists (select from pg_roles where rolname = api_role) then
			execute format('create role %I nologin', api_role);
		end if;
	end loop;
	alter role service_role bypassrls;
end
$$;
