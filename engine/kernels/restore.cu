// Crops, their inversions and edits -> the edits with what the inversions lost: compositing.give_back for all faces.
#include "image.cuh"

__device__ inline float clipped(REAL value) { return clamped(read(value), -1.0f, 1.0f); }

// inversions, edits: REAL [faces, 3, size, size]. changes: float32 [faces, side, side], the mean difference of the two
// over the channels and the pixels of a block; size is a multiple of side.
extern "C" __global__ void change(const REAL* inversions, const REAL* edits, int size, float* changes, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    int block = size / side;
    float sum = 0.0f;
    for (int channel = 0; channel < 3; ++channel)
        for (int row = y * block; row < (y + 1) * block; ++row)
            for (int column = x * block; column < (x + 1) * block; ++column) {
                long long place = (((long long)face * 3 + channel) * size + row) * size + column;
                sum += fabsf(clipped(edits[place]) - clipped(inversions[place]));
            }
    changes[((long long)face * side + y) * side + x] = sum / (3.0f * block * block);
}

// widened: float32 [faces, side, side], the largest change in a square that reaches `reach` to every side.
extern "C" __global__ void widen(const float* changes, int reach, float* widened, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    changes += (long long)face * side * side;
    float largest = 0.0f;
    for (int row = clamped(y - reach, 0, side - 1); row <= clamped(y + reach, 0, side - 1); ++row)
        for (int column = clamped(x - reach, 0, side - 1); column <= clamped(x + reach, 0, side - 1); ++column)
            largest = fmaxf(largest, changes[row * side + column]);
    widened[((long long)face * side + y) * side + x] = largest;
}

// The mirror image without the edge pixel, OpenCV's BORDER_REFLECT_101, of an index less than `count` outside.
__device__ inline int mirrored(int n, int count) { return n < 0 ? -n : (n < count ? n : 2 * count - 2 - n); }

// gates: float32 [faces, side, side], near 1 where little changes. taps: of the blur, from the middle outwards, `reach`
// of them beside it. per_change: one over the change that counts as another thing. reshaped: float32 [faces], one less
// the least gate.
extern "C" __global__ void gate(const float* widened, const float* taps, int reach, float per_change,
                                const float* reshaped, float* gates, int side) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= side || y >= side) return;
    widened += (long long)face * side * side;
    float sum = 0.0f;
    for (int j = -reach; j <= reach; ++j) {
        const float* row = widened + mirrored(y + j, side) * side;
        float line = 0.0f;
        for (int i = -reach; i <= reach; ++i) line += taps[abs(i)] * row[mirrored(x + i, side)];
        sum += taps[abs(j)] * line;
    }
    float share = sum * per_change;
    gates[((long long)face * side + y) * side + x] = fmaxf(expf(-share * share), 1.0f - reshaped[face]);
}

// How much of a line's pixel is what was moved `by` pixels to it from `source`, the rest being the crop.
__device__ inline float moved_share(int source, int by, int size) {
    if (by == 0) return 1.0f;
    return clamped(((by > 0 ? source : size - 1 - source) + 0.5f) / abs(by), 0.0f, 1.0f);
}

// zones: float32 [faces, size], how much each row takes of the result, the rest being the crop. shifts: int [faces, 2], how
// far all of that is moved to the right and down; it fades into the crop where it ends. out: REAL [faces, 3, size, size].
extern "C" __global__ void give_back(const REAL* crops, const REAL* inversions, const REAL* edits, const float* zones,
                                     const int* shifts, const float* gates, int side, REAL* out, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    int right = shifts[2 * face], down = shifts[2 * face + 1];
    int column = clamped(x - right, 0, size - 1), row = clamped(y - down, 0, size - 1);
    float share = fminf(moved_share(x - right, right, size), moved_share(y - down, down, size));
    float open = enlarged(gates + (long long)face * side * side, side, side, column, row, size);
    for (int channel = 0; channel < 3; ++channel) {
        long long plane = ((long long)face * 3 + channel) * size, place = (plane + row) * size + column;
        float crop = read(crops[place]), restored = clipped(edits[place]) + open * (crop - clipped(inversions[place]));
        float shown = crop + zones[face * size + row] * (restored - crop), own = read(crops[(plane + y) * size + x]);
        write(out + (plane + y) * size + x, own + share * (shown - own));
    }
}
