# A process that is killed in front of any instruction of a call leaves either
# all of that call or nothing of it. The probe module steps a process through
# the call, kills it, and recovers the region as the server does.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../t/lib";
use MetricsCluster;
use Test::More;

my $node = new_metrics_cluster('main', max_series => 100, max_histograms => 10,
	max_series_per_tenant => 20);
$node->safe_psql('postgres', 'create extension mhm_probe');
my ($code, $output, $error) = $node->psql('postgres',
	q{select mhm_probe.die_at('meshhook_metrics.reset(text, uuid)', '{none,null}', 1)});
if ($code != 0 && $error =~ /x86-64 processors only/)
{
	$node->stop;
	plan skip_all => 'the probe can step x86-64 processors only';
}

# Calls are checked from within one session, thousands of them: the state is
# one text that is the same before and after but for what the call is to do.
# Returns how many kills there were, and what was wrong.
$node->safe_psql('postgres', <<'SQL');
create function state(name text)
returns text
language sql
as $$
	select coalesce(string_agg(
		format('%s%s: %s %s %s %s %s',
			s.metric, s.labels, s.value, s.count, s.sum, s.min, s.max),
		', ' order by s.labels::text), 'nothing')
	from meshhook_metrics.snapshot() s
	where s.metric ~ name
$$;

create function contradictions()
returns text
language sql
as $$
	select string_agg(s.metric || s.labels, ', ')
	from meshhook_metrics.snapshot() s
	where s.kind = 'histogram'
		and s.count <> (select sum(b.count) from meshhook_metrics.histogram_buckets(s.histogram) b)
$$;

create function kill_everywhere(
	routine regprocedure,
	arguments text[],
	name text,
	prepare text,
	times int,
	out kills int,
	out without int,
	out wrong text)
language plpgsql
as $$
declare
	before text;
	complete text;
	seen text;
	happened_at int;

	/* Copying arguments takes some more where they cross a page */
	jitter constant int := 100;

	/*
	 * A lock that the worker holds just then, or memory that malloc has to look for,
	 * takes many more, but not each time: what is gone is gone when it is tried again
	 */
	gone int := 0;
	tries constant int := 5;
	problem text;
	instruction int;
	instructions int;
	step int;
begin
	kills := 0;
	without := 0;
	execute prepare;
	before := state(name);
	instructions := mhm_probe.die_at(routine, arguments, 2000000000);
	complete := state(name);
	step := greatest(1, instructions / times);
	instruction := 1 + floor(random() * step);
	loop
		execute prepare;
		if state(name) <> before then
			wrong := format('cannot be prepared again: %s instead of %s', state(name), before);
			return;
		end if;
		exit when mhm_probe.die_at(routine, arguments, instruction) is not null;
		kills := kills + 1;
		seen := state(name);
		problem := contradictions();
		if problem is not null then
			wrong := format('instruction %s: %s contradicts itself', instruction, problem);
			return;
		elsif seen not in (before, complete) then
			wrong := format('instruction %s: %s instead of %s or %s', instruction, seen, before, complete);
			return;
		end if;
		gone := case when seen = before and before <> complete and instruction > happened_at + jitter then gone + 1 else 0 end;
		if gone = tries then
			wrong := format('instruction %s: what had happened at %s is gone', instruction, happened_at);
			return;
		end if;
		if seen = before then
			without := without + 1;
		else
			happened_at := coalesce(happened_at, instruction);
		end if;

		/* What is left behind must be fit for another call */
		perform mhm_probe.die_at(routine, arguments, 0);
		if contradictions() is not null then
			wrong := format('instruction %s: the next call leaves a contradiction', instruction);
			return;
		end if;
		instruction := instruction + case when gone = 0 then step else 0 end;
	end loop;
	if state(name) <> complete then
		wrong := format('complete, but %s instead of %s', state(name), complete);
	end if;
end
$$;
SQL

# How often each call is killed, at instructions of equal distance
my $kills_wanted = $ENV{MHM_KILLS} || 60;

sub all_or_nothing_ok
{
	my ($what, $routine, $arguments, $name, $prepare, $times) = @_;

	$times //= $kills_wanted;
	my ($kills, $without, $wrong) = split /\|/, $node->safe_psql('postgres', <<"SQL"), 3;
select *
from kill_everywhere('meshhook_metrics.$routine', array[$arguments], '$name', \$prepare\$$prepare\$prepare\$, $times)
SQL

	is($wrong, '', "$what: all or nothing");
	cmp_ok($kills, '>', 20, "$what: was killed often");
	cmp_ok($without, '<', $kills, "$what: at the end it has happened") if $times >= 1_000_000;
	note("$what: $kills kills, $without of them before it counts");
	return;
}

my $begin_again = q{perform meshhook_metrics.reset();};
my $labels = q{'{"status": "ok", "workflow": "a workflow of more than one chunk of text"}'};

sub known
{
	my ($call) = @_;

	return qq{do \$\$ begin $begin_again perform meshhook_metrics.$call; end \$\$};
}

my $four = '(text, double precision, jsonb, uuid)';

# Samples of a known series: the way that nearly all take
all_or_nothing_ok('inc', "inc$four", "'m', '2', '{}', null", 'm', known("inc('m', 1)"), 1_000_000);
all_or_nothing_ok('observe', "observe$four", "'m', '2', '{}', null", 'm', known("observe('m', 1)"), 1_000_000);
all_or_nothing_ok('observe below the window', "observe$four", "'m', '0', '{}', null", 'm', known("observe('m', 1)"));
all_or_nothing_ok('observe above the window', "observe$four", "'m', '1e30', '{}', null", 'm', known("observe('m', 1)"));

# Samples of a new series, or of a new metric
all_or_nothing_ok('inc of a new series', "inc$four", "'m', '2', $labels, null", 'm', known("inc('m', 1)"));
all_or_nothing_ok('inc of a new metric', "inc$four", "'m', '2', $labels, null", 'm', known("inc('other', 1)"));
all_or_nothing_ok('observe of a new series', "observe$four", "'m', '2', $labels, null", 'm', known("observe('m', 1)"));

# Into an overflow series, counted as a discard too
my $full = q{perform meshhook_metrics.inc('m', 1, jsonb_build_object('i', i)) from generate_series(1, 20) i;};
all_or_nothing_ok('inc into a new overflow series', "inc$four", "'m', '2', $labels, null", 'm',
	qq{do \$\$ begin $begin_again $full end \$\$});
all_or_nothing_ok('inc into a known overflow series', "inc$four", "'m', '2', '{\"i\": 21}', null", 'm',
	qq{do \$\$ begin $begin_again $full perform meshhook_metrics.inc('m', 1, '{"i": 21}'); end \$\$});

# What removes series
all_or_nothing_ok('reset', 'reset(text, uuid)', "'m', null", 'm',
	known("inc('m', 1), meshhook_metrics.inc('other')"));

# A gauge's value counts at once, its statistics a moment later: here all may be
# seen in between, but nothing else
my $gauge = $node->safe_psql('postgres', <<'SQL');
do $$
declare
	routine regprocedure := 'meshhook_metrics.gauge_set(text, double precision, jsonb, uuid)';
	seen text;
	states text[] := '{}';
begin
	for instruction in 1 .. 100000 loop
		perform meshhook_metrics.reset(), meshhook_metrics.gauge_set('g', 1);
		exit when mhm_probe.die_at(routine, '{g,2,"{}",null}', instruction) is not null;
		select format('%s of %s', value, count) into seen
		from meshhook_metrics.snapshot() where metric = 'g';
		if seen <> all (states) then
			states := states || seen;
		end if;
	end loop;
	perform set_config('mhm_test.states', states::text, false);
end
$$;
select current_setting('mhm_test.states');
SQL
is($gauge, '{"1 of 1","2 of 1","2 of 2"}', 'gauge_set: the value is the old or the new one');

# Nothing is lost of the region itself
$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
is($node->safe_psql('postgres', 'select * from mhm_probe.usage()'), '0|0|0|0|0',
	'no slot, body or chunk has leaked');

$node->stop;
done_testing();
