-- Whose a sample is: the argument's, the session's, the platform's
\getenv folder PG_ABS_SRCDIR
\set prepare :folder /sql/include/prepare.sql
\set ECHO none
\i :prepare
\set ECHO all

-- Nobody's is the platform's, under the nil UUID
select meshhook_metrics.inc('tenant_total', 1);
select meshhook_metrics.inc('tenant_total', 10, tenant => null);
select meshhook_metrics.inc('tenant_total', 100, tenant => '00000000-0000-0000-0000-000000000000');
select tenant_id, value
from meshhook_metrics.snapshot();

-- The session's, unless an argument says otherwise
set meshhook_metrics.tenant = '11111111-1111-1111-1111-111111111111';
select meshhook_metrics.inc('tenant_total', 1);
select meshhook_metrics.inc('tenant_total', 10, '{}', null);
select meshhook_metrics.inc('tenant_total', 100, '{}', '22222222-2222-2222-2222-222222222222');
select meshhook_metrics.gauge_set('tenant_depth', 1);
select meshhook_metrics.gauge_add('tenant_depth', 1);
select meshhook_metrics.observe('tenant_seconds', 1);
select meshhook_metrics.observe_since('tenant_seconds', clock_timestamp());
select meshhook_metrics.record('[
	{"op": "inc", "metric": "tenant_batch_total"},
	{"op": "inc", "metric": "tenant_batch_total", "tenant": null, "value": 10},
	{"op": "inc", "metric": "tenant_batch_total", "tenant": "22222222-2222-2222-2222-222222222222", "value": 100}]');
select tenant_id, metric, count, value
from meshhook_metrics.snapshot()
order by metric, tenant_id;

-- It can be set for a transaction, and begins anew with its end
begin;
set local meshhook_metrics.tenant = '33333333-3333-3333-3333-333333333333';
select meshhook_metrics.inc('tenant_local_total');
commit;
select meshhook_metrics.inc('tenant_local_total', 10);
begin;
set meshhook_metrics.tenant = '33333333-3333-3333-3333-333333333333';
select meshhook_metrics.inc('tenant_local_total', 100);
rollback;
select meshhook_metrics.inc('tenant_local_total', 1000);
select tenant_id, value
from meshhook_metrics.snapshot()
where metric = 'tenant_local_total'
order by tenant_id;

-- The empty string is the platform again
set meshhook_metrics.tenant = '';
select meshhook_metrics.inc('tenant_empty_total');
reset meshhook_metrics.tenant;
select meshhook_metrics.inc('tenant_empty_total');
select tenant_id, value
from meshhook_metrics.snapshot()
where metric = 'tenant_empty_total';

-- A UUID may be written in every way that the type uuid reads
select meshhook_metrics.reset();
set meshhook_metrics.tenant = 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11';
select meshhook_metrics.inc('tenant_form_total');
set meshhook_metrics.tenant = '{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}';
select meshhook_metrics.inc('tenant_form_total');
set meshhook_metrics.tenant = 'a0eebc999c0b4ef8bb6d6bb9bd380a11';
select meshhook_metrics.inc('tenant_form_total');
set meshhook_metrics.tenant = 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11';
select meshhook_metrics.inc('tenant_form_total');
reset meshhook_metrics.tenant;
select meshhook_metrics.record(jsonb_agg(jsonb_build_object('op', 'inc', 'metric', 'tenant_form_total', 'tenant', form)))
from unnest(array['A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}',
	'a0eebc999c0b4ef8bb6d6bb9bd380a11', 'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11']) form;
select tenant_id, value
from meshhook_metrics.snapshot();

-- And in no other: setting and batch agree with the type
create function pg_temp.accepts(form text) returns text
language plpgsql as $$
begin
	perform set_config('meshhook_metrics.tenant', form, true);
	return 'accepted';
exception when invalid_parameter_value then
	return 'refused';
end
$$;
create function pg_temp.batch_accepts(form text) returns text
language plpgsql as $$
begin
	perform meshhook_metrics.record(jsonb_build_array(jsonb_build_object('op', 'inc', 'metric', 'tenant_form_total', 'tenant', form)));
	return 'accepted';
exception when invalid_parameter_value then
	return 'refused';
end
$$;
create function pg_temp.type_accepts(form text) returns text
language plpgsql as $$
begin
	perform form::uuid;
	return 'accepted';
exception when invalid_text_representation then
	return 'refused';
end
$$;
begin;
select form, pg_temp.type_accepts(form) as type, pg_temp.accepts(form) as setting, pg_temp.batch_accepts(form) as batch
from unnest(array['x', ' ', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a111',
	'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1g', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',
	'a0eebc99--9c0b-4ef8-bb6d-6bb9bd380a11', 'a0e-ebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '-a0eebc999c0b4ef8bb6d6bb9bd380a11',
	'a0eebc999c0b4ef8bb6d6bb9bd380a11-', ' a0eebc999c0b4ef8bb6d6bb9bd380a11', '{}', '{', 'null']) form;
rollback;

-- The setting says what is wrong with it
set meshhook_metrics.tenant = 'acme';
select pg_temp.mistake($$ select set_config('meshhook_metrics.tenant', 'acme', false) $$);
show meshhook_metrics.tenant;
