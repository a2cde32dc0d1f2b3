// Products of rows with bfloat16 or int8 weights by the processor's matrix tiles (Intel AMX).
//
// An input is split into the sum of two bfloat16 numbers, its high and its low half: 16 of the 24
// bits of a float32. A tile's sum for a row and an output does not depend on its other rows.

#pragma once

#include "products.h"

#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define HAS_TILES
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int ROWS = 16;    // of a tile
constexpr int DEPTH = 32;   // inputs of a tile
constexpr int SIZE = ROWS * DEPTH;
// Tiles of weights fetched ahead. One lane of smollm2 took 8.4 ms with 2, and 9.1 to 9.8 with 4 to 32.
constexpr int FURTHER = 2;

template <class W>
struct Tiled {};  // weights of type W, in tiles

// Ask the system for the tiles' registers, once for all threads.
bool ask_for_tiles() {
    const long permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, permission, tile_data) == 0;
}

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// Configure this thread's tiles for `rows` rows: 0 to 3 are sums, 4 and 5 inputs, 6 and 7 weights.
struct TileUse {
    explicit TileUse(int64_t rows) {
        TileConfig config;
        for (int i = 0; i < 8; ++i) {
            config.bytes[i] = 64;
            config.rows[i] = i < 6 && rows < ROWS ? uint8_t(rows) : ROWS;
        }
        _tile_loadconfig(&config);
    }
    ~TileUse() { _tile_release(); }
};

inline Floats widened(__m256bh half) {
    return bits_as<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits_as<__m256i>(half)), 16));
}

// The inputs of a product, in tiles of 16 rows and 32 inputs, and those of their low halves.
struct TileInput {
    Half *high, *low;
    int64_t inputs;

    TileInput(float* memory, int64_t inputs, int64_t rows)
        : high(reinterpret_cast<Half*>(memory)),
          low(high + (rows + 2 * ROWS - 1) / (2 * ROWS) * (2 * ROWS) * inputs),
          inputs(inputs) {}

    int64_t place(int64_t row, int64_t k) const {
        return (row / ROWS * (inputs / DEPTH) + k / DEPTH) * SIZE + row % ROWS * DEPTH + k % DEPTH;
    }

    void lay(int64_t row, int64_t k, const float* values, int64_t count) const {
        int64_t i = 0;
        if (k % LANES == 0)
            for (; i + LANES <= count; i += LANES) lay_lanes(place(row, k + i), load(values + i));
        for (; i < count; ++i) lay_one(place(row, k + i), values[i]);
    }

    void lay_lanes(int64_t at, Floats values) const {
        const __m256bh top = _mm512_cvtneps_pbh(bits_as<__m512>(values));
        const __m256bh rest = _mm512_cvtneps_pbh(bits_as<__m512>(values - widened(top)));
        std::memcpy(high + at, &top, sizeof top);
        std::memcpy(low + at, &rest, sizeof rest);
    }

    void lay_one(int64_t at, float value) const {
        put(high + at, value);
        put(low + at, value - to_float(high[at]));
    }
};

inline void fetch(const void* tile) {
    const char* at = static_cast<const char*>(tile) + FURTHER * SIZE * sizeof(Half);
    for (int line = 0; line < ROWS; ++line) __builtin_prefetch(at + line * 64);
}

// A tile of weights as bfloat16: in place, or widened into `room`.
inline const Half* weights_at(const Half* weights, Half*) {
    fetch(weights);
    return weights;
}

inline const Half* weights_at(const int8_t* weights, Half* room) {
    for (int i = 0; i < SIZE; i += 2 * LANES) {
        const __m512 even = bits_as<__m512>(load(weights + i));
        const __m512 odd = bits_as<__m512>(load(weights + i + LANES));
        const __m512bh both = _mm512_cvtne2ps_pbh(odd, even);
        std::memcpy(room + i, &both, sizeof both);
        if (i % 64 == 0) __builtin_prefetch(weights + 2 * FURTHER * SIZE + i);
    }
    return room;
}

struct alignas(64) Room {
    Half weights[4][SIZE];
    float sums[4][ROWS][LANES];
};

template <class W>
const W* block_of(const Product& p, int64_t block) {
    return static_cast<const W*>(p.weight) + block * p.inputs * LANES;
}

template <bool ADD>
void finish_rows(const Product& p, int64_t block, const float (*sums)[LANES], int64_t row,
                 int64_t rows, float* y, int64_t ld) {
    for (int64_t m = 0; m < ROWS && row + m < rows; ++m)
        finish<ADD>(p, block, load(sums[m]), y + (row + m) * ld);
}

// One block of outputs for 16 rows.
template <class W, bool ADD>
void one_block(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
               float* y, int64_t ld, Room& room) {
    const W* w = block_of<W>(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    for (int64_t at = 0; at < p.inputs * ROWS; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, low + at, 64);
        _tile_loadd(6, weights_at(w + at, room.weights[0]), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(0, 5, 6);
    }
    _tile_stored(0, room.sums[0], 64);
    finish_rows<ADD>(p, block, room.sums[0], row, rows, y, ld);
}

// Four blocks of outputs for 16 rows.
template <class W, bool ADD>
void four_blocks(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
                 float* y, int64_t ld, Room& room) {
    const int64_t size = p.inputs * ROWS;
    const W* w = block_of<W>(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < size; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, low + at, 64);
        _tile_loadd(6, weights_at(w + at, room.weights[0]), 64);
        _tile_loadd(7, weights_at(w + size + at, room.weights[1]), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(0, 5, 6);
        _tile_dpbf16ps(1, 5, 7);
        _tile_loadd(6, weights_at(w + 2 * size + at, room.weights[2]), 64);
        _tile_loadd(7, weights_at(w + 3 * size + at, room.weights[3]), 64);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(3, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, room.sums[0], 64);
    _tile_stored(1, room.sums[1], 64);
    _tile_stored(2, room.sums[2], 64);
    _tile_stored(3, room.sums[3], 64);
    for (int n = 0; n < 4; ++n)
        finish_rows<ADD>(p, block + n, room.sums[n], row, rows, y, ld);
}

// Two blocks of outputs for 32 rows.
template <class W, bool ADD>
void two_by_two(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
                float* y, int64_t ld, Room& room) {
    const int64_t size = p.inputs * ROWS;
    const W* w = block_of<W>(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < size; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, high + size + at, 64);
        _tile_loadd(6, weights_at(w + at, room.weights[0]), 64);
        _tile_loadd(7, weights_at(w + size + at, room.weights[1]), 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(4, low + at, 64);
        _tile_loadd(5, low + size + at, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, room.sums[0], 64);
    _tile_stored(1, room.sums[1], 64);
    _tile_stored(2, room.sums[2], 64);
    _tile_stored(3, room.sums[3], 64);
    for (int n = 0; n < 4; ++n)
        finish_rows<ADD>(p, block + n % 2, room.sums[n], row + n / 2 * ROWS, rows, y, ld);
}

template <class T>
struct Untiled;

template <class W>
struct Untiled<Tiled<W>> {
    using type = W;
};

// The same as for floats, from inputs in tiles; `T` is `Tiled<W>`. Needs a `TileUse` around it.
template <class T, bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const TileInput& x, int64_t rows,
              float* y, int64_t ld) {
    using W = typename Untiled<T>::type;
    Room room;
    if (rows <= ROWS)
        for (; to - from >= 4; from += 4) four_blocks<W, ADD>(p, from, x, 0, rows, y, ld, room);
    else
        for (; to - from >= 2; from += 2)
            for (int64_t row = 0; row < rows; row += 2 * ROWS)
                two_by_two<W, ADD>(p, from, x, row, rows, y, ld, room);
    for (; from < to; ++from)
        for (int64_t row = 0; row < rows; row += ROWS)
            one_block<W, ADD>(p, from, x, row, rows, y, ld, room);
}

}  // namespace
#endif
