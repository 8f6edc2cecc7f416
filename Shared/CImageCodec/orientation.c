#include "image_processing.h"

#include <stdlib.h>
#include <string.h>

// Where the first pixel of the result is in the source, and how far, in pixels, its neighbours to the right and below
// are.
typedef struct {
  int64_t first, right, down;
} walk;

static walk walk_of(int orientation, int64_t width, int64_t height) {
  int64_t last = width * height - 1;
  switch (orientation) {
    case 2: return (walk){width - 1, -1, width};
    case 3: return (walk){last, -1, -width};
    case 4: return (walk){last + 1 - width, 1, -width};
    case 5: return (walk){0, width, 1};
    case 6: return (walk){last + 1 - width, -width, 1};
    case 7: return (walk){last, -width, -1};
    case 8: return (walk){width - 1, width, -1};
    default: return (walk){0, 1, width};
  }
}

// Square by square, so that lines of the source that are read across stay in the cache.
enum { SQUARE = 32 };

void image_orient(const uint8_t *pixels, image_size size, int orientation, uint8_t *result) {
  walk walk = walk_of(orientation, size.width, size.height);
  int width = orientation < 5 ? size.width : size.height, height = orientation < 5 ? size.height : size.width;
  size_t channels = (size_t)size.channels;
  for (int top = 0; top < height; top += SQUARE)
    for (int left = 0; left < width; left += SQUARE)
      for (int y = top; y < height && y < top + SQUARE; y++) {
        uint8_t *target = result + ((size_t)y * (size_t)width + (size_t)left) * channels;
        int64_t place = walk.first + left * walk.right + y * walk.down;
        for (int x = left; x < width && x < left + SQUARE; x++, place += walk.right, target += channels)
          memcpy(target, pixels + (size_t)place * channels, channels);
      }
}
