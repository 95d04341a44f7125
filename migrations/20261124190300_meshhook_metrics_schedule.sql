-- Partitions for the next days, and the jobs that keep rolling up

do $$
begin
	perform meshhook_metrics.maintain();
	perform meshhook_metrics.schedule();
end
$$;
