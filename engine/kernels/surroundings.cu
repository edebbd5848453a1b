// Edits -> edits with the surroundings where they show less of a face than the frame: surroundings.cut_out.
#include "image.cuh"

// 0 to 1 over the margins from -span to 0.
__device__ inline float risen(float margin, float span) { return clamped(1.0f + margin / span, 0.0f, 1.0f); }

// found: float32 [faces, height, width], the margins of the frames' faces. around: of what is no face in the edits, which
// counts in full from `late` on. shown: of the edits' faces. hair: of the frames' hair, which is long from `from` over
// `rise` on at the lower border. hidden: float32 [faces, height, width], where a face may be within `reach` pixels. bare:
// where the edit shows none there and the frame no long hair. stays: where such hair does, the edit showing no face from
// `early` within its edge on.
extern "C" __global__ void lay_bare(const float* found, const float* around, const float* shown, const float* hair,
                                    int reach, float late, float span, float from, float rise, float early, int width,
                                    int height, float* hidden, float* bare, float* stays) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    long long first = (long long)face * width * height, place = first + y * width + x;
    float largest = found[place];
    for (int v = clamped(y - reach, 0, height - 1); v <= clamped(y + reach, 0, height - 1); ++v)
        for (int u = clamped(x - reach, 0, width - 1); u <= clamped(x + reach, 0, width - 1); ++u)
            largest = fmaxf(largest, found[first + v * width + u]);
    hidden[place] = risen(largest, span);
    float longest = from;
    for (int u = 0; u < width; ++u) longest = fmaxf(longest, hair[first + (height - 1) * width + u]);
    float kept = fminf((longest - from) / rise, 1.0f) * risen(hair[place], span);
    bare[place] = (1.0f - kept) * fminf(hidden[place], risen(around[place] - late, span));
    stays[place] = kept * risen(early - shown[place], span);
}

// crops, edits: REAL [faces, 3, size, size]; hidden: float32 [faces, height, width]; size, width and height are
// multiples of side. image: float32 [faces, 3, side, side], the means of the crops' blocks. known: float32 [faces,
// side, side], how much of them is not hidden. changes: the mean difference of the edits' means over the channels.
extern "C" __global__ void reduce(const REAL* crops, const REAL* edits, int size, const float* hidden, int width,
                                  int height, float* image, float* known, float* changes, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    int across = width / side, down = height / side, block = size / side, place = y * side + x;
    float sum = 0.0f, change = 0.0f;
    hidden += (long long)face * width * height;
    for (int v = y * down; v < (y + 1) * down; ++v)
        for (int u = x * across; u < (x + 1) * across; ++u) sum += hidden[v * width + u];
    for (int channel = 0; channel < 3; ++channel) {
        long long plane = (long long)face * 3 + channel;
        float of_crop = 0.0f, of_edit = 0.0f;
        for (int row = y * block; row < (y + 1) * block; ++row)
            for (int column = x * block; column < (x + 1) * block; ++column) {
                long long pixel = (plane * size + row) * size + column;
                of_crop += read(crops[pixel]);
                of_edit += read(edits[pixel]);
            }
        float share = 1.0f / (block * block);
        change += fabsf(of_edit - of_crop) * share;
        image[plane * side * side + place] = of_crop * share;
    }
    known[(long long)face * side * side + place] = 1.0f - sum / (across * down);
    changes[(long long)face * side * side + place] = change / 3.0f;
}

// fine: float32 [faces, 3, step x side, step x side], known by shares. coarse: float32 [faces, 3, side, side], the means
// of what is known of step x step pixels, which are known as much as they are together, up to 1. least: mean that counts.
extern "C" __global__ void pull(const float* fine, const float* fine_known, int step, float least, float* coarse,
                                float* coarse_known, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    int row = step * side;
    float sums[3] = {}, count = 0.0f;
    for (int v = step * y; v < step * (y + 1); ++v)
        for (int u = step * x; u < step * (x + 1); ++u) {
            float share = fine_known[((long long)face * row + v) * row + u];
            count += share;
            for (int channel = 0; channel < 3; ++channel)
                sums[channel] += share * fine[(((long long)face * 3 + channel) * row + v) * row + u];
        }
    float pixels = (float)(step * step);
    for (int channel = 0; channel < 3; ++channel)
        coarse[(((long long)face * 3 + channel) * side + y) * side + x] =
            sums[channel] / pixels / fmaxf(count / pixels, least);
    coarse_known[((long long)face * side + y) * side + x] = fminf(count, 1.0f);
}

// fine: float32 [faces, 3, side, side]; as far as it is not known it takes what the filled coarse image [few, few] has.
extern "C" __global__ void push(const float* coarse, int few, const float* known, float* fine, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    float there = known[((long long)face * side + y) * side + x];
    for (int channel = 0; channel < 3; ++channel) {
        long long plane = (long long)face * 3 + channel;
        float& pixel = fine[(plane * side + y) * side + x];
        float beyond = enlarged(coarse + plane * few * few, few, few, x, y, side);
        pixel = beyond + there * (pixel - beyond);
    }
}

// around: float32 [faces, 3, side, side]. gates: float32 [faces, side, side], near 1 where little changes. bare, stays:
// float32 [faces, height, width]. known: float32 [faces], 0 where the crop shows nothing but a face. out: REAL
// [faces, 3, size, size]. masks: float32 [faces, size, size], less where the frame's own stays.
extern "C" __global__ void surround(const REAL* edits, const float* around, const float* gates, int side,
                                    const float* bare, const float* stays, int width, int height, const float* known,
                                    REAL* out, float* masks, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    long long first = (long long)face * width * height;
    masks[((long long)face * size + y) * size + x] *= 1.0f - enlarged(stays + first, width, height, x, y, size);
    float share = known[face] * enlarged(bare + first, width, height, x, y, size);
    share *= 1.0f - enlarged(gates + (long long)face * side * side, side, side, x, y, size);
    for (int channel = 0; channel < 3; ++channel) {
        long long plane = (long long)face * 3 + channel, place = (plane * size + y) * size + x;
        float edit = read(edits[place]), here = enlarged(around + plane * side * side, side, side, x, y, size);
        write(out + place, edit + share * (here - edit));
    }
}
