# A tenant's own quota, from the table settings, counts instead of the general
# one; a nonsense row changes nothing.

use strict;
use warnings;

use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('keeps_quotas', flush_interval => "'1s'", max_series_per_tenant => 5, max_series => 20000);
my ($small, $large, $other) = map { "00000000-0000-0000-0000-00000000000$_" } 1 .. 3;

install_storage($node);

sub series_of
{
	my ($tenant) = @_;

	return $node->safe_psql('postgres', <<"SQL");
select count(*) filter (where not labels ? 'overflow') || ' + ' || count(*) filter (where labels ? 'overflow')
from meshhook_metrics.snapshot('$tenant')
SQL
}

# So many samples, each of a series of its own
sub record_series
{
	my ($tenant, $number) = @_;

	$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.inc('quota_total', 1, jsonb_build_object('n', i), '$tenant')
from generate_series(1, $number) i
SQL
	return;
}

$node->safe_psql('postgres', <<"SQL");
insert into meshhook_metrics.settings (name, tenant_id, value)
values ('max_series', '$small', '2'), ('max_series', '$large', '8')
SQL
$node->safe_psql('postgres', 'select meshhook_metrics.flush()');

record_series($_, 10) for $small, $large, $other;
is(series_of($small), '2 + 1', 'a small quota holds');
is(series_of($large), '8 + 1', 'a large quota holds');
is(series_of($other), '5 + 1', 'who has none of its own has the general one');

is(discarded($node, 'tenant_limit'), 8 + 2 + 5, 'what overflowed is counted');

# A change counts after the next flush, without a restart
$node->safe_psql('postgres', "update meshhook_metrics.settings set value = '10' where tenant_id = '$small'");
$node->safe_psql('postgres', "delete from meshhook_metrics.settings where tenant_id = '$large'");
$node->safe_psql('postgres', 'select meshhook_metrics.flush()');
record_series($small, 10);
is(series_of($small), '10 + 1', 'a quota that was raised makes room');
record_series($large, 12);
is(series_of($large), '8 + 1', 'one that was lowered takes nothing away, and lets nothing in');

# Whoever gets around the trigger of the table does not get around the worker
$node->safe_psql('postgres', <<"SQL");
alter table meshhook_metrics.settings disable trigger all;
insert into meshhook_metrics.settings (name, tenant_id, value) values ('max_series', '$other', 'many');
alter table meshhook_metrics.settings enable trigger all;
SQL
$node->safe_psql('postgres', 'select meshhook_metrics.flush()');
record_series($other, 12);
is(series_of($other), '5 + 1', 'a quota that is no number is none');
is($node->safe_psql('postgres', 'select last_error is null from meshhook_metrics.status()'), 't', 'and no error');

# Thousands of tenants have their own, each of which holds after every flush
$node->safe_psql('postgres', <<'SQL');
alter table meshhook_metrics.settings disable trigger all;
delete from meshhook_metrics.settings where name = 'max_series';
insert into meshhook_metrics.settings (name, tenant_id, value)
select 'max_series', ('00000000-0000-0000-0001-' || lpad(i::text, 12, '0'))::uuid, '2'
from generate_series(1, 6000) i
order by md5(i::text);
alter table meshhook_metrics.settings enable trigger all;
SQL
$node->safe_psql('postgres', 'select meshhook_metrics.flush()') for 1 .. 2;
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.reset();
select meshhook_metrics.inc('quota_total', 1, jsonb_build_object('n', n), ('00000000-0000-0000-0001-' || lpad(i::text, 12, '0'))::uuid)
from generate_series(1, 6000) i, generate_series(1, 4) n
SQL
is($node->safe_psql('postgres', <<'SQL'), '6000|2|2', 'all quotas of thousands of tenants hold');
select count(*), min(series), max(series)
from (
	select tenant_id, count(*) filter (where not labels ? 'overflow') series
	from meshhook_metrics.snapshot()
	where metric = 'quota_total'
	group by tenant_id) of_tenants
SQL
is($node->safe_psql('postgres', 'select last_error is null from meshhook_metrics.status()'), 't', 'and nothing is wrong');

# Of more than there is room for the same ones hold, and status() says so
$node->safe_psql('postgres', <<'SQL');
alter table meshhook_metrics.settings disable trigger all;
insert into meshhook_metrics.settings (name, tenant_id, value)
select 'max_series', ('00000000-0000-0000-0002-' || lpad(i::text, 12, '0'))::uuid, '2'
from generate_series(1, 11000) i;
alter table meshhook_metrics.settings enable trigger all;
select meshhook_metrics.flush();
SQL
like($node->safe_psql('postgres', 'select last_error from meshhook_metrics.status()'),
	qr/^there is room for quotas of 16384 tenants, and the table settings has more: /, 'too many quotas: status() says so');
$node->safe_psql('postgres', "delete from meshhook_metrics.settings where tenant_id::text like '00000000-0000-0000-0002-%'");
$node->safe_psql('postgres', 'select meshhook_metrics.flush()');
is($node->safe_psql('postgres', 'select last_error is null from meshhook_metrics.status()'), 't', 'until there are fewer');

$node->stop;
done_testing();
