// A decoder's structures, and its layers' work beside products: norms, RoPE, attention.

#pragma once

#include "groups.h"

extern "C" {

struct Layer {
    const float* norm1;
    Product qkv;
    const float* q_norm;  // or null
    const float* k_norm;
    Product out;
    const float* norm2;
    Product up;  // a block of the gate, a block of up, and so on
    Product down;
    void* keys;    // (slots, KV, length / 16, D, 16)
    void* values;  // (slots, KV, length, padded D)
    int64_t window;  // positions seen, 0 for all
};

struct Network {
    int64_t layers, width, padded_width, heads, kv_heads, head_dim, padded_head, inner, length;
    int64_t input_kind;  // of rows: 0 float32, 1 in tiles, 2 in groups
    int64_t cache_kind, embedding_kind;
    float eps, scale;
    const Layer* layer;
    const float* norm;
    const float* cosines;  // (length, D / 2)
    const float* sines;
    const void* embedding;  // (tokens, width); of the kind PACKED a Product
};
}

namespace {

// RMSNorm of `size` numbers.
void normalize(const float* x, const float* weight, int64_t size, float eps, float* y) {
    Floats squares = {};
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) {
        const Floats values = load(x + k);
        squares = fused(values, values, squares);
    }
    float total = sum(squares);
    for (; k < size; ++k) total = fused(x[k], x[k], total);
    const float by_root = 1.0f / __builtin_sqrtf(total / float(size) + eps);
    for (k = 0; k < size; ++k) y[k] = x[k] * by_root * weight[k];
}

// Rotate the pairs (x[i], x[i + D/2]) by the angles of a position (RoPE), times a scale.
void turn(const Network& net, float* x, int64_t position, float scale) {
    const int64_t half = net.head_dim / 2;
    const float *c = net.cosines + position * half, *s = net.sines + position * half;
    for (int64_t i = 0; i < half; ++i) {
        const float a = x[i], b = x[i + half];
        x[i] = fused(a, c[i], -(b * s[i])) * scale;
        x[i + half] = fused(b, c[i], a * s[i]) * scale;
    }
}

struct Rows {
    int64_t count;
    const int64_t* tokens;
    const int64_t* slots;
    const int64_t* positions;
    bool wanted;  // else only the keys and values of the rows are
};

// Normalize and rotate the queries and the key of one row and key head; store its key and value.
template <class K>
void keep(const Network& net, const Layer& layer, const Rows& rows, int64_t row, int64_t head,
          float* qkv) {
    const int64_t D = net.head_dim, group = net.heads / net.kv_heads, at = rows.positions[row];
    float* key = qkv + (net.heads + head) * D;
    const float* value = key + net.kv_heads * D;
    for (int64_t h = head * group; h < (head + 1) * group; ++h) {
        float* query = qkv + h * D;
        if (layer.q_norm) normalize(query, layer.q_norm, D, net.eps, query);
        turn(net, query, at, net.scale);
    }
    if (layer.k_norm) normalize(key, layer.k_norm, D, net.eps, key);
    turn(net, key, at, 1.0f);
    const int64_t lane = rows.slots[row] * net.kv_heads + head;
    K* keys = static_cast<K*>(layer.keys) + (lane * net.length + at / LANES * LANES) * D;
    K* values = static_cast<K*>(layer.values) + (lane * net.length + at) * net.padded_head;
    for (int64_t d = 0; d < D; ++d) {
        put(keys + d * LANES + at % LANES, key[d]);
        put(values + d, value[d]);
    }
}

constexpr int QUERIES = 4;  // of one row and key head, which share the reading of keys and values
constexpr int SPAN = PART == 16 ? 4 : 2;  // blocks side by side: as many sums as registers hold

// The scores (Q, ...) of Q queries (Q, D), of N blocks of positions.
template <class K, int Q, int N>
void score(const K* keys, const float* queries, int64_t D, float* scores, int64_t apart) {
    Floats sums[Q][N] = {};
    for (int64_t d = 0; d < D; ++d)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            const K* at = keys + (n * D + d) * LANES;
            __builtin_prefetch(at + N * D * LANES);  // those of the next call
            const Floats some = load(at);
#pragma GCC unroll 4
            for (int q = 0; q < Q; ++q) sums[q][n] = fused(queries[q * D + d], some, sums[q][n]);
        }
    for (int q = 0; q < Q; ++q)
        for (int n = 0; n < N; ++n) store(scores + q * apart + n * LANES, sums[q][n]);
}

// The sums (Q, ...) of `count` values by Q rows of weights, of N blocks of a head's numbers.
template <class K, int Q, int N>
void mix(const K* values, const float* weights, int64_t apart, int64_t count, int64_t step,
         float* mixed) {
    Floats sums[Q][N] = {};
    for (int64_t p = 0; p < count; ++p)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
            const K* at = values + p * step + n * LANES;
            __builtin_prefetch(at + AHEAD * step);
            const Floats some = load(at);
#pragma GCC unroll 4
            for (int q = 0; q < Q; ++q) sums[q][n] = fused(weights[q * apart + p], some, sums[q][n]);
        }
    for (int q = 0; q < Q; ++q)
        for (int n = 0; n < N; ++n) store(mixed + q * apart + n * LANES, sums[q][n]);
}

// Softmax over the scores `first` to `last`, counted from the start of a block; others are masked.
// Returns 1 / their sum, by which the caller scales the result: fewer products than per weight.
float soften(float* scores, int64_t first, int64_t last) {
    const int64_t blocks = last / LANES + 1;
    for (int64_t p = 0; p < first; ++p) scores[p] = -__builtin_inff();
    for (int64_t p = last + 1; p < blocks * LANES; ++p) scores[p] = -__builtin_inff();
    Floats each = load(scores);
    for (int64_t b = 1; b < blocks; ++b) {
        const Floats some = load(scores + b * LANES);
        each = larger(some, each);
    }
    const float most = largest(each);
    Floats total = {};
    for (int64_t b = 0; b < blocks; ++b) {
        Floats weights = exponential(load(scores + b * LANES) - most);
        total += weights;
        store(scores + b * LANES, weights);
    }
    return 1.0f / sum(total);
}

// The memory of `attend`, in floats: for each query its scores, then its result.
inline int64_t attention_floats(const Network& net) {
    return QUERIES * (net.length + LANES + net.padded_head);
}

// Attention of Q queries of one row, which have a key head in common, over the row's slot. Calls
// `take` with the number of each query and its result (D).
template <class K, int Q, class Take>
void attend(const Network& net, const Layer& layer, const Rows& rows, int64_t row, int64_t head,
            const float* queries, float* scores, Take take) {
    const int64_t D = net.head_dim, P = net.padded_head, at = rows.positions[row];
    const int64_t lane = rows.slots[row] * net.kv_heads + head;
    const int64_t seen = layer.window && layer.window <= at ? at - layer.window + 1 : 0;
    const int64_t begin = seen / LANES * LANES, blocks = (at - begin) / LANES + 1;
    const int64_t apart = blocks * LANES + P;
    const K* keys = static_cast<const K*>(layer.keys) + (lane * net.length + begin) * D;
    const K* values = static_cast<const K*>(layer.values) + (lane * net.length + seen) * P;
    int64_t b = 0;
    for (; b + SPAN <= blocks; b += SPAN)
        score<K, Q, SPAN>(keys + b * LANES * D, queries, D, scores + b * LANES, apart);
    for (; b < blocks; ++b)
        score<K, Q, 1>(keys + b * LANES * D, queries, D, scores + b * LANES, apart);
    float share[Q];
    for (int q = 0; q < Q; ++q) share[q] = soften(scores + q * apart, seen - begin, at - begin);
    const float* weights = scores + (seen - begin);
    float* out = scores + blocks * LANES;
    int64_t n = 0;
    for (; n + SPAN * LANES <= P; n += SPAN * LANES)
        mix<K, Q, SPAN>(values + n, weights, apart, at - seen + 1, P, out + n);
    for (; n < P; n += LANES)
        mix<K, Q, 1>(values + n, weights, apart, at - seen + 1, P, out + n);
    for (int q = 0; q < Q; ++q) {
        for (int64_t d = 0; d < D; ++d) out[q * apart + d] *= share[q];
        take(q, out + q * apart);
    }
}

}  // namespace
