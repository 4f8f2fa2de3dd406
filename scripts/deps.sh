#!/bin/sh
# Installs what is missing, on Debian, as root; says what is missing otherwise.
#
#   scripts/deps.sh [--look] SET…     SET: build, test, demo, bench
#
# --look: only say. Nothing is asked of the network if nothing is missing. No service is started.
set -eu

build='gcc libc6-dev meson ninja-build pkg-config liburing-dev libuv1-dev libjansson-dev
  libsystemd-dev libxxhash-dev liblz4-dev libzstd-dev uthash-dev'
test='clang libcriterion-dev redis-server redis-tools sqlite3 stress-ng socat procps systemd mandoc'
demo='redis-server redis-tools'
bench='redis-server redis-tools sqlite3 mount'
# Whoever has these commands from elsewhere keeps them.
commands='python3:python3 node:nodejs'

policy=/usr/sbin/policy-rc.d
look=no
wanted=
for set in "$@"; do
  case $set in
    --look) look=yes ;;
    build) wanted="$wanted $build" ;;
    test) wanted="$wanted $test $commands" ;;
    demo) wanted="$wanted $demo python3:python3" ;;
    bench) wanted="$wanted $bench python3:python3" ;;
    *) echo "deps.sh: there is no set \"$set\"" >&2; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "deps.sh: this is not Debian; Debian's names of what is needed:" $wanted >&2
  exit 0
fi

missing=
for package in $wanted; do
  case $package in
    *:*)
      command -v "${package%%:*}" >/dev/null && continue
      package=${package#*:} ;;
  esac
  case " $missing " in *" $package "*) continue ;; esac
  status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
  [ "$status" = 'install ok installed' ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$look" = yes ] || [ "$(id -u)" != 0 ]; then
  echo "These packages are missing:$missing" >&2
  echo "As root: apt-get install$missing" >&2
  exit 1
fi

export DEBIAN_FRONTEND=noninteractive
made_policy=no
cleanup() {
  [ "$made_policy" = no ] || rm -f "$policy"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# A server package would start its service; what is here is for programs that we start ourselves.
if [ ! -e "$policy" ]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

install() {
  apt-get install -y -q --no-install-recommends $missing
}

echo "Installing:$missing"
# The lists may be absent or old: look again before giving up.
install >/dev/null 2>&1 || { apt-get update -q && install; } || {
  echo "deps.sh: apt-get could not install:$missing" >&2
  exit 1
}
