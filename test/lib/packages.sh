# What the tests need installed: finds what is missing, installs it when run by
# root on a Debian system, and otherwise says which command does. Sourced by
# test/run; sets PG_CONFIG to the one of the server's own folder.

have()
{
	command -v "$1" >/dev/null 2>&1
}

# The packages that are missing for the pg_config in PG_CONFIG, one a line
missing_packages()
{
	local major bindir

	have make || echo make
	have gcc && echo 'int main(void) { return 0; }' | gcc -x c -o /dev/null - 2>/dev/null ||
		printf '%s\n' gcc libc6-dev
	perl -MTAP::Harness -e 1 2>/dev/null || echo perl
	case " $SUITES " in *" tap "* | *" long "*)
		perl -MIPC::Run -e 1 2>/dev/null || echo libipc-run-perl
		have promtool && have prometheus || echo prometheus
		;;
	esac
	case " $SUITES " in *" valgrind "*) have valgrind || echo valgrind ;; esac

	if ! have "$PG_CONFIG"; then
		# postgresql depends on the release's own major version
		major=$(apt-cache depends postgresql 2>/dev/null |
			sed -n 's/^ *Depends: postgresql-\([0-9][0-9]*\)$/\1/p')
		printf '%s\n' "postgresql${major:+-$major}" "postgresql-server-dev-${major:-all}" libpq-dev
		printf '%s\n' pgtap wal2json cron | sed "s/^/postgresql-${major:-NN}-/"
		return
	fi
	major=$("$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	bindir=$("$PG_CONFIG" --bindir)
	[ -x "$bindir/postgres" ] && [ -x "$bindir/pgbench" ] || echo "postgresql-$major"
	[ -f "$("$PG_CONFIG" --includedir-server)/postgres.h" ] && [ -f "$("$PG_CONFIG" --pgxs)" ] ||
		echo "postgresql-server-dev-$major"
	case " $SUITES " in *" pgtap "*)
		[ -f "$("$PG_CONFIG" --sharedir)/extension/pgtap.control" ] || echo "postgresql-$major-pgtap"
		;;
	esac
	case " $SUITES " in *" tap "* | *" long "*)
		[ -f "$("$PG_CONFIG" --pkglibdir)/wal2json.so" ] || echo "postgresql-$major-wal2json"
		[ -f "$("$PG_CONFIG" --sharedir)/extension/pg_cron.control" ] || echo "postgresql-$major-cron"
		;;
	esac
}

# Debian starts a service when its package is installed. These tests use none,
# so the installation is told not to.
without_services()
{
	local policy=/usr/sbin/policy-rc.d saved='' status=0

	if [ -e "$policy" ]; then
		saved=$(mktemp)
		cp -p "$policy" "$saved"
	fi
	# shellcheck disable=SC2064
	trap "if [ -n '$saved' ]; then mv '$saved' $policy; else rm -f $policy; fi" EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	"$@" || status=$?
	if [ -n "$saved" ]; then mv "$saved" "$policy"; else rm -f "$policy"; fi
	trap - EXIT
	return "$status"
}

require_packages()
{
	local missing log
	local -a apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0)

	missing=$(missing_packages | sort -u | tr '\n' ' ')
	if [ -n "$missing" ]; then
		if [ "$(id -u)" != 0 ] || ! have apt-get; then
			echo "test/run: these are missing: $missing" >&2
			echo "Install them, on Debian with" >&2
			echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends $missing" >&2
			exit 1
		fi
		log=$(mktemp)
		echo "# installing $missing"
		"${apt[@]}" update >"$log" 2>&1 || true
		# the list can differ now that apt knows its packages
		missing=$(missing_packages | sort -u | tr '\n' ' ')
		# shellcheck disable=SC2086
		if ! without_services "${apt[@]}" install --no-install-recommends $missing >"$log" 2>&1; then
			tail -n 20 "$log" >&2
			rm -f "$log"
			echo "test/run: apt-get could not install: $missing" >&2
			exit 1
		fi
		rm -f "$log"
	fi
	if ! have "$PG_CONFIG"; then
		echo "test/run: PG_CONFIG names \"$PG_CONFIG\", which cannot be run" >&2
		exit 1
	fi

	# Debian's pg_config in PATH stands for that of one major version
	PG_CONFIG=$("$PG_CONFIG" --bindir)/pg_config
}
