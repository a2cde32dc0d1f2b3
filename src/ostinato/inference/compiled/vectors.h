// Vectors of 16 numbers, in the compiler's own types: the same result on every processor.

#pragma once

#include <cstdint>
#include <cstring>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;

// The numbers of a register. A compiler keeps vectors that are wider than this in memory.
#if defined(__AVX512F__)
constexpr int PART = 16;
#elif defined(__AVX__)
constexpr int PART = 8;
#else
constexpr int PART = 4;
#endif

typedef float FloatPart __attribute__((vector_size(PART * 4)));
typedef int32_t IntPart __attribute__((vector_size(PART * 4)));
typedef uint32_t WordPart __attribute__((vector_size(PART * 4)));
typedef uint16_t HalfPart __attribute__((vector_size(PART * 2)));
typedef int8_t BytePart __attribute__((vector_size(PART)));

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

inline float to_float(float value) { return value; }
inline float to_float(Half value) { return bits_as<float>(uint32_t(value.bits) << 16); }

template <class Vector>
inline Vector load_as(const void* from) {
    Vector to;
    std::memcpy(&to, from, sizeof to);
    return to;
}

inline FloatPart load_part(const float* from) { return load_as<FloatPart>(from); }

// The compiler's own conversions are slow: 33 ms a row with int8 weights against 3.8.
#if defined(__AVX512F__)
inline FloatPart load_part(const Half* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return bits_as<FloatPart>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline FloatPart load_part(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return bits_as<FloatPart>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
}
#elif defined(__AVX2__)
inline FloatPart load_part(const Half* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return bits_as<FloatPart>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline FloatPart load_part(const int8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return bits_as<FloatPart>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
}
#else
inline FloatPart load_part(const Half* from) {
    return bits_as<FloatPart>(__builtin_convertvector(load_as<HalfPart>(from), WordPart) << 16);
}

inline FloatPart load_part(const int8_t* from) {
    return __builtin_convertvector(
        __builtin_convertvector(load_as<BytePart>(from), IntPart), FloatPart);
}
#endif

constexpr int PARTS = LANES / PART;

#define EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; ++i)

struct Floats {
    FloatPart part[PARTS];

    float operator[](int lane) const { return part[lane / PART][lane % PART]; }
};

#define ARITHMETIC(SIGN)                                 \
    inline Floats operator SIGN(Floats a, Floats b) {    \
        EACH_PART a.part[i] = a.part[i] SIGN b.part[i];  \
        return a;                                        \
    }                                                    \
    inline Floats operator SIGN(Floats a, float b) {     \
        EACH_PART a.part[i] = a.part[i] SIGN b;          \
        return a;                                        \
    }                                                    \
    inline Floats operator SIGN(float a, Floats b) {     \
        EACH_PART b.part[i] = a SIGN b.part[i];          \
        return b;                                        \
    }
ARITHMETIC(+)
ARITHMETIC(-)
ARITHMETIC(*)
ARITHMETIC(/)
#undef ARITHMETIC

inline Floats operator-(Floats a) {
    EACH_PART a.part[i] = -a.part[i];
    return a;
}
inline Floats& operator+=(Floats& a, Floats b) { return a = a + b; }
inline Floats& operator*=(Floats& a, Floats b) { return a = a * b; }

template <class T>
inline Floats load(const T* from) {
    Floats to;
    EACH_PART to.part[i] = load_part(from + i * PART);
    return to;
}

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
inline FloatPart exponential_part(FloatPart x) {
    FloatPart held = x < -87.0f ? FloatPart{} - 87.0f : x;
    held = held > 88.0f ? FloatPart{} + 88.0f : held;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    FloatPart shifted = held * 1.44269504f + magic;
    FloatPart n = shifted - magic;
    FloatPart r = held - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    FloatPart y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    IntPart power = (bits_as<IntPart>(shifted) - bits_as<int32_t>(magic) + 127) << 23;
    return x < -87.0f ? FloatPart{} : y * bits_as<FloatPart>(power);
}

inline Floats exponential(Floats x) {
    EACH_PART x.part[i] = exponential_part(x.part[i]);
    return x;
}

inline Floats larger(Floats a, Floats b) {
    EACH_PART a.part[i] = a.part[i] > b.part[i] ? a.part[i] : b.part[i];
    return a;
}

}  // namespace
