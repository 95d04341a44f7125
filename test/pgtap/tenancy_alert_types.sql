-- What a tenant's user could do with types of his own, when he has a connection to the
-- database and not only requests
\ir ../sql/include/tenancy.sql
begin;
select no_plan();
select set_config('request.jwt.claims', :'claims_a', true) \g /dev/null

-- The quota is counted with the owner's rights: a temporary type of the user's must not
-- be taken for a built-in one, since its check would run with them. In a session that
-- has inserted no rule before: functions look types up once.
create temp table run_by (who name);
grant insert on pg_temp.run_by to public;
set local role authenticated;
create function pg_temp.note() returns boolean
language plpgsql as $$
begin
	insert into pg_temp.run_by values (current_user);
	return true;
end
$$;
create domain pg_temp.text as pg_catalog.text check (pg_temp.note());
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)
values (:'a', 'shadow', 'shared_total', 'increase', 1);
drop domain pg_temp.text;
reset role;
select is((select string_agg(distinct r.who, ', ') from pg_temp.run_by r where r.who <> 'authenticated'), null,
	'no temporary type of a user''s is used with the rights of another');

select * from finish();
rollback;
\ir ../sql/include/tenancy_end.sql
