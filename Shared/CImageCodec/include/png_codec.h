// PNG encoding and decoding in memory, with libpng's errors turned into return values.
//
// libpng reports errors by longjmp, which must not cross Swift frames; every call of libpng is therefore on this side.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum {
  PNG_CODEC_OK = 0,
  PNG_CODEC_NOT_PNG,    // the signature is wrong
  PNG_CODEC_TOO_LARGE,  // more pixels than allowed; width and height say how many
  PNG_CODEC_FAILED,     // error says why
} png_codec_status;

// A text chunk to write; both strings end in 0. Written as iTXt if international, else as tEXt.
typedef struct {
  const char *keyword;
  const char *text;
  int international;
} png_codec_text;

// What came out. Fields that hold memory are released by png_codec_free.
typedef struct {
  uint8_t *bytes;  // encoder: the file; decoder: 8-bit interleaved pixels, top row first
  size_t byte_count;
  uint8_t *texts;  // decoder: per text chunk 'U' (UTF-8) or 'L' (Latin-1), keyword, 0, text, 0
  size_t texts_byte_count;
  uint32_t width, height;
  int channels;  // decoder: 3 or 4
  char error[200];
} png_codec_result;

// Encodes width × height pixels of 1 (grey), 3 (RGB) or 4 (RGBA) 8-bit channels.
png_codec_status png_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, const png_codec_text *texts,
                                  size_t text_count, png_codec_result *result);

// Decodes a file of at most max_pixels pixels to RGB, or RGBA if it has transparency.
png_codec_status png_codec_decode(const uint8_t *file, size_t file_byte_count, uint64_t max_pixels, png_codec_result *result);

void png_codec_free(png_codec_result *result);
