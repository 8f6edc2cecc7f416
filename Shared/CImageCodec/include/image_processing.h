// Arithmetic on images of interleaved 8-bit channels, top row first: resampling, blurring and compositing with the
// rounding of Pillow 13. Callers have checked sizes: every buffer holds width × height × channels bytes.
#pragma once
#include <stdint.h>

typedef enum { RESAMPLE_NEAREST, RESAMPLE_BOX, RESAMPLE_BILINEAR, RESAMPLE_BICUBIC, RESAMPLE_LANCZOS } resample_filter;

// An image's size; 1 to 4 channels.
typedef struct {
  int width, height, channels;
} image_size;

// The rectangle of the source that becomes the whole result, in pixels; may be fractional or have no area.
typedef struct {
  float left, top, right, bottom;
} image_box;

// Scales box of the source to target, whose channels are the source's. 0: done, 1: out of memory.
int image_resample(const uint8_t *source, image_size size, image_box box, resample_filter filter,
                   image_size target_size, uint8_t *target);

// Gaussian blur approximated by three extended box blurs along rows and three along columns, edges repeated, in place.
// radius: the standard deviation in pixels, above 0 and at most 65536. 0: done, 1: out of memory.
int image_gaussian_blur(uint8_t *pixels, image_size size, float radius);

// RGBA of straight alpha to RGBA of premultiplied colours, and back. In place is allowed.
void image_premultiply(const uint8_t *rgba, int64_t pixel_count, uint8_t *result);
void image_unpremultiply(const uint8_t *rgba, int64_t pixel_count, uint8_t *result);

// RGBA over opaque white, to RGB.
void image_over_white(const uint8_t *rgba, int64_t pixel_count, uint8_t *rgb);

// target = target + mask · (source - target) for every channel, alpha like the others.
void image_blend(uint8_t *target, const uint8_t *source, const uint8_t *mask, int64_t pixel_count, int channels);

// The Porter-Duff operator "over" for RGBA of straight alpha; the result replaces the bottom layer.
void image_alpha_composite(uint8_t *bottom, const uint8_t *top, int64_t pixel_count);

// Grey (1 channel), RGB (3) or RGBA (4) to RGB or RGBA: grey is repeated, alpha dropped, or 255 where there was none.
void image_convert(const uint8_t *pixels, int64_t pixel_count, int channels, int target_channels, uint8_t *target);

// The alpha channel of RGBA.
void image_alpha(const uint8_t *rgba, int64_t pixel_count, uint8_t *alpha);

// ITU-R 601-2 luma of RGB or RGBA (3 or 4 channels; alpha has no part in it).
void image_luma(const uint8_t *pixels, int64_t pixel_count, int channels, uint8_t *luma);

// What EXIF's orientations, 1 to 8, ask for: the image as it is to be seen. 5 to 8 exchange width and height.
void image_orient(const uint8_t *pixels, image_size size, int orientation, uint8_t *result);
