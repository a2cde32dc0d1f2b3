// One pass of a Llama-like decoder over rows; a row is a token of some slot at some position.
//
// The result of a row depends on its slot's tokens alone. Lanes of a vector are different outputs
// (or positions), so every sum has one order, whatever the number of rows, of threads, or of lanes
// that the processor has. Knows no sampling and no Python.

#ifdef _OPENMP
#include <omp.h>
#endif

#include "attention.h"
#include "tiles.h"

namespace {

template <class W>
struct InputOf {
    using type = FloatInput;
};

struct Unneeded {
    explicit Unneeded(int64_t) {}
};

template <class W>
struct UseOf {  // a thread's claim on the tile registers while it multiplies
    using type = Unneeded;
};

#ifdef HAS_TILES
template <class W>
struct InputOf<Tiled<W>> {
    using type = TileInput;
};

template <class W>
struct UseOf<Tiled<W>> {
    using type = TileUse;
};
#endif

struct Team {  // this thread, among those that share the work
    int64_t index, size;

    int64_t first(int64_t all) const { return all * index / size; }
    int64_t last(int64_t all) const { return all * (index + 1) / size; }
};

inline void wait_for_all() {
#pragma omp barrier
}

template <class Input>
void normalize_rows(const Network& net, const float* x, const float* weight, int64_t rows,
                    const Input& input, float* row_room) {
    for (int64_t k = net.width; k < input.inputs; ++k) row_room[k] = 0;
    for (int64_t row = 0; row < rows; ++row) {
        normalize(x + row * net.padded_width, weight, net.width, net.eps, row_room);
        input.lay(row, 0, row_room, input.inputs);
    }
}

// SwiGLU: silu(gate) * up for the blocks of this thread.
template <class Input>
void gate(const Network& net, const float* inner, int64_t rows, const Team& team,
          const Input& act) {
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t b = team.first(net.inner / LANES); b < team.last(net.inner / LANES); ++b) {
            const float* pair = inner + (row * net.inner + b * LANES) * 2;
            const Floats g = load(pair);
            float made[LANES];
            store(made, g / (exponential(-g) + 1.0f) * load(pair + LANES));
            act.lay(row, b * LANES, made, LANES);
        }
}

struct Scratch {  // shared by the threads, but for `own`
    float *x, *qkv, *mixed, *inner, *act, *own;
    int64_t own_size;
};

constexpr int64_t WHOLE = 32;  // rows: tiles read and write whole groups, the surplus is unused

int64_t lay_out(const Network& net, int64_t most, int64_t threads, float* base, Scratch* scratch) {
    const Layer& layer = net.layer[0];
    const int64_t rows = (most + WHOLE - 1) / WHOLE * WHOLE;
    const int64_t normed = (rows + 1) * layer.qkv.inputs;
    const int64_t scores = net.length + 2 * LANES + net.padded_head;
    scratch->own_size = (normed > scores ? normed : scores) + LANES;
    scratch->x = base;
    scratch->qkv = scratch->x + rows * net.padded_width;
    scratch->mixed = scratch->qkv + rows * layer.qkv.blocks * LANES;
    scratch->inner = scratch->mixed + rows * layer.out.inputs;
    scratch->act = scratch->inner + rows * net.inner * 2;
    scratch->own = scratch->act + rows * layer.down.inputs;
    return scratch->own + threads * scratch->own_size - base;
}

template <class W, class K>
void pass_layer(const Network& net, const Layer& layer, const Rows& rows, const Team& team,
                const Scratch& s) {
    using Input = typename InputOf<W>::type;
    const int64_t M = rows.count, ld = layer.qkv.blocks * LANES, H = net.heads, D = net.head_dim;
    float *own = s.own + team.index * s.own_size, *row_room = own + s.own_size - LANES;
    row_room -= layer.qkv.inputs;
    const Input normed(own, layer.qkv.inputs, M);
    const Input mixed(s.mixed, layer.out.inputs, M), act(s.act, layer.down.inputs, M);
    normalize_rows(net, s.x, layer.norm1, M, normed, row_room);
    multiply<W, false>(layer.qkv, team.first(layer.qkv.blocks), team.last(layer.qkv.blocks),
                       normed, M, s.qkv, ld);
    wait_for_all();
    for (int64_t n = team.first(M * net.kv_heads); n < team.last(M * net.kv_heads); ++n)
        keep<K>(net, layer, rows, n / net.kv_heads, n % net.kv_heads,
                s.qkv + n / net.kv_heads * ld);
    wait_for_all();
    for (int64_t n = team.first(M * H); n < team.last(M * H); ++n) {
        const float* made = attend<K>(net, layer, rows, n / H, n % H,
                                      s.qkv + n / H * ld + n % H * D, own);
        mixed.lay(n / H, n % H * D, made, D);
    }
    wait_for_all();
    multiply<W, true>(layer.out, team.first(layer.out.blocks), team.last(layer.out.blocks), mixed,
                      M, s.x, net.padded_width);
    wait_for_all();
    normalize_rows(net, s.x, layer.norm2, M, normed, row_room);
    const int64_t pairs = net.inner / LANES;
    multiply<W, false>(layer.up, team.first(pairs) * 2, team.last(pairs) * 2, normed, M, s.inner,
                       net.inner * 2);
    gate(net, s.inner, M, team, act);
    wait_for_all();
    multiply<W, true>(layer.down, team.first(layer.down.blocks), team.last(layer.down.blocks), act,
                      M, s.x, net.padded_width);
    wait_for_all();
}

Team this_thread() {
#ifdef _OPENMP
    return Team{omp_get_thread_num(), omp_get_num_threads()};
#else
    return Team{0, 1};
#endif
}

template <class W, class K>
void pass(const Network& net, const Rows& rows, const Scratch& scratch, int64_t threads,
          float* hidden) {
#pragma omp parallel num_threads(threads)
    {
        const Team team = this_thread();
        const typename UseOf<W>::type use(rows.count);
        for (int64_t i = 0; i < net.layers; ++i)
            pass_layer<W, K>(net, net.layer[i], rows, team, scratch);
        for (int64_t row = team.first(rows.count); row < team.last(rows.count); ++row)
            normalize(scratch.x + row * net.padded_width, net.norm, net.width, net.eps,
                      hidden + row * net.width);
    }
}

// y of x (rows, width); the weights may have more inputs, padded with 0.
template <class W>
void head(const Product& p, const float* x, int64_t width, int64_t rows, int64_t threads,
          float* memory, float* y) {
    const typename InputOf<W>::type input(memory, p.inputs, rows);
    const float none[LANES * 2] = {};
    for (int64_t row = 0; row < rows; ++row) {
        input.lay(row, 0, x + row * width, width);
        input.lay(row, width, none, p.inputs - width);
    }
#pragma omp parallel num_threads(threads)
    {
        const Team team = this_thread();
        const typename UseOf<W>::type use(rows);
        multiply<W, false>(p, team.first(p.blocks), team.last(p.blocks), input, rows, y,
                           p.blocks * LANES);
    }
}

}  // namespace

// --- what Python calls ----------------------------------------------------------------------------

extern "C" {

// Ask the system for the processor's matrix tiles; 0 where it has none.
int64_t ask_tiles() {
#ifdef HAS_TILES
    return ask_for_tiles();
#else
    return 0;
#endif
}

// The floats of scratch memory that `rows` rows and `threads` threads need.
int64_t scratch_floats(const Network* net, int64_t rows, int64_t threads) {
    Scratch scratch;
    return lay_out(*net, rows, threads, nullptr, &scratch);
}

// Compute rows: x (rows, padded width) is at the start of scratch memory; hidden (rows, width).
void forward(const Network* net, int64_t count, const int64_t* slots, const int64_t* positions,
             int64_t most, int64_t threads, float* memory, float* hidden) {
    Scratch scratch;
    lay_out(*net, most, threads, memory, &scratch);
    const Rows rows{count, slots, positions};
    const bool halves = net->cache_kind == 1;
    switch (net->weight_kind) {
        case 0: return pass<float, float>(*net, rows, scratch, threads, hidden);
        case 1: return pass<Half, Half>(*net, rows, scratch, threads, hidden);
        case 2:
            return halves ? pass<int8_t, Half>(*net, rows, scratch, threads, hidden)
                          : pass<int8_t, float>(*net, rows, scratch, threads, hidden);
#ifdef HAS_TILES
        case 3: return pass<Tiled<Half>, Half>(*net, rows, scratch, threads, hidden);
        case 4:
            return halves ? pass<Tiled<int8_t>, Half>(*net, rows, scratch, threads, hidden)
                          : pass<Tiled<int8_t>, float>(*net, rows, scratch, threads, hidden);
#endif
    }
}

// y (rows, outputs) of x (rows, width), at most `most` rows at once in scratch memory.
void product(const Product* p, int64_t kind, const float* x, int64_t width, int64_t rows,
             int64_t most, int64_t threads, float* memory, float* y) {
    for (int64_t from = 0; from < rows; from += most) {
        const int64_t some = rows - from < most ? rows - from : most;
        const float* these = x + from * width;
        float* to = y + from * p->blocks * LANES;
        switch (kind) {
            case 0: head<float>(*p, these, width, some, threads, memory, to); break;
            case 1: head<Half>(*p, these, width, some, threads, memory, to); break;
            case 2: head<int8_t>(*p, these, width, some, threads, memory, to); break;
#ifdef HAS_TILES
            case 3: head<Tiled<Half>>(*p, these, width, some, threads, memory, to); break;
            case 4: head<Tiled<int8_t>>(*p, these, width, some, threads, memory, to); break;
#endif
        }
    }
}
}
