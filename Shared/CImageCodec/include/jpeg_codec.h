// JPEG decoding and encoding in memory, with libjpeg's errors turned into return values.
//
// libjpeg reports errors by a call that must not return, so by longjmp, which must not cross Swift frames; every call
// of libjpeg is therefore on this side.
#pragma once
#include "codec_result.h"

// Most scans of a progressive file. Encoders write about ten; each one walks over the whole image.
enum { JPEG_CODEC_MAX_SCANS = 64 };

// Reads the headers before the pixels. channels: 1 grey, 3 colour, 4 CMYK.
codec_status jpeg_codec_read_header(const uint8_t *file, size_t byte_count, codec_header *header);

// Decodes to 8-bit RGB, top row first, as stored (the EXIF orientation is not applied). rgb holds width × height × 3
// bytes, as the header says; another size is CODEC_FAILED. Of an incomplete or damaged file, CODEC_MALFORMED, rgb is to
// be thrown away.
codec_status jpeg_codec_decode(const uint8_t *file, size_t byte_count, uint32_t width, uint32_t height, uint8_t *rgb,
                               char error[CODEC_ERROR_LENGTH]);

// Encodes 1 (grey) or 3 (RGB) 8-bit channels: baseline, optimised Huffman tables, quality 1 to 100.
// full_chroma: colour at the full resolution (4:4:4), else at half of it in both directions (4:2:0).
codec_status jpeg_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, int quality,
                               int full_chroma, codec_file *result);
