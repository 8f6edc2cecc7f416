#include <string.h>

#include "ckernels.h"

// G of F(4, 3) at the points of convolution.inc: row p is [1, p, p²] / Π(p - q) over the other points q; ∞ takes the last tap.
static void transform_taps(const double taps[3], double out[6]) {
  static const double points[5] = {0, 0.75, -0.75, 1.5, -1.5};
  for (int i = 0; i < 5; i++) {
    double scale = 1;
    for (int j = 0; j < 5; j++)
      if (j != i) scale *= points[i] - points[j];
    out[i] = (taps[0] + points[i] * (taps[1] + points[i] * taps[2])) / scale;
  }
  out[5] = taps[2];
}

size_t ck_winograd_weight_bytes(size_t out_channels, size_t in_channels, size_t panel_columns) {
  return 36 * ((out_channels + panel_columns - 1) / panel_columns * panel_columns) * in_channels * sizeof(float);
}

void ck_winograd_weights(float *packed, const float *w, size_t out_channels, size_t in_channels, size_t panel_columns, size_t panel) {
  const size_t panels = (out_channels + panel_columns - 1) / panel_columns;
  for (size_t column = 0; column < panel_columns; column++)
    for (size_t in = 0; in < in_channels; in++) {
      const size_t out = panel * panel_columns + column;
      double rows[3][6] = {{0}}, all[6][6] = {{0}};
      if (out < out_channels) {
        for (int y = 0; y < 3; y++) {
          double taps[3];
          for (int x = 0; x < 3; x++) taps[x] = w[(out * in_channels + in) * 9 + y * 3 + x];
          transform_taps(taps, rows[y]);
        }
        for (int x = 0; x < 6; x++) {
          double taps[3] = {rows[0][x], rows[1][x], rows[2][x]}, points[6];
          transform_taps(taps, points);
          for (int y = 0; y < 6; y++) all[y][x] = points[y];
        }
      }
      for (size_t point = 0; point < 36; point++)
        packed[((point * panels + panel) * in_channels + in) * panel_columns + column] = (float)all[point / 6][point % 6];
    }
}
