// The parser's logits -> soft masks: compositing.face_mask for all faces at once, separable passes.
#include "image.cuh"

// Less than any logit; compilers at run time have no name for infinity.
#define LOWEST -3.4e38f

// How far the best of the classes in a set (bit n: class n) lies above the best of the others, in an image of
// [classes, plane] logits. As compositing._finite: 0 where it is not a number, 1 or -1 where it is beyond all.
__device__ inline float margin(const REAL* logits, int classes, unsigned set, unsigned others, int plane) {
    float inside = LOWEST, outside = LOWEST;
    for (int n = 0; n < classes; ++n) {
        if (!((set | others) >> n & 1u)) continue;
        float logit = read(logits[(long long)n * plane]);
        float& best = set >> n & 1u ? inside : outside;
        if (logit > best || isnan(logit)) best = logit;
    }
    float above = inside - outside;
    if (isnan(above)) return 0.0f;
    return fabsf(above) > 3e38f ? copysignf(1.0f, above) : above;
}

// logits: REAL [>= faces, classes, height, width]. means: float32 [faces, height, width], the mean margin of a set of
// classes above all others `reach` pixels around, the border repeated.
extern "C" __global__ void mean_margins(const REAL* logits, int classes, unsigned set, int reach, int width, int height,
                                        float* means) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height;
    logits += (long long)face * classes * plane;
    float sum = 0.0f;
    for (int v = y - reach; v <= y + reach; ++v)
        for (int u = x - reach; u <= x + reach; ++u) {
            int place = clamped(v, 0, height - 1) * width + clamped(u, 0, width - 1);
            sum += margin(logits + place, classes, set, ~set, plane);
        }
    means[(long long)face * plane + y * width + x] = sum / ((2 * reach + 1) * (2 * reach + 1));
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

// logits: REAL [>= faces, classes, height, width], the frames'. found: float32 [faces, height, width], the margin of the
// face classes above all others but the occluders'.
extern "C" __global__ void find_faces(const REAL* logits, int classes, unsigned face_classes, unsigned occluder_classes,
                                      int width, int height, float* found) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height, place = y * width + x;
    logits += (long long)face * classes * plane + place;
    unsigned others = ~(face_classes | occluder_classes);
    found[(long long)face * plane + place] = margin(logits, classes, face_classes, others, plane);
}

// logits: REAL [>= faces, classes, height, width], the edits'. found: of the frames, which count as `growth` pixels
// larger. margins: float32 [faces, height, width], the larger of frame and edit, positive inside either mask and not
// where the frame shows a thing: where a core is near, by `near` within `reach` rows, and `before` above -`benefit`.
// covered: uint32 [faces], set to 0.
extern "C" __global__ void unite(const REAL* logits, int classes, unsigned face_classes, unsigned occluder_classes,
                                 const float* found, int growth, const float* before, const unsigned char* near,
                                 int reach, float benefit, int width, int height, float* margins, unsigned* covered) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height, place = y * width + x;
    long long first = (long long)face * plane;
    float larger = margin(logits + classes * first + place, classes, face_classes, ~face_classes, plane);
    for (int v = clamped(y - growth, 0, height - 1); v <= clamped(y + growth, 0, height - 1); ++v)
        for (int u = clamped(x - growth, 0, width - 1); u <= clamped(x + growth, 0, width - 1); ++u)
            larger = fmaxf(larger, found[first + v * width + u]);
    if (occluder_classes) {
        bool thing = false;
        for (int v = y - reach; v <= y + reach; ++v)
            thing = thing || (v >= 0 && v < height && near[first + v * width + x]);
        if (thing) larger = fminf(larger, -(before[first + place] + benefit));
    }
    margins[first + place] = larger;
    if (place == 0) covered[face] = 0;
}

// frames, edits: REAL [>= faces, classes, height, width], logits. hair: float32 [faces], how much of it a mask takes in: 0
// leaves the frame's and adds none, 1 takes face and hair, 2 leaves the frame's face. shares: float32 [faces, height,
// width], how much of the mask is left by that, from the margin's mean `reach` pixels around, over `span` of it.
extern "C" __global__ void share_parts(const REAL* frames, const REAL* edits, int classes, unsigned face_classes,
                                       unsigned hair_classes, unsigned occluder_classes, const float* hair, int reach,
                                       float span, int width, int height, float* shares) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height;
    long long first = (long long)face * plane;
    unsigned skin = face_classes & ~hair_classes;
    float sum = 0.0f;
    for (int v = y - reach; v <= y + reach; ++v)
        for (int u = x - reach; u <= x + reach; ++u) {
            int place = clamped(v, 0, height - 1) * width + clamped(u, 0, width - 1);
            const REAL *frame = frames + classes * first + place, *edit = edits + classes * first + place;
            float of_frame = margin(frame, classes, skin, ~(skin | occluder_classes), plane), part = -of_frame;
            if (hair[face] < 1.0f) {
                float larger = fmaxf(of_frame, margin(edit, classes, skin, ~skin, plane)) + 0.25f * span;
                part = fminf(margin(frame, classes, ~hair_classes, hair_classes, plane), larger);
                if (!hair_classes) part = span;
            }
            sum += part;
        }
    float share = clamped(0.5f + sum / ((2 * reach + 1) * (2 * reach + 1)) / span, 0.0f, 1.0f);
    shares[first + y * width + x] = 1.0f + fabsf(1.0f - hair[face]) * (share - 1.0f);
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

// masks: float32 [faces, size, size], times the shares [faces, height, width]; of a face with fewer than `least` pixels
// inside, the usual mask [size, size].
// fade: pixels from the border inwards over which a mask rises, 0 for none; beyond: the same where `found`, the margin of
// the frame's face [faces, height, width], is positive at the border, and in between down to -`span`.
extern "C" __global__ void feather_columns(const unsigned short* rows, int first, int second, const unsigned* covered,
                                           int least, const float* usual, const float* shares, const float* found,
                                           int width, int height, int fade, int beyond, float span, float* masks,
                                           int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    rows += (long long)face * size * size;
    int reach = first + second, boxes = (2 * first + 1) * (2 * second + 1), sum = 0;
    for (int n = -reach; n <= reach; ++n)
        if (y + n >= 0 && y + n < size) sum += count(first, second, n) * rows[(y + n) * size + x];
    float mask = (float)sum / ((float)boxes * boxes);
    if ((int)covered[face] < least)
        mask = usual[y * size + x];
    else
        mask *= enlarged(shares + (long long)face * width * height, width, height, x, y, size);
    if (fade) {
        int last = size - 1, depths[4] = {y, x, last - y, last - x};
        int columns[4] = {x, 0, x, last}, lines[4] = {0, y, last, y};
        float lowest = 1.0f;
        found += (long long)face * width * height;
        for (int border = 0; border < 4; ++border) {
            if (depths[border] >= beyond) continue;
            float margin = enlarged(found, width, height, columns[border], lines[border], size);
            float reach = fade + (beyond - fade) * clamped(1.0f + margin / span, 0.0f, 1.0f);
            lowest = fminf(lowest, depths[border] / reach);
        }
        mask *= lowest * lowest * (3.0f - 2.0f * lowest);
    }
    masks[((long long)face * size + y) * size + x] = mask;
}
