-- One line of numbers while the workload runs, for demo/run: all of them from
-- shared memory, none from the engine's tables.
select
	coalesce(sum(value) filter (where metric = 'meshhook_webhook_deliveries_total'), 0),
	coalesce(sum(value) filter (where metric = 'meshhook_workflow_runs_total'), 0),
	coalesce(sum(value) filter (where metric = 'meshhook_queue_depth'), 0),
	coalesce(sum(value) filter (where metric = 'meshhook_workflow_runs_in_progress'), 0),
	coalesce(sum(value) filter (where metric = 'meshhook_workflow_retries_total'), 0),
	coalesce(round(100 * (sum(value) filter (where metric = 'meshhook_workflow_runs_total' and labels ->> 'status' <> 'succeeded')
		/ nullif(sum(value) filter (where metric = 'meshhook_workflow_runs_total'), 0))::numeric, 1), 0),
	coalesce(round(1000 * meshhook_metrics.histogram_quantile(
		meshhook_metrics.histogram_merge(histogram) filter (where metric = 'meshhook_workflow_run_duration_seconds'), 0.95)::numeric, 1), 0),
	coalesce(round(1000 * meshhook_metrics.histogram_quantile(
		meshhook_metrics.histogram_merge(histogram) filter (where metric = 'meshhook_queue_wait_seconds'), 0.95)::numeric, 1), 0)
from meshhook_metrics.snapshot();
