// Vectors of 16 numbers, in the compiler's own types: the same result on every processor.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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

struct Half {
    uint16_t bits;  // bfloat16
};

struct Float16 {
    uint16_t bits;
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

inline float to_float(Float16 value) {
    const float size = bits_as<float>(uint32_t(value.bits & 0x7fff) << 13) * 0x1p112f;
    return bits_as<float>(bits_as<uint32_t>(size) | uint32_t(value.bits & 0x8000) << 16);
}

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

inline FloatPart load_part(const Float16* from) {
    return bits_as<FloatPart>(
        _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
#elif defined(__AVX2__) && defined(__F16C__)
inline FloatPart load_part(const Half* from) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return bits_as<FloatPart>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

inline FloatPart load_part(const Float16* from) {
    return bits_as<FloatPart>(
        _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#else
inline FloatPart load_part(const Half* from) {
    return bits_as<FloatPart>(__builtin_convertvector(load_as<HalfPart>(from), WordPart) << 16);
}

// All but the sign, moved to where a float32 has it: too small by 2^112, also where denormal.
inline FloatPart load_part(const Float16* from) {
    const WordPart bits = __builtin_convertvector(load_as<HalfPart>(from), WordPart);
    const FloatPart size = bits_as<FloatPart>((bits & 0x7fff) << 13) * 0x1p112f;
    return bits_as<FloatPart>(bits_as<WordPart>(size) | (bits & 0x8000) << 16);
}
#endif

constexpr int PARTS = LANES / PART;

#define EACH_PART _Pragma("GCC unroll 4") for (int i = 0; i < PARTS; ++i)

struct Floats {
    FloatPart part[PARTS];

    float operator[](int lane) const { return part[lane / PART][lane % PART]; }
};

struct Ints {
    IntPart part[PARTS];
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

inline FloatPart repeated(float value) {
#if defined(__AVX512F__)
    return bits_as<FloatPart>(_mm512_set1_ps(value));
#elif defined(__AVX__)
    return bits_as<FloatPart>(_mm256_set1_ps(value));
#else
    return FloatPart{value, value, value, value};
#endif
}

// a * b + c, rounded once where the processor can: not left to the compiler, which may choose.
inline float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

inline FloatPart fused_part(FloatPart a, FloatPart b, FloatPart c) {
#if defined(__AVX512F__)
    return bits_as<FloatPart>(
        _mm512_fmadd_ps(bits_as<__m512>(a), bits_as<__m512>(b), bits_as<__m512>(c)));
#elif defined(__FMA__)
    return bits_as<FloatPart>(
        _mm256_fmadd_ps(bits_as<__m256>(a), bits_as<__m256>(b), bits_as<__m256>(c)));
#elif defined(__aarch64__)
    return bits_as<FloatPart>(vfmaq_f32(bits_as<float32x4_t>(c), bits_as<float32x4_t>(a),
                                        bits_as<float32x4_t>(b)));
#else
    return a * b + c;
#endif
}

inline Floats fused(Floats a, Floats b, Floats c) {
    EACH_PART c.part[i] = fused_part(a.part[i], b.part[i], c.part[i]);
    return c;
}
inline Floats fused(float a, Floats b, Floats c) {
    const FloatPart all = repeated(a);
    EACH_PART c.part[i] = fused_part(all, b.part[i], c.part[i]);
    return c;
}

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

inline Floats to_floats(Ints values) {
    Floats to;
    EACH_PART to.part[i] = __builtin_convertvector(values.part[i], FloatPart);
    return to;
}

constexpr float MAGIC = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number

// The nearest whole numbers, ties to even, of `values` times `factor`; they must be below 2^22.
inline Ints nearest(Floats values, float factor) {
    Ints to;
    const FloatPart all = repeated(factor), magic = repeated(MAGIC);
    EACH_PART to.part[i] = bits_as<IntPart>(fused_part(values.part[i], all, magic)) -
                           bits_as<int32_t>(MAGIC);
    return to;
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
    FloatPart shifted = fused_part(held, repeated(1.44269504f), repeated(MAGIC));
    FloatPart n = shifted - MAGIC;
    FloatPart r = fused_part(n, repeated(-0.693359375f), held);
    r = fused_part(n, repeated(2.12194440e-4f), r);
    FloatPart y = fused_part(r, repeated(1.9875691500e-4f), repeated(1.3981999507e-3f));
    y = fused_part(y, r, repeated(8.3334519073e-3f));
    y = fused_part(y, r, repeated(4.1665795894e-2f));
    y = fused_part(y, r, repeated(1.6666665459e-1f));
    y = fused_part(y, r, repeated(5.0000001201e-1f));
    y = fused_part(y, r * r, r) + 1.0f;
    IntPart power = (bits_as<IntPart>(shifted) - bits_as<int32_t>(MAGIC) + 127) << 23;
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

inline float largest(Floats values) {
    float most = values[0];
    for (int lane = 1; lane < LANES; ++lane) most = values[lane] > most ? values[lane] : most;
    return most;
}

}  // namespace
