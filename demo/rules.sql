-- The alert rules of initech, written by one of its users before the engine
-- begins: as role authenticated, with the claims of a signed-in user, as
-- PostgREST does it. The windows are the shortest that there are.

begin;
set local role authenticated;
select set_config('request.jwt.claims', '{"app_metadata": {"tenant_ids": ["c0000000-0000-4000-8000-000000000003"]}}', true) as claims \gset

insert into meshhook_metrics.alert_rules (
	tenant_id, name, metric, labels, aggregate, denominator_metric, denominator_min, group_by, comparison, threshold,
	time_window, for_duration, severity, annotations)
values
	-- Of each workflow's runs those that no attempt has helped
	('c0000000-0000-4000-8000-000000000003', 'Runs die',
		'meshhook_workflow_runs_total', '{"status": "dead"}', 'increase',
		'meshhook_workflow_runs_total', 20, '{workflow}', '>', 0.2,
		'10 seconds', '0', 'critical',
		'{"summary": "{{ value }} of the runs of {{ labels.workflow }} are given up, allowed are {{ threshold }}",
		"runbook_url": "https://runbooks.example.com/runs-die"}'),
	('c0000000-0000-4000-8000-000000000003', 'Runs are slow',
		'meshhook_workflow_run_duration_seconds', '{}', 'p95',
		null, 0, null, '>', 0.4,
		'10 seconds', '2 seconds', 'warning',
		'{"summary": "The p95 of a run is {{ value }} s, allowed are {{ threshold }} s"}'),
	('c0000000-0000-4000-8000-000000000003', 'Queue waits',
		'meshhook_queue_wait_seconds', '{}', 'p95',
		null, 0, null, '>', 5,
		'10 seconds', '0', 'warning',
		'{"summary": "The p95 of the wait for a worker is {{ value }} s"}');
commit;
