#!/usr/bin/env bash
# Hosts on one machine: network namespaces on a switch of their own, each with a shaped, full-duplex link.
#   hosts.sh up NAME COUNT RATE [DELAY]   e.g. hosts.sh up lab 4 1gbit 50us; RATE may be "none"
#   hosts.sh in HOST COMMAND...           runs a command on lab0, lab1, ...: with that host name and a /dev/shm of its own
#   hosts.sh stop NAME                    ends what still runs on them
#   hosts.sh down NAME                    stops and removes them
# NAME ends in a letter.
# Needs root and iproute2. The switch is a bridge in a namespace of its own, so that nothing of it can be seen, or meet
# anything, outside: the namespaces NAME-switch, NAME0, NAME1, ... are all there is, and no file is left behind.
set -euo pipefail

subnet=10.231.0 most=64

shape() { # shape NAMESPACE DEVICE: what the device sends, at $rate
  [ "$rate" = none ] && return
  # A token bucket; its burst is what a fast link sends between two ticks of a coarse clock, its queue a switch's memory.
  ip netns exec "$1" tc qdisc add dev "$2" root handle 1: tbf rate "$rate" burst "$burst" latency "$queue"
  [ -z "$delay" ] || ip netns exec "$1" tc qdisc add dev "$2" parent 1: netem delay "$delay" limit 100000
}

up() {
  local name=$1 count=$2 host i
  rate=$3 delay=${4:-}
  case $rate in
    *mbit) burst=16kb queue=100ms ;; # a longer burst would let whole messages through at once
    [1-9][0-9]gbit) burst=1mb queue=10ms ;;
    *) burst=128kb queue=10ms ;;
  esac
  ((count >= 1 && count <= most)) || { echo "hosts.sh: COUNT is $count, wanted 1 to $most" >&2; exit 2; }
  trap 'down "$name"' ERR
  ip netns add "$name-switch"
  ip -n "$name-switch" link add switch type bridge
  ip -n "$name-switch" link set switch up
  for ((i = 0; i < count; i++)); do
    host=$name$i
    ip netns add "$host"
    ip link add eth0 netns "$host" type veth peer name "port$i" netns "$name-switch"
    ip -n "$name-switch" link set "port$i" master switch up
    ip -n "$host" addr add "$subnet.$((i + 1))/24" dev eth0
    ip -n "$host" link set lo up
    ip -n "$host" link set eth0 up
    shape "$host" eth0
    delay='' shape "$name-switch" "port$i"  # once a way is enough
  done
}

in_host() {
  local host=$1
  shift
  exec ip netns exec "$host" unshare --uts --ipc --mount --propagation private "$0" enter "$host" "$@"
}

enter() { # inside the host's namespaces
  local host=$1 name=${1%"${1##*[!0-9]}"} i
  shift
  hostname "$host"
  mount -t tmpfs tmpfs /dev/shm
  { echo "127.0.0.1 localhost"; for ((i = 0; i < most; i++)); do echo "$subnet.$((i + 1)) $name$i"; done; } >/dev/shm/hosts
  mount --bind /dev/shm/hosts /etc/hosts
  exec "$@"
}

spaces() {
  ip netns list | awk '{print $1}' | grep -E "^$1(-switch|[0-9]+)\$" || true
}

stop() {
  local space
  for space in $(spaces "$1"); do ip netns pids "$space" | xargs -r kill -9 2>/dev/null || true; done
}

down() {
  local space
  stop "$1"
  for space in $(spaces "$1"); do ip netns del "$space"; done
}

case ${1:-} in
  up) shift && up "$@" ;;
  in) shift && in_host "$@" ;;
  enter) shift && enter "$@" ;;
  stop) stop "$2" ;;
  down) down "$2" ;;
  *) sed -n '2,8s/^# \?//p' "$0" >&2; exit 2 ;;
esac
