-- The tables of a small webhook-workflow engine, its four tenants, and the
-- description of its metrics. demo/run loads this once, after the migrations, as
-- the superuser of a private cluster; the engine itself (engine.sql) runs as
-- demo_engine, which may write to these tables and record metrics, and nothing
-- else.

create schema demo;

-- A project is a tenant: its id is the tenant of every metric below.
create table demo.projects (
	id uuid primary key,
	name text not null unique
);

create table demo.workflows (
	id int primary key,
	project_id uuid not null references demo.projects,
	name text not null,
	failure_rate float8 not null,		-- how often the called service fails
	max_attempts int not null,
	back_off interval not null			-- before the second attempt; doubles
);

-- The secret is kept as the two padded keys of HMAC (RFC 2104), so that a
-- signature costs two hashes.
create table demo.webhooks (
	id int primary key,
	workflow_id int not null references demo.workflows,
	source text not null,
	inner_key bytea not null,
	outer_key bytea not null
);

create table demo.deliveries (
	id bigint generated always as identity primary key,
	project_id uuid not null,
	webhook_id int not null,
	source text not null,
	status text not null check (status in ('accepted', 'rejected')),
	bytes int not null,
	payload jsonb not null,
	received_at timestamptz not null
);

create table demo.runs (
	id bigint generated always as identity primary key,
	project_id uuid not null,
	workflow_id int not null,
	delivery_id bigint not null references demo.deliveries,
	status text not null default 'queued'
		check (status in ('queued', 'running', 'succeeded', 'failed', 'dead')),
	attempts int not null default 0,
	queued_at timestamptz not null,
	due_at timestamptz not null,		-- queued_at, or the end of the back-off
	started_at timestamptz,				-- of the first attempt
	finished_at timestamptz
) with (fillfactor = 70);

create index runs_queue on demo.runs (due_at) where status = 'queued';

create table demo.attempts (
	run_id bigint not null,
	attempt int not null,
	project_id uuid not null,
	workflow_id int not null,
	due_at timestamptz not null,
	started_at timestamptz not null,
	finished_at timestamptz,
	outcome text check (outcome in ('succeeded', 'failed', 'dead', 'retried')),
	error text,
	primary key (run_id, attempt)
) with (fillfactor = 70);

create table demo.steps (
	run_id bigint not null,
	attempt int not null,
	project_id uuid not null,
	step text not null,
	started_at timestamptz not null,
	finished_at timestamptz not null
);

create table demo.results (
	run_id bigint primary key,
	customer text not null,
	total numeric not null,
	answer jsonb not null
);

create table demo.dead_letters (
	run_id bigint primary key,
	error text not null,
	payload jsonb not null
);

-- When the service that a workflow calls was down (outage.sql)
create table demo.outages (
	workflow_id int not null,
	usual_failure_rate float8 not null,
	began_at timestamptz not null,
	ended_at timestamptz
);

-- The key of HMAC, filled up to one block of SHA-256 and mixed with its pad
create function demo.padded_key(secret text, pad int)
returns bytea
language plpgsql
immutable
set search_path = ''
as $$
declare
	key bytea := convert_to(secret, 'UTF8') || decode(repeat('00', 64 - octet_length(secret)), 'hex');
begin
	for i in 0 .. 63 loop
		key := set_byte(key, i, get_byte(key, i) # pad);
	end loop;
	return key;
end
$$;

insert into demo.projects (id, name)
values
	('a0000000-0000-4000-8000-000000000001', 'acme'),
	('b0000000-0000-4000-8000-000000000002', 'globex'),
	('c0000000-0000-4000-8000-000000000003', 'initech'),
	('d0000000-0000-4000-8000-000000000004', 'hooli');

insert into demo.workflows (id, project_id, name, failure_rate, max_attempts, back_off)
select w.id, p.id, w.name, w.failure_rate, w.max_attempts, w.back_off
from (
	values
		(1, 'acme', 'deploy', 0.005, 4, interval '50 ms'),
		(2, 'acme', 'invoice', 0.02, 4, interval '50 ms'),
		(3, 'globex', 'order', 0.04, 4, interval '100 ms'),
		(4, 'initech', 'crm-sync', 0.12, 3, interval '200 ms'),
		(5, 'hooli', 'notify', 0.45, 3, interval '200 ms')
) w (id, project, name, failure_rate, max_attempts, back_off)
join demo.projects p on p.name = w.project;

insert into demo.webhooks (id, workflow_id, source, inner_key, outer_key)
select w.id, w.workflow_id, w.source,
	demo.padded_key(w.secret, 54),		-- 0x36
	demo.padded_key(w.secret, 92)		-- 0x5c
from (
	values
		(1, 1, 'github', md5('acme github')),
		(2, 2, 'stripe', md5('acme stripe')),
		(3, 3, 'shopify', md5('globex shopify')),
		(4, 4, 'hubspot', md5('initech hubspot')),
		(5, 5, 'slack', md5('hooli slack'))
) w (id, workflow_id, source, secret);

-- What the metrics mean; the text is what Prometheus shows as HELP.
select meshhook_metrics.describe(m.metric, m.kind, m.help, m.unit)
from (
	values
		('meshhook_webhook_deliveries_total', 'counter', 'Webhooks received, by source and whether the signature was good.', null),
		('meshhook_webhook_received_bytes_total', 'counter', 'Bytes of the bodies received.', 'bytes'),
		('meshhook_webhook_response_seconds', 'histogram', 'Time to check, store and queue a webhook.', 'seconds'),
		('meshhook_workflow_runs_total', 'counter', 'Workflow runs that have ended, by status.', null),
		('meshhook_workflow_retries_total', 'counter', 'Attempts that failed and were queued again.', null),
		('meshhook_workflow_errors_total', 'counter', 'Failed attempts, by what went wrong.', null),
		('meshhook_workflow_steps_total', 'counter', 'Steps carried out in attempts that succeeded.', null),
		('meshhook_workflow_step_duration_seconds', 'histogram', 'Time of one step.', 'seconds'),
		('meshhook_workflow_run_duration_seconds', 'histogram', 'From the first start of a run to its end, retries included.', 'seconds'),
		('meshhook_queue_wait_seconds', 'histogram', 'From when an attempt was due to its start.', 'seconds'),
		('meshhook_workflow_runs_in_progress', 'gauge', 'Runs that a worker has in hand.', null),
		('meshhook_queue_depth', 'gauge', 'Runs waiting for a worker, back-off included.', null),
		('meshhook_projects', 'gauge', 'Projects on the platform.', null)
) m (metric, kind, help, unit);

-- No tenant: a number of the platform itself
select meshhook_metrics.gauge_set('meshhook_projects', count(*))
from demo.projects;

create role demo_engine login;

grant usage on schema demo, meshhook_metrics to demo_engine;
grant select, insert, update on all tables in schema demo to demo_engine;

grant execute on function
	meshhook_metrics.inc(text, float8, jsonb, uuid),
	meshhook_metrics.gauge_add(text, float8, jsonb, uuid),
	meshhook_metrics.observe(text, float8, jsonb, uuid),
	meshhook_metrics.observe_since(text, timestamptz, jsonb, uuid),
	meshhook_metrics.record(jsonb)
to demo_engine;
