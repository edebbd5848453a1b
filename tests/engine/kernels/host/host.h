// CUDA C++ on the host, as much of it as the kernels use: threads run one after the other.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <utility>

#define __global__
#define __device__

struct Index {
    unsigned x, y, z;
};

static Index blockIdx, threadIdx, blockDim, gridDim;

inline unsigned atomicAdd(unsigned* place, unsigned value) {
    unsigned before = *place;
    *place += value;
    return before;
}

using std::isnan;
using std::min;

template <class... Arguments, size_t... N>
void run(void (*kernel)(Arguments...), void** arguments, std::index_sequence<N...>) {
    kernel(*static_cast<Arguments*>(arguments[N])...);
}

// As cuLaunchKernel: every argument is given by its address.
template <class... Arguments>
void launch(void (*kernel)(Arguments...), const unsigned* grid, const unsigned* block, void** arguments) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
                            run(kernel, arguments, std::index_sequence_for<Arguments...>{});
}
