// What the kernels' CUDA C++ needs of CUDA, on the CPU: a thread is a fiber that runs to the next barrier, in an order
// that is asked for; a plane's matrices are whole in each of its threads.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __grid_constant__
#define __shared__
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::exp;
using std::fma;
using std::log;
using std::max;
using std::min;
using std::tanh;

struct Place {
    unsigned x, y, z;
};
static Place threadIdx, blockIdx;

[[noreturn]] static void refuse(const char *what) {
    fprintf(stderr, "block %u %u, thread %u: %s\n", blockIdx.x, blockIdx.y, threadIdx.x, what);
    fflush(stderr);
    _Exit(1); // on the stack of a fiber
}

// Fibers.
static const unsigned THREADS = 256;
static ucontext_t scheduler, fibers[THREADS];
static bool over[THREADS];
static std::function<void()> body;

static void __syncthreads() {
    swapcontext(&fibers[threadIdx.x], &scheduler);
}

static void one() {
    body();
    over[threadIdx.x] = true;
}

// Runs a kernel; `order` 0: threads as they are numbered, 1: from behind, else by chance. Shared memory begins as NaN.
static void launch(unsigned x, unsigned y, unsigned order, char *shared, size_t bytes, std::function<void()> kernel) {
    static std::vector<char> stacks(THREADS << 16);
    std::vector<unsigned> threads(THREADS);
    std::mt19937 chance(order);
    body = kernel;
    for (unsigned block = 0; block < x * y; block++) {
        blockIdx = {block % x, block / x, 0};
        memset(shared, 0xff, bytes);
        for (unsigned thread = 0; thread < THREADS; thread++) {
            threads[thread] = order == 1 ? THREADS - 1 - thread : thread;
            over[thread] = false;
            getcontext(&fibers[thread]);
            fibers[thread].uc_stack.ss_sp = &stacks[thread << 16];
            fibers[thread].uc_stack.ss_size = 1 << 16;
            fibers[thread].uc_link = &scheduler;
            makecontext(&fibers[thread], one, 0);
        }
        for (unsigned ended = 0; ended < THREADS;) {
            if (order > 1) std::shuffle(threads.begin(), threads.end(), chance);
            for (unsigned thread : threads) {
                threadIdx = {thread, 0, 0};
                swapcontext(&scheduler, &fibers[thread]);
                ended += over[thread];
            }
            if (ended != 0 && ended != THREADS) refuse("some threads wait at a barrier that others never reach");
        }
    }
}

// 16-bit floats.
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(float value) {
        uint32_t all;
        memcpy(&all, &value, 4);
        bits = std::isnan(value) ? 0x7fff : (all + 0x7fff + (all >> 16 & 1)) >> 16;
    }
    operator float() const {
        uint32_t all = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &all, 4);
        return value;
    }
};
typedef _Float16 __half;

// Matrix units.
namespace nvcuda::wmma {
struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    float x[16][16];
};

static void check(const void *place, size_t row) {
    if (uintptr_t(place) % 32 != 0) refuse("a matrix that is not aligned to 32 bytes");
    if (row % 16 != 0) refuse("rows of a matrix that are not 16 bytes apart");
}

template <typename Use, int M, int N, int K, typename T, typename Layout>
void fill_fragment(fragment<Use, M, N, K, T, Layout> &matrix, float value) {
    for (auto &row : matrix.x) std::fill(row, row + 16, value);
}

template <typename Use, int M, int N, int K, typename T, typename Layout>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout> &matrix, const T *from, unsigned pitch) {
    check(from, pitch * sizeof(T));
    const bool by_column = std::is_same<Layout, col_major>::value;
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++)
            matrix.x[row][column] = by_column ? from[column * pitch + row] : from[row * pitch + column];
}

template <typename A, typename B, typename C> void mma_sync(C &d, const A &a, const B &b, const C &c) {
    C sum = c;
    for (int row = 0; row < 16; row++)
        for (int depth = 0; depth < 16; depth++)
            for (int column = 0; column < 16; column++) sum.x[row][column] += a.x[row][depth] * b.x[depth][column];
    d = sum;
}

template <typename C> void store_matrix_sync(float *to, const C &matrix, unsigned pitch, layout_t layout) {
    check(to, pitch * 4);
    if (layout != mem_row_major) refuse("a layout that is not emulated");
    for (int row = 0; row < 16; row++) std::copy(matrix.x[row], matrix.x[row] + 16, to + row * pitch);
}
} // namespace nvcuda::wmma
