-- What a user of one tenant sees, and one of another: the same questions
-- (ask.sql), asked as role authenticated with the claims of a signed-in user,
-- as PostgREST and Realtime do it. demo/run prints this after stored.sql, in
-- its session; check.sql compares the answers with the engine's tables.

\echo '== Who sees what'

create temp table answers (
	viewer text,
	position int,
	question text,
	answer text
);

grant insert on answers to authenticated;

create function pg_temp.answer_of(question text)
returns text
language plpgsql
as $$
declare
	answer text;
begin
	execute question into answer;
	return coalesce(answer, '-');
exception when insufficient_privilege then
	return 'permission denied';
end
$$;

\set viewer acme
\set tenants '["a0000000-0000-4000-8000-000000000001"]'
\ir ask.sql
\set viewer globex
\set tenants '["b0000000-0000-4000-8000-000000000002"]'
\ir ask.sql
\set viewer 'no tenant'
\set tenants '[]'
\ir ask.sql

\echo 'The same questions, asked by a user of acme, by one of globex, and by one who belongs to no tenant.'
\echo 'Row level security makes the difference; a dash stands for no rows.'
\echo
select
	question as "asked as role authenticated",
	max(answer) filter (where viewer = 'acme') as acme,
	max(answer) filter (where viewer = 'globex') as globex,
	max(answer) filter (where viewer = 'no tenant') as "no tenant"
from answers
group by position, question
order by position;
