// A rank of the oneCCL contestant, which MPI starts and oneCCL's own key-value store joins.
#include <mpi.h>

#include <memory>
#include <oneapi/ccl.hpp>
#include <string>

#include "block.h"

static std::unique_ptr<ccl::communicator> comm;

static void call(const block* b) {
  const auto type = ccl::datatype::float32;
  const auto sum = ccl::reduction::sum;
  const size_t share = b->in_count / size_t(b->size);
  switch (b->collective) {
    case ALLREDUCE: ccl::allreduce(b->in, b->out, b->out_count, type, sum, *comm).wait(); return;
    case REDUCE_SCATTER: ccl::reduce_scatter(b->in, b->out, b->out_count, type, sum, *comm).wait(); return;
    case ALLGATHER: ccl::allgather(b->in, b->out, b->in_count, type, *comm).wait(); return;
    case BROADCAST: ccl::broadcast(b->out, b->out_count, type, 0, *comm).wait(); return;
    case ALLTOALL: ccl::alltoall(b->in, b->out, share, type, *comm).wait(); return;
  }
}

static void barrier() {
  ccl::barrier(*comm).wait();
}

int main(int argc, char** argv) {
  contestant self{0, 0, nullptr, allocate_private, release_private, prepare_nothing, call, barrier};
  MPI_Init(&argc, &argv);
  MPI_Comm_rank(MPI_COMM_WORLD, &self.rank);
  MPI_Comm_size(MPI_COMM_WORLD, &self.size);
  try {
    ccl::init();
    ccl::kvs::address_type address;
    ccl::shared_ptr_class<ccl::kvs> store;
    if (self.rank == 0) {
      store = ccl::create_main_kvs();
      address = store->get_address();
    }
    MPI_Bcast(address.data(), int(address.size()), MPI_BYTE, 0, MPI_COMM_WORLD);
    if (self.rank != 0) store = ccl::create_kvs(address);
    comm = std::make_unique<ccl::communicator>(ccl::create_communicator(self.size, self.rank, store));
    const ccl::library_version found = ccl::get_library_version();
    const std::string version = "oneCCL " + std::to_string(found.major) + "." + std::to_string(found.minor) + "." +
                                std::to_string(found.update);
    self.version = version.c_str();
    serve(&self);
    comm.reset();
  } catch (const std::exception& error) {
    answer_error(error.what());
    fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  MPI_Finalize();
  return 0;
}
