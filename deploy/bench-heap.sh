#!/bin/bash
# Makes a real heaptrack file of a PostgreSQL backend and measures pgsoak's reader beside heaptrack_print and `zstd -dc`: the same file,
# taking turns, medians of user + system time. Says whether totals and sums by function are the same.
#
#   deploy/bench-heap.sh [FOLDER]         default /tmp/pgsoak-bench-heap; kept, so that a second call only measures
#   HEAP_FILE: an interpreted file to measure instead, for example of many stacks (deploy/make-hard-heap.py --interpreted)
#   PG_CONFIG, ROUNDS (5), LOOPS (60000: the size of the file), HEAP_DIGEST, HEAPSHIM: where things are
set -euo pipefail
folder=${1:-/tmp/pgsoak-bench-heap}
here=$(cd "$(dirname "$0")/.." && pwd)
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
rounds=${ROUNDS:-5}
loops=${LOOPS:-60000}
target=${CARGO_TARGET_DIR:-$here/target}
if [ -z "${HEAP_DIGEST:-}" ]; then
  (cd "$here" && cargo build --release -q -p pgsoak-analysis --example heap_digest && cargo build --release -q -p pgsoak-heapshim)
fi
digest=${HEAP_DIGEST:-$target/release/examples/heap_digest}
shim=${HEAPSHIM:-$target/release/libpgsoak_heapshim.so}
inject=$(ls /usr/lib/heaptrack/libheaptrack_inject.so /usr/lib/*/heaptrack/libheaptrack_inject.so 2>/dev/null | head -1 || true)
interpret=$(ls /usr/lib/heaptrack/libexec/heaptrack_interpret /usr/lib/*/heaptrack/libexec/heaptrack_interpret 2>/dev/null | head -1 || true)
mkdir -p "$folder"
chmod 755 "$folder"

make_file() {
  local bin as=()
  bin=$("$pg_config" --bindir)
  if [ "$(id -u)" = 0 ]; then as=(runuser -u postgres --); fi
  local work="$folder/work"
  rm -rf "$work"
  mkdir -p "$work/raw"
  cp "$shim" "$work/shim.so"
  if [ "$(id -u)" = 0 ]; then chown -R postgres "$work"; fi
  "${as[@]}" "$bin/initdb" -D "$work/data" -A trust -U soak --no-sync >/dev/null
  "${as[@]}" env LD_PRELOAD="$work/shim.so" PGSOAK_HEAPTRACK_INJECT="$inject" PGSOAK_HEAPTRACK_FOLDER="$work/raw" \
    "$bin/postgres" -D "$work/data" -k "$work" -c listen_addresses= -c fsync=off >"$folder/server.log" 2>&1 &
  local server=$!
  # Whatever happens, the server goes with this script.
  trap '[ -f "'"$work"'/data/postmaster.pid" ] && kill "$(head -1 "'"$work"'/data/postmaster.pid")" 2>/dev/null || true' EXIT
  until "$bin/psql" -h "$work" -U soak postgres -Atqc 'SELECT 1' >/dev/null 2>&1; do sleep 0.2; done
  local pid
  pid=$("$bin/psql" -h "$work" -U soak postgres -Atq <<SQL
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
CREATE TABLE t (id bigint PRIMARY KEY, data text, extra jsonb);
CREATE FUNCTION work(n bigint, m bigint) RETURNS void LANGUAGE plpgsql AS \$\$
BEGIN
  FOR i IN n..m LOOP
    BEGIN
      EXECUTE format('INSERT INTO t SELECT %s + g, repeat(''x'', (%s * 37) %% 5000), jsonb_build_object(''a'', g, ''b'', array_agg(h)) FROM generate_series(1, 2) g, generate_series(1, 1 + %s %% 90) h GROUP BY g ON CONFLICT DO NOTHING', i * 10, i, i);
      EXECUTE format('SELECT count(*), string_agg(a.data, '','' ORDER BY a.data) FROM t a JOIN t b USING (id) WHERE id BETWEEN %s AND %s', i * 10 - 400, i * 10);
      IF i % 50 = 0 THEN
        EXECUTE format('CREATE TEMP TABLE tmp_%s AS SELECT * FROM t WHERE id > %s', i, i * 10 - 100);
        EXECUTE format('DROP TABLE tmp_%s', i);
      END IF;
      IF i % 7 = 0 THEN PERFORM 1 / 0; END IF;
    EXCEPTION WHEN division_by_zero THEN NULL;
    END;
  END LOOP;
END \$\$;
-- In pieces: one transaction with as many subtransactions would take the square of the time.
SELECT format('SELECT work(%s, %s)', g + 1, least(g + 500, $loops)) FROM generate_series(0, $loops - 1, 500) g \\gexec
SELECT pg_backend_pid();
SQL
  )
  pid=$(tail -1 <<<"$pid")
  kill "$(head -1 "$work/data/postmaster.pid")"
  wait "$server" || true
  trap - EXIT
  # heaptrack_interpret 1.4 can take all memory there is.
  (ulimit -v 8000000; "$interpret" <"$work/raw/ht.$pid.raw") | zstd -q -3 -f -o "$folder/backend.zst"
  zstd -q -3 -f "$work/raw/ht.$pid.raw" -o "$folder/backend.raw.zst"
  rm -rf "$work"
}

file=${HEAP_FILE:-$folder/backend.zst}
[ -s "$file" ] || make_file
ls -l "$file"
echo "uncompressed $(zstd -dc "$file" | wc -c) bytes, $(zstd -dc "$file" | grep -c '^[+-]') events"

python3 - "$digest" "$file" "$folder" "$rounds" <<'PY'
import os, re, resource, statistics, subprocess, sys
digest, file, folder, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def run(command, out):
    """CPU seconds and peak resident KiB of a command."""
    with open(out, "wb") as to:
        child = subprocess.Popen(command, stdout=to, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
        assert status == 0, command
    return used.ru_utime + used.ru_stime, used.ru_maxrss

graphs = os.path.join(folder, "graphs")
os.makedirs(graphs, exist_ok=True)
cases = {
    "zstd -dc": ["zstd", "-dc", file],
    "heaptrack_print": ["heaptrack_print", file],
    "heaptrack_print -M": ["heaptrack_print", "-M", os.path.join(folder, "massif.out"), file],
    "pgsoak: digest": [digest, file],
    "pgsoak: four flame graphs": [digest, file, "--graphs", graphs],
    "pgsoak: series": [digest, file, "--series"],
}
raw = file.removesuffix(".zst") + ".raw.zst"
if os.path.exists(raw):
    cases["pgsoak: digest of the raw file"] = [digest, raw]
cpu, rss = {n: [] for n in cases}, {n: 0 for n in cases}
for _ in range(rounds):
    for name, command in cases.items():
        seconds, peak = run(command, "/dev/null")
        cpu[name].append(seconds)
        rss[name] = max(rss[name], peak)
median = {n: statistics.median(v) for n, v in cpu.items()}
print(f"| | CPU s (median of {rounds}) | of heaptrack_print | peak MB |\n|---|---|---|---|")
for name in cases:
    print(f"| {name} | {median[name]:.2f} | {median[name] / median['heaptrack_print']:.2f} | {rss[name] / 1024:.0f} |")
print(f"time series: {median['pgsoak: series'] / median['heaptrack_print -M']:.3f} of heaptrack_print -M")

# The same figures? Totals from the summary; sums by innermost function from heaptrack's own folded stacks, cost by cost.
ours = subprocess.run([digest, file, "--functions"], capture_output=True, text=True, check=True).stdout.splitlines()
words = ours[0].split()
total = dict(zip(words[::2], map(int, words[1::2])))
said = subprocess.run(["heaptrack_print", "-p", "0", "-a", "0", "-T", "0", file], capture_output=True, text=True).stdout
theirs = {
    "allocations": int(re.search(r"calls to allocation functions: (\d+)", said)[1]),
    "temporary": int(re.search(r"temporary memory allocations: (\d+)", said)[1]),
}
mine = {name: {} for name in ("peak", "leaked", "allocations", "temporary")}
for line in ours[1:]:
    function, *costs = line.split("\t")
    for name, cost in zip(mine, costs):
        if int(cost):
            mine[name][function] = int(cost)
ok = True
for name, of_function in mine.items():
    folded = os.path.join(folder, f"{name}.folded")
    subprocess.run(["heaptrack_print", "-p", "0", "-a", "0", "-T", "0", "--flamegraph-cost-type", name, "-F", folded, file],
                   stdout=subprocess.DEVNULL, check=True)
    sums = {}
    with open(folded, errors="replace") as lines:
        for line in lines:
            stack, cost = line.rstrip("\n").rsplit(" ", 1)
            # "strdup (strdup.c)": heaptrack puts the file behind the name where it knows it.
            leaf = re.sub(r" \([^()]*\)$", "", stack.rstrip(";").rsplit(";", 1)[-1])
            if int(cost):
                sums[leaf] = sums.get(leaf, 0) + int(cost)
    theirs[name] = theirs.get(name, sum(sums.values()))
    key = name
    same_total = sum(sums.values()) == sum(of_function.values()) == total[key] and theirs[name] == total[key]
    differ = sorted(f for f in sums.keys() | of_function.keys() if sums.get(f) != of_function.get(f))
    ok &= same_total and not differ
    print(f"{name}: heaptrack {theirs[name]} (folded {sum(sums.values())}), pgsoak {total[key]}; functions {len(sums)} and {len(of_function)}, {len(differ)} differ", differ[:5])
    for function in differ[:5]:
        print("   ", function, sums.get(function), of_function.get(function))
print("the same" if ok else "NOT THE SAME")
PY
