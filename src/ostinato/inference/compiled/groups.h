// Products of rows with weights in groups: whole numbers of 8 or 4 bits, which share a scale.
//
// A row's inputs are rounded to 8 bits, with a scale for each 32. The products of a group are summed
// in whole numbers, so exactly, in whatever order a processor likes; sums of groups are in float32.

#pragma once

#include "products.h"

#include <initializer_list>

namespace {

constexpr int GROUP = 32;  // inputs that share a row's scale
constexpr int QUAD = 4;    // inputs side by side in memory: (inputs / 4, 16 outputs, 4)
constexpr int LINE = LANES * QUAD;  // bytes of a quad of 8-bit weights, or of two of 4 bits

// Rows of float32 numbers, as they come.
struct PlainRows {
    float* at;
    int64_t inputs;

    PlainRows(float* memory, int64_t inputs, int64_t) : at(memory), inputs(inputs) {}

    void lay(int64_t row, int64_t k, const float* values, int64_t count) const {
        std::memcpy(at + row * inputs + k, values, count * sizeof(float));
    }
};

// Rows in 8 bits.
struct GroupInput {
    int8_t* numbers;  // (inputs / 32, rows, 32)
    float* scales;    // (inputs / 32, rows)
    int32_t* sums;    // (inputs / 16, rows), of the numbers
    int64_t inputs, rows;

    GroupInput(float* memory, int64_t inputs, int64_t rows)
        : numbers(reinterpret_cast<int8_t*>(memory)),
          scales(memory + rows * inputs / 4),
          sums(reinterpret_cast<int32_t*>(scales + rows * inputs / GROUP)),
          inputs(inputs), rows(rows) {}

    static int64_t floats(int64_t inputs, int64_t rows) {
        return rows * (inputs / 4 + inputs / GROUP + inputs / LANES);
    }

    void round_row(int64_t row, const float* values) const {
        Floats wrong = {};  // NaN where a value is not finite
        for (int64_t g = 0; g < inputs / GROUP; ++g, values += GROUP) {
            const Floats low = load(values), high = load(values + LANES);
            const float most = largest(larger(larger(low, -low), larger(high, -high)));
            wrong += low * 0.0f + high * 0.0f;
            const bool any = most > 1e-30f;
            const float factor = any ? 127.0f / most : 0.0f;
            scales[g * rows + row] = any ? most / 127.0f : 0.0f;
            int8_t* to = numbers + (g * rows + row) * GROUP;
            sums[2 * g * rows + row] = keep_rounded(low, factor, to);
            sums[(2 * g + 1) * rows + row] = keep_rounded(high, factor, to + LANES);
        }
        if (sum(wrong) != 0.0f)
            for (int64_t g = 0; g < inputs / GROUP; ++g)
                scales[g * rows + row] = __builtin_nanf("");
    }

    static int32_t keep_rounded(Floats values, float factor, int8_t* to) {
        int32_t whole[LANES], sum = 0;
        const Ints rounded = nearest(values, factor);
        std::memcpy(whole, &rounded, sizeof whole);
        for (int i = 0; i < LANES; ++i) {
            to[i] = int8_t(whole[i]);
            sum += whole[i];
        }
        return sum;
    }
};

// --- the sums of products of one group with some rows ---------------------------------------------
//
// `Weights<BITS, SIZE>` holds the weights of a group of SIZE inputs, for 16 outputs; `sums<R>` are
// those with R rows, 32 numbers apart, of weights without a sign times numbers with one.

#if defined(__AVX512VNNI__)

template <int BITS, int SIZE>
struct Weights {
    __m512i quads[SIZE / QUAD];

    explicit Weights(const uint8_t* at) {
        for (int j = 0; j < SIZE / QUAD; ++j)
            if constexpr (BITS == 8) {
                quads[j] = _mm512_loadu_si512(at + j * LINE);
            } else {
                const __m512i both = _mm512_loadu_si512(at + j / 2 * LINE);
                quads[j] = _mm512_and_si512(j % 2 ? _mm512_srli_epi16(both, 4) : both,
                                            _mm512_set1_epi8(15));
            }
    }

    template <int R>
    void sums(const int8_t* x, Ints* made) const {
        for (int m = 0; m < R; ++m) {
            __m512i even = _mm512_setzero_si512(), odd = even;
            for (int j = 0; j < SIZE / QUAD; j += 2) {
                even = _mm512_dpbusd_epi32(even, quads[j], quad_of(x + m * GROUP + j * QUAD));
                odd = _mm512_dpbusd_epi32(odd, quads[j + 1],
                                          quad_of(x + m * GROUP + (j + 1) * QUAD));
            }
            made[m] = bits_as<Ints>(_mm512_add_epi32(even, odd));
        }
    }

    static __m512i quad_of(const int8_t* x) { return _mm512_set1_epi32(load_as<int32_t>(x)); }
};

#elif defined(__AVX2__)

inline __m256i quad_of(const int8_t* x) { return _mm256_set1_epi32(load_as<int32_t>(x)); }

#if defined(__AVXVNNI__)

template <int BITS, int SIZE>
struct Weights {
    alignas(32) uint8_t quads[SIZE / QUAD][LINE];

    explicit Weights(const uint8_t* at) {
        for (int j = 0; j < SIZE / QUAD; ++j)
            for (int half = 0; half < LINE; half += 32) {
                __m256i some = load_as<__m256i>(at + (BITS == 8 ? j : j / 2) * LINE + half);
                if (BITS == 4)
                    some = _mm256_and_si256(j % 2 ? _mm256_srli_epi16(some, 4) : some,
                                            _mm256_set1_epi8(15));
                _mm256_store_si256(reinterpret_cast<__m256i*>(quads[j] + half), some);
            }
    }

    template <int R>
    void sums(const int8_t* x, Ints* made) const {
        __m256i s[R][2] = {};
#pragma GCC unroll 8
        for (int j = 0; j < SIZE / QUAD; ++j) {
            const __m256i low = load_as<__m256i>(quads[j]), high = load_as<__m256i>(quads[j] + 32);
#pragma GCC unroll 4
            for (int m = 0; m < R; ++m) {
                const __m256i four = quad_of(x + m * GROUP + j * QUAD);
                s[m][0] = _mm256_dpbusd_avx_epi32(s[m][0], low, four);
                s[m][1] = _mm256_dpbusd_avx_epi32(s[m][1], high, four);
            }
        }
        for (int m = 0; m < R; ++m) std::memcpy(made + m, s[m], sizeof(Ints));
    }
};

#else

// Half bytes: the sums of a group's products with numbers up to 127 then fit 16 bits.
template <int BITS, int SIZE>
struct Weights {
    static constexpr int PLANES = BITS / 4;
    alignas(32) uint8_t quads[PLANES][SIZE / QUAD][LINE];

    explicit Weights(const uint8_t* at) {
        const __m256i low = _mm256_set1_epi8(15);
        for (int line = 0; line < SIZE * BITS / 8 / QUAD; ++line)
            for (int half = 0; half < LINE; half += 32) {
                const __m256i both = load_as<__m256i>(at + line * LINE + half);
                keep(line, 0, half, _mm256_and_si256(both, low));
                keep(line, 1, half, _mm256_and_si256(_mm256_srli_epi16(both, 4), low));
            }
    }

    // Of 8 bits, the upper half is another plane; of 4, another quad.
    void keep(int line, int upper, int half, __m256i some) {
        uint8_t* at = PLANES == 2 ? quads[upper][line] : quads[0][line * 2 + upper];
        _mm256_store_si256(reinterpret_cast<__m256i*>(at + half), some);
    }

    template <int R>
    void sums(const int8_t* x, Ints* made) const {
        __m256i total[R][2] = {};
#pragma GCC unroll 2
        for (int plane = 0; plane < PLANES; ++plane) {
            __m256i s[R][2] = {};
            if constexpr (R == 1) {
#pragma GCC unroll 1
                for (int j = 0; j < SIZE / QUAD; ++j) add_quad<R>(quads[plane][j], x + j * QUAD, s);
            } else {
#pragma GCC unroll 8
                for (int j = 0; j < SIZE / QUAD; ++j) {
                    add_quad<R>(quads[plane][j], x + j * QUAD, s);
                    // Else GCC makes all products first, for which there are too few registers.
                    for (int m = 0; m < R; ++m) asm("" : "+x"(s[m][0]), "+x"(s[m][1]));
                }
            }
            const __m256i each = _mm256_set1_epi16(plane ? 16 : 1);
            for (int m = 0; m < R; ++m)
                for (int h = 0; h < 2; ++h)
                    total[m][h] = _mm256_add_epi32(total[m][h], _mm256_madd_epi16(s[m][h], each));
        }
        for (int m = 0; m < R; ++m) std::memcpy(made + m, total[m], sizeof(Ints));
    }

    template <int R>
    static void add_quad(const uint8_t* w, const int8_t* x, __m256i (&s)[R][2]) {
        const __m256i low = load_as<__m256i>(w), high = load_as<__m256i>(w + 32);
#pragma GCC unroll 4
        for (int m = 0; m < R; ++m) {
            const __m256i four = quad_of(x + m * GROUP);
            s[m][0] = _mm256_add_epi16(s[m][0], _mm256_maddubs_epi16(low, four));
            s[m][1] = _mm256_add_epi16(s[m][1], _mm256_maddubs_epi16(high, four));
        }
    }
};

#endif
#else

template <int BITS, int SIZE>
struct Weights {
    uint8_t quads[SIZE / QUAD][LINE];

    explicit Weights(const uint8_t* at) {
        for (int j = 0; j < SIZE / QUAD; ++j)
            for (int i = 0; i < LINE; ++i)
                quads[j][i] = BITS == 8 ? at[j * LINE + i]
                                        : at[j / 2 * LINE + i] >> (j % 2 ? 4 : 0) & 15;
    }

    template <int R>
    void sums(const int8_t* x, Ints* made) const {
        for (int m = 0; m < R; ++m) {
            int32_t s[LANES] = {};
            for (int j = 0; j < SIZE / QUAD; ++j) add(quads[j], x + m * GROUP + j * QUAD, s);
            std::memcpy(made + m, s, sizeof s);
        }
    }

#if defined(__ARM_FEATURE_DOTPROD)
    static void add(const uint8_t* w, const int8_t* x, int32_t* s) {
        const int8x16_t four = vreinterpretq_s8_s32(vdupq_n_s32(load_as<int32_t>(x)));
        const int32x4_t above = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(64), four);
        for (int o = 0; o < LANES; o += 4) {  // weights less 128, which have a sign
            const uint8x16_t some = veorq_u8(vld1q_u8(w + o * QUAD), vdupq_n_u8(128));
            int32x4_t sum = vdotq_s32(vld1q_s32(s + o), vreinterpretq_s8_u8(some), four);
            vst1q_s32(s + o, vaddq_s32(sum, vaddq_s32(above, above)));
        }
    }
#else
    static void add(const uint8_t* w, const int8_t* x, int32_t* s) {
        for (int o = 0; o < LANES; ++o)
            for (int i = 0; i < QUAD; ++i) s[o] += int32_t(w[o * QUAD + i]) * x[i];
    }
#endif
};

#endif

// --- products ---------------------------------------------------------------------------------

// A group of a block: its weights, and what whole numbers are multiplied by and stand for.
template <int BITS, int SIZE>
struct Group {
    Weights<BITS, SIZE> weights;
    Floats scale, minimum;
    int64_t index, offset;
    bool has_minimum;

    Group(const Product& p, int64_t block, int64_t g)
        : weights(static_cast<const uint8_t*>(p.weight) +
                  (block * p.inputs + g * SIZE) * LANES * BITS / 8),
          scale(load(static_cast<const Float16*>(p.scale) + at(p, block, g))),
          minimum(p.minimum ? load(static_cast<const Float16*>(p.minimum) + at(p, block, g))
                            : Floats{}),
          index(g), offset(p.offset), has_minimum(p.minimum) {}

    static int64_t at(const Product& p, int64_t block, int64_t g) {
        return (block * (p.inputs / SIZE) + g) * LANES;
    }

    // Add the products with R rows, from `row` on, to their sums (rows, 16).
    template <int R>
    void add(const GroupInput& x, int64_t row, float* made) const {
        const int64_t wide = index * SIZE / GROUP * x.rows + row;  // of the rows' group of 32
        const int32_t* totals = x.sums + index * SIZE / LANES * x.rows + row;
        Ints whole[R];
        weights.template sums<R>(x.numbers + wide * GROUP + index * SIZE % GROUP, whole);
        made += row * LANES;
#pragma GCC unroll 4
        for (int m = 0; m < R; ++m, made += LANES) {
            const int32_t total = SIZE == GROUP ? totals[m] + totals[x.rows + m] : totals[m];
            const float by = x.scales[wide + m];
            EACH_PART whole[m].part[i] -= int32_t(offset) * total;
            Floats sums = fused(to_floats(whole[m]), scale * by, load(made));
            if (has_minimum) sums = fused(by * float(total), minimum, sums);
            store(made, sums);
        }
    }
};

template <int BITS, int SIZE, bool ADD>
void multiply_groups(const Product& p, int64_t from, int64_t to, const GroupInput& x,
                     int64_t rows, float* y, int64_t ld) {
    alignas(64) float made[MOST * LANES];
    constexpr int64_t BYTES = SIZE * LANES * BITS / 8;
    for (int64_t block = from; block < to; ++block) {
        std::memset(made, 0, rows * LANES * sizeof(float));
        const char* next = static_cast<const char*>(p.weight) + block * (p.inputs / SIZE) * BYTES;
        next += 4096;
        for (int64_t g = 0; g < p.inputs / SIZE; ++g, next += BYTES) {
            for (int64_t line = 0; line < BYTES; line += 64) __builtin_prefetch(next + line);
            const Group<BITS, SIZE> group(p, block, g);
            int64_t row = 0;
            for (; row + 4 <= rows; row += 4) group.template add<4>(x, row, made);
            for (; row + 2 <= rows; row += 2) group.template add<2>(x, row, made);
            for (; row < rows; ++row) group.template add<1>(x, row, made);
        }
        for (int64_t row = 0; row < rows; ++row)
            finish<ADD>(p, block, load(made + row * LANES), y + row * ld);
    }
}

template <bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const GroupInput& x, int64_t rows,
              float* y, int64_t ld) {
    if (to > p.own) {
        const int64_t first = from > p.own ? from - p.own : 0;
        multiply<ADD>(*p.next, first, to - p.own, x, rows, y + p.own * LANES, ld);
        to = p.own;
    }
    if (from >= to) return;
    switch (p.kind) {
        case BITS8_BY_32: return multiply_groups<8, 32, ADD>(p, from, to, x, rows, y, ld);
        case BITS8_BY_16: return multiply_groups<8, 16, ADD>(p, from, to, x, rows, y, ld);
        case BITS4_BY_32: return multiply_groups<4, 32, ADD>(p, from, to, x, rows, y, ld);
        default: return multiply_groups<4, 16, ADD>(p, from, to, x, rows, y, ld);
    }
}

// The weights of one output that lie `TOGETHER` inputs side by side, widened.
template <class W, int TOGETHER>
void widen_floats(const Product& p, int64_t output, int64_t count, float* to) {
    const W* at = static_cast<const W*>(p.weight) + output / LANES * p.inputs * LANES;
    at += output % LANES * TOGETHER;
    for (int64_t k = 0; k < count; ++k)
        to[k] = to_float(at[k / TOGETHER * TOGETHER * LANES + k % TOGETHER]);
}

// The weights of one output, widened.
void widen_output(const Product& p, int64_t output, int64_t count, float* to) {
    switch (p.kind) {
        case FLOAT32: return widen_floats<float, 1>(p, output, count, to);
        case BFLOAT16: return widen_floats<Half, 1>(p, output, count, to);
        case FLOAT16: return widen_floats<Float16, 1>(p, output, count, to);
        case TILED: return widen_floats<Half, 2>(p, output, count, to);
    }
    const int64_t block = output / LANES, lane = output % LANES;
    const int64_t size = p.kind == BITS8_BY_32 || p.kind == BITS4_BY_32 ? 32 : 16;
    const bool narrow = p.kind == BITS4_BY_32 || p.kind == BITS4_BY_16;
    const uint8_t* at = static_cast<const uint8_t*>(p.weight);
    const Float16* scale = static_cast<const Float16*>(p.scale);
    const Float16* minimum = static_cast<const Float16*>(p.minimum);
    for (int64_t k = 0; k < count; ++k) {
        const int64_t quad = block * (p.inputs / QUAD) + k / QUAD, i = lane * QUAD + k % QUAD;
        const int64_t g = (block * (p.inputs / size) + k / size) * LANES + lane;
        const int whole = narrow ? at[quad / 2 * LINE + i] >> (quad % 2 ? 4 : 0) & 15
                                 : at[quad * LINE + i];
        to[k] = fused(float(whole - int(p.offset)), to_float(scale[g]),
                      minimum ? to_float(minimum[g]) : 0.0f);
    }
}

}  // namespace
