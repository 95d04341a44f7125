# The suites that look for memory errors and undefined behaviour. Sourced by
# test/lib/suites.sh. Two tools, because each sees what the other cannot:
#
# sanitize: the library is built with UBSan and loaded into the packaged server.
# It sees accesses beyond arrays of a known size, misaligned pointers, shifts
# and conversions out of range, at nearly full speed, so that the isolation
# specs run under it too. ASan is no choice here: preloaded into Debian's server
# it deadlocks in the C library before main has begun, and of palloc'ed chunks,
# which lie inside the server's own malloc'ed blocks, it knows nothing anyway.
# The unit tests, which need no server, run under both.
#
# valgrind: the packaged server as it is. It sees decisions and system calls
# that depend on uninitialised memory, of our stack and our heap, and accesses
# beyond a malloc'ed block. Only errors with our library in their stack count:
# the server itself is not built for valgrind and has known ones. It is some
# thirty times slower, so a regress file that does the same many times over says
# "-- not under valgrind" in a line of its own, and is left out.

# What regress tests record goes through the flush worker into these tables
with_storage()
{
	local migration

	psql -Xqc 'create extension meshhook_metrics' && for migration in migrations/*.sql; do
		PGOPTIONS='-c client_min_messages=warning' psql -Xq1 -v ON_ERROR_STOP=1 -f "$migration" >/dev/null || return 1
	done
}

# flushed SUITE: what is recorded last is stored too. The tests may have reset what
# they recorded before any tick came, so there has to be something.
flushed()
{
	if psql -XAtqc "select meshhook_metrics.inc('flushed_total')" \
		-c "select meshhook_metrics.flush('5 min') > 0" | grep -q '^t$'; then
		passed "$1: the worker has flushed"
	else
		show "$MHM_TMP/c/$1.log"
		failed "$1: the worker has flushed"
	fi
}

# library_findings LOG...: those valgrind errors whose stack has our library.
# In the worker every stack has it, so there it counts only if we are near; and so
# does everywhere what the server is known for: it writes uninitialised padding, also
# to its queue of invalidations, and copies a thing to itself.
library_findings()
{
	perl -e '
		my $ours = qr{in [^)]*/meshhook_metrics\.so|\Q$ENV{MHM_TMP}\E/src/src/};
		my (%seen, @block);
		sub finish {
			my $text = join "", @block;
			my $near = join "", grep { defined } @block[0 .. 4];
			@block = () if $near !~ $ours &&
				$text =~ /^(?:Syscall param|Source and destination overlap)|ReceiveSharedInvalidMessages|mhm_duty_attempt|mhm_worker_main/;
			$text = join "", @block;
			print "$text\n" if $text =~ /^(?:at|by) 0x/m && $text =~ $ours && !$seen{$text}++;
			@block = ();
		}
		while (<>) {
			s/^==\d+== ?// or next;
			if (/^\s*$/) { finish(); next; }
			s/^\s+(?=(?:at|by) )//;
			s/(?<=0x)[0-9A-F]+(?=: )/.../;
			push @block, $_;
		}
		finish();' "$@"
}

suite_sanitize()
{
	local copy=$MHM_TMP/sanitized-src plain=$PG_CONFIG path=$PATH
	local checks=undefined,float-cast-overflow
	local flags="-fsanitize=$checks -fno-sanitize-recover=$checks -g -O1"

	nothing_in test/sql '*.sql' && return
	# shellcheck disable=SC2086
	if ! echo 'int main(void) { return 0; }' | gcc -x c $flags -o /dev/null - 2>/dev/null; then
		failed "sanitize: gcc cannot link with $flags"
		return
	fi
	cp -a "$MHM_TMP/src" "$copy"
	PG_CONFIG=$(mirror_installation "$MHM_TMP/sanitized")
	PATH=${PG_CONFIG%/*}:$PATH
	# optimised less, gcc believes more variables to be uninitialised
	if ! { "$MAKE" -s -C "$copy" PG_CONFIG="$PG_CONFIG" clean >/dev/null &&
		quiet_make "$MHM_TMP/sanitized.log" -C "$copy" PG_CONFIG="$PG_CONFIG" \
			COPT="$flags -Wno-maybe-uninitialized" with_llvm=no install; }; then
		failed "sanitize: does not build with $flags"
	elif new_cluster sanitize &&
		UBSAN_OPTIONS=print_stacktrace=1 start_cluster sanitize && with_storage; then
		installcheck sanitize "$copy" ISOLATION=
		if compgen -G 'test/isolation/specs/*.spec' >/dev/null; then
			installcheck sanitize "$copy" REGRESS=
		fi
		flushed sanitize
		end_cluster sanitize
		if grep -A 20 'runtime error: ' "$MHM_TMP/c/sanitize.log" | head -n 120 | grep .; then
			failed "sanitize: findings"
		else
			passed "sanitize: no findings"
		fi
	else
		failed "sanitize: no cluster"
	fi
	PATH=$path PG_CONFIG=$plain
}

suite_valgrind()
{
	local -a tests

	nothing_in test/sql '*.sql' && return
	mapfile -t tests < <(grep -L '^-- not under valgrind' test/sql/*.sql)
	in_halves valgrind_half "${tests[@]}"
}

valgrind_half()
{
	local name=valgrind_$1 logs=$MHM_TMP/valgrind_$1 copy=$MHM_TMP/valgrind_$1-src
	local -a tests

	shift
	tests=("${@##*/}")
	mkdir -p "$logs"
	cat >"$logs/postgres" <<-WRAPPER
		#!/bin/sh
		exec valgrind --quiet --leak-check=no --error-limit=no --num-callers=40 \\
			--fullpath-after= --log-file=$logs/%p.log "$(dirname "$PG_CONFIG")/postgres" "\$@"
	WRAPPER
	chmod +x "$logs/postgres"
	# pg_regress writes into the folder in which it runs
	cp -a "$MHM_TMP/src" "$copy"
	new_cluster "$name" || { failed "$name: no cluster"; return; }
	cat >>"$MHM_TMP/c/$name/postgresql.conf" <<-CONF
		autovacuum = off
		jit = off
	CONF
	START_PROGRAM=$logs/postgres start_cluster "$name" && with_storage || { failed "$name: no cluster"; return; }
	installcheck "$name" "$copy" ISOLATION= REGRESS="${tests[*]%.sql}"
	flushed "$name"
	end_cluster "$name"
	library_findings "$logs"/*.log >"$MHM_TMP/$name.findings"
	if [ -s "$MHM_TMP/$name.findings" ]; then
		show "$MHM_TMP/$name.findings" 200
		failed "$name: findings"
	else
		passed "$name: no findings in $(find "$logs" -name '*.log' | wc -l) processes"
	fi
}
