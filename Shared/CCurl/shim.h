#pragma once
#include <curl/curl.h>

// curl_easy_setopt, curl_multi_setopt and curl_easy_getinfo take variable arguments, which Swift cannot pass.

static inline CURLcode ccurl_set_integer(CURL *handle, CURLoption option, long value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLMcode ccurl_set_multi_integer(CURLM *handle, CURLMoption option, long value) {
  return curl_multi_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_string(CURL *handle, CURLoption option, const char *value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_pointer(CURL *handle, CURLoption option, void *value) {
  return curl_easy_setopt(handle, option, value);
}

static inline CURLcode ccurl_set_headers(CURL *handle, struct curl_slist *headers) {
  return curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
}

// Copies `count` bytes at `body`.
static inline CURLcode ccurl_set_body(CURL *handle, const void *body, curl_off_t count) {
  CURLcode code = curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, count);
  return code == CURLE_OK ? curl_easy_setopt(handle, CURLOPT_COPYPOSTFIELDS, body) : code;
}

// Both functions get `context`; they return how many of the bytes they have taken.
static inline CURLcode ccurl_set_callbacks(CURL *handle, curl_write_callback header, curl_write_callback body, void *context) {
  curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, header);
  curl_easy_setopt(handle, CURLOPT_HEADERDATA, context);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, body);
  return curl_easy_setopt(handle, CURLOPT_WRITEDATA, context);
}

// `opener` makes the socket for each connection, and sees the address that it will be for.
static inline CURLcode ccurl_set_socket_opener(CURL *handle, curl_opensocket_callback opener, void *context) {
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, context);
  return curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, opener);
}

// http and https, for the first request and for redirections.
static inline CURLcode ccurl_restrict_protocols(CURL *handle) {
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
  return curl_easy_setopt(handle, CURLOPT_REDIR_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
}

static inline long ccurl_status(CURL *handle) {
  long status = 0;
  curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
  return status;
}

// The address that the exchange is for; it belongs to the handle.
static inline CURLcode ccurl_address(CURL *handle, char **address) {
  return curl_easy_getinfo(handle, CURLINFO_EFFECTIVE_URL, address);
}

// The errno of the call by which a connection could not be made, or 0.
static inline long ccurl_system_error(CURL *handle) {
  long code = 0;
  curl_easy_getinfo(handle, CURLINFO_OS_ERRNO, &code);
  return code;
}

// Whether the connection that the exchange used was made.
static inline _Bool ccurl_is_connected(CURL *handle) {
  curl_off_t connected = 0, secured = 0;
  curl_easy_getinfo(handle, CURLINFO_CONNECT_TIME_T, &connected);
  curl_easy_getinfo(handle, CURLINFO_PRETRANSFER_TIME_T, &secured);
  return connected > 0 && secured > 0;
}
