// Reading images: layouts, borders and taps, shared by all kernels. Pixel centres lie at integers, as in geometry.py.
// REAL is the type of the networks' arrays: float or __half. Every kernel runs one thread for each output, over
// (x, y, face), and threads beyond the output do nothing.
#include <cuda_fp16.h>

#ifndef REAL
#define REAL float
#endif

__device__ inline float read(float value) { return value; }
__device__ inline float read(__half value) { return __half2float(value); }
__device__ inline void write(float* place, float value) { *place = value; }
__device__ inline void write(__half* place, float value) { *place = __float2half_rn(value); }

__device__ inline int clamped(int n, int low, int high) { return n < low ? low : (n > high ? high : n); }
__device__ inline float clamped(float v, float low, float high) { return fminf(fmaxf(v, low), high); }

// OpenCV's BORDER_REFLECT, the mirror image including the edge pixel, of indices in [0, count).
__device__ inline int reflected(int n, int count) {
    if (n >= 0 && n < count) return n;
    n %= 2 * count;
    if (n < 0) n += 2 * count;
    return n < count ? n : 2 * count - 1 - n;
}

struct Colour {
    float b, g, r;
};

__device__ inline void add(float& sum, float value, float weight) { sum += weight * value; }

__device__ inline void add(Colour& sum, const Colour& colour, float weight) {
    sum.b += weight * colour.b;
    sum.g += weight * colour.g;
    sum.r += weight * colour.r;
}

// uint8 [height, width, 3] with any strides in bytes, negative ones included; BGR.
struct BgrImage {
    using Value = Colour;
    const unsigned char* data;
    int row, column, channel;

    __device__ Colour at(int x, int y) const {
        const unsigned char* pixel = data + (long long)y * row + (long long)x * column;
        return {(float)pixel[0], (float)pixel[channel], (float)pixel[2 * channel]};
    }
};

// uint8 [height * 3 / 2, width]: a plane of luma, then one of U and V in turns at half the resolution; BT.601, limited
// range, in the fixed point of OpenCV's COLOR_YUV2BGR_NV12.
struct Nv12Image {
    using Value = Colour;
    const unsigned char* data;
    int row, height;

    __device__ Colour at(int x, int y) const {
        const unsigned char* chroma = data + (long long)(height + y / 2) * row + x / 2 * 2;
        int luma = clamped((int)data[(long long)y * row + x] - 16, 0, 255) * 1220542 + (1 << 19);
        int u = chroma[0] - 128, v = chroma[1] - 128;
        return {level(luma + 2116026 * u), level(luma - 409993 * u - 852492 * v), level(luma + 1673527 * v)};
    }

    __device__ static float level(int fixed) { return (float)clamped(fixed >> 20, 0, 255); }
};

// Weight of the pixel `n` right of floor(u), where u = floor(u) + rest: bilinear over a blurred image, the blur's
// symmetric taps being given from the middle outwards, `reach` of them beside it.
__device__ inline float weight(const float* taps, int reach, float rest, int n) {
    int left = n < 0 ? -n : n, right = n < 1 ? 1 - n : n - 1;
    float at_left = left <= reach ? taps[left] : 0.0f, at_right = right <= reach ? taps[right] : 0.0f;
    return at_left + rest * (at_right - at_left);
}

// A place on one axis: the pixel at or before it, and how far it lies from that to the next.
struct Place {
    int pixel;
    float rest;
};

__device__ inline Place place(float u) {
    float whole = floorf(u);
    return {(int)whole, u - whole};
}

// Bilinear over the blurred part of an image that begins at (x0, y0) and is mirrored at its edges, with REACH blur taps on
// a side. The weights of a row are the same for all rows, so they are made once and stay in registers.
template <int REACH, class Image>
__device__ typename Image::Value blurred(const Image& image, int x0, int y0, int columns, int rows, const float* taps,
                                         Place u, Place v) {
    const int count = 2 * REACH + 2;
    int x[count];
    float across[count];
#pragma unroll
    for (int i = 0; i < count; ++i) {
        x[i] = x0 + reflected(u.pixel + i - REACH, columns);
        across[i] = weight(taps, REACH, u.rest, i - REACH);
    }
    typename Image::Value sum = {};
#pragma unroll (REACH < 2 ? count : 2)
    for (int j = 0; j < count; ++j) {
        int y = y0 + reflected(v.pixel + j - REACH, rows);
        typename Image::Value line = {};
#pragma unroll
        for (int i = 0; i < count; ++i) add(line, image.at(x[i], y), across[i]);
        add(sum, line, weight(taps, REACH, v.rest, j - REACH));
    }
    return sum;
}

// The same with `reach` taps, MOST or fewer: the number is known where it is compiled, so that all pixels of a row are
// asked for before the first is used.
template <int MOST, class Image>
__device__ typename Image::Value sample(const Image& image, int x0, int y0, int columns, int rows, const float* taps,
                                        int reach, Place u, Place v) {
    if constexpr (MOST > 0)
        if (reach < MOST) return sample<MOST - 1>(image, x0, y0, columns, rows, taps, reach, u, v);
    return blurred<MOST>(image, x0, y0, columns, rows, taps, u, v);
}

// Where on an axis of `count` points a pixel of an axis of `size` lies: OpenCV's INTER_LINEAR.
__device__ inline float scaled(int n, int count, int size) {
    return clamped((n + 0.5f) * ((float)count / size) - 0.5f, 0.0f, count - 1.0f);
}

// Numbers `at` the pixels of width x height, enlarged to size x size, at (x, y).
template <class At>
__device__ inline float enlarged_of(const At& at, int width, int height, int x, int y, int size) {
    float u = scaled(x, width, size), v = scaled(y, height, size);
    int left = (int)u, top = (int)v;
    int right = left + 1 < width ? left + 1 : left, bottom = top + 1 < height ? top + 1 : top;
    float across = u - left, down = v - top;
    float upper = at(left, top) * (1.0f - across) + at(right, top) * across;
    float lower = at(left, bottom) * (1.0f - across) + at(right, bottom) * across;
    return upper * (1.0f - down) + lower * down;
}

// A plane of width x height numbers, enlarged to size x size, at (x, y).
__device__ inline float enlarged(const float* plane, int width, int height, int x, int y, int size) {
    return enlarged_of([=](int u, int v) { return plane[v * width + u]; }, width, height, x, y, size);
}

// Four numbers that are read at once; the first must lie at a multiple of four.
template <class Number>
struct alignas(4 * sizeof(Number)) Four {
    Number at[4];
};

template <class Number>
__device__ inline Four<Number> four(const Number* place) {
    return *reinterpret_cast<const Four<Number>*>(place);
}

// OpenCV's cubic (a = -0.75): weight of a pixel at a distance below 2.
__device__ inline float cubic(float distance) {
    float d = fabsf(distance);
    return d < 1.0f ? (1.25f * d - 2.25f) * d * d + 1.0f : ((-0.75f * d + 3.75f) * d - 6.0f) * d + 3.0f;
}

// The mean level of the block (x, y) of an image of width x height pixels, rounded as OpenCV's INTER_AREA does.
template <class Image>
__device__ Colour block_mean(const Image& image, int width, int height, int block, int x, int y) {
    long long x0 = (long long)x * block, y0 = (long long)y * block;
    int x1 = (int)(x0 + block < width ? x0 + block : width), y1 = (int)(y0 + block < height ? y0 + block : height);
    unsigned long long b = 0, g = 0, r = 0;
    for (int row = (int)y0; row < y1; ++row)
        for (int column = (int)x0; column < x1; ++column) {
            Colour colour = image.at(column, row);
            b += (unsigned)colour.b;
            g += (unsigned)colour.g;
            r += (unsigned)colour.r;
        }
    float share = 1.0f / ((float)(x1 - (int)x0) * (float)(y1 - (int)y0));
    // It rounds a half up where it takes the mean of 2 x 2 pixels, and to even elsewhere.
    float up = block == 2 ? 0.125f : 0.0f;
    return {rintf((float)b * share + up), rintf((float)g * share + up), rintf((float)r * share + up)};
}
