// Products of rows with weights, in float32 arithmetic.

#pragma once

#include "vectors.h"

extern "C" {

// How weights are kept. Grouped ones are whole numbers with a scale per group of inputs (groups.h).
enum Kind : int64_t {
    FLOAT32,
    BFLOAT16,
    FLOAT16,
    TILED,  // bfloat16 for matrix tiles (tiles.h): (outputs / 16, inputs / 2, 16, 2)
    BITS8_BY_32,
    BITS8_BY_16,
    BITS4_BY_32,
    BITS4_BY_16,
    PACKED,  // of embeddings: as the product that they point to, such as the head's
};

struct Product {       // y = x W^T: weights in blocks of 16 outputs, (outputs / 16, inputs, 16)
    const void* weight;
    const void* scale;    // float16 (outputs / 16, groups, 16), or null
    const void* minimum;  // as scale, or null
    const float* bias;    // or null
    int64_t inputs;
    int64_t blocks;  // with those of the next ones
    int64_t kind;
    int64_t offset;  // that whole numbers are above what they stand for
    int64_t own;     // blocks of this one
    const Product* next;  // weights in another format, of further outputs from the same inputs
};
}

namespace {

constexpr int64_t MOST = 96;  // rows of a pass (MAX_HEADS of weights.py depends on it)

// A tile is as many sums as the registers hold: rows, times the blocks of a panel.
#if defined(__AVX512F__)
constexpr int TILE = 12, PANEL = 2;
#elif defined(__AVX2__) || defined(__aarch64__)
constexpr int TILE = 6, PANEL = 1;
#else
constexpr int TILE = 2, PANEL = 1;
#endif
constexpr int FEW = 4;     // rows up to which weights are multiplied as they are read
constexpr int CHUNK = 512;  // inputs of a panel, at most
constexpr int SHORT = 128;  // and for some lanes: it and their inputs stay in the nearest cache
constexpr int SOME = 32;   // rows
constexpr int AHEAD = 64;  // inputs: how far ahead weights are prefetched

// Rows in tiles of nearly equal size, the larger ones first.
struct Tiling {
    int64_t tiles, size, larger;

    explicit Tiling(int64_t rows)
        : tiles(rows <= FEW ? 1 : (rows + TILE - 1) / TILE),
          size(rows / tiles),
          larger(rows % tiles) {}

    int64_t first(int64_t tile) const { return tile * size + (tile < larger ? tile : larger); }
    int64_t rows(int64_t tile) const { return size + (tile < larger); }
    int64_t tile_of(int64_t row) const {
        const int64_t before = larger * (size + 1);
        return row < before ? row / (size + 1) : larger + (row - before) / size;
    }
};

// The inputs of a product, in tiles of rows: (tiles, inputs, rows of a tile).
struct FloatInput {
    float* at;
    int64_t inputs;
    Tiling tiling;

    FloatInput(float* memory, int64_t inputs, int64_t rows)
        : at(memory), inputs(inputs), tiling(rows) {}

    float* tile(int64_t tile) const { return at + tiling.first(tile) * inputs; }

    // Take `count` values of a row, from input k on.
    void lay(int64_t row, int64_t k, const float* values, int64_t count) const {
        const int64_t t = tiling.tile_of(row), rows = tiling.rows(t);
        float* to = tile(t) + k * rows + row - tiling.first(t);
        for (int64_t i = 0; i < count; ++i) to[i * rows] = values[i];
    }
};

// Add the bias to the sums of one block of outputs, and store them.
template <bool ADD>
inline void finish(const Product& p, int64_t block, Floats made, float* row) {
    const int64_t at = block * LANES;
    if (p.bias) made += load(p.bias + at);
    store(row + at, ADD ? load(row + at) + made : made);
}

// --- few rows: reading the weights takes longer than multiplying them -----------------------------

// Blocks side by side for `rows` rows: as many sums as no sum has to wait for its last addition.
constexpr int side_by_side(int rows) {
    int blocks = 8;
    while (blocks > 1 && rows * blocks > (PART == 16 ? 16 : 6)) blocks /= 2;
    return blocks;
}

template <class W, int MR, int NR, bool ADD>
void products(const Product& p, int64_t block, const float* x, float* y, int64_t ld) {
    const int64_t I = p.inputs;
    const W* w = static_cast<const W*>(p.weight) + block * I * LANES;
    Floats sums[NR][MR] = {};
    for (int64_t k = 0; k < I; ++k) {
#pragma GCC unroll 16
        for (int n = 0; n < NR; ++n) {
            const W* at = w + (n * I + k) * LANES;
            // The hardware stops prefetching at each page: 38 ms for 16 rows instead of 20.
            __builtin_prefetch(at + AHEAD * LANES);
            Floats weights = load(at);
#pragma GCC unroll 16
            for (int m = 0; m < MR; ++m) sums[n][m] = fused(x[k * MR + m], weights, sums[n][m]);
        }
    }
    for (int n = 0; n < NR; ++n)
        for (int m = 0; m < MR; ++m) finish<ADD>(p, block + n, sums[n][m], y + m * ld);
}

template <class W, int MR, int NR, bool ADD>
void blocks(const Product& p, int64_t from, int64_t to, const float* x, float* y, int64_t ld) {
    for (; to - from >= NR; from += NR) products<W, MR, NR, ADD>(p, from, x, y, ld);
    if constexpr (NR > 1) blocks<W, MR, NR / 2, ADD>(p, from, to, x, y, ld);
}


// --- many rows: a panel of weights is widened once, then multiplied by tile after tile ------------

template <class W, int NB>
void widen(const W* w, int64_t inputs, int64_t count, float* panel) {
    for (int64_t k = 0; k < count; ++k)
        for (int n = 0; n < NB; ++n)
            store(panel + (k * NB + n) * LANES, load(w + (n * inputs + k) * LANES));
}

// Add a panel's products to the sums (MR, NB) of a tile; fetch `ahead`, in steps, meanwhile.
template <int MR, int NB>
void add_tile(const float* x, const float* panel, int64_t count, float* sums, const char* ahead,
              int64_t step, int64_t apart) {
    Floats s[MR][NB];
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < NB; ++n) s[m][n] = load(sums + (m * NB + n) * LANES);
    for (int64_t k = 0; k < count; ++k) {
        Floats w[NB];
#pragma GCC unroll 2
        for (int n = 0; n < NB; ++n) {
            __builtin_prefetch(ahead + k * step + n * apart);
            w[n] = load(panel + (k * NB + n) * LANES);
        }
#pragma GCC unroll 16
        for (int m = 0; m < MR; ++m)
#pragma GCC unroll 2
            for (int n = 0; n < NB; ++n) s[m][n] = fused(x[k * MR + m], w[n], s[m][n]);
    }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 2
        for (int n = 0; n < NB; ++n) store(sums + (m * NB + n) * LANES, s[m][n]);
}

template <int MR, int NB, class... Args>
void add_tile_of(int64_t rows, Args... args) {
    if (rows == MR) return add_tile<MR, NB>(args...);
    if constexpr (MR > 1) add_tile_of<MR - 1, NB>(rows, args...);
}

template <class W, int NB, bool ADD>
void panels(const Product& p, int64_t block, const FloatInput& x, float* y, int64_t ld) {
    alignas(64) float panel[CHUNK * NB * LANES];
    alignas(64) float sums[MOST * NB * LANES];
    const int64_t I = p.inputs, apart = I * LANES * sizeof(W), step = LANES * sizeof(W);
    const W* w = static_cast<const W*>(p.weight) + block * I * LANES;
    const Tiling& tiling = x.tiling;
    std::memset(sums, 0, (tiling.first(tiling.tiles)) * NB * LANES * sizeof(float));
    const int64_t chunk = tiling.first(tiling.tiles) <= SOME ? SHORT : CHUNK;
    for (int64_t k = 0; k < I; k += chunk) {
        const int64_t count = I - k < chunk ? I - k : chunk;
        widen<W, NB>(w + k * LANES, I, count, panel);
        // The next panel's weights, those of the next blocks after the last.
        const char* ahead = reinterpret_cast<const char*>(w + (k + count) * LANES);
        if (k + count == I) ahead += (NB - 1) * apart;
        for (int64_t t = 0; t < tiling.tiles; ++t) {
            const int64_t rows = tiling.rows(t);
            add_tile_of<TILE, NB>(rows, x.tile(t) + k * rows, panel, count,
                                  sums + tiling.first(t) * NB * LANES, ahead, t ? 0 : step, apart);
        }
    }
    for (int64_t row = 0; row < tiling.first(tiling.tiles); ++row)
        for (int n = 0; n < NB; ++n)
            finish<ADD>(p, block + n, load(sums + (row * NB + n) * LANES), y + row * ld);
}

template <class W, bool ADD>
void multiply_as(const Product& p, int64_t from, int64_t to, const FloatInput& x, int64_t rows,
                 float* y, int64_t ld) {
    switch (rows) {
        case 1: return blocks<W, 1, side_by_side(1), ADD>(p, from, to, x.at, y, ld);
        case 2: return blocks<W, 2, side_by_side(2), ADD>(p, from, to, x.at, y, ld);
        case 3: return blocks<W, 3, side_by_side(3), ADD>(p, from, to, x.at, y, ld);
        case 4: return blocks<W, 4, side_by_side(4), ADD>(p, from, to, x.at, y, ld);
    }
    for (; to - from >= PANEL; from += PANEL) panels<W, PANEL, ADD>(p, from, x, y, ld);
    for (; from < to; ++from) panels<W, 1, ADD>(p, from, x, y, ld);
}

// y (rows, ld) of the blocks `from` to `to`. ADD: add to the values in y.
template <bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const FloatInput& x, int64_t rows,
              float* y, int64_t ld) {
    switch (p.kind) {
        case FLOAT32: return multiply_as<float, ADD>(p, from, to, x, rows, y, ld);
        case BFLOAT16: return multiply_as<Half, ADD>(p, from, to, x, rows, y, ld);
        default: return multiply_as<Float16, ADD>(p, from, to, x, rows, y, ld);
    }
}

}  // namespace
