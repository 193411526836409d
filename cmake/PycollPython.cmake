# The Python modules: _core always, _mpi where an MPI was found.
find_package(pybind11 CONFIG REQUIRED)
file(GLOB bind_sources CONFIGURE_DEPENDS csrc/bind/*.cc)
list(FILTER bind_sources EXCLUDE REGEX "mpi_module|cuda_")
pybind11_add_module(_core ${bind_sources})
target_link_libraries(_core PRIVATE pycoll pycoll_flags)
target_precompile_headers(_core PRIVATE <pybind11/numpy.h> <pybind11/stl.h>)
set_target_properties(_core PROPERTIES INSTALL_RPATH "$ORIGIN")
install(TARGETS _core DESTINATION pycoll)
if(PYCOLL_CORE)
  install(PROGRAMS "${PYCOLL_CORE}" DESTINATION pycoll)
else()
  install(TARGETS pycoll DESTINATION pycoll)
endif()

if(PYCOLL_MPI_VENDOR)
  pybind11_add_module(_mpi csrc/bind/mpi_module.cc csrc/bind/errors.cc csrc/transport/mpi.cc)
  target_include_directories(_mpi SYSTEM PRIVATE ${PYCOLL_MPI_HEADER})
  target_link_libraries(_mpi PRIVATE pycoll pycoll_flags ${PYCOLL_MPI_LIBRARY})
  get_filename_component(mpi_libdir "${PYCOLL_MPI_LIBRARY}" DIRECTORY)
  # site-packages/pycoll -> the environment's lib, so that a moved environment still finds its own MPI.
  set_target_properties(_mpi PROPERTIES INSTALL_RPATH "$ORIGIN;$ORIGIN/../../..;${mpi_libdir}")
  install(TARGETS _mpi DESTINATION pycoll)
endif()

file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/_build_info.py"
"# Written by the build: what this installation was compiled with.
VERSION = \"${PROJECT_VERSION}\"
COMPILER = \"${CMAKE_CXX_COMPILER_ID} ${CMAKE_CXX_COMPILER_VERSION}\"
MPI_VENDOR = \"${PYCOLL_MPI_VENDOR}\"
MPI_VERSION = \"${PYCOLL_MPI_VERSION}\"
MPI_LIBRARY = \"${PYCOLL_MPI_LIBRARY}\"
CUDA_COMPILER = \"${CMAKE_CUDA_COMPILER_VERSION}\"
")
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/_build_info.py" DESTINATION pycoll)
