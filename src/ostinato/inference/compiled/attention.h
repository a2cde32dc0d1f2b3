// A decoder's structures, and its layers' work beside products: norms, RoPE, attention.

#pragma once

#include "products.h"

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
    int64_t weight_kind, cache_kind;  // 0 float32, 1 bfloat16, 2 int8; in tiles 3 bfloat16, 4 int8
    float eps, scale;
    const Layer* layer;
    const float* norm;
    const float* cosines;  // (length, D / 2)
    const float* sines;
    const void* embedding;  // (tokens, width), of the kind of the cache
};
}

namespace {

// RMSNorm of `size` numbers.
void normalize(const float* x, const float* weight, int64_t size, float eps, float* y) {
    Floats squares = {};
    int64_t k = 0;
    for (; k + LANES <= size; k += LANES) {
        Floats values = load(x + k);
        squares += values * values;
    }
    float total = sum(squares);
    for (; k < size; ++k) total += x[k] * x[k];
    const float by_root = 1.0f / __builtin_sqrtf(total / float(size) + eps);
    for (k = 0; k < size; ++k) y[k] = x[k] * by_root * weight[k];
}

// Rotate the pairs (x[i], x[i + D/2]) by the angles of a position (RoPE), times a scale.
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
    const int64_t* tokens;
    const int64_t* slots;
    const int64_t* positions;
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

template <class K, int N>
void score(const K* keys, const float* query, int64_t D, float* scores) {
    Floats sums[N] = {};
    for (int64_t d = 0; d < D; ++d)
        for (int n = 0; n < N; ++n) {
            const K* at = keys + (n * D + d) * LANES;
            __builtin_prefetch(at + N * D * LANES);  // those of the next call
            sums[n] += query[d] * load(at);
        }
    for (int n = 0; n < N; ++n) store(scores + n * LANES, sums[n]);
}

template <class K, int N>
void mix(const K* values, const float* weights, int64_t count, int64_t step, float* mixed) {
    Floats sums[N] = {};
    for (int64_t p = 0; p < count; ++p)
        for (int n = 0; n < N; ++n) {
            const K* at = values + p * step + n * LANES;
            __builtin_prefetch(at + AHEAD * step);
            sums[n] += weights[p] * load(at);
        }
    for (int n = 0; n < N; ++n) store(mixed + n * LANES, sums[n]);
}

// Softmax over the scores `first` to `last`, counted from the start of a block; others are masked.
// Returns 1 / their sum, by which the caller scales the result: fewer products than per weight.
float soften(float* scores, int64_t first, int64_t last) {
    const int64_t blocks = last / LANES + 1;
    for (int64_t p = 0; p < first; ++p) scores[p] = -__builtin_inff();
    for (int64_t p = last + 1; p < blocks * LANES; ++p) scores[p] = -__builtin_inff();
    Floats largest = load(scores);
    for (int64_t b = 1; b < blocks; ++b) {
        const Floats some = load(scores + b * LANES);
        largest = larger(some, largest);
    }
    float most = largest[0];
    for (int lane = 1; lane < LANES; ++lane) most = largest[lane] > most ? largest[lane] : most;
    Floats total = {};
    for (int64_t b = 0; b < blocks; ++b) {
        Floats weights = exponential(load(scores + b * LANES) - most);
        total += weights;
        store(scores + b * LANES, weights);
    }
    return 1.0f / sum(total);
}

// Attention of one query over its slot; returns where the result (D) is, within `scores`.
template <class K>
const float* attend(const Network& net, const Layer& layer, const Rows& rows, int64_t row, int64_t head,
                    const float* query, float* scores) {
    const int64_t D = net.head_dim, P = net.padded_head, at = rows.positions[row];
    const int64_t lane = rows.slots[row] * net.kv_heads + head / (net.heads / net.kv_heads);
    const int64_t seen = layer.window && layer.window <= at ? at - layer.window + 1 : 0;
    const int64_t begin = seen / LANES * LANES, blocks = (at - begin) / LANES + 1;
    const K* keys = static_cast<const K*>(layer.keys) + (lane * net.length + begin) * D;
    const K* values = static_cast<const K*>(layer.values) + (lane * net.length + seen) * P;
    int64_t b = 0;
    for (; b + 8 <= blocks; b += 8) score<K, 8>(keys + b * LANES * D, query, D, scores + b * LANES);
    for (; b + 4 <= blocks; b += 4) score<K, 4>(keys + b * LANES * D, query, D, scores + b * LANES);
    for (; b < blocks; ++b) score<K, 1>(keys + b * LANES * D, query, D, scores + b * LANES);
    const float share = soften(scores, seen - begin, at - begin);
    float* out = scores + blocks * LANES;
    const float* weights = scores + (seen - begin);
    int64_t n = 0;
    for (; n + 4 * LANES <= P; n += 4 * LANES)
        mix<K, 4>(values + n, weights, at - seen + 1, P, out + n);
    for (; n < P; n += LANES) mix<K, 1>(values + n, weights, at - seen + 1, P, out + n);
    for (int64_t d = 0; d < D; ++d) out[d] *= share;
    return out;
}

}  // namespace
