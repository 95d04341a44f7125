-- What the texts of an alert become of their rule's annotations: values as people read
-- them, and labels as text, whatever they look like
begin;
set local client_min_messages = warning;
\ir ../sql/include/migrations.sql
\ir ../sql/include/alerts.sql
select no_plan();

-- Values
select is(meshhook_metrics.alert_text('{{ value }}', value, 0, '{}'), shown, format('%s is shown as %s', value, shown))
from (values
	(0, '0'), ('-0', '0'), (1, '1'), (-1, '-1'), (10, '10'), (100, '100'), (1000, '1000'), (1e-7, '1e-07'), (0.0001, '0.0001'), (0.000099999, '9.9999e-05'),
	(0.0523809523809524, '0.052381'), (-0.0523809523809524, '-0.052381'), (1.0 / 3, '0.333333'), (2.0 / 3, '0.666667'), (0.1 + 0.2::float8, '0.3'),
	(1.00001, '1.00001'), (1.0000001, '1'), (12.3456789, '12.3457'), (123456.789, '123457'), (1234567.8, '1234568'), (123456789, '123456789'), (999999.5, '1000000'),
	(999999999999999, '999999999999999'), (1e15, '1e+15'), (1e300, '1e+300'), (-1e300, '-1e+300'), ('5e-324', '5e-324'), (null, 'no data')) v (value, shown);
select is(meshhook_metrics.alert_text('{{ threshold }}', 0, threshold, '{}'), shown, format('threshold %s', shown))
from (values (0.05::float8, '0.05'), (0, '0'), (1e-7, '1e-07'), (1e300, '1e+300'), (-3, '-3'), (0.1, '0.1')) v (threshold, shown);

-- Templates
select is(meshhook_metrics.alert_text(template, 0.25, 0.05, '{"queue": "q", "_x9": "y"}'), text, to_json(template)::text)
from (values
	('{{ value }} is above {{ threshold }} in {{ labels.queue }}', '0.25 is above 0.05 in q'), ('{{value}}', '0.25'), ('{{  value  }}', '0.25'), (E'{{\tvalue\n}}', '0.25'),
	('{{ value }}{{ value }}', '0.250.25'), ('a{{ value }}b', 'a0.25b'), ('{{ labels.none }}', ''), ('[{{ labels._x9 }}]', '[y]'), ('{ {{ value }} }', '{ 0.25 }'),
	('{ value }', '{ value }'), ('}} {', '}} {'), ('{ { value } }', '{ { value } }'), ('100 % of {"a": 1}', '100 % of {"a": 1}'), ('😀 {{ value }} \ \1 & %s', '😀 0.25 \ \1 & %s'), (' ', ' ')) t (template, text);

-- What a label brings is text
create temp table hostile (n int, label text);
insert into hostile values
	(1, '{{ value }}'), (2, '{{ labels.n }}'), (3, '{{'), (4, '}}'), (5, '{'), (6, 'say "hello"'), (7, E'back\\slash \\1 \\n'), (8, E'line\nbreak\ttab\r'), (9, E'\x01\x1f\x7f'), (10, '😀 𝒳 é'),
	(11, '<script>alert("x")</script> & &amp;'), (12, ''), (13, '%s %1$s $1'), (14, ''' or 1 = 1 --'), (15, repeat('x', 1000)), (16, E'\u202Eltr'), (17, '{"json": [1]}'), (18, '$(id) `id`');
select pg_temp.rule('{"name": "{{ labels.queue }}", "group_by": ["queue", "n"], "annotations": {"summary": "<{{ labels.queue }}|{{ value }}|{{ labels.queue }}>", "plain": "{ no {placeholder} }",
	"empty": "", "own": "{{ labels.alertname }} {{ labels.severity }} {{ labels.tenant_id }}"}}');
select pg_temp.sample('depth', pg_temp.t(0), 11, jsonb_build_object('queue', label, 'n', n)) from hostile;
select is(pg_temp.evaluate(0), count(*), 'labels can be anything') from hostile;
create temp view told as
select a from meshhook_metrics.alert_notifications n, jsonb_array_elements(n.payload -> 'alerts') a;
select bag_eq($$ select (a -> 'labels' ->> 'n')::int as n, a -> 'labels' ->> 'queue' as label, a -> 'annotations' ->> 'summary' as summary from told $$,
	$$ select n, label, left('<' || label || '|11|' || label || '>', 2000) from hostile $$, 'and are put in as they are, once, up to 2000 characters of a text');
select results_eq($$ select distinct (a -> 'annotations') - 'summary' from told $$,
	$$ values ('{"plain": "{ no {placeholder} }", "empty": "", "own": "{{ labels.queue }} warning 11111111-1111-1111-1111-111111111111"}'::jsonb) $$,
	'so is the name of the rule; what has no placeholder stays as it is');
select bag_eq($$ select (labels ->> 'n')::int as n, annotations ->> 'summary' as summary from meshhook_metrics.alert_events $$,
	$$ select n, left('<' || label || '|11|' || label || '>', 2000) from hostile $$, 'in events as well');
select results_eq('select payload::text::jsonb = payload, payload -> ''groupLabels'' ->> ''alertname'', payload -> ''commonLabels'' ->> ''alertname'' from meshhook_metrics.alert_notifications',
	$$ values (true, '{{ labels.queue }}', '{{ labels.queue }}') $$, 'the payload is the JSON that it is');

-- Texts are those of the time when it is told
select pg_temp.clear();
select pg_temp.rule('{"annotations": {"summary": "{{ value }} of {{ threshold }}"}, "repeat_interval": "1 minute"}');
select pg_temp.go('0=11 30=12 60=13');
update meshhook_metrics.alert_rules set annotations = '{"summary": "now {{ value }}"}';
select pg_temp.go('120=14 130=3');
select results_eq('select payload #>> ''{alerts,0,annotations,summary}'' from meshhook_metrics.alert_notifications order by id', array['11 of 10', '13 of 10', 'now 14', 'now 3'],
	'each time with the value and the text of then');
select pg_temp.clear();
select pg_temp.rule('{"no_data": "firing", "annotations": {"summary": "{{ value }}"}}');
select pg_temp.go('0=-');
select is((select payload #>> '{alerts,0,annotations,summary}' from meshhook_metrics.alert_notifications), 'no data', 'also without one');
select * from finish();
rollback;
