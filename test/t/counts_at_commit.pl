# With meshhook_metrics.on_commit a sample counts when its transaction commits,
# and only then: savepoints, exception blocks, procedures, prepared
# transactions, terminated sessions and resets in between.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('main');

# Run a script in a session of its own, then compare metric m's calls and sum
sub counts_ok
{
	my ($script, $expected, $name) = @_;

	$node->safe_psql('postgres', 'select meshhook_metrics.reset()');
	$node->psql('postgres', "set meshhook_metrics.on_commit = on;\n$script", on_error_stop => 0);
	is(totals($node, 'm'), $expected, $name);
	return;
}

my $inc = 'select meshhook_metrics.inc';

counts_ok("$inc('m', 2);", '1|2', 'a statement on its own commits');
counts_ok("begin; $inc('m', 2); $inc('m', 3); commit;", '2|5', 'commit');
counts_ok("begin; $inc('m', 2); rollback;", '0|0', 'rollback');
counts_ok("begin; $inc('m', 2); select 1/0; commit;", '0|0', 'a transaction that fails');
counts_ok("begin; $inc('m'); savepoint a; $inc('m', 10); rollback to a; $inc('m', 100); commit;",
	'2|101', 'rollback to a savepoint');
counts_ok("begin; savepoint a; $inc('m', 10); rollback to a; $inc('m', 100); rollback to a; $inc('m', 1000); commit;",
	'1|1000', 'rollback to the same savepoint twice');
counts_ok("begin; $inc('m'); savepoint a; $inc('m', 10); release a; $inc('m', 100); commit;",
	'3|111', 'release');
counts_ok("begin; savepoint a; savepoint b; savepoint c; $inc('m', 10); release b; savepoint d; $inc('m', 100); rollback to d; commit;",
	'1|10', 'release of several levels, then a rollback beside it');
counts_ok("begin; savepoint a; $inc('m', 1); savepoint b; $inc('m', 10); release b; $inc('m', 100); rollback to a; $inc('m', 1000); commit;",
	'1|1000', 'rollback of a level takes its released children along');
counts_ok("begin; savepoint a; savepoint b; $inc('m', 1); release b; savepoint c; $inc('m', 10); rollback to c; $inc('m', 100); release a; $inc('m', 1000); commit;",
	'3|1101', 'a released child of a level without samples of its own');
counts_ok("begin; $inc('m'); savepoint a; select 1/0; rollback to a; $inc('m', 10); commit;",
	'2|11', 'an error within a savepoint');
counts_ok(<<'SQL', '1|64', 'exception blocks in a loop');
do $$
begin
	for i in 0 .. 9 loop
		begin
			perform meshhook_metrics.inc('m', 2 ^ i);
			if i <> 6 then
				raise exception 'no';
			end if;
		exception when raise_exception then
			null;
		end;
	end loop;
end
$$;
SQL
counts_ok(<<'SQL', '5000|5000', 'thousands of exception blocks, every other fails');
do $$
begin
	for i in 1 .. 10000 loop
		begin
			perform meshhook_metrics.inc('m');
			if i % 2 = 0 then
				raise exception 'no';
			end if;
		exception when raise_exception then
			null;
		end;
	end loop;
end
$$;
SQL
counts_ok(<<'SQL', '2|5', 'nested exception blocks');
do $$
begin
	perform meshhook_metrics.inc('m', 1);
	begin
		perform meshhook_metrics.inc('m', 2);
		begin
			perform meshhook_metrics.inc('m', 2);
		exception when others then null;
		end;
		raise exception 'no';
	exception when raise_exception then
		perform meshhook_metrics.inc('m', 4);
	end;
end
$$;
SQL
counts_ok(<<'SQL', '5|10', 'a procedure that commits and rolls back');
create or replace procedure p()
language plpgsql
as $$
begin
	for i in 1 .. 10 loop
		perform meshhook_metrics.inc('m', 2);
		if i % 2 = 0 then commit; else rollback; end if;
	end loop;
end
$$;
call p();
SQL

# Settings
counts_ok("set meshhook_metrics.on_commit = off; begin; set local meshhook_metrics.on_commit = on; $inc('m', 1); rollback; begin; $inc('m', 10); rollback;",
	'1|10', 'set local is for its transaction only');
counts_ok("begin; $inc('m', 1); set local meshhook_metrics.on_commit = off; $inc('m', 10); rollback;",
	'1|10', 'off in the middle counts at once from there on');
counts_ok("begin; set local meshhook_metrics.on_commit = off; $inc('m', 1); savepoint a; set local meshhook_metrics.on_commit = on; $inc('m', 10); rollback to a; $inc('m', 100); rollback;",
	'2|101', 'a rollback to a savepoint brings the setting back');

# Every kind, and batches
counts_ok(<<'SQL', '3|7', 'record() waits for the commit');
begin;
select meshhook_metrics.record('[{"op": "inc", "metric": "m", "value": 4}, {"op": "inc", "metric": "m"}]');
savepoint a;
select meshhook_metrics.record('[{"op": "inc", "metric": "m", "value": 16}]');
rollback to a;
select meshhook_metrics.record('[{"op": "inc", "metric": "m", "value": 2}]');
commit;
SQL
counts_ok("begin; select meshhook_metrics.observe('m', i) from generate_series(1, 1000) i; commit;", '1000|500500', 'a histogram');
consistent_ok($node, 'a histogram at the commit');
$node->safe_psql('postgres', <<'SQL');
select meshhook_metrics.reset();
set meshhook_metrics.on_commit = on;
begin;
select meshhook_metrics.gauge_set('g', 5), meshhook_metrics.gauge_add('g', 2);
savepoint a;
select meshhook_metrics.gauge_set('g', 50);
rollback to a;
select meshhook_metrics.gauge_add('g', 1);
commit;
SQL
is($node->safe_psql('postgres', q{select value, count, min, max from meshhook_metrics.snapshot() where metric = 'g'}),
	'8|3|5|8', 'a gauge changes in the order of the calls');

# Nothing can be prepared that recorded
my ($code, $out, $error) = $node->psql('postgres', <<'SQL');
\set VERBOSITY verbose
select meshhook_metrics.reset();
set meshhook_metrics.on_commit = on;
begin;
select meshhook_metrics.inc('m');
prepare transaction 'p';
SQL
like($error, qr/ERROR:  0A000: cannot PREPARE a transaction that has recorded metrics with meshhook_metrics\.on_commit = on$/m,
	'PREPARE TRANSACTION is refused');
like($error, qr/^DETAIL:  The server that commits it could not count them\.$/m, 'and says why');
like($error, qr/^HINT:  Set meshhook_metrics\.on_commit to off in transactions that are to be prepared\.$/m,
	'and what to do');
is(totals($node, 'm'), '0|0', 'what was refused does not count');
is($node->safe_psql('postgres', 'select count(*) from pg_prepared_xacts'), 0, 'and is not prepared');
$node->safe_psql('postgres', <<'SQL');
set meshhook_metrics.on_commit = on;
begin;
savepoint a;
select meshhook_metrics.inc('m');
rollback to a;
prepare transaction 'rolled_back_part';
commit prepared 'rolled_back_part';
set meshhook_metrics.on_commit = off;
begin;
select meshhook_metrics.inc('m', 8);
prepare transaction 'immediate';
rollback prepared 'immediate';
SQL
is(totals($node, 'm'), '1|8', 'others are prepared: nothing held back, or counted at once');

# Sessions that end otherwise
my $session = session($node);
my $pid = $session->query_safe('select pg_backend_pid()');
$session->query_safe("set meshhook_metrics.on_commit = on; begin; select meshhook_metrics.inc('m', 1)");
$node->safe_psql('postgres', "select pg_terminate_backend($pid)");
$node->poll_query_until('postgres', "select count(*) = 0 from pg_stat_activity where pid = $pid");
is(totals($node, 'm'), '1|8', 'a session that is terminated before its commit counts nothing');
eval { $session->quit };

# A reset between record and commit
$session = session($node);
$session->query_safe("set meshhook_metrics.on_commit = on; begin; select meshhook_metrics.inc('m', 1), meshhook_metrics.observe('h', 1)");
$node->safe_psql('postgres', "select meshhook_metrics.reset()");
is(totals($node, 'm'), '0|0', 'held back samples are not there for a reset()');
$session->query_safe("select meshhook_metrics.inc('m', 2); commit");
is(totals($node, 'm') . ' ' . totals($node, 'h'), '2|3 1|1', 'what commits after a reset() counts, all of it');

# ... after which the name may be another metric's
$session->query_safe("begin; select meshhook_metrics.inc('m', 1)");
$node->safe_psql('postgres', "select meshhook_metrics.reset('m'), meshhook_metrics.gauge_set('m', 7)");
my $invalid = discarded($node, 'invalid');
$session->query_safe('commit');
is($node->safe_psql('postgres', q{select kind, value, count from meshhook_metrics.snapshot() where metric = 'm'}),
	'gauge|7|1', 'a name that became another metric is not touched by the commit');
is(discarded($node, 'invalid'), $invalid + 1, 'the sample is counted as a discard');
$session->quit;

# What a transaction holds back is bounded: increments of a series are one sample
my $held = session($node);
$held->query_safe('select meshhook_metrics.reset(); set meshhook_metrics.on_commit = on; begin');
$held->query_safe(q{select meshhook_metrics.inc(case i % 2 when 0 then 'm' else 'n' end) from generate_series(1, 100000) i});
cmp_ok($held->query_safe(q{select total_bytes from pg_backend_memory_contexts where name = 'TopTransactionContext'}), '<', 200_000,
	'increments of two series by turns take no memory');
$held->query_safe('savepoint a');
$held->query_safe(q{select meshhook_metrics.inc('m', 1000) from generate_series(1, 10)});
$held->query_safe('rollback to a');
$held->query_safe(q{select meshhook_metrics.inc('m') from generate_series(1, 10)});
$held->query_safe('commit');
is(totals($node, 'm'), '50010|50010', 'and all count, but for those that were rolled back');
is(totals($node, 'n'), '50000|50000', 'of both');
$held->quit;
my ($result, $output, $refused) = $node->psql('postgres', <<'SQL');
\set VERBOSITY verbose
set meshhook_metrics.on_commit = on;
begin;
select count(meshhook_metrics.observe('many_seconds', 1)) from generate_series(1, 1000000);
select meshhook_metrics.inc('m', 1, '{"is": "new"}');
SQL
like($refused, qr/ERROR:  54000: a transaction cannot hold back more than 1000000 samples\n.*\nHINT:  Commit more often/,
	'other samples are held back up to a limit');
is(totals($node, 'many_seconds'), '0|0', 'and as any error this one rolls back all of them');

$node->stop;
done_testing();
