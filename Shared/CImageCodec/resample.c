#include "image_processing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// Separable resampling in two passes, rows first, with 8 bits between them. Weights have 22 fractional bits: a sum of
// 8-bit samples then fits in 32 bits with one bit for the overshoot of filters with negative lobes.
enum { FRACTION_BITS = 22, ROUNDING = 1 << (FRACTION_BITS - 1), PADDING = 16, BLOCK = 1024 };

// MARK: - Filters

typedef struct {
  double (*weight)(double x);
  double radius;
} kernel;

static double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

static double bilinear(double x) { return fabs(x) < 1 ? 1 - fabs(x) : 0; }

// Keys' cubic with a = -0.5.
static double bicubic(double x) {
  static const double a = -0.5;
  x = fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

static double sinc(double x) { return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI); }

static double lanczos3(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

static kernel kernel_of(resample_filter filter) {
  switch (filter) {
    case RESAMPLE_BILINEAR: return (kernel){bilinear, 1};
    case RESAMPLE_BICUBIC: return (kernel){bicubic, 2};
    case RESAMPLE_LANCZOS: return (kernel){lanczos3, 3};
    default: return (kernel){box, 0.5};
  }
}

// MARK: - Weights

// For each sample of the result the run of source samples it is made of, with their weights.
typedef struct {
  int capacity;  // weights per sample of the result
  int *first, *count;
  int32_t *weights;
} taps;

static void free_taps(taps *taps) {
  free(taps->first);
  free(taps->count);
  free(taps->weights);
}

// 0: done, 1: out of memory. Shrinking widens the filter by the factor, which is the antialiasing.
static int make_taps(taps *taps, kernel kernel, int source_count, float begin, float end, int target_count) {
  double scale = (double)(end - begin) / target_count, widening = scale < 1 ? 1 : scale;
  double radius = kernel.radius * widening, inverse = 1 / widening;
  taps->capacity = (int)ceil(radius) * 2 + 1;
  taps->first = malloc((size_t)target_count * sizeof *taps->first);
  taps->count = malloc((size_t)target_count * sizeof *taps->count);
  taps->weights = calloc((size_t)target_count * (size_t)taps->capacity, sizeof *taps->weights);
  double *exact = malloc((size_t)taps->capacity * sizeof *exact);
  if (!taps->first || !taps->count || !taps->weights || !exact) return free(exact), 1;
  for (int i = 0; i < target_count; i++) {
    double center = begin + (i + 0.5) * scale, sum = 0;
    int first = (int)(center - radius + 0.5), last = (int)(center + radius + 0.5);
    if (first < 0) first = 0;
    if (last > source_count) last = source_count;
    int count = last - first < 0 ? 0 : last - first > taps->capacity ? taps->capacity : last - first;
    for (int k = 0; k < count; k++) {
      exact[k] = kernel.weight((k + first - center + 0.5) * inverse);
      sum += exact[k];
    }
    int32_t *weights = taps->weights + (size_t)i * (size_t)taps->capacity;
    for (int k = 0; k < count; k++) {
      double weight = (sum != 0 ? exact[k] / sum : exact[k]) * (1 << FRACTION_BITS);
      weights[k] = (int32_t)(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
    taps->first[i] = first;
    taps->count[i] = count;
  }
  free(exact);
  return 0;
}

// MARK: - Passes

typedef int32_t lanes __attribute__((vector_size(16)));
typedef uint8_t bytes4 __attribute__((vector_size(4)));

static uint8_t clip(int32_t sum) {
  sum >>= FRACTION_BITS;
  return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

// A row of 3 or 4 channels: four lanes at a time, so that up to PADDING bytes behind the row are read.
static void resample_row_of_pixels(const uint8_t *row, const taps *taps, int channels, int count, uint8_t *target) {
  for (int x = 0; x < count; x++) {
    const int32_t *weights = taps->weights + (size_t)x * (size_t)taps->capacity;
    const uint8_t *pixel = row + (size_t)taps->first[x] * (size_t)channels;
    lanes sum = {ROUNDING, ROUNDING, ROUNDING, ROUNDING};
    for (int k = 0; k < taps->count[x]; k++, pixel += channels) {
      bytes4 bytes;
      memcpy(&bytes, pixel, sizeof bytes);
      sum += __builtin_convertvector(bytes, lanes) * weights[k];
    }
    for (int c = 0; c < channels; c++) *target++ = clip(sum[c]);
  }
}

static void resample_row(const uint8_t *row, const taps *taps, int channels, int count, uint8_t *target) {
  for (int x = 0; x < count; x++) {
    const int32_t *weights = taps->weights + (size_t)x * (size_t)taps->capacity;
    for (int c = 0; c < channels; c++) {
      const uint8_t *sample = row + (size_t)taps->first[x] * (size_t)channels + c;
      int32_t sum = ROUNDING;
      for (int k = 0; k < taps->count[x]; k++) sum += sample[(size_t)k * (size_t)channels] * weights[k];
      *target++ = clip(sum);
    }
  }
}

// Every row of the source, which has row_count of them and size.channels, to target_width pixels.
static int resample_rows(const uint8_t *source, image_size size, const taps *taps, int target_width, uint8_t *target) {
  size_t row_bytes = (size_t)size.width * (size_t)size.channels;
  uint8_t *row = calloc(1, row_bytes + PADDING);
  if (!row) return 1;
  for (int y = 0; y < size.height; y++) {
    memcpy(row, source + (size_t)y * row_bytes, row_bytes);
    uint8_t *out = target + (size_t)y * (size_t)target_width * (size_t)size.channels;
    if (size.channels >= 3)
      resample_row_of_pixels(row, taps, size.channels, target_width, out);
    else
      resample_row(row, taps, size.channels, target_width, out);
  }
  free(row);
  return 0;
}

// Every column. The source has row_bytes per row, and begins with the row that the taps count as first_row.
static void resample_columns(const uint8_t *source, size_t row_bytes, int first_row, const taps *taps,
                             int target_height, uint8_t *target) {
  int32_t sums[BLOCK];
  for (int y = 0; y < target_height; y++, target += row_bytes) {
    const int32_t *weights = taps->weights + (size_t)y * (size_t)taps->capacity;
    for (size_t begin = 0; begin < row_bytes; begin += BLOCK) {
      size_t count = row_bytes - begin < BLOCK ? row_bytes - begin : BLOCK;
      for (size_t i = 0; i < count; i++) sums[i] = ROUNDING;
      for (int k = 0; k < taps->count[y]; k++) {
        const uint8_t *row = source + (size_t)(taps->first[y] + k - first_row) * row_bytes + begin;
        int32_t weight = weights[k];
        for (size_t i = 0; i < count; i++) sums[i] += row[i] * weight;
      }
      for (size_t i = 0; i < count; i++) target[begin + i] = clip(sums[i]);
    }
  }
}

// MARK: - Nearest

// Source coordinates advance by repeated addition, which decides ties. -1: outside of the source, as where an empty box
// touches its end.
static int *nearest_places(float begin, float end, int count, int source_count) {
  int *places = malloc((size_t)count * sizeof *places);
  if (!places) return NULL;
  double step = (double)(end - begin) / count, at = begin + step * 0.5;
  for (int i = 0; i < count; i++, at += step) {
    int place = at < 0 ? -1 : (int)at;
    places[i] = place < source_count ? place : -1;
  }
  return places;
}

static int resample_nearest(const uint8_t *source, image_size size, image_box box, image_size target_size,
                            uint8_t *target) {
  int *columns = nearest_places(box.left, box.right, target_size.width, size.width);
  int *rows = nearest_places(box.top, box.bottom, target_size.height, size.height);
  size_t channels = (size_t)size.channels;
  if (columns && rows) {
    for (int y = 0; y < target_size.height; y++) {
      for (int x = 0; x < target_size.width; x++, target += channels) {
        size_t place = (size_t)rows[y] * (size_t)size.width + (size_t)columns[x];
        if (rows[y] < 0 || columns[x] < 0)
          memset(target, 0, channels);
        else
          memcpy(target, source + place * channels, channels);
      }
    }
  }
  int failed = !columns || !rows;
  free(columns);
  free(rows);
  return failed;
}

// MARK: - Both passes

// Rows first, unless the height shrinks by more than twice as many pixels as the width: the order decides the rounding
// between the passes. Pillow does so since 13.0; before, rows always came first.
static int begins_with_columns(image_size size, image_size target_size) {
  int64_t fewer_rows = (int64_t)size.height - target_size.height,
          fewer_columns = (int64_t)size.width - target_size.width;
  return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

// What a call of image_resample has allocated.
typedef struct {
  taps across, down;
  uint8_t *between;
} scratch;

static int columns_then_rows(scratch *scratch, const uint8_t *source, image_size size, image_size target_size,
                             uint8_t *target) {
  size_t row_bytes = (size_t)size.width * (size_t)size.channels;
  scratch->between = malloc(row_bytes * (size_t)target_size.height);
  if (!scratch->between) return 1;
  resample_columns(source, row_bytes, 0, &scratch->down, target_size.height, scratch->between);
  image_size between = {size.width, target_size.height, size.channels};
  return resample_rows(scratch->between, between, &scratch->across, target_size.width, target);
}

// Only those rows are made that the second pass needs.
static int rows_then_columns(scratch *scratch, const uint8_t *source, image_size size, image_size target_size,
                             uint8_t *target) {
  const taps *down = &scratch->down;
  int last = target_size.height - 1, first = down->first[0], count = down->first[last] + down->count[last] - first;
  size_t row_bytes = (size_t)target_size.width * (size_t)size.channels;
  scratch->between = malloc(row_bytes * (size_t)count + 1);
  if (!scratch->between) return 1;
  image_size needed = {size.width, count, size.channels};
  source += (size_t)first * (size_t)size.width * (size_t)size.channels;
  if (resample_rows(source, needed, &scratch->across, target_size.width, scratch->between)) return 1;
  resample_columns(scratch->between, row_bytes, first, down, target_size.height, target);
  return 0;
}

static int resample(scratch *scratch, kernel kernel, const uint8_t *source, image_size size, image_box box,
                    image_size target_size, uint8_t *target) {
  int is_across = target_size.width != size.width || box.left != 0 || box.right != (float)size.width;
  int is_down = target_size.height != size.height || box.top != 0 || box.bottom != (float)size.height;
  size_t row_bytes = (size_t)size.width * (size_t)size.channels;
  if (is_across && make_taps(&scratch->across, kernel, size.width, box.left, box.right, target_size.width)) return 1;
  if (is_down && make_taps(&scratch->down, kernel, size.height, box.top, box.bottom, target_size.height)) return 1;
  if (is_across && is_down)
    return (begins_with_columns(size, target_size) ? columns_then_rows : rows_then_columns)(scratch, source, size,
                                                                                            target_size, target);
  if (is_across) return resample_rows(source, size, &scratch->across, target_size.width, target);
  if (is_down)
    resample_columns(source, row_bytes, 0, &scratch->down, target_size.height, target);
  else
    memcpy(target, source, row_bytes * (size_t)size.height);
  return 0;
}

int image_resample(const uint8_t *source, image_size size, image_box box, resample_filter filter,
                   image_size target_size, uint8_t *target) {
  if (filter == RESAMPLE_NEAREST) return resample_nearest(source, size, box, target_size, target);
  scratch scratch = {0};
  int failed = resample(&scratch, kernel_of(filter), source, size, box, target_size, target);
  free_taps(&scratch.across);
  free_taps(&scratch.down);
  free(scratch.between);
  return failed;
}
