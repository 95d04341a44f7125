# A dump of a database with its storage, restored into a new cluster that has
# the roles, is whole: rows, who sees them, what is streamed and scheduled; and
# the new server goes on flushing into it, and evaluating alert rules where the
# old one was. By a superuser, in custom format, while samples wait to be
# stored; and by the owner, in plain format.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use POSIX qw(strftime);
use PostgreSQL::Test::Utils;
use Test::More;

await_midnight();
my $tenant_a = 'aaaaaaaa-0000-0000-0000-000000000001';
my $tenant_b = 'bbbbbbbb-0000-0000-0000-000000000002';
my $began = strftime('%Y-%m-%d %H:%M:%S+00', gmtime);
my $pg_cron = -e PostgreSQL::Test::Cluster->new('any')->config_data('--sharedir') . '/extension/pg_cron.control';

sub new_cluster
{
	my ($name) = @_;
	my $node = new_plain_cluster($name);

	$node->append_conf('postgresql.conf', $pg_cron ? <<'CONF' : "shared_preload_libraries = 'meshhook_metrics'");
shared_preload_libraries = 'meshhook_metrics, pg_cron'
cron.database_name = 'postgres'
cron.use_background_workers = on
CONF
	configure($node, flush_interval => "'1s'", alert_interval => "'1s'");
	$node->start;
	remember_region($node);
	return $node;
}

# As Supabase does for its "postgres"
sub allow_pg_cron
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<'SQL') if $pg_cron;
create extension if not exists pg_cron;
grant usage on schema cron to owner_role;
SQL
	return;
}

# What must be the same on both sides, of what there was when the dump was made
my %kept = (
	'the series' => 'select * from meshhook_metrics.series where metric <> $$meanwhile_total$$',
	'the live rows' => <<'SQL',
select *
from meshhook_metrics.live
where series_id[1] in (select id from meshhook_metrics.series where metric <> 'meanwhile_total')
SQL
	(
		map {
			(
				"the rows of rollup_$_" => <<"SQL")
select tableoid::regclass, rollup.*
from meshhook_metrics.rollup_$_ rollup
where series_id in (select id from meshhook_metrics.series where metric <> 'meanwhile_total')
SQL
		} qw(1m 5m 1h 1d)),
	# What comes meanwhile, and whose minute ends, sets them back to the window that it is in
	'how far rollups are' => <<"SQL",
select target, least(complete_until, date_bin(step, '$began', 'epoch')), retained_from
from meshhook_metrics.rollup_state
	join meshhook_metrics.rollup_targets() using (target)
SQL
	'the settings' => 'select * from meshhook_metrics.settings',
	# Whose errors are noted anew with each evaluation
	'the alert rules' => q{select to_jsonb(r) - 'last_error_at' from meshhook_metrics.alert_rules r},
	'the alerts' => 'select * from meshhook_metrics.alerts',
	'what happened to alerts' => 'select * from meshhook_metrics.alert_events',
	'the receivers' => 'select * from meshhook_metrics.alert_receivers',
	'the outbox' => 'select * from meshhook_metrics.alert_notifications',
	'the tables, their owners, partitions and row level security' => <<'SQL',
select c.oid::regclass, c.relkind, c.relowner::regrole, c.relrowsecurity, pg_get_expr(c.relpartbound, c.oid), c.reloptions,
	obj_description(c.oid, 'pg_class')
from pg_class c
where c.relnamespace = 'meshhook_metrics'::regnamespace
SQL
	'the columns' => <<'SQL',
select a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, pg_get_expr(d.adbin, d.adrelid)
from pg_attribute a
	join pg_class c on c.oid = a.attrelid
	left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.relnamespace = 'meshhook_metrics'::regnamespace
	and c.relkind in ('r', 'p')
	and a.attnum > 0
	and not a.attisdropped
SQL
	'the constraints, indexes and triggers' => <<'SQL',
select 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
from pg_constraint
where connamespace = 'meshhook_metrics'::regnamespace
union all
select 'index', indrelid::regclass::text, indexrelid::regclass::text, pg_get_indexdef(indexrelid)
from pg_index
where indexrelid::regclass::text like 'meshhook_metrics.%'
union all
select 'trigger', tgrelid::regclass::text, tgname, pg_get_triggerdef(oid)
from pg_trigger
where tgrelid::regclass::text like 'meshhook_metrics.%'
	and not tgisinternal
SQL
	'the policies' => q{select * from pg_policies where schemaname = 'meshhook_metrics'},
	'the publication' => q{select pubname, schemaname, tablename from pg_publication_tables where pubname = 'supabase_realtime'},
	'the grants on tables' => <<'SQL',
select c.oid::regclass, a.grantee::regrole, a.privilege_type
from pg_class c, aclexplode(c.relacl) a
where c.relnamespace = 'meshhook_metrics'::regnamespace
	and a.grantee <> c.relowner
SQL
	'the functions and the grants on them' => <<'SQL',
select p.oid::regprocedure, p.proowner::regrole, p.prosecdef, p.proconfig, md5(p.prosrc), a.grantee::regrole, a.is_grantable, obj_description(p.oid, 'pg_proc')
from pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
where p.pronamespace = 'meshhook_metrics'::regnamespace
	and a.grantee <> p.proowner
SQL
	'the members of the extension' => <<'SQL',
select pg_describe_object(d.classid, d.objid, d.objsubid)
from pg_depend d
	join pg_extension e on e.oid = d.refobjid and d.refclassid = 'pg_extension'::regclass
where d.deptype = 'e'
	and e.extname = 'meshhook_metrics'
SQL
	($pg_cron
		? ('the jobs' => 'select jobname, schedule, command, username, active from cron.job')
		: ()));

my $tenants_view = <<'SQL';
select series.metric, series.labels, sum(rollup.count), sum(rollup.sum), meshhook_metrics.histogram_merge(rollup.histogram)
from meshhook_metrics.rollup_1m rollup
	join meshhook_metrics.series on series.id = rollup.series_id
group by 1, 2
order by 1, 2
SQL

my $tenants_alerts = <<'SQL';
select name, labels, state, value, annotations
from meshhook_metrics.alerts
order by name, labels
SQL

sub what_is_kept
{
	my ($node) = @_;
	my %found = map { $_ => join "\n", sort split /\n/, $node->safe_psql('postgres', $kept{$_}) } keys %kept;

	$found{"what $_ reads"} = as_tenant($node, 'authenticated', $_, $tenants_view) for $tenant_a, $tenant_b;
	$found{"what alerts $_ reads"} = as_tenant($node, 'authenticated', $_, $tenants_alerts) for $tenant_a, $tenant_b;
	return %found;
}

# Rules of which some fire, one does not yet, one has ceased to and is not resolved
# yet, some have been, one fails; and notifications that are delivered, or not yet
sub alert
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<"SQL", extra_params => [ '-U', 'owner_role' ]);
insert into meshhook_metrics.alert_receivers (tenant_id, name, url, headers)
values ('$tenant_a', 'duty', 'https://duty.example/', '{"Authorization": "Bearer x"}'), ('$tenant_a', 'log', null, '{}');
insert into meshhook_metrics.alert_rules (
	tenant_id, name, metric, aggregate, group_by, threshold, time_window, for_duration, keep_firing_for, annotations, silenced_until)
select tenant, rule.name, metric, aggregate, keys::text[], 0, '1 day', pending, recovering, '{"summary": "{{ value }} of {{ labels.status }}"}', silent
from unnest(array['$tenant_a', '$tenant_b']::uuid[]) tenant,
	(
		values
			('groups', 'runs_total', 'increase', '{status}', interval '0', interval '0', null),
			('pending', 'depth', 'last', null, '1 hour', '0', null),
			('recovering', 'run_seconds', 'count', null, '0', '1 day', null),
			('resolved', 'run_seconds', 'count', null, '0', '0', null),
			('deleted', 'run_seconds', 'count', null, '0', '0', null),
			('silenced', 'run_seconds', 'count', null, '0', '0', timestamptz '2100-01-01 00:00:00+00'),
			('failing', 'run_seconds', 'last', null, '0', '0', null)
	) rule (name, metric, aggregate, keys, pending, recovering, silent);
select meshhook_metrics.evaluate_alerts();
update meshhook_metrics.alert_rules set threshold = 100000 where name in ('recovering', 'resolved');
delete from meshhook_metrics.alert_rules where name = 'deleted';
select meshhook_metrics.evaluate_alerts();
select meshhook_metrics.finish_notification(id, case when id % 2 = 0 then 'no answer' end) from meshhook_metrics.claim_notifications(3);
SQL
	return;
}

sub record
{
	my ($node) = @_;

	$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('runs_total', i, jsonb_build_object('status', 's' || i % 3), tenant),
	meshhook_metrics.gauge_set('depth', i, '{"queue": "a \\"b\\" \\\\ c"}', tenant),
	meshhook_metrics.observe('run_seconds', i / 100.0, '{}', tenant)
from generate_series(1, 300) i,
	unnest(array['$tenant_a', '$tenant_b']::uuid[]) tenant
SQL
	return;
}

my $old = new_cluster('old');
supabase_roles($old, $tenant_a, $tenant_b);
allow_pg_cron($old);
install_storage($old, role => 'owner_role');
record($old);
flush($old);

# Everything is rolled up as of half an hour later, so that no worker, neither
# here nor there, has a reason to change anything of it
$old->safe_psql('postgres', <<"SQL", extra_params => [ '-U', 'owner_role' ]);
insert into meshhook_metrics.settings
values ('retention_live', default, '1 hour'), ('max_series', '$tenant_b', '50'), ('max_alert_rules', '$tenant_b', '7');
select meshhook_metrics.close_minutes(now() + interval '30 minutes');
select meshhook_metrics.create_leaf('1h', now() - interval '50 days'), meshhook_metrics.create_leaf('1d', now() - interval '500 days');
insert into meshhook_metrics.rollup_1h (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
select tenant_id, series_id, date_trunc('hour', now() - interval '50 days'), count, sum, min, max, last, histogram
from meshhook_metrics.rollup_1m;
insert into meshhook_metrics.rollup_1d (tenant_id, series_id, bucket, count, sum, min, max, last, histogram)
select tenant_id, series_id, date_trunc('day', now() - interval '500 days'), count, sum, min, max, last, histogram
from meshhook_metrics.rollup_1m;
select meshhook_metrics.rollup();
SQL
maintain_wholly($old, extra_params => [ '-U', 'owner_role' ]);
alert($old);
my %before = what_is_kept($old);
my %totals = map { $_ => stored_total($old, $_) } qw(runs_total depth run_seconds);
is_deeply(\%totals, { runs_total => '600|90300', depth => '600|90300', run_seconds => '600|903' },
	'before the dump everything is stored');
like($before{"what $tenant_a reads"}, qr/^depth\|.*\nrun_seconds\|.*\n(runs_total\|.*(\n|$)){3}\z/, 'and read by its tenant');
is($before{"what alerts $tenant_a reads"}, <<'ROWS' =~ s/\n\z//r, 'with its alerts');
groups|{"status": "s0"}|firing|15150|{"summary": "15150 of s0"}
groups|{"status": "s1"}|firing|14950|{"summary": "14950 of s1"}
groups|{"status": "s2"}|firing|15050|{"summary": "15050 of s2"}
pending|{}|pending|300|{"summary": "300 of "}
recovering|{}|firing|300|{"summary": "300 of "}
silenced|{}|firing|300|{"summary": "300 of "}
ROWS
is($old->safe_psql('postgres', <<'SQL'), "delivered|2\nto be tried again|1\nwaiting|15", 'of which some are told');
select what, count(*)
from meshhook_metrics.alert_notifications
	cross join lateral (
		select case when delivered_at is not null then 'delivered' when attempts > 0 then 'to be tried again' else 'waiting' end) w (what)
group by what
order by what
SQL
like($before{'the jobs'}, qr/^meshhook_metrics_maintain\|.*\nmeshhook_metrics_rollup\|/, 'pg_cron has its jobs') if $pg_cron;

my @from = ('-h', $old->host, '-p', $old->port, '-d', 'postgres');
my $dumps = $old->basedir;
command_ok([ 'pg_dumpall', '-h', $old->host, '-p', $old->port, '--roles-only', '-f', "$dumps/roles.sql" ], 'the roles are dumped');
command_ok([ 'pg_dump', @from, '-Fc', '-f', "$dumps/whole.dump" ], 'a superuser dumps the database in custom format');
# Without what is not the owner's, neither here nor where it is restored to: pg_dump
# leaves out schemas, but not what it says of extensions
command_ok([ 'pg_dump', @from, '-U', 'owner_role', '-N', 'auth', '-N', 'cron', '-f', "$dumps/whole.sql" ],
	'its owner dumps it in plain format');
# Which Supabase has before
command_ok([ 'pg_dump', @from, '-n', 'auth', '-f', "$dumps/auth.sql" ], 'schema auth is dumped by itself');
my $plain = slurp_file("$dumps/whole.sql") =~ s/^COMMENT ON EXTENSION pg_cron .*;$//mr;
my ($last_series, $last_live, $last_event, $last_notification) = map { $old->safe_psql('postgres', "select max(id) from meshhook_metrics.$_") }
  qw(series live alert_events alert_notifications);
$old->stop;

sub new_cluster_with_roles
{
	my ($name) = @_;
	my $node = new_cluster($name);

	# The superuser is there already
	$node->safe_psql('postgres', slurp_file("$dumps/roles.sql") =~ s/^CREATE ROLE postgres;$//mr);
	$node->safe_psql('postgres', 'alter database postgres owner to owner_role');
	return $node;
}

# Evaluation has what was pending, firing and told where the old server left it
sub alerts_go_on_ok
{
	my ($node, $name) = @_;
	my $rule = 'insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold)';
	my $before = $node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_events');

	# The worker does, too, as soon as it has flushed
	my $evaluated = q{select evaluated_at from meshhook_metrics.alert_state};
	my $evaluated_at = $node->safe_psql('postgres', $evaluated);
	flush($node);
	$node->poll_query_until('postgres', "select ($evaluated) > '$evaluated_at'") or die 'timed out waiting for the worker to evaluate';
	is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.alert_events'), $before, "$name: the worker does not change alerts either");
	is(as_tenant($node, 'authenticated', $tenant_a, "select value from meshhook_metrics.alerts where labels ->> 'status' = 's0'"), 30300,
		"$name: but their values, as samples come");

	like(as_tenant($node, 'authenticated', $tenant_a, "$rule values ('$tenant_b', 'x', 'm', 'count', 0)"), qr/ERROR:  42501/,
		"$name: a tenant writes no other's rules");
	like(as_tenant($node, 'authenticated', $tenant_a, "$rule values ('$tenant_a', 'x', 'm', 'middle', 0)"), qr/ERROR:  22023: there is no aggregate "middle"/,
		"$name: what makes no sense is refused");
	like(as_tenant($node, 'authenticated', $tenant_b, "$rule values ('$tenant_b', 'seventh', 'm', 'count', 0), ('$tenant_b', 'eighth', 'm', 'count', 0)"),
		qr/ERROR:  53400: this tenant has 7 /, "$name: and what is more than the tenant may have");

	# Two hours later, with the rule of A's groups deleted
	is(as_tenant($node, 'authenticated', $tenant_a, q{delete from meshhook_metrics.alert_rules where name = 'groups'}), '', "$name: a tenant deletes a rule");
	# The worker, whose clock is not set, would see that as one that was set back, and tell again
	my (undef, $event, $notification) = split /\n/, $node->safe_psql('postgres', <<'SQL', extra_params => [ '-U', 'owner_role' ]);
begin;
select meshhook_metrics.evaluate_alerts(now() + interval '2 hours');
select max(id) from meshhook_metrics.alert_events;
select max(id) from meshhook_metrics.alert_notifications;
commit;
SQL
	is($node->safe_psql('postgres', <<"SQL"), <<"ROWS" =~ s/\n\z//r, "$name: what fired before the dump is resolved, what was pending fires");
select e.tenant_id, e.name, e.labels, e.state, e.reason, f.state, f.id <= $last_event, e.started_at <= (select max(at) from meshhook_metrics.alert_events where id <= $last_event)
from meshhook_metrics.alert_events e
	left join meshhook_metrics.alert_events f on f.id = e.fired_event_id
where e.id > $last_event and e.id <= $event
order by e.tenant_id, e.name, e.labels
SQL
$tenant_a|groups|{"status": "s0"}|resolved|deleted|firing|t|t
$tenant_a|groups|{"status": "s1"}|resolved|deleted|firing|t|t
$tenant_a|groups|{"status": "s2"}|resolved|deleted|firing|t|t
$tenant_a|pending|{}|firing|threshold|||t
$tenant_b|pending|{}|firing|threshold|||t
ROWS
	is($node->safe_psql('postgres', <<"SQL"), <<"ROWS" =~ s/\n\z//r, "$name: of which the receivers are told, once");
select tenant_id, receiver, payload #>> '{groupLabels,alertname}', payload ->> 'status', jsonb_array_length(payload -> 'alerts')
from meshhook_metrics.alert_notifications
where id > $last_notification and id <= $notification
order by 1, 2, 3
SQL
$tenant_a|duty|groups|resolved|3
$tenant_a|duty|pending|firing|1
$tenant_a|log|groups|resolved|3
$tenant_a|log|pending|firing|1
$tenant_b|default|pending|firing|1
ROWS
	return;
}

sub restored_ok
{
	my ($node, $name) = @_;
	my %after = what_is_kept($node);

	same_ok($after{$_}, $before{$_}, "$name: $_") for sort keys %before;
	is_deeply({ map { $_ => stored_total($node, $_) } keys %totals }, \%totals, "$name: the totals");

	# An alert that fires does not do so again
	is($node->safe_psql('postgres', 'select meshhook_metrics.evaluate_alerts()', extra_params => [ '-U', 'owner_role' ]), 0,
		"$name: evaluated again, no alert changes");
	await_status($node, 'storage_installed and last_error is null');

	# Known series keep their ids, new ones and live rows get greater ones
	record($node);
	$node->safe_psql('postgres', "select meshhook_metrics.inc('afterwards_total', 1, '{}', '$tenant_a')");
	flush($node);
	is_deeply(
		{ map { $_ => stored_total($node, $_) } keys %totals },
		{ runs_total => '1200|180600', depth => '1200|180600', run_seconds => '1200|1806' },
		"$name: the server goes on flushing, and adds to what was there");
	is($node->safe_psql('postgres', "select count(*) from meshhook_metrics.series where id > $last_series"),
		$node->safe_psql('postgres', "select count(*) from meshhook_metrics.series where metric in ('meanwhile_total', 'afterwards_total')"),
		"$name: in the same series");
	is($node->safe_psql('postgres', "select id > $last_series from meshhook_metrics.series where metric = 'afterwards_total'"), 't',
		"$name: the ids of new series go on");
	is($node->safe_psql('postgres', <<"SQL"), 't', "$name: and those of live rows");
select bool_and(id > $last_live)
from meshhook_metrics.live
where series_id && (select array_agg(id) from meshhook_metrics.series where metric = 'afterwards_total')
SQL
	is($node->safe_psql('postgres', 'select count(*) from meshhook_metrics.flush_state'), 2, "$name: from a region of its own");
	$node->safe_psql('postgres', <<'SQL', extra_params => [ '-U', 'owner_role' ]);
select meshhook_metrics.close_minutes(now() + interval '40 minutes');
select meshhook_metrics.rollup();
select meshhook_metrics.maintain();
SQL
	is($node->safe_psql('postgres', <<'SQL'), "1m|1200\n5m|1200", "$name: minutes are closed and rolled up");
select '1m', sum(count)
from meshhook_metrics.rollup_1m
	join meshhook_metrics.series on series.id = series_id
where metric = 'runs_total'
union all
select '5m', sum(count)
from meshhook_metrics.rollup_5m
	join meshhook_metrics.series on series.id = series_id
where metric = 'runs_total'
SQL
	like(as_tenant($node, 'authenticated', $tenant_a, 'insert into meshhook_metrics.series default values'),
		qr/ERROR:  42501/, "$name: a tenant may not write");
	alerts_go_on_ok($node, $name);
	await_status($node, 'storage_installed and last_error is null');
	return;
}

# Samples wait to be stored already, so the worker tries to all the while
my $node = new_cluster_with_roles('by_superuser');
$node->safe_psql('postgres', 'create database side');
$node->safe_psql('side', q{create extension meshhook_metrics; select meshhook_metrics.inc('meanwhile_total', 3)});
my $worker = worker_pid($node);
command_ok([ 'pg_restore', '--exit-on-error', '-h', $node->host, '-p', $node->port, '-d', 'postgres', "$dumps/whole.dump" ],
	'a superuser restores it without an error');
await_status($node, 'tick is not null');
is(stored_total($node, 'meanwhile_total'), '1|3', 'what waited is stored, once');
restored_ok($node, 'by a superuser');
is($node->safe_psql('postgres', 'select meshhook_metrics.scheduled_by_pg_cron()'), $pg_cron ? 't' : 'f',
	'by a superuser: pg_cron runs the jobs, where it is');
is(worker_pid($node), $worker, 'by a superuser: it was the same worker all the time');
$node->stop;

$node = new_cluster_with_roles('by_owner');
$node->safe_psql('postgres', slurp_file("$dumps/auth.sql"));
allow_pg_cron($node);
my ($code, $out, $error) = $node->psql('postgres', $plain, extra_params => [ '-U', 'owner_role' ]);
is($code, 0, 'its owner restores it without an error') or diag($error);
# Jobs are pg_cron's, which belongs to somebody else
$node->safe_psql('postgres', 'select meshhook_metrics.schedule()', extra_params => [ '-U', 'owner_role' ]);
restored_ok($node, 'by its owner');
$node->stop;

done_testing();
