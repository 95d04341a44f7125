# Minutes that could not be closed for long are closed in steps, with flushes and alerts in
# between; and old rows of live are deleted some at a time, never all of them at once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('catches_up_in_steps', flush_interval => "'1s'", alert_interval => "'1s'");
install_storage($node);

sub sql { return $node->safe_psql('postgres', shift) }

# What the worker does, in the order in which it commits that. Each step takes a while:
# longer than a flush interval, all of them together.
sql(<<'SQL');
create table public.done (n bigint generated always as identity, what text, rows bigint);
create function public.note() returns trigger language plpgsql as $$
begin
	if tg_argv[0] = 'evaluated' then
		insert into public.done (what) values (tg_argv[0]);
	else
		insert into public.done (what, rows) select tg_argv[0], count(*) from changed;
	end if;
	if tg_argv[0] = 'closed' then
		if exists (select from changed where series_id = 4711) then
			perform pg_sleep(0.4);
		end if;
	end if;
	return null;
end
$$;
create trigger note after insert on meshhook_metrics.live referencing new table as changed for each statement execute function public.note('flushed');
create trigger note_deleted after delete on meshhook_metrics.live referencing old table as changed for each statement execute function public.note('deleted');
create trigger note after insert on meshhook_metrics.rollup_1m referencing new table as changed for each statement execute function public.note('closed');
create trigger note after update on meshhook_metrics.alert_state for each statement execute function public.note('evaluated');
SQL

# An hour of minutes that are not closed, a hundred rows each
sql(<<'SQL');
begin;
alter table meshhook_metrics.live disable trigger note;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select '11111111-1111-1111-1111-111111111111', date_trunc('minute', now()) - minute * interval '1 minute' + second * interval '0.5 s', 1, array[4711], array[1], array[1]
from generate_series(61, 2, -1) minute, generate_series(0, 99) second;
alter table meshhook_metrics.live enable trigger note;
commit;
SQL
my $recorded = 0;
await(
	sub {
		sql("select meshhook_metrics.inc('meanwhile_total')");
		$recorded++;
		return sql(q{select coalesce(sum(count), 0) from meshhook_metrics.rollup_1m where series_id = 4711}) == 6000;
	},
	'the hour to be closed');
flush($node);
is(stored_total($node, 'meanwhile_total'), "$recorded|$recorded", 'what was recorded meanwhile is stored, once');
is(sql(q{select count(*) || ' ' || sum(count) from meshhook_metrics.rollup_1m where series_id = 4711}), '60 6000', 'the hour is closed, each row once');
my $steps = sql(q{select count(*) from public.done where what = 'closed' and n between
	(select min(n) from public.done where what = 'closed') and (select max(n) from public.done where what = 'closed')});
cmp_ok($steps, '>=', 12, 'in steps');
my $between = q{select count(*) from public.done where what = '%s'
	and n > (select min(n) from public.done where what = 'closed') and n < (select max(n) from public.done where what = 'closed' and rows > 1)};
cmp_ok(sql(sprintf $between, 'flushed'), '>', 0, 'between which the worker flushes');
cmp_ok(sql(sprintf $between, 'evaluated'), '>', 0, 'and evaluates alert rules');
await_status($node, 'last_error is null');

# All those rows are old: they go, with each flush some
await(
	sub {
		sql("select meshhook_metrics.inc('meanwhile_total')");
		flush($node);
		return sql(q{select count(*) from meshhook_metrics.live where at < now() - interval '16 minutes'}) == 0;
	},
	'old rows to be deleted');
is(sql(q{select count(*) from public.done d where what = 'deleted' and rows > 200}), 0, 'never more than 200 old rows at once, for a flush that brings few');
cmp_ok(sql(q{select sum(rows) from public.done where what = 'deleted'}), '>=', 4500, 'until they are gone');

# A flush that brings many takes away more than that: 300 tenants
sql(<<'SQL');
begin;
alter table meshhook_metrics.live disable trigger note;
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select '11111111-1111-1111-1111-111111111111', now() - interval '1 hour', 1, array[4712], array[1], array[1]
from generate_series(1, 5000);
update meshhook_metrics.rollup_state set live_id = (select max(id) from meshhook_metrics.live) where target = '1m';
alter table meshhook_metrics.live enable trigger note;
truncate public.done;
commit;
SQL
await(
	sub {
		sql(q{select meshhook_metrics.inc('many_total', tenant => ('22222222-2222-2222-2222-' || lpad(n::text, 12, '0'))::uuid) from generate_series(1, 300) n});
		flush($node);
		return sql(q{select count(*) from meshhook_metrics.live where at < now() - interval '16 minutes'}) == 0;
	},
	'old rows to be deleted');
is(sql(<<'SQL'), 0, 'never more than twice what a flush has brought');
select count(*)
from public.done d
where d.what = 'deleted'
	and d.rows > greatest(200, 2 * (select f.rows from public.done f where f.what = 'flushed' and f.n < d.n order by f.n desc limit 1))
SQL
cmp_ok(sql(q{select max(rows) from public.done where what = 'deleted'}), '>', 300, 'and more than it has brought, so that they become fewer');

$node->stop;
done_testing();
