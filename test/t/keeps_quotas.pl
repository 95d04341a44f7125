# A tenant's own quota, from the table settings, counts instead of the general
# one; a nonsense row changes nothing.

use strict;
use warnings;

use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('keeps_quotas', flush_interval => "'1s'", max_series_per_tenant => 5);
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

$node->stop;
done_testing();
