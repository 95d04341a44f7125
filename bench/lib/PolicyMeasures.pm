# What bench/policies measures, one function per group of rows.

package PolicyMeasures;

use strict;
use warnings;

use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

use Peer;
use Report;
use Rounds qw(difference each_round progress ratio rounds);
use Run;
use Storage;

# Every size as [full, quick]
use constant SIZES => {
	buckets => [ 1000, 300 ],
	query_rounds => [ 41, 3 ],
	calls => [ 2000, 200 ],
	call_rounds => [ 21, 3 ],
};

use constant TENANTS => 200;
use constant SERIES_EACH => 8;
use constant BUCKETS_OF_DAY => 288;

sub size { return Run::size(SIZES, @_) }

# A session of a tenant's user. The tenant is one of bench.tenant().
sub user
{
	my ($cluster, $role, $tenant) = @_;
	my $user = Peer->session($cluster);

	$user->sql("set role $role");
	$user->sql(qq{set request.jwt.claims = '{"role": "$role", "sub": "$tenant", "app_metadata": {"tenant_ids": ["$tenant"]}}'});
	return $user;
}

# A day of one series, and of all series of the tenant, in 1.6 million rows of 200 tenants
sub queries
{
	my ($report, $cluster, $session) = @_;
	my $buckets = size('buckets');
	my $rows = TENANTS * SERIES_EACH * $buckets;

	progress("queries: $rows rows of @{[TENANTS]} tenants");
	$session->sql("call bench.fill_policies(@{[TENANTS]}, @{[SERIES_EACH]}, $buckets)");
	$session->sql('vacuum analyze meshhook_metrics.series, meshhook_metrics.rollup_5m');
	my $tenant = $session->sql('select bench.tenant(7)');
	my $day = $session->sql(q{select max(bucket) - interval '1 day' from meshhook_metrics.rollup_5m});
	my @series = $session->sql("select id from meshhook_metrics.series where tenant_id = '$tenant' order by id");
	my %users = (array => user($cluster, 'authenticated', $tenant), in => user($cluster, 'bench_in', $tenant));
	my %condition = (one => "series_id = $series[0]", all => 'series_id = any (array[' . join(', ', @series) . '])');
	my %series = (one => 1, all => SERIES_EACH);
	my $measure = sub {
		my ($policy, $which) = split / /, $_[0];
		my $user = $users{$policy};
		my $used = $user->sql('select mhm_empty.cpu_nanoseconds()');
		my $started = clock_gettime(CLOCK_MONOTONIC);
		my $found = $user->sql("select count(*) from meshhook_metrics.rollup_5m where $condition{$which} and bucket > '$day'");
		my $clock = (clock_gettime(CLOCK_MONOTONIC) - $started) * 1000;
		$used = $user->sql('select mhm_empty.cpu_nanoseconds()') - $used;
		die "$_[0]: $found rows.\n" if $found != BUCKETS_OF_DAY * $series{$which};
		return { clock => $clock, cpu => $used / 1e6 };
	};
	my @order = map { ("array $_", "in $_") } qw(one all);

	progress("queries: @{[size('query_rounds')]} rounds");
	$measure->($_) for @order;
	my %rounds = rounds(size('query_rounds'), \@order, $measure);
	$_->close for values %users;

	my $group = "a user reads a day, $rows rows, @{[TENANTS]} tenants";
	my %what = (one => 'of one series', all => "of its @{[SERIES_EACH]} series");
	for my $which (qw(one all))
	{
		$report->add($group, $what{$which}, 'ms', each_round('clock', $rounds{"array $which"}), at_most => 12);
		$report->add($group, '... by processor time of the server', 'ms', each_round('cpu', $rounds{"array $which"}));
		$report->add($group, '... with IN in the policy', 'ms', each_round('clock', $rounds{"in $which"}));
		$report->add($group, '... in times of it', 'x', ratio(map { each_round('clock', $rounds{"$_ $which"}) } qw(in array)));
	}
}

# Calls of tenant_ids() as a policy makes them, once a statement, in a loop
sub calls
{
	my ($report, $cluster, $session) = @_;
	my $calls = size('calls');
	my $tenant = $session->sql('select bench.tenant(7)');
	my $user = user($cluster, 'authenticated', $tenant);
	my %functions = (guarded => 'meshhook_metrics.tenant_ids', unguarded => 'bench.unguarded_tenant_ids');
	my $measure = sub {
		my ($function) = @_;
		my ($nanoseconds, $answer) = Storage::row($user, "select * from bench.call('$functions{$function}', $calls)");
		die "$functions{$function}() found $answer.\n" if $answer ne "{$tenant}";
		return $nanoseconds / 1000 / $calls;
	};
	my @order = qw(guarded unguarded);

	for my $by ([ 'the claims', undef ], [ "MeshHook's user_project_ids()", '../test/sql/include/meshhook.sql' ])
	{
		my ($name, $file) = @$by;

		if (defined $file)
		{
			$session->sql("\\set keeper bench\n\\i $file\n");
			$session->sql("insert into public.projects (id, owner, name) values ('$tenant', '$tenant', 'project')");
		}
		progress("calls by $name: @{[size('call_rounds')]} rounds of $calls");
		$measure->($_) for @order;
		my %rounds = rounds(size('call_rounds'), \@order, $measure);
		my $group = "a call of tenant_ids() by $name, processor time";

		$report->add($group, 'tenant_ids()', 'us', $rounds{guarded});
		$report->add($group, '... without its exception block', 'us', $rounds{unguarded});
		$report->add($group, 'the exception block', 'us', difference($rounds{guarded}, $rounds{unguarded}), at_most => 10);
	}
	$user->close;
}

1;
