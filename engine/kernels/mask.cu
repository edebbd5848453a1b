// The parser's logits -> soft masks: masks.face_mask for all faces at once. What a thread reads it asks for at once,
// in loops of a length known here and with no way out: where a window is smaller, its last pixels are asked for again.
#include "image.cuh"

// Less than any logit; compilers at run time have no name for infinity.
#define LOWEST -3.4e38f

const int MOST_CLASSES = 32, MOST_REACH = 4, MOST_CORE = 2, MOST_GROWTH = 10, MOST_PART = 1;  // as in mask.py
const int AT_ONCE = 5;  // pixels of a line of any length

// Planes of margins, the first five of frames and the others of edits: engine.kernels.mask.Margin.
enum { FOUND = 0, BEFORE = 1, SKIN = 2, HAIR = 3, GLASSES = 4, FACE = 5, PAINTED = 6, REST = 7, MARGINS = 8 };

// How far the best of the classes in a set (bit n: class n) lies above the best of the others. nans: the classes without a
// number. As masks._finite: 0 where it is not a number, 1 or -1 where it is beyond all.
__device__ inline float margin(const float (&logits)[MOST_CLASSES], unsigned nans, unsigned set, unsigned others) {
    float inside = LOWEST, outside = LOWEST;
#pragma unroll
    for (int n = 0; n < MOST_CLASSES; ++n) {
        if (set >> n & 1u) inside = fmaxf(inside, logits[n]);
        if (others >> n & 1u) outside = fmaxf(outside, logits[n]);
    }
    float above = inside - outside;
    if ((set | others) & nans || isnan(above)) return 0.0f;
    return fabsf(above) > 3e38f ? copysignf(1.0f, above) : above;
}

// logits: REAL [2 faces, classes, height, width], first the frames, then their edits. sets: uint32 [MARGINS, 2], of each
// plane its classes and the others, none beyond `classes`. margins: float32 [MARGINS, >= faces, height, width], `room`
// faces from one plane to the next. Run for 2 faces.
extern "C" __global__ void find_margins(const REAL* logits, int classes, const unsigned* sets, int faces, int room,
                                        int width, int height, float* margins) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, image = blockIdx.z;
    if (x >= width || y >= height) return;
    int plane = width * height, place = y * width + x;
    logits += (long long)image * classes * plane + place;
    float values[MOST_CLASSES];
    unsigned nans = 0;
#pragma unroll
    for (int n = 0; n < MOST_CLASSES; ++n) values[n] = n < classes ? read(logits[(long long)n * plane]) : LOWEST;
#pragma unroll
    for (int n = 0; n < MOST_CLASSES; ++n) nans |= isnan(values[n]) ? 1u << n : 0u;
    bool edit = image >= faces;
    int face = edit ? image - faces : image, end = edit ? MARGINS : FACE;
    for (int n = edit ? FACE : FOUND; n < end; ++n)
        margins[((long long)n * room + face) * plane + place] = margin(values, nans, sets[2 * n], sets[2 * n + 1]);
}

// Of the numbers of a line, `step` apart, that lie up to `reach` from the one at `at`, the border repeated: their sum or
// the largest.
__device__ inline float seen(const float* line, int step, int at, int count, int reach, bool largest) {
    float values[2 * MOST_REACH + 1], sum = 0.0f, most = LOWEST;
#pragma unroll
    for (int n = -MOST_REACH; n <= MOST_REACH; ++n)
        values[n + MOST_REACH] = line[clamped(at + clamped(n, -reach, reach), 0, count - 1) * step];
#pragma unroll
    for (int n = -MOST_REACH; n <= MOST_REACH; ++n) {
        most = fmaxf(most, values[n + MOST_REACH]);
        sum += abs(n) <= reach ? values[n + MOST_REACH] : 0.0f;
    }
    return largest ? most : sum;
}

// margins: as find_margins gives them. windows: int32 [n, 3], of each window the plane that is looked at, how far it
// reaches to each side, and 1 for the largest number in it or 0 for the mean. lines: float32 [n, room, height, width], of
// the pixels in the row. Run for n x faces.
extern "C" __global__ void see_rows(const float* margins, const int* windows, int faces, int room, int width, int height,
                                    float* lines) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int window = blockIdx.z / faces, face = blockIdx.z % faces;
    if (x >= width || y >= height) return;
    const int* of = windows + 3 * window;
    const float* row = margins + (((long long)of[0] * room + face) * height + y) * width;
    lines[(((long long)window * room + face) * height + y) * width + x] = seen(row, 1, x, width, of[1], of[2]);
}

// As see_rows, of the columns of its lines. squares: float32 [n, room, height, width].
extern "C" __global__ void see_columns(const float* lines, const int* windows, int faces, int room, int width, int height,
                                       float* squares) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int window = blockIdx.z / faces, face = blockIdx.z % faces;
    if (x >= width || y >= height) return;
    const int* of = windows + 3 * window;
    long long first = ((long long)window * room + face) * height * width;
    int reach = of[1], largest = of[2], side = 2 * reach + 1;
    float all = seen(lines + first + x, width, y, height, reach, largest);
    squares[first + y * width + x] = largest ? all : all / (side * side);
}

// cores: uint8 [faces, height, width], 1 where `before` is positive `core` pixels around, as far as the image goes.
extern "C" __global__ void find_cores(const float* before, int core, int width, int height, unsigned char* cores) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    before += (long long)face * width * height;
    float least = before[y * width + x];
#pragma unroll
    for (int v = -MOST_CORE; v <= MOST_CORE; ++v)
#pragma unroll
        for (int u = -MOST_CORE; u <= MOST_CORE; ++u) {
            int row = clamped(y + clamped(v, -core, core), 0, height - 1);
            least = fminf(least, before[row * width + clamped(x + clamped(u, -core, core), 0, width - 1)]);
        }
    cores[((long long)face * height + y) * width + x] = least > 0.0f;
}

// Whether one of the numbers of a line, `step` apart, up to `growth` from the one at `at` is not 0.
__device__ inline bool grown(const unsigned char* line, int step, int at, int count, int growth) {
    unsigned found = 0;
#pragma unroll
    for (int n = -MOST_GROWTH; n <= MOST_GROWTH; ++n)
        found |= line[clamped(at + clamped(n, -growth, growth), 0, count - 1) * step];
    return found;
}

// near: uint8 [faces, height, width], 1 where a core is within `growth` pixels in the row.
extern "C" __global__ void grow_rows(const unsigned char* cores, int growth, int width, int height,
                                     unsigned char* near) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    long long row = ((long long)face * height + y) * width;
    near[row + x] = grown(cores + row, 1, x, width, growth);
}

// How much of the mask is left at (x, y) by `hair`, as face_mask takes it, from a margin's mean `reach` pixels around,
// over `span` of it. skin, hairy, painted: the planes SKIN, HAIR and PAINTED of a face; bald: there is no class of hair.
__device__ inline float part_share(const float* skin, const float* hairy, const float* painted, bool bald, float hair,
                                   int reach, float span, int width, int height, int x, int y) {
    const int side = 2 * MOST_PART + 1;
    float sum = 0.0f, of_frame[side * side], of_hair[side * side], of_edit[side * side];
#pragma unroll
    for (int n = 0; n < side * side; ++n) {
        int row = clamped(y + n / side - MOST_PART, 0, height - 1);
        int place = row * width + clamped(x + n % side - MOST_PART, 0, width - 1);
        of_frame[n] = skin[place];
        of_hair[n] = hairy[place];
        of_edit[n] = painted[place];
    }
#pragma unroll
    for (int n = 0; n < side * side; ++n) {
        float bare = bald ? span : fminf(-of_hair[n], fmaxf(of_frame[n], of_edit[n]) + 0.25f * span);
        float part = hair < 1.0f ? bare : -of_frame[n];
        bool within = abs(n / side - MOST_PART) <= reach && abs(n % side - MOST_PART) <= reach;
        sum += within ? part : 0.0f;
    }
    float share = clamped(0.5f + sum / ((2 * reach + 1) * (2 * reach + 1)) / span, 0.0f, 1.0f);
    return 1.0f + fabsf(1.0f - hair) * (share - 1.0f);
}

// margins: as find_margins gives them. found: float32 [faces, height, width], of the frames' faces, as large as they
// count. united: float32 [faces, height, width], the larger of frame and edit, positive inside either mask and not where
// the frame shows one of `things`: where a core is near, by `near` within `growth` rows, and `before` above -`benefit`.
// hair: float32 [faces], how much of it a mask takes in: 0 leaves the frame's and adds none, 1 takes face and hair, 2
// leaves the frame's face. bald, part_reach, span: as part_share takes them. dyed: float32 [faces, height, width], the
// margin of the frame's hair; dye_span: of it over which hair begins. beyond: float32 [height, width], where a head's
// outline is and what lies beyond; outline: float32 [faces], 0 leaves all of that but the hair. shares: float32 [faces,
// height, width], what part_share gives, without the outline. covered: uint32 [faces], set to 0.
extern "C" __global__ void unite(const float* margins, int room, const float* found, int things, const float* before,
                                 const unsigned char* near, int growth, float benefit, int bald, const float* hair,
                                 int part_reach, float span, const float* dyed, float dye_span, const float* beyond,
                                 const float* outline, int width, int height, float* united, float* shares, unsigned* covered) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= width || y >= height) return;
    int place = y * width + x;
    long long plane = width * height, first = face * plane, next = room * plane;
    margins += first;
    float larger = fmaxf(margins[FACE * next + place], found[first + place]);
    float share = part_share(margins + SKIN * next, margins + HAIR * next, margins + PAINTED * next, bald, hair[face],
                             part_reach, span, width, height, x, y);
    if (things) {
        bool thing = grown(near + first + x, width, y, height, growth);
        float outside = -(before[first + place] + benefit);
        larger = thing ? fminf(larger, outside) : larger;
    }
    float dye = fminf(hair[face], 1.0f) * clamped(0.5f + dyed[first + place] / dye_span, 0.0f, 1.0f);
    share *= 1.0f - (1.0f - outline[face]) * beyond[place] * (1.0f - dye);
    united[first + place] = larger;
    shares[first + place] = share;
    if (place == 0) covered[face] = 0;
}

// eroded: uint8 [faces, size, size], 1 where the `erode` pixels on either side in the row are inside too.
extern "C" __global__ void erode_rows(const float* margins, int width, int height, int erode, unsigned char* eroded,
                                      int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    bool inside = x >= erode && x + erode < size;
    margins += (long long)face * width * height;
    float least = 1.0f;
    for (int start = -erode; start <= erode; start += AT_ONCE) {
        float found[AT_ONCE];
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) {
            int column = clamped(x + clamped(start + n, -erode, erode), 0, size - 1);
            found[n] = enlarged(margins, width, height, column, y, size);
        }
#pragma unroll
        for (int n = 0; n < AT_ONCE; ++n) least = fminf(least, found[n]);
    }
    eroded[((long long)face * size + y) * size + x] = inside && least > 0.0f;
}

// As erode_rows, by columns. covered: how many pixels are left inside.
extern "C" __global__ void erode_columns(const unsigned char* rows, int erode, unsigned char* eroded, unsigned* covered,
                                         int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    bool inside = y >= erode && y + erode < size;
    rows += (long long)face * size * size;
    for (int start = -erode; start <= erode; start += AT_ONCE)
#pragma unroll
        for (int n = start; n < start + AT_ONCE; ++n)
            inside &= rows[clamped(y + clamped(n, -erode, erode), 0, size - 1) * size + x] != 0;
    eroded[((long long)face * size + y) * size + x] = inside;
    if (inside) atomicAdd(covered + face, 1u);
}

// How often two boxes of these half widths, one after the other, count a pixel at this distance.
__device__ inline int count(int first, int second, int distance) {
    int narrow = 2 * (first < second ? first : second) + 1, slope = first + second + 1 - abs(distance);
    return slope < narrow ? slope : narrow;
}

// The numbers of a line, `step` apart, that lie around the one at `at`, as often as both boxes count them.
template <class Number>
__device__ inline int counted(const Number* line, int step, int at, int size, int first, int second) {
    int reach = first + second, sum = 0;
    for (int start = -reach; start <= reach; start += AT_ONCE)
#pragma unroll
        for (int n = start; n < start + AT_ONCE; ++n) {
            int number = line[clamped(at + n, 0, size - 1) * step];
            sum += n <= reach && at + n >= 0 && at + n < size ? count(first, second, n) * number : 0;
        }
    return sum;
}

// counts: uint16 [faces, size, size], how many pixels inside both boxes count in the row.
extern "C" __global__ void feather_rows(const unsigned char* eroded, int first, int second, unsigned short* counts,
                                        int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    long long row = ((long long)face * size + y) * size;
    counts[row + x] = (unsigned short)counted(eroded + row, 1, x, size, first, second);
}

// masks: float32 [faces, size, size], times the shares [faces, height, width]; of a face with fewer than `least` pixels
// inside, the usual mask [size, size].
// fade: pixels from the border inwards over which a mask rises, 0 for none; beyond: the same where `found` or `drawn`, the
// margins of the frame's face and of the edit's [faces, height, width], is above `late` at the border, and in between down
// to `span` below that.
extern "C" __global__ void feather_columns(const unsigned short* rows, int first, int second, const unsigned* covered,
                                           int least, const float* usual, const float* shares, const float* found,
                                           const float* drawn, int width, int height, int fade, int beyond, float late,
                                           float span, float* masks, int size) {
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, face = blockIdx.z;
    if (x >= size || y >= size) return;
    long long plane = (long long)width * height;
    int boxes = (2 * first + 1) * (2 * second + 1);
    int sum = counted(rows + (long long)face * size * size + x, size, y, size, first, second);
    float share = enlarged(shares + face * plane, width, height, x, y, size), instead = usual[y * size + x];
    float mask = (int)covered[face] < least ? instead : (float)sum / ((float)boxes * boxes) * share;
    int last = size - 1, depths[4] = {y, x, last - y, last - x};
    if (min(min(depths[0], depths[1]), min(depths[2], depths[3])) < beyond) {
        int columns[4] = {x, 0, x, last}, lines[4] = {0, y, last, y};
        float lowest = 1.0f, margins[4];
#pragma unroll
        for (int border = 0; border < 4; ++border)
            margins[border] = fmaxf(enlarged(found + face * plane, width, height, columns[border], lines[border], size),
                                    enlarged(drawn + face * plane, width, height, columns[border], lines[border], size));
#pragma unroll
        for (int border = 0; border < 4; ++border) {
            float reach = fade + (beyond - fade) * clamped(1.0f + (margins[border] - late) / span, 0.0f, 1.0f);
            lowest = fminf(lowest, depths[border] / reach);
        }
        mask *= lowest * lowest * (3.0f - 2.0f * lowest);
    }
    masks[((long long)face * size + y) * size + x] = mask;
}
