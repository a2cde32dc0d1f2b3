// Products of rows with bfloat16 weights by the processor's matrix tiles (Intel AMX).
//
// An input is split into the sum of two bfloat16 numbers, its high and its low half: 16 of the 24
// bits of a float32. A tile's sum for a row and an output does not depend on its other rows.

#pragma once

#include "groups.h"

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

struct alignas(64) Room {
    float sums[4][ROWS][LANES];
};

inline const Half* block_of(const Product& p, int64_t block) {
    return static_cast<const Half*>(p.weight) + block * p.inputs * LANES;
}

// Load a tile of weights, and fetch one further on.
#define LOAD_WEIGHTS(TILE, AT)      \
    fetch(AT);                      \
    _tile_loadd(TILE, AT, 64)


template <bool ADD>
void finish_rows(const Product& p, int64_t block, const float (*sums)[LANES], int64_t row,
                 int64_t rows, float* y, int64_t ld) {
    for (int64_t m = 0; m < ROWS && row + m < rows; ++m)
        finish<ADD>(p, block, load(sums[m]), y + (row + m) * ld);
}

// One block of outputs for 16 rows.
template <bool ADD>
void one_block(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
               float* y, int64_t ld, Room& room) {
    const Half* w = block_of(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    for (int64_t at = 0; at < p.inputs * ROWS; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, low + at, 64);
        LOAD_WEIGHTS(6, w + at);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(0, 5, 6);
    }
    _tile_stored(0, room.sums[0], 64);
    finish_rows<ADD>(p, block, room.sums[0], row, rows, y, ld);
}

// Four blocks of outputs for 16 rows.
template <bool ADD>
void four_blocks(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
                 float* y, int64_t ld, Room& room) {
    const int64_t size = p.inputs * ROWS;
    const Half* w = block_of(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < size; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, low + at, 64);
        LOAD_WEIGHTS(6, w + at);
        LOAD_WEIGHTS(7, w + size + at);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(0, 5, 6);
        _tile_dpbf16ps(1, 5, 7);
        LOAD_WEIGHTS(6, w + 2 * size + at);
        LOAD_WEIGHTS(7, w + 3 * size + at);
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
template <bool ADD>
void two_by_two(const Product& p, int64_t block, const TileInput& x, int64_t row, int64_t rows,
                float* y, int64_t ld, Room& room) {
    const int64_t size = p.inputs * ROWS;
    const Half* w = block_of(p, block);
    const Half *high = x.high + row * p.inputs, *low = x.low + row * p.inputs;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < size; at += SIZE) {
        _tile_loadd(4, high + at, 64);
        _tile_loadd(5, high + size + at, 64);
        LOAD_WEIGHTS(6, w + at);
        LOAD_WEIGHTS(7, w + size + at);
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

// The same as for floats, from inputs in tiles. Needs a `TileUse` around it.
template <bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const TileInput& x, int64_t rows,
              float* y, int64_t ld) {
    Room room;
    if (rows <= ROWS)
        for (; to - from >= 4; from += 4) four_blocks<ADD>(p, from, x, 0, rows, y, ld, room);
    else
        for (; to - from >= 2; from += 2)
            for (int64_t row = 0; row < rows; row += 2 * ROWS)
                two_by_two<ADD>(p, from, x, row, rows, y, ld, room);
    for (; from < to; ++from)
        for (int64_t row = 0; row < rows; row += ROWS)
            one_block<ADD>(p, from, x, row, rows, y, ld, room);
}

}  // namespace
#endif
