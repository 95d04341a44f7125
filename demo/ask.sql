-- Asks the questions of :topic as a user of the tenants in :tenants, and notes the
-- answers under :viewer. Row level security decides what a question is about: none
-- of them names the tenant, but for those that try somebody else's.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"app_metadata": {"tenant_ids": ' || :'tenants' || '}}', true) as claims \gset
select set_config('demo.since', :'since', true) as since_set \gset

insert into answers (topic, viewer, position, question, answer)
select q.topic, :'viewer', q.position, q.question, pg_temp.answer_of(q.statement)
from questions q
where q.topic = :'topic'
order by q.position;
commit;
