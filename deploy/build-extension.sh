#!/usr/bin/env bash
# Builds a published pgrx extension from the Rust package registry into the build cache, where agents look for it.
#
#   deploy/build-extension.sh pg_tviews 0.1.0-beta.34 [PG_CONFIG]
#
# PG_CONFIG defaults to the PostgreSQL 18 of deploy/get-postgres.sh. Prints the package folder; a second call with the same
# version does nothing else. With line tables, so that a stack ends in a file and a line. First build 10 to 15 minutes
# (cargo-pgrx, then the crate), each further version 2 to 6.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache-dir.sh"

[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64; }
name=$1 version=$2
pg_config=${3:-$("$here/get-postgres.sh" 18 2>/dev/null)}
[ -x "$pg_config" ] || { echo "build-extension: no pg_config at '$pg_config'" >&2; exit 1; }
major=$("$pg_config" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
package=$CACHE/builds/$name/$version/pg$major
if [ -e "$package/.complete" ]; then echo "$package"; exit 0; fi

say() { echo "build-extension: $*" >&2; }
mkdir -p "$CACHE/builds" "$CACHE/pgrx"
exec 9>"$CACHE/pgrx/lock"
flock -n 9 || { say 'another build is under way; waiting for it'; flock 9; }
if [ -e "$package/.complete" ]; then echo "$package"; exit 0; fi

# The sources, through cargo alone: a throwaway project that depends on exactly this version, vendored.
sources=$CACHE/pgrx/sources/$name-$version
if [ ! -e "$sources/.complete" ]; then
  say "fetching $name $version"
  rm -rf "$sources"; mkdir -p "$sources/probe/src"
  : > "$sources/probe/src/lib.rs"
  printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = { version = "=%s", default-features = false, features = ["pg%s"] }\n[workspace]\n' \
    "$name" "$version" "$major" > "$sources/probe/Cargo.toml"
  (cd "$sources/probe" && cargo vendor --quiet --versioned-dirs ../vendor >/dev/null)
  [ -d "$sources/vendor/$name-$version" ] || { say "$name $version is not in the registry's answer"; exit 1; }
  cp -r "$sources/vendor/$name-$version" "$sources/crate"
  rm -rf "$sources/vendor" "$sources/probe"
  rm -f "$sources/crate/rust-toolchain.toml" "$sources/crate/rust-toolchain" "$sources/crate/.cargo-checksum.json"
  printf '\n[workspace]\n' >> "$sources/crate/Cargo.toml"
  touch "$sources/.complete"
fi

# The crates pin pgrx exactly; cargo-pgrx has to be of the same version.
pgrx=$(sed -n '/^\[dependencies\.pgrx\]/,/^\[/s/^version = "=\{0,1\}\([0-9.]*\)"/\1/p' "$sources/crate/Cargo.toml" | head -n 1)
[ -n "$pgrx" ] || { say "$name $version does not depend on pgrx"; exit 1; }
tool=$CACHE/pgrx/tool-$pgrx
if [ ! -x "$tool/bin/cargo-pgrx" ]; then
  say "building cargo-pgrx $pgrx (4 to 7 minutes, once)"
  cargo install --quiet --locked cargo-pgrx --version "=$pgrx" --root "$tool" >&2
fi
export PGRX_HOME=$CACHE/pgrx/home-$pgrx-pg$major
if [ ! -e "$PGRX_HOME/config.toml" ]; then
  mkdir -p "$PGRX_HOME"
  PATH="$tool/bin:$PATH" cargo pgrx init "--pg$major" "$pg_config" >&2
fi

say "building $name $version for PostgreSQL $major (2 to 10 minutes)"
out=$(mktemp -d "$CACHE/builds/new.XXXXXX")
trap 'rm -rf "$out"' EXIT
# Dependencies keep one target folder; the crate's own is per version, else the other version's SQL is packaged.
(
  cd "$sources/crate"
  export CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none
  export CARGO_TARGET_DIR=$CACHE/pgrx/target-$name-$version-pg$major
  PATH="$tool/bin:$PATH" cargo pgrx package --pg-config "$pg_config" --no-default-features --features "pg$major" --out-dir "$out" >&2
)
find "$out" -name '*.so' | grep -q . || { say 'the package has no shared object'; exit 1; }
printf '{"extension":"%s","release":"%s","postgres":%s,"toolchain":"%s","pgrx":"%s"}\n' "$name" "$version" "$major" "$(rustc --version)" "$pgrx" > "$out/build.json"
chmod -R a+rX "$out"; touch "$out/.complete"
mkdir -p "$(dirname "$package")"; rm -rf "$package"; mv "$out" "$package"; trap - EXIT
rm -rf "$CACHE/pgrx/target-$name-$version-pg$major"
echo "$package"
