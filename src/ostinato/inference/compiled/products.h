// Products of rows with weights, in float32 arithmetic.

#pragma once

#include "vectors.h"

extern "C" {

struct Product {       // y = x W^T: weights in blocks of 16 outputs, (outputs / 16, inputs, 16)
    const void* weight;  // for tiles (tiles.h): (outputs / 16, inputs / 2, 16, 2)
    const float* scale;  // of each output, where weights are int8; else null
    const float* bias;   // or null
    int64_t inputs;
    int64_t blocks;
};
}

namespace {

#ifdef __AVX512F__
constexpr int TILE = 16;  // rows that share one pass over the weights: as many sums as registers hold
constexpr int SUMS = 16;
#else
constexpr int TILE = 4;
constexpr int SUMS = 4;
#endif
constexpr int AHEAD = 64;  // inputs: how far ahead weights are prefetched

int tile_of(int64_t rows) {
    int tile = 1;
    while (tile < rows && tile < TILE) tile *= 2;
    return tile;
}

// The inputs of a product, in tiles of rows: (tiles, inputs, rows of a tile).
struct FloatInput {
    float* at;
    int64_t inputs;
    int tile;

    FloatInput(float* memory, int64_t inputs, int64_t rows)
        : at(memory), inputs(inputs), tile(tile_of(rows)) {}

    // Take `count` values of a row, from input k on.
    void lay(int64_t row, int64_t k, const float* values, int64_t count) const {
        float* to = at + (row / tile * inputs + k) * tile + row % tile;
        for (int64_t i = 0; i < count; ++i) to[i * tile] = values[i];
    }
};

// Scale the sums of one block of outputs, add the bias, and store them.
template <bool ADD>
inline void finish(const Product& p, int64_t block, Floats made, float* row) {
    const int64_t at = block * LANES;
    if (p.scale) made *= load(p.scale + at);
    if (p.bias) made += load(p.bias + at);
    store(row + at, ADD ? load(row + at) + made : made);
}

template <class W, int MR, int NR, bool ADD>
void products(const Product& p, int64_t block, const float* x, int64_t rows, float* y, int64_t ld) {
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
            for (int m = 0; m < MR; ++m) sums[n][m] += x[k * MR + m] * weights;
        }
    }
    for (int n = 0; n < NR; ++n)
        for (int m = 0; m < rows && m < MR; ++m)
            finish<ADD>(p, block + n, sums[n][m], y + m * ld);
}

template <class W, int MR, int NR, bool ADD>
int64_t groups(const Product& p, int64_t from, int64_t to, const float* x, int64_t rows, float* y,
               int64_t ld) {
    for (; to - from >= NR; from += NR)
        for (int64_t row = 0; row < rows; row += MR)
            products<W, MR, NR, ADD>(p, from, x + row * p.inputs, rows - row, y + row * ld, ld);
    return from;
}

template <class W, int MR, bool ADD>
void blocks(const Product& p, int64_t from, int64_t to, const float* x, int64_t rows, float* y,
            int64_t ld) {
    constexpr int MOST = SUMS / MR < 1 ? 1 : SUMS / MR > 8 ? 8 : SUMS / MR;
    from = groups<W, MR, MOST, ADD>(p, from, to, x, rows, y, ld);
    if (MOST > 4) from = groups<W, MR, 4, ADD>(p, from, to, x, rows, y, ld);
    if (MOST > 2) from = groups<W, MR, 2, ADD>(p, from, to, x, rows, y, ld);
    groups<W, MR, 1, ADD>(p, from, to, x, rows, y, ld);
}

// y (rows, ld) of the blocks `from` to `to`. ADD: add to the values in y.
template <class W, bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const FloatInput& x, int64_t rows,
              float* y, int64_t ld) {
    switch (x.tile) {
        case 1: return blocks<W, 1, ADD>(p, from, to, x.at, rows, y, ld);
        case 2: return blocks<W, 2, ADD>(p, from, to, x.at, rows, y, ld);
#ifdef __AVX512F__
        case 8: return blocks<W, 8, ADD>(p, from, to, x.at, rows, y, ld);
        case 16: return blocks<W, 16, ADD>(p, from, to, x.at, rows, y, ld);
#endif
        default: return blocks<W, 4, ADD>(p, from, to, x.at, rows, y, ld);
    }
}

}  // namespace
