-- The schema, if it was there before the extension, may have been planted

do $$
declare
	stranger text;
	planted text;
begin
	-- A call with other types of arguments would prefer a function like these
	select pg_catalog.format('meshhook_metrics.%I(%s)', p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
	into planted
	from pg_catalog.pg_proc p
	join pg_catalog.pg_namespace n
		on n.oid operator(pg_catalog.=) p.pronamespace
	where n.nspname operator(pg_catalog.=) 'meshhook_metrics'
		and (
			pg_catalog.starts_with(p.proname::pg_catalog.text, 'histogram')
			or pg_catalog.starts_with(p.proname::pg_catalog.text, 'query_range')
			or pg_catalog.starts_with(p.proname::pg_catalog.text, 'alert_')
			or p.proname operator(pg_catalog.=) any (array[
				'inc', 'gauge_set', 'gauge_add', 'observe', 'observe_since', 'record', 'describe', 'reset',
				'snapshot', 'status', 'prometheus', 'flush',
				'rollup', 'maintain', 'schedule', 'unschedule', 'unschedule_lost', 'close_minutes', 'delete_old_live', 'prune_series', 'rollup_windows', 'rollup_targets',
				'require_storage', 'leaves', 'create_leaf', 'retention', 'scheduled_jobs', 'scheduled_by_pg_cron',
				'evaluate_alerts', 'evaluate_tenant_alerts', 'evaluate_alert_rules', 'note_alert_failure', 'write_notifications', 'claim_notifications', 'finish_notification', 'send_notifications']))
	limit 1;
	if planted is not null then
		raise exception 'function % is there already, and is not the extension''s', planted
			using
				errcode = 'duplicate_function',
				hint = 'Find out who made it; drop it, and create the extension before anything of this name.';
	end if;

	select n.nspowner::pg_catalog.regrole::pg_catalog.text
	into stranger
	from pg_catalog.pg_namespace n
	join pg_catalog.pg_roles r
		on r.oid operator(pg_catalog.=) n.nspowner
	where n.nspname operator(pg_catalog.=) 'meshhook_metrics'
		and not r.rolsuper
		and r.oid operator(pg_catalog.<>) (
			select d.datdba
			from pg_catalog.pg_database d
			where d.datname operator(pg_catalog.=) pg_catalog.current_database())
		and r.oid operator(pg_catalog.<>) (
			select e.extowner
			from pg_catalog.pg_extension e
			where e.extname operator(pg_catalog.=) 'meshhook_metrics');
	if stranger is not null and not (
		select r.rolsuper
		from pg_catalog.pg_extension e
		join pg_catalog.pg_roles r
			on r.oid operator(pg_catalog.=) e.extowner
		where e.extname operator(pg_catalog.=) 'meshhook_metrics')
	then
		raise exception 'schema "meshhook_metrics" belongs to %, who could put functions of its own among the extension''s', stranger
			using
				errcode = 'insufficient_privilege',
				hint = 'Drop the schema, or have it given to the role that creates the extension.';
	end if;

	-- A superuser may be restoring a dump, and the schema be that of its owner
	if stranger is not null then
		raise warning 'schema "meshhook_metrics" belongs to %, who can put functions of its own among the extension''s', stranger
			using hint = 'If that is not meant, give it to somebody you trust: ALTER SCHEMA meshhook_metrics OWNER TO ...';
	end if;
end
$$;
