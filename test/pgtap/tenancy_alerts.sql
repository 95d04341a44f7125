-- Who writes which alert rules, and what he is told: a tenant's users their own, the
-- service role those of all, everybody else none
\ir ../sql/include/tenancy.sql

-- What is sent while everybody may listen says only that something has changed
\set heard `psql -X -q -A -t -c 'set role authenticated' -c 'listen meshhook_metrics_alerts' -c 'reset role' -c "update meshhook_metrics.alert_rules set threshold = 31336.5 where name = 'shared' and tenant_id = '22222222-2222-2222-2222-222222222222'; update meshhook_metrics.alert_rules set enabled = false where name = 'rule_secret'" -c 'do $x$ begin perform meshhook_metrics.evaluate_alerts(); end $x$' -c 'select 1' 2>&1`
begin;
select no_plan();
create temp table heard as
select regexp_replace(line, ' received from server process with PID \d+\.?$', '') as line
from regexp_split_to_table(:'heard', '\n') line;
select set_eq('table heard', array['1', 'Asynchronous notification "meshhook_metrics_alerts" with payload "changed"'],
	'a notification says that something has changed, and nothing else');
select is((select string_agg(reason, ', ') from meshhook_metrics.alert_events where name = 'rule_secret' and state = 'resolved'), 'disabled', 'something has');

-- Does a statement as somebody, and then asks, as who sees all; and undoes it
create function pg_temp.after(role name, claims text, statement text, question text) returns text
language plpgsql as $$
declare
	answer text;
	told text := 'done';
begin
	begin
		perform set_config('role', after.role, true);
		perform set_config('request.jwt.claims', coalesce(claims, ''), true);
		execute statement;
	exception when others then
		told := sqlstate;
	end;
	perform set_config('role', 'none', true);
	execute format('select string_agg(t::text, E''\n'') from (%s) t', question) into answer;
	raise exception using errcode = 'ZZ999', message = 'undo';
exception when sqlstate 'ZZ999' then
	perform set_config('role', 'none', true);
	return concat_ws(E'\n', told, answer);
end
$$;
-- What becomes of a statement of A's, if others' rules stay as they were
create temp table others as
select string_agg(r::text, E'\n' order by id) as lines
from meshhook_metrics.alert_rules r
where tenant_id <> :'a';
create function pg_temp.leaves_others(statement text) returns text
language sql as $$
	select case when a = concat_ws(E'\n', split_part(a, E'\n', 1), o.lines) then split_part(a, E'\n', 1) else 'others have ' || a end
	from others o,
		pg_temp.after('authenticated', '{"sub": "aaaaaaaa-0000-4000-8000-00000000000a"}', statement,
			'select * from meshhook_metrics.alert_rules where tenant_id <> ''11111111-1111-1111-1111-111111111111'' order by id') a
$$;
-- A statement with a rule's columns and values
create function pg_temp.inserting(rule jsonb) returns text
language sql as $$
	select format('insert into meshhook_metrics.alert_rules (%s) select %1$s from jsonb_to_record(%L) r (%s)',
		(select string_agg(format('%I', key), ', ') from jsonb_object_keys(r.rule) key),
		r.rule,
		(select string_agg(format('%I %s', key, format_type(a.atttypid, a.atttypmod)), ', ') from jsonb_object_keys(r.rule) key
			join pg_attribute a on a.attname = key and a.attrelid = 'meshhook_metrics.alert_rules'::regclass))
	from (select '{"name": "new", "metric": "own_total", "aggregate": "increase", "threshold": 1}'::jsonb || inserting.rule as rule) r
$$;
-- As PostgREST does for a POST that merges duplicates, or ignores them
create function pg_temp.upserting(rule jsonb, target text, resolution text default 'merge') returns text
language sql as $$
	select pg_temp.inserting(upserting.rule) || format(' on conflict (%s) do %s', target,
		case resolution
			when 'merge' then 'update set ' || (select string_agg(format('%I = excluded.%1$I', key), ', ')
				from jsonb_object_keys('{"name": "new", "metric": "own_total", "aggregate": "increase", "threshold": 1}'::jsonb || upserting.rule) key)
			else 'nothing'
		end)
$$;

-- What they see
select is(pg_temp.ask('authenticated', claims, format('select string_agg(distinct name, '' '' order by name) from meshhook_metrics.%I', storage)), answer,
	format('%s: %s', storage, claims))
from unnest(array['alert_rules', 'alert_events']) storage,
	(values (:'claims_a', '("own shared")'), (:'claims_b', '("rule_secret shared")'), ('{}', '()')) c (claims, answer);
select is(pg_temp.ask_as_a('select name, labels, value, annotations from meshhook_metrics.alerts order by name, value'),
	E'(own,{},1,{})\n(shared,"{""status"": ""failed""}",2,"{""summary"": ""2 were failed""}")\n(shared,"{""status"": ""ok""}",3,"{""summary"": ""3 were ok""}")',
	'A''s alerts are about A''s samples');
select is(pg_temp.ask_as_b('select name, value from meshhook_metrics.alerts'), '(shared,31337)', 'B''s about B''s');

-- What A writes of its own
select is(pg_temp.leaves_others(pg_temp.inserting(jsonb_build_object('tenant_id', :'a'))), 'done', 'A inserts a rule');
select is(pg_temp.ask_as_a(pg_temp.inserting(jsonb_build_object('tenant_id', :'a')) || ' returning *'), 'done', 'and gets it back');
select is(pg_temp.leaves_others('update meshhook_metrics.alert_rules set threshold = threshold + 1'), 'done', 'A updates all rules that it sees, which are its own');
select is(pg_temp.leaves_others('delete from meshhook_metrics.alert_rules'), 'done', 'and deletes them');
select is(pg_temp.after('authenticated', :'claims_a', 'delete from meshhook_metrics.alert_rules',
	format('select count(*) from meshhook_metrics.alert_rules where tenant_id = %L', :'a')), E'done\n(0)', 'so that none is left');
select is(pg_temp.leaves_others(format('%s where %s', change, condition)), 'done', format('%s where %s: of others'' none', change, condition))
from unnest(array['update meshhook_metrics.alert_rules set enabled = false', 'delete from meshhook_metrics.alert_rules']) change,
	unnest(array[format('tenant_id = %L', :'b'), format('tenant_id <> %L', :'a'), 'name = ''rule_secret''', 'id = ''22222222-0000-4000-8000-000000000001''',
		'ctid is not null', 'true']) condition;
select is(pg_temp.leaves_others('merge into meshhook_metrics.alert_rules r using (values (''rule_secret''), (''shared''), (''platform_rule'')) n (name) on r.name = n.name when matched then delete'),
	'done', 'a MERGE on names meets A''s only');
-- Columns: all can be named, and those of the server stay as they are, for which see api_writes_alert_rules
create temp table columns as
select a.attname::text as name
from pg_attribute a
where a.attrelid = 'meshhook_metrics.alert_rules'::regclass and a.attnum > 0 and not a.attisdropped;
select matches(pg_temp.ask(role, :'claims_a', statement), case when name = 'id' and statement ~ '^insert' then '^23505: duplicate key value violates unique constraint "alert_rules_pkey"' else '^done$' end,
	format('%s: %s', role, left(statement, 70)))
from columns,
	unnest(array['authenticated', 'service_role']) role,
	unnest(array[
		format('update meshhook_metrics.alert_rules set %I = %1$I', name),
		pg_temp.inserting(jsonb_build_object('tenant_id', '11111111-1111-1111-1111-111111111111') ||
			coalesce((select jsonb_build_object(columns.name, to_jsonb(r) -> columns.name)
				from meshhook_metrics.alert_rules r
				where r.name = 'own' and columns.name not in ('name', 'metric', 'aggregate', 'threshold', 'group_by')), '{}'))]) statement
order by role, columns.name, statement;

-- Another's: whoever it is, and whatever he has, the error is the same
create temp table attempts (what text, rule jsonb);
insert into attempts values
	('a free name', '{}'),
	('a name that is taken', '{"name": "shared"}'),
	('a name that B alone has', '{"name": "rule_secret"}'),
	('an id that B has', '{"id": "22222222-0000-4000-8000-000000000001"}'),
	('an id and a name that B has', '{"id": "22222222-0000-4000-8000-000000000002", "name": "rule_secret"}'),
	('an id that A has', '{"id": "11111111-0000-4000-8000-000000000001"}');
create temp view answers as
select tenant, what, form, settings.value as quota, pg_temp.after('tenancy_owner', null,
	format('delete from meshhook_metrics.settings where name = ''max_alert_rules''; insert into meshhook_metrics.settings values (''max_alert_rules'', %L, %L)', tenant, settings.value),
	format('select pg_temp.ask_as_a(%L)', case form
		when 'insert' then pg_temp.inserting(attempt.rule)
		when 'merge by id' then pg_temp.upserting(attempt.rule, 'id')
		when 'merge by name' then pg_temp.upserting(attempt.rule, 'tenant_id, name')
		else pg_temp.upserting(attempt.rule, 'tenant_id, name', 'ignore') end)) as answer
from unnest(array['22222222-2222-2222-2222-222222222222', '00000000-0000-0000-0000-000000000000', '33333333-3333-3333-3333-333333333333']) tenant,
	attempts,
	unnest(array['0', '2', '1000']) settings (value),
	unnest(array['insert', 'merge by id', 'merge by name', 'ignore']) form,
	lateral (select attempts.rule || jsonb_build_object('tenant_id', tenant) as rule) attempt;
select is(count(*), 216::bigint, 'A writes for others in many ways') from answers;
select is_empty(
	$$ select * from answers where answer !~ case when what ~ '^an id.*B' then E'^done\n\\("22023: there is no rule .* to change, and a new rule gets its id from the server\n' end
		or answer <> case when what !~ '^an id.*B' then E'done\n("42501: new row violates row-level security policy for table ""alert_rules""")' end $$,
	'and is told the same, whether there is such a tenant, name or id, and whatever its quota');
select is(pg_temp.ask_as_a(pg_temp.inserting(jsonb_build_object('tenant_id', tenant, 'threshold', 'NaN'))),
	E'22023: threshold cannot be NaN\nIt is a finite number.', 'nor does a rule that makes no sense tell of ' || left(tenant, 1))
from unnest(array[:'a', :'b', :'nil', '33333333-3333-3333-3333-333333333333']) tenant;
select is(pg_temp.ask_as_a(pg_temp.inserting('{}')), '42501: new row violates row-level security policy for table "alert_rules"', 'without a tenant it is nobody''s');
-- Ids are the server's to give, so that nobody learns which are taken
select is(pg_temp.ask('authenticated', :'claims_a', pg_temp.inserting(jsonb_build_object('tenant_id', :'a', 'id', id))),
	format(E'22023: there is no rule %s to change, and a new rule gets its id from the server\nLeave id out to make a new rule; what is returned says which id it has.', id),
	format('a tenant inserts no rule with id %s', id))
from unnest(array['22222222-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', '99999999-0000-4000-8000-000000000001']) id;
select matches(pg_temp.ask('service_role', null, pg_temp.inserting(jsonb_build_object('tenant_id', :'a', 'id', '99999999-0000-4000-8000-000000000001'))), '^22023: there is no rule',
	'nor does the service role');
select is(pg_temp.ask_as_a(pg_temp.inserting(jsonb_build_object('tenant_id', :'a', 'name', 'own'))),
	'23505: duplicate key value violates unique constraint "alert_rules_tenant_id_name_key"', 'so is a name of one''s own');
select is(pg_temp.ask_as_a(pg_temp.inserting(jsonb_build_object('tenant_id', :'a', 'name', 'rule_secret'))), 'done', 'one that B has is free');

-- Rules do not move
select is(pg_temp.ask(role, :'claims_a', format('update meshhook_metrics.alert_rules set tenant_id = %L where name = ''own''', tenant)),
	E'22023: rule "own" cannot be given another tenant than it has\nInsert a new rule, and delete this one.', format('%s does not move a rule to %s', role, left(tenant, 1)))
from unnest(array['authenticated', 'service_role']) role, unnest(array[:'b', :'nil', '33333333-3333-3333-3333-333333333333']) tenant;
select is(pg_temp.ask(role, :'claims_a', 'update meshhook_metrics.alert_rules set id = gen_random_uuid() where name = ''own'''),
	'done', role || ' asks for another id of a rule')
from unnest(array['authenticated', 'service_role']) role;
select is(pg_temp.ask('tenancy_owner', null, 'update meshhook_metrics.alert_rules set id = gen_random_uuid() where name = ''own'''),
	E'22023: rule "own" cannot be given another id than it has\nInsert a new rule, and delete this one.', 'nor does the owner');
-- A user to whom both belong
create temp table owners as table public.projects;
update public.projects set owner = 'cccccccc-0000-4000-8000-00000000000c';
select is(pg_temp.ask('authenticated', :'claims_nobody',
	format('update meshhook_metrics.alert_rules set tenant_id = %L where name = ''own''', :'b')),
	E'22023: rule "own" cannot be given another tenant than it has\nInsert a new rule, and delete this one.', 'nor does who belongs to both');
update public.projects p set owner = o.owner from owners o where o.id = p.id;

-- Upserts of one's own
\set own '{"tenant_id": "11111111-1111-1111-1111-111111111111", "name": "own"}'
\set asked 'select name, threshold, created_at < now() - interval ''0'', updated_at = now(), (select count(*) from meshhook_metrics.alert_rules where tenant_id = ''11111111-1111-1111-1111-111111111111'') from meshhook_metrics.alert_rules where id = ''11111111-0000-4000-8000-000000000002'''
select is(pg_temp.after('authenticated', :'claims_a', pg_temp.upserting(:'own'::jsonb || '{"threshold": 7}', 'tenant_id, name'), :'asked'), E'done\n(own,7,t,t,2)',
	'an upsert by tenant and name updates');
select is(pg_temp.after('authenticated', :'claims_a', pg_temp.upserting(:'own'::jsonb || '{"threshold": 7}', 'tenant_id, name', 'ignore'), :'asked'), E'done\n(own,0,t,f,2)',
	'one that ignores duplicates does so');
select is(pg_temp.after('authenticated', :'claims_a', pg_temp.upserting(jsonb_build_object('tenant_id', :'a'), 'tenant_id, name'),
	format('select name, threshold from meshhook_metrics.alert_rules where tenant_id = %L order by name', :'a')), E'done\n(new,1)\n(own,0)\n(shared,1)', 'what is new it inserts');
-- With an id that A has not, whoever has it, there is none
select matches(pg_temp.ask_as_a(pg_temp.upserting(jsonb_build_object('tenant_id', :'a', 'id', id), target, resolution)),
	'^22023: there is no rule .* to change', format('no upsert (%s) by %s with id %s', resolution, target, id))
from unnest(array['22222222-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002', '99999999-0000-4000-8000-000000000001']) id,
	unnest(array['id', 'tenant_id, name']) target, unnest(array['merge', 'ignore']) resolution;
select is(pg_temp.leaves_others(pg_temp.upserting(:'own'::jsonb, 'tenant_id, name') || '; ' || pg_temp.upserting(jsonb_build_object('tenant_id', tenant, 'name', 'shared'), 'tenant_id, name')),
	'42501', 'nor one for ' || left(tenant, 1))
from unnest(array[:'b', :'nil']) tenant;

-- The quota: 100, or the tenant's own
create function pg_temp.many(tenant uuid, rules integer, prefix text default 'many') returns text
language sql as $$
	select format('insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold) select %L, %L || n, ''own_total'', ''increase'', 1 from generate_series(1, %s) n',
		tenant, prefix, rules)
$$;
create function pg_temp.as_settings_say(settings text, role name, claims text, statement text) returns text
language plpgsql as $$
declare
	answer text;
begin
	execute settings;
	answer := pg_temp.ask(role, claims, statement);
	raise exception using errcode = 'ZZ998', message = 'undo';
exception when sqlstate 'ZZ998' then
	return answer;
end
$$;
\set hint 'Delete a rule that is not needed, let one rule stand for several with group_by, or ask the administrator for more (setting max_alert_rules).'
\set of_both 'update public.projects set owner = ''cccccccc-0000-4000-8000-00000000000c'''
create temp table quotas (settings text, role name, claims text, statement text, quota text, what text);
insert into quotas values
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 98), null, '100 rules without a setting'),
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 99), '100', 'no more, and none of an insert that is too long'),
	('select', 'service_role', null, pg_temp.many(:'a', 99), '100', 'neither for the service role'),
	('select', 'service_role', null, pg_temp.many(:'nil', 99), '100', 'nor for the platform'),
	(:'of_both', 'authenticated', :'claims_nobody', pg_temp.many(:'a', 98) || ';' || pg_temp.many(:'b', 98), null, 'each tenant has its own'),
	(:'of_both', 'authenticated', :'claims_nobody', pg_temp.many(:'a', 98) || ';' || pg_temp.many(:'b', 99), '100', 'whoever writes'),
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 98) || '; update meshhook_metrics.alert_rules set enabled = false; ' || pg_temp.many(:'a', 1, 'more'), '100', 'what is disabled counts'),
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 98) || '; delete from meshhook_metrics.alert_rules where name = ''own''; ' || pg_temp.many(:'a', 1, 'more'), null, 'what is deleted does not'),
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 98) || ';' || pg_temp.upserting(:'own'::jsonb, 'tenant_id, name'), null, 'with all of them, those that are there can be upserted'),
	('select', 'authenticated', :'claims_a', pg_temp.many(:'a', 98) || ';' || pg_temp.upserting(jsonb_build_object('tenant_id', :'a'), 'tenant_id, name'), '100', 'and no other'),
	('select', 'tenancy_owner', null, pg_temp.many(:'a', 99), '100', 'it holds for the owner as well');
insert into quotas
select format('insert into meshhook_metrics.settings values (''max_alert_rules'', %L, %L)', tenant, value), role, claims, pg_temp.many(of::uuid, rules), quota,
	format('%s for %s: %s more for %s', value, left(tenant, 1), rules, left(of, 1))
from (values
	(:'a', '3', 'authenticated', :'claims_a', :'a', 1, null),
	(:'a', '3', 'authenticated', :'claims_a', :'a', 2, '3'),
	(:'a', '2', 'authenticated', :'claims_a', :'a', 1, '2'),
	(:'a', '0', 'authenticated', :'claims_a', :'a', 1, '0'),
	(:'a', '0', 'service_role', null, :'a', 1, '0'),
	(:'a', '150', 'authenticated', :'claims_a', :'a', 148, null),
	(:'a', '150', 'authenticated', :'claims_a', :'a', 149, '150'),
	-- One that another tenant has is nobody else's, the platform's is not the default
	(:'b', '0', 'authenticated', :'claims_a', :'a', 98, null),
	(:'b', '1000', 'authenticated', :'claims_a', :'a', 99, '100'),
	(:'nil', '0', 'authenticated', :'claims_a', :'a', 98, null),
	(:'nil', '1000', 'authenticated', :'claims_a', :'a', 99, '100'),
	(:'nil', '0', 'service_role', null, :'nil', 1, '0')) q (tenant, value, role, claims, of, rules, quota);
-- What only gets in where the trigger is off does not count
insert into quotas
select format('alter table meshhook_metrics.settings disable trigger check_settings; insert into meshhook_metrics.settings values (''max_alert_rules'', %L, %L)', :'a', value),
	'authenticated', :'claims_a', pg_temp.many(:'a', rules), quota, format('%s is no quota: %s more', to_json(value), rules)
from unnest(array['x', '', '-1', '1e9', '99999999999999999999', E'5\n']) value, (values (98, null), (99, '100')) n (rules, quota);
select is(pg_temp.as_settings_say(settings, role, claims, statement),
	case when quota is null then 'done'
		else format(E'53400: this tenant has %s alert rules already, as many as it may have\n%s', quota, :'hint') end, what)
from quotas;
select is(pg_temp.ask_as_a('select * from meshhook_metrics.settings'), '42501: permission denied for table settings', 'though nobody reads the settings');

-- The trigger that counts runs with the rights of the owner, and does what it says only
create schema tenancy_attack;
grant usage, create on schema tenancy_attack to authenticated;
set local role authenticated;
create temp table gained (what text);
grant insert on gained to public;
create function tenancy_attack.gain(what text) returns boolean
language plpgsql as $$
begin
	insert into gained values (format('%s with the rights of %s', what, current_user));
	return true;
end
$$;
create function tenancy_attack.hashtext(text) returns integer language sql as 'select tenancy_attack.gain(''a function'')::integer';
create function tenancy_attack.equal(uuid, uuid) returns boolean language sql as 'select tenancy_attack.gain(''an operator'')';
create operator tenancy_attack.= (function = tenancy_attack.equal, leftarg = uuid, rightarg = uuid);
create domain tenancy_attack.uuid as pg_catalog.uuid check (tenancy_attack.gain('a type'));
create domain tenancy_attack.text as pg_catalog.text check (tenancy_attack.gain('a type'));
create domain pg_temp.text as pg_catalog.text check (tenancy_attack.gain('a temporary type'));
create domain pg_temp.bigint as pg_catalog.int8 check (tenancy_attack.gain('a temporary type'));
create temp table settings (name pg_catalog.text, tenant_id pg_catalog.uuid, value pg_catalog.text);
create temp table alert_rules (tenant_id pg_catalog.uuid);
reset role;
delete from gained;
select set_config('request.jwt.claims', :'claims_a', true);
create function pg_temp.insert_under(path pg_catalog.text) returns pg_catalog.text
language plpgsql as $$
begin
	perform set_config('role', 'authenticated', true), set_config('search_path', path, true);
	insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
	values ('11111111-1111-1111-1111-111111111111', path, 'own_total', 'increase', 1);
	perform set_config('role', 'none', true), set_config('search_path', 'public', true);
	return (select pg_catalog.string_agg(distinct what, '; ') from gained where what !~ 'rights of authenticated');
end
$$;
select is(pg_temp.insert_under(path), null, 'a rule inserted with search_path ' || path || ' gains nothing')
from unnest(array['public', 'pg_temp, pg_catalog', 'tenancy_attack, pg_temp, pg_catalog', 'tenancy_attack, meshhook_metrics']::pg_catalog.text[]) path;
drop domain pg_temp.text, pg_temp.bigint;
drop table pg_temp.settings, pg_temp.alert_rules;
delete from meshhook_metrics.alert_rules where name ~ 'public|pg_catalog|tenancy_attack';

-- What is not A's to read, or to do
select is(pg_temp.ask_as_a(format('select %s from meshhook_metrics.%I', what, storage)), '42501: permission denied for table ' || storage, format('A reads no %s of %s', what, storage))
from unnest(array['alert_receivers', 'alert_notifications', 'alert_state', 'alert_gaps']) storage, unnest(array['1', '*', 'ctid', 'count(*)']) what;
select is(pg_temp.ask('authenticated', :'claims_a', statement), '42501: permission denied for table ' || storage, 'A: ' || statement)
from (values ('alerts'), ('alert_events'), ('alert_receivers'), ('alert_notifications'), ('alert_state'), ('alert_gaps')) s (storage),
	unnest(array[format('insert into meshhook_metrics.%I default values', storage), format('delete from meshhook_metrics.%I', storage),
		format('update meshhook_metrics.%I set %I = %2$I', storage, case storage when 'alert_state' then 'rules' when 'alert_gaps' then 'ends' else 'tenant_id' end)]) statement;
create temp table calls (call text);
insert into calls values
	('evaluate_tenant_alerts(now(), ''{22222222-2222-2222-2222-222222222222}'')'), ('note_alert_failure(now(), ''22222222-2222-2222-2222-222222222222'', ''no'')'),
	('evaluate_alerts()'), ('evaluate_alerts(now())'),
	('alert_values(now(), ''{22222222-0000-4000-8000-000000000001}'')'),
	('alert_pieces(''{22222222-2222-2222-2222-222222222222}'')'), ('evaluate_alert_rules(now(), ''{22222222-0000-4000-8000-000000000001}'', true)'),
	('alert_values_apart(now(), ''{22222222-0000-4000-8000-000000000001}'')'),
	('alert_totals(now(), ''{22222222-2222-2222-2222-222222222222}'', ''{1}'', ''{1}'', ''{1}'', ''{f}'', array[now()], array[now()], array[now()], array[now()], array[now()], ''{5m}'', ''{t}'')'),
	('alert_spans(now(), ''{1 hour}'')'), ('alert_text(''{{ value }}'', 1, 2, ''{}'')'), ('alert_annotations(''{}'', 1, 2, ''{}'')'),
	('write_notifications(now(), ''{1}'', null)'), ('send_notifications()');
create temp table deliveries (call text);
insert into deliveries values ('claim_notifications(1000)'), ('claim_notifications()'), ('finish_notification(1)'), ('finish_notification(1, ''no'')');
select is(pg_temp.ask(role, :'claims_a', 'select * from meshhook_metrics.' || call), '42501: permission denied for ' || case role
	when 'tenancy_stranger' then 'schema meshhook_metrics' else 'function ' || split_part(call, '(', 1) end,
	format('%s does not call %s', role, left(call, 60)))
from (select call, unnest(array['anon', 'tenancy_stranger', 'authenticated', 'service_role']) as role from calls
	union all
	select call, unnest(array['anon', 'tenancy_stranger', 'authenticated']) from deliveries) c
order by role, call;

-- Anybody else: nothing
select is(pg_temp.ask(role, claims, format(statement, storage)),
	'42501: permission denied for ' || case role when 'anon' then 'table ' || storage else 'schema meshhook_metrics' end, format('%s: ' || statement, role, storage))
from unnest(array['anon', 'tenancy_stranger']) role,
	unnest(array[:'claims_a', '{}']) claims,
	unnest(array['alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications', 'alert_state', 'alert_gaps']) storage,
	unnest(array['select * from meshhook_metrics.%I', 'insert into meshhook_metrics.%I default values', 'delete from meshhook_metrics.%I']) statement;

-- The service role: rules of all, receivers, delivery
select is(pg_temp.after('service_role', null, pg_temp.inserting(jsonb_build_object('tenant_id', tenant)), format('select tenant_id from meshhook_metrics.alert_rules where name = ''new''')),
	format(E'done\n(%s)', tenant), 'the service role writes rules for ' || left(tenant, 1))
from unnest(array[:'a', :'b', :'nil', '33333333-3333-3333-3333-333333333333']) tenant;
select is(pg_temp.after('service_role', null, pg_temp.upserting('{"tenant_id": "22222222-2222-2222-2222-222222222222", "name": "shared", "threshold": 5}', 'tenant_id, name'),
	'select threshold from meshhook_metrics.alert_rules where id = ''22222222-0000-4000-8000-000000000001'''), E'done\n(5)', 'and upserts them by tenant and name');
select is(pg_temp.after('service_role', null, 'delete from meshhook_metrics.alert_rules where name = ''shared''',
	'select string_agg(name, '' '' order by name) from meshhook_metrics.alert_rules'), E'done\n("own platform_rule rule_secret")', 'and deletes them');
select is(pg_temp.ask('service_role', null, $$ select string_agg(concat_ws(' ', left(tenant_id::text, 1), name, headers), '; ' order by tenant_id) from meshhook_metrics.alert_receivers $$),
	'("0 platform_receiver {}; 1 default {""Authorization"": ""Bearer of_a""}; 2 receiver_secret {""Authorization"": ""Bearer bearer_secret""}")', 'it reads the receivers');
select is(pg_temp.after('service_role', null, $$ insert into meshhook_metrics.alert_receivers (tenant_id, name, url) values ('11111111-1111-1111-1111-111111111111', 'new', 'https://duty.example/');
		update meshhook_metrics.alert_receivers set headers = '{"X-Key": "1"}', name = 'renamed' where name = 'receiver_secret';
		delete from meshhook_metrics.alert_receivers where name = 'default' $$,
	'select string_agg(concat_ws('' '', left(tenant_id::text, 1), name, url, headers), ''; '' order by tenant_id) from meshhook_metrics.alert_receivers'),
	E'done\n("0 platform_receiver {}; 1 new https://duty.example/ {}; 2 renamed {""X-Key"": ""1""}")', 'and writes them');
select is(pg_temp.ask('service_role', null, $$ select string_agg(concat_ws(' ', left(tenant_id::text, 1), receiver, headers, attempts,
		payload #>> '{groupLabels,alertname}', payload #>> '{alerts,0,status}'), '; ' order by id) from meshhook_metrics.claim_notifications(1000) $$),
	(select format('("%s")', string_agg(concat_ws(' ', left(n.tenant_id::text, 1), n.receiver, replace(r.headers::text, '"', '""'), 1,
		n.payload #>> '{groupLabels,alertname}', n.payload #>> '{alerts,0,status}'), '; ' order by n.id))
		from meshhook_metrics.alert_notifications n join meshhook_metrics.alert_receivers r on r.tenant_id = n.tenant_id and r.name = n.receiver
		where n.id in (select min(id) from meshhook_metrics.alert_notifications group by rule_id)),
	'it claims those of all tenants, the first of each rule');
select is(pg_temp.after('service_role', null, $$ do $x$
	begin
		if (select count(*) from meshhook_metrics.claim_notifications(1000)) <> 6
			or not meshhook_metrics.finish_notification(1) or meshhook_metrics.finish_notification(1) or not meshhook_metrics.finish_notification(2, 'no')
		then
			raise 'refused';
		end if;
	end $x$ $$, 'select id, attempts, delivered_at is not null, dead_at is not null, last_error from meshhook_metrics.alert_notifications where id < 4 order by id'),
	E'done\n(1,1,t,f,)\n(2,1,f,f,no)\n(3,1,f,f,)', 'and says what became of them');
-- But the text of it and what has happened are the server's
select is(pg_temp.ask('service_role', null, format('update meshhook_metrics.%I set %I = %s', storage, attname, case attidentity when '' then quote_ident(attname) else 'default' end)), '42501: permission denied for table ' || storage,
	format('the service role does not change %s of %s', attname, storage))
from unnest(array['alerts', 'alert_events', 'alert_state', 'alert_gaps', 'alert_notifications']) storage
join pg_attribute a on a.attrelid = format('meshhook_metrics.%I', storage)::regclass and a.attnum > 0
where storage <> 'alert_notifications' or attname not in ('attempts', 'next_attempt_at', 'last_error', 'delivered_at', 'dead_at')
order by storage, attnum;
select is(pg_temp.ask('service_role', null, format(statement, storage)), '42501: permission denied for table ' || storage, format('the service role: ' || statement, storage))
from unnest(array['alerts', 'alert_events', 'alert_state', 'alert_gaps', 'alert_notifications']) storage,
	unnest(array['insert into meshhook_metrics.%I default values', 'delete from meshhook_metrics.%I', 'truncate meshhook_metrics.%I']) statement;
select is(pg_temp.ask('service_role', null, 'select string_agg(distinct left(tenant_id::text, 1), '''') from meshhook_metrics.' || storage), '(012)', 'but reads all of ' || storage)
from unnest(array['alert_rules', 'alerts', 'alert_events', 'alert_receivers', 'alert_notifications']) storage;

-- Statistics of all that, and what the system shows of a session that writes for B
analyze meshhook_metrics.alert_rules, meshhook_metrics.alerts, meshhook_metrics.alert_events, meshhook_metrics.alert_receivers, meshhook_metrics.alert_notifications;
select matches((select string_agg(s::text, ' ') from pg_stats s where schemaname = 'meshhook_metrics' and tablename ~ 'alert'), 'rule_secret.*|31337', 'statistics have B''s names');
select is_empty(
	format($$ select %L where pg_temp.ask_as_a(%L) ~ '_secret|22222222-|platform_(rule|receiver)' $$, relation, 'select * from pg_catalog.' || relation),
	relation || ' shows A nothing of them')
from unnest(array['pg_stats', 'pg_stats_ext', 'pg_stats_ext_exprs', 'pg_stat_activity', 'pg_stat_user_tables', 'pg_stat_user_functions', 'pg_stat_user_indexes',
	'pg_statio_user_tables', 'pg_locks', 'pg_prepared_statements', 'pg_sequences', 'pg_policies']) relation;
select is(pg_temp.ask_as_a(format('explain (analyze, verbose, costs off, timing off, summary off) %s', statement)) ~ '_secret|31337|platform_rule|22222222', false,
	'nor does the plan of ' || statement)
from unnest(array['update meshhook_metrics.alert_rules set enabled = false', 'delete from meshhook_metrics.alert_rules', 'select * from meshhook_metrics.alert_events']) statement;

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
