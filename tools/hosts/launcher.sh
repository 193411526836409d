#!/usr/bin/env bash
# Stands in for ssh where an MPI's launcher asks for one: launcher.sh [options] HOST COMMAND LINE
while [[ $1 == -* ]]; do
  case $1 in -[liop]) shift 2 ;; *) shift ;; esac
done
host=${1#*@}
shift
exec "$(dirname "$0")/hosts.sh" in "$host" sh -c "$*"
