// Pictures of a frame, mixed with those of the frame before along the faces' motion, or those alone: steadying.steadied
// for all faces.
#include "image.cuh"

__device__ inline float pixel(const REAL* plane, int size, int x, int y) {
    return read(plane[clamped(y, 0, size - 1) * size + clamped(x, 0, size - 1)]);
}

// before, now, out: REAL [faces, 3, size, size]. motions: float32 [faces, 3, side, side], from a pixel to where it was
// before, along x and y in pixels, and the share of the picture before. alone: 1 where that is all, and now is not read.
extern "C" __global__ void carry(const REAL* before, const REAL* now, int alone, const float* motions, int side,
                                 REAL* out, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    const float* motion = motions + (long long)face * 3 * side * side;
    float u = x + enlarged(motion, side, side, x, y, size);
    float v = y + enlarged(motion + side * side, side, side, x, y, size);
    float share = enlarged(motion + 2 * side * side, side, side, x, y, size);
    Place across = place(u), down = place(v);
    for (int channel = 0; channel < 3; ++channel) {
        const REAL* plane = before + ((long long)face * 3 + channel) * size * size;
        float lines[2];
        for (int row = 0; row < 2; ++row) {
            float left = pixel(plane, size, across.pixel, down.pixel + row);
            float right = pixel(plane, size, across.pixel + 1, down.pixel + row);
            lines[row] = left + across.rest * (right - left);
        }
        float carried = lines[0] + down.rest * (lines[1] - lines[0]);
        long long at = (((long long)face * 3 + channel) * size + y) * size + x;
        float drawn = alone ? carried : read(now[at]);
        write(out + at, drawn + share * (carried - drawn));
    }
}
