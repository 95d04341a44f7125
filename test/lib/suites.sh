# The suites themselves. Sourced by test/run in its second half, which runs in
# the copy of the checkout as an unprivileged user and calls run_suites.

. test/lib/cluster.sh
. test/lib/memory.sh

results=$MHM_TMP/results
failures=$MHM_TMP/failures
jobs=2

heading()
{
	printf '\n== %s ==\n' "$*"
}

# passed NAME, failed NAME: one test
passed()
{
	echo "1 0" >>"$results"
	echo "ok      $1"
}

failed()
{
	echo "0 1" >>"$results"
	echo "$1" >>"$failures"
	echo "FAILED  $1"
}

# A log worth reading after a failure, at most its last $2 lines
show()
{
	[ -s "$1" ] || return 0
	printf -- '---- the end of %s\n' "${1#"$MHM_TMP"/}"
	tail -n "${2:-60}" "$1"
	printf -- '----\n'
}

# Ends what hangs, so that a run always comes to its summary
bounded()
{
	timeout --kill-after=10 "$@"
}

run_suites()
{
	local suite started counted total

	: >"$results"
	: >"$failures"
	build || failed "build"
	[ -z "$CLOCK" ] || set_clock || failed "clock"
	if [ ! -s "$failures" ]; then
		for suite in $SUITES; do
			started=$SECONDS
			heading "$suite"
			counted=$(wc -l <"$results")
			# before || no command ends the shell: the summary is always reached
			"suite_$suite" || true
			[ "$(wc -l <"$results")" -gt "$counted" ] || failed "$suite: counted no test"
			echo "# $suite: $((SECONDS - started)) s"
		done
	fi

	heading "summary"
	if [ -s "$failures" ]; then
		echo "failed:"
		sed 's/^/  /' "$failures"
	fi
	total=$(awk '{ p += $1; f += $2 } END { printf "%d passed, %d failed", p, f }' "$results")
	[ "$total" != "0 passed, 0 failed" ] || echo "no test ran"
	echo "$total"
	[ ! -s "$failures" ] && [ "$total" != "0 passed, 0 failed" ]
}

# From here on it is the time of CLOCK: what passes only on some days, or at some
# hours, is found before they are over. libfaketime would do for most programs, but
# has the true time while select() waits, where the postmaster of 15 starts processes.
set_clock()
{
	local begins ahead late

	begins=$(date -d "$CLOCK" +%s) || return 1
	ahead=$((begins - $(date +%s)))
	gcc -shared -fPIC -O2 -o "$MHM_TMP/clock.so" test/t/lib/server_faults.c -ldl &&
		perl -e 'print pack "q x248", $ARGV[0] * 1_000_000' -- "$ahead" >"$MHM_TMP/clock" || return 1
	export MHM_FAULTS=$MHM_TMP/clock LD_PRELOAD=$MHM_TMP/clock.so
	echo "# the tests' clock is at $(date)"
	late=$(($(date +%s) - begins))
	[ $late -ge 0 ] && [ $late -le 60 ]
}

# make with its output in a log that is shown when it fails; warnings always
quiet_make()
{
	local log=$1

	shift
	bounded 600 "$MAKE" -j"$jobs" "$@" >"$log" 2>&1 || {
		show "$log"
		return 1
	}
	grep -A 4 'warning:' "$log" || true
}

build()
{
	local module

	heading "build for $("$PG_CONFIG" --version)"
	MIRROR_CONFIG=$(mirror_installation "$MHM_TMP/pg") || return 1
	export PATH=${MIRROR_CONFIG%/*}:$PATH
	quiet_make "$MHM_TMP/build.log" PG_CONFIG="$MIRROR_CONFIG" install || return 1
	for module in test/modules/*/Makefile; do
		[ -f "$module" ] || continue
		module=${module%/Makefile}
		quiet_make "$MHM_TMP/${module##*/}.log" -C "$module" PG_CONFIG="$MIRROR_CONFIG" install || return 1
	done
	case " $SUITES " in *" tap "* | *" long "*) build_old || return 1 ;; esac
	# The suites use the installed extension, not what a test could build
	PG_CONFIG=$MIRROR_CONFIG
}

# The pg_config of the earliest PostgreSQL from 15 on that is installed beside
# the one of PG_CONFIG, as Debian does it, and older; or nothing
earlier_pg_config()
{
	local bindir candidate major ours

	bindir=$("$PG_CONFIG" --bindir)
	ours=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	for candidate in "${bindir%/*/bin}"/*/bin/pg_config; do
		major=$("$candidate" --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p') || continue
		[ -n "$major" ] && [ "$major" -ge 15 ] && [ "$major" -lt "$ours" ] || continue
		[ -x "${candidate%/*}/initdb" ] && [ -x "${candidate%/*}/postgres" ] &&
			[ -f "$("$candidate" --includedir-server)/postgres.h" ] && [ -f "$("$candidate" --pgxs)" ] || continue
		echo "$major $candidate"
	done | sort -n | sed -n '1s/^[0-9]* //p'
}

# What pg_upgrade is tested with: the extension built for an earlier PostgreSQL,
# in a mirror whose pg_config is MHM_OLD_PG_CONFIG
build_old()
{
	local earlier

	earlier=$(earlier_pg_config)
	[ -n "$earlier" ] || return 0
	MHM_OLD_PG_CONFIG=$(PG_CONFIG=$earlier mirror_installation "$MHM_TMP/old") || return 1
	export MHM_OLD_PG_CONFIG
	cp -a "$MHM_TMP/src" "$MHM_TMP/old-src"
	"$MAKE" -s -C "$MHM_TMP/old-src" PG_CONFIG="$MHM_OLD_PG_CONFIG" clean >/dev/null &&
		quiet_make "$MHM_TMP/old.log" -C "$MHM_TMP/old-src" PG_CONFIG="$MHM_OLD_PG_CONFIG" with_llvm=no install
}

# nothing_in FOLDER PATTERN: a suite without tests is one failure
nothing_in()
{
	if compgen -G "$1/$2" >/dev/null; then
		return 1
	fi
	failed "$suite: no tests in $1"
}

# harness NAME [--exec COMMAND] FILE...: TAP, every assertion counted
harness()
{
	local name=$1

	shift
	bounded "${limit:-1500}" perl test/lib/harness.pl --suite "$name" --results "$results" \
		--failures "$failures" "$@" || true
}

# Turn what pg_regress and pg_isolation_regress print into counts: 16 and later
# print "ok 1 - name 12 ms", 15 prints "test name ... ok 12 ms".
count_regress()
{
	local suite=$1 log=$2 verdict name duration before

	before=$(wc -l <"$results")
	while read -r verdict name duration; do
		if [ "$verdict" = ok ]; then passed "$suite/$name ($duration)"; else failed "$suite/$name"; fi
	done < <(sed -nE \
		-e 's/^not ok +[0-9]+ +[-+] +([^ ]+) *(.*)/failed \1 \2/p' \
		-e 's/^ok +[0-9]+ +[-+] +([^ ]+) *(.*)/ok \1 \2/p' \
		-e 's/^(test)? +([^ ]+) +\.\.\. +FAILED *(.*)/failed \2 \3/p' \
		-e 's/^(test)? +([^ ]+) +\.\.\. +ok *(.*)/ok \2 \3/p' "$log")
	[ "$(wc -l <"$results")" -gt "$before" ] || {
		show "$log"
		failed "$suite: did not run"
	}
}

# pg_regress gives up at the first test whose expected output is missing; an
# empty one makes that test fail alone, with its whole output as the difference.
expect_everything()
{
	local folder=$1 name

	mkdir -p "$folder/expected" "$folder/test/isolation/expected"
	for name in "$folder"/test/sql/*.sql; do
		touch -a "$folder/expected/$(basename "$name" .sql).out"
	done
	for name in "$folder"/test/isolation/specs/*.spec; do
		touch -a "$folder/test/isolation/expected/$(basename "$name" .spec).out"
	done
}

# installcheck SUITE FOLDER MAKE-ARGUMENT...: the running cluster, from FOLDER
installcheck()
{
	local name=$1 folder=$2 log=$MHM_TMP/$1.log

	shift 2
	expect_everything "$folder"
	rm -f "$folder/regression.diffs" "$folder/output_iso/regression.diffs"
	if ! bounded 900 "$MAKE" -s -C "$folder" PG_CONFIG="$PG_CONFIG" "$@" installcheck >"$log" 2>&1; then
		show "$folder/regression.diffs" 120
		show "$folder/output_iso/regression.diffs" 120
	fi
	count_regress "$name" "$log"
}

# compile_unit SOURCE BINARY FLAG...: what gcc says goes to BINARY.log
compile_unit()
{
	local source=$1 out=$2

	shift 2
	# shellcheck disable=SC2086
	gcc -std=gnu99 -O2 -g -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare $COPT "$@" \
		-iquote src -I"$("$PG_CONFIG" --includedir-server)" -D_GNU_SOURCE -o "$out" "$source" \
		-L"$("$PG_CONFIG" --pkglibdir)" -lpgcommon -lpgport -lm >"$out.log" 2>&1
}

suite_unit()
{
	local source out
	local -a outs=() binaries=()

	nothing_in test/unit '*.c' && return
	mkdir -p "$MHM_TMP/unit"
	for source in test/unit/*.c; do
		out=$MHM_TMP/unit/$(basename "$source" .c)
		compile_unit "$source" "$out" &
		compile_unit "$source" "$out-sanitized" -O1 -fsanitize=address,undefined -fno-sanitize-recover=all &
		outs+=("$out" "$out-sanitized")
		while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
	done
	wait
	for out in "${outs[@]}"; do
		if [ -x "$out" ]; then
			binaries+=("$out")
		else
			show "$out.log"
			failed "unit/${out##*/}: does not compile"
		fi
	done
	# The sanitizer's library wants to be the first; no unit test asks for the time
	[ ${#binaries[@]} = 0 ] ||
		LD_PRELOAD='' ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 harness unit --binary "${binaries[@]}"
}

suite_regress()
{
	nothing_in test/sql '*.sql' && return
	new_cluster regress && start_cluster regress || { failed "regress: no cluster"; return; }
	installcheck regress . ISOLATION=
	end_cluster regress
}

suite_isolation()
{
	nothing_in test/isolation/specs '*.spec' && return
	new_cluster isolation && start_cluster isolation || { failed "isolation: no cluster"; return; }
	installcheck isolation . REGRESS=
	end_cluster isolation
}

# in_halves COMMAND FILE...: both halves of the files at the same time, since a server
# that runs one file after the other leaves a processor idle. COMMAND gets the number
# of its half, then the files.
in_halves()
{
	local command=$1 place half
	local -a by_size half_1=() half_2=()

	shift
	# The larger ones take longer, by and large
	# shellcheck disable=SC2012
	mapfile -t by_size < <(ls -S "$@")
	for place in "${!by_size[@]}"; do
		case $((place % 4)) in
			0 | 3) half_1+=("${by_size[place]}") ;;
			*) half_2+=("${by_size[place]}") ;;
		esac
	done
	("$command" 1 "${half_1[@]}"; touch "$MHM_TMP/$command.1") &
	("$command" 2 "${half_2[@]}"; touch "$MHM_TMP/$command.2") &
	wait
	for half in 1 2; do
		[ -e "$MHM_TMP/$command.$half" ] || failed "$suite: half $half came not to its end"
	done
}

suite_pgtap()
{
	nothing_in test/pgtap '*.sql' && return
	in_halves pgtap_half test/pgtap/*.sql
}

pgtap_half()
{
	local name=pgtap_$1

	shift
	new_cluster "$name" && start_cluster "$name" || { failed "$name: no cluster"; return; }
	psql -Xqc 'create extension pgtap' >/dev/null || { failed "$name: extension pgtap"; return; }
	harness pgtap --jobs 1 --exec "psql -X -q -t -A -v ON_ERROR_STOP=1 -P pager=off -f" "$@"
	end_cluster "$name"
}

# What Makefile.global's prove_installcheck sets, for 15 and for later versions
perl_tests()
{
	local folder=$MHM_TMP/tap source
	source=$(dirname "$("$PG_CONFIG" --pgxs)")/../test

	if [ ! -f "$source/perl/PostgreSQL/Test/Cluster.pm" ]; then
		failed "$suite: PostgreSQL::Test::Cluster is not among the files of $("$PG_CONFIG" --version)"
		return
	fi
	mkdir -p "$folder/tmp_check/log" "$MHM_TMP/ports"
	(
		unset PGHOST PGPORT PGUSER PGDATABASE
		export TESTDIR=$folder TESTDATADIR=$folder/tmp_check TESTLOGDIR=$folder/tmp_check/log
		export PG_REGRESS=$source/regress/pg_regress PG_TEST_PORT_DIR=$MHM_TMP/ports
		export PERL5LIB=$source/perl:$PWD/test/t/lib:$PWD/test/lib PG_CONFIG
		harness "$suite" --logs "$folder/tmp_check/log" "$@"
	)
}

suite_tap()
{
	# The longest, first, so that at the end none goes on alone
	local -a files=(test/t/{alerts_of_tenants_in_trouble,alerts_within_memory,scheduled_by_pg_cron,alerts_behind_locks,worker_has_no_superuser_rights}.pl)
	local file

	nothing_in test/t '*.pl' && return
	for file in test/t/*.pl; do
		case " ${files[*]} " in *" $file "*) ;; *) files+=("$file") ;; esac
	done
	# Most of the time they wait for a server or the worker
	perl_tests --jobs $((2 * jobs)) "${files[@]}"
}

suite_long()
{
	nothing_in test/long '*.pl' && return
	limit=7200 perl_tests --limit 3600 --jobs 1 test/long/*.pl
}
