/* A rank of an MPI contestant; compiled by each environment's own mpicc. */
#include <mpi.h>

#include "block.h"

static void call(const struct block* b) {
  const int in = (int)b->in_count, out = (int)b->out_count, share = (int)(b->in_count / (size_t)b->size);
  const MPI_Comm world = MPI_COMM_WORLD;
  switch (b->collective) {
    case ALLREDUCE: MPI_Allreduce(MPI_IN_PLACE, b->out, out, MPI_FLOAT, MPI_SUM, world); return;
    case REDUCE_SCATTER: MPI_Reduce_scatter_block(b->in, b->out, out, MPI_FLOAT, MPI_SUM, world); return;
    case ALLGATHER: MPI_Allgather(b->in, in, MPI_FLOAT, b->out, in, MPI_FLOAT, world); return;
    case BROADCAST: MPI_Bcast(b->out, out, MPI_FLOAT, 0, world); return;
    case ALLTOALL: MPI_Alltoall(b->in, share, MPI_FLOAT, b->out, share, MPI_FLOAT, world); return;
  }
}

static void barrier(void) {
  MPI_Barrier(MPI_COMM_WORLD);
}

int main(int argc, char** argv) {
  struct contestant self = {0, 0, NULL, allocate_private, release_private, prepare_nothing, call, barrier};
  char version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &self.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &self.size);
  MPI_Get_library_version(version, &length);
  version[strcspn(version, "\n")] = 0;
  self.version = version;
  serve(&self);
  MPI_Finalize();
  return 0;
}
