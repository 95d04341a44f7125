# A subscription with two_phase, whose tables have a trigger that records with on_commit:
# what the apply worker says, and that what the manual says ends it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use Test::More;

my $publisher = new_plain_cluster('publisher', allows_streaming => 'logical');
$publisher->start;
$publisher->safe_psql('postgres', 'create table runs (id integer primary key); create publication runs for table runs');

my $subscriber = new_metrics_cluster('subscriber');
my $from = $publisher->connstr('postgres') =~ s{'}{''}gr;
$subscriber->safe_psql('postgres', <<"SQL");
create table runs (id integer primary key);
create function count_run() returns trigger language plpgsql as \$\$ begin perform meshhook_metrics.inc('runs_total'); return null; end \$\$;
create trigger count_run after insert on runs for each row execute function count_run();
alter table runs enable always trigger count_run;
alter database postgres set meshhook_metrics.on_commit = on;
create subscription runs connection '$from' publication runs with (two_phase = true);
SQL
$subscriber->wait_for_subscription_sync($publisher, 'runs');
$publisher->poll_query_until('postgres', q{select two_phase from pg_replication_slots where slot_name = 'runs'}) or die 'timed out waiting for two_phase';
$subscriber->poll_query_until('postgres', q{select subtwophasestate = 'e' from pg_subscription}) or die 'timed out waiting for two_phase';

$publisher->safe_psql('postgres', 'insert into runs values (1)');
$publisher->wait_for_catchup('runs');
is(counter($subscriber, 'runs_total'), 1, 'what is committed in one go is counted');

my $mark = log_mark($subscriber);
$publisher->safe_psql('postgres', q{begin; insert into runs values (2); prepare transaction 'two'});
await(sub { () = log_since($subscriber, $mark) =~ /ERROR:  cannot PREPARE a transaction that has recorded metrics/g; }, 'the error');
like(log_since($subscriber, $mark), qr/HINT:  Set meshhook_metrics\.on_commit to off in transactions that are to be prepared\./, 'what is to be prepared is not, and it is said how to mend that');
is(counter($subscriber, 'runs_total'), 1, 'nothing is counted');

$subscriber->safe_psql('postgres', 'alter function count_run() set meshhook_metrics.on_commit = off');
$subscriber->poll_query_until('postgres', 'select count(*) = 1 from pg_prepared_xacts') or die 'timed out waiting for the prepared transaction';
is(counter($subscriber, 'runs_total'), 2, 'with the setting off in the function it is prepared, and counted');
$publisher->safe_psql('postgres', q{commit prepared 'two'});
$publisher->wait_for_catchup('runs');
is($subscriber->safe_psql('postgres', 'select count(*) from runs'), 2, 'and committed');

# By the role
$subscriber->safe_psql('postgres', 'alter function count_run() reset meshhook_metrics.on_commit; alter role postgres in database postgres set meshhook_metrics.on_commit = off');
$subscriber->safe_psql('postgres', 'alter subscription runs disable');
$subscriber->poll_query_until('postgres', q{select count(*) = 0 from pg_stat_subscription where pid is not null}) or die 'timed out waiting for the end of the apply worker';
$subscriber->safe_psql('postgres', 'alter subscription runs enable');
$publisher->safe_psql('postgres', q{begin; insert into runs values (3); prepare transaction 'three'; commit prepared 'three'});
$publisher->wait_for_catchup('runs');
is(counter($subscriber, 'runs_total'), 3, 'nor is there an error with the setting off for the owner of the subscription');

$subscriber->safe_psql('postgres', 'drop subscription runs');
$subscriber->stop;
$publisher->stop;
done_testing();
