#include "image_processing.h"

// x / 255 to the nearest integer, for 0 ≤ x ≤ 255².
static uint32_t by_255(uint32_t x) {
  x += 128;
  return (x + (x >> 8)) >> 8;
}

void image_premultiply(const uint8_t *rgba, int64_t pixel_count, uint8_t *result) {
  for (int64_t i = 0; i < pixel_count; i++, rgba += 4, result += 4) {
    uint32_t alpha = rgba[3];
    for (int c = 0; c < 3; c++) result[c] = (uint8_t)by_255(rgba[c] * alpha);
    result[3] = (uint8_t)alpha;
  }
}

void image_unpremultiply(const uint8_t *rgba, int64_t pixel_count, uint8_t *result) {
  for (int64_t i = 0; i < pixel_count; i++, rgba += 4, result += 4) {
    uint32_t alpha = rgba[3];
    for (int c = 0; c < 3; c++) {
      uint32_t value = rgba[c];
      if (alpha != 0 && alpha != 255) value = 255 * value / alpha;
      result[c] = (uint8_t)(value > 255 ? 255 : value);
    }
    result[3] = (uint8_t)alpha;
  }
}

void image_over_white(const uint8_t *rgba, int64_t pixel_count, uint8_t *rgb) {
  for (int64_t i = 0; i < pixel_count; i++, rgba += 4, rgb += 3) {
    uint32_t alpha = rgba[3];
    for (int c = 0; c < 3; c++) rgb[c] = (uint8_t)by_255(rgba[c] * alpha + 255 * (255 - alpha));
  }
}

void image_blend(uint8_t *target, const uint8_t *source, const uint8_t *mask, int64_t pixel_count, int channels) {
  for (int64_t i = 0; i < pixel_count; i++) {
    uint32_t weight = mask[i];
    for (int c = 0; c < channels; c++, target++, source++)
      *target = (uint8_t)by_255(*target * (255 - weight) + *source * weight);
  }
}

// The share of the top layer in the colour has 7 bits more than a byte.
enum { SHARE_BITS = 7 };

void image_alpha_composite(uint8_t *bottom, const uint8_t *top, int64_t pixel_count) {
  for (int64_t i = 0; i < pixel_count; i++, bottom += 4, top += 4) {
    if (top[3] == 0) continue;
    uint32_t alpha = top[3] * 255u + bottom[3] * (255u - top[3]);  // times 255
    uint32_t share = (top[3] * 255u * 255u << SHARE_BITS) / alpha, rest = (255u << SHARE_BITS) - share;
    for (int c = 0; c < 3; c++) {
      uint32_t sum = top[c] * share + bottom[c] * rest + (128u << SHARE_BITS);
      bottom[c] = (uint8_t)((sum + (sum >> 8)) >> 8 >> SHARE_BITS);
    }
    bottom[3] = (uint8_t)by_255(alpha);
  }
}

void image_luma(const uint8_t *pixels, int64_t pixel_count, int channels, uint8_t *luma) {
  for (int64_t i = 0; i < pixel_count; i++, pixels += channels)
    luma[i] = (uint8_t)((pixels[0] * 19595u + pixels[1] * 38470u + pixels[2] * 7471u + 0x8000) >> 16);
}

void image_convert(const uint8_t *pixels, int64_t pixel_count, int channels, int target_channels, uint8_t *target) {
  int green = channels == 1 ? 0 : 1, blue = channels == 1 ? 0 : 2;
  for (int64_t i = 0; i < pixel_count; i++, pixels += channels, target += target_channels) {
    target[0] = pixels[0];
    target[1] = pixels[green];
    target[2] = pixels[blue];
    if (target_channels == 4) target[3] = channels == 4 ? pixels[3] : 255;
  }
}

void image_alpha(const uint8_t *rgba, int64_t pixel_count, uint8_t *alpha) {
  for (int64_t i = 0; i < pixel_count; i++) alpha[i] = rgba[4 * i + 3];
}
