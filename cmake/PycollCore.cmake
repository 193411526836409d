# The core: no MPI, no CUDA, no Python.
if(PYCOLL_CORE)
  add_library(pycoll SHARED IMPORTED)
  set_target_properties(pycoll PROPERTIES IMPORTED_LOCATION "${PYCOLL_CORE}")
  target_include_directories(pycoll INTERFACE csrc)
  target_link_libraries(pycoll INTERFACE Threads::Threads)
  return()
endif()
file(GLOB core_sources CONFIGURE_DEPENDS csrc/core/*.cc csrc/pattern/*.cc csrc/kernels/*.cc csrc/transport/*.cc
     csrc/codec/*.cc csrc/records/*.cc csrc/algo/*.cc csrc/comm/*.cc)
list(FILTER core_sources EXCLUDE REGEX "transport/mpi|_cuda\\.cc$")
add_library(pycoll SHARED ${core_sources})
target_include_directories(pycoll PUBLIC csrc)
target_compile_options(pycoll PRIVATE -fvisibility=default)
target_link_libraries(pycoll PRIVATE pycoll_flags PUBLIC Threads::Threads)
# Half of the time that a file takes to compile; those with instructions of their own (below) could not use it.
set(precompiled_headers <algorithm> <array> <atomic> <bit> <chrono> <condition_variable> <functional> <map> <memory>
                        <mutex> <optional> <span> <sstream> <string> <thread> <vector>)
target_precompile_headers(pycoll PRIVATE ${precompiled_headers})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(kernel_optimization -O3)
  if(PYCOLL_SANITIZE)
    set(kernel_optimization -Og) # as all else
  endif()
  file(GLOB avx2_sources CONFIGURE_DEPENDS csrc/kernels/*_avx2.cc)
  file(GLOB avx512_sources CONFIGURE_DEPENDS csrc/kernels/*_avx512.cc)
  set_source_files_properties(${avx2_sources} ${avx512_sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  set_source_files_properties(${avx2_sources} PROPERTIES COMPILE_OPTIONS "-mavx2;-mf16c;${kernel_optimization}")
  set_source_files_properties(
    ${avx512_sources} PROPERTIES COMPILE_OPTIONS
                                 "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx2;-mf16c;-mprefer-vector-width=512;${kernel_optimization}")
endif()
