# Private PostgreSQL clusters for the suites that need one running server.
# Sourced by test/lib/suites.sh. A cluster lives in $MHM_TMP/c/NAME, listens on
# a socket in $MHM_TMP/s/NAME only, and needs no free TCP port.

# A tree in folder $1 that looks like the installation of PG_CONFIG: the
# programs copied, everything else linked. PostgreSQL finds its files relative
# to its programs, so what is installed with $1's pg_config is seen by $1's
# servers only. Prints the path of its pg_config.
mirror_installation()
{
	local root=$1 option dir

	for option in pkglibdir sharedir pkgincludedir includedir-server; do
		dir=$("$PG_CONFIG" "--$option")
		[ -e "$root$dir" ] && continue
		[ -d "$dir" ] || continue
		mkdir -p "$root$dir"
		cp -asf "$dir/." "$root$dir/"
	done
	dir=$("$PG_CONFIG" --bindir)
	mkdir -p "$root$dir"
	cp -a "$dir/." "$root$dir/"
	# no trace of an installed version of what is tested
	find "$root" -name 'meshhook_metrics*' -not -path "*/src/*" -prune -exec rm -rf {} +

	if [ "$("$root$dir/pg_config" --pkglibdir)" != "$root$("$PG_CONFIG" --pkglibdir)" ]; then
		echo "test/run: the PostgreSQL of $PG_CONFIG does not find its files relative to its programs" >&2
		return 1
	fi
	echo "$root$dir/pg_config"
}

# new_cluster NAME: initdb and configure
new_cluster()
{
	local data=$MHM_TMP/c/$1

	mkdir -p "$MHM_TMP/c" "$MHM_TMP/s/$1"
	initdb -D "$data" -U postgres --auth=trust --no-sync --no-locale --encoding=UTF8 >"$data.log" 2>&1 || {
		cat "$data.log" >&2
		return 1
	}
	cat >>"$data/postgresql.conf" <<-CONF
		shared_preload_libraries = 'meshhook_metrics'
		listen_addresses = ''
		unix_socket_directories = '$MHM_TMP/s/$1'
		fsync = off
		max_prepared_transactions = 10
		log_line_prefix = '%m [%p] %q%a '
	CONF
	# Where psql and the pg_regress family find it
	export PGHOST=$MHM_TMP/s/$1 PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# start_cluster NAME: with the program START_PROGRAM in postgres' place, if set
start_cluster()
{
	bounded 200 pg_ctl -D "$MHM_TMP/c/$1" -l "$MHM_TMP/c/$1.log" ${START_PROGRAM:+-p "$START_PROGRAM"} \
		-w -t 180 start >/dev/null || {
		tail -n 30 "$MHM_TMP/c/$1.log" >&2
		return 1
	}
}

# end_cluster NAME: a server that crashed during its suite, or that cannot be
# stopped cleanly, is a failure that no test may have seen
end_cluster()
{
	local log=$MHM_TMP/c/$1.log

	if ! bounded 200 pg_ctl -D "$MHM_TMP/c/$1" -m fast -w -t 180 stop >/dev/null; then
		show "$log"
		failed "$1: the server does not stop"
	elif grep -Eq 'terminating any other active server processes|TRAP: |PANIC: ' "$log"; then
		grep -E -B 5 -A 5 'terminating any other active server processes|TRAP: |PANIC: ' "$log" | head -n 60
		failed "$1: the server crashed"
	fi
}
