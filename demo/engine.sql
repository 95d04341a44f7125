-- The engine: what a webhook's arrival and a worker's turn do, each function
-- one transaction of pgbench's scripts (ingest.pgbench, worker.pgbench). They
-- record where a MeshHook worker would, and run with
-- meshhook_metrics.on_commit = on: what a failed attempt has recorded is
-- undone with its rows, so that at the end every metric equals the tables.
--
-- The work is real (JSON, HMAC-SHA256, rows), and so are the times; only the
-- network is not there: the call of another service hashes its request over
-- and over, and fails as often as the workflow's failure_rate says.

create function demo.hmac_sha256(message bytea, inner_key bytea, outer_key bytea)
returns bytea
language sql
immutable
as $$
	select sha256(outer_key || sha256(inner_key || message))
$$;

create function demo.seconds(since timestamptz, until timestamptz)
returns float8
language sql
immutable
as $$
	select extract(epoch from until - since)::float8
$$;

-- A webhook arrives: check its signature, store it, queue a run.
create function demo.receive(p_webhook_id int, p_body text, p_signature bytea)
returns text
language plpgsql
as $$
declare
	v_arrived timestamptz := clock_timestamp();
	v_body bytea := convert_to(p_body, 'UTF8');
	v_webhook demo.webhooks;
	v_workflow demo.workflows;
	v_status text := 'accepted';
	v_delivery_id bigint;
	v_now timestamptz;
begin
	select * into strict v_webhook
	from demo.webhooks
	where id = p_webhook_id;

	select * into strict v_workflow
	from demo.workflows
	where id = v_webhook.workflow_id;

	if demo.hmac_sha256(v_body, v_webhook.inner_key, v_webhook.outer_key) <> p_signature then
		v_status := 'rejected';
	end if;

	insert into demo.deliveries (project_id, webhook_id, source, status, bytes, payload, received_at)
	values (v_workflow.project_id, v_webhook.id, v_webhook.source, v_status, length(v_body), p_body::jsonb, v_arrived)
	returning id into v_delivery_id;

	if v_status = 'accepted' then
		v_now := clock_timestamp();

		insert into demo.runs (project_id, workflow_id, delivery_id, queued_at, due_at)
		values (v_workflow.project_id, v_workflow.id, v_delivery_id, v_now, v_now);

		perform meshhook_metrics.gauge_add('meshhook_queue_depth', 1, '{}', v_workflow.project_id);
	end if;

	perform meshhook_metrics.inc('meshhook_webhook_deliveries_total', 1,
		jsonb_build_object('source', v_webhook.source, 'status', v_status), v_workflow.project_id);
	perform meshhook_metrics.inc('meshhook_webhook_received_bytes_total', length(v_body),
		jsonb_build_object('source', v_webhook.source), v_workflow.project_id);
	perform meshhook_metrics.observe_since('meshhook_webhook_response_seconds', v_arrived,
		jsonb_build_object('source', v_webhook.source), v_workflow.project_id);

	return v_status;
end
$$;

-- A worker takes the run that has been due longest; 0 when there is none.
create function demo.claim()
returns bigint
language plpgsql
as $$
declare
	v_now timestamptz := clock_timestamp();
	v_started timestamptz;
	v_run demo.runs;
	v_labels jsonb;
begin
	select * into v_run
	from demo.runs
	where status = 'queued'
		and due_at <= v_now
	order by due_at
	limit 1
	for update skip locked;

	if not found then
		return 0;
	end if;

	v_started := clock_timestamp();

	update demo.runs
	set status = 'running',
		attempts = attempts + 1,
		started_at = coalesce(started_at, v_started)
	where id = v_run.id;

	insert into demo.attempts (run_id, attempt, project_id, workflow_id, due_at, started_at)
	values (v_run.id, v_run.attempts + 1, v_run.project_id, v_run.workflow_id, v_run.due_at, v_started);

	select jsonb_build_object('workflow', name) into v_labels
	from demo.workflows
	where id = v_run.workflow_id;

	perform meshhook_metrics.observe('meshhook_queue_wait_seconds',
		demo.seconds(v_run.due_at, v_started), v_labels, v_run.project_id);
	perform meshhook_metrics.gauge_add('meshhook_queue_depth', -1, '{}', v_run.project_id);
	perform meshhook_metrics.gauge_add('meshhook_workflow_runs_in_progress', 1, '{}', v_run.project_id);

	return v_run.id;
end
$$;

-- Step 1: an order's lines become totals per article.
create function demo.transform(p_payload jsonb)
returns jsonb
language plpgsql
as $$
begin
	if not p_payload ? 'customer' then
		raise exception using
			errcode = 'MH422',
			message = 'bad payload';
	end if;

	return (
		select jsonb_build_object(
			'customer', p_payload -> 'customer',
			'total', sum(a.amount),
			'articles', jsonb_agg(to_jsonb(a) order by a.amount desc))
		from (
			select l.sku, sum(l.quantity) as quantity, sum(l.quantity * l.price) as amount
			from jsonb_to_recordset(p_payload -> 'lines') l (sku text, quantity int, price numeric)
			group by l.sku
		) a
	);
end
$$;

-- Step 2: the call of another service.
create function demo.call_service(p_request jsonb, p_failure_rate float8)
returns jsonb
language plpgsql
as $$
declare
	v_request bytea := convert_to(p_request::text, 'UTF8');
	v_digest bytea := '';
	v_rounds int := 20 - 60 * ln(1 - random());
begin
	for i in 1 .. v_rounds loop
		v_digest := sha256(v_digest || v_request);
	end loop;

	if random() < p_failure_rate then
		raise exception using
			errcode = 'MH503',
			message = (array['timeout', 'status 429', 'status 503'])[1 + floor(3 * random())];
	end if;

	return jsonb_build_object('status', 200, 'digest', encode(v_digest, 'hex'));
end
$$;

-- All steps of one attempt. Runs inside a subtransaction of execute(): when a
-- step raises, the rows and the samples of the steps before it are undone.
create function demo.perform_steps(p_run demo.runs, p_workflow demo.workflows, p_payload jsonb)
returns void
language plpgsql
as $$
declare
	v_step text;
	v_started timestamptz;
	v_finished timestamptz;
	v_request jsonb;
	v_answer jsonb;
begin
	foreach v_step in array array['transform', 'call', 'store'] loop
		v_started := clock_timestamp();

		case v_step
			when 'transform' then
				v_request := demo.transform(p_payload);
			when 'call' then
				v_answer := demo.call_service(v_request, p_workflow.failure_rate);
			when 'store' then
				insert into demo.results (run_id, customer, total, answer)
				values (p_run.id, v_request ->> 'customer', (v_request ->> 'total')::numeric, v_answer);
		end case;

		v_finished := clock_timestamp();

		insert into demo.steps (run_id, attempt, project_id, step, started_at, finished_at)
		values (p_run.id, p_run.attempts, p_run.project_id, v_step, v_started, v_finished);

		perform meshhook_metrics.inc('meshhook_workflow_steps_total', 1,
			jsonb_build_object('step', v_step), p_run.project_id);
		perform meshhook_metrics.observe('meshhook_workflow_step_duration_seconds',
			demo.seconds(v_started, v_finished), jsonb_build_object('step', v_step), p_run.project_id);
	end loop;
end
$$;

-- A worker carries out the run that it has claimed, and ends it: succeeded,
-- failed (no use in trying again), queued for a retry, or dead after the last.
create function demo.execute(p_run_id bigint)
returns text
language plpgsql
as $$
declare
	v_run demo.runs;
	v_workflow demo.workflows;
	v_payload jsonb;
	v_status text := 'succeeded';
	v_error text;
	v_finished timestamptz;
	v_samples jsonb;
begin
	select * into strict v_run
	from demo.runs
	where id = p_run_id;

	select * into strict v_workflow
	from demo.workflows
	where id = v_run.workflow_id;

	select payload into strict v_payload
	from demo.deliveries
	where id = v_run.delivery_id;

	begin
		perform demo.perform_steps(v_run, v_workflow, v_payload);
	exception
		when sqlstate 'MH422' then
			v_status := 'failed';
			v_error := sqlerrm;
		when sqlstate 'MH503' then
			v_status := case when v_run.attempts < v_workflow.max_attempts then 'queued' else 'dead' end;
			v_error := sqlerrm;
	end;

	v_finished := clock_timestamp();

	update demo.runs
	set status = v_status,
		due_at = case when v_status = 'queued' then v_finished + v_workflow.back_off * 2 ^ (attempts - 1) else due_at end,
		finished_at = case when v_status <> 'queued' then v_finished end
	where id = v_run.id;

	update demo.attempts
	set finished_at = v_finished,
		outcome = case when v_status = 'queued' then 'retried' else v_status end,
		error = v_error
	where run_id = v_run.id
		and attempt = v_run.attempts;

	if v_status = 'dead' then
		insert into demo.dead_letters (run_id, error, payload)
		values (v_run.id, v_error, v_payload);
	end if;

	-- Several samples in one call: what a worker does that has a network between
	-- itself and the database.
	v_samples := jsonb_build_array(
		jsonb_build_object('op', 'gauge_add', 'metric', 'meshhook_workflow_runs_in_progress',
			'value', -1, 'tenant', v_run.project_id));

	if v_error is not null then
		v_samples := v_samples || jsonb_build_object('op', 'inc', 'metric', 'meshhook_workflow_errors_total',
			'labels', jsonb_build_object('workflow', v_workflow.name, 'reason', v_error), 'tenant', v_run.project_id);
	end if;

	if v_status = 'queued' then
		v_samples := v_samples
			|| jsonb_build_object('op', 'inc', 'metric', 'meshhook_workflow_retries_total',
				'labels', jsonb_build_object('workflow', v_workflow.name), 'tenant', v_run.project_id)
			|| jsonb_build_object('op', 'gauge_add', 'metric', 'meshhook_queue_depth',
				'value', 1, 'tenant', v_run.project_id);
	else
		v_samples := v_samples
			|| jsonb_build_object('op', 'inc', 'metric', 'meshhook_workflow_runs_total',
				'labels', jsonb_build_object('workflow', v_workflow.name, 'status', v_status), 'tenant', v_run.project_id)
			|| jsonb_build_object('op', 'observe', 'metric', 'meshhook_workflow_run_duration_seconds',
				'value', demo.seconds(v_run.started_at, v_finished),
				'labels', jsonb_build_object('workflow', v_workflow.name), 'tenant', v_run.project_id);
	end if;

	perform meshhook_metrics.record(v_samples);

	return v_status;
end
$$;

-- The outside world: an order with that many lines, signed with the webhook's
-- secret. One in a hundred is signed badly, one in fifty lacks its customer.
create function demo.send(p_webhook_id int, p_lines int)
returns text
language plpgsql
as $$
declare
	v_webhook demo.webhooks;
	v_payload jsonb;
	v_signature bytea;
begin
	select * into strict v_webhook
	from demo.webhooks
	where id = p_webhook_id;

	select jsonb_build_object(
		'customer', 'customer ' || floor(1000 * random()),
		'lines', jsonb_agg(jsonb_build_object(
			'sku', 'sku-' || floor(20 * random()),
			'quantity', 1 + floor(5 * random()),
			'price', round((100 * random())::numeric, 2))))
	into v_payload
	from generate_series(1, p_lines);

	if random() < 0.02 then
		v_payload := v_payload - 'customer';
	end if;

	v_signature := demo.hmac_sha256(convert_to(v_payload::text, 'UTF8'), v_webhook.inner_key, v_webhook.outer_key);

	if random() < 0.01 then
		v_signature := sha256(v_signature);
	end if;

	return demo.receive(p_webhook_id, v_payload::text, v_signature);
end
$$;
