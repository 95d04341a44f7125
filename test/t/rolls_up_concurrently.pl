# Closing minutes, rolling up and maintaining wait for each other where they must,
# and nowhere else; none of them ever waits in a circle.

use strict;
use warnings;

use lib 'test/t/lib';
use MetricsCluster;
use Test::More;

# What is compacted next depends on which leaves are over
await_midnight();
my $node = new_metrics_cluster('rolls_up_concurrently');

# A database that the worker does not serve, so that everything is done by hand
$node->safe_psql('postgres', 'create database byhand');
install_storage($node, database => 'byhand');

sub sql { return $node->safe_psql('byhand', shift) }

# A statement in a session of its own, which is not waited for
sub begin_to
{
	my ($session, $statement) = @_;

	$session->query_until(qr/begun/, "\\echo begun\n$statement\n\\echo ended\n");
	return;
}

sub waits
{
	my ($statement) = @_;

	return $node->poll_query_until('byhand', <<"SQL");
select exists (
	select
	from pg_stat_activity
	where datname = 'byhand'
		and wait_event_type = 'Lock'
		and query like '$statement%')
SQL
}

sub bring
{
	my ($at, $count) = @_;

	sql("insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
		values ('11111111-1111-1111-1111-111111111111', '$at', 5, array[1], array[$count], array[$count])");
	return;
}

sub counts
{
	my ($table) = @_;

	return sql("select coalesce(sum(count), 0) from meshhook_metrics.$table");
}

# All times follow from that of the beginning: at whatever time that is, and if it
# is midnight meanwhile, what is meant to be old, or over, is, and has its own leaf
my $today = sql("select to_char(now() at time zone 'UTC', 'YYYY-MM-DD')");
my $noon = "timestamptz '$today 12:00:00+00'";
my $yesterday = sql("select date '$today' - 1");

my $one = session($node, 'byhand');
my $two = session($node, 'byhand');

# A late minute comes while its window is being rolled up
bring("$yesterday 10:01:00+00", 1);
sql("select meshhook_metrics.close_minutes('$yesterday 10:10:00+00')");
$one->query_safe('begin; select meshhook_metrics.rollup();');
bring("$yesterday 10:01:30+00", 10);
begin_to($two, "select meshhook_metrics.close_minutes('$yesterday 10:10:30+00');");
ok(waits('select meshhook_metrics.close_minutes'), 'a late minute waits for a rollup that may have passed it');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is(counts('rollup_1m'), 11, 'then it is in its minute');
is(counts('rollup_5m'), 1, 'and not yet in what was rolled up');
sql('select meshhook_metrics.rollup()');
is(counts('rollup_5m'), 11, 'the next rollup brings it there');

# The same the other way round
bring("$yesterday 10:02:30+00", 100);
$two->query_safe("begin; select meshhook_metrics.close_minutes('$yesterday 10:20:00+00');");
begin_to($one, 'select meshhook_metrics.rollup();');
ok(waits('select meshhook_metrics.rollup'), 'a rollup waits for a late minute');
$two->query_safe('commit;');
$one->query_until(qr/ended/, '');
is(counts('rollup_5m'), 111, 'and has it');

# What is not late does not wait, and two rollups wait for each other
bring("$yesterday 10:20:30+00", 1000);
$one->query_safe('begin; select meshhook_metrics.rollup();');
is(sql("set lock_timeout = '1s'; select meshhook_metrics.close_minutes('$yesterday 10:30:00+00')"), 1, 'a minute in time waits for no rollup');
begin_to($two, 'select meshhook_metrics.rollup();');
ok(waits('select meshhook_metrics.rollup'), 'one rollup at a time');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is(counts('rollup_5m'), 1111, 'the second has what the first has not');

# Two sessions need the same leaf
$one->query_safe("begin; select meshhook_metrics.create_leaf('1m', '2040-01-01');");
begin_to($two, "select meshhook_metrics.create_leaf('1m', '2040-01-01 10:00:00+00');");
ok(waits('select meshhook_metrics.create_leaf'), 'the second who needs a leaf waits for the first');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is(sql("select count(*) from meshhook_metrics.leaves('1m') where lower_bound >= '2040-01-01'"), 1, 'there is one leaf');
$one->query_safe("begin; select meshhook_metrics.create_leaf('1m', '2041-01-01');");
begin_to($two, "select meshhook_metrics.create_leaf('1m', '2041-01-01 10:00:00+00');");
ok(waits('select meshhook_metrics.create_leaf'), 'again');
$one->query_safe('rollback;');
$two->query_until(qr/ended/, '');
is(sql("select count(*) from meshhook_metrics.leaves('1m') where lower_bound >= '2041-01-01'"), 1,
	'if the first gives up, the second makes it');

# Creating a leaf, and rolling up into it, keeps no reader waiting
$one->query_safe('begin; select count(*) from meshhook_metrics.rollup_1m;');
is(sql("set lock_timeout = '1s'; select meshhook_metrics.create_leaf('1m', '2042-01-01')"), '', 'a leaf is made while the table is read');
$one->query_safe('commit;');
$one->query_safe("begin; select meshhook_metrics.create_leaf('1m', '2043-01-01');");
is(sql("set lock_timeout = '1s'; select count(*) > 0 from meshhook_metrics.rollup_1m"), 't', 'and the table is read while a leaf is made');
$one->query_safe('commit;');

# It is where its table is
sql("set allow_in_place_tablespaces = on; create tablespace fast location ''");
sql('alter table only meshhook_metrics.rollup_5m set tablespace fast');
sql("select meshhook_metrics.create_leaf('5m', '2044-01-01')");
is(sql("select t.spcname from pg_class c join pg_tablespace t on t.oid = c.reltablespace where c.relname like 'rollup_5m_20%' and c.relkind = 'r'"), 'fast',
	'a leaf is made in the tablespace of its table');
sql(q{do $$ begin execute (select 'drop table meshhook_metrics.' || leaf from meshhook_metrics.leaves('5m') order by lower_bound desc limit 1); end $$});
sql('alter table only meshhook_metrics.rollup_5m set tablespace pg_default');
sql('drop tablespace fast');

# Old leaves, one of which is being read
sub age
{
	sql(<<"SQL");
select meshhook_metrics.create_leaf('1m', $noon - interval '20 days'), meshhook_metrics.create_leaf('5m', $noon - interval '60 days');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum)
values ('11111111-1111-1111-1111-111111111111', 1, $noon - interval '20 days', 1, 1);
update meshhook_metrics.rollup_state
set complete_until = date_trunc('minute', now())
where target = '1m'
SQL
	return;
}

sub old_leaves
{
	return sql(<<'SQL');
select string_agg(substr(leaf, 8, 2), ' ' order by leaf)
from (select * from meshhook_metrics.leaves('1m') union all select * from meshhook_metrics.leaves('5m')) l
where upper_bound < now() - interval '10 days'
	and (upper_bound < now() - interval '40 days' or leaf like 'rollup_1m%')
SQL
}
sql('truncate meshhook_metrics.live, meshhook_metrics.rollup_1m, meshhook_metrics.rollup_5m');
age();
is(old_leaves(), '1m 5m', 'there is an old leaf of minutes, and one of five minutes');
my $old = sql(q{select leaf from meshhook_metrics.leaves('1m') where upper_bound < now() - interval '10 days' limit 1});
$one->query_safe("begin; select count(*) from meshhook_metrics.$old;");
my ($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code, 0, 'maintain() does not fail for a leaf that is being read');
like($warnings, qr/WARNING:  meshhook_metrics.$old was not dropped: canceling statement due to lock timeout/, 'it says which it has left');
is(old_leaves(), '1m', 'and drops the others');
$one->query_safe('commit;');
sql('select meshhook_metrics.maintain()');
is(old_leaves(), '', 'the next run drops it');
is(sql("select retained_from - ($noon - interval '20 days') from meshhook_metrics.rollup_state where target = '1m'"), '00:01:00', 'and notes what was there');

# Here it waits for as long as this test takes
sql("alter function meshhook_metrics.maintain() set lock_timeout = '3min'");

# Somebody changes the table and then its leaves, while maintain() wants to drop one
age();
sql('select meshhook_metrics.rollup()');
$one->query_safe('begin; lock table only meshhook_metrics.rollup_1m in access exclusive mode;');
begin_to($two, 'select meshhook_metrics.maintain();');
ok(waits('select meshhook_metrics.maintain'), 'maintain() waits for the table, not for the leaf');
$one->query_safe("lock table meshhook_metrics.$old in access exclusive mode; commit;");
$two->query_until(qr/ended/, '');
is($one->{stderr} . $two->{stderr}, '', 'without an error or a warning');
is(old_leaves(), '5m', 'and drops it then');
sql('select meshhook_metrics.maintain()');
is(old_leaves(), '', 'and that of another table in the next run');

# Who reads several tables, in whatever order, is not waited for by who locks him out:
# a run drops leaves of one table
age();
$one->query_safe('begin; select count(*) from meshhook_metrics.rollup_5m;');
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is("$code$warnings" . old_leaves(), '05m', 'leaves of one table are dropped while another is being read');
$one->query_safe('select count(*) from meshhook_metrics.rollup_1m; commit;');
sql('select meshhook_metrics.maintain()');
is(old_leaves(), '', 'those of the other one later');

# A leaf that somebody takes out of its table to keep it, when it is about to be dropped
age();
sql('select meshhook_metrics.rollup()');
$one->query_safe("begin; alter table meshhook_metrics.rollup_1m detach partition meshhook_metrics.$old;");
begin_to($two, 'select meshhook_metrics.maintain();');
ok(waits('select meshhook_metrics.maintain'), 'maintain() waits for who detaches a leaf');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is($one->{stderr} . $two->{stderr}, '', 'without an error or a warning');
is(sql("select count(*) from meshhook_metrics.$old"), 1, 'and leaves alone what is no longer part of the table');
sql("drop table meshhook_metrics.$old; select meshhook_metrics.maintain()");

# Whatever the isolation of who calls, and by whatever name
age();
$one->query_safe("begin isolation level repeatable read; select 1;");
sql("alter table meshhook_metrics.rollup_1m detach partition meshhook_metrics.$old");
$one->query_safe('select meshhook_metrics.maintain(); commit;');
is(sql("select count(*) from meshhook_metrics.$old"), 1, 'nor does it drop one that was detached since its snapshot');
sql("drop table meshhook_metrics.$old; create table meshhook_metrics.precious (i int); insert into meshhook_metrics.precious values (7)");
sql('select meshhook_metrics.maintain()') for 1 .. 2;
age();
$two->query_safe("begin; lock table meshhook_metrics.rollup_1m in share mode;");
begin_to($one, 'select meshhook_metrics.maintain();');
ok(waits('select meshhook_metrics.maintain'), 'maintain() waits for the table');
$two->query_safe("alter table meshhook_metrics.$old rename to kept; alter table meshhook_metrics.precious rename to $old; commit;");
$one->query_until(qr/ended/, '');
is(sql("select i from meshhook_metrics.$old"), 7, 'nor another table that has got its name');
sql("drop table meshhook_metrics.$old; drop table meshhook_metrics.kept; select meshhook_metrics.maintain(); select meshhook_metrics.maintain()");

sql("alter function meshhook_metrics.maintain() set lock_timeout = '5s'");

# One whose detaching was not finished is for who began it
age();
$one->query_safe('begin; select count(*) from meshhook_metrics.rollup_1m;');
begin_to($two, "alter table meshhook_metrics.rollup_1m detach partition meshhook_metrics.$old concurrently;");
await(sub { sql('select count(*) from pg_inherits where inhdetachpending') == 1 }, 'the leaf to be marked');
ok(waits('alter table'), 'who detaches a leaf waits for its readers');
sql(q{select pg_cancel_backend(pid) from pg_stat_activity where query like 'alter table%concurrently%' and pid <> pg_backend_pid()});
$two->query_until(qr/ended/, '');
$two->{stderr} = '';
$one->query_safe('commit;');
is(sql('select count(*) from pg_inherits where inhdetachpending'), 1, 'a leaf is half detached');
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code . $warnings . old_leaves(), '0', 'it is no leaf any more, and all others are dropped');
is(sql("select count(*) from meshhook_metrics.$old"), 1, 'but it');
sql("alter table meshhook_metrics.rollup_1m detach partition meshhook_metrics.$old finalize");
sql("drop table meshhook_metrics.$old");

# Old leaves that something depends on, however many
sub several_old
{
	sql("select meshhook_metrics.create_leaf('1m', $noon - n * interval '1 day') from generate_series(30, 34) n");
	return map { s/\s+//gr } split /\n/, sql(q{select leaf from meshhook_metrics.leaves('1m') where upper_bound < now() - interval '25 days' order by 1});
}
age();
my @several = several_old();
is(scalar @several, 5, 'there are several old leaves');
sql("create view depends_$_ as select count(*) from meshhook_metrics.$_") for @several[0 .. 3];
$node->psql('byhand', 'select meshhook_metrics.maintain()');
is(old_leaves(), '1m 1m 1m 1m 5m', 'views keep those that they are of');
sql("drop view depends_$_") for @several[0 .. 3];
sql('select meshhook_metrics.maintain()') for 1 .. 2;
is(old_leaves(), '', 'then they go');

# One that is being read is not waited for with the table locked: its reader may want that next
age();
@several = several_old();
$one->query_safe("begin; select count(*) from meshhook_metrics.$several[2];");
($code, $out, $warnings) = $node->psql('byhand', "set lock_timeout = '1s'; select meshhook_metrics.maintain()");
is($code . old_leaves(), '01m 5m', 'all others go');
like($warnings, qr/WARNING:  meshhook_metrics.$several[2] was not dropped: canceling statement due to lock timeout/, 'and it is left');
$one->query_safe('select count(*) from meshhook_metrics.rollup_1m; commit;');
sql('select meshhook_metrics.maintain()') for 1 .. 2;

# A minute that ends while an index is being rebuilt does not wait for that, though
# rows of live have become old just now
sql(<<"SQL");
insert into meshhook_metrics.live (tenant_id, at, seconds, series_id, count, sum)
select gen_random_uuid(), now() - interval '15 minutes' - n * interval '1 second', 5, array[1], array[1], array[1]
from generate_series(1, 5) n;
update meshhook_metrics.rollup_state
set live_id = (select max(id) from meshhook_metrics.live)
where target = '1m';
select meshhook_metrics.create_leaf('1m', $noon - interval '3 days')
SQL
my $loose = sql(q{select leaf from meshhook_metrics.leaves('1m') where upper_bound < now() order by lower_bound limit 1});
$one->query_safe("begin; select count(*) from meshhook_metrics.$loose;");
begin_to($two, 'select meshhook_metrics.maintain();');
ok(waits('select meshhook_metrics.maintain'), 'maintain() waits for the readers of an index');
sql("set lock_timeout = '1s'; select meshhook_metrics.close_minutes(); select meshhook_metrics.delete_old_live(100)");
is(sql("select count(*) from meshhook_metrics.live where at < now() - interval '15 minutes'"), 0, 'a minute waits for neither, nor do old rows');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
sql("drop table meshhook_metrics.$loose");

# Or that something depends on
age();
sql("create view depends as select count(*) from meshhook_metrics.$old");
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code . old_leaves(), '01m', 'a leaf that a view is of stays, and all else is done');
like($warnings, qr/WARNING:  meshhook_metrics.$old was not dropped: cannot drop table/, 'it says so');
sql('drop view depends; select meshhook_metrics.maintain()');
is(old_leaves(), '', 'then it goes');

# A leaf that nothing is wanted of may be locked
my $ahead = sql(q{select leaf from meshhook_metrics.leaves('1m') where lower_bound > now() + interval '1 day' order by 1 limit 1});
$one->query_safe("begin; lock table meshhook_metrics.$ahead in access exclusive mode;");
bring("$yesterday 11:00:00+00", 1);
is(sql("set lock_timeout = '1s'; select meshhook_metrics.close_minutes('$yesterday 11:01:00+00')"), 1, 'a minute is closed while a leaf of other times is locked');
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is("$code$warnings", '0', 'and storage is maintained');
$one->query_safe('commit;');

# So may old rows
sql(<<'SQL');
insert into meshhook_metrics.alert_events (rule_id, tenant_id, fingerprint, name, severity, labels, annotations, state, reason, at, started_at)
values ('11111111-0000-4000-8000-000000000001', '11111111-1111-1111-1111-111111111111', '', 'old', 'info', '{}', '{}', 'pending', 'threshold', now() - interval '1 year', now() - interval '1 year')
SQL
$one->query_safe('begin; select id from meshhook_metrics.alert_events for update;');
age();
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code . old_leaves(), '05m', 'maintain() does not fail for old rows that are locked, and goes on');
like($warnings, qr/WARNING:  old rows were not deleted: canceling statement due to lock timeout/, 'it says so');
$one->query_safe('commit;');
sql('select meshhook_metrics.maintain()');
is(old_leaves() . sql('select count(*) from meshhook_metrics.alert_events'), '0', 'the next run does it');


# Maintaining while a minute is being closed: that is waited for, by the table
age();
bring('2050-01-01 10:00:00+00', 1);
$one->query_safe("begin; select meshhook_metrics.close_minutes('2050-01-01 10:01:00+00');");
begin_to($two, 'select meshhook_metrics.maintain();');
ok(waits('select meshhook_metrics.maintain'), 'maintain() waits for a minute that is being closed');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is($two->{stderr} . old_leaves(), '5m', 'and drops the leaf of minutes then');
sql('select meshhook_metrics.maintain()');

# But not by the row, for which a minute would wait that has not come to the table
age();
$one->query_safe("begin; select from meshhook_metrics.rollup_state where target = '1m' for update;");
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code, 0, 'maintain() does not fail for a minute that has just begun to be closed');
like($warnings, qr/WARNING:  meshhook_metrics.$old was not dropped: could not obtain lock on row/, 'nor does it wait for that');
$one->query_safe('commit;');
is(old_leaves(), '1m', 'the leaf of minutes stays');

# A minute that ends while maintain() has not committed waits for it, not in a circle
$one->query_safe('begin; select meshhook_metrics.maintain();');
bring('2050-01-01 10:05:00+00', 1);
bring("$yesterday 10:05:00+00", 1);
begin_to($two, "select meshhook_metrics.close_minutes('2050-01-01 10:06:00+00');");
ok(waits('select meshhook_metrics.close_minutes'), 'a minute waits for the table to be free');
$one->query_safe('commit;');
$two->query_until(qr/ended/, '');
is($one->{stderr} . $two->{stderr}, '', 'without an error');
is(old_leaves(), '', 'the leaf is gone');
is(counts('rollup_1m'), 4, 'the minutes are there');

# A leaf that cannot be compacted now is compacted later
sql("select meshhook_metrics.create_leaf('1m', $noon - interval '3 days')");
my $closed = sql(q{select leaf from meshhook_metrics.leaves('1m') where upper_bound < now() order by 1 limit 1});
$one->query_safe("begin; lock table meshhook_metrics.$closed in row exclusive mode;");
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is($code, 0, 'maintain() does not fail for a leaf that is written to');
like($warnings, qr/WARNING:  meshhook_metrics.$closed was not made compact/, 'it says so');
my $compact = "select 'fillfactor=100' = any (reloptions) from pg_class where relname = '${closed}_pkey'";
isnt(sql($compact), 't', 'and notes nothing');
$one->query_safe('commit;');
sql('select meshhook_metrics.maintain()');
is(sql($compact), 't', 'the next run does it');

# Who reads waits for the index that is made compact, and would be waited for by whoever
# then wanted another, or to drop a leaf: a run does one of these
sub loosen
{
	sql(<<'SQL');
do $$
declare
	index name;
begin
	for index in
		select i.indexrelid::regclass
		from (values ('1m'), ('5m')) t (target)
		cross join lateral meshhook_metrics.leaves(t.target) l
		join pg_index i
			on i.indrelid = format('meshhook_metrics.%I', l.leaf)::regclass and i.indisprimary
	loop
		execute format('alter index %s reset (fillfactor)', index);
	end loop;
end
$$
SQL
	return;
}
my $made_compact = <<'SQL';
select count(*)
from (values ('1m'), ('5m')) t (target)
cross join lateral meshhook_metrics.leaves(t.target) l
join pg_class c
	on c.relname = l.leaf || '_pkey' and 'fillfactor=100' = any (c.reloptions)
SQL

sql("select meshhook_metrics.create_leaf('5m', $noon - interval '20 days')");
loosen();
age();
sql('select meshhook_metrics.maintain()');
is(old_leaves() . ' ' . sql($made_compact), '5m 0', 'a run that drops a leaf makes none compact');
sql('select meshhook_metrics.maintain()');
is(old_leaves() . ' ' . sql($made_compact), ' 0', 'nor does the next one, which drops another');
$one->query_safe('begin; select count(*) from meshhook_metrics.rollup_1m;');
($code, $out, $warnings) = $node->psql('byhand', 'select meshhook_metrics.maintain()');
is("$code$warnings " . sql($made_compact), '0 1', 'the next one makes one compact, the oldest, while the other table is read');
$one->query_safe('select count(*) from meshhook_metrics.rollup_5m; commit;');
sql('select meshhook_metrics.maintain()');
cmp_ok(sql($made_compact), '==', 2, 'the next one another');

# Leaves of somebody else keep no other from being dropped or made compact
sql('create role somebody; create role keeper bypassrls; grant all on schema meshhook_metrics to keeper');
sql(<<'SQL');
do $$
declare
	it regclass;
begin
	for it in
		select c.oid
		from pg_class c
		where c.relnamespace = 'meshhook_metrics'::regnamespace
			and c.relkind in ('r', 'p')
	loop
		execute format('alter table %s owner to keeper', it);
	end loop;
end
$$;
grant execute on all functions in schema meshhook_metrics to keeper;
SQL
loosen();
@several = several_old();
sql("alter table meshhook_metrics.$_ owner to keeper") for @several[3 .. 4];
sql("alter table meshhook_metrics.$_ owner to somebody") for @several[0 .. 2];
($code, $out, $warnings) = $node->psql('byhand', 'set role keeper; select meshhook_metrics.maintain()');
is("$code " . old_leaves(), '0 1m 1m 1m', 'those of the owner are dropped');
is(scalar(() = $warnings =~ /was not dropped: permission denied/g), 3, 'it says which are not his');
($code, $out, $warnings) = $node->psql('byhand', 'set role keeper; select meshhook_metrics.maintain()');
is("$code " . sql($made_compact), '0 1', 'and one is made compact, though three that are older cannot be');
is(scalar(() = $warnings =~ /was not made compact: must be owner/g), 3, 'it says which');
sql("drop table meshhook_metrics.$_") for @several[0 .. 2];

# An old leaf that cannot be dropped keeps no other from being made compact
loosen();
age();
$one->query_safe("begin; select count(*) from meshhook_metrics.$old;");
sql('select meshhook_metrics.maintain()') for 1 .. 2;
is(old_leaves() . ' ' . sql($made_compact), '1m 1', 'leaves are made compact while an old one is in use');
$one->query_safe('commit;');

$one->quit;
$two->quit;
is(log_since($node, 0) =~ /deadlock detected/ ? 'deadlock' : '', '', 'there was no deadlock');
$node->stop;
done_testing();
