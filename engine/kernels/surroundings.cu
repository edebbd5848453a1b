// Edits -> edits with the surroundings where they show less of a face than the frame, and with the glasses that the face
// wears: surroundings.cut_out.
#include "image.cuh"

const int BLOCK = 4;   // pixels of a crop, on each side, to one of the fine grid
const int STEP = 4;    // surroundings.STEP
const int LINE = 64;   // GATE_RESOLUTION, which the parser's pixels are multiples of

// 0 to 1 over the margins from -span to 0.
__device__ inline float risen(float margin, float span) { return clamped(1.0f + margin / span, 0.0f, 1.0f); }

// All planes float32 [faces, height, width], width a multiple of LINE. largest: of the margins of the frames' faces around
// a pixel. around: of what is no face in the edits, which counts in full from `late` on. shown: of the edits' faces. hair:
// of the frames' hair, which is long from `from` over `rise` on at the lower border. hidden: where a face may be near.
// bare: where the edit shows none there and the frame no long hair. stays: where such hair does, the edit showing no face
// from `early` within its edge on.
extern "C" __global__ void lay_bare(const float* largest, const float* around, const float* shown, const float* hair,
                                    float late, float span, float from, float rise, float early, int width, int height,
                                    float* hidden, float* bare, float* stays) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    long long first = (long long)face * width * height, place = first + y * width + x;
    const float* lowest = hair + first + (height - 1) * width;
    float longest = from, face_near = largest[place], no_face = around[place], edit = shown[place], own = hair[place];
    for (int start = 0; start < width; start += LINE) {
        Four<float> columns[LINE / 4];
#pragma unroll
        for (int u = 0; u < LINE / 4; ++u) columns[u] = four(lowest + start + 4 * u);
#pragma unroll
        for (int u = 0; u < LINE; ++u) longest = fmaxf(longest, columns[u / 4].at[u % 4]);
    }
    float kept = fminf((longest - from) / rise, 1.0f) * risen(own, span);
    float near = risen(face_near, span), open = fminf(near, risen(no_face - late, span));
    float left = kept * risen(early - edit, span);
    hidden[place] = near;
    bare[place] = (1.0f - kept) * open;
    stays[place] = left;
}

// crops, edits: REAL [faces, 3, BLOCK x side, BLOCK x side]; hidden: float32 [faces, height, width], multiples of side.
// image: float32 [faces, 3, side, side], the means of the crops' blocks. known: float32 [faces, side, side], how much of
// them is not hidden. moves: float32 [faces, 3, side, side], from the crops' means to the edits'; changes: how far those
// go. Run for 3 x faces.
extern "C" __global__ void reduce(const REAL* crops, const REAL* edits, const float* hidden, int width, int height,
                                  float* image, float* known, float* moves, float* changes, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    const int size = BLOCK * side;
    long long first = (long long)plane * side * side + y * side + x;
    float of_crop = 0.0f, of_edit = 0.0f;
#pragma unroll
    for (int row = 0; row < BLOCK; ++row) {
        long long place = ((long long)plane * size + y * BLOCK + row) * size + x * BLOCK;
        Four<REAL> crop = four(crops + place), edit = four(edits + place);
#pragma unroll
        for (int n = 0; n < BLOCK; ++n) {
            of_crop += read(crop.at[n]);
            of_edit += read(edit.at[n]);
        }
    }
    image[first] = of_crop / (BLOCK * BLOCK);
    moves[first] = (of_edit - of_crop) / (BLOCK * BLOCK);
    changes[first] = fabsf(of_edit - of_crop) / (BLOCK * BLOCK);
    if (plane % 3) return;
    int face = plane / 3, across = width / side, down = height / side, pixels = across * down;
    hidden += ((long long)face * height + y * down) * width + x * across;
    float sum = 0.0f;
    for (int start = 0; start < pixels; start += BLOCK)
#pragma unroll
        for (int n = start; n < start + BLOCK; ++n) {
            int last = min(n, pixels - 1);
            float value = hidden[last / across * width + last % across];
            sum += n < pixels ? value : 0.0f;
        }
    known[(long long)face * side * side + y * side + x] = 1.0f - sum / pixels;
}

// The mean of what is known of STEP x STEP pixels of a plane with `row` of them in a row; count: how much that is.
__device__ inline float pulled(const float* plane, const float* known, int row, int x, int y, float least, float* count) {
    float sum = 0.0f, all = 0.0f, pixels = STEP * STEP;
#pragma unroll
    for (int v = 0; v < STEP; ++v) {
        int place = (STEP * y + v) * row + STEP * x;
        Four<float> values = four(plane + place), shares = four(known + place);
#pragma unroll
        for (int u = 0; u < STEP; ++u) {
            sum += shares.at[u] * values.at[u];
            all += shares.at[u];
        }
    }
    *count = all;
    return sum / pixels / fmaxf(all / pixels, least);
}

// fine: float32 [faces, 3, STEP x side, STEP x side], known by shares. coarse: float32 [faces, 3, side, side], the means
// of what is known of STEP x STEP pixels, which are known as much as they are together, up to 1. least: mean that counts.
// Run for 3 x faces.
extern "C" __global__ void pull(const float* fine, const float* fine_known, float least, float* coarse,
                                float* coarse_known, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    int row = STEP * side, face = plane / 3, place = y * side + x;
    long long square = (long long)row * row;
    float count, mean = pulled(fine + plane * square, fine_known + face * square, row, x, y, least, &count);
    coarse[(long long)plane * side * side + place] = mean;
    if (plane % 3 == 0) coarse_known[(long long)face * side * side + place] = fminf(count, 1.0f);
}

// A grid of one plane of a face: what it shows, and how much each pixel is known.
struct Grid {
    const float *values, *known;
    int side;

    __device__ Grid(const float* planes, const float* shares, int plane, int side)
        : values(planes + (long long)plane * side * side), known(shares + (long long)(plane / 3) * side * side),
          side(side) {}

    // As far as the pixel is not known it is what lies beyond.
    __device__ float filled(int x, int y, float beyond) const {
        float value = values[y * side + x], there = known[y * side + x];
        return beyond + there * (value - beyond);
    }
};

// fine: float32 [faces, 3, side, side], known by shares; middle and coarse: of a quarter of the side, and of STEP. As far
// as it is not known it takes what the next grid has, filled in the same way and enlarged, the last being the mean of
// all. whole: float32 [faces], how much of that is known. Run for 3 x faces.
extern "C" __global__ void push(float* fine, const float* fine_known, const float* middle, const float* middle_known,
                                const float* coarse, const float* coarse_known, float least, float* whole, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    Grid first(fine, fine_known, plane, side), second(middle, middle_known, plane, side / STEP);
    Grid third(coarse, coarse_known, plane, STEP);
    float count, mean = pulled(third.values, third.known, STEP, 0, 0, least, &count);
    auto few = [&](int u, int v) { return third.filled(u, v, mean); };
    auto more = [&](int u, int v) { return second.filled(u, v, enlarged_of(few, STEP, STEP, u, v, second.side)); };
    float pixel = first.filled(x, y, enlarged_of(more, second.side, second.side, x, y, side));
    fine[((long long)plane * side + y) * side + x] = pixel;
    if (plane % 3 == 0 && x == 0 && y == 0) whole[plane / 3] = fminf(count, 1.0f);
}

// crops, edits: as reduce takes them, and moves as it gives them. A pixel counts by how near its change lies to the mean of
// 3 x 3 blocks around, little at `out` on a mean over the channels; least: that counts of a block at any rate. afar:
// float32 [faces, 3, side, side], the means of the blocks' changes by that: glasses.seen_from_afar.
extern "C" __global__ void see_from_afar(const REAL* crops, const REAL* edits, const float* moves, float out, float least,
                                         float* afar, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    const int size = BLOCK * side, AROUND = 9;
    float near[3], sums[3] = {0.0f, 0.0f, 0.0f}, all = 0.0f;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        const float* plane = moves + (3LL * face + channel) * side * side;
        near[channel] = 0.0f;
#pragma unroll
        for (int n = 0; n < AROUND; ++n)
            near[channel] += plane[clamped(y + n / 3 - 1, 0, side - 1) * side + clamped(x + n % 3 - 1, 0, side - 1)];
        near[channel] /= AROUND;
    }
#pragma unroll
    for (int row = 0; row < BLOCK; ++row) {
        Four<REAL> crop[3], edit[3];
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) {
            long long place = ((3LL * face + channel) * size + y * BLOCK + row) * size + x * BLOCK;
            crop[channel] = four(crops + place);
            edit[channel] = four(edits + place);
        }
#pragma unroll
        for (int n = 0; n < BLOCK; ++n) {
            float change[3], apart = 0.0f;
#pragma unroll
            for (int channel = 0; channel < 3; ++channel) {
                change[channel] = read(edit[channel].at[n]) - read(crop[channel].at[n]);
                apart += fabsf(change[channel] - near[channel]);
            }
            float counts = expf(-(apart / (3.0f * out)) * (apart / (3.0f * out)));
            all += counts;
#pragma unroll
            for (int channel = 0; channel < 3; ++channel) sums[channel] += counts * change[channel];
        }
    }
#pragma unroll
    for (int channel = 0; channel < 3; ++channel)
        afar[((3LL * face + channel) * side + y) * side + x] =
            sums[channel] / (BLOCK * BLOCK) / (all / (BLOCK * BLOCK) + least);
}

// around, afar: float32 [faces, 3, side, side]. gates: float32 [faces, side, side], near 1 where little changes. bare,
// stays: float32 [faces, height, width]. known: float32 [faces], 0 where the crop shows nothing but a face. worn: float32
// [faces, height, width], the margin of glasses, which begin over `rise` of it and stay as far as glasses, float32
// [faces], is below 1. out: REAL [faces, 3, size, size]. masks: float32 [faces, size, size], less where the frame's own
// stays.
extern "C" __global__ void surround(const REAL* crops, const REAL* edits, const float* around, const float* afar,
                                    const float* gates, int side, const float* bare, const float* stays, int width,
                                    int height, const float* known, const float* worn, const float* glasses, float rise,
                                    REAL* out, float* masks, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    long long first = (long long)face * width * height, place = ((long long)face * size + y) * size + x;
    float mask = masks[place], left = enlarged(stays + first, width, height, x, y, size);
    float share = known[face] * enlarged(bare + first, width, height, x, y, size);
    share *= 1.0f - enlarged(gates + (long long)face * side * side, side, side, x, y, size);
    auto begun = [&](int u, int v) { return clamped(0.5f + worn[first + v * width + u] / rise, 0.0f, 1.0f); };
    float kept = (1.0f - glasses[face]) * enlarged_of(begun, width, height, x, y, size);
    long long next = (long long)size * size, at = 3 * face * next + y * size + x;
    float crop[3], edit[3], here[3], change[3];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        long long grid = (3LL * face + channel) * side * side;
        crop[channel] = read(crops[at + channel * next]);
        edit[channel] = read(edits[at + channel * next]);
        here[channel] = enlarged(around + grid, side, side, x, y, size);
        change[channel] = enlarged(afar + grid, side, side, x, y, size);
    }
    masks[place] = mask * (1.0f - left);
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        float filled = edit[channel] + share * (here[channel] - edit[channel]);
        write(out + at + channel * next, filled + kept * (crop[channel] + change[channel] - filled));
    }
}
