# What the flush worker reports is text that can be read in every database,
# whatever the encoding of the one that it serves; and a name that no database
# can have is refused.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use MetricsCluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_metrics_cluster('shows_errors', flush_interval => "'1s'", database => "'latin1'");

$node->safe_psql('postgres', <<'SQL');
create database latin1 template template0 encoding 'LATIN1' locale 'C';
create database latin2 template template0 encoding 'LATIN2' locale 'C';
create database cyrillic template template0 encoding 'KOI8R' locale 'C';
create database ascii template template0 encoding 'SQL_ASCII' locale 'C';
SQL
$node->safe_psql($_, 'create extension meshhook_metrics') for qw(latin1 latin2 cyrillic ascii);
install_storage($node, database => 'latin1');
await_status($node, 'worker_pid is not null and storage_installed', 'latin1');
$node->safe_psql('latin1', <<'SQL');
create function public.boom() returns trigger language plpgsql as $$
begin
	raise exception 'd%j%', chr(233), chr(224);
end
$$;
create trigger boom before insert on meshhook_metrics.live for each row execute function public.boom();
select meshhook_metrics.inc('x_total');
SQL
$node->poll_query_until('ascii', q{select last_error is not null from meshhook_metrics.status()});

# The bytes as they are in the database, whatever the client's encoding
sub bytes_in
{
	my ($database) = @_;

	return $node->safe_psql($database, "select encode(convert_to(last_error, getdatabaseencoding()), 'escape') from meshhook_metrics.status()")
	  unless $database eq 'ascii';
	return $node->safe_psql($database, "select encode(textsend(last_error), 'escape') from meshhook_metrics.status()");
}

like(bytes_in('postgres'), qr/: d\\303\\251j\\303\\240$/, 'a database in UTF8 shows the letters');
like(bytes_in('latin1'), qr/: d\\351j\\340$/, 'the one that is served shows them in its own encoding');
like(bytes_in($_), qr/: d\\\\xe9j\\\\xe0$/, "$_, which has not got them, shows them escaped") for qw(latin2 cyrillic ascii);
my ($code, $out, $error) = $node->psql('postgres', q{set client_encoding = 'UTF8'; create table kept as select last_error from meshhook_metrics.status(); select convert_to(last_error, 'UTF8') from kept});
is($code, 0, 'what is shown can be stored and converted') or diag($error);
($code, $out, $error) = $node->psql('latin1', q{set client_encoding = 'UTF8'; select meshhook_metrics.flush('300 ms')});
like($error, qr/DETAIL:  The flush worker reports: .*: d\xc3\xa9j\xc3\xa0$/m, 'flush() tells it, too');

# The timeout of a flush is bounded as a whole
for my $timeout ('30 hours', '25 hours', '1 day 1 microsecond', '1 day 2562047788:00:54', '2562047788:00:54', '-1 s', '1 month', '2 days')
{
	($code, $out, $error) = $node->psql('latin1', "\\set VERBOSITY verbose\nselect meshhook_metrics.flush('$timeout')");
	like($error, qr/ERROR:  22023: timeout must be from 0 to a day/, "flush('$timeout') is refused");
}

# PostgreSQL would cut a longer name where it creates a database, and look for the whole one here
my $long = 'm' x 63;
$node->safe_psql('postgres', "create database $long");
my $mark = log_mark($node);
$node->append_conf('postgresql.conf', "meshhook_metrics.database = '${long}etc'");
$node->reload;
$node->wait_for_log(qr/invalid value for parameter "meshhook_metrics.database": "${long}etc".*\n.*DETAIL:  "${long}etc" has 66 bytes; a database's name has at most 63/, $mark);
is($node->safe_psql('postgres', 'show meshhook_metrics.database'), 'latin1', 'a name of more than 63 bytes is refused');
$node->append_conf('postgresql.conf', "meshhook_metrics.database = '$long'");
$node->reload;
$node->safe_psql($long, 'create extension meshhook_metrics; select meshhook_metrics.inc(\'m\')');
$node->poll_query_until($long, q{select worker_pid = (select pid from pg_stat_activity where datname = current_database() and backend_type = 'meshhook_metrics worker') from meshhook_metrics.status()});
is($node->safe_psql($long, 'show meshhook_metrics.database'), $long, 'one of 63 bytes is served');
$node->stop;
done_testing();
