// The parser's logits -> soft masks: compositing.face_masks for all faces at once, separable passes.
#include "image.cuh"

// Less than any logit; compilers at run time have no name for infinity.
#define LOWEST -3.4e38f

// How far the best of the classes in a set (bit n: class n) lies above the best of the others, in an image of
// [classes, plane] logits; not a number where a logit is.
__device__ inline float margin(const REAL* logits, int classes, unsigned set, unsigned others, int plane) {
    float inside = LOWEST, outside = LOWEST;
    for (int n = 0; n < classes; ++n) {
        if (!((set | others) >> n & 1u)) continue;
        float logit = read(logits[(long long)n * plane]);
        float& best = set >> n & 1u ? inside : outside;
        if (logit > best || isnan(logit)) best = logit;
    }
    return inside - outside;
}

// logits: REAL [>= faces, classes, height, width], those of the frames first. before: float32 [faces, height, width],
// the mean margin of the occluder classes `reach` pixels around, the border repeated; what is not a number counts as 0.
extern "C" __global__ void find_things(const REAL* logits, int classes, unsigned occluder_classes, int reach, int width,
                                       int height, float* before) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height;
    logits += (long long)face * classes * plane;
    float sum = 0.0f;
    for (int v = y - reach; v <= y + reach; ++v)
        for (int u = x - reach; u <= x + reach; ++u) {
            int place = clamped(v, 0, height - 1) * width + clamped(u, 0, width - 1);
            float found = margin(logits + place, classes, occluder_classes, ~occluder_classes, plane);
            if (!isnan(found) && fabsf(found) < 1e38f) sum += found;
        }
    before[(long long)face * plane + y * width + x] = sum / ((2 * reach + 1) * (2 * reach + 1));
}

// cores: uint8 [faces, height, width], 1 where `before` is positive `core` pixels around, as far as the image goes.
extern "C" __global__ void find_cores(const float* before, int core, int width, int height, unsigned char* cores) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    before += (long long)face * width * height;
    bool sure = true;
    for (int v = y - core; v <= y + core; ++v)
        for (int u = x - core; u <= x + core; ++u)
            sure = sure && before[clamped(v, 0, height - 1) * width + clamped(u, 0, width - 1)] > 0.0f;
    cores[((long long)face * height + y) * width + x] = sure;
}

// near: uint8 [faces, height, width], 1 where a core is within `growth` pixels in the row.
extern "C" __global__ void grow_rows(const unsigned char* cores, int growth, int width, int height,
                                     unsigned char* near) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    cores += ((long long)face * height + y) * width;
    bool found = false;
    for (int u = x - growth; u <= x + growth; ++u) found = found || (u >= 0 && u < width && cores[u]);
    near[((long long)face * height + y) * width + x] = found;
}

// logits: REAL [2 x faces, classes, height, width], those of the frames, then those of the edits. margins: float32
// [faces, height, width], the larger of the two, positive inside either mask and not where the frame shows a thing:
// where a core is near, by `near` within `growth` rows, and `before` above -`benefit`. covered: uint32 [faces], set
// to 0.
extern "C" __global__ void unite(const REAL* logits, int faces, int classes, unsigned face_classes,
                                 unsigned occluder_classes, const float* before, const unsigned char* near, int growth,
                                 float benefit, int width, int height, float* margins, unsigned* covered) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height, place = y * width + x;
    const REAL* frame = logits + (long long)face * classes * plane + place;
    const REAL* edit = frame + (long long)faces * classes * plane;
    float of_frame = margin(frame, classes, face_classes, ~(face_classes | occluder_classes), plane);
    float of_edit = margin(edit, classes, face_classes, ~face_classes, plane);
    float larger = fmaxf(of_frame, of_edit);
    if (occluder_classes) {
        bool thing = false;
        for (int v = y - growth; v <= y + growth; ++v)
            thing = thing || (v >= 0 && v < height && near[((long long)face * height + v) * width + x]);
        if (thing) larger = fminf(larger, -(before[(long long)face * plane + place] + benefit));
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
