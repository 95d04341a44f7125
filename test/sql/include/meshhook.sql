-- MeshHook's database, as far as metrics meet it: Supabase's auth.uid(), projects with
-- one owner each, and user_project_ids(), which its policies ask. Names, types,
-- attributes and policies are MeshHook's, and what is missing there is missing here:
-- the functions have no search_path, name tables without a schema, and raise where the
-- sub of a token is no uuid.
--
-- For a superuser, after the roles of the API are there. Variable: keeper, the role that
-- applies the migrations of both, which on Supabase is "postgres". Tenants a and b are
-- projects, each of a user of its own; a third user has none.
-- meshhook_end.sql takes all of it away.
\ir meshhook_end.sql

create schema auth;
grant usage on schema auth to anon, authenticated, service_role, :"keeper";
create function auth.uid() returns uuid
language sql stable
as $$
	select coalesce(
		nullif(current_setting('request.jwt.claim.sub', true), ''),
		(nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid
$$;

create table public.projects (
	id uuid primary key default gen_random_uuid(),
	owner uuid not null,
	name text not null,
	created_at timestamptz not null default now(),
	updated_at timestamptz not null default now()
);
alter table public.projects owner to :"keeper";
alter table public.projects enable row level security;
create table public.secrets (
	id uuid primary key default gen_random_uuid(),
	project_id uuid not null references public.projects on delete cascade,
	key text not null,
	value_encrypted bytea not null,
	created_at timestamptz not null default now(),
	updated_at timestamptz not null default now(),
	unique (project_id, key)
);
alter table public.secrets owner to :"keeper";
alter table public.secrets enable row level security;
grant all on public.projects, public.secrets to anon, authenticated, service_role;

create function public.user_project_ids() returns setof uuid
language sql stable security definer
as $$
	select id from projects where owner = auth.uid()
$$;
alter function public.user_project_ids() owner to :"keeper";

create policy "Users can view own projects" on public.projects for select using (owner = auth.uid());
create policy "Users can insert own projects" on public.projects for insert with check (owner = auth.uid());
create policy "Users can view secrets in own projects" on public.secrets for select
using (project_id in (select user_project_ids()));
create policy "Users can insert secrets in own projects" on public.secrets for insert
with check (project_id in (select user_project_ids()));

insert into public.projects (id, owner, name)
values
	('11111111-1111-1111-1111-111111111111', 'aaaaaaaa-0000-4000-8000-00000000000a', 'project of A'),
	('22222222-2222-2222-2222-222222222222', 'bbbbbbbb-0000-4000-8000-00000000000b', 'project of B');
insert into public.secrets (project_id, key, value_encrypted)
select p.id, 'token', '\x00'
from public.projects p;

-- The claims of their tokens, as Supabase makes them; what user_metadata says, users say
\set claims_a '{"sub": "aaaaaaaa-0000-4000-8000-00000000000a", "role": "authenticated", "aud": "authenticated", "app_metadata": {"provider": "email"}, "user_metadata": {"tenant_ids": ["22222222-2222-2222-2222-222222222222"]}}'
\set claims_b '{"sub": "bbbbbbbb-0000-4000-8000-00000000000b", "role": "authenticated", "aud": "authenticated", "app_metadata": {"provider": "email"}, "user_metadata": {}}'
\set claims_nobody '{"sub": "cccccccc-0000-4000-8000-00000000000c", "role": "authenticated", "aud": "authenticated", "app_metadata": {}, "user_metadata": {}}'
\set claims_service '{"role": "service_role"}'
\set claims_anon '{"role": "anon"}'

-- Supabase has it so: floats are written in 15 digits
set extra_float_digits = 0;
