// Computes small networks with the kernel in each number format. A row must give the same bits alone,
// in every batch, as part of a prompt, and by any number of threads; else the exit code is 1. Prints
// for each format a hash of the bits, by which processors and compilers are compared.
//
// Needs no Python, so that an emulator can run it.

#include "kernel.cpp"

#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

constexpr int64_t LAYERS = 2, TOKENS = 37, SLOTS = MOST + 4, LENGTH = 80;
constexpr int64_t SEQUENCES = 2, POSITIONS = 70, THREADS = 3;
constexpr int64_t BATCHES[] = {2, 3, 5, 7, 13, 16, 64, 96};

struct Shape {
    const char* name;
    int64_t width, heads, kv_heads, head_dim, inner;
    bool extras;  // biases, norms of queries and keys, and a window in the last layer
};

constexpr Shape SHAPES[] = {
    {"odd", 40, 10, 2, 12, 52, true},
    {"whole", 32, 3, 1, 64, 272, false},
};

struct Format {
    const char* name;
    Kind weights, values;  // `values`: of the value projection
    Kind cache;
    bool minimum;
};

constexpr Format FORMATS[] = {
    {"float32", FLOAT32, FLOAT32, FLOAT32, false},
    {"bfloat16", BFLOAT16, BFLOAT16, BFLOAT16, false},
    {"bfloat16-wide-cache", BFLOAT16, BFLOAT16, FLOAT32, false},
    {"float16", FLOAT16, FLOAT16, BFLOAT16, false},
    {"8-by-32", BITS8_BY_32, BITS8_BY_32, BFLOAT16, false},
    {"8-by-32-minimum", BITS8_BY_32, BITS8_BY_32, FLOAT32, true},
    {"8-by-16", BITS8_BY_16, BITS8_BY_16, BFLOAT16, false},
    {"8-by-16-minimum", BITS8_BY_16, BITS8_BY_16, BFLOAT16, true},
    {"4-by-32", BITS4_BY_32, BITS4_BY_32, BFLOAT16, false},
    {"4-by-32-minimum", BITS4_BY_32, BITS4_BY_32, BFLOAT16, true},
    {"4-by-16", BITS4_BY_16, BITS4_BY_16, BFLOAT16, false},
    {"4-by-16-minimum", BITS4_BY_16, BITS4_BY_16, BFLOAT16, true},
    {"mixed", BITS4_BY_32, BITS8_BY_16, BFLOAT16, true},
    {"tiles", TILED, TILED, BFLOAT16, false},
};

inline bool in_groups(Kind kind) { return kind >= BITS8_BY_32; }
inline int64_t bits_of(Kind kind) { return kind == BITS8_BY_32 || kind == BITS8_BY_16 ? 8 : 4; }
inline int64_t size_of(Kind kind) { return kind == BITS8_BY_32 || kind == BITS4_BY_32 ? 32 : 16; }
inline int64_t padded(int64_t size, int64_t block = LANES) { return units_of(size, block) * block; }

template <class T>
T* zeros(int64_t count) {  // never freed: the program ends soon
    const int64_t bytes = padded(count * sizeof(T), 64);
    return static_cast<T*>(std::memset(std::aligned_alloc(64, bytes), 0, bytes));
}

// --- random networks ------------------------------------------------------------------------------

struct Random {
    uint64_t state;

    uint32_t bits() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return uint32_t(state >> 32);
    }

    float number() { return float(int32_t(bits()) >> 8) * 0x1p-23f; }  // from -1 to 1

    // A float16 of this exponent or one of the three above, or a denormal one.
    uint16_t half(uint32_t exponent) {
        const uint32_t drawn = bits(), above = drawn >> 10 & 3;
        const uint32_t size = drawn >> 12 & 7 ? (exponent + 15 + above) << 10 : 0;
        return uint16_t((drawn >> 16 & 0x8000) | size | (drawn & 0x3ff));
    }

    void fill(float* to, int64_t count) {
        for (int64_t i = 0; i < count; ++i) to[i] = number();
    }
    void fill(Half* to, int64_t count) {
        for (int64_t i = 0; i < count; ++i) put(to + i, number() * 0.5f);
    }
    void fill(Float16* to, int64_t count) {
        for (int64_t i = 0; i < count; ++i) to[i].bits = half(uint32_t(-4));
    }

    template <class T>
    const T* filled(int64_t count) {
        T* made = zeros<T>(count);
        fill(made, count);
        return made;
    }

    const uint8_t* numbers(int64_t count, int64_t bits_of_each) {
        uint8_t* made = zeros<uint8_t>(count);
        for (int64_t i = 0; i < count; ++i) made[i] = uint8_t(bits() >> (32 - bits_of_each));
        return made;
    }

    const uint16_t* halves(int64_t count, int exponent) {
        uint16_t* made = zeros<uint16_t>(count);
        for (int64_t i = 0; i < count; ++i) made[i] = half(uint32_t(exponent));
        return made;
    }

    const void* floats(Kind kind, int64_t count) {
        if (kind == FLOAT32) return filled<float>(count);
        if (kind == FLOAT16) return filled<Float16>(count);
        return filled<Half>(count);
    }

    // Weights as a file has them; numbers in groups come padded to whole groups.
    Matrix matrix(Kind kind, bool minimum, int64_t outputs, int64_t inputs) {
        if (!in_groups(kind)) {
            const Kind stored = kind == TILED ? BFLOAT16 : kind;
            return {floats(stored, outputs * inputs), nullptr, nullptr, stored, outputs, inputs};
        }
        const int64_t whole = padded(inputs, GROUP), groups = outputs * whole / size_of(kind);
        const bool wide = bits_of(kind) == 8;
        return {numbers(outputs * whole, bits_of(kind)), halves(groups, wide ? -10 : -6),
                minimum ? halves(groups, -5) : nullptr, kind, outputs, whole};
    }
};

// Weights of some parts, with outputs that follow each other or, `paired`, block by block in turns.
Product product_of(Random& random, Kind kind, bool minimum, const std::vector<int64_t>& outputs,
                   int64_t inputs, bool bias, bool paired = false) {
    int64_t blocks = 0, first = 0;
    for (int64_t each : outputs) blocks += paired ? units_of(each, LANES) * LANES : each;
    Product p{};
    p.own = p.blocks = blocks = units_of(blocks, LANES);
    p.inputs = padded(inputs, kind >= TILED ? GROUP : LANES);
    p.kind = kind;
    p.weight = zeros<float>(blocks * LANES * p.inputs);  // enough for every kind
    if (bias) p.bias = random.filled<float>(blocks * LANES);
    if (in_groups(kind)) {
        p.offset = minimum ? 0 : 1 << (bits_of(kind) - 1);
        p.scale = zeros<uint16_t>(blocks * LANES * p.inputs / size_of(kind));
        if (minimum) p.minimum = zeros<uint16_t>(blocks * LANES * p.inputs / size_of(kind));
    }
    for (int64_t each : outputs) {
        Matrix part = random.matrix(kind, minimum, each, inputs);
        part.first = first;
        part.step = paired ? int64_t(outputs.size()) : 1;
        pack(&p, &part, THREADS);
        first += paired ? LANES : each;
    }
    return p;
}

Product attention_inputs(Random& random, const Shape& s, const Format& f) {
    const int64_t queries = s.heads * s.head_dim, keys = s.kv_heads * s.head_dim;
    if (f.weights == f.values)
        return product_of(random, f.weights, f.minimum, {queries, keys, keys}, s.width, s.extras);
    Product p = product_of(random, f.weights, f.minimum, {queries, keys}, s.width, s.extras);
    Product* next = zeros<Product>(1);
    *next = product_of(random, f.values, false, {keys}, s.width, s.extras);
    p.next = next;
    p.blocks += next->blocks;
    return p;
}

Layer layer_of(Random& random, const Shape& s, const Format& f, bool last) {
    const Kind kind = f.weights;
    const int64_t D = s.head_dim, stored = SLOTS * s.kv_heads * LENGTH;
    Layer layer{};
    layer.norm1 = random.filled<float>(s.width);
    layer.qkv = attention_inputs(random, s, f);
    layer.q_norm = s.extras ? random.filled<float>(D) : nullptr;
    layer.k_norm = s.extras ? random.filled<float>(D) : nullptr;
    layer.out = product_of(random, kind, f.minimum, {s.width}, s.heads * D, s.extras);
    layer.norm2 = random.filled<float>(s.width);
    layer.up = product_of(random, kind, f.minimum, {s.inner, s.inner}, s.width, s.extras, true);
    layer.down = product_of(random, kind, f.minimum, {s.width}, s.inner, s.extras);
    layer.keys = zeros<float>(stored * D);
    layer.values = zeros<float>(stored * padded(D));
    layer.window = s.extras && last ? 9 : 0;
    return layer;
}

struct Model {
    Network net{};
    Product head{};
    float* scratch;

    Model(const Shape& s, const Format& f) {
        Random random{1};
        Layer* layers = zeros<Layer>(LAYERS);
        for (int64_t i = 0; i < LAYERS; ++i) layers[i] = layer_of(random, s, f, i == LAYERS - 1);
        head = product_of(random, f.weights, f.minimum, {TOKENS}, s.width, false);
        net.layers = LAYERS, net.width = s.width, net.padded_width = padded(s.width);
        net.heads = s.heads, net.kv_heads = s.kv_heads;
        net.head_dim = s.head_dim, net.padded_head = padded(s.head_dim);
        net.inner = padded(s.inner), net.length = LENGTH;
        net.input_kind = in_groups(f.weights) ? 2 : f.weights == TILED ? 1 : 0;
        net.cache_kind = f.cache;
        net.embedding_kind = f.weights == TILED ? BFLOAT16 : f.weights;
        net.eps = 1e-5f, net.scale = 0.25f;
        net.layer = layers;
        net.norm = random.filled<float>(s.width);
        net.cosines = random.filled<float>(LENGTH * s.head_dim / 2);
        net.sines = random.filled<float>(LENGTH * s.head_dim / 2);
        net.embedding = in_groups(f.weights)
                            ? &head
                            : random.floats(Kind(net.embedding_kind), TOKENS * s.width);
        scratch = zeros<float>(scratch_floats(&net, THREADS));
    }
    Model(const Model&) = delete;  // the network holds the address of the head

    // The bytes of a slot's keys and values.
    int64_t of_keys() const { return net.kv_heads * LENGTH * net.head_dim * number(); }
    int64_t of_values() const { return net.kv_heads * LENGTH * net.padded_head * number(); }
    int64_t number() const { return net.cache_kind == FLOAT32 ? 4 : 2; }

    void copy_slot(int64_t from, int64_t to) const {
        for (int64_t i = 0; i < LAYERS; ++i) {
            char *k = static_cast<char*>(net.layer[i].keys);
            char *v = static_cast<char*>(net.layer[i].values);
            std::memcpy(k + to * of_keys(), k + from * of_keys(), of_keys());
            std::memcpy(v + to * of_values(), v + from * of_values(), of_values());
        }
    }

    void spoil_slot(int64_t slot) const {  // what is not yet written must not be read: NaN
        for (int64_t i = 0; i < LAYERS; ++i) {
            std::memset(static_cast<char*>(net.layer[i].keys) + slot * of_keys(), 255, of_keys());
            std::memset(static_cast<char*>(net.layer[i].values) + slot * of_values(), 255,
                        of_values());
        }
    }
};

// --- checks ---------------------------------------------------------------------------------------

int64_t token_at(int64_t sequence, int64_t position) {
    return (sequence * 11 + position * position * 7 + position) % TOKENS;
}

struct Row {
    int64_t sequence, slot, position;
};

struct Computed {  // hidden states (rows, width), and the head's product (rows, outputs)
    std::vector<float> hidden, logits;
};

Computed compute(const Model& model, const std::vector<Row>& rows, int64_t threads,
                 bool wanted = true) {
    const int64_t count = rows.size();
    std::vector<int64_t> tokens, slots, positions;
    for (const Row& row : rows) {
        tokens.push_back(token_at(row.sequence, row.position));
        slots.push_back(row.slot);
        positions.push_back(row.position);
    }
    Computed made;
    if (wanted) made.hidden.resize(count * model.net.width);
    forward(&model.net, count, tokens.data(), slots.data(), positions.data(), threads,
            model.scratch, wanted ? made.hidden.data() : nullptr);
    if (!wanted) return made;
    made.logits.resize(count * model.head.blocks * LANES);
    product(&model.net, &model.head, made.hidden.data(), model.net.width, count, threads,
            model.scratch, made.logits.data());
    return made;
}

struct Checked {
    const Shape& shape;
    const Format& format;
    Model model{shape, format};
    std::vector<Computed> alone{};  // by sequence and position
    int64_t wrong = 0;

    bool ready() {
        for (int64_t sequence = 0; sequence < SEQUENCES; ++sequence)
            for (int64_t p = 0; p < POSITIONS; ++p)
                alone.push_back(compute(model, {{sequence, sequence, p}}, 1));
        for (int64_t slot = SEQUENCES; slot < SLOTS; ++slot)
            model.copy_slot(slot % SEQUENCES, slot);
        return true;
    }

    void compare(const char* how, const std::vector<Row>& rows, int64_t threads) {
        const Computed made = compute(model, rows, threads);
        const int64_t width = model.net.width, outputs = model.head.blocks * LANES;
        for (size_t i = 0; i < rows.size(); ++i) {
            const Computed& one = alone[rows[i].sequence * POSITIONS + rows[i].position];
            const bool same =
                !std::memcmp(one.hidden.data(), &made.hidden[i * width], width * 4) &&
                !std::memcmp(one.logits.data(), &made.logits[i * outputs], outputs * 4);
            if (!same && ++wrong == 1)
                std::fprintf(stderr, "%s %s: row %zu of %zu, position %d, %s, %d threads, must give"
                             " the bits that it gives alone\n", shape.name, format.name, i,
                             rows.size(), int(rows[i].position), how, int(threads));
        }
    }

    void batches(int64_t threads) {
        for (int64_t count : BATCHES) {
            std::vector<Row> rows;
            for (int64_t i = 0; i < count; ++i)
                rows.push_back({i % SEQUENCES, i, (i * 29 + count) % POSITIONS});
            compare("in a batch", rows, threads);
        }
    }

    void prompts(int64_t threads) {
        const int64_t begun = 50, slot = SLOTS - 2;  // of sequence 0; the next is of sequence 1
        std::vector<Row> whole, first, rest;
        for (int64_t p = 0; p < POSITIONS; ++p) {
            whole.push_back({0, slot, p});
            (p < begun ? first : rest).push_back({1, slot + 1, p});
        }
        for (int64_t s = 0; s < 2; ++s) model.spoil_slot(slot + s);
        whole.push_back({1, slot + 1, 0});
        compare("in a prompt", whole, threads);
        compute(model, first, threads, false);
        compare("after a prompt", rest, threads);
    }

    uint64_t hash() const {  // FNV-1a
        uint64_t made = 0xcbf29ce484222325u;
        for (const Computed& one : alone)
            for (const std::vector<float>* values : {&one.hidden, &one.logits})
                for (float value : *values) {
                    made ^= bits_as<uint32_t>(value);
                    made *= 0x100000001b3u;
                }
        return made;
    }

    bool finite() const {
        float total = 0;
        for (const Computed& one : alone)
            for (float value : one.logits) total += value * 0.0f;
        return total == 0.0f;
    }
};

bool check(const Shape& shape, const Format& format) {
    Checked checked{shape, format};
    checked.ready();
    for (int64_t threads = 1; threads <= THREADS; ++threads) {
        checked.batches(threads);
        checked.prompts(threads);
    }
    if (!checked.finite()) {
        std::fprintf(stderr, "%s %s: numbers must be finite\n", shape.name, format.name);
        return false;
    }
    std::printf("%s-%s %016llx\n", shape.name, format.name,
                static_cast<unsigned long long>(checked.hash()));
    return checked.wrong == 0;
}

bool runs(const Shape& shape, const Format& format, bool tiles) {
    if (format.weights == TILED) return tiles;
    return format.weights == format.values || !shape.extras;  // two formats meet between blocks
}

}  // namespace

int main() {
    const bool tiles = ask_tiles();
    bool good = true;
    for (const Shape& shape : SHAPES)
        for (const Format& format : FORMATS)
            if (runs(shape, format, tiles)) good = check(shape, format) && good;
    return good ? 0 : 1;
}
