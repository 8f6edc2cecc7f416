#include "jpeg_codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
// After jpeglib.h, which it needs.
#include <jerror.h>

// MARK: - Errors

// All state of a call lives in the frame of a caller of the function that has called setjmp, so that it is defined
// after a longjmp.
typedef struct {
  struct jpeg_error_mgr base;  // first: libjpeg hands out a pointer to it
  jmp_buf failed;
  codec_status status;
  char *error;
} error_manager;

static void fail(error_manager *manager, codec_status status, const char *reason) {
  manager->status = status;
  snprintf(manager->error, CODEC_ERROR_LENGTH, "%s", reason);
  longjmp(manager->failed, 1);
}

static void on_error(j_common_ptr info) {
  error_manager *manager = (error_manager *)info->err;
  char message[JMSG_LENGTH_MAX];
  info->err->format_message(info, message);
  codec_status status = CODEC_MALFORMED;
  switch (info->err->msg_code) {
    case JERR_OUT_OF_MEMORY: status = CODEC_NO_MEMORY; break;
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_BAD_IN_COLORSPACE: status = CODEC_UNSUPPORTED; break;
    default: break;
  }
  fail(manager, status, message);
}

// Warnings, with level -1, are what libjpeg can work around, by grey blocks if need be. Only those pass that leave each
// pixel as it was encoded; cameras write files with some of them.
static void on_message(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_ICC:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL: return;
    case JWRN_JPEG_EOF: fail((error_manager *)info->err, CODEC_MALFORMED, "the file ends early"); return;
    default: on_error(info);
  }
}

static void print_nothing(j_common_ptr info) { (void)info; }

static struct jpeg_error_mgr *errors_to(error_manager *manager, char *error) {
  jpeg_std_error(&manager->base);
  manager->base.error_exit = on_error;
  manager->base.emit_message = on_message;
  manager->base.output_message = print_nothing;
  manager->status = CODEC_FAILED;
  manager->error = error;
  error[0] = 0;
  return &manager->base;
}

// MARK: - Decoding

typedef struct {
  error_manager errors;
  struct jpeg_progress_mgr progress;
  struct jpeg_decompress_struct info;
  uint8_t *row;  // of CMYK
} decoder;

static void stop_at_too_many_scans(j_common_ptr info) {
  if (((j_decompress_ptr)info)->input_scan_number > JPEG_CODEC_MAX_SCANS)
    fail((error_manager *)info->err, CODEC_MALFORMED, "more than 64 scans");
}

static void read_header(decoder *self, const uint8_t *file, size_t byte_count) {
  jpeg_create_decompress(&self->info);
  self->progress.progress_monitor = stop_at_too_many_scans;
  self->info.progress = &self->progress;
  jpeg_mem_src(&self->info, file, byte_count);
  jpeg_read_header(&self->info, TRUE);
  int components = self->info.num_components;
  if (components != 1 && components != 3 && components != 4) {
    char reason[CODEC_ERROR_LENGTH];
    snprintf(reason, sizeof reason, "%d colour components", components);
    fail(&self->errors, CODEC_UNSUPPORTED, reason);
  }
}

static codec_status try_to_read_header(decoder *self, const uint8_t *file, size_t byte_count) {
  if (setjmp(self->errors.failed)) return self->errors.status;
  read_header(self, file, byte_count);
  return CODEC_OK;
}

codec_status jpeg_codec_read_header(const uint8_t *file, size_t byte_count, codec_header *header) {
  memset(header, 0, sizeof *header);
  decoder self = {0};
  self.info.err = errors_to(&self.errors, header->error);
  codec_status status = try_to_read_header(&self, file, byte_count);
  header->width = self.info.image_width;
  header->height = self.info.image_height;
  header->channels = self.info.num_components;
  jpeg_destroy_decompress(&self.info);
  return status;
}

// CMYK with the inks inverted, as Adobe's programs and so all others write them: 255 is no ink.
static void cmyk_to_rgb(const uint8_t *cmyk, uint32_t count, uint8_t *rgb) {
  for (uint32_t i = 0; i < count; i++, cmyk += 4, rgb += 3) {
    int32_t light = cmyk[3];
    for (int c = 0; c < 3; c++) {
      int32_t ink = (255 - cmyk[c]) * light + 128;
      rgb[c] = (uint8_t)(light - ((ink + (ink >> 8)) >> 8));
    }
  }
}

static codec_status try_to_decode(decoder *self, const uint8_t *file, size_t byte_count, uint32_t width,
                                  uint32_t height, uint8_t *rgb) {
  if (setjmp(self->errors.failed)) return self->errors.status;
  j_decompress_ptr info = &self->info;
  read_header(self, file, byte_count);
  if (info->image_width != width || info->image_height != height)
    fail(&self->errors, CODEC_FAILED, "another size than announced");
  int is_cmyk = info->num_components == 4;
  info->out_color_space = is_cmyk ? JCS_CMYK : JCS_RGB;
  // Everything that bears on the pixels is set, so that they do not depend on how the library was built.
  info->dct_method = JDCT_ISLOW;
  info->do_fancy_upsampling = TRUE;
  info->do_block_smoothing = TRUE;
  if (is_cmyk) {
    self->row = malloc((size_t)width * 4);
    if (!self->row) fail(&self->errors, CODEC_NO_MEMORY, "out of memory");
  }
  jpeg_start_decompress(info);
  while (info->output_scanline < height) {
    uint8_t *target = rgb + (size_t)info->output_scanline * width * 3;
    JSAMPROW row = is_cmyk ? self->row : target;
    if (jpeg_read_scanlines(info, &row, 1) != 1) fail(&self->errors, CODEC_MALFORMED, "the file ends early");
    if (is_cmyk) cmyk_to_rgb(row, width, target);
  }
  // A component gets its quantisation table with its first scan. Its description is gone once decoding is finished.
  for (int i = 0; i < info->num_components; i++)
    if (!info->comp_info[i].quant_table) fail(&self->errors, CODEC_MALFORMED, "a colour component is missing");
  jpeg_finish_decompress(info);
  return CODEC_OK;
}

codec_status jpeg_codec_decode(const uint8_t *file, size_t byte_count, uint32_t width, uint32_t height, uint8_t *rgb,
                               char error[CODEC_ERROR_LENGTH]) {
  decoder self = {0};
  self.info.err = errors_to(&self.errors, error);
  codec_status status = try_to_decode(&self, file, byte_count, width, height, rgb);
  jpeg_destroy_decompress(&self.info);
  free(self.row);
  return status;
}

// MARK: - Encoding

typedef struct {
  error_manager errors;
  struct jpeg_destination_mgr destination;
  struct jpeg_compress_struct info;
  codec_file *file;
  size_t capacity;
} encoder;

// libjpeg writes to the free bytes of the file's buffer. Its own memory destination loses the buffer when it fails.
static void grow(j_compress_ptr info, size_t used) {
  encoder *self = info->client_data;
  size_t capacity = self->capacity ? 2 * self->capacity : 1 << 16;
  uint8_t *moved = realloc(self->file->bytes, capacity);
  if (!moved) fail(&self->errors, CODEC_NO_MEMORY, "out of memory");
  self->file->bytes = moved;
  self->capacity = capacity;
  self->destination.next_output_byte = moved + used;
  self->destination.free_in_buffer = capacity - used;
}

static void begin_output(j_compress_ptr info) { grow(info, 0); }

// The buffer is full, whatever free_in_buffer says.
static boolean continue_output(j_compress_ptr info) {
  grow(info, ((encoder *)info->client_data)->capacity);
  return TRUE;
}

static void end_output(j_compress_ptr info) {
  encoder *self = info->client_data;
  self->file->byte_count = self->capacity - self->destination.free_in_buffer;
}

static codec_status try_to_encode(encoder *self, const uint8_t *pixels, uint32_t width, uint32_t height, int channels,
                                  int quality, int full_chroma) {
  if (setjmp(self->errors.failed)) return self->errors.status;
  j_compress_ptr info = &self->info;
  jpeg_create_compress(info);
  info->client_data = self;
  self->destination.init_destination = begin_output;
  self->destination.empty_output_buffer = continue_output;
  self->destination.term_destination = end_output;
  info->dest = &self->destination;
  info->image_width = width;
  info->image_height = height;
  info->input_components = channels;
  info->in_color_space = channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(info);
  jpeg_set_quality(info, quality, TRUE);
  // Everything that bears on the bytes is set, so that they do not depend on how the library was built.
  info->dct_method = JDCT_ISLOW;
  info->optimize_coding = TRUE;
  info->comp_info[0].h_samp_factor = info->comp_info[0].v_samp_factor = channels == 1 || full_chroma ? 1 : 2;
  jpeg_start_compress(info, TRUE);
  while (info->next_scanline < height) {
    JSAMPROW row = (JSAMPROW)(pixels + (size_t)info->next_scanline * width * (size_t)channels);
    jpeg_write_scanlines(info, &row, 1);
  }
  jpeg_finish_compress(info);
  return CODEC_OK;
}

codec_status jpeg_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, int quality,
                               int full_chroma, codec_file *result) {
  memset(result, 0, sizeof *result);
  encoder self = {.file = result};
  self.info.err = errors_to(&self.errors, result->error);
  codec_status status = try_to_encode(&self, pixels, width, height, channels, quality, full_chroma);
  jpeg_destroy_compress(&self.info);
  return status;
}

void codec_file_free(codec_file *file) {
  free(file->bytes);
  file->bytes = NULL;
}
