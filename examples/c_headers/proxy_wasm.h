/* The part of the Proxy-Wasm ABI 0.2.1 that a small HTTP filter in C needs, without an SDK. */
#ifndef PROXY_WASM_H
#define PROXY_WASM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define HOST(name) extern __attribute__((import_module("env"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

enum status { OK = 0, NOT_FOUND = 1, BAD_ARGUMENT = 2 };
enum action { CONTINUE = 0, PAUSE = 1 };
enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL };
enum map { REQUEST_HEADERS = 0, RESPONSE_HEADERS = 2 };
enum buffer { REQUEST_BODY = 0, RESPONSE_BODY = 1, VM_CONFIGURATION = 6, PLUGIN_CONFIGURATION = 7 };

HOST(proxy_log)
uint32_t proxy_log(uint32_t level, const char *text, size_t size);

/* What the host returns through pointers is ours to free(); an empty value is a null pointer. */
HOST(proxy_get_buffer_bytes)
uint32_t proxy_get_buffer_bytes(uint32_t buffer, uint32_t start, uint32_t limit, char **data, size_t *size);
HOST(proxy_set_buffer_bytes)
uint32_t proxy_set_buffer_bytes(uint32_t buffer, uint32_t start, uint32_t size, const char *data, size_t data_size);

HOST(proxy_get_header_map_value)
uint32_t proxy_get_header_map_value(uint32_t map, const char *name, size_t name_size, char **value, size_t *size);
HOST(proxy_add_header_map_value)
uint32_t proxy_add_header_map_value(uint32_t map, const char *name, size_t name_size, const char *value, size_t size);
HOST(proxy_replace_header_map_value)
uint32_t proxy_replace_header_map_value(uint32_t map, const char *name, size_t name_size, const char *value, size_t size);
HOST(proxy_remove_header_map_value)
uint32_t proxy_remove_header_map_value(uint32_t map, const char *name, size_t name_size);

/* `headers` is a serialised map (0 pairs: size 0); `grpc_status` is -1 for plain HTTP. */
HOST(proxy_send_local_response)
uint32_t proxy_send_local_response(uint32_t status, const char *details, size_t details_size, const char *body,
                                   size_t body_size, const char *headers, size_t headers_size, uint32_t grpc_status);

/* To stand once in a module: the mark of the ABI's version, and the memory that the host's answers go to. */
#define PROXY_WASM_MODULE                                                                                              \
    EXPORT(proxy_abi_version_0_2_1) void proxy_abi_version_0_2_1(void) {}                                              \
    EXPORT(proxy_on_memory_allocate) void *proxy_on_memory_allocate(size_t size) { return malloc(size); }

#endif
