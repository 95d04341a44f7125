# Where there is pg_cron, it rolls up and maintains, and the worker leaves that
# to it; without its jobs the worker does both.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my @owner = (extra_params => [ '-U', 'owner_role' ]);

my $node = new_plain_cluster('main');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics, pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
CONF
$node->start;
remember_region($node);
supabase_roles($node);
$node->safe_psql('postgres', <<'SQL');
create extension pg_cron;
grant usage on schema cron to owner_role;
grant select on cron.job_run_details to owner_role;
grant execute on function cron.alter_job to owner_role;
SQL

# What the owner of the storage gets for SQL
sub owner
{
	my ($sql) = @_;

	return $node->safe_psql('postgres', $sql, @owner);
}

my $jobs = q{select jobid, jobname, schedule, command, username, active from cron.job order by jobname};
my $by_pg_cron = 'select meshhook_metrics.scheduled_by_pg_cron()';

# The migrations end with schedule()
install_storage($node, role => 'owner_role');
my $scheduled = owner($jobs);
like($scheduled, qr{\A
	\d+\|meshhook_metrics_maintain\|23\ \*\ \*\ \*\ \*\|select\ meshhook_metrics\.maintain\(\)\|owner_role\|t\n
	\d+\|meshhook_metrics_rollup\|1-59/5\ \*\ \*\ \*\ \*\|select\ meshhook_metrics\.rollup\(\)\|owner_role\|t\z}x,
	'the migrations schedule two jobs');
is(owner($by_pg_cron), 't', 'so pg_cron does it');
owner('select meshhook_metrics.schedule()');
is(owner($jobs), $scheduled, 'schedule() again changes nothing');
owner(q{select cron.schedule('somebody_elses', '0 0 1 1 *', 'select 1')});

# From here on, a job runs when the test says so
sub reschedule
{
	my ($schedule) = @_;

	owner(<<"SQL");
select cron.alter_job(jobid, schedule := '$schedule')
from cron.job
where jobname like 'meshhook\\_metrics\\_%'
SQL
	return;
}

# A new worker goes through all its duties before it flushes for the second time, and
# starts the process that keeps the storage, if it is to
sub new_worker
{
	my $worker = worker_pid($node);

	$node->safe_psql('postgres', "select pg_terminate_backend($worker)");
	await(sub { worker_pid($node) != $worker }, 'another worker');
	flush($node);
	flush($node);
	return;
}

# Ten minutes that are not rolled up yet, and partitions that are missing ahead;
# not so late that the worker would think that pg_cron has stopped
sub make_work
{
	owner(<<'SQL');
select meshhook_metrics.create_leaf('1m', now() - interval '30 minutes');
insert into meshhook_metrics.rollup_1m (tenant_id, series_id, bucket, count, sum)
select
	series.tenant_id,
	series.id,
	date_trunc('minute', now()) - minutes_ago * interval '1 minute',
	1,
	1
from meshhook_metrics.series,
	generate_series(1, 15) minutes_ago
where series.metric = 'earlier_total'
on conflict do nothing;
update meshhook_metrics.rollup_state
set complete_until = date_trunc('minute', now())
where target = '1m';
delete from meshhook_metrics.rollup_5m;
update meshhook_metrics.rollup_state
set complete_until = date_bin('5 minutes', now() - interval '10 minutes', 'epoch')
where target = '5m';
do $$
declare
	leaf text;
begin
	for leaf in
		select l.leaf
		from meshhook_metrics.leaves('1m') l
		where l.lower_bound > now() + interval '1 day'
	loop
		execute format('drop table meshhook_metrics.%I', leaf);
	end loop;
end
$$;
SQL
	return;
}

my $rolled_up = <<'SQL';
select count(*) filter (where rollup_5m.count = 5) > 0
	and (
		select rollup_state.complete_until > now() - interval '6 minutes'
		from meshhook_metrics.rollup_state
		where rollup_state.target = '5m')
from meshhook_metrics.rollup_5m
SQL
my $maintained = q{select count(*) > 0 from meshhook_metrics.leaves('1m') where lower_bound > now() + interval '1 day'};

# Never
reschedule('0 0 30 2 *');
$node->safe_psql('postgres', "select meshhook_metrics.inc('earlier_total')");
flush($node);
flush($node);
make_work();
new_worker();
is($node->safe_psql('postgres', "select count(*) from pg_stat_activity where backend_type = 'meshhook_metrics upkeep'"), 0,
	'with jobs of pg_cron, the worker starts nothing');
is(owner($rolled_up), 'f', 'and does not roll up');
is(owner($maintained), 'f', 'nor maintain');

# The finest schedule is a second from 1.5 on, before that a minute
reschedule($node->safe_psql('postgres', <<'SQL'));
select case
	when (string_to_array(split_part(extversion, '-', 1), '.'))::int[] >= array[1, 5] then '1 second'
	else '* * * * *'
end
from pg_extension
where extname = 'pg_cron'
SQL
my $runs = <<'SQL';
select distinct
	job.jobname,
	details.command,
	details.username,
	details.status
from cron.job_run_details details
	join cron.job using (jobid)
where details.end_time is not null
	and job.jobname like 'meshhook\_metrics\_%'
order by job.jobname
SQL
$node->poll_query_until('postgres', "select count(distinct jobname) = 2 from ($runs) ended")
  or die 'timed out waiting for pg_cron to run both jobs';
is(owner($runs), <<'RUNS' =~ s/\n\z//r, 'pg_cron runs both jobs, as who scheduled them, and they succeed');
meshhook_metrics_maintain|select meshhook_metrics.maintain()|owner_role|succeeded
meshhook_metrics_rollup|select meshhook_metrics.rollup()|owner_role|succeeded
RUNS
is(owner($rolled_up), 't', 'the minutes are rolled up');
is(owner($maintained), 't', 'the partitions are there');

# A job that is switched off is none
owner(q{select cron.alter_job(jobid, active := false) from cron.job where jobname = 'meshhook_metrics_rollup'});
is(owner($by_pg_cron), 'f', 'with one job switched off, pg_cron does not do it');
owner('select meshhook_metrics.schedule()');
is(owner($by_pg_cron), 't', 'schedule() puts that right');
is(owner($jobs) =~ s/^\d+\|//mgr, ($scheduled =~ s/^\d+\|//mgr) . "\nsomebody_elses|0 0 1 1 *|select 1|owner_role|t",
	'with the schedules that are meant');

owner('select meshhook_metrics.unschedule()');
is(owner('select jobname from cron.job'), 'somebody_elses', 'unschedule() removes our jobs only');
is(owner($by_pg_cron), 'f', 'and pg_cron does it no longer');
owner('select meshhook_metrics.unschedule()');
is(owner('select jobname from cron.job'), 'somebody_elses', 'unschedule() again finds nothing to do');

make_work();
new_worker();
ok($node->poll_query_until('postgres', $rolled_up), 'without jobs, the worker has it rolled up');
ok($node->poll_query_until('postgres', $maintained), 'and maintained');

# What goes wrong in that is over when it is pg_cron's
owner(<<'SQL');
create function meshhook_metrics.not_now() returns trigger language plpgsql as $$ begin raise 'not now'; end $$;
create trigger not_now before insert on meshhook_metrics.rollup_5m for each statement execute function meshhook_metrics.not_now();
SQL
make_work();
new_worker();
await_status($node, "last_error = 'could not roll up: not now'");
owner('select meshhook_metrics.schedule()');
reschedule('0 0 30 2 *');
await_status($node, 'last_error is null');
pass('an error of the worker is not shown any more when pg_cron does it');
owner('drop trigger not_now on meshhook_metrics.rollup_5m; drop function meshhook_metrics.not_now(); select meshhook_metrics.unschedule()');

# The job of an earlier version came before the minute was closed; what somebody has
# chosen instead stays
owner('select meshhook_metrics.schedule()');
my $schedules = q{select string_agg(schedule, ' and ' order by jobname) from cron.job where jobname like 'meshhook\_metrics\_%'};
owner(q{select cron.alter_job(jobid, schedule := '*/5 * * * *') from cron.job where jobname = 'meshhook_metrics_rollup'});
owner(q{select cron.alter_job(jobid, schedule := '17 * * * *') from cron.job where jobname = 'meshhook_metrics_maintain'});
owner('select meshhook_metrics.schedule()');
is(owner($schedules), '17 * * * * and 1-59/5 * * * *', 'schedule() corrects the job of an earlier version, and only that');

# The database got another name: its jobs are for one that is not there
$node->safe_psql('postgres', q{update cron.job set database = 'before' where jobname like 'meshhook\_metrics\_%'});
is(owner($by_pg_cron), 'f', 'jobs for a database of another name are none for this one');
owner('select meshhook_metrics.schedule()');
is(owner(q{select string_agg(distinct database, ' ') || ' ' || count(*) from cron.job where jobname like 'meshhook\_metrics\_%'}), 'postgres 2',
	'schedule() puts them in their place');
is(owner($by_pg_cron), 't', 'and pg_cron does it');
$node->safe_psql('postgres', q{update cron.job set database = 'before' where jobname like 'meshhook\_metrics\_%'});
owner('select meshhook_metrics.unschedule()');
is(owner('select jobname from cron.job'), 'somebody_elses', 'unschedule() removes them');
# A database that is there may be another one's
owner('select meshhook_metrics.schedule()');
$node->safe_psql('postgres', q{update cron.job set database = 'template1' where jobname like 'meshhook\_metrics\_%'});
my (undef, undef, $of_another) = $node->psql('postgres', 'select meshhook_metrics.unschedule()', @owner);
like($of_another, qr/NOTICE:  pg_cron has jobs of meshhook_metrics for database "template1"\nHINT:  If they are not wanted: SELECT cron\.unschedule/,
	'of jobs for another database it says that they are there');
my ($remove) = $of_another =~ /wanted: (SELECT .*;)/;
owner($remove);
is(owner('select jobname from cron.job'), 'somebody_elses', 'and how to remove them');

# Who may not use pg_cron is told so, and can still apply the migrations
$node->safe_psql('postgres', 'revoke usage on schema cron from owner_role');
my ($code, $out, $error) = $node->psql('postgres', 'select meshhook_metrics.schedule()', @owner);
is($code, 0, 'without rights on pg_cron, schedule() is no error');
like($error, qr/NOTICE:  no jobs were scheduled: permission denied for schema cron\nHINT:  The worker/, 'but a notice');
is(owner($by_pg_cron), 'f', 'and the worker goes on');

$node->safe_psql('postgres', 'drop extension pg_cron');
($code, $out, $error) = $node->psql('postgres', 'select meshhook_metrics.schedule()', @owner);
like($error, qr/NOTICE:  pg_cron is not installed in this database: the worker of meshhook_metrics rolls up and maintains/,
	'without pg_cron, schedule() says who does it');
owner('select meshhook_metrics.unschedule()');

$node->stop;
done_testing();
