// prom-client's labelled counter.inc and histogram.observe, as the peer that
// bench/record measures beside the extension. It stays alive for the whole run
// and answers each line "<measure> <calls>" with the nanoseconds per call, so
// that its rounds can be interleaved with those in PostgreSQL.
//
// Every call makes a fresh labels object, as code in a handler does. The time
// is that of the thread which runs this code on a processor, without the
// helpers of V8 that collect garbage and compile beside it.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { Counter, Histogram, Registry } from 'prom-client';

const WARM_UP_CALLS = 300_000;
const TENANT = '11111111-1111-4111-8111-111111111111';

const registry = new Registry();
const metric = (Kind, name, labelNames) =>
	new Kind({ name, help: name, labelNames, registers: [registry] });

const counter = metric(Counter, 'bench_deliveries_total', ['queue', 'status']);
const histogram = metric(Histogram, 'bench_duration_seconds', ['queue', 'status']);
const tenantCounter = metric(Counter, 'bench_tenant_deliveries_total', ['queue', 'status', 'tenant']);
const tenantHistogram = metric(Histogram, 'bench_tenant_duration_seconds', ['queue', 'status', 'tenant']);

const measures = {
	inc(calls) {
		for (let i = 0; i < calls; i++) counter.inc({ queue: 'webhooks', status: 'ok' }, 1);
	},
	observe(calls) {
		for (let i = 0; i < calls; i++) histogram.observe({ queue: 'webhooks', status: 'ok' }, 0.0123);
	},
	inc_tenant(calls) {
		for (let i = 0; i < calls; i++)
			tenantCounter.inc({ queue: 'webhooks', status: 'ok', tenant: TENANT }, 1);
	},
	observe_tenant(calls) {
		for (let i = 0; i < calls; i++)
			tenantHistogram.observe({ queue: 'webhooks', status: 'ok', tenant: TENANT }, 0.0123);
	},
};

// The first field of schedstat: nanoseconds on a processor
const cpuNanoseconds = () => Number(readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[0]);

function nanosecondsPerCall(name, calls) {
	const run = measures[name];
	if (!run || !(calls > 0)) throw new Error(`"${name} ${calls}" is not "<measure> <calls>".`);
	const started = cpuNanoseconds();
	run(calls);
	return (cpuNanoseconds() - started) / calls;
}

for (const name of Object.keys(measures)) nanosecondsPerCall(name, WARM_UP_CALLS);

const { version } = createRequire(import.meta.url)('prom-client/package.json');
console.log(JSON.stringify({ node: process.version, prom_client: version }));

for await (const line of createInterface({ input: process.stdin })) {
	const [name, calls] = line.trim().split(/\s+/);
	console.log(nanosecondsPerCall(name, Number(calls)));
}
