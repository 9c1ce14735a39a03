# Installs the packages given as arguments, starts no service, and leaves none enabled that was not before. Runs as root.

mark='# made by viplane set-up'
policy=/usr/sbin/policy-rc.d

# maintainer scripts ask this file before they start a service; an administrator's own stays as it is
if [ -e "$policy" ] && ! grep -qsxF "$mark" "$policy"; then
  made=
else
  made=yes
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >"$policy"
  chmod 755 "$policy"
fi

enabled() { find /etc/systemd/system -path '*.wants/*' -type l 2>/dev/null | sort; }
before=$(enabled)

# the unit behind the link $1, under systemd and under System V init
disable() {
  unit=${1##*/}
  name=${unit%.service}
  if [ -e "/etc/init.d/$name" ]; then update-rc.d "$name" disable; fi
  rm -f "$1"
  echo "set-up: $unit was not started, and will not start at boot" >&2
}

finish() {
  status=$?
  trap - EXIT
  if [ -n "$made" ]; then rm -f "$policy"; fi
  enabled | while read -r link; do
    printf '%s\n' "$before" | grep -qF "/${link##*/}" || disable "$link"
  done
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

export DEBIAN_FRONTEND=noninteractive
install() { apt-get install --yes --quiet --no-install-recommends --no-remove "$@" </dev/null; }

# a version that the lists still name may be gone from the mirror
install "$@" || { apt-get update -qq </dev/null; install "$@"; }
