// WebP decoding and encoding in memory.
#pragma once
#include "codec_result.h"

// Reads the headers before the pixels. channels: 3, or 4 with transparency.
codec_status webp_codec_read_header(const uint8_t *file, size_t byte_count, codec_header *header);

// Decodes to 8-bit RGB or RGBA of straight alpha, top row first, as stored (the EXIF orientation is not applied).
// pixels holds width × height × channels bytes, as the header says.
codec_status webp_codec_decode(const uint8_t *file, size_t byte_count, const codec_header *header, uint8_t *pixels,
                               char error[CODEC_ERROR_LENGTH]);

// Encodes 3 (RGB) or 4 (RGBA) 8-bit channels. lossless: every pixel comes back, colours under alpha 0 too, and quality
// (0 to 100) is without effect.
codec_status webp_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, int lossless,
                               int quality, codec_file *result);
