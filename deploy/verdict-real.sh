#!/usr/bin/env bash
# The verdict on real servers: leaks planted at 1, 2 and 4 times what counts as one, healthy soaks again and again, one build against
# itself, one release against another. Prints a table; fails when an answer is not the one that is due.
#
#   deploy/verdict-real.sh [faults|healthy|same|releases]…     default: all; about half an hour on two cores
#
# PGSOAK: the binary (default: target/release/pgsoak). REPEATS: healthy soaks of each kind (default 10). DATA: where runs are kept.
set -euo pipefail
cd "$(dirname "$0")/.."
PGSOAK=${PGSOAK:-target/release/pgsoak}
REPEATS=${REPEATS:-10}
DATA=${DATA:-$(mktemp -d /tmp/pgsoak-verdict.XXXXXX)}
OLD=${OLD:-pg_tviews@0.1.0-beta.20}
NEW=${NEW:-pg_tviews@0.1.0-beta.34}
PLANS=$DATA/plans
mkdir -p "$PLANS"
chmod 755 "$DATA"
wrong=0

say() { printf '%-34s %-14s %-14s %s\n' "$@"; }

# Runs a plan; leaves the result as JSON. The exit code is the verdict's, and none of ours.
soak() { # NAME
  "$PGSOAK" run "$PLANS/$1.toml" --data-dir "$DATA/data" --quiet --json >"$DATA/$1.json" 2>"$DATA/$1.log" || [ $? -le 3 ]
}

# What a run says of each of its workloads: `workload verdict`, the worst finding of the candidate.
verdicts() { # NAME
  python3 - "$DATA/$1.json" <<'PY'
import json, sys
rank = {"pass": 0, "inconclusive": 1, "invalid": 2, "fail": 3}
result = json.load(open(sys.argv[1]))
worst, seen = {job["workload"]: "pass" for job in result["jobs"]}, {}
for finding in result["findings"]:
    if finding["arm"] == "candidate":
        name = finding["workload"]
        if rank[finding["verdict"]] > rank[worst.get(name, "pass")]:
            worst[name] = finding["verdict"]
        if finding["bytes_per_operation"] is not None and finding["verdict"] == "fail":
            seen.setdefault(name, "%s %.2f B/op (%.2f to %.2f)" % (
                finding["subject"], finding["bytes_per_operation"], finding["low"], finding["high"]))
for name, verdict in worst.items():
    print(name, verdict, seen.get(name, "-"), sep="|")
PY
}

workload() { # NAME SQL
  cat >"$PLANS/$1.toml" <<TOML
name = "$1"
extension = "pgsoak_faults"
[cluster]
settings = { shared_buffers = "32MB", jit = "off" }
[[phase]]
name = "steady"
kind = "loop"
operations = 2000
rounds = 24
sql = "$2"
control_sql = "SELECT 1::bigint"
TOML
}

# Every n-th operation keeps a block, so that the mean is what is wanted. 1 byte per operation counts inside contexts, 4 outside.
# palloc of 100 bytes takes 128 and a header of 8 (PostgreSQL 16 and later); malloc of 104 takes 112.
faults() {
  local k
  for k in 1 2 4; do
    workload "inside_$k" "SELECT CASE WHEN \${n} % $((136 / k)) = 0 THEN faults_palloc_top(100) END"
    workload "outside_$k" "SELECT CASE WHEN \${n} % $((28 / k)) = 0 THEN faults_malloc_kept(104) END"
  done
  cat >"$PLANS/planted.toml" <<TOML
name = "planted"
[defaults]
postgres = "18"
build = "pgsoak_faults@1.0"
sample_every = "1s"
[[job]]
workload = ["inside_1.toml", "inside_2.toml", "inside_4.toml", "outside_1.toml", "outside_2.toml", "outside_4.toml"]
TOML
  soak planted
  while IFS='|' read -r name verdict seen; do
    # At the threshold itself either answer is right; twice and four times must be red.
    case $name:$verdict in
      *_1:fail | *_1:pass | *_1:inconclusive) due="any" ;;
      *_2:fail | *_4:fail) due="fail" ;;
      *) due="fail, WRONG"; wrong=1 ;;
    esac
    say "$name times the limit" "$verdict" "due: $due" "$seen"
  done < <(verdicts planted)
}

healthy() {
  cat >"$PLANS/healthy.toml" <<TOML
name = "healthy"
[defaults]
postgres = "18"
sample_every = "1s"
[[job]]
workload = "vanilla_dml"
build = "vanilla"
[[job]]
workload = "fault_cache_bounded"
build = "pgsoak_faults@1.0"
TOML
  local turn
  for turn in $(seq "$REPEATS"); do
    soak healthy
    while IFS='|' read -r name verdict seen; do
      due="no fail"
      [ "$verdict" = fail ] && { due="no fail, WRONG"; wrong=1; }
      say "$name, soak $turn" "$verdict" "due: $due" "$seen"
    done < <(verdicts healthy)
  done
}

plan_of() { # NAME BUILD
  cat >"$PLANS/$1.toml" <<TOML
name = "$1"
[defaults]
postgres = "18"
build = "$2"
control = true
sample_every = "1s"
[[job]]
workload = ["tview_ddl_new", "tview_drop", "tview_dml", "tview_ddl"]
TOML
}

run_of() { python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["run"])' "$DATA/$1.json"; }

# `pgsoak compare` over the runs' store: WHAT BEFORE AFTER, and the answers that are due.
against() { # NAME BEFORE AFTER DUE…
  local name=$1 before=$2 after=$3
  shift 3
  "$PGSOAK" compare "$before" "$after" --data-dir "$DATA/data" --json >"$DATA/$name.json" || [ $? -le 2 ]
  "$PGSOAK" compare "$before" "$after" --data-dir "$DATA/data" >"$DATA/$name.txt" || [ $? -le 2 ]
  local answer
  answer=$(python3 -c 'import json,sys; print(json.load(open(sys.argv[1]))["answer"])' "$DATA/$name.json")
  case " $* " in
    *" $answer "*) say "$name" "$answer" "due: $(echo "$*" | tr ' ' '/')" "" ;;
    *) say "$name" "$answer" "due: $*, WRONG" ""; wrong=1 ;;
  esac
  grep -E 'bytes per operation|worse|better' "$DATA/$name.txt" | head -20 || true
}

# Eight soaks of half a minute: what runs of one build differ by is learnt from three earlier pairs, then one run each decides.
same() {
  local turn
  for turn in $(seq 8); do
    cat >"$PLANS/same_$turn.toml" <<TOML
name = "same"
[defaults]
postgres = "18"
build = "$NEW"
sample_every = "1s"
[[job]]
workload = ["tview_dml", "tview_ddl_new"]
TOML
    soak "same_$turn"
  done
  against "same, 7 and 8" "$(run_of same_7)" "$(run_of same_8)" same
  against "same, 1 and 2" "$(run_of same_1)" "$(run_of same_2)" same
}

releases() {
  [ -s "$DATA/one.json" ] || { plan_of one "$NEW"; soak one; }
  plan_of old "$OLD"
  soak old
  against releases "$(run_of old)" "$(run_of one)" better worse
}

for part in ${*:-faults healthy same releases}; do
  case $part in
    faults | healthy | same | releases) "$part" ;;
    *) echo "unknown part $part: faults, healthy, same or releases" >&2; exit 64 ;;
  esac
done
echo "runs and reports: $DATA"
exit "$wrong"
