# Without preload every function that needs shared memory says which line to
# add, and what can work without does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $node = new_plain_cluster('main');
my @calls = (
	q{inc('m')},
	q{gauge_set('m', 1)},
	q{gauge_add('m', 1)},
	q{observe('m', 1)},
	q{observe_since('m', now())},
	q{record('[]')},
	q{record('[{"op": "inc", "metric": "m"}]')},
	q{describe('m', 'counter')},
	q{reset()},
	q{snapshot()},
	q{prometheus()});

sub all_refused_ok
{
	my ($line, $when) = @_;

	for my $call (@calls)
	{
		my ($code, $out, $error) = $node->psql('postgres',
			"\\set VERBOSITY verbose\nselect meshhook_metrics.$call");

		isnt($code, 0, "$when: $call fails");
		like($error, qr/ERROR:  55000: meshhook_metrics must be loaded when the server starts$/m,
			"$when: $call says why");
		like($error,
			qr/^HINT:  Put the line "shared_preload_libraries = '\Q$line\E'" into postgresql.conf, with what is there already, and restart the server\.$/m,
			"$when: $call says which line to add");
	}
	is($node->safe_psql('postgres', <<'SQL'), 'f|f||||||||||||', "$when: status() works");
select * from meshhook_metrics.status()
SQL
	return;
}

$node->start;
$node->safe_psql('postgres', 'create extension meshhook_metrics');
all_refused_ok('meshhook_metrics', 'nothing preloaded');

is($node->safe_psql('postgres', <<'SQL'), "3\nwarning\n4f1e2d3c-0000-0000-0000-000000000000\non", 'the type works and settings can be set');
select meshhook_metrics.histogram_count(meshhook_metrics.histogram_of(x)) from (values (1.0), (2), (3)) v (x);
set meshhook_metrics.on_error = warning;
set meshhook_metrics.tenant = '4f1e2d3c-0000-0000-0000-000000000000';
set meshhook_metrics.on_commit = on;
show meshhook_metrics.on_error;
show meshhook_metrics.tenant;
show meshhook_metrics.on_commit;
SQL

# A transaction that set on_commit and recorded nothing ends as any other
$node->safe_psql('postgres', <<'SQL');
begin;
set local meshhook_metrics.on_commit = on;
savepoint a;
rollback to a;
commit;
SQL

# Loading it later is no preload either
my ($code, $out, $error) = $node->psql('postgres', q{load 'meshhook_metrics'; select meshhook_metrics.inc('m')});
like($error, qr/ERROR:  meshhook_metrics must be loaded when the server starts/, 'LOAD is too late');

# The hint keeps what is preloaded already
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'auto_explain, plpgsql'");
$node->restart;
all_refused_ok('auto_explain, plpgsql, meshhook_metrics', 'others preloaded');

# ... but tells it only to those who may know
$node->safe_psql('postgres', <<'SQL');
create role stranger login;
grant usage on schema meshhook_metrics to stranger;
grant execute on function meshhook_metrics.reset(text, uuid) to stranger;
SQL
(undef, undef, $error) = $node->psql('postgres', 'select meshhook_metrics.reset()', extra_params => [ '-U', 'stranger' ]);
like($error, qr/HINT:  Put the line "shared_preload_libraries = 'meshhook_metrics'" into postgresql\.conf, with what is there already/,
	'a role that may not read settings is not told what else is loaded');

# The line works as it is printed
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'auto_explain, plpgsql, meshhook_metrics'");
$node->restart;
remember_region($node);
$node->safe_psql('postgres', q{select meshhook_metrics.inc('m')});
is(counter($node, 'm'), 1, 'with the line of the hint it records');

$node->stop;
done_testing();
