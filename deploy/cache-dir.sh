# Sourced by the scripts of this folder: where things are kept that outlive a checkout.
# Sets CACHE. Agents look in the same place (PGSOAK_CACHE overrides it).
# Root keeps it where the unprivileged user that runs PostgreSQL can read it.
if [ -n "${PGSOAK_CACHE:-}" ]; then CACHE=$PGSOAK_CACHE
elif [ "$(id -u)" -eq 0 ]; then CACHE=/var/cache/pgsoak
else CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/pgsoak
fi
mkdir -p "$CACHE"
