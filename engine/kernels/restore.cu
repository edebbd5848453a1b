// Crops, their inversions and edits -> the edits with what the inversions lost: restoring.give_back for all faces.
#include "image.cuh"

const int BLOCK = 4;                  // pixels of a crop, on each side, to one of the gates
const int MOST_REACH = 3, TAPS = 6;   // of a widening, and of a blur on either side, as in restore.py
const int CELL = 4;                   // blocks, on each side, to one of the cells of skin.TONE_RESOLUTION
const float OF_RED = 0.299f, OF_GREEN = 0.587f, OF_BLUE = 0.114f;  // hair.LUMA

__device__ inline float clipped(REAL value) { return clamped(read(value), -1.0f, 1.0f); }

// The mean over the pixels of a block of what `of` makes of how far an edit lies above its inversion at (column, row).
template <class Of>
__device__ inline float block_mean(const REAL* inversions, const REAL* edits, int plane, int x, int y, int side, Of of) {
    float sum = 0.0f;
#pragma unroll
    for (int row = 0; row < BLOCK; ++row) {
        long long place = (((long long)plane * side + y) * BLOCK + row) * side * BLOCK + x * BLOCK;
        Four<REAL> edit = four(edits + place), inversion = four(inversions + place);
#pragma unroll
        for (int n = 0; n < BLOCK; ++n)
            sum += of(clipped(edit.at[n]) - clipped(inversion.at[n]), BLOCK * x + n, BLOCK * y + row);
    }
    return sum / (BLOCK * BLOCK);
}

// inversions, edits: REAL [faces, 3, BLOCK x side, BLOCK x side]. means: float32 [faces, 3, side, side], how far the edits
// lie above, over the pixels of a block. Run for 3 x faces.
extern "C" __global__ void mean_change(const REAL* inversions, const REAL* edits, float* means, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    auto above = [&](float difference, int, int) { return difference; };
    means[((long long)plane * side + y) * side + x] = block_mean(inversions, edits, plane, x, y, side, above);
}

// tones: float32 [faces, 3, cells, cells], taken off the edits; with no cells nothing is. changes: float32 [faces, 3, side,
// side], the mean difference to the inversions over the pixels of a block. Run for 3 x faces.
extern "C" __global__ void change(const REAL* inversions, const REAL* edits, const float* tones, int cells,
                                  float* changes, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    tones += plane * cells * cells;
    auto apart = [&](float difference, int column, int row) {
        return fabsf(cells ? difference - enlarged(tones, cells, cells, column, row, BLOCK * side) : difference);
    };
    changes[((long long)plane * side + y) * side + x] = block_mean(inversions, edits, plane, x, y, side, apart);
}

// means: float32 [faces, 3, CELL x side, CELL x side]. skin: float32 [CELL x side, CELL x side], where a face shows any.
// same: change at which a place counts little. cells: float32 [faces, 4, side, side], sums over a cell of what the edits
// do to each channel of what is skin, and of how much of it is. Run for 4 x faces.
extern "C" __global__ void gather_skin(const float* means, const float* skin, float same, float* cells, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    int channel = plane % 4, row = CELL * side;
    long long next = (long long)row * row;
    means += plane / 4 * 3 * next;
    float sum = 0.0f;
#pragma unroll
    for (int n = 0; n < CELL * CELL; ++n) {
        int place = (CELL * y + n / CELL) * row + CELL * x + n % CELL;
        float of[3] = {means[place], means[next + place], means[2 * next + place]};
        float change = (fabsf(of[0]) + fabsf(of[1]) + fabsf(of[2])) / 3.0f / same;
        float share = skin[place] * expf(-change * change);
        sum += share * (channel < 3 ? of[min(channel, 2)] : 1.0f);
    }
    cells[((long long)plane * side + y) * side + x] = sum / (CELL * CELL);
}

// changes: float32 [faces, 3, side, side]. lines: float32 [faces, side, side], the largest of their means over the
// channels up to `reach` pixels away in the row.
extern "C" __global__ void widen_rows(const float* changes, int reach, float* lines, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    long long plane = (long long)side * side;
    changes += 3 * face * plane + y * side;
    float largest = 0.0f;
#pragma unroll
    for (int n = -MOST_REACH; n <= MOST_REACH; ++n) {
        int column = clamped(x + clamped(n, -reach, reach), 0, side - 1);
        largest = fmaxf(largest, changes[column] + changes[plane + column] + changes[2 * plane + column]);
    }
    lines[face * plane + y * side + x] = largest / 3.0f;
}

// The mirror image without the edge pixel, OpenCV's BORDER_REFLECT_101, of an index less than `count` outside.
__device__ inline int mirrored(int n, int count) { return n < 0 ? -n : (n < count ? n : 2 * count - 2 - n); }

// lines: as widen_rows gives them. blurred: float32 [faces, side, side], the largest of those up to `reach` pixels away in
// the column, blurred along the row. taps: of the blur, from the middle outwards, [1 + TAPS].
extern "C" __global__ void blur_rows(const float* lines, int reach, const float* taps, float* blurred, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    lines += (long long)face * side * side;
    float sum = 0.0f, largest[2 * TAPS + 1] = {};
#pragma unroll
    for (int n = -MOST_REACH; n <= MOST_REACH; ++n) {
        const float* line = lines + clamped(y + clamped(n, -reach, reach), 0, side - 1) * side;
#pragma unroll
        for (int i = 0; i <= 2 * TAPS; ++i) largest[i] = fmaxf(largest[i], line[mirrored(x + i - TAPS, side)]);
    }
#pragma unroll
    for (int i = 0; i <= 2 * TAPS; ++i) sum += taps[abs(i - TAPS)] * largest[i];
    blurred[((long long)face * side + y) * side + x] = sum;
}

// gates: float32 [faces, side, side], near 1 where little changes: what blur_rows gave, blurred along the column too.
// per_change: one over the change that counts as another thing. reshaped: float32 [faces], one less the least gate;
// outline: float32 [faces], times that where `beyond` is 1, float32 [side, side].
extern "C" __global__ void gate(const float* blurred, const float* taps, float per_change, const float* reshaped,
                                const float* outline, const float* beyond, float* gates, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    blurred += (long long)face * side * side + x;
    float sum = 0.0f;
#pragma unroll
    for (int j = -TAPS; j <= TAPS; ++j) sum += taps[abs(j)] * blurred[mirrored(y + j, side) * side];
    float share = sum * per_change, shapes = reshaped[face];
    float least = 1.0f - shapes + shapes * (1.0f - outline[face]) * beyond[y * side + x];
    gates[((long long)face * side + y) * side + x] = fmaxf(expf(-share * share), least);
}

// cells: as gather_skin gives them. taps: of a blur, as blur_rows takes them. least: share of skin that counts. within:
// float32 [side, side], where a face is. keeps: float32 [faces], how much of it stays in the edits. tones: float32
// [faces, 3, side, side], what is taken off the edits. Run for 3 x faces.
extern "C" __global__ void tone(const float* cells, const float* taps, float least, const float* within,
                                const float* keeps, float* tones, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, plane = blockIdx.z;
    if (x >= side || y >= side) return;
    int face = plane / 3;
    const float *values = cells + (4 * face + plane % 3) * side * side, *shares = cells + (4 * face + 3) * side * side;
    float sum = 0.0f, count = 0.0f;
    for (int j = -TAPS; j <= TAPS; ++j)
#pragma unroll
        for (int i = -TAPS; i <= TAPS; ++i) {
            int place = mirrored(y + j, side) * side + mirrored(x + i, side);
            float weight = taps[abs(j)] * taps[abs(i)];
            sum += weight * values[place];
            count += weight * shares[place];
        }
    float change = sum / (count + least) * within[y * side + x];
    tones[((long long)plane * side + y) * side + x] = (1.0f - keeps[face]) * change;
}

// How much of a line's pixel is what was moved `by` pixels to it from `source`, the rest being the crop.
__device__ inline float moved_share(int source, int by, int size) {
    if (by == 0) return 1.0f;
    return clamped(((by > 0 ? source : size - 1 - source) + 0.5f) / abs(by), 0.0f, 1.0f);
}

// Holds an edit to colours that hair can have, as far as `share` says; both R, G, B on [-1, 1]: hair.pigmented.
__device__ inline void pigment(const float* own, float* edit, float per_step, float share) {
    float light = OF_RED * own[0] + OF_GREEN * own[1] + OF_BLUE * own[2];
    float of_edit = OF_RED * edit[0] + OF_GREEN * edit[1] + OF_BLUE * edit[2];
    float more = fmaxf(of_edit - light, 0.0f) * per_step;
    float red = edit[0] - of_edit, blue = edit[2] - of_edit, own_red = own[0] - light, own_blue = own[2] - light;
    float redder = share * (clamped(red, fminf(own_red + more, 0.0f), fmaxf(own_red, 0.0f) + more) - red);
    float bluer = share * (clamped(blue, fminf(own_blue, 0.0f) - more, fmaxf(own_blue - more, 0.0f)) - blue);
    edit[0] += redder;
    edit[1] -= (OF_RED * redder + OF_BLUE * bluer) / OF_GREEN;
    edit[2] += bluer;
}

// zones: float32 [faces, size], how much each row takes of the result, the rest being the crop. shifts: int [faces, 2], how
// far all of that is moved to the right and down; it fades into the crop where it ends. tones: float32 [faces, 3, cells,
// cells], taken off the edits. parts: float32 [3, size, size], where the outline, eyes and mouth are; hair, outline, eyes,
// mouth, reshaped: float32 [faces], what the edits are meant for. per_step: hair.PIGMENT. out: REAL [faces, 3, size, size].
extern "C" __global__ void give_back(const REAL* crops, const REAL* inversions, const REAL* edits, const float* zones,
                                     const int* shifts, const float* gates, int side, const float* tones, int cells,
                                     const float* parts, const float* hair, const float* outline, const float* eyes,
                                     const float* mouth, const float* reshaped, float per_step, REAL* out, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    int right = shifts[2 * face], down = shifts[2 * face + 1];
    int column = clamped(x - right, 0, size - 1), row = clamped(y - down, 0, size - 1);
    float share = fminf(moved_share(x - right, right, size), moved_share(y - down, down, size));
    float open = enlarged(gates + (long long)face * side * side, side, side, column, row, size);
    int of = row * size + column, plane = size * size;
    float shapes = reshaped[face], left = (1.0f - eyes[face]) * parts[plane + of];
    left = fmaxf(left, (1.0f - mouth[face]) * parts[2 * plane + of]);
    float zone = zones[face * size + row] * (1.0f - shapes * left);
    float of_hair = fminf(hair[face], 1.0f) * (1.0f - outline[face]) * (1.0f - shapes + shapes * parts[of]);
    float own[3], result[3];
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        long long place = ((long long)face * 3 + channel) * plane + of;
        float tone = enlarged(tones + (3 * face + channel) * cells * cells, cells, cells, column, row, size);
        own[channel] = read(crops[place]);
        result[channel] = clipped(edits[place]) - tone + open * (own[channel] - clipped(inversions[place]));
    }
    pigment(own, result, per_step, of_hair);
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        long long place = ((long long)face * 3 + channel) * plane + y * size + x;
        float shown = own[channel] + zone * (result[channel] - own[channel]), there = read(crops[place]);
        write(out + place, there + share * (shown - there));
    }
}
