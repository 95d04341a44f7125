-- Rules that are written through PostgREST, with the SQL that it makes of a request: whoever
-- reads a row sends all of it back. What of it is the server's stays as it is.
\ir ../sql/include/tenancy.sql
begin;
select no_plan();

-- The columns of a request are those of its JSON
create function pg_temp.body(rows jsonb, out columns text, out body text)
language sql as $$
	select
		string_agg(format('"pgrst_body".%I', a.attname), ', ' order by a.attnum),
		format('from (select %L::json as json_data) pgrst_payload, lateral (select %s from json_to_recordset(%s) as _(%s)) pgrst_body',
			rows,
			string_agg(quote_ident(a.attname), ', ' order by a.attnum),
			case jsonb_typeof(rows) when 'array' then 'pgrst_payload.json_data' else 'json_build_array(pgrst_payload.json_data)' end,
			string_agg(format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum))
	from pg_attribute a
	where a.attrelid = 'meshhook_metrics.alert_rules'::regclass
		and a.attname in (
			select key
			from jsonb_array_elements(case jsonb_typeof(rows) when 'array' then rows else jsonb_build_array(rows) end) r (row),
				jsonb_object_keys(r.row) key)
$$;
-- POST, also with Prefer: resolution=merge-duplicates or ignore-duplicates, on_conflict and PUT
create function pg_temp.post(rows jsonb, resolution text default null, target text default 'id', put text default null) returns text
language sql as $$
	select format('insert into "meshhook_metrics"."alert_rules" (%s) select %s %s %s %s returning "meshhook_metrics"."alert_rules".*',
		replace(b.columns, '"pgrst_body".', ''), b.columns, b.body, 'where "pgrst_body"."id" = ' || quote_literal(put),
		case resolution
			when 'merge' then format('on conflict (%s) do update set %s', target,
				(select string_agg(format('%s = excluded.%1$s', replace(c, '"pgrst_body".', '')), ', ') from unnest(string_to_array(b.columns, ', ')) c))
			when 'ignore' then format('on conflict (%s) do nothing', target)
		end)
	from pg_temp.body(rows) b
$$;
create function pg_temp.patch(record jsonb, condition text) returns text
language sql as $$
	select format('update "meshhook_metrics"."alert_rules" set %s %s where %s returning "meshhook_metrics"."alert_rules".*',
		(select string_agg(format('%s = %s', replace(c, '"pgrst_body".', ''), c), ', ') from unnest(string_to_array(b.columns, ', ')) c), b.body, condition)
	from pg_temp.body(patch.record) b
$$;
-- As somebody, and then what there is, as the owner reads it
create function pg_temp.writes(role name, claims text, statement text, shown text) returns text
language plpgsql as $$
declare
	answer text;
	detail text;
	hint text;
begin
	perform set_config('role', role, true), set_config('request.jwt.claims', coalesce(claims, ''), true);
	execute statement;
	perform set_config('role', 'none', true);
	execute shown into answer;
	raise exception using errcode = 'ZZ999', message = 'undo';
exception when others then
	if sqlstate = 'ZZ999' then
		return answer;
	end if;
	get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
	return concat_ws(E'\n', sqlstate || ': ' || sqlerrm, nullif(detail, ''), nullif(hint, ''));
end
$$;
\set own '11111111-0000-4000-8000-000000000002'
\set of_b '22222222-0000-4000-8000-000000000002'
\set deleted '99999999-0000-4000-8000-000000000001'
-- A rule that failed a while ago
update meshhook_metrics.alert_rules
set created_at = '2026-01-01', updated_at = '2026-01-02', last_error = 'it failed', last_error_at = '2026-01-03'
where id in (:'own', :'of_b');
create temp table read_row as
select id, to_jsonb(r) as row from meshhook_metrics.alert_rules r;
select row as own_row from read_row where id = :'own' \gset
select row as b_row from read_row where id = :'of_b' \gset
\set lies '{"created_at": "2000-01-01", "updated_at": "2000-01-01", "last_error": "lie", "last_error_at": "2000-01-01"}'
\set shown 'select string_agg(concat_ws('' '', name, threshold, created_at::date, updated_at = now(), last_error, last_error_at), '', '') from meshhook_metrics.alert_rules where id = ''11111111-0000-4000-8000-000000000002'''
-- What is mended may be tried at once, as ever
\set changed 'own 7 2026-01-01 t it failed -infinity'

-- A row is read, its threshold changed, and all of it sent back
select is(pg_temp.writes(role, :'claims_a', statement, :'shown'), :'changed', format('%s: %s', role, left(statement, 20) || ' of a whole row, ' || what))
from unnest(array['authenticated', 'service_role']) role,
	(
		values ('as it is', '{}'), ('with lies', :'lies')
	) l (what, lies),
	lateral (select :'own_row'::jsonb || '{"threshold": 7}' || lies::jsonb as row) r,
	unnest(array[
		pg_temp.post(row, 'merge'), pg_temp.post(jsonb_build_array(row), 'merge'), pg_temp.post(row, 'merge', 'tenant_id, name'), pg_temp.post(row, 'merge', put => :'own'),
		pg_temp.patch(row, 'alert_rules.id = ''11111111-0000-4000-8000-000000000002''')]) statement;
select is(pg_temp.writes('authenticated', :'claims_a', pg_temp.post(:'own_row'::jsonb || '{"threshold": 7}', 'ignore'), :'shown'), 'own 0 2026-01-01 f it failed 2026-01-03 00:00:00+00',
	'one that ignores duplicates changes nothing');
-- Columns of the server alone
select is(pg_temp.writes(role, :'claims_a', pg_temp.patch(row, 'alert_rules.name = ''own'''), :'shown'), 'own 0 2026-01-01 f it failed 2026-01-03 00:00:00+00',
	format('%s: nothing happens by %s', role, row))
from unnest(array['authenticated', 'service_role']) role,
	unnest(array[
		:'lies', '{"last_error": null}', '{"last_error_at": "infinity"}', '{"created_at": null}', '{"updated_at": null}']::jsonb[]) row;
-- That of another id is an update all the same, as that of a name to what it is
select is(pg_temp.writes(role, :'claims_a', pg_temp.patch(row, 'alert_rules.name = ''own'''), :'shown'), 'own 0 2026-01-01 t it failed -infinity',
	format('%s: the rule keeps its id by %s', role, row))
from unnest(array['authenticated', 'service_role']) role,
	unnest(array['{"id": "11111111-0000-4000-8000-000000000003"}', '{"id": null}', '{"id": "22222222-0000-4000-8000-000000000002"}']::jsonb[]) row;
-- Somebody who writes rules by a grant of the owner is no server either
grant authenticated to tenancy_stranger;
select is(pg_temp.writes('tenancy_stranger', :'claims_a', pg_temp.patch(:'lies', 'name = ''own'''), :'shown'), 'own 0 2026-01-01 f it failed 2026-01-03 00:00:00+00', 'nor by a member of authenticated');
revoke authenticated from tenancy_stranger;

-- New rules get an id and their times from the server
\set new '{"tenant_id": "11111111-1111-1111-1111-111111111111", "name": "new", "metric": "own_total", "aggregate": "increase", "threshold": 1}'
\set shown_new 'select string_agg(concat_ws('' '', created_at = now(), updated_at = now(), last_error, last_error_at, id::text ~ ''^[0-9a-f]{8}-[0-9a-f]{4}-4'', id <> ''11111111-0000-4000-8000-000000000002''), '', '') from meshhook_metrics.alert_rules where name ~ ''^new'''
select is(pg_temp.writes(role, :'claims_a', statement, :'shown_new'), 't t t t', format('%s inserts a new rule: %s', role, left(statement, 100)))
from unnest(array['authenticated', 'service_role']) role,
	unnest(array['{}', :'lies', '{"id": null, "created_at": null, "updated_at": null}', '{"id": "00000000-0000-0000-0000-000000000000"}']::jsonb[]) more,
	unnest(array[pg_temp.post(:'new'::jsonb || more), pg_temp.post(:'new'::jsonb || more, 'merge'), pg_temp.post(:'new'::jsonb || more, 'merge', 'tenant_id, name')]) statement;
select is(pg_temp.writes('authenticated', :'claims_a',
		pg_temp.post(jsonb_build_array(:'own_row'::jsonb || '{"threshold": 7}', :'own_row'::jsonb || '{"id": null, "name": "new"}'), 'merge'), :'shown_new'),
	't t t t', 'an upsert of one that is there, and one that is new');
select is(pg_temp.writes('authenticated', :'claims_a',
		pg_temp.post(jsonb_build_array(:'own_row'::jsonb || '{"threshold": 7}', :'own_row'::jsonb || '{"id": null, "name": "new"}'), 'merge'), :'shown'), :'changed', 'changes the one');
select is(pg_temp.writes('authenticated', :'claims_a', pg_temp.post(:'own_row'::jsonb || '{"id": null, "threshold": 7}', 'merge', 'tenant_id, name'), :'shown'), :'changed',
	'by its name without an id the rule that has it');

-- An id that is of no rule one sees is refused, and in the same words whether it is another's or nobody's
select is(pg_temp.writes('authenticated', :'claims_a', statement, 'select ''written'''),
	format(E'22023: there is no rule %s to change, and a new rule gets its id from the server\nLeave id out to make a new rule; what is returned says which id it has.', id),
	format('an id of %s: %s', whose, left(statement, 100)))
from (values ('another', :'of_b'), ('the platform', '00000000-0000-4000-8000-000000000001'), ('nobody', :'deleted')) i (whose, id),
	unnest(array['11111111-1111-1111-1111-111111111111', '22222222-2222-2222-2222-222222222222', '33333333-3333-3333-3333-333333333333']) tenant,
	lateral (select :'own_row'::jsonb || jsonb_build_object('id', id, 'name', name, 'tenant_id', tenant) as row from unnest(array['free', 'own', 'rule_secret']) name) r,
	unnest(array[pg_temp.post(row), pg_temp.post(row, 'merge'), pg_temp.post(row, 'ignore'), pg_temp.post(row, 'merge', 'tenant_id, name'), pg_temp.post(row, 'merge', put => id)]) statement;
-- None is stolen, by whatever way
select is(pg_temp.writes('authenticated', :'claims_a', statement,
		'select count(*) from read_row o join meshhook_metrics.alert_rules r on to_jsonb(r) = o.row where o.id = ''22222222-0000-4000-8000-000000000002''') ~ '^(1$|22023|42501|23505)', true,
	'B''s rule is as it was after ' || left(statement, 100))
from unnest(array['{}', '{"tenant_id": "11111111-1111-1111-1111-111111111111"}', '{"name": "own"}', '{"threshold": 1}']::jsonb[]) more,
	lateral (select :'b_row'::jsonb || more as row) r,
	unnest(array[pg_temp.post(row, 'merge'), pg_temp.post(row, 'merge', 'tenant_id, name'), pg_temp.patch(row, 'true'), pg_temp.patch(row, 'alert_rules.id = ''22222222-0000-4000-8000-000000000002'''),
		pg_temp.patch(row, 'alert_rules.name = ''rule_secret''')]) statement;
select matches(pg_temp.writes('authenticated', :'claims_a', pg_temp.post(:'own_row'::jsonb || format('{"tenant_id": "%s"}', tenant)::jsonb, 'merge'), :'shown'),
	'^42501: new row violates row-level security', 'a rule does not go to ' || left(tenant, 1))
from unnest(array[:'b', :'nil', '33333333-3333-3333-3333-333333333333']) tenant;
select matches(pg_temp.writes('anon', null, statement, 'select 1'), '^42501', 'anon writes nothing')
from unnest(array[pg_temp.post(:'own_row', 'merge'), pg_temp.patch(:'own_row', 'true')]) statement;

-- The owner restores what was dumped
delete from meshhook_metrics.alert_rules where id = :'own';
set local role tenancy_owner;
insert into meshhook_metrics.alert_rules
select (jsonb_populate_record(null::meshhook_metrics.alert_rules, :'own_row'::jsonb - 'last_error' - 'last_error_at')).*;
update meshhook_metrics.alert_rules set last_error = 'it failed', last_error_at = '2026-01-03' where id = :'own';
select ok(updated_at = now() and to_jsonb(r) - 'updated_at' = :'own_row'::jsonb - 'updated_at', 'the owner says what id and times a rule has, and how it fails')
from meshhook_metrics.alert_rules r
where id = :'own';
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
select :'a', 'new ' || n, 'm', 'count', 1 from generate_series(1, 3) n;
select is(count(distinct id), 3::bigint, 'and leaves it to the server as well') from meshhook_metrics.alert_rules where name ~ '^new' and id::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-4';

-- A table that had ids by default, and rights on columns, as it was once
alter table meshhook_metrics.alert_rules alter column id set default gen_random_uuid();
set local role tenancy_owner;
revoke insert, update on meshhook_metrics.alert_rules from authenticated, service_role;
grant insert (tenant_id, name), update (tenant_id, name) on meshhook_metrics.alert_rules to authenticated, service_role;
\ir ../sql/include/migrations.sql
reset role;
select is(pg_temp.writes('authenticated', :'claims_a', pg_temp.post(:'new'), :'shown_new'), 't t t t, t t t t, t t t t, t t t t', 'where ids were the default''s, a new rule is inserted as well');
select is((select count(*) from pg_attribute where attrelid = 'meshhook_metrics.alert_rules'::regclass and attacl is not null), 0::bigint, 'and no column has rights of its own');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
