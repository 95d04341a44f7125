-- Roles as Supabase has them, and one that owns the database and applies the
-- migrations without being a superuser, as Supabase's postgres does. demo/run
-- loads this first, as the superuser of a private cluster.

create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;

create role demo_owner login;

alter database postgres owner to demo_owner;
