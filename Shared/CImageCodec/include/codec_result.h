// What the codecs for JPEG and WebP have in common.
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef enum {
  CODEC_OK = 0,
  CODEC_MALFORMED,    // error says what is wrong with the file
  CODEC_UNSUPPORTED,  // the file is sound, but of a kind that is not read; error says which
  CODEC_NO_MEMORY,
  CODEC_FAILED,  // the library refuses for another reason, which error says
} codec_status;

enum { CODEC_ERROR_LENGTH = 200 };

// What the first bytes of a file say.
typedef struct {
  uint32_t width, height;
  int channels;     // of the file: 1, 3 or 4
  int is_animated;  // more than one frame
  char error[CODEC_ERROR_LENGTH];
} codec_header;

// A file in memory that the library has allocated; codec_file_free releases it.
typedef struct {
  uint8_t *bytes;
  size_t byte_count;
  char error[CODEC_ERROR_LENGTH];
} codec_file;

void codec_file_free(codec_file *file);
