# _cuda: the kernels for CUDA devices, where an nvcc works. Needs no GPU to build, and no driver to import: the
# runtime is linked in, and finds the driver at the first call.
if(NOT PYCOLL_CUDA)
  return()
endif()
find_program(PYCOLL_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT PYCOLL_NVCC)
  message(STATUS "pycoll: no nvcc found; building without the CUDA kernels")
  return()
endif()
if(NOT DEFINED ENV{CUDACXX})
  set(ENV{CUDACXX} "${PYCOLL_NVCC}")
endif()
# Ampere, Hopper, and PTX for what comes after.
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
# An nvcc that refuses this machine's compiler must not stop the rest of the build: asked in a project of its own.
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(WARNING "pycoll: ${PYCOLL_NVCC} cannot compile here (its words are in the log under CMakeFiles); building without the CUDA kernels")
  return()
endif()
enable_language(CUDA)
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
  message(WARNING "pycoll: CUDA ${CMAKE_CUDA_COMPILER_VERSION} is older than 12.0, the first with C++20; building without the CUDA kernels")
  set(CMAKE_CUDA_COMPILER_VERSION "")
  return()
endif()
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.25.2 does not know that nvcc has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
message(STATUS "pycoll: CUDA is ${CMAKE_CUDA_COMPILER_VERSION}, ${CMAKE_CUDA_COMPILER}")

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/kernels/*_cuda.cu)
add_library(pycoll_cuda_kernels STATIC ${cuda_sources})
target_include_directories(pycoll_cuda_kernels PUBLIC csrc)
set_target_properties(
  pycoll_cuda_kernels PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_EXTENSIONS OFF
                                 CUDA_VISIBILITY_PRESET hidden CUDA_RUNTIME_LIBRARY Static)
# 554: a conversion that a constraint rules out, which nvcc does not see. -fmad=false: the bits of the CPU.
target_compile_options(pycoll_cuda_kernels PRIVATE -fmad=false -diag-suppress=554 -Xcompiler=-Wall,-Wextra,-ffp-contract=off)
if(PYCOLL_WERROR)
  target_compile_options(pycoll_cuda_kernels PRIVATE -Werror=all-warnings -Xcompiler=-Werror)
  # A kernel that spills registers fails to compile.
  find_program(PYCOLL_ANY_PYTHON NAMES python3 python REQUIRED)  # find_package would choose for pybind11, too
  target_compile_options(pycoll_cuda_kernels PRIVATE -Xptxas=-v)
  set_target_properties(
    pycoll_cuda_kernels PROPERTIES CUDA_COMPILER_LAUNCHER
                                   "${PYCOLL_ANY_PYTHON};${CMAKE_CURRENT_SOURCE_DIR}/tools/check_spills.py;--launcher")
endif()

if(PYCOLL_PYTHON)
  find_package(pybind11 CONFIG REQUIRED)
  file(GLOB cuda_codec_sources CONFIGURE_DEPENDS csrc/codec/*_cuda.cc)
  pybind11_add_module(_cuda csrc/bind/cuda_module.cc csrc/bind/cuda_codec.cc csrc/bind/errors.cc ${cuda_codec_sources})
  target_link_libraries(_cuda PRIVATE pycoll_cuda_kernels pycoll pycoll_flags)
  target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
  set_target_properties(_cuda PROPERTIES CUDA_RUNTIME_LIBRARY Static INSTALL_RPATH "$ORIGIN")
  install(TARGETS _cuda DESTINATION pycoll)
endif()
