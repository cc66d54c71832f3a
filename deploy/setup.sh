#!/usr/bin/env bash
# Installs what pgsoak needs on a Debian or Ubuntu host. Idempotent: says what is there, installs only what is missing.
#
#   deploy/setup.sh            everything a user, an agent and `make test` need
#   deploy/setup.sh --check    install nothing; exit 1 when something is missing
#
# Needs root (or sudo) only when a package is missing.
set -euo pipefail

say() { printf '%s\n' "setup: $*"; }

check_only=no
case "${1:-}" in
  --check) check_only=yes ;;
  '') ;;
  *) echo "usage: deploy/setup.sh [--check]" >&2; exit 64 ;;
esac

# command (or file) that proves it is there : the package that brings it
wanted=(
  'psql:postgresql'
  'valgrind:valgrind'
  'vgdb:valgrind'
  'heaptrack:heaptrack'
  'file=/usr/lib/heaptrack/libheaptrack_inject.so:libheaptrack'
  'clang:clang'
  'file=libclang:libclang-dev'
  'gcc:build-essential'
  'make:build-essential'
  'pkg-config:pkg-config'
  'python3:python3'
  'pip=pip:python3-pip'
  'unzip:unzip'
  'gdb:gdb'
  'ip:iproute2'
  'strace:strace'
  'faketime:faketime'
  'file=/etc/ssl/certs/ca-certificates.crt:ca-certificates'
)

have() {
  case "$1" in
    file=libclang) compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null ;;
    file=*) [ -e "${1#file=}" ] ;;
    pip=*) python3 -m pip --version >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null 2>&1 ;;
  esac
}

missing=()
add() { case " ${missing[*]:-} " in *" $1 "*) ;; *) missing+=("$1") ;; esac; }

for entry in "${wanted[@]}"; do
  have "${entry%:*}" || { say "missing ${entry%:*}"; add "${entry##*:}"; }
done

# The server's headers, for every major that Debian has installed here (PGXS builds the planted faults with them).
servers=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' || true)
if [ -z "$servers" ]; then
  add postgresql; add postgresql-server-dev-all
else
  for server in $servers; do
    major=$(basename "$(dirname "$(dirname "$server")")")
    [ -e "/usr/include/postgresql/$major/server/postgres.h" ] || { say "missing headers of PostgreSQL $major"; add "postgresql-server-dev-$major"; }
  done
fi

if [ ${#missing[@]} -eq 0 ]; then say 'everything is there'; exit 0; fi
if [ "$check_only" = yes ]; then say "not installed: ${missing[*]}"; exit 1; fi

command -v apt-get >/dev/null || { say "no apt-get here; install by hand: ${missing[*]}" >&2; exit 1; }
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { say "run as root, or install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
say "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -q
# The packages must not start a cluster of their own: agents run private ones.
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
say 'done'
