-- The rows of alert_rules and alert_receivers: what is refused, and with which words
\getenv folder PG_ABS_SRCDIR
\set mistakes :folder /sql/include/mistake.sql
\set migrations :folder /sql/include/migrations.sql
\set ECHO none
set client_min_messages = warning;
\i :mistakes
begin;
\i :migrations
set local client_min_messages = notice;
set timezone = 'UTC';
set datestyle = 'ISO';
set intervalstyle = 'postgres';
\set ECHO all
\pset format unaligned
\pset tuples_only on

-- A rule that is good but for what is given; what is refused leaves nothing
create function pg_temp.rule(columns jsonb) returns text
language plpgsql as $$
declare
	written jsonb := '{"tenant_id": "11111111-1111-1111-1111-111111111111", "name": "rule", "metric": "runs_total", "aggregate": "increase", "threshold": 10}' || columns;
	listed text := (select string_agg(quote_ident(k), ', ') from jsonb_object_keys(written) k);
begin
	delete from meshhook_metrics.alert_rules;
	return pg_temp.mistake(format('insert into meshhook_metrics.alert_rules (%1$s) select %1$s from jsonb_populate_record(null::meshhook_metrics.alert_rules, %2$L)', listed, written));
end
$$;
-- Long ones are not repeated here
create function pg_temp.short(answer text) returns text
language sql as $$
	select regexp_replace(answer, '(.)\1{40,}', '\1...', 'g')
$$;
-- The same for each of some values of a column
create function pg_temp.each(name text, variadic "values" text[]) returns setof text
language sql as $$
	select pg_temp.short(coalesce(v, 'null') || ': ' || pg_temp.rule(jsonb_build_object(name, v)))
	from unnest("values") v
$$;
select pg_temp.rule('{}');

-- What must be there
select pg_temp.brief_mistake('insert into meshhook_metrics.alert_rules (name, metric, aggregate, threshold) values (''a'', ''b'', ''rate'', 1)') ~ '^23502: null value in column "tenant_id"';
select key || ': ' || split_part(pg_temp.rule(jsonb_build_object(key, null)), E'\n', 1)
from unnest(array['tenant_id', 'name', 'metric', 'aggregate', 'threshold', 'comparison', 'time_window', 'for_duration', 'keep_firing_for', 'no_data', 'no_data_for', 'severity', 'annotations', 'denominator_min', 'enabled']) key;

-- Names
select pg_temp.each('name', '', ' ', E'\t', E'a\nb', E'a\u0001b', repeat('n', 129));
select length(pg_temp.mistake(format('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (gen_random_uuid(), %L, %L, %L, 1)', repeat('n', 100000), 'm', 'rate')));
select pg_temp.each('name', repeat('n', 128), '!', 'Läuft 5 % zu langsam', '😀', '{{ value }}', '"');

-- Metrics
select pg_temp.each('metric', '', 'runs total', '1st', 'läuft', repeat('m', 129), 'a;b', 'runs_total ');
select pg_temp.each('metric', repeat('m', 128), '_', 'no_such_metric', 'A9');
select pg_temp.each('denominator_metric', '', 'runs total', '1st');

-- Labels
select labels || ': ' || pg_temp.mistake(format('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, %I) values (%L, %L, %L, %L, 1, %L)',
	name, '11111111-1111-1111-1111-111111111111', labels, 'm', 'rate', labels))
from unnest(array['labels', 'denominator_labels']) name, unnest(array['[]', '"status"', 'null', '{"status": null}', '{"status": ["failed"]}', '{"status": {}}']) labels;

select pg_temp.rule(jsonb_build_object('denominator_metric', 'runs_total', name, jsonb_build_object('status', repeat('x', n - 14))))
from unnest(array['labels', 'denominator_labels']) name, unnest(array[4000, 4001]) n;

-- Aggregates
select pg_temp.each('aggregate', '', 'sum', 'p', 'p101', 'P95', 'p95.', 'quantile', ' rate');
select pg_temp.each('aggregate', 'increase', 'rate', 'count', 'avg', 'min', 'max', 'last', 'p0', 'p50', 'p99.9', 'p100');

-- Ratios
select pg_temp.rule('{"denominator_labels": {"status": "failed"}}');
select pg_temp.rule('{"denominator_min": 20}');
select aggregate || ': ' || pg_temp.rule(jsonb_build_object('denominator_metric', 'runs_total', 'aggregate', aggregate))
from unnest(array['min', 'max', 'p95', 'increase', 'rate', 'count', 'avg', 'last']) aggregate;
select value || ': ' || pg_temp.rule(jsonb_build_object('denominator_metric', 'runs_total', 'denominator_min', value))
from unnest(array['-1', '-1e-300', 'NaN', 'Infinity', '-Infinity', '0', '0.5', '1e300']) value;

-- Numbers
select pg_temp.each('threshold', 'NaN', 'Infinity', '-Infinity', '0', '-0', '-1e300', '1e-300');
select pg_temp.each('recovery_threshold', 'NaN', 'Infinity', '-Infinity');
select pg_temp.rule(jsonb_build_object('comparison', comparison, 'recovery_threshold', recovery))
from unnest(array['>', '>=', '<', '<=', '=', '<>']) comparison, unnest(array[9, 10, 11]) recovery;

-- Groups
select groups || ': ' || pg_temp.rule(jsonb_build_object('group_by', groups::jsonb))
from unnest(array['[""]', '["a b"]', '["1a"]', '["ä"]', '[null]', '["queue", null]', '["alertname"]', '["queue", "severity"]', '["tenant_id"]', '["queue", "queue"]',
	'["l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8", "l9", "l10", "l11"]', '[["a", "b"], ["c", "d"]]',
	'[]', '["queue"]', '["l1", "l2", "l3", "l4", "l5", "l6", "l7", "l8", "l9", "l10"]']) groups;
select pg_temp.short(pg_temp.rule(jsonb_build_object('group_by', array[repeat('l', n)]))) from unnest(array[64, 65]) n;

-- What one can choose from
select pg_temp.each('comparison', '', '==', '=>', '!=', 'above', '> ', '>', '>=', '<', '<=', '=', '<>');
select pg_temp.each('no_data', '', 'OK', 'alerting', 'keep_last', 'ok', 'firing');
select pg_temp.each('severity', '', 'page', 'Critical', 'error', 'info', 'warning', 'critical');

-- Durations
select pg_temp.each('time_window', '0', '-5 minutes', '9 seconds', '9.999999 seconds', '10.5 seconds', '1 month', '1 month -29 days', '1 year', '31 days 1 second', '32 days',
	'10 seconds', '5 minutes', '1 day', '31 days', '744 hours', '30 days 24 hours');
select pg_temp.each('for_duration', '-1 second', '1 month', '32 days', '0', '0.5 seconds', '31 days');
select pg_temp.each('keep_firing_for', '-1 second', '1 month', '32 days', '0', '0.5 seconds', '31 days');
select pg_temp.each('no_data_for', '-1 second', '1 month', '32 days', '0', '31 days');
select no_data_for || ': ' || pg_temp.rule(jsonb_build_object('no_data', 'ok', 'no_data_for', no_data_for)) from unnest(array['0', '0.5 seconds', '31 days']) no_data_for;
select pg_temp.each('repeat_interval', '0', '-1 hour', '59.999 seconds', '1 month', '32 days', null, '1 minute', '31 days');

-- Annotations
select annotations || ': ' || pg_temp.rule(jsonb_build_object('annotations', annotations::jsonb))
from unnest(array['[]', '"text"', '1', '{"summary": 1}', '{"summary": null}', '{"summary": {"de": "x"}}', '{"a b": ""}', '{"": ""}', '{"1a": ""}',
	'{"summary": "{{ valu }}"}', '{"summary": "{{}}"}', '{"summary": "{{ Value }}"}', '{"summary": "{{ labels }}"}', '{"summary": "{{ labels. }}"}', '{"summary": "{{ labels.a-b }}"}',
	'{"summary": "{{ $value }}"}', '{"summary": "{{ value | humanize }}"}', '{"summary": "{{{ value }}}"}', '{"summary": "{{ value }"}', '{"summary": "{{ value"}', '{"summary": "{{ value }} of {{"}', '{"summary": "{{"}',
	'{"runbook_url": ""}', '{"runbook_url": "javascript:alert(1)"}', '{"runbook_url": "example.org"}', '{"runbook_url": "https://a b"}', '{"runbook_url": "{{ labels.url }}"}',
	'{}', '{"summary": ""}', '{"summary": "{{value}} {{ threshold }} {{ labels.queue }} { } }}"}', '{"runbook_url": "https://example.org/{{ labels.queue }}"}', '{"runbook_url": "http://wiki/1"}']) annotations;
select pg_temp.rule(jsonb_build_object('annotations', jsonb_build_object('summary', repeat('x', n - 15)))) from unnest(array[4000, 4001]) n;
select pg_temp.rule(jsonb_build_object('annotations', jsonb_build_object('summary', repeat('{{ value }}', n), 'other', repeat('{{ value }}', 10)))) from unnest(array[10, 11]) n;
select pg_temp.rule(jsonb_build_object('annotations', (select jsonb_object_agg('a' || i, '') from generate_series(1, n) i))) from unnest(array[20, 21]) n;
select pg_temp.short(pg_temp.rule(jsonb_build_object('annotations', jsonb_build_object(repeat('a', n), '')))) from unnest(array[64, 65]) n;

-- What is written is what is meant
select pg_temp.rule('{"labels": {"code": 500, "ok": true, "status": "failed"}, "denominator_metric": "runs_total", "denominator_labels": {"code": 5.0}, "group_by": []}');
select labels, denominator_labels, group_by is null, comparison, time_window, for_duration, keep_firing_for, no_data, no_data_for, severity, annotations, repeat_interval, enabled, silenced_until is null
from meshhook_metrics.alert_rules;
select pg_temp.rule('{"labels": null, "denominator_labels": null}');
select labels, denominator_labels from meshhook_metrics.alert_rules;

-- Changes
select pg_temp.mistake('update meshhook_metrics.alert_rules set tenant_id = ''22222222-2222-2222-2222-222222222222''');
select pg_temp.mistake('update meshhook_metrics.alert_rules set id = gen_random_uuid()');
select pg_temp.mistake('update meshhook_metrics.alert_rules set aggregate = ''sum''');
select pg_temp.mistake('update meshhook_metrics.alert_rules set group_by = ''{queue,queue}''');
select pg_temp.mistake('update meshhook_metrics.alert_rules set no_data_for = ''1 minute''');
select pg_temp.mistake('update meshhook_metrics.alert_rules set recovery_threshold = 11');
select pg_temp.mistake('update meshhook_metrics.alert_rules set recovery_threshold = 9, threshold = 8');
select pg_temp.mistake('update meshhook_metrics.alert_rules set id = id, tenant_id = tenant_id, labels = ''{"code": 404}'', silenced_until = ''infinity''');
select labels, silenced_until from meshhook_metrics.alert_rules;
update meshhook_metrics.alert_rules set last_error = 'it fails', last_error_at = now(), updated_at = '2000-01-01';
select last_error, updated_at < now() from meshhook_metrics.alert_rules;
update meshhook_metrics.alert_rules set threshold = threshold;
select last_error, last_error_at, updated_at = now() from meshhook_metrics.alert_rules;
select pg_temp.mistake('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) values (''11111111-1111-1111-1111-111111111111'', ''rule'', ''m'', ''rate'', 1)');

-- How many
delete from meshhook_metrics.alert_rules;
create function pg_temp.rules(tenant int, count int) returns text
language sql as $$
	select pg_temp.mistake(format('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) select %L, gen_random_uuid(), %L, %L, 1 from generate_series(1, %s)',
		repeat(tenant::text, 32)::uuid, 'm', 'rate', count))
$$;
select pg_temp.rules(1, 101);
select pg_temp.rules(1, 100);
select pg_temp.rules(1, 1);
select pg_temp.rules(2, 100);
insert into meshhook_metrics.settings values ('max_alert_rules', '11111111-1111-1111-1111-111111111111', '102'), ('max_alert_rules', '33333333-3333-3333-3333-333333333333', '0');
select pg_temp.rules(1, 2);
select pg_temp.rules(1, 1);
select pg_temp.rules(3, 1);
update meshhook_metrics.settings set value = '50' where tenant_id = '11111111-1111-1111-1111-111111111111';
update meshhook_metrics.alert_rules set threshold = 2;
select count(*) from meshhook_metrics.alert_rules where threshold = 2;

-- Receivers
create function pg_temp.receiver(name text, url text default null, headers jsonb default '{}') returns text
language sql as $$
	select pg_temp.mistake(format('insert into meshhook_metrics.alert_receivers (tenant_id, name, url, headers) values (%L, %L, %L, %L)', '11111111-1111-1111-1111-111111111111', name, url, headers))
$$;
select pg_temp.short(pg_temp.receiver(name)) from unnest(array['', E'a\nb', repeat('r', 129)]) name;
select url || ': ' || pg_temp.receiver('bad', url)
from unnest(array['', 'example.org', 'ftp://example.org', 'https://', 'https:// example.org', E'https://example.org\n', ' https://example.org', 'file:///etc/passwd']) url;
select length(pg_temp.receiver('bad', repeat('x', 100000)));
select coalesce(headers, 'null') || ': ' || pg_temp.receiver('bad', null, headers::jsonb)
from unnest(array['[]', '"x"', 'null', '{"a": 1}', '{"a": null}', '{"a": {}}', '{"": "x"}', '{"a b": "x"}', '{"a:": "x"}', '{"ä": "x"}', '{"a": "x\ny"}', '{"good": "x", "a": "x\r"}']) headers;
select split_part(pg_temp.receiver(null), E'\n', 1);
select split_part(pg_temp.receiver('bad', null, null), E'\n', 1);
select pg_temp.receiver('ops');
select pg_temp.receiver('ops');
select pg_temp.receiver('Büro 😀', 'https://example.org:8443/hook?a=1#b', '{"Authorization": "Bearer x y", "X-Empty": ""}');
select pg_temp.receiver('plain', 'http://127.0.0.1:9093/');
select pg_temp.mistake('update meshhook_metrics.alert_receivers set url = ''x'' where name = ''ops''');
select name, url, headers from meshhook_metrics.alert_receivers order by name;
rollback;
