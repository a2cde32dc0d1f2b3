// One pass of a Llama-like decoder over rows; a row is a token of some slot at some position.
//
// The result of a row depends on its slot's tokens alone. Lanes of a vector are different outputs
// (or positions), so every sum has one order, whatever the number of rows, of threads, or of lanes
// that the processor has. Knows no sampling and no Python.

#include "attention.h"
#include "pack.h"
#include "tiles.h"

#include <algorithm>
#include <optional>
#include <type_traits>

namespace {

// How rows are laid out for products, by what multiplies them. Phases write `Shared`; a thread makes
// its own input of it before its first unit, where the two differ.
template <class Input>
struct Laid {
    using Shared = Input;
    static Input own(const Shared& shared, float*, int64_t, bool) { return shared; }
};

template <>
struct Laid<GroupInput> {
    using Shared = PlainRows;
    static GroupInput own(const Shared& shared, float* memory, int64_t rows, bool ready) {
        const GroupInput input(memory, shared.inputs, rows);
        for (int64_t row = 0; row < rows && !ready; ++row)
            input.round_row(row, shared.at + row * shared.inputs);
        return input;
    }
};

struct Unneeded {
    explicit Unneeded(int64_t) {}
};

template <class Input>
struct UseOf {  // a thread's claim on the tile registers while it multiplies
    using type = Unneeded;
};

#ifdef HAS_TILES
template <>
struct UseOf<TileInput> {
    using type = TileUse;
};
#endif

template <class Input>
void normalize_rows(const Network& net, const float* x, const float* weight, int64_t rows,
                    const Input& input, float* row_room) {
    for (int64_t k = net.width; k < input.inputs; ++k) row_room[k] = 0;
    for (int64_t row = 0; row < rows; ++row) {
        normalize(x + row * net.padded_width, weight, net.width, net.eps, row_room);
        if constexpr (std::is_same_v<Input, GroupInput>)
            input.round_row(row, row_room);
        else
            input.lay(row, 0, row_room, input.inputs);
    }
}

// SwiGLU: silu(gate) * up of some blocks.
template <class Input>
void gate(const Network& net, const float* inner, int64_t rows, int64_t from, int64_t to,
          const Input& act) {
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t b = from; b < to; ++b) {
            const float* pair = inner + (row * net.inner + b * LANES) * 2;
            const Floats g = load(pair);
            float made[LANES];
            store(made, g / (exponential(-g) + 1.0f) * load(pair + LANES));
            act.lay(row, b * LANES, made, LANES);
        }
}

struct Scratch {  // shared by the threads, but for `own`
    float *x, *qkv, *mixed, *inner, *act, *head, *own;
    int64_t own_size;
};

int64_t lay_out(const Network& net, int64_t threads, float* base, Scratch* scratch) {
    const Layer& layer = net.layer[0];
    const int64_t rows = MOST;
    static_assert(MOST % 32 == 0, "tiles read and write whole groups, the surplus is unused");
    const int64_t inputs = std::max(layer.out.inputs, layer.down.inputs);
    scratch->own_size = std::max({(rows + 1) * layer.qkv.inputs, GroupInput::floats(inputs, rows),
                                  attention_floats(net)}) + LANES;
    scratch->x = base;
    scratch->qkv = scratch->x + rows * net.padded_width;
    scratch->mixed = scratch->qkv + rows * layer.qkv.blocks * LANES;
    scratch->inner = scratch->mixed + rows * layer.out.inputs;
    scratch->act = scratch->inner + rows * net.inner * 2;
    // Apart from the rest, whose surplus of inputs must stay 0.
    scratch->head = scratch->act + rows * layer.down.inputs;
    const int64_t most = std::max(inputs, layer.qkv.inputs);
    scratch->own = scratch->head + rows * most + GroupInput::floats(most, rows);
    return scratch->own + threads * scratch->own_size - base;
}

// How many blocks of outputs make a unit: enough that the sums fill the registers, and few enough
// that a thread which stops in the middle holds up the others for a moment only.
inline int64_t unit_of(int64_t rows) { return rows <= 2 ? 8 : rows <= 16 ? 4 : 2; }

inline int64_t units_of(int64_t all, int64_t size) { return (all + size - 1) / size; }

inline int64_t end_of(int64_t unit, int64_t size, int64_t all) {
    return (unit + 1) * size < all ? (unit + 1) * size : all;
}

// A pass over rows, in phases: six a layer, and the last norm.
template <class Input, class K>
struct Pass {
    using Shared = typename Laid<Input>::Shared;
    enum Phase { QKV, KEEP, ATTEND, OUT, UP, DOWN, PHASES };

    const Network& net;
    const Rows& rows;
    const Scratch& s;
    float* hidden;
    bool apart;  // no two rows are of one slot: then a row needs no other row's key

    static void run(const void* what, Turns& turns, uint64_t number, int64_t index) {
        std::optional<typename UseOf<Input>::type> use;
        for (int64_t phase = 0; turns.lasts(number); ++phase) {
            bool ready = false;
            for (int64_t unit; (unit = turns.take(number, phase)) >= 0;) {
                const Pass& pass = *static_cast<const Pass*>(what);
                if (!use) use.emplace(pass.rows.count);
                pass.compute(phase, unit, index, ready);
                ready = true;
                if (turns.complete()) pass.open_next(turns, phase);
            }
        }
    }

    int64_t units(int64_t phase) const {
        const Layer& layer = net.layer[0];
        const int64_t M = rows.count, size = unit_of(M);
        if (phase == net.layers * PHASES) return M;
        switch (phase % PHASES) {
            case QKV: return units_of(layer.qkv.blocks, size);
            case KEEP: return apart ? 0 : M;
            case ATTEND: return M * net.kv_heads;
            case OUT: return units_of(layer.out.blocks, size);
            case UP: return units_of(net.inner / LANES, size / 2);
            default: return units_of(layer.down.blocks, size);
        }
    }

    void open_next(Turns& turns, int64_t phase) const {
        if (phase == net.layers * PHASES) return turns.open(OVER, 0);
        if (!rows.wanted && phase == net.layers * PHASES - PHASES + KEEP) return turns.open(OVER, 0);
        if (units(++phase) == 0) ++phase;
        turns.open(phase, units(phase));
    }

    // `ready`: this thread has computed a unit of the phase, so its input is laid out.
    void compute(int64_t phase, int64_t unit, int64_t index, bool ready) const {
        if (phase == net.layers * PHASES) {
            normalize(s.x + unit * net.padded_width, net.norm, net.width, net.eps,
                      hidden + unit * net.width);
            return;
        }
        const Layer& layer = net.layer[phase / PHASES];
        const int64_t M = rows.count, size = unit_of(M), ld = layer.qkv.blocks * LANES;
        const int64_t H = net.heads, D = net.head_dim, group = H / net.kv_heads;
        float *own = s.own + index * s.own_size, *row_room = own + s.own_size - LANES;
        row_room -= layer.qkv.inputs;
        const Input normed(own, layer.qkv.inputs, M);
        const Shared mixed(s.mixed, layer.out.inputs, M), act(s.act, layer.down.inputs, M);
        switch (phase % PHASES) {
            case QKV:
                if (!ready) normalize_rows(net, s.x, layer.norm1, M, normed, row_room);
                multiply<false>(layer.qkv, unit * size, end_of(unit, size, layer.qkv.blocks),
                                   normed, M, s.qkv, ld);
                break;
            case KEEP:
                for (int64_t head = 0; head < net.kv_heads; ++head)
                    keep<K>(net, layer, rows, unit, head, s.qkv + unit * ld);
                break;
            case ATTEND: {
                const int64_t row = unit / net.kv_heads, first = unit % net.kv_heads * group;
                if (apart) keep<K>(net, layer, rows, row, first / group, s.qkv + row * ld);
                for (int64_t h = first; h < first + group; h += QUERIES)
                    attend_some(layer, row, first / group, h, std::min(group + first - h, MANY),
                                s.qkv + row * ld + h * D, own, mixed);
                break;
            }
            case OUT:
                multiply<true>(layer.out, unit * size, end_of(unit, size, layer.out.blocks),
                               Laid<Input>::own(mixed, own, M, ready), M, s.x, net.padded_width);
                break;
            case UP: {
                const int64_t half = size / 2, from = unit * half;
                const int64_t to = end_of(unit, half, net.inner / LANES);
                if (!ready) normalize_rows(net, s.x, layer.norm2, M, normed, row_room);
                multiply<false>(layer.up, from * 2, to * 2, normed, M, s.inner, net.inner * 2);
                gate(net, s.inner, M, from, to, act);
                break;
            }
            default:
                multiply<true>(layer.down, unit * size, end_of(unit, size, layer.down.blocks),
                               Laid<Input>::own(act, own, M, ready), M, s.x, net.padded_width);
        }
    }

    static constexpr int64_t MANY = QUERIES;

    // Attention of `some` queries, from `h` on, which share the key head `head`.
    void attend_some(const Layer& layer, int64_t row, int64_t head, int64_t h, int64_t some,
                     const float* queries, float* memory, const Shared& mixed) const {
        const int64_t D = net.head_dim;
        const auto take = [&](int q, const float* made) { mixed.lay(row, (h + q) * D, made, D); };
        switch (some) {
            case 1: return attend<K, 1>(net, layer, rows, row, head, queries, memory, take);
            case 2: return attend<K, 2>(net, layer, rows, row, head, queries, memory, take);
            case 3: return attend<K, 3>(net, layer, rows, row, head, queries, memory, take);
            default: return attend<K, 4>(net, layer, rows, row, head, queries, memory, take);
        }
    }
};

template <class E>
void widen_row(const void* embedding, int64_t token, int64_t width, float* to) {
    const E* from = static_cast<const E*>(embedding) + token * width;
    for (int64_t k = 0; k < width; ++k) to[k] = to_float(from[k]);
}

// The embeddings of the rows' tokens. The surplus of a row's padded width stays 0.
void embed(const Network& net, const Rows& rows, float* x) {
    for (int64_t row = 0; row < rows.count; ++row, x += net.padded_width) {
        const int64_t token = rows.tokens[row];
        switch (net.embedding_kind) {
            case FLOAT32: widen_row<float>(net.embedding, token, net.width, x); break;
            case BFLOAT16: widen_row<Half>(net.embedding, token, net.width, x); break;
            case FLOAT16: widen_row<Float16>(net.embedding, token, net.width, x); break;
            default:
                widen_output(*static_cast<const Product*>(net.embedding), token, net.width, x);
        }
    }
}

// K: the type of the cache.
template <class Input, class K>
void pass(const Network& net, const Rows& rows, const Scratch& scratch, int64_t threads,
          float* hidden) {
    embed(net, rows, scratch.x);
    bool apart = rows.wanted;
    for (int64_t row = 1; row < rows.count; ++row)  // sorted by slot
        apart = apart && rows.slots[row] != rows.slots[row - 1];
    const Pass<Input, K> all{net, rows, scratch, hidden, apart};
    Pool::here().run({&Pass<Input, K>::run, &all}, all.units(0), threads);
}

template <class Input>
void pass(const Network& net, const Rows& rows, const Scratch& scratch, int64_t threads,
          float* hidden) {
    net.cache_kind == FLOAT32 ? pass<Input, float>(net, rows, scratch, threads, hidden)
                              : pass<Input, Half>(net, rows, scratch, threads, hidden);
}

// One product for some rows, in units of blocks of outputs.
template <class Input>
struct Head {
    const Product& p;
    const Input& input;
    int64_t rows;
    float* y;

    static constexpr int64_t SIZE = 32;

    static void run(const void* what, Turns& turns, uint64_t number, int64_t) {
        std::optional<typename UseOf<Input>::type> use;
        for (int64_t unit; (unit = turns.take(number, 0)) >= 0;) {
            const Head& head = *static_cast<const Head*>(what);
            if (!use) use.emplace(head.rows);
            multiply<false>(head.p, unit * SIZE, end_of(unit, SIZE, head.p.blocks), head.input,
                            head.rows, head.y, head.p.blocks * LANES);
            if (turns.complete()) turns.open(OVER, 0);
        }
        turns.take(number, OVER - 1);  // until the last unit is complete
    }
};

// y of x (rows, width); the weights may have more inputs, padded with 0.
template <class Input>
void head(const Product& p, const float* x, int64_t width, int64_t rows, int64_t threads,
          float* memory, float* y) {
    const typename Laid<Input>::Shared shared(memory, p.inputs, rows);
    const float none[GROUP] = {};
    for (int64_t row = 0; row < rows; ++row) {
        shared.lay(row, 0, x + row * width, width);
        shared.lay(row, width, none, p.inputs - width);
    }
    const Input input = Laid<Input>::own(shared, memory + rows * p.inputs, rows, false);
    const Head<Input> all{p, input, rows, y};
    Pool::here().run({&Head<Input>::run, &all}, units_of(p.blocks, Head<Input>::SIZE), threads);
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

// Arrange a part of a product's weights, whose memory begins as zeros.
void pack(const Product* p, const Matrix* part, int64_t threads) {
    const Packing all{*p, *part};
    const int64_t blocks = (part->outputs + LANES - 1) / LANES;
    Pool::here().run({&Packing::run, &all}, units_of(blocks, Packing::SIZE), threads);
}

// The rows of a pass, at most.
int64_t most_rows() { return MOST; }

// The floats of scratch memory that `threads` threads need.
int64_t scratch_floats(const Network* net, int64_t threads) {
    Scratch scratch;
    return lay_out(*net, threads, nullptr, &scratch);
}

// Compute rows; hidden (rows, width), or null where only their keys and values are wanted. Scratch
// memory begins as zeros.
void forward(const Network* net, int64_t count, const int64_t* tokens, const int64_t* slots,
             const int64_t* positions, int64_t threads, float* memory, float* hidden) {
    Scratch scratch;
    lay_out(*net, threads, memory, &scratch);
    const Rows rows{count, tokens, slots, positions, hidden != nullptr};
    switch (net->input_kind) {
        case 0: return pass<FloatInput>(*net, rows, scratch, threads, hidden);
#ifdef HAS_TILES
        case 1: return pass<TileInput>(*net, rows, scratch, threads, hidden);
#endif
        case 2: return pass<GroupInput>(*net, rows, scratch, threads, hidden);
    }
}

// y (rows, outputs) of x (rows, width), in scratch memory.
void product(const Network* net, const Product* p, const float* x, int64_t width, int64_t rows,
             int64_t threads, float* memory, float* y) {
    Scratch scratch;
    lay_out(*net, threads, memory, &scratch);
    memory = scratch.head;
    for (int64_t from = 0; from < rows; from += MOST) {
        const int64_t some = std::min(rows - from, MOST);
        const float* these = x + from * width;
        float* to = y + from * p->blocks * LANES;
        switch (net->input_kind) {
            case 0: head<FloatInput>(*p, these, width, some, threads, memory, to); break;
#ifdef HAS_TILES
            case 1: head<TileInput>(*p, these, width, some, threads, memory, to); break;
#endif
            case 2: head<GroupInput>(*p, these, width, some, threads, memory, to); break;
        }
    }
}
}
