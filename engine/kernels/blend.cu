// Edited crops -> frame: compositing.blend for all faces at once, over their rectangles only.
#include "image.cuh"

const int TAPS = 4;  // of a blur on either side

// One face. (u, v) of the prepared image and of the mask are the matrices times (x, y, 1) of the rectangle.
struct Patch {
    float image_ux, image_uy, image_uc, image_vx, image_vy, image_vc;
    float mask_ux, mask_uy, mask_uc, mask_vx, mask_vy, mask_vc;
    int x0, y0, x1, y1;             // the rectangle in the frame
    int how;                        // an engine.kernels.blend.Resampled
    int block;                      // pixels of the crop to one of the prepared image and mask, 1 unless made smaller
    int side;                       // of the prepared image
    int image_reach, mask_reach;    // blur taps beside the middle one
    float image_taps[TAPS + 1], mask_taps[TAPS + 1];
};

enum { DOUBLED = 0, CUBIC = 1, LOW_PASSED = 2 };

// float32 [side, side, 3] with `row` values from one row to the next; BGR levels, beyond their range too.
struct Layer {
    using Value = Colour;
    const float* data;
    int row;

    __device__ Colour at(int x, int y) const {
        const float* pixel = data + (long long)y * row + x * 3;
        return {pixel[0], pixel[1], pixel[2]};
    }
};

// float32 [side, side], with `row` values from one row to the next.
struct MaskImage {
    using Value = float;
    const float* data;
    int row;

    __device__ float at(int x, int y) const { return data[y * row + x]; }
};

__device__ inline float level(REAL value) { return clamped(read(value) * 127.5f + 127.5f, 0.0f, 255.0f); }

// E - g I of compositing.paste. images, crops: REAL [faces, 3, size, size]. gates: float32 [faces, side, side]; without
// crops, side is 0 and neither is read. layers: float32 [faces, size, size, 3]. opens: float32 [faces, size, size], g.
extern "C" __global__ void take(const REAL* images, const REAL* crops, const float* gates, int side, float* layers,
                                float* opens, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    long long plane = (long long)size * size, place = (long long)y * size + x;
    float open = side ? enlarged(gates + (long long)face * side * side, side, side, x, y, size) : 0.0f;
    float bgr[3];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        long long from = (face * 3 + 2 - channel) * plane + place;
        float taken = side ? open * level(crops[from]) : 0.0f;
        bgr[channel] = level(images[from]) - taken;
    }
    opens[face * plane + place] = open;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) layers[(face * plane + place) * 3 + channel] = bgr[channel];
}

// Crop pixels around (u, v) by the cubic, clamped at the edge.
__device__ inline Colour cubic_sample(const Layer& image, int side, float u, float v) {
    Place column = place(u), row = place(v);
    Colour sum = {0.0f, 0.0f, 0.0f};
    int x[4];
    float across[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[i] = clamped(column.pixel + i - 1, 0, side - 1);
        across[i] = cubic(column.rest - (i - 1));
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        int y = clamped(row.pixel + j - 1, 0, side - 1);
        Colour line = {0.0f, 0.0f, 0.0f}, colours[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) colours[i] = image.at(x[i], y);
#pragma unroll
        for (int i = 0; i < 4; ++i) add(line, colours[i], across[i]);
        add(sum, line, cubic(row.rest - (j - 1)));
    }
    return sum;
}

__device__ inline unsigned char nearest_level(float value) { return (unsigned char)rintf(clamped(value, 0.0f, 255.0f)); }

// The mean of a block of pixels, cut off at the image's size.
template <class Image>
__device__ typename Image::Value mean_of(const Image& image, int size, int block, int x, int y) {
    typename Image::Value sum = {};
    int pixels = block < size ? block : size;
    float share = 1.0f / ((float)pixels * pixels);
    for (int row = y * block; row < y * block + pixels; ++row)
        for (int column = x * block; column < x * block + pixels; ++column) add(sum, image.at(column, row), share);
    return sum;
}

// layers, opens: what `take` gave. prepared: float32 [faces, 2 size, 2 size, 3], the layers doubled, as they are, or
// block means. means, open_means: float32 [faces, size, size], the block means of masks and opens, where the face is
// made smaller.
extern "C" __global__ void prepare(const float* layers, const float* opens, const float* masks, const Patch* patches,
                                   float* prepared, float* open_means, float* means, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    const Patch& patch = patches[face];
    if (x >= patch.side || y >= patch.side) return;
    long long plane = (long long)face * size * size;
    int block = patch.block;
    Layer layer = {layers + plane * 3, size * 3};
    Colour colour = patch.how == DOUBLED ? cubic_sample(layer, size, x * 0.5f - 0.25f, y * 0.5f - 0.25f)
                                         : mean_of(layer, size, block, x, y);
    float* place = prepared + (((long long)face * 2 * size + y) * 2 * size + x) * 3;
    place[0] = colour.b;
    place[1] = colour.g;
    place[2] = colour.r;
    if (block == 1) return;
    MaskImage mask = {masks + plane, size}, open = {opens + plane, size};
    means[plane + y * size + x] = mean_of(mask, size, block, x, y);
    open_means[plane + y * size + x] = mean_of(open, size, block, x, y);
}

// Bilinear over the blurred image, the nearest edge pixel beyond its edge.
__device__ inline Colour image_sample(const Layer& image, const Patch& patch, float u, float v) {
    Place x = place(clamped(u, 0.0f, patch.side - 1.0f)), y = place(clamped(v, 0.0f, patch.side - 1.0f));
    return sample<TAPS>(image, 0, 0, patch.side, patch.side, patch.image_taps, patch.image_reach, x, y);
}

// How much of a bilinear sample at u lies on the `side` pixels.
__device__ inline float on_image(float u, int side) {
    return clamped(u < 0.0f ? 1.0f + u : (float)side - u, 0.0f, 1.0f);
}

// Bilinear over the blurred mask, 0 beyond its edge.
__device__ inline float mask_sample(const MaskImage& mask, int side, const Patch& patch, float u, float v) {
    float share = on_image(u, side) * on_image(v, side);
    if (share == 0.0f) return 0.0f;
    Place x = place(clamped(u, 0.0f, side - 1.0f)), y = place(clamped(v, 0.0f, side - 1.0f));
    float value = sample<TAPS>(mask, 0, 0, side, side, patch.mask_taps, patch.mask_reach, x, y);
    return clamped(value * share, 0.0f, 1.0f);
}

__device__ inline bool holds(const Patch& patch, int x, int y) {
    return x >= patch.x0 && x < patch.x1 && y >= patch.y0 && y < patch.y1;
}

// share: one over the sum of the weights, as OpenCV's blendLinear guards it.
__device__ inline unsigned char mixed(float image, unsigned char frame, float mask, float share) {
    return nearest_level((rintf(clamped(image, 0.0f, 255.0f)) * mask + (float)frame * (1.0f - mask)) * share);
}

// frame: uint8 BGR [height, width, 3] with strides in bytes, changed in place. Of a pixel that several rectangles hold,
// the thread of the first lays the faces over one another, in order.
extern "C" __global__ void composite(unsigned char* frame, int row, int column, int channel, const Patch* patches,
                                     int faces, const float* prepared, const float* opens, const float* open_means,
                                     const float* masks, const float* means, int size) {
    int face = blockIdx.z;
    int x = patches[face].x0 + blockIdx.x * blockDim.x + threadIdx.x;
    int y = patches[face].y0 + blockIdx.y * blockDim.y + threadIdx.y;
    if (!holds(patches[face], x, y)) return;
    for (int before = 0; before < face; ++before)
        if (holds(patches[before], x, y)) return;
    unsigned char* pixel = frame + (long long)y * row + (long long)x * column;
    for (; face < faces; ++face) {
        const Patch& patch = patches[face];
        if (!holds(patch, x, y)) continue;
        float dx = (float)(x - patch.x0), dy = (float)(y - patch.y0);
        long long plane = (long long)face * size * size;
        MaskImage of_mask = {(patch.block == 1 ? masks : means) + plane, size};
        MaskImage of_open = {(patch.block == 1 ? opens : open_means) + plane, size};
        float u = patch.mask_ux * dx + patch.mask_uy * dy + patch.mask_uc;
        float v = patch.mask_vx * dx + patch.mask_vy * dy + patch.mask_vc;
        int mask_side = patch.how == LOW_PASSED ? patch.side : size;
        float mask = mask_sample(of_mask, mask_side, patch, u, v);
        if (mask == 0.0f) continue;
        float open = mask_sample(of_open, mask_side, patch, u, v);
        u = patch.image_ux * dx + patch.image_uy * dy + patch.image_uc;
        v = patch.image_vx * dx + patch.image_vy * dy + patch.image_vc;
        Layer image = {prepared + 4 * plane * 3, 2 * size * 3};
        Colour colour = patch.how == CUBIC ? cubic_sample(image, patch.side, u, v)
                                           : image_sample(image, patch, u, v);
        float share = 1.0f / (mask + (1.0f - mask) + 1e-5f);
        unsigned char b = pixel[0], g = pixel[channel], r = pixel[2 * channel];
        pixel[0] = mixed(colour.b + open * b, b, mask, share);
        pixel[channel] = mixed(colour.g + open * g, g, mask, share);
        pixel[2 * channel] = mixed(colour.r + open * r, r, mask, share);
    }
}
