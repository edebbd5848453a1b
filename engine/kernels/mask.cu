// The parser's logits -> soft masks: compositing.face_masks for all faces at once, separable passes.
#include "image.cuh"

// Less than any logit; compilers at run time have no name for infinity.
#define LOWEST -3.4e38f

// How far the best of the classes in a set (bit n: class n) lies above the best one outside it, in an image of
// [classes, plane] logits; not a number where a logit is.
__device__ inline float margin(const REAL* logits, int classes, unsigned set, int plane) {
    float inside = LOWEST, outside = LOWEST;
    for (int n = 0; n < classes; ++n) {
        float logit = read(logits[(long long)n * plane]);
        float& best = set >> n & 1u ? inside : outside;
        if (logit > best || isnan(logit)) best = logit;
    }
    return inside - outside;
}

// The mean margin of a set around a pixel, the border repeated; what is not a number counts as 0.
__device__ inline float mean_margin(const REAL* logits, int classes, unsigned set, int width, int height, int x, int y,
                                    int reach) {
    float sum = 0.0f;
    for (int v = y - reach; v <= y + reach; ++v)
        for (int u = x - reach; u <= x + reach; ++u) {
            int place = clamped(v, 0, height - 1) * width + clamped(u, 0, width - 1);
            float found = margin(logits + place, classes, set, width * height);
            if (!isnan(found) && fabsf(found) < 1e38f) sum += found;
        }
    return sum / ((2 * reach + 1) * (2 * reach + 1));
}

// logits: REAL [2 x faces, classes, height, width], those of the frames, then those of the edits. margins: float32
// [faces, height, width], the larger of the two, positive inside either mask and not where the frame shows an occluder
// for `reach` pixels around. covered: uint32 [faces], set to 0.
extern "C" __global__ void unite(const REAL* logits, int faces, int classes, unsigned face_classes,
                                 unsigned occluder_classes, int reach, int width, int height, float* margins,
                                 unsigned* covered) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height, place = y * width + x;
    float of_frame = margin(logits + (long long)face * classes * plane + place, classes, face_classes, plane);
    float of_edit = margin(logits + (long long)(faces + face) * classes * plane + place, classes, face_classes, plane);
    float larger = fmaxf(of_frame, of_edit);
    if (occluder_classes) {
        const REAL* frame = logits + (long long)face * classes * plane;
        larger = fminf(larger, -mean_margin(frame, classes, occluder_classes, width, height, x, y, reach));
    }
    // As np.nan_to_num: a pixel that nothing is known of lies on the edge, which is outside.
    if (isnan(of_frame) || isnan(of_edit)) larger = 0.0f;
    margins[(long long)face * plane + place] = fabsf(larger) > 3e38f ? copysignf(1.0f, larger) : larger;
    if (place == 0) covered[face] = 0;
}

// eroded: uint8 [faces, size, size], 1 where the `erode` pixels on either side in the row are inside too.
extern "C" __global__ void erode_rows(const float* margins, int width, int height, int erode, unsigned char* eroded,
                                      int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    bool inside = x >= erode && x + erode < size;
    margins += (long long)face * width * height;
    for (int n = x - erode; inside && n <= x + erode; ++n) inside = enlarged(margins, width, height, n, y, size) > 0.0f;
    eroded[((long long)face * size + y) * size + x] = inside;
}

// As erode_rows, by columns. covered: how many pixels are left inside.
extern "C" __global__ void erode_columns(const unsigned char* rows, int erode, unsigned char* eroded, unsigned* covered,
                                         int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    bool inside = y >= erode && y + erode < size;
    rows += (long long)face * size * size;
    for (int n = y - erode; inside && n <= y + erode; ++n) inside = rows[n * size + x];
    eroded[((long long)face * size + y) * size + x] = inside;
    if (inside) atomicAdd(covered + face, 1u);
}

// How often two boxes of these half widths, one after the other, count a pixel at this distance.
__device__ inline int count(int first, int second, int distance) {
    int narrow = 2 * (first < second ? first : second) + 1, slope = first + second + 1 - abs(distance);
    return slope < narrow ? slope : narrow;
}

// counts: uint16 [faces, size, size], how many pixels inside both boxes count in the row.
extern "C" __global__ void feather_rows(const unsigned char* eroded, int first, int second, unsigned short* counts,
                                        int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    eroded += ((long long)face * size + y) * size;
    int reach = first + second, sum = 0;
    for (int n = -reach; n <= reach; ++n)
        if (x + n >= 0 && x + n < size) sum += count(first, second, n) * eroded[x + n];
    counts[((long long)face * size + y) * size + x] = (unsigned short)sum;
}

// masks: float32 [faces, size, size]; of a face with fewer than `least` pixels inside, the usual mask [size, size].
extern "C" __global__ void feather_columns(const unsigned short* rows, int first, int second, const unsigned* covered,
                                           int least, const float* usual, float* masks, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    rows += (long long)face * size * size;
    int reach = first + second, boxes = (2 * first + 1) * (2 * second + 1), sum = 0;
    for (int n = -reach; n <= reach; ++n)
        if (y + n >= 0 && y + n < size) sum += count(first, second, n) * rows[(y + n) * size + x];
    float mask = (float)sum / ((float)boxes * boxes);
    masks[((long long)face * size + y) * size + x] = (int)covered[face] < least ? usual[y * size + x] : mask;
}
