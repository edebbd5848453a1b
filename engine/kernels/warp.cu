// Frame -> aligned crops for the networks: geometry.align and compositing.image_from_u8 for all faces at once.
#include "image.cuh"

const int MOST_TAPS = 3;  // of a blur on either side

// One face. (u, v), in blocks of the frame, is the matrix times (x, y, 1) of the crop, plus (u0, v0).
struct Crop {
    float ux, uy, uc, vx, vy, vc;
    int u0, v0;
    int block;                      // pixels; above 1 the crop reads the means that `shrink` left in `blocks`
    int x0, y0, columns, rows;      // the part of the frame that is read, in blocks
    int reach;                      // blur taps beside the middle one
    float taps[MOST_TAPS + 1];
};

template <class Image>
__device__ void align_pixel(const Image& image, int x0, int y0, const Crop& crop, int x, int y, REAL* out, int size) {
    Place u = place(crop.ux * x + crop.uy * y + crop.uc), v = place(crop.vx * x + crop.vy * y + crop.vc);
    u.pixel += crop.u0;
    v.pixel += crop.v0;
    Colour colour = sample<MOST_TAPS>(image, x0, y0, crop.columns, crop.rows, crop.taps, crop.reach, u, v);
    int plane = size * size, at = y * size + x;
    // Whole levels, as the definition's crop has: the parser decides by a hair whether a pixel is of the face.
    write(out + at, rintf(colour.r) * (1.0f / 127.5f) - 1.0f);
    write(out + plane + at, rintf(colour.g) * (1.0f / 127.5f) - 1.0f);
    write(out + 2 * plane + at, rintf(colour.b) * (1.0f / 127.5f) - 1.0f);
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
        align_pixel(image, crop.x0, crop.y0, crop, x, y, out, size);
    } else {
        BgrImage means = {blocks + (long long)face * side * side * 3, side * 3, 3, 1};
        align_pixel(means, 0, 0, crop, x, y, out, size);
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
