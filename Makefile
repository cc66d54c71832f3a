# Two commands: `make demo` and `make test`. Both install what is missing, on a machine with nothing but Rust and Debian.
.PHONY: demo test torture bench-history setup builds release lint bench verdict-real simulate fuzz

TVIEWS_NEW := 0.1.0-beta.34
TVIEWS_OLD := 0.1.0-beta.20
PG15 := /usr/lib/postgresql/15/bin/pg_config

# Soaks the real pg_tviews for a few minutes: candidate, baseline and control, plain and under memcheck.
demo: setup builds release
	target/release/pgsoak doctor || true
	target/release/pgsoak run demo; code=$$?; [ $$code -le 2 ] && echo "make demo: done; exit code of the run: $$code (0 pass, 1 fail, 2 inconclusive)"

# Everything that CI runs.
test: setup builds
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace
	PGSOAK_SEEDS=6 cargo test --workspace --no-fail-fast
	PGSOAK_KILLS=10 cargo test --workspace --test torture -- kills_ fdatasync --nocapture --test-threads=2

# Tools, PostgreSQL, headers. Idempotent; says what it does.
setup:
	deploy/setup.sh

# PostgreSQL 18 and 16, two releases of pg_tviews and the planted faults, kept in a cache outside the checkout.
builds: setup
	deploy/get-postgres.sh 18
	deploy/build-extension.sh pg_tviews $(TVIEWS_NEW)
	deploy/build-extension.sh pg_tviews $(TVIEWS_OLD)
	deploy/build-faults.sh "$$(deploy/get-postgres.sh 18)" "$$(deploy/get-postgres.sh 16)"
	if [ -x $(PG15) ]; then deploy/build-faults.sh $(PG15); fi

release:
	cargo build --release --workspace

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Peers and the limit side by side; figures in docs/performance.md.
bench:
	cargo bench --workspace

# Past runs asked of a coordinator, beside DuckDB on Parquet; 1,000 agents at once. Half an hour or more.
bench-history:
	deploy/bench-history.sh

# 100 times kill -9 of coordinator, daemon and both in real runs, and every other fault on real processes. About 20 minutes; root.
torture: setup builds
	cargo build --workspace
	PGSOAK_KILLS=100 cargo test --workspace --test torture -- --nocapture --test-threads=2

# Broken files for every reader, ten minutes with fresh seeds (FUZZ_SECONDS, FUZZ_SEED). What breaks one is kept and read by the tests.
# The limit is of address space: a reader whose memory runs away ends there. Not a release: overflows must show.
fuzz:
	cargo build -p pgsoak-analysis --example fuzz_readers
	bash -c 'ulimit -v 1500000; exec target/debug/examples/fuzz_readers $${FUZZ_SECONDS:-600} $$FUZZ_SEED'

# 500 fresh seeds of a fleet in virtual time, and a day of twenty hosts: ten minutes once it is built, optimised. PGSOAK_SEED=N replays one.
simulate:
	PGSOAK_SEEDS=$${PGSOAK_SEEDS:-500} cargo test --release --workspace --test seeds -- --nocapture --test-threads=1

# The verdict on real servers: planted leaks at 1, 2 and 4 times the limits, ten healthy soaks of two kinds, one build against itself,
# one release against another. About half an hour.
verdict-real: setup builds release
	deploy/verdict-real.sh
