#!/usr/bin/env bash
# A raw file that heaptrack_interpret 1.4 cannot read in reasonable memory, read by pgsoak: peak memory and CPU of both.
#
#   deploy/bench-hard-heap.sh [FOLDER]     default /tmp/pgsoak-bench-heap; EVENTS, STACKS: the size; LIMIT_KB (4000000), LIMIT_S (120): what the
#                                          interpreter is given before it is ended; HEAP_DIGEST: a built example
set -euo pipefail
folder=${1:-/tmp/pgsoak-bench-heap}
here=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${HEAP_DIGEST:-}" ]; then (cd "$here" && cargo build --release -q -p pgsoak-analysis --example heap_digest); fi
digest=${HEAP_DIGEST:-${CARGO_TARGET_DIR:-$here/target}/release/examples/heap_digest}
interpret=$(ls /usr/lib/heaptrack/libexec/heaptrack_interpret /usr/lib/*/heaptrack/libexec/heaptrack_interpret 2>/dev/null | head -1 || true)
mkdir -p "$folder"
file=$folder/hard.raw.zst
[ -s "$file" ] || "$here/deploy/make-hard-heap.py" "${EVENTS:-6000000}" "${STACKS:-60000}" | zstd -q -3 -f -o "$file"
ls -l "$file"
python3 - "$digest" "$file" "$interpret" "${LIMIT_KB:-4000000}" "${LIMIT_S:-120}" <<'PY'
import os, resource, subprocess, sys
digest, file, interpret, limit_kb, limit_s = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])

def run(name, command, stdin=None, limits=False):
    def limited():
        if limits:
            resource.setrlimit(resource.RLIMIT_AS, (limit_kb * 1024, limit_kb * 1024))
            resource.setrlimit(resource.RLIMIT_CPU, (limit_s, limit_s + 1))
    child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE if not limits else subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, preexec_fn=limited)
    said = child.stdout.read().decode().splitlines()[0] if child.stdout else ""
    _, status, used = os.wait4(child.pid, 0)
    end = "ended well" if status == 0 else f"ended by {os.waitstatus_to_exitcode(status)}"
    print(f"{name}: {used.ru_utime + used.ru_stime:.1f} CPU s, peak {used.ru_maxrss / 1024:.0f} MB, {end} {said}")
    return status, used.ru_maxrss

status, peak = run("pgsoak", [digest, file])
assert status == 0 and peak < 500 * 1024, "more than 500 MB, or no digest"
if interpret:
    unpacked = subprocess.Popen(["zstd", "-dc", file], stdout=subprocess.PIPE)
    run(f"heaptrack_interpret (given {limit_kb // 1000} MB and {limit_s} s)", [interpret], unpacked.stdout, True)
    unpacked.kill()
PY
