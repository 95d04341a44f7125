-- The settings: who may change them, and to what
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

select name, context, vartype, boot_val, min_val, max_val, enumvals, short_desc, extra_desc
from pg_settings
where name like 'meshhook_metrics.%'
order by name collate "C" \gx
set meshhook_metrics.max_series = 1;
set meshhook_metrics.max_histograms = 1;
set meshhook_metrics.max_series_per_tenant = 1;
set meshhook_metrics.enabled = off;
set meshhook_metrics.on_error = log;
set meshhook_metrics.on_error = off;
set meshhook_metrics.on_commit = maybe;

-- Nobody can invent one
set meshhook_metrics.max_serie = 1;

-- What a session may set needs no privilege
create role regress_settings;
set role regress_settings;
set meshhook_metrics.on_error = warning;
set meshhook_metrics.on_error = error;
set meshhook_metrics.on_commit = on;
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111';
show meshhook_metrics.tenant;
reset role;
drop role regress_settings;
reset meshhook_metrics.on_commit;
reset meshhook_metrics.tenant;

-- A function can bring its own tenant and its own attitude
create function pg_temp.work() returns void
language plpgsql
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111'
set meshhook_metrics.on_error = warning
as $$
begin
	perform meshhook_metrics.inc('settings_total');
	perform meshhook_metrics.inc('settings_total', -1);
end
$$;
select pg_temp.work();
select meshhook_metrics.inc('settings_total', 2);
select meshhook_metrics.inc('settings_total', -1);
select tenant_id, value from meshhook_metrics.snapshot() order by tenant_id;

-- reset all brings back the platform and the errors
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111';
set meshhook_metrics.on_error = warning;
reset all;
show meshhook_metrics.tenant;
show meshhook_metrics.on_error;
select meshhook_metrics.inc('settings_reset_total');
select tenant_id from meshhook_metrics.snapshot() where metric = 'settings_reset_total';
