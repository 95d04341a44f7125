# A subscriber of Supabase Realtime gets each flush of its tenant, a row of live, and
# what happens to its alerts, in JSON that it can use, whoever subscribes beside it. The
# reader here does what Realtime does in the database: a slot of wal2json with its
# options, the tables of its publication, and each change checked for each subscriber,
# with a prepared statement under the subscriber's role and claims, where an error of one
# is an error for all.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP ();
use List::Util qw(max sum0);
use MetricsCluster;
use Test::More;

my $tenant_a = 'aaaaaaaa-0000-0000-0000-000000000001';
my $tenant_b = 'bbbbbbbb-0000-0000-0000-000000000002';
my $platform = '00000000-0000-0000-0000-000000000000';
my $mebibyte = 1024 * 1024;

my $node = new_plain_cluster('main', allows_streaming => 'logical');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'meshhook_metrics'
meshhook_metrics.flush_interval = 60s
extra_float_digits = 0
CONF
$node->start;
remember_region($node);

# The newest minor releases know which plugins a slot may name
if ($node->safe_psql('postgres', q{select count(*) from pg_settings where name = 'output_plugin_libraries'}))
{
	$node->append_conf('postgresql.conf', "output_plugin_libraries = 'wal2json'");
	$node->restart;
	remember_region($node);
}
supabase_roles($node, $tenant_a, $tenant_b);
install_storage($node, role => 'owner_role');

is($node->safe_psql('postgres', <<'SQL'), 'meshhook_metrics.alert_events, meshhook_metrics.live', 'live and alert_events, and nothing else, are published');
select string_agg(format('%I.%I', schemaname, tablename), ', ' order by tablename)
from pg_publication_tables
where pubname = 'supabase_realtime'
SQL

$node->safe_psql('postgres', <<'SQL');
create schema peer;

-- A value as it arrives: cast from wal2json's text to its type, then to JSON
create function peer.as_json(field jsonb)
returns jsonb
language plpgsql
as $$
declare
	result jsonb;
begin
	execute format('select to_jsonb(%L::%s)', field ->> 'value', (field ->> 'typeoid')::oid::regtype) into result;
	return result;
end
$$;

-- Who listens: each row is a client that has joined, with the claims of its token
create table peer.subscriptions (
	client text primary key,
	claims_role regrole not null,
	claims jsonb not null
);

-- The fields that a role may read
create function peer.fields(relation regclass, fields jsonb, role regrole)
returns jsonb
language sql
begin atomic
	select jsonb_object_agg(field ->> 'name', peer.as_json(field))
	from jsonb_array_elements(fields) field
	where has_column_privilege(role, relation, field ->> 'name', 'select');
end;

-- A change as each role gets it, and which of its clients do. A role that may not read
-- the key is told so at each row of anybody. Row level security does not hold for deletes.
create function peer.apply_rls(wal jsonb)
returns table (role regrole, record jsonb, old_record jsonb, clients text[], errors text[])
language plpgsql
as $$
declare
	relation constant regclass := format('%I.%I', wal ->> 'schema', wal ->> 'table')::regclass;
	deleted constant boolean := wal ->> 'action' = 'D';
	client record;
	found_it boolean;
begin
	for role in
		select distinct s.claims_role
		from peer.subscriptions s
		order by 1
	loop
		clients := '{}';
		errors := '{}';
		record := peer.fields(relation, wal -> 'columns', role);
		old_record := peer.fields(relation, wal -> 'identity', role);
		if not deleted and not has_column_privilege(role, relation, wal -> 'pk' -> 0 ->> 'name', 'select') then
			errors := array['401'];
			clients := array(select s.client from peer.subscriptions s where s.claims_role = role);
			record := null;
			return next;
			continue;
		end if;

		if not deleted then
			if exists (select from pg_prepared_statements where name = 'walrus_rls_stmt') then
				deallocate walrus_rls_stmt;
			end if;
			execute format('prepare walrus_rls_stmt as select exists (select 1 from %s where %I = %L)',
				relation, wal -> 'pk' -> 0 ->> 'name', record ->> (wal -> 'pk' -> 0 ->> 'name'));
		end if;
		for client in
			select s.client as name, s.claims
			from peer.subscriptions s
			where s.claims_role = role
			order by 1
		loop
			found_it := deleted;
			if not deleted then
				perform set_config('role', trim(both '"' from role::text), true), set_config('request.jwt.claims', client.claims::text, true);
				execute 'execute walrus_rls_stmt' into found_it;
				perform set_config('role', null, true);
			end if;
			if found_it then
				clients := clients || client.name;
			end if;
		end loop;
		return next;
	end loop;
end
$$;

-- What a slot has for a publication
create function peer.changes(slot name, publication name)
returns setof jsonb
language sql
as $$
	with
		published as materialized (
			select string_agg(format('%I.%I', schemaname, tablename), ',') as tables
			from pg_publication_tables
			where pubname = publication
		),
		decoded as materialized (
			select
				change.data::jsonb as wal,
				octet_length(change.data) as bytes
			from published,
				pg_logical_slot_get_changes(slot, null, 100,
					'include-pk', 'true',
					'include-transaction', 'false',
					'include-timestamp', 'true',
					'include-type-oids', 'true',
					'format-version', '2',
					'actions', 'insert,update,delete',
					'add-tables', published.tables) change
		)
	select jsonb_build_object(
		'action', wal ->> 'action',
		'table', format('%I.%I', wal ->> 'schema', wal ->> 'table'),
		'key', wal -> 'pk' -> 0 ->> 'name',
		'bytes', bytes,
		'role', role,
		'record', record,
		'old_record', old_record,
		'clients', clients,
		'errors', errors)
	from decoded
		cross join lateral peer.apply_rls(wal)
$$;
SQL

# The subscribers: a user of each tenant, one of none, the back end, visitors without a
# token, and tokens that make MeshHook's auth.uid() raise
sub subscribe
{
	my ($client, $role, $claims) = @_;

	$node->safe_psql('postgres', "insert into peer.subscriptions values ('$client', '$role', \$claims\$$claims\$claims\$)");
	return;
}

my @hostile = map { qq({"role": "authenticated", "sub": $_}) }
  ('"x"', '""', '0', '[]', '{}', 'true', '" "', qq("$tenant_a "), '"' . 'x' x 100_000 . '"');
push @hostile, '{}', '[]', 'null', '"x"', '0', '{"app_metadata": 7}', '{"sub": null, "app_metadata": {"tenant_ids": {}}}',
  qq({"sub": "x", "app_metadata": {"tenant_ids": ["$tenant_a"]}}), qq([{"sub": "$tenant_a"}]);
subscribe('user of A', 'authenticated', qq({"role": "authenticated", "sub": "$tenant_a"}));
subscribe('user of B', 'authenticated', qq({"role": "authenticated", "sub": "$tenant_b"}));
subscribe('user of nothing', 'authenticated', '{"role": "authenticated", "sub": "cccccccc-0000-0000-0000-000000000003"}');
subscribe('back end', 'service_role', '{"role": "service_role"}');
subscribe('visitor', 'anon', '{"role": "anon"}');
subscribe('visitor with a token of A', 'anon', qq({"role": "anon", "sub": "$tenant_a"}));
# The first that is asked, and the last
subscribe("$_ hostile $hostile[$_]" =~ s/^(.{100}).*/$1/r, 'authenticated', $hostile[$_]) for 0 .. $#hostile;
subscribe("zz hostile $hostile[0]", 'authenticated', $hostile[0]);
subscribe('hostile visitor', 'anon', '{"sub": "x"}');

# Realtime reads through a temporary slot, for which its session stays open.
# Another one, which reads all tables, shows what the publication keeps away.
my $reader = session($node);
$reader->query_safe("set client_min_messages = error; select pg_create_logical_replication_slot('$_', 'wal2json', true)") for qw(realtime everything);

# All changes since the last call, as the user of tenant A meets them. Whoever else
# listens: the back end gets all, a user of a tenant its own, and nobody else anything,
# not even an error; but of what is deleted all get the key.
my @everybody = split /\n/, $node->safe_psql('postgres', 'select client from peer.subscriptions order by client collate "C"');

sub changes
{
	my @lines = map { JSON::PP::decode_json($_) } split /\n/, $reader->query_safe("select peer.changes('realtime', 'supabase_realtime')");
	my (@wrong, @changes);
	my %all = map { ($_->{record} // $_->{old_record})->{id} => $_->{record} } grep { $_->{role} eq 'service_role' } @lines;

	for my $line (@lines)
	{
		my @expected = grep { $line->{role} eq client_role($_) } @everybody;

		if ($line->{action} ne 'D')
		{
			my $tenant = $all{ $line->{record}{id} }{tenant_id};

			@expected = grep { $_ eq 'back end' || $_ eq 'user of A' && $tenant eq $tenant_a || $_ eq 'user of B' && $tenant eq $tenant_b } @expected;
		}
		push @wrong, $line if "@expected" ne "@{ [ sort @{ $line->{clients} } ] }" || @{ $line->{errors} };
		push @wrong, $line if $line->{role} eq 'anon' && grep { $_ ne 'id' } keys %{ $line->{record} // $line->{old_record} };
		$line->{visible} = (grep { $_ eq 'user of A' } @{ $line->{clients} }) ? JSON::PP::true : JSON::PP::false;
		push @changes, $line if $line->{role} eq 'authenticated';
	}
	is_deeply(\@wrong, [], 'each change reaches the tenant that it is of, and the back end, with no error for anybody');
	return @changes;
}

sub client_role
{
	my ($client) = @_;

	return $client eq 'back end' ? 'service_role' : $client =~ /visitor/ ? 'anon' : 'authenticated';
}

# The fresh rows of live, by their tenant, after it is made sure that these are
# the only changes
my $seen_until = 0;

sub streamed_ok
{
	my ($name) = @_;
	my @changes = changes();
	my $expected = $node->safe_psql('postgres',
		"select id from meshhook_metrics.live where id > $seen_until order by id");

	is(join("\n", map { $_->{record}{id} } @changes), $expected, "$name: the rows of live, in their order");
	is_deeply([ grep { "$_->{action} $_->{table} $_->{key}" ne 'I meshhook_metrics.live id' } @changes ], [],
		"$name: inserts into live, and nothing else");
	$seen_until = $changes[-1]{record}{id} if @changes;
	my %by_tenant;
	push @{ $by_tenant{ $_->{record}{tenant_id} } }, $_ for @changes;
	return %by_tenant;
}

# What a record says of its series, by metric and labels
sub by_series
{
	my (@changes) = @_;
	my %series;

	for my $record (map { $_->{record} } @changes)
	{
		for my $i (0 .. $#{ $record->{series_id} })
		{
			my $name = $node->safe_psql('postgres',
				"select metric || labels from meshhook_metrics.series where id = $record->{series_id}[$i]");

			die "$name comes twice" if $series{$name};
			$series{$name} =
			  { map { $_ => $record->{$_} ? $record->{$_}[$i] : undef } qw(count sum min max last histogram) };
		}
	}
	return \%series;
}

# Every array has an element for each series
sub aligned_ok
{
	my ($record, $name) = @_;
	my $length = @{ $record->{series_id} };

	is_deeply(
		[ grep { defined $record->{$_} && @{ $record->{$_} } != $length } qw(count sum min max last histogram) ],
		[], "$name: the arrays are as long as each other");
	return;
}

# Some of everything, with numbers that are easily written and hard to store
$node->safe_psql('postgres', <<"SQL");
select
	meshhook_metrics.inc('runs_total', 0.1, '{"status": "ok"}', '$tenant_a'),
	meshhook_metrics.inc('runs_total', 2.5, '{"status": "ok"}', '$tenant_a'),
	meshhook_metrics.inc('runs_total', 9007199254740993, '{"status": "failed \\\\ \\"badly\\", {so to say}"}', '$tenant_a'),
	meshhook_metrics.gauge_set('depth', 1e-7, '{}', '$tenant_a'),
	meshhook_metrics.gauge_set('depth', -4.25, '{}', '$tenant_a'),
	meshhook_metrics.observe('seconds', 0.3, '{}', '$tenant_a'),
	meshhook_metrics.observe('seconds', 0, '{}', '$tenant_a'),
	meshhook_metrics.observe('seconds', 7.75, '{}', '$tenant_a'),
	meshhook_metrics.observe('seconds', 1e9, '{}', '$tenant_a'),
	meshhook_metrics.inc('runs_total', 3, '{}', '$tenant_b'),
	meshhook_metrics.inc('scrapes_total', 1);
SQL
flush($node);
my %rows = streamed_ok('a flush');
is_deeply([ sort keys %rows ], [ sort $tenant_a, $tenant_b, $platform ], 'a flush brings each tenant');
is_deeply([ map { scalar @$_ } values %rows ], [ 1, 1, 1 ], 'with one row');

my $record = $rows{$tenant_a}[0]{record};
is_deeply(
	[ sort keys %$record ],
	[ sort qw(id tenant_id at seconds series_id count sum min max last histogram) ],
	'a subscriber reads every column');
aligned_ok($record, 'all kinds');
my ($at, $seconds) = split /\|/,
  $node->safe_psql('postgres', "select extract(epoch from at), seconds from meshhook_metrics.live where id = $record->{id}");
is($node->safe_psql('postgres', "select extract(epoch from '$record->{at}'::timestamptz)"), $at,
	'"at" reads as the time that is stored');
cmp_ok($record->{seconds}, '==', $seconds, '"seconds" is a number');
cmp_ok($record->{seconds}, '>', 0, 'and a span of time');

my $series = by_series(@{ $rows{$tenant_a} });
my $histogram = delete $series->{'seconds{}'}{histogram};
is_deeply(
	$series,
	{
		'runs_total{"status": "ok"}' =>
		  { count => 2, sum => 2.6, min => undef, max => undef, last => undef, histogram => undef },
		'runs_total{"status": "failed \\\\ \\"badly\\", {so to say}"}' =>
		  { count => 1, sum => 9007199254740990, min => undef, max => undef, last => undef, histogram => undef },
		'depth{}' => { count => 2, sum => -4.2499999, min => -4.25, max => 1e-7, last => -4.25, histogram => undef },
		'seconds{}' => { count => 4, sum => 1000000008.05, min => 0, max => 1e9, last => undef },
	},
	'each kind has the numbers that were recorded, in 15 digits, and null where it has none')
  or diag(explain($series));
is(ref $histogram, 'HASH', 'a histogram is an object');
is_deeply([ grep { !exists $histogram->{$_} } qw(schema count sum min max zero offset buckets overflow) ], [],
	'with the keys of the contract');
is_deeply([ @$histogram{qw(schema count sum min max zero overflow)} ], [ 3, 4, 1000000008.05, 0, 1e9, 1, 1 ],
	'whose numbers are those of the samples');
is(sum0(@{ $histogram->{buckets} }), 2, 'and whose buckets have the others');

# Bucket i is for what is above 2^((i - 1) / 8) and up to 2^(i / 8)
my @upper = map { 2**(($histogram->{offset} + $_) / 8) }
  grep { $histogram->{buckets}[$_] } 0 .. $#{ $histogram->{buckets} };
is_deeply(
	[ map { my $sample = $_; scalar grep { $sample <= $_ && $sample > $_ / 2**(1 / 8) } @upper } 0.3, 7.75 ],
	[ 1, 1 ], 'each in its own');

$record = $rows{$tenant_b}[0]{record};
is_deeply([ @$record{qw(count sum min max last histogram)} ], [ [1], [3], undef, undef, undef, undef ],
	'where there are only counters, the other arrays are null');

# Realtime sends a row to those who see it
is_deeply([ map { $rows{$_}[0]{visible} } $tenant_a, $tenant_b, $platform ], [ JSON::PP::true, JSON::PP::false, JSON::PP::false ],
	'a subscriber sees the row of its tenant, not those of others');

# Only what has changed
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.inc('runs_total', 1, '{"status": "ok"}', '$tenant_a');
select meshhook_metrics.gauge_set('depth', -4.25, '{}', '$tenant_a');
SQL
flush($node);
%rows = streamed_ok('the next flush');
is_deeply([ keys %rows ], [$tenant_a], 'the next flush brings the tenant that recorded');
is_deeply(
	by_series(@{ $rows{$tenant_a} }),
	{
		'runs_total{"status": "ok"}' =>
		  { count => 1, sum => 1, min => undef, max => undef, last => undef, histogram => undef },
		'depth{}' => { count => 1, sum => -4.25, min => -4.25, max => -4.25, last => -4.25, histogram => undef },
	},
	'with what has come since');
flush($node);
streamed_ok('a flush without anything new');

# Many series: rows that Realtime does not cut, which it does above 1 MiB
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.observe('steps_seconds', 0.001 * 1.09 ^ sample, jsonb_build_object('step', step), '$tenant_a')
from generate_series(1, 501) step,
	generate_series(1, 45) sample
SQL
flush($node);
%rows = streamed_ok('501 histograms');
cmp_ok(max(map { scalar @{ $_->{record}{series_id} } } @{ $rows{$tenant_a} }), '<=', 500, 'at most 500 come in one row');
aligned_ok($_->{record}, 'each row') for @{ $rows{$tenant_a} };
is(sum0(map { @{ $_->{record}{count} } } @{ $rows{$tenant_a} }), 501 * 45, 'with all samples');
is(sum0(map { map { $_->{count} } @{ $_->{record}{histogram} } } @{ $rows{$tenant_a} }), 501 * 45, 'in histograms');
my $bytes = max(map { $_->{bytes} } @{ $rows{$tenant_a} });
cmp_ok($bytes, '<', $mebibyte, 'of 45 filled buckets each, 500 are below 1 MiB');
note("500 histograms of 45 filled buckets: $bytes bytes of wal2json");

# What goes on in the other tables is nobody's business
$node->safe_psql('postgres', <<'SQL', extra_params => [ '-U', 'owner_role' ]);
insert into meshhook_metrics.settings values ('retention_live', default, '2 minutes');
select meshhook_metrics.rollup();
select meshhook_metrics.maintain();
SQL
is_deeply([ changes() ], [], 'settings, rollups and partitions are not streamed');

# The rows are deleted when they are old: as of then
my $ids = $node->safe_psql('postgres', 'select id from meshhook_metrics.live order by id');
$node->safe_psql(
	'postgres',
	q{select meshhook_metrics.close_minutes(now() + interval '10 minutes'); select meshhook_metrics.delete_old_live(100, now() + interval '10 minutes')},
	extra_params => [ '-U', 'owner_role' ]);
my @deleted = changes();
is(join("\n", map { $_->{old_record}{id} } @deleted), $ids, 'deletes are streamed');
is_deeply([ grep { "$_->{action} $_->{table}" ne 'D meshhook_metrics.live' } @deleted ], [], 'and nothing else is');
is_deeply([ grep { join(' ', keys %{ $_->{old_record} }) ne 'id' || defined $_->{record} } @deleted ], [],
	'they show the id, and nothing of a tenant');

# What happens to alerts: an event for each, to its tenant only, and nothing else
my $rule = <<'SQL';
insert into meshhook_metrics.alert_rules (tenant_id, name, metric, aggregate, threshold, time_window, severity, annotations, group_by)
values ('%s', 'Queue "%s" is long', 'queue_length', 'last', 5, '1 hour', 'critical', '{"summary": "{{ value }} {{ labels.queue }}"}', '{queue}')
returning id
SQL
my @rules = map {
	$node->safe_psql('postgres', sprintf($rule, $_, $_ eq $tenant_a ? 'a' : 'b'), extra_params => [ '-U', 'owner_role' ])
} ($tenant_a, $tenant_b);

# The worker evaluates after the flush
sub alerts_after
{
	my ($length, $active) = @_;

	$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.gauge_set('queue_length', $length, '{"queue": "Z\\u00fcrich"}', tenant)
from unnest(array['$tenant_a', '$tenant_b']::uuid[]) tenant
SQL
	flush($node);
	$node->poll_query_until('postgres', "select count(*) = $active and coalesce(bool_and(value = $length), true) from meshhook_metrics.alerts") or die 'the rules are not evaluated';
	return grep { $_->{table} ne 'meshhook_metrics.live' } changes();
}

for my $case ([ 7.5, 2, 'firing' ], [ 7.25, 2, undef ], [ 0.5, 0, 'resolved' ])
{
	my ($length, $active, $state) = @$case;
	my @events = alerts_after($length, $active);

	if (!defined $state)
	{
		is_deeply(\@events, [], 'what is active goes on: nothing is streamed');
		next;
	}
	is_deeply([ map { "$_->{action} $_->{table} $_->{key}" } @events ], [ ('I meshhook_metrics.alert_events id') x 2 ],
		"$state: an event of each tenant is streamed, and nothing else");
	my ($seen) = grep { $_->{visible} } @events;
	is_deeply([ map { $_->{record}{tenant_id} } grep { $_->{visible} } @events ], [$tenant_a], "$state: a subscriber sees that of its tenant");
	is_deeply(
		{ map { $_ => $seen->{record}{$_} } grep { !/^(?:id|fingerprint|at|started_at|fired_event_id)$/ } keys %{ $seen->{record} } },
		{
			tenant_id => $tenant_a,
			rule_id => $rules[0],
			name => 'Queue "a" is long',
			severity => 'critical',
			labels => { queue => "Z\x{fc}rich" },
			annotations => { summary => "$length Z\x{fc}rich" },
			state => $state,
			reason => 'threshold',
			value => $length,
			threshold => 5
		},
		"$state: with all there is to say");
	is($node->safe_psql('postgres', "select extract(epoch from '$seen->{record}{at}'::timestamptz - at) from meshhook_metrics.alert_events where id = $seen->{record}{id}"),
		'0.000000', "$state: and when");
}
is($node->safe_psql('postgres', q{select count(*) from meshhook_metrics.alert_notifications}), 4, 'people were told of it, which is not streamed');
$ids = $node->safe_psql('postgres', 'select id from meshhook_metrics.alert_events order by id');
$node->safe_psql('postgres', 'delete from meshhook_metrics.alert_events', extra_params => [ '-U', 'owner_role' ]);
@deleted = changes();
is(join("\n", map { $_->{old_record}{id} } @deleted), $ids, 'deletes of events are streamed');
is_deeply([ grep { join(' ', keys %{ $_->{old_record} }) ne 'id' || defined $_->{record} || $_->{table} ne 'meshhook_metrics.alert_events' } @deleted ], [],
	'they show the id, and nothing of a tenant');

# The same WAL without the publication: the test has looked where there is more
my $tables = $reader->query_safe(<<'SQL');
select string_agg(distinct data::jsonb ->> 'table', ' ')
from pg_logical_slot_get_changes('everything', null, null, 'format-version', '2', 'include-transaction', 'false',
	'add-tables', 'meshhook_metrics.*')
SQL
like($tables, qr/\balert_notifications\b.*\balert_rules\b.*\balert_state\b.*\balerts\b.*\bflush_state\b.*\brollup_1m_\d+\b.*\brollup_state\b.*\bseries\b.*\bsettings\b/,
	'the publication keeps the other tables away');

$reader->quit;
$node->stop;
done_testing();
