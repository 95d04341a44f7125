-- Rules and ranges ask for labels as recording takes them: a number or a boolean is its
-- text, an empty value is no label
begin;
set local client_min_messages = warning;
\ir ../sql/include/api_roles.sql
\ir ../sql/include/migrations.sql
select no_plan();

\set tenant '77777777-7777-7777-7777-777777777777'
create temp table came (labels jsonb, value float8);
insert into came
values ('{"src": "x"}', 1), ('{"src": "x", "status": "ok"}', 10), ('{"status": "200"}', 100), ('{"status": "true"}', 1000), ('{}', 10000);
with added as (
	insert into meshhook_metrics.series (tenant_id, metric, kind, labels)
	select :'tenant', 'calls_total', 'counter', labels from came
	returning id, labels)
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select :'tenant', '2026-03-05 10:30:19.999999+00', 5, array_agg(a.id), array_agg(1), array_agg(c.value)
from added a
join came c using (labels);

create temp table asked (labels jsonb, expected float8);
insert into asked
values
	('{"status": "", "src": "x"}', 1), ('{"status": ""}', 10001), ('{"src": "x", "none": ""}', 11), ('{"src": "", "status": ""}', 10000),
	('{"status": 200}', 100), ('{"status": true}', 1000), ('{"status": "200"}', 100), ('{}', 11111);
select is((select value from meshhook_metrics.query_range('calls_total', '2026-03-05 10:30+00', '2026-03-05 10:31+00', '1 minute', labels, tenant => :'tenant')),
	expected, format('a range of %s', labels))
from asked;

insert into meshhook_metrics.alert_rules (tenant_id, name, metric, labels, aggregate, threshold, time_window)
select :'tenant', labels::text, 'calls_total', labels, 'increase', 0, '1 minute'
from asked;
select is((select v.value from meshhook_metrics.alert_values('2026-03-05 10:30:29.999999+00', array[r.id]) v where v.labels is not null), a.expected, format('a rule about %s', r.name))
from meshhook_metrics.alert_rules r
join asked a on a.labels::text = r.name;
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, labels, denominator_metric, denominator_labels, aggregate, threshold, time_window)
values (:'tenant', 'ratio', 'calls_total', '{"status": 200}', 'calls_total', '{"status": "", "src": ""}', 'increase', 0, '1 minute');
select is((select v.value from meshhook_metrics.alert_values('2026-03-05 10:30:29.999999+00', array[r.id]) v where v.labels is not null), 0.01::float8, 'and a ratio')
from meshhook_metrics.alert_rules r
where r.name = 'ratio';

-- What a rule cannot ask for says which of the two it is
select throws_ok($$ insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, denominator_metric, denominator_labels)
	values ('77777777-7777-7777-7777-777777777777', 'wrong', 'calls_total', 'increase', 0, 'calls_total', '[]') $$,
	'22023', 'denominator_labels are not an object, but array', 'an error names the column');

select * from finish();
rollback;
