// Weights as files have them, arranged for products; an adapter's update is added on the way.

#pragma once

#include "groups.h"
#include "pool.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

extern "C" {

struct Matrix {  // a part of a product's weights: (outputs, inputs), row by row
    const void* numbers;
    const uint16_t* scale;    // float16 (outputs, groups), where weights are in groups
    const uint16_t* minimum;  // as scale, or null
    int64_t kind;
    int64_t outputs;
    int64_t inputs;
    int64_t first;  // where the product has the first output
    int64_t step;   // of the product's blocks from one block of these to the next
    const float* update;  // (outputs, inputs): times `factor`, it is added to the numbers; or null
    float factor;
};
}

namespace {

template <class From, class To>
inline To converted(From value) {
    To to;
    if constexpr (std::is_same_v<From, To>)
        to = value;
    else
        put(&to, to_float(value));
    return to;
}

struct Packing {
    const Product& p;
    const Matrix& from;

    static constexpr int64_t SIZE = 4;  // blocks of a unit

    static void run(const void* what, Turns& turns, uint64_t number, int64_t) {
        for (int64_t unit; (unit = turns.take(number, 0)) >= 0;) {
            const Packing& all = *static_cast<const Packing*>(what);
            const int64_t blocks = (all.from.outputs + LANES - 1) / LANES;
            for (int64_t b = unit * SIZE; b < blocks && b < (unit + 1) * SIZE; ++b) all.block(b);
            if (turns.complete()) turns.open(OVER, 0);
        }
        turns.take(number, OVER - 1);  // until the last unit is complete
    }

    void block(int64_t b) const {
        switch (p.kind) {
            case FLOAT32: return copy_from<float, 1>(b);
            case BFLOAT16: return copy_from<Half, 1>(b);
            case FLOAT16: return copy_from<Float16, 1>(b);
            case TILED: return copy_from<Half, 2>(b);
            case BITS8_BY_32: return numbers<8>(b, 32);
            case BITS8_BY_16: return numbers<8>(b, 16);
            case BITS4_BY_32: return numbers<4>(b, 32);
            default: return numbers<4>(b, 16);
        }
    }

    // Where output o of the part is among the product's outputs.
    int64_t place(int64_t o) const {
        return from.first + o / LANES * from.step * LANES + o % LANES;
    }

    int64_t outputs_of(int64_t b) const { return std::min<int64_t>(LANES, from.outputs - b * LANES); }

    template <class To, int TOGETHER>
    void copy_from(int64_t b) const {
        switch (from.kind) {
            case FLOAT32: return copy<float, To, TOGETHER>(b);
            case BFLOAT16: return copy<Half, To, TOGETHER>(b);
            default: return copy<Float16, To, TOGETHER>(b);
        }
    }

    template <class From, class To, int TOGETHER>
    void copy(int64_t b) const {
        if constexpr (std::is_same_v<To, Float16> && !std::is_same_v<From, Float16>) {
            return;  // only float16 weights are kept in float16
        } else {
            constexpr int64_t FULL = LANES * TOGETHER;
            const bool aligned = from.first % LANES == 0 && outputs_of(b) == LANES;
            int64_t k = 0;
            for (; aligned && k + FULL <= from.inputs; k += FULL)
                copy_square<From, To, TOGETHER>(b, k);
            for (int64_t i = 0; i < outputs_of(b); ++i)
                copy_row<From, To, TOGETHER>(b * LANES + i, k);
        }
    }

    // 16 inputs of a block, or pairs of them: a square of as many units as outputs.
    template <class From, class To, int TOGETHER>
    void copy_square(int64_t b, int64_t k) const {
        using Unit = std::conditional_t<sizeof(To) * TOGETHER == 4, uint32_t, uint16_t>;
        static_assert(sizeof(Unit) == sizeof(To) * TOGETHER);
        Unit rows[SQUARE], more[SQUARE];
        for (int64_t i = 0; i < LANES; ++i) {
            To made[LANES * TOGETHER];
            sum<From, To>((b * LANES + i) * from.inputs + k, LANES * TOGETHER, made);
            std::memcpy(rows + i * LANES, made, sizeof made);
        }
        // Shuffling four times exchanges rows and columns: it turns an index by four of its bits.
        shuffle(rows, more);
        shuffle(more, rows);
        shuffle(rows, more);
        shuffle(more, reinterpret_cast<Unit*>(place_of<To, TOGETHER>(b * LANES, k)));
    }

    static constexpr int64_t SQUARE = LANES * LANES;

    template <class Unit>
    static void shuffle(const Unit* from, Unit* to) {
        for (int64_t n = 0; n < SQUARE / 2; ++n) {
            to[2 * n] = from[n];
            to[2 * n + 1] = from[n + SQUARE / 2];
        }
    }

    // An output's inputs from k on.
    template <class From, class To, int TOGETHER>
    void copy_row(int64_t o, int64_t k) const {
        for (; k < from.inputs; k += TOGETHER) {
            To made[TOGETHER];
            const int64_t some = std::min<int64_t>(TOGETHER, from.inputs - k);
            sum<From, To>(o * from.inputs + k, some, made);
            std::copy_n(made, some, place_of<To, TOGETHER>(o, k));
        }
    }

    template <class To, int TOGETHER>
    To* place_of(int64_t o, int64_t k) const {
        const int64_t at = place(o);
        return static_cast<To*>(const_cast<void*>(p.weight)) +
               (at / LANES * p.inputs + k) * LANES + at % LANES * TOGETHER;
    }

    // Some numbers with their update. The products and sums are rounded as PyTorch's are: adapters
    // that are merged before give the same bits.
    template <class From, class To>
    inline void sum(int64_t first, int64_t count, To* made) const {
        const From* numbers = static_cast<const From*>(from.numbers) + first;
        if constexpr (!std::is_same_v<To, Float16>) {
            if (from.update) {
                const float* update = from.update + first;
                for (int64_t k = 0; k < count; ++k)
                    put(made + k, update[k] * from.factor + to_float(numbers[k]));
                return;
            }
        }
        for (int64_t k = 0; k < count; ++k) made[k] = converted<From, To>(numbers[k]);
    }

    template <int BITS>
    void numbers(int64_t b, int64_t size) const {
        for (int64_t i = 0; i < outputs_of(b); ++i) {
            const int64_t o = b * LANES + i, at = place(o);
            const uint8_t* row = static_cast<const uint8_t*>(from.numbers) + o * from.inputs;
            uint8_t* to = static_cast<uint8_t*>(const_cast<void*>(p.weight)) +
                          at / LANES * p.inputs * LANES * BITS / 8 + at % LANES * QUAD;
            for (int64_t k = 0; k < from.inputs; k += QUAD * 8 / BITS, to += LINE)
                for (int64_t t = 0; t < QUAD; ++t)
                    to[t] = BITS == 8 ? row[k + t] : row[k + t] | row[k + QUAD + t] << 4;
            scales(at, o, size, from.scale, p.scale);
            if (p.minimum) scales(at, o, size, from.minimum, p.minimum);
        }
    }

    void scales(int64_t at, int64_t o, int64_t size, const uint16_t* of, const void* kept) const {
        uint16_t* to = static_cast<uint16_t*>(const_cast<void*>(kept)) +
                       at / LANES * (p.inputs / size) * LANES + at % LANES;
        for (int64_t g = 0; g < from.inputs / size; ++g)
            to[g * LANES] = of[o * (from.inputs / size) + g];
    }
};

}  // namespace
