# What the programs bench/record, bench/flush, bench/rollup, bench/alerts
# and bench/policies have in common.
# Sourced by them, with $bench the name of the program and $here its folder.
#
#   read_options "$@"      --quick and --output FILE
#   prepare_measurements   a temporary folder with the checkout's copy, built
#   run_measurements       lib/$bench.pl there, and its JSON to where it goes
#
# PG_CONFIG names another PostgreSQL than the one in PATH.
#
# This half, as the user who called it, installs what is missing, copies the
# checkout to a temporary folder, and starts the measurements there, as root
# under an unprivileged user, because PostgreSQL refuses root. As in the tests,
# the extension goes into a tree of links to the installation of PG_CONFIG,
# never into that installation.

checkout=$(dirname "$here")
quick=''
output=''

# test/lib's packages.sh installs for the suites that SUITES names; the benches
# need none of them, only a server and a compiler.
export PG_CONFIG=${PG_CONFIG:-pg_config} SUITES=''
. "$checkout/test/lib/packages.sh"
. "$checkout/test/lib/cluster.sh"

fail()
{
	echo "bench/$bench: $1" >&2
	exit "${2:-1}"
}

read_options()
{
	while [ $# -gt 0 ]; do
		case $1 in
			--quick) quick=--quick ;;
			--output)
				[ -n "${2:-}" ] || fail "--output needs a file name" 2
				output=$(realpath -m "$2")
				shift
				;;
			*) fail "there is no option \"$1\"; the options are --quick and --output FILE" 2 ;;
		esac
		shift
	done
	if [ -z "$output" ] && [ -z "$quick" ]; then
		output=$here/results/$bench.json
	fi
}

cleanup()
{
	local pidfile object postmaster

	set +e
	trap '' HUP INT TERM
	if [ -n "${inside:-}" ]; then
		kill -TERM -- "-$inside" 2>/dev/null
		wait "$inside" 2>/dev/null
	fi
	# What follows finds something only if the measurements themselves were killed
	for pidfile in "$MHM_TMP"/c/*/data/postmaster.pid; do
		[ -e "$pidfile" ] || continue
		postmaster=$(head -n 1 "$pidfile")
		kill -INT "$postmaster" && timeout 60 tail --pid="$postmaster" -f /dev/null
	done
	while IFS= read -r object; do
		rm -f "$object"
	done < <(cat "$MHM_TMP"/c/*/shared_memory_objects 2>/dev/null)
	rm -rf "$MHM_TMP"
}

# Build the checkout's copy and install it, with the empty functions, into a
# mirror of PG_CONFIG's installation; prints the mirror's pg_config
install_into_mirror()
{
	local pg_config module

	pg_config=$(mirror_installation "$MHM_TMP/pg")
	for module in . test/modules/mhm_empty; do
		make -C "$MHM_TMP/src/$module" --no-print-directory PG_CONFIG="$pg_config" with_llvm=no all install \
			>"$MHM_TMP/build.log" 2>&1 || {
			tail -n 30 "$MHM_TMP/build.log" >&2
			fail "the build failed in $module"
		}
	done
	echo "$pg_config"
}

prepare_measurements()
{
	local base=${TMPDIR:-/tmp}

	# A socket's path may have at most 107 bytes, so a long TMPDIR cannot be used.
	[ ${#base} -le 40 ] || base=/tmp
	MHM_TMP=$(mktemp -d "$base/mhm.XXXXXX")
	trap 'cleanup' EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM

	mkdir "$MHM_TMP/src" "$MHM_TMP/c"
	tar -C "$checkout" --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - . |
		tar -C "$MHM_TMP/src" --no-same-owner -xf -
	PG_CONFIG=$(install_into_mirror)
	chmod -R u+rwX,go+rX "$MHM_TMP"
}

run_measurements()
{
	local user as_user=() status=0

	if [ "$(id -u)" = 0 ]; then
		user=postgres
		id -u "$user" >/dev/null 2>&1 || user=nobody
		chown -R "$user" "$MHM_TMP"
		as_user=(setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups)
	fi

	# Job control gives the measurements a process group of their own, by which
	# they can be ended.
	set -m
	(
		cd "$MHM_TMP/src/bench"
		exec env -i PATH="$PATH" HOME="$MHM_TMP" TMPDIR="$MHM_TMP" LC_ALL=C MHM_TMP="$MHM_TMP" PG_CONFIG="$PG_CONFIG" \
			"${as_user[@]}" perl -Ilib "lib/$bench.pl" $quick
	) </dev/null &
	inside=$!
	set +m
	wait "$inside" || status=$?
	if [ "$status" = 0 ] && [ -n "$output" ]; then
		mkdir -p "$(dirname "$output")"
		cp "$MHM_TMP/$bench.json" "$output"
		echo
		echo "Written to $output"
	fi
	exit "$status"
}
