#include "webp_codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>
#include <webp/encode.h>

static codec_status failed(codec_status status, const char *reason, char error[CODEC_ERROR_LENGTH]) {
  snprintf(error, CODEC_ERROR_LENGTH, "%s", reason);
  return status;
}

// MARK: - Decoding

static codec_status status_of(VP8StatusCode code, char error[CODEC_ERROR_LENGTH]) {
  switch (code) {
    case VP8_STATUS_OK: return CODEC_OK;
    case VP8_STATUS_OUT_OF_MEMORY: return failed(CODEC_NO_MEMORY, "out of memory", error);
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED: return failed(CODEC_MALFORMED, "the file ends early", error);
    case VP8_STATUS_BITSTREAM_ERROR: return failed(CODEC_MALFORMED, "the compressed pixels are damaged", error);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      return failed(CODEC_UNSUPPORTED, "a feature that is not in the format's standard", error);
    default: return failed(CODEC_FAILED, "libwebp refuses it", error);
  }
}

codec_status webp_codec_read_header(const uint8_t *file, size_t byte_count, codec_header *header) {
  memset(header, 0, sizeof *header);
  WebPBitstreamFeatures features;
  VP8StatusCode code = WebPGetFeatures(file, byte_count, &features);
  if (code != VP8_STATUS_OK) return status_of(code, header->error);
  if (features.width <= 0 || features.height <= 0) return failed(CODEC_MALFORMED, "no pixels", header->error);
  header->width = (uint32_t)features.width;
  header->height = (uint32_t)features.height;
  header->channels = features.has_alpha ? 4 : 3;
  header->is_animated = features.has_animation;
  return CODEC_OK;
}

codec_status webp_codec_decode(const uint8_t *file, size_t byte_count, const codec_header *header, uint8_t *pixels,
                               char error[CODEC_ERROR_LENGTH]) {
  error[0] = 0;
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config))
    return failed(CODEC_FAILED, "libwebp has another version than its headers", error);
  size_t row_bytes = (size_t)header->width * (size_t)header->channels;
  config.output.colorspace = header->channels == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = pixels;
  config.output.u.RGBA.stride = (int)row_bytes;
  config.output.u.RGBA.size = row_bytes * header->height;
  VP8StatusCode code = WebPDecode(file, byte_count, &config);
  WebPFreeDecBuffer(&config.output);
  return status_of(code, error);
}

// MARK: - Encoding

static codec_status encoding_status(WebPEncodingError code, char error[CODEC_ERROR_LENGTH]) {
  switch (code) {
    case VP8_ENC_OK: return CODEC_OK;
    case VP8_ENC_ERROR_OUT_OF_MEMORY:
    case VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY: return failed(CODEC_NO_MEMORY, "out of memory", error);
    case VP8_ENC_ERROR_PARTITION0_OVERFLOW:
    case VP8_ENC_ERROR_PARTITION_OVERFLOW:
      return failed(CODEC_FAILED, "the image is too complex for the format at this quality", error);
    case VP8_ENC_ERROR_FILE_TOO_BIG: return failed(CODEC_FAILED, "the file would be larger than 4 GiB", error);
    default: return failed(CODEC_FAILED, "libwebp refuses it", error);
  }
}

static codec_status encode(const WebPConfig *config, WebPPicture *frame, const uint8_t *pixels, int channels,
                           codec_file *result) {
  int stride = frame->width * channels;
  int is_imported =
      channels == 4 ? WebPPictureImportRGBA(frame, pixels, stride) : WebPPictureImportRGB(frame, pixels, stride);
  if (!is_imported) return failed(CODEC_NO_MEMORY, "out of memory", result->error);
  WebPMemoryWriter writer;
  WebPMemoryWriterInit(&writer);
  frame->writer = WebPMemoryWrite;
  frame->custom_ptr = &writer;
  if (!WebPEncode(config, frame)) {
    WebPMemoryWriterClear(&writer);
    return encoding_status(frame->error_code, result->error);
  }
  result->bytes = writer.mem;
  result->byte_count = writer.size;
  return CODEC_OK;
}

codec_status webp_codec_encode(const uint8_t *pixels, uint32_t width, uint32_t height, int channels, int lossless,
                               int quality, codec_file *result) {
  memset(result, 0, sizeof *result);
  WebPConfig config;
  WebPPicture frame;
  if (!WebPConfigInit(&config) || !WebPPictureInit(&frame))
    return failed(CODEC_FAILED, "libwebp has another version than its headers", result->error);
  config.lossless = lossless;
  // Of lossless files it is the effort.
  config.quality = lossless ? 75 : (float)quality;
  config.method = 4;
  config.exact = 1;
  config.thread_level = 0;
  if (!WebPValidateConfig(&config))
    return failed(CODEC_FAILED, "the quality is not one of the format's", result->error);
  frame.use_argb = lossless;
  frame.width = (int)width;
  frame.height = (int)height;
  codec_status status = encode(&config, &frame, pixels, channels, result);
  WebPPictureFree(&frame);
  return status;
}
