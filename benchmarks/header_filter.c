/* The small filter that the benchmarks run on every proxy: reads one request header, adds one, replaces one of the response. */
#include "proxy_wasm.h"

PROXY_WASM_MODULE

#define LITERAL(text) text, sizeof(text) - 1

EXPORT(proxy_on_request_headers) uint32_t proxy_on_request_headers(uint32_t id, uint32_t count, uint32_t end_of_stream) {
    char *path = NULL;
    size_t size = 0;
    (void)id, (void)count, (void)end_of_stream;
    proxy_get_header_map_value(REQUEST_HEADERS, LITERAL(":path"), &path, &size);
    free(path);
    proxy_add_header_map_value(REQUEST_HEADERS, LITERAL("x-wasm-request"), LITERAL("1"));
    return CONTINUE;
}

EXPORT(proxy_on_response_headers) uint32_t proxy_on_response_headers(uint32_t id, uint32_t count, uint32_t end_of_stream) {
    (void)id, (void)count, (void)end_of_stream;
    proxy_replace_header_map_value(RESPONSE_HEADERS, LITERAL("server"), LITERAL("wasm"));
    return CONTINUE;
}
