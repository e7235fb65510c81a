// Requests of one connection, byte by byte where it matters and in bulk for bodies (RFC 9112). No sockets here.
#pragma once
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "sha256.h"
#include "store.h"

enum state { HEAD, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILER, CLOSING };

struct connection {
  int fd;
  uint32_t events;
  enum state state;
  uint64_t left;  // bytes of the body, or of its chunk
  struct sha256 sha;
  struct store store;
  bool first, put, head_only, chunked, has_length, keep, expect, bad;
  uint16_t line_len, out_len;
  char line[1024];
  char out[512];
  uint8_t *held;  // input that waits until `out` is taken
  size_t held_len;
};

static void http_begin(struct connection *c) {
  c->state = HEAD;
  c->first = c->keep = true;
  c->put = c->head_only = c->chunked = c->has_length = c->expect = c->bad = false;
  c->left = 0;
  c->line_len = 0;
  sha256_init(&c->sha);
}

static void http_answer(struct connection *c, const char *status, const char *body) {
  c->out_len += snprintf(c->out + c->out_len, sizeof c->out - c->out_len,
                         "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\n%s\r\n%s", status,
                         strlen(body), c->keep ? "" : "Connection: close\r\n", c->head_only ? "" : body);
}

static void http_finish(struct connection *c) {
  char hex[66] = {0};
  if (c->put && !store_commit(&c->store)) {
    http_answer(c, "500 Internal Server Error", strerror(c->store.error));
  } else if (c->put) {
    sha256_hex(&c->sha, hex);
    hex[64] = '\n';
    http_answer(c, "200 OK", hex);
  } else {
    http_answer(c, "405 Method Not Allowed", "PUT or POST a body to get its SHA-256\n");
  }
  if (c->keep) http_begin(c);
  else c->state = CLOSING;
}

static void http_reject(struct connection *c) {
  c->keep = false;
  store_abandon(&c->store);
  http_answer(c, "400 Bad Request", "bad request\n");
  c->state = CLOSING;
}

static bool http_token(const char *value, const char *token) {
  size_t n = strlen(token);
  for (; *value; value++)
    if (strncasecmp(value, token, n) == 0) return true;
  return false;
}

// Value of the header line if it has this name (given with its colon).
static const char *http_header(const char *line, const char *name) {
  size_t n = strlen(name);
  if (strncasecmp(line, name, n) != 0) return NULL;
  return line + n + strspn(line + n, " \t");
}

static void http_head_end(struct connection *c) {
  if (c->first) return;  // empty lines before a request are allowed
  if (c->bad || (c->chunked && c->has_length)) return http_reject(c);
  if (c->expect && (c->chunked || c->left > 0))
    c->out_len += snprintf(c->out + c->out_len, sizeof c->out - c->out_len, "HTTP/1.1 100 Continue\r\n\r\n");
  if (c->chunked) c->state = CHUNK_SIZE;
  else if (c->left > 0) c->state = BODY;
  else http_finish(c);
}

static void http_head_line(struct connection *c, const char *line) {
  const char *value;
  if (*line == 0) return http_head_end(c);
  if (c->first) {
    c->first = false;
    c->put = strncmp(line, "PUT ", 4) == 0 || strncmp(line, "POST ", 5) == 0;
    c->head_only = strncmp(line, "HEAD ", 5) == 0;
    c->keep = strstr(line, " HTTP/1.1") != NULL;
    c->bad = strstr(line, " HTTP/1.") == NULL;
    if (c->put && !c->bad) store_begin(&c->store, strchr(line, ' ') + 1, c->fd);
  } else if ((value = http_header(line, "content-length:"))) {
    char *end;
    errno = 0;
    c->bad |= c->has_length || *value < '0' || *value > '9';
    c->left = strtoull(value, &end, 10);
    c->bad |= errno != 0 || end[strspn(end, " \t")] != 0;
    c->has_length = true;
  } else if ((value = http_header(line, "transfer-encoding:"))) {
    c->bad |= strcasecmp(value, "chunked") != 0;
    c->chunked = true;
  } else if ((value = http_header(line, "connection:"))) {
    if (http_token(value, "close")) c->keep = false;
    else if (http_token(value, "keep-alive")) c->keep = true;
  } else if ((value = http_header(line, "expect:"))) {
    c->expect = http_token(value, "100-continue");
  }
}

static void http_line(struct connection *c, const char *line) {
  char *end;
  switch (c->state) {
    case HEAD:
      return http_head_line(c, line);
    case CHUNK_SIZE:
      errno = 0;
      c->left = strtoull(line, &end, 16);
      if (!isxdigit((unsigned char)*line) || errno != 0 || (*end && !strchr("; \t", *end))) return http_reject(c);
      c->state = c->left > 0 ? CHUNK_DATA : TRAILER;
      return;
    case CHUNK_END:
      if (*line) return http_reject(c);
      c->state = CHUNK_SIZE;
      return;
    default:  // TRAILER
      if (*line == 0) http_finish(c);
  }
}

// Takes input up to its end or until there is something to send; returns how many bytes it took.
static size_t http_consume(struct connection *c, const uint8_t *data, size_t n) {
  size_t i = 0;
  while (i < n && c->out_len == 0 && c->state != CLOSING) {
    if (c->state == BODY || c->state == CHUNK_DATA) {
      size_t take = n - i < c->left ? n - i : c->left;
      sha256_update(&c->sha, data + i, take);
      store_write(&c->store, data + i, take);
      i += take, c->left -= take;
      if (c->left > 0) continue;
      if (c->state == BODY) http_finish(c);
      else c->state = CHUNK_END;
      continue;
    }
    char byte = data[i++];
    if (byte != '\n') {
      // A line that does not fit is cut: only long headers that do not matter here are that long.
      if (c->line_len < sizeof c->line - 1) c->line[c->line_len++] = byte;
      continue;
    }
    if (c->line_len > 0 && c->line[c->line_len - 1] == '\r') c->line_len--;
    c->line[c->line_len] = 0;
    c->line_len = 0;
    http_line(c, c->line);
  }
  return i;
}
