// Frame -> aligned crops for the networks: geometry.align and compositing.image_from_u8 for all faces at once.
#include "image.cuh"

// One face. (u, v), in blocks of the frame, is the matrix times (x, y, 1) of the crop, plus (u0, v0).
struct Crop {
    float ux, uy, uc, vx, vy, vc;
    int u0, v0;
    int block;                      // pixels; above 1 the crop reads the means that `shrink` left in `blocks`
    int x0, y0, columns, rows;      // the part of the frame that is read, in blocks
    int reach;                      // blur taps beside the middle one
    float taps[4];
};

// Column and row of the part, and which way its indices go: mirrored at its edges, as OpenCV's BORDER_REFLECT.
template <class Image>
__device__ void sample(const Image& image, int x0, int y0, const Crop& crop, int x, int y, REAL* out, int size) {
    float u = crop.ux * x + crop.uy * y + crop.uc, v = crop.vx * x + crop.vy * y + crop.vc;
    float left = floorf(u), top = floorf(v);
    int column = crop.u0 + (int)left, row = crop.v0 + (int)top;
    Colour sum = {0.0f, 0.0f, 0.0f};
    for (int j = -crop.reach; j <= crop.reach + 1; ++j) {
        float down = weight(crop.taps, crop.reach, v - top, j);
        int from = y0 + reflected(row + j, crop.rows);
        for (int i = -crop.reach; i <= crop.reach + 1; ++i) {
            float across = weight(crop.taps, crop.reach, u - left, i);
            add(sum, image.at(x0 + reflected(column + i, crop.columns), from), across * down);
        }
    }
    int plane = size * size, place = y * size + x;
    write(out + place, sum.r * (1.0f / 127.5f) - 1.0f);
    write(out + plane + place, sum.g * (1.0f / 127.5f) - 1.0f);
    write(out + 2 * plane + place, sum.b * (1.0f / 127.5f) - 1.0f);
}

// blocks: uint8 [faces, side, side, 3].
template <class Image>
__device__ void shrink(const Image& image, int width, int height, const Crop* crops, unsigned char* blocks, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    const Crop& crop = crops[face];
    if (crop.block == 1 || x >= crop.columns || y >= crop.rows) return;
    Colour mean = block_mean(image, width, height, crop.block, crop.x0 + x, crop.y0 + y);
    unsigned char* place = blocks + (((long long)face * side + y) * side + x) * 3;
    place[0] = (unsigned char)mean.b;
    place[1] = (unsigned char)mean.g;
    place[2] = (unsigned char)mean.r;
}

// out: REAL [faces, 3, size, size], RGB [-1, 1].
template <class Image>
__device__ void align(const Image& image, const Crop* crops, const unsigned char* blocks, int side, REAL* out, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    const Crop& crop = crops[face];
    out += (long long)face * 3 * size * size;
    if (crop.block == 1) {
        sample(image, crop.x0, crop.y0, crop, x, y, out, size);
    } else {
        BgrImage means = {blocks + (long long)face * side * side * 3, side * 3, 3, 1};
        sample(means, 0, 0, crop, x, y, out, size);
    }
}

extern "C" __global__ void shrink_bgr(const unsigned char* frame, int row, int column, int channel, int width,
                                      int height, const Crop* crops, unsigned char* blocks, int side) {
    shrink(BgrImage{frame, row, column, channel}, width, height, crops, blocks, side);
}

extern "C" __global__ void shrink_nv12(const unsigned char* frame, int row, int width, int height, const Crop* crops,
                                       unsigned char* blocks, int side) {
    shrink(Nv12Image{frame, row, height}, width, height, crops, blocks, side);
}

extern "C" __global__ void align_bgr(const unsigned char* frame, int row, int column, int channel, const Crop* crops,
                                     const unsigned char* blocks, int side, REAL* out, int size) {
    align(BgrImage{frame, row, column, channel}, crops, blocks, side, out, size);
}

extern "C" __global__ void align_nv12(const unsigned char* frame, int row, int height, const Crop* crops,
                                      const unsigned char* blocks, int side, REAL* out, int size) {
    align(Nv12Image{frame, row, height}, crops, blocks, side, out, size);
}
