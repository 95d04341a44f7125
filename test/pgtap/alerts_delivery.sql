-- How notifications leave the outbox: taken and finished, or handed to pg_net
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();
set local timezone = 'America/St_Johns';

\set r1 '33333333-3333-3333-3333-333333333331'
\set r2 '33333333-3333-3333-3333-333333333332'
-- Notifications of rules 1 and 2 to receivers; called by what their payload says
create function pg_temp.write(named text, rule int, receiver text, tenant uuid default '11111111-1111-1111-1111-111111111111') returns void
language sql as $$
	insert into meshhook_metrics.alert_notifications (tenant_id, rule_id, receiver, payload)
	values (tenant, ('33333333-3333-3333-3333-33333333333' || rule)::uuid, receiver, jsonb_build_object('named', named))
$$;
create function pg_temp.claim(n int default 10, with_url boolean default false) returns text
language sql as $$
	select coalesce(string_agg(payload ->> 'named' || case when attempts > 1 then '*' || attempts else '' end, ' ' order by o), '')
	from meshhook_metrics.claim_notifications(n, with_url) with ordinality c (id, tenant_id, receiver, url, headers, payload, attempts, o)
$$;
create function pg_temp.id(named text) returns bigint
language sql
return (select n.id from meshhook_metrics.alert_notifications n where n.payload ->> 'named' = named);
create function pg_temp.finish(named text, error text default null) returns boolean
language sql as $$
	select meshhook_metrics.finish_notification(pg_temp.id(named), error)
$$;
-- Time passes: what is to be tried later is due
create function pg_temp.wait(seconds int default 3600) returns void
language sql as $$
	update meshhook_metrics.alert_notifications set next_attempt_at = next_attempt_at - make_interval(secs => seconds)
$$;
create temp view waiting as
select payload ->> 'named' as named, attempts, last_error, delivered_at is not null as is_delivered, dead_at is not null as is_dead,
	extract(epoch from next_attempt_at - clock_timestamp()) as seconds
from meshhook_metrics.alert_notifications;

-- Nothing
select is(pg_temp.claim(), '', 'there is nothing to take');

-- In order, for each rule and receiver
select pg_temp.write('a', 1, 'ops');
select pg_temp.write('b', 1, 'pager');
select pg_temp.write('c', 1, 'ops');
select pg_temp.write('d', 2, 'ops');
select pg_temp.write('e', 1, 'ops', :'b');
select is(pg_temp.claim(), 'a b d e', 'of each rule and receiver of a tenant the earliest is taken');
select is(pg_temp.claim(), '', 'nobody else gets them, nor what comes after');
select is(pg_temp.finish('a'), true, 'what is delivered is finished');
select is(pg_temp.claim(), 'c', 'then the next one is due');
select is(pg_temp.finish('b', 'no answer'), true, 'as is what failed');
select is(pg_temp.claim(), '', 'but that is not due at once');
select is(pg_temp.finish('c') and pg_temp.finish('d') and pg_temp.finish('e'), true, 'each is finished for itself');
select set_eq('select named, attempts, last_error, is_delivered, is_dead from waiting', $$ values
	('a', 1, null, true, false), ('b', 1, 'no answer', false, false), ('c', 1, null, true, false), ('d', 1, null, true, false), ('e', 1, null, true, false) $$, 'it is noted what became of each');
select pg_temp.wait();
select is(pg_temp.claim(), 'b*2', 'after a while it is taken again');
select is(pg_temp.finish('b'), true, 'and delivered');
select results_eq('select last_error, is_delivered from waiting where named = ''b''', $$ values ('no answer', true) $$, 'why it failed stays to be seen');
select pg_temp.wait();
select is(pg_temp.claim(), '', 'what was delivered is not taken again');

-- How many, and which first
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('n' || n, n, 'ops') from generate_series(1, 5) n;
update meshhook_metrics.alert_notifications set next_attempt_at = next_attempt_at - interval '1 hour' where payload ->> 'named' in ('n2', 'n4');
select is(pg_temp.claim(3), 'n1 n2 n4', 'what has been due longest is taken first');
select is(pg_temp.claim(1), 'n3', 'no more than wanted');
select is(pg_temp.claim(1000), 'n5', 'or than there are');
select throws_ok(format('select * from meshhook_metrics.claim_notifications(%s)', n), state, message, 'not ' || n)
from (values ('0', '22023', 'n is 0'), ('-1', '22023', 'n is -1'), ('1001', '22023', 'n is 1001'), ('null', '22004', 'n is null')) v (n, state, message);
update meshhook_metrics.alert_notifications set attempts = 0, next_attempt_at = now() + interval '1 minute';
select is(pg_temp.claim(), '', 'nothing is taken before it is due');

-- What is claimed is due again after a minute, if nobody finishes it
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('slow', 1, 'ops');
select pg_temp.write('next', 1, 'ops');
select is(pg_temp.claim(), 'slow', 'one is taken');
select ok(seconds between 59 and 60, 'for a minute') from waiting where named = 'slow';
select pg_temp.wait(59);
select is(pg_temp.claim(), '', 'which it has');
select pg_temp.wait(1);
select is(pg_temp.claim(), 'slow*2', 'then another may have it');
select is(pg_temp.finish('slow'), true, 'who is first finishes it');
select is(pg_temp.finish('slow'), false, 'the other one has nothing to finish');
select is(pg_temp.finish('slow', 'no answer'), false, 'also if it failed');
select results_eq('select last_error, is_delivered from waiting where named = ''slow''', 'values (null::text, true)', 'and it stays delivered');
select is(pg_temp.finish('next'), false, 'what nobody has taken cannot be finished');
select is(pg_temp.finish('none'), false, 'nor what is not there');
select is(meshhook_metrics.finish_notification(null), false, 'nor nothing');
select is(meshhook_metrics.finish_notification(-1, 'x'), false, 'nor another number');
select is(pg_temp.claim(), 'next', 'which can still be taken');

-- What fails
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('bad', 1, 'ops');
select pg_temp.write('good', 1, 'ops');
create temp table delays (attempt int, seconds numeric, is_dead boolean);
do $$
begin
	for attempt in 1 .. 13 loop
		exit when pg_temp.claim() is distinct from 'bad' || case when attempt > 1 then '*' || attempt else '' end;
		perform pg_temp.finish('bad', 'error ' || attempt);
		insert into delays select attempt, seconds, is_dead from waiting where named = 'bad';
		perform pg_temp.wait();
	end loop;
end
$$;
select is((select count(*) from delays), 12::bigint, 'what fails is tried twelve times');
select is_empty($$ select * from delays where seconds not between 0.89 * least(10 * 2 ^ (attempt - 1), 600) and 1.1 * least(10 * 2 ^ (attempt - 1), 600) $$,
	'after 10, 20, 40 seconds and so on, at most 10 minutes, a tenth more or less');
select ok(stddev(seconds / least(10 * 2 ^ (attempt - 1), 600)) > 0.001, 'not all at the same time') from delays;
select set_eq('select attempt from delays where is_dead', array[12], 'then it is given up');
select results_eq('select attempts, last_error, is_delivered, is_dead from waiting where named = ''bad''', $$ values (12, 'error 12', false, true) $$, 'with the last error');
select is(pg_temp.finish('bad'), false, 'it is finished');
select is(pg_temp.finish('good'), true, 'the next one has been taken instead');
update meshhook_metrics.alert_notifications set dead_at = null, attempts = 0, next_attempt_at = now() where payload ->> 'named' = 'bad';
select is(pg_temp.claim(), 'bad', 'the owner can have it tried again');
select is(pg_temp.finish('bad', repeat('é', 2000)), true, 'an error can be long');
select is((select last_error from waiting where named = 'bad'), repeat('é', 1000), 'and is cut off');
select pg_temp.wait();
select is(pg_temp.claim(), 'bad*2', 'a failure');
select is(pg_temp.finish('bad', ''), true, 'need not say why');
select results_eq('select last_error, is_delivered from waiting where named = ''bad''', $$ values ('', false) $$, 'and is one');

-- What was taken twelve times and never finished
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('crashes', 1, 'ops');
select pg_temp.write('next', 1, 'ops');
update meshhook_metrics.alert_notifications set attempts = 11 where payload ->> 'named' = 'crashes';
select is(pg_temp.claim(), 'crashes*12', 'what is never finished is taken twelve times');
select pg_temp.claim();
select ok(not is_dead, 'and has a minute as before') from waiting where named = 'crashes';
select pg_temp.wait(60);
select is(pg_temp.claim(), 'next', 'then it is the next one''s turn');
select results_eq('select last_error, is_dead from waiting where named = ''crashes''', $$ values ('it was taken 12 times, and never finished', true) $$, 'and that is given up');

-- Tenants by turns
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('a' || n, n, 'ops') from generate_series(1, 5) n;
select pg_temp.write('b' || n, n, 'ops', :'b') from generate_series(1, 2) n;
select is(pg_temp.claim(3), 'a1 a2 b1', 'tenants are served by turns');
select is(pg_temp.claim(3), 'a3 a4 b2', 'so that none waits for all of another''s');
select is(pg_temp.claim(3), 'a5', 'until all are served');

-- Receivers
delete from meshhook_metrics.alert_notifications;
insert into meshhook_metrics.alert_receivers (tenant_id, name, url, headers) values
	(:'a', 'hook', 'https://example.org/a', '{"Authorization": "Bearer x", "content-TYPE": "text/plain"}'), (:'a', 'process', null, '{"x": "1"}'), (:'b', 'hook', 'https://example.org/b', '{}');
select pg_temp.write('to hook', 1, 'hook');
select pg_temp.write('to process', 1, 'process');
select pg_temp.write('to default', 1, 'default');
select pg_temp.write('to another hook', 1, 'hook', :'b');
select results_eq('select id, tenant_id, receiver, url, headers, payload ->> ''named'', attempts from meshhook_metrics.claim_notifications()',
	$$ values (pg_temp.id('to hook'), '11111111-1111-1111-1111-111111111111'::uuid, 'hook', 'https://example.org/a', '{"Authorization": "Bearer x", "content-TYPE": "text/plain"}'::jsonb, 'to hook', 1),
		(pg_temp.id('to process'), '11111111-1111-1111-1111-111111111111', 'process', null, '{"x": "1"}', 'to process', 1),
		(pg_temp.id('to default'), '11111111-1111-1111-1111-111111111111', 'default', null, '{}', 'to default', 1),
		(pg_temp.id('to another hook'), '22222222-2222-2222-2222-222222222222', 'hook', 'https://example.org/b', '{}', 'to another hook', 1) $$,
	'with what the tenant''s receiver has');
select pg_temp.wait();
select is(pg_temp.claim(10, true), 'to hook*2 to another hook*2', 'only those with a url, if wanted');

-- Without pg_net
select pg_temp.wait();
select is(meshhook_metrics.send_notifications(), 0::bigint, 'without pg_net nothing is sent');
select ok(bool_and(attempts <= 2), 'or taken') from waiting;

-- pg_net as this extension sees it: who calls, what it answers
insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion)
select max(oid::bigint)::oid::int + 1, 'pg_net', 10, 'pg_catalog'::regnamespace, false, '0.14.0' from pg_extension;
create schema net;
create table net.requests (id bigint, url text, body jsonb, params jsonb, headers jsonb, timeout_milliseconds int);
create table net.http_request_queue (id bigserial);
create table net._http_response (id bigint, status_code int, content_type text, headers jsonb, content text, timed_out bool, error_msg text, created timestamptz default now());
create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 5000)
returns bigint
language plpgsql as $$
declare
	request bigint;
begin
	-- As the real one
	if headers ->> 'Content-Type' <> 'application/json' then
		raise exception 'Content-Type header must be "application/json"';
	elsif http_post.url like '%broken%' then
		raise exception 'no such host';
	end if;
	insert into net.http_request_queue default values returning id into request;
	insert into net.requests (id, url, body, params, headers, timeout_milliseconds) values (request, url, body, params, headers, timeout_milliseconds);
	return request;
end
$$;
grant usage on schema net to public;
grant all on all sequences in schema net to public;
grant all on all tables in schema net to public;

-- A function of that name that somebody else has made would be called with our rights
create function pg_temp.belongs_to_pg_net(function oid) returns void language sql as $$
	insert into pg_depend (classid, objid, objsubid, refclassid, refobjid, refobjsubid, deptype)
	select 'pg_proc'::regclass, function, 0, 'pg_extension'::regclass, e.oid, 0, 'e' from pg_extension e where e.extname = 'pg_net'
$$;
\set refusal 'nothing is sent, since somebody has put a trigger on net.http_request_queue, or a function of his own in place of net.http_post'
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('refused', 1, 'hook');
select throws_ok('select meshhook_metrics.send_notifications()', '42501', :'refusal', 'a net.http_post that is not pg_net''s is not called');
select pg_temp.belongs_to_pg_net('net.http_post'::regproc);
create function net.http_post(url text) returns bigint language sql return 1;
select throws_ok('select meshhook_metrics.send_notifications()', '42501', :'refusal', 'nor is pg_net''s own beside such a one');
drop function net.http_post(text);
-- So would a trigger be, which everybody may hang on the queue
create function net.spy() returns trigger language plpgsql as $$begin return new; end$$;
create trigger spy before insert on net.http_request_queue for each row execute function net.spy();
select throws_ok('select meshhook_metrics.send_notifications()', '42501', :'refusal', 'nothing is sent past somebody''s trigger on the queue');
select is((select count(*) from net.requests), 0::bigint, 'nothing has been sent');
select results_eq('select named, attempts from waiting', $$ values ('refused', 0) $$, 'or taken');
-- pg_net has one of its own
select pg_temp.belongs_to_pg_net('net.spy'::regproc);

delete from meshhook_metrics.alert_notifications;
insert into meshhook_metrics.alert_receivers (tenant_id, name, url) values (:'a', 'broken', 'https://broken.example.org'), (:'a', 'second', 'https://example.org/second');
select is(meshhook_metrics.send_notifications(), 0::bigint, 'there is nothing to send');
select pg_temp.write('first', 1, 'hook');
select pg_temp.write('to nobody', 1, 'broken');
select pg_temp.write('next', 1, 'hook');
select pg_temp.write('second', 1, 'second');
select pg_temp.write('to process', 1, 'process');
select is(meshhook_metrics.send_notifications(), 2::bigint, 'what has a url is sent, in order');
select results_eq('select url, body, params, headers, timeout_milliseconds from net.requests order by id', $$ values
	('https://example.org/a', '{"named": "first"}'::jsonb, '{}'::jsonb, '{"Authorization": "Bearer x", "Content-Type": "application/json"}'::jsonb, 10000),
	('https://example.org/second', '{"named": "second"}', '{}', '{"Content-Type": "application/json"}', 10000) $$, 'the payload to the url, with the headers of the receiver and the type of JSON');
select set_eq('select named, attempts, last_error, is_delivered from waiting', $$ values
	('first', 1, null, false), ('to nobody', 1, 'no such host', false), ('next', 0, null, false), ('second', 1, null, false), ('to process', 0, null, false) $$,
	'what pg_net does not take has failed, and stops no other');
select ok(seconds between 8.9 and 11, 'it is tried again') from waiting where named = 'to nobody';
select is(meshhook_metrics.send_notifications(), 0::bigint, 'nothing is sent twice');
insert into net._http_response (id, status_code, timed_out) select id, 200, false from net.requests where body ->> 'named' = 'first';
select is(meshhook_metrics.send_notifications(), 1::bigint, 'with an answer the next one is sent');
select set_eq('select named, is_delivered from waiting where is_delivered', $$ values ('first', true) $$, 'and the one before is delivered');
select is((select count(*) from meshhook_metrics.alert_notifications where request_id is not null), 2::bigint, 'only what is under way has a request');
select is(pg_temp.claim(), 'to process', 'what has no url is left for somebody else');

-- Answers
delete from meshhook_metrics.alert_notifications;
create temp table answers (named text, status_code int, timed_out boolean, error_msg text, error text);
insert into answers values
	('200', 200, false, null, null), ('204', 204, false, null, null), ('299', 299, false, null, null),
	('199', 199, false, null, 'the receiver answered with status 199'), ('302', 302, false, null, 'the receiver answered with status 302'),
	('404', 404, false, null, 'the receiver answered with status 404'), ('500', 500, false, null, 'the receiver answered with status 500'),
	('timeout', null, true, 'Timeout was reached', 'the receiver did not answer in time'), ('refused', null, null, 'Couldn''t connect to server', 'Couldn''t connect to server');
select pg_temp.write(named, (row_number() over ())::int % 10, 'hook') from answers;
select is(meshhook_metrics.send_notifications(4), 4::bigint, 'no more are sent than wanted');
select is(meshhook_metrics.send_notifications(), 5::bigint, 'the others later');
insert into net._http_response (id, status_code, timed_out, error_msg)
select r.id, a.status_code, a.timed_out, a.error_msg from net.requests r join answers a on a.named = r.body ->> 'named';
select is(meshhook_metrics.send_notifications(), 0::bigint, 'answers come');
select bag_eq('select named, is_delivered, last_error from waiting', 'select named, error is null, error from answers', '2xx is delivered, all else has failed');
select ok(bool_and(seconds between 8.9 and 11), 'and is tried again') from waiting where not is_delivered;
select pg_temp.wait(30);
select is(meshhook_metrics.send_notifications(), 6::bigint, 'so it is');
select ok(bool_and(attempts = 2 - is_delivered::int), 'for the second time') from waiting;

-- No answer: pg_net forgets them after a while, and when the server crashes
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('lost', 1, 'hook');
select is(meshhook_metrics.send_notifications(), 1::bigint, 'sent');
select pg_temp.wait(60);
select is(meshhook_metrics.send_notifications(), 1::bigint, 'what was not answered for a minute is sent again');
insert into net._http_response (id, status_code, timed_out) select min(id), 500, false from net.requests where body ->> 'named' = 'lost';
select is(meshhook_metrics.send_notifications(), 0::bigint, 'an answer to the first');
select results_eq('select attempts, last_error, is_delivered from waiting', 'values (2, null::text, false)', 'is none to the second');
insert into net._http_response (id, status_code, timed_out) select max(id), 200, false from net.requests where body ->> 'named' = 'lost';
select meshhook_metrics.send_notifications();
select results_eq('select attempts, is_delivered from waiting', 'values (2, true)', 'which delivers it');

-- Who sends without being a superuser, as the owner of the tables does, with what
-- docs/alerts.md leaves him of pg_net's tables
create role owning bypassrls;
grant usage on schema meshhook_metrics to owning;
grant execute on all functions in schema meshhook_metrics to owning;
grant select, update on meshhook_metrics.alert_notifications to owning;
grant select on meshhook_metrics.alert_receivers to owning;
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('sent', 1, 'hook');
revoke all on all tables in schema net from public;
grant insert on net.requests to owning;
set local role owning;
select throws_ok('select meshhook_metrics.send_notifications()', '42501', 'permission denied for table http_request_queue', 'of pg_net''s tables that are closed to all');
reset role;
grant select, insert on net.http_request_queue to owning;
grant select on net._http_response to owning;
set local role owning;
select is(meshhook_metrics.send_notifications(), 1::bigint, 'the owner needs this');
reset role;
insert into net._http_response (id, status_code, timed_out) select max(id), 200, false from net.requests;
set local role owning;
select is(meshhook_metrics.send_notifications(), 0::bigint, 'and for the answers');
reset role;
select results_eq('select attempts, is_delivered from waiting', 'values (1, true)', 'that, no more');

-- Written, taken or failed by a clock that was set back since
delete from meshhook_metrics.alert_notifications;
select pg_temp.write('ahead', 1, 'ops');
select pg_temp.write('next', 1, 'ops');
select pg_temp.write('later', 2, 'ops');
update meshhook_metrics.alert_notifications set next_attempt_at = clock_timestamp() + interval '12 days' where payload ->> 'named' = 'ahead';
update meshhook_metrics.alert_notifications set next_attempt_at = clock_timestamp() + interval '10 minutes' where payload ->> 'named' = 'later';
select is(pg_temp.claim(), 'ahead', 'nothing waits for longer than there are waits');
select is(pg_temp.finish('ahead'), true, 'it is delivered');
select is(pg_temp.claim(), 'next', 'and what was behind it goes');
select is(pg_temp.finish('next'), true, 'as well');
update meshhook_metrics.alert_notifications set attempts = 12, next_attempt_at = clock_timestamp() + interval '12 days' where payload ->> 'named' = 'later';
select is(pg_temp.claim(), '', 'nor is it taken more often than there are attempts');
select results_eq($$ select is_dead from waiting where named = 'later' $$, 'values (true)', 'but given up');
delete from meshhook_metrics.alert_notifications;

-- Who inherits the right to call, and not to see
create role worker in role service_role;
select pg_temp.write('unseen', 1, 'hook');
set local role worker;
select throws_ok('select meshhook_metrics.claim_notifications()', '42501', 'role "worker" does not see all notifications', 'a member of service_role is told that it sees no notifications');
select throws_ok('select meshhook_metrics.finish_notification(1)', '42501', 'role "worker" does not see all notifications', 'also when it finishes one');
set local role service_role;
select is((select count(*) from meshhook_metrics.claim_notifications()), 1::bigint, 'and sees them as service_role');
reset role;
select * from finish();
rollback;
