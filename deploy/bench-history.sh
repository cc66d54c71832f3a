#!/usr/bin/env bash
# Past runs asked of a coordinator, beside DuckDB on Parquet with the same samples; then many agents at once.
#
#   deploy/bench-history.sh [RUNS [FULL_RUNS [AGENTS]]]     default 10000 1000 1000; half an hour or more
#
# DuckDB and NumPy come from the Python package index into a folder of their own below /tmp. Figures are printed; those in
# docs/performance.md were made by this script.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
runs=${1:-10000} full=${2:-1000} agents=${3:-1000}
work=${TMPDIR:-/tmp}/pgsoak-bench-history
mkdir -p "$work"
cd "$here/.."
cargo build --release -p pgsoak-coordinator --example fleet
PGSOAK_POINTS=$work/points.bin target/release/examples/fleet history "$runs" "$full"

[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet duckdb numpy
"$work/venv/bin/python" - "$work" "$full" <<'PYTHON'
import os, statistics, sys, time
import duckdb, numpy as np
work, full = sys.argv[1], int(sys.argv[2])
kind = np.dtype([("run", "<u4"), ("release", "<u4"), ("series", "<u4"), ("second", "<u4"), ("kib", "<u8")])
points = np.fromfile(f"{work}/points.bin", dtype=kind)
columns = {name: np.ascontiguousarray(points[name]) for name in kind.names}
db = duckdb.connect()
db.execute("SET threads = 1")
parquet = f"{work}/points.parquet"
db.register("points", columns)
db.execute(f"COPY (SELECT * FROM points ORDER BY run, series, second) TO '{parquet}' (FORMAT parquet, COMPRESSION zstd)")
print(f"DuckDB {duckdb.__version__}, {len(points)} points, {os.path.getsize(parquet) / 1e6:.1f} MB of Parquet, one thread")
newest = full - 1
release = int(columns["release"][-1]) - 1
questions = {
    "one series over all runs, median by release": f"SELECT release, median(kib) FROM '{parquet}' WHERE series = 0 GROUP BY release ORDER BY release",
    "one run against 20 of the release before": f"SELECT series, run = {newest} AS is_new, avg(kib), regr_slope(kib, second) FROM '{parquet}' WHERE run = {newest} OR run IN (SELECT DISTINCT run FROM '{parquet}' WHERE release = {release} ORDER BY run DESC LIMIT 20) GROUP BY series, is_new",
    "one run's points": f"SELECT * FROM '{parquet}' WHERE run = {newest}",
}
for name, sql in questions.items():
    db.execute(sql).fetchall()
    walls, cpu = [], time.process_time()
    for _ in range(5):
        began = time.perf_counter()
        db.execute(sql).fetchnumpy()
        walls.append(1e3 * (time.perf_counter() - began))
    print(f"{name}: median {statistics.median(walls):.1f} ms, CPU {1e3 * (time.process_time() - cpu) / 5:.1f} ms")
PYTHON
rm -f "$work/points.bin"
target/release/examples/fleet ingest "$agents" 60
