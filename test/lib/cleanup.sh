# Ends and removes what a test run started: processes, the temporary folder,
# shared memory objects. Sourced by test/run, which calls cleanup from its EXIT
# trap; MHM_TMP names the run's temporary folder, inside the process group of
# the half that runs the tests.

# Processes of this run: all of them work in its folder
run_processes()
{
	local link

	for link in /proc/[0-9]*/cwd; do
		case "$(readlink "$link" 2>/dev/null)" in
			"$MHM_TMP"/*) link=${link#/proc/} && echo "${link%/cwd}" ;;
		esac
	done
}

await_end()
{
	local pid

	for pid; do
		timeout 20 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
	done
}

# The servers among them are asked to quit, so that they free their own memory
quit_servers()
{
	local pid

	for pid in $(run_processes); do
		grep -qsxF "$pid" <(find "$MHM_TMP" -name postmaster.pid -exec head -qn 1 {} +) || continue
		kill -QUIT "$pid" 2>/dev/null && await_end "$pid"
	done
}

cleanup()
{
	local pid object

	set +e
	trap '' HUP INT TERM
	if [ -n "${inside:-}" ]; then
		kill -TERM -- "-$inside" 2>/dev/null
		await_end "$inside"
	fi
	quit_servers
	for pid in $(run_processes); do
		kill -KILL "$pid" 2>/dev/null && await_end "$pid"
	done

	# Objects of servers that tests have killed, unless another process uses them
	sort -u "$MHM_TMP/shared_memory_objects" 2>/dev/null |
		while IFS= read -r object; do
			grep -qsF "$object" /proc/[0-9]*/maps || rm -f "$object"
		done
	rm -rf "$MHM_TMP"
}
