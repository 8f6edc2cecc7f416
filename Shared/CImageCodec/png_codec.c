#include "png_codec.h"

#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

// All state of a call lives here, in the caller's frame, so that it is defined after a longjmp.
typedef struct {
  jmp_buf failed;
  png_codec_result *result;
  png_structp png;
  png_infop info;
  png_infop end;
  size_t capacity;  // of result->bytes while encoding
  const uint8_t *input;
  size_t input_left;
  png_text *chunks;
  size_t texts_capacity;
} codec;

static void fail(png_structp png, png_const_charp message) {
  codec *self = png_get_error_ptr(png);
  strncpy(self->result->error, message, sizeof self->result->error - 1);
  longjmp(self->failed, 1);
}

static void ignore_warning(png_structp png, png_const_charp message) {
  (void)png;
  (void)message;
}

// Makes space for more bytes behind count, doubling the block.
static void reserve(png_structp png, uint8_t **block, size_t *capacity, size_t count, size_t more) {
  if (more > SIZE_MAX / 2 - count) png_error(png, "too large");
  if (count + more <= *capacity) return;
  size_t grown = *capacity < 4096 ? 4096 : *capacity;
  while (grown < count + more) grown *= 2;
  uint8_t *moved = realloc(*block, grown);
  if (!moved) png_error(png, "out of memory");
  *block = moved;
  *capacity = grown;
}

static void write_bytes(png_structp png, png_bytep bytes, size_t count) {
  codec *self = png_get_io_ptr(png);
  reserve(png, &self->result->bytes, &self->capacity, self->result->byte_count, count);
  memcpy(self->result->bytes + self->result->byte_count, bytes, count);
  self->result->byte_count += count;
}

static void flush_nothing(png_structp png) { (void)png; }

static void read_bytes(png_structp png, png_bytep bytes, size_t count) {
  codec *self = png_get_io_ptr(png);
  if (count > self->input_left) png_error(png, "file ends early");
  memcpy(bytes, self->input, count);
  self->input += count;
  self->input_left -= count;
}

// MARK: - Encoding

static png_codec_status encode(codec *self, const uint8_t *pixels, uint32_t width, uint32_t height, int channels,
                               const png_codec_text *texts, size_t text_count) {
  if (setjmp(self->failed)) return PNG_CODEC_FAILED;
  self->info = png_create_info_struct(self->png);
  if (!self->info) png_error(self->png, "out of memory");
  png_set_write_fn(self->png, self, write_bytes, flush_nothing);
  png_set_user_limits(self->png, 0x7fffffff, 0x7fffffff);
  // Everything that bears on the bytes is set, so that they do not depend on the library's defaults.
  png_set_compression_level(self->png, 6);
  png_set_compression_mem_level(self->png, 8);
  png_set_compression_strategy(self->png, Z_FILTERED);
  png_set_compression_window_bits(self->png, 15);
  png_set_compression_buffer_size(self->png, 65536);
  png_set_filter(self->png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
  int type = channels == 4 ? PNG_COLOR_TYPE_RGB_ALPHA : channels == 3 ? PNG_COLOR_TYPE_RGB : PNG_COLOR_TYPE_GRAY;
  png_set_IHDR(self->png, self->info, width, height, 8, type, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
               PNG_FILTER_TYPE_DEFAULT);
  if (text_count > 0) {
    self->chunks = calloc(text_count, sizeof *self->chunks);
    if (!self->chunks) png_error(self->png, "out of memory");
    for (size_t i = 0; i < text_count; i++) {
      self->chunks[i].compression = texts[i].international ? PNG_ITXT_COMPRESSION_NONE : PNG_TEXT_COMPRESSION_NONE;
      self->chunks[i].key = (char *)texts[i].keyword;
      self->chunks[i].text = (char *)texts[i].text;
      self->chunks[i].lang = "";
      self->chunks[i].lang_key = "";
    }
    png_set_text(self->png, self->info, self->chunks, (int)text_count);
  }
  png_write_info(self->png, self->info);
  for (uint32_t row = 0; row < height; row++) png_write_row(self->png, pixels + (size_t)row * width * (size_t)channels);
  png_write_end(self->png, self->info);
  return PNG_CODEC_OK;
}

png_codec_status png_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, const png_codec_text *texts,
                                  size_t text_count, png_codec_result *result) {
  memset(result, 0, sizeof *result);
  codec self = {.result = result};
  // Creating the structure reports errors through the callback too: until encode() has set its own jump, return from
  // here.
  if (setjmp(self.failed)) return PNG_CODEC_FAILED;
  self.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &self, fail, ignore_warning);
  if (!self.png) return strcpy(result->error, "libpng cannot be initialised"), PNG_CODEC_FAILED;
  png_codec_status status = encode(&self, pixels, width, height, channels, texts, text_count);
  free(self.chunks);
  png_destroy_write_struct(&self.png, &self.info);
  return status;
}

// MARK: - Decoding

static void append_text(codec *self, const void *bytes, size_t count) {
  reserve(self->png, &self->result->texts, &self->texts_capacity, self->result->texts_byte_count, count);
  memcpy(self->result->texts + self->result->texts_byte_count, bytes, count);
  self->result->texts_byte_count += count;
}

static void collect_texts(codec *self, png_infop info) {
  png_textp chunks = NULL;
  int count = 0;
  png_get_text(self->png, info, &chunks, &count);
  for (int i = 0; i < count; i++) {
    if (!chunks[i].key || !chunks[i].text) continue;
    append_text(self, chunks[i].compression >= PNG_ITXT_COMPRESSION_NONE ? "U" : "L", 1);
    append_text(self, chunks[i].key, strlen(chunks[i].key) + 1);
    append_text(self, chunks[i].text, strlen(chunks[i].text) + 1);
  }
}

// Chunks that are neither needed nor understood are skipped unread: compressed profiles could be bombs.
static void skip_other_chunks(png_structp png) {
  static const png_byte skipped[] = "iCCP\0sPLT\0eXIf\0hIST\0pCAL\0sCAL\0bKGD\0cHRM\0gAMA\0sRGB\0pHYs\0sBIT\0tIME\0oFFs";
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, skipped, (int)(sizeof skipped / 5));
}

static png_codec_status decode(codec *self, uint64_t max_pixels) {
  png_codec_result *result = self->result;
  if (setjmp(self->failed)) return PNG_CODEC_FAILED;
  self->info = png_create_info_struct(self->png);
  self->end = png_create_info_struct(self->png);
  if (!self->info || !self->end) png_error(self->png, "out of memory");
  png_set_read_fn(self->png, self, read_bytes);
  png_set_user_limits(self->png, 0x7fffffff, 0x7fffffff);
  png_set_chunk_malloc_max(self->png, 1 << 20);
  png_set_chunk_cache_max(self->png, 64);
  skip_other_chunks(self->png);
  png_read_info(self->png, self->info);
  result->width = png_get_image_width(self->png, self->info);
  result->height = png_get_image_height(self->png, self->info);
  if ((uint64_t)result->width * result->height > max_pixels) return PNG_CODEC_TOO_LARGE;

  png_set_expand(self->png);
  png_set_strip_16(self->png);
  png_set_gray_to_rgb(self->png);
  int passes = png_set_interlace_handling(self->png);
  png_read_update_info(self->png, self->info);
  result->channels = png_get_channels(self->png, self->info);
  size_t row_byte_count = png_get_rowbytes(self->png, self->info);
  if (png_get_bit_depth(self->png, self->info) != 8 || (result->channels != 3 && result->channels != 4) ||
      row_byte_count != (size_t)result->width * (size_t)result->channels)
    png_error(self->png, "unexpected pixel format");
  result->byte_count = row_byte_count * result->height;
  // calloc: an interlaced image is put together from passes that read back the rows before them.
  result->bytes = calloc(1, result->byte_count);
  if (!result->bytes) png_error(self->png, "out of memory");
  for (int pass = 0; pass < passes; pass++)
    for (uint32_t row = 0; row < result->height; row++) png_read_row(self->png, result->bytes + row * row_byte_count, NULL);
  png_read_end(self->png, self->end);
  collect_texts(self, self->info);
  collect_texts(self, self->end);
  return PNG_CODEC_OK;
}

// Whether every chunk up to the last one is as long as it says. libpng only warns of longer ones, and clears a buffer
// for them first: up to 2 GiB. What follows the last one is not the image's.
static int chunks_fit(const uint8_t *file, size_t count) {
  for (size_t at = 8; count - at >= 8;) {
    size_t length = (size_t)file[at] << 24 | (size_t)file[at + 1] << 16 | (size_t)file[at + 2] << 8 | file[at + 3];
    if (count - at < 12 || length > count - at - 12) return 0;
    if (memcmp(file + at + 4, "IEND", 4) == 0) return 1;
    at += length + 12;
  }
  return 1;
}

png_codec_status png_codec_decode(const uint8_t *file, size_t file_byte_count, uint64_t max_pixels, png_codec_result *result) {
  memset(result, 0, sizeof *result);
  if (file_byte_count < 8 || png_sig_cmp(file, 0, 8) != 0) return PNG_CODEC_NOT_PNG;
  if (!chunks_fit(file, file_byte_count)) return strcpy(result->error, "file ends early"), PNG_CODEC_FAILED;
  codec self = {.result = result, .input = file, .input_left = file_byte_count};
  if (setjmp(self.failed)) return PNG_CODEC_FAILED;
  self.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &self, fail, ignore_warning);
  if (!self.png) return strcpy(result->error, "libpng cannot be initialised"), PNG_CODEC_FAILED;
  png_codec_status status = decode(&self, max_pixels);
  png_destroy_read_struct(&self.png, &self.info, &self.end);
  return status;
}

void png_codec_free(png_codec_result *result) {
  free(result->bytes);
  free(result->texts);
  result->bytes = NULL;
  result->texts = NULL;
}
