# One rank that `pycoll run` starts through mpirun: runs the program that it is given and, if that fails, writes its exit code into
# $PYCOLL_RUN_DIR/<rank>, since an mpirun that lets survivors go on does not pass it on.
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}
trap : TERM INT HUP USR2 # the program decides what these mean, and is waited for
if [ -n "$PMI_RANK" ]; then
  trap '' USR1 # MPICH's launcher reports a peer's death by SIGUSR1, which would end a program that does not expect it
else
  trap : USR1
fi

# Lines pass whole through sed, for --tag with the rank in front; under MPICH always: its ranks write into one pipe,
# where the parts of their lines would mix.
lines=
[ -n "$PYCOLL_RUN_TAG" ] && lines="s/^/[$rank] /"
if [ -n "$PYCOLL_RUN_TAG$PMI_RANK" ]; then
  pipe=$(mktemp -u) && mkfifo "$pipe" || exit 1
  (trap '' TERM INT HUP USR1 USR2 && exec sed -u "$lines") <"$pipe" &
  exec >"$pipe"
  rm "$pipe"
  [ -n "$PYCOLL_RUN_TAG" ] && exec 2>&1
fi
"$@"
code=$?
if [ -n "$PYCOLL_RUN_TAG$PMI_RANK" ]; then
  exec >&-
  [ -n "$PYCOLL_RUN_TAG" ] && exec 2>&-
  wait
fi

[ "$code" = 0 ] && exit 0
{ echo "$code" >"$PYCOLL_RUN_DIR/$rank"; } 2>/dev/null
# Open MPI tells the other ranks of a death by signal only; MPICH leaves the others alone on an exit code only.
ulimit -c 0
[ -n "$OMPI_COMM_WORLD_RANK" ] && kill -9 $$
exit "$code"
