// One pass of a Llama-like decoder over rows, each a token of some place at some position.
//
// What comes out for a row depends on its place's tokens alone. Lanes of a vector are different
// outputs (or positions), so every sum runs over its terms in one order, whatever the number of
// rows, of threads, or of lanes that the processor has. Knows no sampling and no Python.

#include <cstdint>
#include <cstring>

#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

constexpr int LANES = 16;
#ifdef __AVX512F__
constexpr int TILE = 16;  // rows that share one pass over the weights; registers hold so many sums
constexpr int SUMS = 16;
#else
constexpr int TILE = 4;
constexpr int SUMS = 4;
#endif
constexpr int AHEAD = 64;  // inputs

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

#ifdef __AVX512F__  // what the compiler makes of the plain forms is several times as slow
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

inline void put(Half* to, float value) {  // to the nearest, ties to even; not a number stays so
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

// --- what Python fills in -----------------------------------------------------------------------

extern "C" {

struct Product {       // y = x W^T: weights in blocks of 16 outputs, (outputs / 16, inputs, 16)
    const void* weight;
    const float* scale;  // of each output, where weights are int8; else null
    const float* bias;   // or null
    int64_t inputs;
    int64_t blocks;
};

struct Layer {
    const float* norm1;
    Product qkv;
    const float* q_norm;  // or null
    const float* k_norm;
    Product out;
    const float* norm2;
    Product up;  // a block of the gate, a block of up, and so on
    Product down;
    void* keys;    // (places, KV, length / 16, D, 16)
    void* values;  // (places, KV, length, padded D)
    int64_t window;  // positions seen, 0 for all
};

struct Network {
    int64_t layers, width, padded_width, heads, kv_heads, head_dim, padded_head, inner, length;
    int64_t weight_kind, cache_kind;  // 0 float32, 1 bfloat16, 2 int8
    float eps, scale;
    const Layer* layer;
    const float* norm;
    const float* cosines;  // (length, D / 2)
    const float* sines;
};
}

namespace {

int tile_of(int64_t rows) {
    int tile = 1;
    while (tile < rows && tile < TILE) tile *= 2;
    return tile;
}

struct Team {  // this thread, among those that share the work
    int64_t index, size;

    int64_t first(int64_t all) const { return all * index / size; }
    int64_t last(int64_t all) const { return all * (index + 1) / size; }
};

inline void wait_for_all() {
#pragma omp barrier
}

// Where element k of a row stands when rows are laid out in tiles: (tiles, k, rows of a tile).
inline int64_t in_tiles(int64_t row, int64_t k, int64_t size, int tile) {
    return (row / tile * size + k) * tile + row % tile;
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
            __builtin_prefetch(at + AHEAD * LANES);  // the hardware stops at each page
            Floats weights = load(at);
#pragma GCC unroll 16
            for (int m = 0; m < MR; ++m) sums[n][m] += x[k * MR + m] * weights;
        }
    }
    for (int n = 0; n < NR; ++n) {
        const int64_t at = (block + n) * LANES;
        for (int m = 0; m < rows && m < MR; ++m) {
            Floats made = sums[n][m];
            if (p.scale) made *= load(p.scale + at);
            if (p.bias) made += load(p.bias + at);
            float* to = y + m * ld + at;
            store(to, ADD ? load(to) + made : made);
        }
    }
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

// y (rows, ld) of the blocks `from` to `to`; x is in tiles. ADD: on top of what y holds.
template <class W, bool ADD>
void multiply(const Product& p, int64_t from, int64_t to, const float* x, int64_t rows, float* y,
              int64_t ld) {
    switch (tile_of(rows)) {
        case 1: return blocks<W, 1, ADD>(p, from, to, x, rows, y, ld);
        case 2: return blocks<W, 2, ADD>(p, from, to, x, rows, y, ld);
#ifdef __AVX512F__
        case 8: return blocks<W, 8, ADD>(p, from, to, x, rows, y, ld);
        case 16: return blocks<W, 16, ADD>(p, from, to, x, rows, y, ld);
#endif
        default: return blocks<W, 4, ADD>(p, from, to, x, rows, y, ld);
    }
}

// RMSNorm of `size` numbers; the step `by` between results lays them into a tile.
void normalise(const float* x, const float* weight, int64_t size, float eps, float* y, int64_t by) {
    Floats squares = {};
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) {
        Floats values = load(x + k);
        squares += values * values;
    }
    float total = sum(squares);
    for (; k < size; ++k) total += x[k] * x[k];
    const float by_root = 1.0f / __builtin_sqrtf(total / float(size) + eps);
    for (k = 0; k < size; ++k) y[k * by] = x[k] * by_root * weight[k];
}

void normalise_rows(const Network& net, const float* x, const float* weight, int64_t rows,
                    float* tiles) {
    const int tile = tile_of(rows);
    for (int64_t row = 0; row < rows; ++row)
        normalise(x + row * net.padded_width, weight, net.width, net.eps,
                  tiles + in_tiles(row, 0, net.width, tile), tile);
}

// Turn the pairs (x[i], x[i + D/2]) by the angles of a position (RoPE), times a scale.
void turn(const Network& net, float* x, int64_t position, float scale) {
    const int64_t half = net.head_dim / 2;
    const float *c = net.cosines + position * half, *s = net.sines + position * half;
    for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = (a * c[i] - b * s[i]) * scale;
        x[i + half] = (b * c[i] + a * s[i]) * scale;
    }
}

struct Rows {
    int64_t count;
    const int64_t* places;
    const int64_t* positions;
};

// Norm and turn the queries and the key of one row and key head; keep its key and value.
template <class K>
void keep(const Network& net, const Layer& layer, const Rows& rows, int64_t row, int64_t head,
          float* qkv) {
    const int64_t D = net.head_dim, group = net.heads / net.kv_heads, at = rows.positions[row];
    float* key = qkv + (net.heads + head) * D;
    const float* value = key + net.kv_heads * D;
    for (int64_t h = head * group; h < (head + 1) * group; ++h) {
        float* query = qkv + h * D;
        if (layer.q_norm) normalise(query, layer.q_norm, D, net.eps, query, 1);
        turn(net, query, at, net.scale);
    }
    if (layer.k_norm) normalise(key, layer.k_norm, D, net.eps, key, 1);
    turn(net, key, at, 1.0f);
    const int64_t lane = rows.places[row] * net.kv_heads + head;
    K* keys = static_cast<K*>(layer.keys) + (lane * net.length + at / LANES * LANES) * D;
    K* values = static_cast<K*>(layer.values) + (lane * net.length + at) * net.padded_head;
    for (int64_t d = 0; d < D; ++d) {
        put(keys + d * LANES + at % LANES, key[d]);
        put(values + d, value[d]);
    }
}

template <class K, int N>
void score(const K* keys, const float* query, int64_t D, float* scores) {
    Floats sums[N] = {};
    for (int64_t d = 0; d < D; ++d)
        for (int n = 0; n < N; ++n) sums[n] += query[d] * load(keys + (n * D + d) * LANES);
    for (int n = 0; n < N; ++n) store(scores + n * LANES, sums[n]);
}

template <class K, int N>
void mix(const K* values, const float* weights, int64_t count, int64_t step, float* mixed) {
    Floats sums[N] = {};
    for (int64_t p = 0; p < count; ++p)
        for (int n = 0; n < N; ++n) sums[n] += weights[p] * load(values + p * step + n * LANES);
    for (int n = 0; n < N; ++n) store(mixed + n * LANES, sums[n]);
}

// Softmax over scores; what is before `first` or after `last` (from the start of a block) is out.
// Returns 1 / their sum: the weights are left as they are.
float soften(float* scores, int64_t first, int64_t last) {
    const int64_t blocks = last / LANES + 1;
    for (int64_t p = 0; p < first; ++p) scores[p] = -__builtin_inff();
    for (int64_t p = last + 1; p < blocks * LANES; ++p) scores[p] = -__builtin_inff();
    float most = scores[first];
    for (int64_t p = first + 1; p <= last; ++p) most = scores[p] > most ? scores[p] : most;
    Floats total = {};
    for (int64_t b = 0; b < blocks; ++b) {
        Floats weights = exponential(load(scores + b * LANES) - most);
        total += weights;
        store(scores + b * LANES, weights);
    }
    return 1.0f / sum(total);
}

// Attention of one query over its place, into the tiles of `mixed`.
template <class K>
void attend(const Network& net, const Layer& layer, const Rows& rows, int64_t row, int64_t head,
            const float* query, float* scores, float* mixed) {
    const int64_t D = net.head_dim, P = net.padded_head, at = rows.positions[row];
    const int64_t lane = rows.places[row] * net.kv_heads + head / (net.heads / net.kv_heads);
    const int64_t seen = layer.window && layer.window <= at ? at - layer.window + 1 : 0;
    const int64_t begin = seen / LANES * LANES, blocks = (at - begin) / LANES + 1;
    const K* keys = static_cast<const K*>(layer.keys) + (lane * net.length + begin) * D;
    const K* values = static_cast<const K*>(layer.values) + (lane * net.length + seen) * P;
    int64_t b = 0;
    for (; b + 4 <= blocks; b += 4) score<K, 4>(keys + b * LANES * D, query, D, scores + b * LANES);
    for (; b < blocks; ++b) score<K, 1>(keys + b * LANES * D, query, D, scores + b * LANES);
    const float share = soften(scores, seen - begin, at - begin);
    float* out = scores + blocks * LANES;
    const float* weights = scores + (seen - begin);
    int64_t n = 0;
    for (; n + 4 * LANES <= P; n += 4 * LANES)
        mix<K, 4>(values + n, weights, at - seen + 1, P, out + n);
    for (; n < P; n += LANES) mix<K, 1>(values + n, weights, at - seen + 1, P, out + n);
    const int tile = tile_of(rows.count);
    for (int64_t d = 0; d < D; ++d)
        mixed[in_tiles(row, head * D + d, net.heads * D, tile)] = out[d] * share;
}

// SwiGLU: silu(gate) * up for the blocks of this thread, into the tiles of `act`.
void gate(const Network& net, const float* inner, int64_t rows, const Team& team, float* act) {
    const int tile = tile_of(rows);
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t b = team.first(net.inner / LANES); b < team.last(net.inner / LANES); ++b) {
            const float* pair = inner + (row * net.inner + b * LANES) * 2;
            Floats g = load(pair);
            Floats made = g / (exponential(-g) + 1.0f) * load(pair + LANES);
            float* to = act + in_tiles(row, b * LANES, net.inner, tile);
            for (int lane = 0; lane < LANES; ++lane) to[lane * tile] = made[lane];
        }
}

struct Scratch {  // shared by the threads, but for `own`
    float *x, *qkv, *mixed, *inner, *act, *own;
    int64_t own_size;
};

int64_t rounded(int64_t rows) { return (rows + TILE - 1) / TILE * TILE; }

int64_t lay_out(const Network& net, int64_t most, int64_t threads, float* base, Scratch* scratch) {
    const int64_t rows = rounded(most);
    const int64_t qkv = net.layer[0].qkv.blocks * LANES, mixed = net.heads * net.head_dim;
    const int64_t tiles = rows * net.width, scores = net.length + 2 * LANES + net.padded_head;
    scratch->own_size = (tiles > scores ? tiles : scores) + LANES;
    scratch->x = base;
    scratch->qkv = scratch->x + rows * net.padded_width;
    scratch->mixed = scratch->qkv + rows * qkv;
    scratch->inner = scratch->mixed + rows * mixed;
    scratch->act = scratch->inner + rows * net.inner * 2;
    scratch->own = scratch->act + rows * net.inner;
    return scratch->own + threads * scratch->own_size - base;
}

template <class W, class K>
void pass_layer(const Network& net, const Layer& layer, const Rows& rows, const Team& team,
                const Scratch& s) {
    const int64_t M = rows.count, ld = layer.qkv.blocks * LANES, H = net.heads, D = net.head_dim;
    float* own = s.own + team.index * s.own_size;
    normalise_rows(net, s.x, layer.norm1, M, own);
    multiply<W, false>(layer.qkv, team.first(layer.qkv.blocks), team.last(layer.qkv.blocks), own, M,
                       s.qkv, ld);
    wait_for_all();
    for (int64_t n = team.first(M * net.kv_heads); n < team.last(M * net.kv_heads); ++n)
        keep<K>(net, layer, rows, n / net.kv_heads, n % net.kv_heads,
                s.qkv + n / net.kv_heads * ld);
    wait_for_all();
    for (int64_t n = team.first(M * H); n < team.last(M * H); ++n)
        attend<K>(net, layer, rows, n / H, n % H, s.qkv + n / H * ld + n % H * D, own, s.mixed);
    wait_for_all();
    multiply<W, true>(layer.out, team.first(layer.out.blocks), team.last(layer.out.blocks), s.mixed,
                      M, s.x, net.padded_width);
    wait_for_all();
    normalise_rows(net, s.x, layer.norm2, M, own);
    const int64_t pairs = net.inner / LANES;
    multiply<W, false>(layer.up, team.first(pairs) * 2, team.last(pairs) * 2, own, M, s.inner,
                       net.inner * 2);
    gate(net, s.inner, M, team, s.act);
    wait_for_all();
    multiply<W, true>(layer.down, team.first(layer.down.blocks), team.last(layer.down.blocks),
                      s.act, M, s.x, net.padded_width);
    wait_for_all();
}

template <class W, class K>
void pass(const Network& net, const Rows& rows, const Scratch& scratch, int64_t threads,
          float* hidden) {
#pragma omp parallel num_threads(threads)
    {
        Team team{0, 1};
#ifdef _OPENMP
        team = Team{omp_get_thread_num(), omp_get_num_threads()};
#endif
        for (int64_t i = 0; i < net.layers; ++i)
            pass_layer<W, K>(net, net.layer[i], rows, team, scratch);
        for (int64_t row = team.first(rows.count); row < team.last(rows.count); ++row)
            normalise(scratch.x + row * net.padded_width, net.norm, net.width, net.eps,
                      hidden + row * net.width, 1);
    }
}

template <class W>
void head(const Product& p, const float* x, int64_t rows, int64_t threads, float* y) {
#pragma omp parallel num_threads(threads)
    {
        Team team{0, 1};
#ifdef _OPENMP
        team = Team{omp_get_thread_num(), omp_get_num_threads()};
#endif
        multiply<W, false>(p, team.first(p.blocks), team.last(p.blocks), x, rows, y,
                           p.blocks * LANES);
    }
}

}  // namespace

// --- what Python calls ----------------------------------------------------------------------------

extern "C" {

// The floats of scratch memory that `rows` rows and `threads` threads need.
int64_t scratch_floats(const Network* net, int64_t rows, int64_t threads) {
    Scratch scratch;
    return lay_out(*net, rows, threads, nullptr, &scratch);
}

// Compute rows: x (rows, padded width) begins the scratch memory; hidden (rows, width).
void forward(const Network* net, int64_t count, const int64_t* places, const int64_t* positions,
             int64_t most, int64_t threads, float* memory, float* hidden) {
    Scratch scratch;
    lay_out(*net, most, threads, memory, &scratch);
    const Rows rows{count, places, positions};
    if (net->weight_kind == 0) return pass<float, float>(*net, rows, scratch, threads, hidden);
    if (net->weight_kind == 1) return pass<Half, Half>(*net, rows, scratch, threads, hidden);
    if (net->cache_kind == 0) return pass<int8_t, float>(*net, rows, scratch, threads, hidden);
    return pass<int8_t, Half>(*net, rows, scratch, threads, hidden);
}

// y (rows, outputs) of x (rows, inputs), at most `TILE` rows in tiles of memory that is given.
void product(const Product* p, int64_t kind, const float* x, int64_t rows, int64_t threads,
             float* memory, float* y) {
    for (int64_t from = 0; from < rows; from += TILE) {
        const int64_t some = rows - from < TILE ? rows - from : TILE;
        for (int64_t row = 0; row < some; ++row)
            for (int64_t k = 0; k < p->inputs; ++k)
                memory[in_tiles(row, k, p->inputs, tile_of(some))] = x[(from + row) * p->inputs + k];
        float* to = y + from * p->blocks * LANES;
        if (kind == 0) head<float>(*p, memory, some, threads, to);
        if (kind == 1) head<Half>(*p, memory, some, threads, to);
        if (kind == 2) head<int8_t>(*p, memory, some, threads, to);
    }
}
}
