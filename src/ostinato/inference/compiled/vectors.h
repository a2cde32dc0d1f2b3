// Vectors of 16 numbers, in the compiler's own types: the same result on every processor.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef int8_t Bytes __attribute__((vector_size(16)));

struct Half {
    uint16_t bits;  // bfloat16
};

template <class To, class From>
inline To bits_as(From from) {
    To to;
    static_assert(sizeof(To) == sizeof(From), "of one size");
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Vector>
inline Vector load_as(const void* from) {
    Vector to;
    std::memcpy(&to, from, sizeof to);
    return to;
}

inline Floats load(const float* from) { return load_as<Floats>(from); }

// The compiler's own conversions are slow: 33 ms a row with int8 weights against 3.8.
#ifdef __AVX512F__
inline Floats load(const Half* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return bits_as<Floats>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline Floats load(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return bits_as<Floats>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
}
#else
inline Floats load(const Half* from) {
    return bits_as<Floats>(__builtin_convertvector(load_as<Halves>(from), Words) << 16);
}

inline Floats load(const int8_t* from) {
    return __builtin_convertvector(__builtin_convertvector(load_as<Bytes>(from), Ints), Floats);
}
#endif

inline void store(float* to, Floats from) { std::memcpy(to, &from, sizeof from); }

inline void put(float* to, float value) { *to = value; }

inline void put(Half* to, float value) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t bits = bits_as<uint32_t>(value);
    bool number = (bits & 0x7fffffff) <= 0x7f800000;
    to->bits = number ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : uint16_t(0x7fc0);
}

inline float sum(Floats values) {
    float total = 0;
    for (int lane = 0; lane < LANES; ++lane) total += values[lane];
    return total;
}

// e to the power of x: 2^n times a polynomial of degree 6 in what is left of x (as in Cephes).
inline Floats exponential(Floats x) {
    Floats held = x < -87.0f ? Floats{} - 87.0f : x;
    held = held > 88.0f ? Floats{} + 88.0f : held;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    Floats shifted = held * 1.44269504f + magic;
    Floats n = shifted - magic;
    Floats r = held - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    Floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    Ints power = (bits_as<Ints>(shifted) - bits_as<int32_t>(magic) + 127) << 23;
    return x < -87.0f ? Floats{} : y * bits_as<Floats>(power);
}

}  // namespace
