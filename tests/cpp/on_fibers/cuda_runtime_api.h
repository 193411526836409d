// Nothing of CUDA's: found before it, where *_cuda.cu are compiled for fibers.
#pragma once
