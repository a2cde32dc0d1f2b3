// The threads that share a pass, and the units of work that they take.
//
// A pass is a sequence of phases, and a phase a number of units. A thread takes the next unit of the
// phase; whoever completes the last one opens the next phase. So a thread that does not run, since
// other programs want its processor, holds up at most the unit that it has taken, and one that wakes
// late finds nothing left to take and goes on. Which thread computes a unit changes no bit.

#pragma once

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Where a pass stands, in one word: which pass, its phase, the next unit, and how many there are.
// `check_network` of weights.py refuses networks with more phases or units.
struct Place {
    uint64_t word;

    static Place of(uint64_t pass, uint64_t phase, uint64_t units) {
        return {pass << 44 | phase << 32 | units};
    }
    uint64_t pass() const { return word >> 44; }
    int64_t phase() const { return word >> 32 & 0xfff; }
    int64_t unit() const { return word >> 16 & 0xffff; }
    int64_t units() const { return word & 0xffff; }
    Place next() const { return {word + (1 << 16)}; }
};

constexpr int64_t OVER = 0xfff;  // the phase of a pass that is complete
constexpr int SPINS = 2000;      // some 20 microseconds: then the processor is left to others

// What the threads see of the pass. All but `take` is for the one who has taken a unit.
class Turns {
public:
    // Begin a pass with so many units in its first phase; return its number.
    uint64_t begin(int64_t units) {
        const uint64_t pass = (place.load().pass() + 1) & 0xfffff;
        done.store(0);
        set(Place::of(pass, 0, units));
        return pass;
    }

    // Take a unit of a phase; -1 where none is left. Waits until the phase is open.
    int64_t take(uint64_t pass, int64_t phase) {
        Place now = place.load(std::memory_order_acquire);
        for (;;) {
            if (now.pass() != pass || now.phase() > phase) return -1;
            if (now.phase() < phase) {
                now = wait_for_more(now);
            } else if (now.unit() >= now.units()) {
                return -1;
            } else if (place.compare_exchange_weak(now, now.next(), std::memory_order_acq_rel)) {
                return now.unit();
            }
        }
    }

    // Whether there is, or will be, something to do in a phase of a pass.
    bool lasts(uint64_t pass) const {
        const Place now = place.load(std::memory_order_acquire);
        return now.pass() == pass && now.phase() != OVER;
    }

    // Say that a unit is complete; true where it was the phase's last one: then open the next.
    bool complete() {
        const Place now = place.load(std::memory_order_relaxed);
        return done.fetch_add(1, std::memory_order_acq_rel) + 1 == now.units();
    }

    void open(int64_t phase, int64_t units) {
        done.store(0, std::memory_order_relaxed);
        set(Place::of(place.load(std::memory_order_relaxed).pass(), phase, units));
    }

    // Wait until a pass other than `last` is under way; return its number.
    uint64_t wait_for_pass(uint64_t last) {
        Place now = place.load(std::memory_order_acquire);
        while (now.pass() == last || now.phase() == OVER) now = wait_for_more(now);
        return now.pass();
    }

private:
    struct Atomic : std::atomic<uint64_t> {
        Place load(std::memory_order order = std::memory_order_seq_cst) const {
            return {std::atomic<uint64_t>::load(order)};
        }
        bool compare_exchange_weak(Place& now, Place then, std::memory_order order) {
            return std::atomic<uint64_t>::compare_exchange_weak(now.word, then.word, order,
                                                                std::memory_order_acquire);
        }
    };

    void set(Place then) {
        place.std::atomic<uint64_t>::store(then.word);
        if (asleep.load() > 0) {
            std::lock_guard<std::mutex> held(mutex);
            changed.notify_all();
        }
    }

    // Wait until the phase or pass is another one; return where it stands then.
    Place wait_for_more(Place seen) {
        const uint64_t before = seen.word >> 32;
        for (int i = 0; i < SPINS; ++i) {
            const Place now = place.load(std::memory_order_acquire);
            if (now.word >> 32 != before) return now;
            relax();
        }
        // Sleeping, not yielding: the system then moves a thread that holds a unit here.
        std::unique_lock<std::mutex> held(mutex);
        asleep.fetch_add(1);
        changed.wait(held, [&] { return place.load().word >> 32 != before; });
        asleep.fetch_sub(1);
        return place.load();
    }

    alignas(64) Atomic place{};
    alignas(64) std::atomic<int64_t> done{0};
    alignas(64) std::atomic<int> asleep{0};
    std::mutex mutex;
    std::condition_variable changed;
};

struct Task {  // what a thread does in a pass; `what` may be read while a unit is held
    void (*run)(const void* what, Turns& turns, uint64_t pass, int64_t index);
    const void* what;
};

// The threads beside the one that calls; they live as long as the process.
class Pool {
public:
    // Run a task by up to `threads` threads, this one among them, until all its phases are over.
    void run(const Task& task, int64_t units, int64_t threads) {
        std::unique_lock<std::mutex> mine(busy, std::try_to_lock);
        if (!mine.owns_lock() || threads < 2) {  // another thread of the program has the pool
            Turns own;
            task.run(task.what, own, own.begin(units), 0);
            return;
        }
        start(threads - 1);
        function.store(task.run, std::memory_order_relaxed);
        what.store(task.what, std::memory_order_relaxed);
        limit.store(threads, std::memory_order_relaxed);
        task.run(task.what, turns, turns.begin(units), 0);
    }

    static Pool& here() {  // a forked child has no threads of its parent's pool: it makes another
        static std::atomic<Pool*> pool{nullptr};
        static std::atomic<int> owner{0};
        if (owner.load() != getpid()) {
            pool.store(new Pool);  // never deleted: its threads use it until the process ends
            owner.store(getpid());
        }
        return *pool.load();
    }

private:
    void start(int64_t wanted) {
        try {
            for (; count < wanted; ++count) std::thread(&Pool::serve, this, count + 1).detach();
        } catch (const std::system_error&) {  // a limit of the system: those there are do the work
        }
    }

    void serve(int64_t index) {
        uint64_t last = 0;  // where `place` starts, so that a first pass is waited for
        for (;;) {
            last = turns.wait_for_pass(last);
            const auto run = function.load(std::memory_order_relaxed);
            const void* these = what.load(std::memory_order_relaxed);
            if (index < limit.load(std::memory_order_relaxed)) run(these, turns, last, index);
        }
    }

    Turns turns;
    std::mutex busy;
    int64_t count = 0;
    std::atomic<void (*)(const void*, Turns&, uint64_t, int64_t)> function{nullptr};
    std::atomic<const void*> what{nullptr};
    std::atomic<int64_t> limit{0};
};

}  // namespace
