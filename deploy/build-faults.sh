#!/usr/bin/env bash
# Builds workloads/faults/pgsoak_faults, the extension that wastes memory on purpose, into the build cache.
#
#   deploy/build-faults.sh PG_CONFIG [PG_CONFIG …]
#
# Prints one package folder per PG_CONFIG. Takes two seconds, and nothing when the sources have not changed since.
# Needs make, gcc (or cc) and the server's headers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache-dir.sh"

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 64; }
say() { echo "build-faults: $*" >&2; }
sources=$here/../workloads/faults/pgsoak_faults
release=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$sources/pgsoak_faults.control")
[ -n "$release" ] || { say "no default_version in $sources/pgsoak_faults.control"; exit 1; }
digest=$(cd "$sources" && cat Makefile pgsoak_faults.control pgsoak_faults--"$release".sql pgsoak_faults.c "$here/build-faults.sh" | sha256sum | cut -c 1-16)

build() {
  local pg_config=$1 version major package work out compiler flag flags
  [ -x "$pg_config" ] || { say "no pg_config at '$pg_config'"; exit 1; }
  version=$("$pg_config" --version)
  major=$(sed -E 's/^PostgreSQL ([0-9]+).*/\1/' <<<"$version")
  package=$CACHE/builds/pgsoak_faults/$release/pg$major
  if [ "$(cat "$package/.complete" 2>/dev/null)" = "$digest" ]; then echo "$package"; return; fi
  [ -e "$("$pg_config" --includedir-server)/postgres.h" ] || { say "no server headers for $version (Debian: postgresql-server-dev-$major)"; exit 1; }

  mkdir -p "$CACHE/builds/pgsoak_faults/$release"
  exec 9>"$CACHE/builds/pgsoak_faults/lock"; flock 9
  if [ "$(cat "$package/.complete" 2>/dev/null)" = "$digest" ]; then echo "$package"; return; fi
  say "building for $version"
  work=$(mktemp -d "$CACHE/builds/pgsoak_faults/new.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/src"; cp "$sources"/{Makefile,pgsoak_faults.control,pgsoak_faults--"$release".sql,pgsoak_faults.c} "$work/src/"
  # PostgreSQL may have been built elsewhere, with a compiler that this host lacks.
  compiler=$("$pg_config" --cc | sed 's/ .*//')
  command -v "$compiler" >/dev/null || compiler=$(command -v gcc || command -v cc) || { say 'no C compiler (Debian: build-essential)'; exit 1; }
  # Nor need it know every warning that the other one knows.
  flags=
  for flag in $("$pg_config" --cflags); do
    case "$flag" in -W*) "$compiler" -Werror "$flag" -x c -fsyntax-only /dev/null 2>/dev/null || continue ;; esac
    flags="$flags $flag"
  done
  out=$work/package
  if ! make -C "$work/src" -s install DESTDIR="$out" PG_CONFIG="$pg_config" CC="$compiler" CFLAGS="$flags" with_llvm=no INSTALL=install MKDIR_P='mkdir -p' > "$work/make.log" 2>&1; then
    cat "$work/make.log" >&2; say "it does not compile for $version"; exit 1
  fi
  if grep -q 'warning:' "$work/make.log"; then cat "$work/make.log" >&2; fi
  [ -n "$(find "$out" -name pgsoak_faults.so)" ] || { say 'the package has no shared object'; exit 1; }
  printf '{"extension":"pgsoak_faults","release":"%s","postgres":%s,"toolchain":"%s"}\n' \
    "$release" "$major" "$("$compiler" --version | head -n 1 | tr -d '"\\')" > "$out/build.json"
  chmod -R a+rX "$work"
  echo "$digest" > "$out/.complete"
  rm -rf "$package"; mv "$out" "$package"
  rm -rf "$work"; trap - EXIT; flock -u 9
  echo "$package"
}

for pg_config in "$@"; do build "$pg_config"; done
