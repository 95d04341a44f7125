# A real Prometheus scrapes prometheus() over HTTP and answers queries with the
# values that were recorded, to the last digit.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use Exposition;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP ();
use MetricsCluster;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $program = find_program('prometheus')
  or plan skip_all => 'prometheus is not installed (Debian: apt-get install prometheus)';

my $node = new_metrics_cluster('main');
my $tenant = '11111111-1111-1111-1111-111111111111';
my $hostile = "C:\\dir\\\"file\"\n\x{4e1c}\x{4eac} {a=\"b\"} 1";
my $hostile_json = JSON::PP->new->ascii->encode({ path => $hostile });
$hostile_json =~ s/'/''/g;
$node->safe_psql('postgres', <<"SQL");
select meshhook_metrics.describe('scrape_deliveries_total', 'counter', 'Deliveries.', 'deliveries');
select meshhook_metrics.describe('scrape_run_seconds', 'histogram', 'Duration of runs.', 'seconds');
select meshhook_metrics.inc('scrape_deliveries_total', 123456789.125, '{"status": "ok", "code": 200}', '$tenant');
select meshhook_metrics.inc('scrape_deliveries_total', 0.1, '{"status": "failed"}', '$tenant');
select meshhook_metrics.inc('scrape_deliveries_total', 7);
select meshhook_metrics.inc('scrape_hostile_total', 42, '$hostile_json', '$tenant');
select meshhook_metrics.gauge_set('scrape_depth', -1.7976931348623157e308);
select meshhook_metrics.observe('scrape_run_seconds', n / 100.0, '{"workflow": "w"}', '$tenant') from generate_series(1, 1000) n;
set client_min_messages = error;
set meshhook_metrics.on_error = warning;
select meshhook_metrics.inc('scrape_deliveries_total', -1) from generate_series(1, 3);
SQL

# An HTTP server that answers /metrics with what psql prints, until it is killed
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 16, Proto => 'tcp')
  or die "cannot listen on 127.0.0.1: $!";
my $connection = $node->connstr('postgres');
my $server = fork // die "fork: $!";
serve() if $server == 0;
my $target = '127.0.0.1:' . $listener->sockport;

sub metrics
{
	open my $psql, '-|', 'psql', '-XAtq', '-d', $connection, '-c', 'select meshhook_metrics.prometheus()' or return;
	local $/;
	my $text = <$psql>;
	close $psql or return;
	# psql ends what it prints with a newline of its own
	chop $text;
	return $text;
}

sub serve
{
	# not what this process would do about them, which is to end the test
	@SIG{qw(INT TERM)} = ('DEFAULT') x 2;
	while (my $client = $listener->accept)
	{
		my $request = <$client> // '';
		while (defined(my $header = <$client>)) { last if $header =~ /^\r?\n/; }
		my $text = $request =~ m{^GET /metrics[ ?]} ? metrics() : undef;

		if (defined $text)
		{
			print {$client} "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
			  'Content-Length: ', length $text, "\r\nConnection: close\r\n\r\n", $text;
		}
		else
		{
			print {$client} "HTTP/1.1 500 No metrics\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
		}
		close $client;
	}
	POSIX::_exit(0);
}

# Prometheus, in a folder of its own
my $folder = PostgreSQL::Test::Utils::tempdir();
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $log = "$folder/prometheus.log";
PostgreSQL::Test::Utils::append_to_file("$folder/prometheus.yml", <<"YAML");
global:
  scrape_interval: 3s
  scrape_timeout: 3s
scrape_configs:
  - job_name: meshhook
    static_configs:
      - targets: ['$target']
YAML
my $prometheus = fork // die "fork: $!";
if ($prometheus == 0)
{
	open STDOUT, '>', $log or POSIX::_exit(1);
	open STDERR, '>&', \*STDOUT or POSIX::_exit(1);
	exec $program, "--config.file=$folder/prometheus.yml", "--storage.tsdb.path=$folder/data",
	  "--web.listen-address=127.0.0.1:$port", '--log.level=warn'
	  or POSIX::_exit(1);
}

END
{
	my $status = $?;

	for my $process (grep { $_ } $prometheus, $server)
	{
		kill 'TERM', $process;
		waitpid $process, 0;
	}
	$? = $status;
}

my $http = HTTP::Tiny->new(timeout => 10);

# What the API answers, or nothing while it cannot
sub api
{
	my ($path, %parameters) = @_;
	my $url = "http://127.0.0.1:$port/api/v1/$path";
	my $response = $http->get($url . (%parameters ? '?' . $http->www_form_urlencode(\%parameters) : ''));

	return if !$response->{success};
	return JSON::PP->new->utf8->decode($response->{content})->{data};
}

sub query
{
	my ($expression) = @_;
	my $data = api('query', query => $expression) or return;

	return $data->{result};
}

# The value of an expression that has one, or what it has instead
sub value_of
{
	my ($expression) = @_;
	my $result = query($expression) // return 'no answer';

	return @$result == 1 ? $result->[0]{value}[1] : scalar(@$result) . ' series';
}

sub wait_for_value
{
	my ($expression, $expected, $name) = @_;

	eval { await(sub { value_of($expression) eq $expected }, "$expression to be $expected") };
	is(value_of($expression), $expected, $name) or diag(PostgreSQL::Test::Utils::slurp_file($log));
	return;
}

wait_for_value('up', 1, 'the scrape succeeds');
my ($active) = @{ api('targets')->{activeTargets} };
is("$active->{health} $active->{lastError}", 'up ', 'without an error');

# The values are those that were recorded
is(value_of("scrape_deliveries_total{tenant=\"$tenant\",status=\"ok\",code=\"200\"}"), '123456789.125', 'a counter');
is(value_of("scrape_deliveries_total{tenant=\"$tenant\",status=\"failed\"}"), '0.1', 'another of its series');
is(value_of('scrape_deliveries_total{tenant="00000000-0000-0000-0000-000000000000"}'), '7', 'the platform\'s');
is(value_of("sum by (tenant) (scrape_deliveries_total{tenant=\"$tenant\"})"), '123456789.225', 'a tenant\'s sum');
cmp_ok(value_of('scrape_depth'), '==', -1.7976931348623157e308, 'the largest number there is');
my ($series) = @{ query('scrape_hostile_total') };
is($series->{metric}{path}, $hostile, 'a label made to break the format arrives as it was');
is($series->{value}[1], '42', 'with its value');

is(value_of('scrape_run_seconds_count'), '1000', 'a histogram\'s count');
cmp_ok(value_of('scrape_run_seconds_sum'), '==', $node->safe_psql('postgres', "select sum from meshhook_metrics.snapshot() where metric = 'scrape_run_seconds'"), 'its sum');
is(value_of('scrape_run_seconds_bucket{le="1"}'), '100', 'a bucket');
is(value_of('scrape_run_seconds_bucket{le="+Inf"}'), '1000', 'the last bucket');
is(value_of('count(scrape_run_seconds_bucket)'), '34', 'all buckets');
for my $quantile (0.1, 0.5, 0.95, 0.99)
{
	my $theirs = value_of("histogram_quantile($quantile, scrape_run_seconds_bucket)");
	my $exact = 10 * $quantile;

	# within its bucket, which is from one power of two to the next
	ok($theirs > $exact / 2 && $theirs < $exact * 2, "quantile $quantile, $theirs, is in the bucket of $exact");
}

is(value_of('meshhook_metrics_discarded_total{reason="invalid"}'), '3', 'discards by reason');
is(value_of('count(meshhook_metrics_discarded_total)'), '8', 'of every reason');
is(value_of('meshhook_metrics_series'), $node->safe_psql('postgres', 'select series_used from meshhook_metrics.status()'), 'series in use');

# Nothing of what was served was lost on the way
my $served = parse_exposition(metrics());
is_deeply($served->{problems}, [], 'what is served has nothing wrong with it');
is(value_of('scrape_samples_scraped'), scalar(keys %{ $served->{samples} }), 'every sample was scraped');
is(value_of('scrape_samples_post_metric_relabeling'), scalar(keys %{ $served->{samples} }), 'and kept');
my %metadata = map { $_->{metric} => "$_->{type}: $_->{help}" } @{ api('targets/metadata', match_target => '{job="meshhook"}') };
is($metadata{scrape_deliveries_total}, 'counter: Deliveries. Unit: deliveries.', 'type and help of a counter');
is($metadata{scrape_run_seconds}, 'histogram: Duration of runs. Unit: seconds.', 'and of a histogram');

# The next scrape brings what was recorded since
$node->safe_psql('postgres', "select meshhook_metrics.inc('scrape_deliveries_total', 5)");
wait_for_value('scrape_deliveries_total{tenant="00000000-0000-0000-0000-000000000000"}', '12', 'a later scrape has what was recorded since');
wait_for_value('up', 1, 'and is as good as the first');
unlike(PostgreSQL::Test::Utils::slurp_file($log), qr/level=(?:warn|error)|level=(?:WARN|ERROR)/, 'Prometheus has nothing to complain of');

$node->stop;
done_testing();
