#include "image_processing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PASSES = 3, FRACTION_BITS = 24 };

// The radius of an extended box blur that, run PASSES times, has the variance of a Gaussian: its whole part is the
// largest box that is not too wide, its fraction the weight of the pixels just outside (Gwosdek et al., 2011).
static float box_radius(float sigma) {
  float variance = sigma * sigma / PASSES;
  float length = (float)sqrt(12.0 * variance + 1.0);
  float whole = (float)floor((length - 1.0) / 2.0);
  float fraction = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance);
  fraction /= 6 * (variance - (whole + 1) * (whole + 1));
  return whole + fraction;
}

typedef struct {
  int radius;
  uint32_t inside, outside;  // weights of pixels up to radius, and of those next to them
} box_weights;

static box_weights weights_of(float radius) {
  box_weights box = {.radius = (int)radius};
  box.inside = (uint32_t)((float)(1 << FRACTION_BITS) / (radius * 2 + 1));
  box.outside = ((1 << FRACTION_BITS) - (uint32_t)(box.radius * 2 + 1) * box.inside) / 2;
  return box;
}

// One pass over a line whose first and last sample repeat outside.
static void blur_line(const uint8_t *line, int count, box_weights box, uint8_t *result) {
  int last = count - 1, radius = box.radius;
  uint32_t sum = (uint32_t)line[0] * (uint32_t)radius;
  for (int i = 0; i <= radius && i <= last; i++) sum += line[i];
  if (radius > last) sum += (uint32_t)line[last] * (uint32_t)(radius - last);
  for (int x = 0; x < count; x++) {
    uint32_t before = line[x > radius ? x - radius - 1 : 0];
    uint32_t after = line[x < last - radius ? x + radius + 1 : last];
    uint32_t value = sum * box.inside + (before + after) * box.outside + (1u << (FRACTION_BITS - 1));
    result[x] = (uint8_t)(value >> FRACTION_BITS);
    sum += after - line[x > radius ? x - radius : 0];
  }
}

// Blurs count samples that lie stride bytes apart.
static void blur_samples(uint8_t *samples, size_t stride, int count, box_weights box, uint8_t *buffers) {
  uint8_t *line = buffers, *result = buffers + count;
  for (int i = 0; i < count; i++) line[i] = samples[(size_t)i * stride];
  for (int pass = 0; pass < PASSES; pass++) {
    blur_line(line, count, box, result);
    uint8_t *swapped = line;
    line = result;
    result = swapped;
  }
  for (int i = 0; i < count; i++) samples[(size_t)i * stride] = line[i];
}

int image_gaussian_blur(uint8_t *pixels, image_size size, float radius) {
  box_weights box = weights_of(box_radius(radius));
  size_t channels = (size_t)size.channels, row_bytes = (size_t)size.width * channels;
  uint8_t *buffers = malloc(2 * (size_t)(size.width > size.height ? size.width : size.height));
  if (!buffers) return 1;
  for (int y = 0; y < size.height; y++)
    for (size_t c = 0; c < channels; c++)
      blur_samples(pixels + (size_t)y * row_bytes + c, channels, size.width, box, buffers);
  for (size_t x = 0; x < row_bytes; x++) blur_samples(pixels + x, row_bytes, size.height, box, buffers);
  free(buffers);
  return 0;
}
