/* A module that does what it is told: a stream by its request header `x-NAME` (NAME is the plugin's root id), a plugin
 * by its configuration. Every callback is logged as `TAG NAME EVENT ARGUMENTS`, with the request header `x-tag`.
 *
 *   script   := part { "|" part }            part    := event ["#" number] " " command { ";" command }
 *   event    := create configure tick request_headers request_body request_trailers response_headers response_body
 *               response_trailers done log delete
 *   command  := word { " " word }            see `run`; MAP and BUFFER are the numbers of the ABI
 *
 * `tick` of a stream is done from the plugin's timer, with the stream as the effective context. Of an event with a
 * number only that call counts, from 1. Built without a C library, for any of the ABI's versions (-DABI=0_2_1).
 */
#include <stdint.h>
#include <stddef.h>

typedef uint32_t u32;
typedef uint8_t u8;

#define IMPORT(name) __attribute__((import_module("env"), import_name(#name))) u32 name
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(proxy_log)(u32 level, const char *text, u32 size);
IMPORT(proxy_get_header_map_value)(u32 map, const char *key, u32 key_size, char **value, u32 *size);
IMPORT(proxy_add_header_map_value)(u32 map, const char *key, u32 key_size, const char *value, u32 size);
IMPORT(proxy_replace_header_map_value)(u32 map, const char *key, u32 key_size, const char *value, u32 size);
IMPORT(proxy_remove_header_map_value)(u32 map, const char *key, u32 key_size);
IMPORT(proxy_get_header_map_pairs)(u32 map, char **value, u32 *size);
IMPORT(proxy_get_buffer_bytes)(u32 buffer, u32 start, u32 max, char **value, u32 *size);
IMPORT(proxy_set_buffer_bytes)(u32 buffer, u32 start, u32 size, const char *data, u32 data_size);
IMPORT(proxy_get_property)(const char *path, u32 path_size, char **value, u32 *size);
IMPORT(proxy_set_property)(const char *path, u32 path_size, const char *value, u32 size);
IMPORT(proxy_get_shared_data)(const char *key, u32 key_size, char **value, u32 *size, u32 *cas);
IMPORT(proxy_set_shared_data)(const char *key, u32 key_size, const char *value, u32 size, u32 cas);
IMPORT(proxy_send_local_response)(u32 status, const char *details, u32 details_size, const char *body, u32 body_size,
                                  const char *headers, u32 headers_size, u32 grpc_status);
IMPORT(proxy_set_effective_context)(u32 id);
IMPORT(proxy_set_tick_period_milliseconds)(u32 period);
IMPORT(proxy_done)(void);
#if OLD
IMPORT(proxy_continue_request)(void);
IMPORT(proxy_continue_response)(void);
IMPORT(proxy_get_configuration)(char **value, u32 *size);
#else
IMPORT(proxy_continue_stream)(u32 type);
IMPORT(proxy_close_stream)(u32 type);
#endif
__attribute__((import_module("wasi_snapshot_preview1"), import_name("proc_exit"))) void proc_exit(u32 code);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("environ_sizes_get"))) u32 environ_sizes_get(
    u32 *count, u32 *size);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("environ_get"))) u32 environ_get(char **environment,
                                                                                                   char *text);

/* Memory: blocks of a few sizes, each with a list of the free ones; what is larger is taken from fresh pages, rounded
 * up to a power of two, and kept in its list too. */

static char *fresh = 0, *fresh_end = 0;
static void *unused[32];

static u32 order_of(u32 size) {
  u32 order = 4;
  while ((1u << order) < size + 8) order++;
  return order;
}

EXPORT(malloc) void *malloc(u32 size) {
  u32 order = order_of(size);
  u32 *block = unused[order];
  if (block) {
    unused[order] = *(void **)(block + 1);
  } else {
    u32 bytes = 1u << order;
    if ((u32)(fresh_end - fresh) < bytes) {
      u32 pages = (bytes + 0xffff) >> 16;
      u32 at = __builtin_wasm_memory_grow(0, pages);
      if (at == 0xffffffff) return 0;
      if ((char *)(at << 16) != fresh_end) fresh = (char *)(at << 16);
      fresh_end = (char *)((at + pages) << 16);
    }
    block = (u32 *)fresh;
    fresh += bytes;
  }
  *block = order;
  return block + 2;
}

static void release(void *at) {
  if (!at) return;
  u32 *block = (u32 *)at - 2;
  *(void **)(block + 1) = unused[*block];
  unused[*block] = block;
}

void *memcpy(void *to, const void *from, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = ((const char *)from)[i];
  return to;
}

void *memset(void *to, int value, size_t size) {
  for (size_t i = 0; i < size; i++) ((char *)to)[i] = (char)value;
  return to;
}

/* Text */

typedef struct {
  const char *at;
  u32 size;
} text;

static u32 length(const char *s) {
  u32 n = 0;
  while (s[n]) n++;
  return n;
}

static int is(text a, const char *b) {
  u32 n = length(b);
  if (a.size != n) return 0;
  for (u32 i = 0; i < n; i++)
    if (a.at[i] != b[i]) return 0;
  return 1;
}

/* Cut off and return what stands before `end`, or all. */
static text cut(text *from, char end) {
  text part = {from->at, 0};
  while (part.size < from->size && from->at[part.size] != end) part.size++;
  u32 gone = part.size < from->size ? part.size + 1 : part.size;
  from->at += gone;
  from->size -= gone;
  return part;
}

static text trimmed(text t) {
  while (t.size && (*t.at == ' ' || *t.at == '\n')) t.at++, t.size--;
  while (t.size && (t.at[t.size - 1] == ' ' || t.at[t.size - 1] == '\n')) t.size--;
  return t;
}

static u32 number(text t) {
  u32 n = 0;
  for (u32 i = 0; i < t.size; i++) n = n * 10 + (u32)(t.at[i] - '0');
  return n;
}

static char line[8192];
static u32 line_size;

static void put(const char *at, u32 size) {
  for (u32 i = 0; i < size && line_size < sizeof line; i++) line[line_size++] = at[i];
}

static void put_word(const char *word) {
  put(" ", 1);
  put(word, length(word));
}

static void put_text(text t) {
  put(" ", 1);
  put(t.at, t.size);
}

static void put_number(uint64_t n) {
  char digits[20];
  u32 i = 20;
  do digits[--i] = (char)('0' + n % 10);
  while (n /= 10);
  put(" ", 1);
  put(digits + i, 20 - i);
}

/* Contexts */

typedef struct context {
  u32 id;
  u32 parent;
  text script, tag, name;
  u32 calls[16];
  u32 result;
  struct context *next;
} context;

static context *contexts[4096];
static u32 counter;

static context *find(u32 id) {
  context *c = contexts[id & 4095];
  while (c && c->id != id) c = c->next;
  return c;
}

static const char *const events[] = {"create",           "configure",        "tick",          "request_headers",
                                     "request_body",     "request_trailers", "response_headers", "response_body",
                                     "response_trailers", "done",            "log",           "delete"};
enum { CREATE, CONFIGURE, TICK, REQUEST_HEADERS, REQUEST_BODY, REQUEST_TRAILERS, RESPONSE_HEADERS, RESPONSE_BODY,
       RESPONSE_TRAILERS, DONE, LOG, DELETE };

static void begin(context *c) {
  line_size = 0;
  if (c->tag.size) put(c->tag.at, c->tag.size);
  else put("-", 1);
  put_text(c->name);
}

static void say(void) { proxy_log(2, line, line_size); }

static text header(u32 map, const char *name, u32 size) {
  char *value = 0;
  u32 value_size = 0;
  if (proxy_get_header_map_value(map, name, size, &value, &value_size)) value_size = 0;
  return (text){value, value_size};
}

static char path[1024];

static u32 property_path(text dotted) {
  for (u32 i = 0; i < dotted.size; i++) path[i] = dotted.at[i] == '.' ? 0 : dotted.at[i] == '!' ? '.' : dotted.at[i];
  return dotted.size;
}

static volatile u32 sink;

static u32 recurse(u32 n) {
  if (n == 0xffffffff) return 0;
  volatile char room[64];
  room[n & 63] = (char)n;
  return recurse(n + 1) + room[n & 63];
}

static void reply(text status, text body, text key, text value) {
  char map[512];
  u32 size = 0;
  if (key.size) {
    u32 head[3] = {1, key.size, value.size};
    memcpy(map, head, 12);
    memcpy(map + 12, key.at, key.size);
    map[12 + key.size] = 0;
    memcpy(map + 13 + key.size, value.at, value.size);
    size = 12 + key.size + 1 + value.size + 1;
    map[size - 1] = 0;
  }
  if (is(body, "-")) body.size = 0;
  put_word("reply");
  put_number(proxy_send_local_response(number(status), "told", 4, body.at, body.size, map, size, 0xffffffff));
  say();
}

static void pairs(u32 map) {
  char *value = 0;
  u32 size = 0;
  u32 status = proxy_get_header_map_pairs(map, &value, &size);
  put_word("pairs");
  put_number(map);
  put_number(status);
  u32 count = size ? *(u32 *)value : 0;
  u32 at = 4 + 8 * count;
  for (u32 i = 0; i < count; i++) {
    u32 key_size = *(u32 *)(value + 4 + 8 * i), value_size = *(u32 *)(value + 8 + 8 * i);
    put_text((text){value + at, key_size});
    put("=", 1);
    put(value + at + key_size + 1, value_size);
    at += key_size + value_size + 2;
  }
  say();
  release(value);
}

static void environment(void) {
  u32 count = 0, size = 0;
  environ_sizes_get(&count, &size);
  char **strings = malloc(4 * count + 4);
  char *room = malloc(size + 1);
  environ_get(strings, room);
  put_word("env");
  put_number(count);
  for (u32 i = 0; i < count; i++) put_word(strings[i]);
  say();
}

/* Do one command for a context. */
static void run(context *c, text command) {
  text rest = trimmed(command);
  text word = cut(&rest, ' ');
  text a = cut(&rest, ' '), b = cut(&rest, ' '), d = cut(&rest, ' '), e = cut(&rest, ' ');
  begin(c);
  char *value = 0;
  u32 size = 0;
  if (is(word, "pause")) {
    c->result = 1;
  } else if (is(word, "ret")) {
    c->result = number(a);
  } else if (is(word, "add")) {
    put_word("add");
    put_number(proxy_add_header_map_value(number(a), b.at, b.size, d.at, d.size));
    say();
  } else if (is(word, "set")) {
    put_word("set");
    put_number(proxy_replace_header_map_value(number(a), b.at, b.size, d.at, d.size));
    say();
  } else if (is(word, "del")) {
    put_word("del");
    put_number(proxy_remove_header_map_value(number(a), b.at, b.size));
    say();
  } else if (is(word, "get")) {
    u32 status = proxy_get_header_map_value(number(a), b.at, b.size, &value, &size);
    put_word("get");
    put_text(b);
    put_number(status);
    put_text((text){value, size});
    say();
    release(value);
  } else if (is(word, "pairs")) {
    pairs(number(a));
  } else if (is(word, "body")) { /* BUFFER START SIZE TEXT */
    put_word("body");
    put_number(proxy_set_buffer_bytes(number(a), number(b), number(d), e.at, e.size));
    say();
  } else if (is(word, "fill")) { /* BUFFER START SIZE COUNT: so many times the letter f */
    u32 count = number(e);
    char *data = malloc(count);
    memset(data, 'f', count);
    put_word("fill");
    put_number(proxy_set_buffer_bytes(number(a), number(b), number(d), data, count));
    say();
    release(data);
  } else if (is(word, "read")) { /* BUFFER START MAX */
    u32 status = proxy_get_buffer_bytes(number(a), number(b), number(d), &value, &size);
    put_word("read");
    put_number(status);
    put_number(size);
    put_text((text){value, size > 200 ? 200 : size});
    say();
    release(value);
  } else if (is(word, "upper")) { /* BUFFER */
    u32 status = proxy_get_buffer_bytes(number(a), 0, 0x7fffffff, &value, &size);
    if (!status) {
      for (u32 i = 0; i < size; i++)
        if (value[i] >= 'a' && value[i] <= 'z') value[i] -= 32;
      status = proxy_set_buffer_bytes(number(a), 0, 0x7fffffff, value, size);
    }
    put_word("upper");
    put_number(status);
    say();
    release(value);
  } else if (is(word, "reply")) { /* STATUS BODY KEY VALUE */
    reply(a, b, d, e);
#if OLD
  } else if (is(word, "resume")) {
    if (number(a)) proxy_continue_response();
    else proxy_continue_request();
#else
  } else if (is(word, "resume")) {
    put_word("resume");
    put_number(proxy_continue_stream(number(a)));
    say();
  } else if (is(word, "close")) {
    put_word("close");
    put_number(proxy_close_stream(number(a)));
    say();
#endif
  } else if (is(word, "prop")) { /* PATH with dots; a text, a number or "x" and the size */
    u32 status = proxy_get_property(path, property_path(a), &value, &size);
    put_word("prop");
    put_text(a);
    put_number(status);
    put_number(size);
    if (is(b, "i") && size == 8) put_number(*(uint64_t *)value);
    else if (is(b, "b") && size == 1) put_number((u8)*value);
    else if (!is(b, "x")) put_text((text){value, size});
    say();
    release(value);
  } else if (is(word, "setprop")) {
    put_word("setprop");
    put_number(proxy_set_property(path, property_path(a), b.at, b.size));
    say();
  } else if (is(word, "shared")) { /* KEY VALUE */
    put_word("shared");
    put_number(proxy_set_shared_data(a.at, a.size, b.at, b.size, 0));
    say();
  } else if (is(word, "recall")) { /* KEY */
    u32 cas = 0;
    u32 status = proxy_get_shared_data(a.at, a.size, &value, &size, &cas);
    put_word("recall");
    put_number(status);
    put_text((text){value, size});
    say();
    release(value);
  } else if (is(word, "count")) { /* one more in this memory, told in the response header x-count */
    counter++;
    char digits[2] = {(char)('0' + counter / 10), (char)('0' + counter % 10)};
    proxy_add_header_map_value(2, "x-count", 7, digits, 2);
  } else if (is(word, "period")) {
    proxy_set_tick_period_milliseconds(number(a));
  } else if (is(word, "finished")) {
    put_word("finished");
    put_number(proxy_done());
    say();
  } else if (is(word, "env")) {
    environment();
  } else if (is(word, "say")) {
    put_text(a);
    say();
  } else if (is(word, "trap")) {
    __builtin_trap();
  } else if (is(word, "loop")) {
    for (;;) sink++;
  } else if (is(word, "recurse")) {
    sink = recurse(0);
  } else if (is(word, "hog")) {
    while (malloc(1 << 20)) sink++;
    __builtin_trap();
  } else if (is(word, "exit")) {
    proc_exit(number(a));
  } else if (word.size) {
    put_word("unknown");
    put_text(word);
    say();
  }
}

/* Log a callback and do what the script has for it; return what the callback shall return. */
static u32 happen(context *c, u32 event, u32 result, u32 arguments, u32 first, u32 second) {
  if (!c) return result;
  begin(c);
  put_word(events[event]);
  if (arguments > 0) put_number(first);
  if (arguments > 1) put_number(second);
  if (event != TICK) say();
  u32 call = ++c->calls[event];
  c->result = result;
  text script = c->script;
  while (script.size) {
    text part = trimmed(cut(&script, '|'));
    text name = cut(&part, ' ');
    text wanted = name;
    name = cut(&wanted, '#');
    if (!is(name, events[event]) || (wanted.size && number(wanted) != call)) continue;
    while (part.size) run(c, cut(&part, ';'));
  }
  return c->result;
}

#define JOIN(a, b) a##b
#define MARKER(version) JOIN(proxy_abi_version_, version)
#define STRING(a) #a
#define NAMED(a) STRING(a)
__attribute__((export_name(NAMED(MARKER(ABI))))) void marker(void) {}

static context *new_context(u32 id, u32 parent) {
  context *c = malloc(sizeof *c);
  memset(c, 0, sizeof *c);
  c->id = id;
  c->parent = parent;
  c->next = contexts[id & 4095];
  contexts[id & 4095] = c;
  return c;
}

EXPORT(proxy_on_context_create) void on_context_create(u32 id, u32 parent) {
  context *c = new_context(id, parent);
  if (!parent) {
    char *value = 0;
    u32 size = 0;
    proxy_get_property("plugin_root_id", 14, &value, &size);
    c->name = (text){value, size};
    return;
  }
  c->name = find(parent)->name;
  c->tag = header(0, "x-tag", 5);
  char name[64] = "x-";
  memcpy(name + 2, c->name.at, c->name.size);
  c->script = header(0, name, c->name.size + 2);
  happen(c, CREATE, 0, 1, parent, 0);
}

EXPORT(proxy_on_vm_start) u32 on_vm_start(u32 id, u32 size) {
  context *c = find(id);
  char *value = 0;
  u32 value_size = 0;
#if !OLD
  proxy_get_buffer_bytes(6, 0, 0x7fffffff, &value, &value_size);
#endif
  begin(c);
  put_word("vm_start");
  put_number(size);
  put_text((text){value, value_size});
  say();
  return !is((text){value, value_size}, "refuse");
}

EXPORT(proxy_on_configure) u32 on_configure(u32 id, u32 size) {
  context *c = find(id);
  char *value = 0;
  u32 value_size = 0;
#if OLD
  proxy_get_configuration(&value, &value_size);
#else
  proxy_get_buffer_bytes(7, 0, 0x7fffffff, &value, &value_size);
#endif
  c->script = (text){value, value_size};
  return happen(c, CONFIGURE, 1, 1, size, 0);
}

EXPORT(proxy_on_tick) void on_tick(u32 id) {
  happen(find(id), TICK, 0, 0, 0, 0);
  for (u32 i = 0; i < 4096; i++)
    for (context *c = contexts[i]; c; c = c->next)
      if (c->parent == id && c->script.size) {
        proxy_set_effective_context(c->id);
        happen(c, TICK, 0, 0, 0, 0);
      }
}

#if OLD
EXPORT(proxy_on_request_headers) u32 on_request_headers(u32 id, u32 n) {
  return happen(find(id), REQUEST_HEADERS, 0, 1, n, 0);
}
EXPORT(proxy_on_response_headers) u32 on_response_headers(u32 id, u32 n) {
  return happen(find(id), RESPONSE_HEADERS, 0, 1, n, 0);
}
#else
EXPORT(proxy_on_request_headers) u32 on_request_headers(u32 id, u32 n, u32 end) {
  return happen(find(id), REQUEST_HEADERS, 0, 2, n, end);
}
EXPORT(proxy_on_response_headers) u32 on_response_headers(u32 id, u32 n, u32 end) {
  return happen(find(id), RESPONSE_HEADERS, 0, 2, n, end);
}
#endif
EXPORT(proxy_on_request_body) u32 on_request_body(u32 id, u32 n, u32 end) {
  return happen(find(id), REQUEST_BODY, 0, 2, n, end);
}
EXPORT(proxy_on_request_trailers) u32 on_request_trailers(u32 id, u32 n) {
  return happen(find(id), REQUEST_TRAILERS, 0, 1, n, 0);
}
EXPORT(proxy_on_response_body) u32 on_response_body(u32 id, u32 n, u32 end) {
  return happen(find(id), RESPONSE_BODY, 0, 2, n, end);
}
EXPORT(proxy_on_response_trailers) u32 on_response_trailers(u32 id, u32 n) {
  return happen(find(id), RESPONSE_TRAILERS, 0, 1, n, 0);
}
EXPORT(proxy_on_done) u32 on_done(u32 id) { return happen(find(id), DONE, 1, 0, 0, 0); }
EXPORT(proxy_on_log) void on_log(u32 id) { happen(find(id), LOG, 0, 0, 0, 0); }

EXPORT(proxy_on_delete) void on_delete(u32 id) {
  context *c = find(id);
  happen(c, DELETE, 0, 0, 0, 0);
  context **at = &contexts[id & 4095];
  while (*at != c) at = &(*at)->next;
  *at = c->next;
  release((void *)c->script.at);
  release((void *)c->tag.at);
  if (!c->parent) release((void *)c->name.at);
  release(c);
}
