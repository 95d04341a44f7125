-- Takes away what meshhook.sql made, also what an interrupted test has left
drop table if exists public.secrets, public.projects cascade;
drop function if exists public.user_project_ids();
drop schema if exists auth cascade;
