// Sparse convolution and fused batch norm for fitting on a CPU, behind a plain C interface: program.py calls it.
//
// No C++ library: a template of it, first used inside one of the parts below, would be compiled for that part's
// instruction set and shared with the others.
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#else
static int omp_get_max_threads() { return 1; }
static void omp_set_num_threads(int) {}
static int omp_get_num_threads() { return 1; }
static int omp_get_thread_num() { return 0; }
#endif

extern "C" {

// The kept weights of a pair of rows in a block of input planes: first `both` offsets with a value for each row, then
// offsets of the first row alone, then of the second. `offset` and `value` are where its own begin.
struct Run {
  int32_t offset, value, both, first, second;
};

// The kept weights of a convolution, sorted by (block, pair of rows); `of_pair` counts those of each pair.
struct Weights {
  int32_t rows, pairs, blocks;
  const Run* run;
  const int32_t *of_pair, *offset;
  const float* value;
};

enum Halo { NONE = 0, REFLECT = 1, ZEROS = 2 };

// A batch norm in training mode with what stands around it: the source is doubled in size (if `doubled`), passed through
// a leaky ReLU of slope `before` (1: none), normalised, passed through one of slope `after`, and padded by a halo.
// Sizes are those of the output; only the channels listed are touched. `bias` is what the convolution before would have
// added: it changes nothing but the running mean.
struct Norm {
  int32_t height, width, channels, doubled, halo, add;
  const int32_t* channel;
  const float* in;
  int64_t in_stride, in_pitch;
  float* out;
  int64_t out_stride, out_pitch;
  const float *gamma, *beta, *bias;
  float *mean, *scale, *running_mean, *running_variance;
  float momentum, epsilon, before, after;
  float *out_gradient, *in_gradient;
  int64_t gradient_stride, gradient_pitch;
  float *gamma_gradient, *beta_gradient;
};
}

#define ISA portable
#define WIDTH 4
#define TILE 6
#include "kernels.inc"
#undef ISA
#undef WIDTH
#undef TILE

#if defined(__x86_64__) && defined(__GNUC__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define WIDTH 8
#define TILE 6
#include "kernels.inc"
#undef ISA
#undef WIDTH
#undef TILE
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512vl,avx512bw,avx512dq,fma")
#endif
#define ISA avx512
#define WIDTH 16
#define TILE 13
#include "kernels.inc"
#undef ISA
#undef WIDTH
#undef TILE
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#define HAVE_X86 1
#endif

namespace {

enum Isa { PORTABLE = 0, AVX2 = 1, AVX512 = 2 };

int best() {
#ifdef HAVE_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq"))
    return AVX512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return AVX2;
#endif
  return PORTABLE;
}

int chosen = best();

#ifdef HAVE_X86
#define DISPATCH(call) \
  (chosen == AVX512 ? avx512::call : chosen == AVX2 ? avx2::call : portable::call)
#else
#define DISPATCH(call) (portable::call)
#endif

}  // namespace

extern "C" {

// The instruction set in use: 0 portable, 1 AVX2, 2 AVX-512.
int lipfw_isa(void) { return chosen; }

// Use an instruction set, at most the best that the processor has; returns the one in use.
int lipfw_use_isa(int isa) { return chosen = isa < 0 ? 0 : isa > best() ? best() : isa; }

// Whether more than one thread can be used: 1 if the library was built with OpenMP.
int lipfw_parallel(void) {
#ifdef _OPENMP
  return 1;
#else
  return 0;
#endif
}

// Use a number of threads from here on, in what the calling thread starts.
void lipfw_threads(int n) { omp_set_num_threads(n); }

// Positions in a full tile: how much of a plane is worked on at a time.
int lipfw_tile(void) { return chosen == AVX512 ? 13 * 16 : chosen == AVX2 ? 6 * 8 : 6 * 4; }

void lipfw_conv(const float* in, const Weights* w, const float* bias, float* out, int64_t stride, int64_t positions,
                int add) {
  DISPATCH(conv(in, *w, bias, out, stride, positions, add));
}

void lipfw_weights(const float* in, const float* gradient, int64_t stride, const Weights* w, float* g,
                   int64_t positions) {
  DISPATCH(weights(in, gradient, stride, *w, g, positions));
}

void lipfw_norm_forward(const Norm* n) { DISPATCH(norm_forward(*n)); }

void lipfw_norm_backward(const Norm* n) { DISPATCH(norm_backward(*n)); }

// Copy compact planes (channels, height, width) into planes with a halo, and fill it.
void lipfw_pad(const float* in, float* out, int64_t stride, int channels, int height, int width, int halo) {
  const int pitch = width + (halo ? 2 : 0);
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++) {
    float *plane = out + c * stride, *inner = plane + (halo ? pitch + 1 : 0);
    for (int y = 0; y < height; y++)
      memcpy(inner + (long)y * pitch, in + ((long)c * height + y) * width, width * sizeof(float));
    if (halo) portable::fill_halo(plane, pitch, height, width, halo == REFLECT);
  }
}

// Split planes into those of their even and odd rows and columns: plane 4 c + 2 (row % 2) + column % 2. A convolution of
// stride 2 reads them as one of stride 1. `out` is zero where a plane of odd size has no row or column left.
void lipfw_split(const float* in, int64_t in_stride, int channels, int height, int width, float* out,
                 int64_t out_stride) {
  const int pitch = (width + 1) / 2;
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++)
    for (int y = 0; y < height; y++) {
      const float* i = in + c * in_stride + (long)y * width;
      float *even = out + (4L * c + 2 * (y & 1)) * out_stride + (long)(y / 2) * pitch, *odd = even + out_stride;
      for (int x = 0; x < pitch; x++) even[x] = i[2 * x];
      for (int x = 0; x < width / 2; x++) odd[x] = i[2 * x + 1];
    }
}

// The transpose of lipfw_split, added to `out` or written to it.
void lipfw_join(const float* in, int64_t in_stride, float* out, int64_t out_stride, int channels, int height, int width,
                int add) {
  const int pitch = (width + 1) / 2;
#pragma omp parallel for schedule(static)
  for (int c = 0; c < channels; c++)
    for (int y = 0; y < height; y++) {
      float* o = out + c * out_stride + (long)y * width;
      const float* even = in + (4L * c + 2 * (y & 1)) * in_stride + (long)(y / 2) * pitch;
      const float* odd = even + in_stride;
      if (!add) memset(o, 0, width * sizeof(float));
      for (int x = 0; x < pitch; x++) o[2 * x] += even[x];
      for (int x = 0; x < width / 2; x++) o[2 * x + 1] += odd[x];
    }
}

// out[i] = in[index[i]].
void lipfw_gather(const float* in, const int32_t* index, float* out, int64_t n) {
  for (int64_t i = 0; i < n; i++) out[i] = in[index[i]];
}
}
