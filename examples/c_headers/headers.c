/* Edits the headers of requests and responses, and lets in only requests that carry a given header.
 *
 * The plugin's configuration has one rule a line; `#` starts a comment:
 *
 *     request  require  x-token: open sesame
 *     request  remove   x-token
 *     request  set      x-edge: paris
 *     response add      x-served-by: wasm
 *
 * `require` is for requests: any other value, or none, is answered 403 and goes no further.
 */
#include <string.h>

#include "proxy_wasm.h"

PROXY_WASM_MODULE

#define LITERAL(text) text, sizeof(text) - 1

enum verb { ADD, SET, REMOVE, REQUIRE };

struct slice {
    const char *start;
    size_t size;
};

struct rule {
    enum map map;
    enum verb verb;
    struct slice name, value;
    struct rule *next;
};

/* One configured plugin; several may share this module's memory. `text` is what the rules point into. */
struct plugin {
    uint32_t id;
    char *text;
    struct rule *rules;
    struct plugin *next;
};

/* One HTTP stream: which plugin it belongs to. */
struct stream {
    uint32_t id;
    struct plugin *plugin;
    struct stream *next;
};

static struct plugin *plugins;
static struct stream *streams[256];

static struct stream **find_stream(uint32_t id) {
    struct stream **slot = &streams[id % 256];
    while (*slot && (*slot)->id != id) slot = &(*slot)->next;
    return slot;
}

static struct plugin *find_plugin(uint32_t id) {
    struct plugin *plugin = plugins;
    while (plugin && plugin->id != id) plugin = plugin->next;
    return plugin;
}

static int is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static struct slice trim(const char *start, const char *end) {
    while (start < end && is_space(*start)) start++;
    while (end > start && is_space(end[-1])) end--;
    return (struct slice){start, (size_t)(end - start)};
}

/* Cut the first word off `rest`. */
static struct slice word(struct slice *rest) {
    const char *end = rest->start + rest->size, *stop = rest->start;
    while (stop < end && !is_space(*stop)) stop++;
    struct slice first = {rest->start, (size_t)(stop - rest->start)};
    *rest = trim(stop, end);
    return first;
}

static int is(struct slice s, const char *text) { return s.size == strlen(text) && !memcmp(s.start, text, s.size); }

/* Read `line` into `rule`; 0 where it makes no sense. */
static int parse(struct slice line, struct rule *rule) {
    struct slice direction = word(&line), verb = word(&line);

    if (is(direction, "request")) rule->map = REQUEST_HEADERS;
    else if (is(direction, "response")) rule->map = RESPONSE_HEADERS;
    else return 0;

    if (is(verb, "add")) rule->verb = ADD;
    else if (is(verb, "set")) rule->verb = SET;
    else if (is(verb, "remove")) rule->verb = REMOVE;
    else if (is(verb, "require") && rule->map == REQUEST_HEADERS) rule->verb = REQUIRE;
    else return 0;

    if (rule->verb == REMOVE) {
        rule->name = line;
    } else {
        const char *colon = line.size ? memchr(line.start, ':', line.size) : NULL;
        if (!colon) return 0;
        rule->name = trim(line.start, colon);
        rule->value = trim(colon + 1, line.start + line.size);
    }
    return rule->name.size > 0;
}

static void forget_rules(struct plugin *plugin) {
    for (struct rule *rule = plugin->rules, *next; rule; rule = next) {
        next = rule->next;
        free(rule);
    }
    free(plugin->text);
    plugin->rules = NULL;
    plugin->text = NULL;
}

EXPORT(proxy_on_context_create) void proxy_on_context_create(uint32_t id, uint32_t parent) {
    if (parent == 0) {
        struct plugin *plugin = calloc(1, sizeof *plugin);
        plugin->id = id;
        plugin->next = plugins;
        plugins = plugin;
    } else {
        struct stream *stream = malloc(sizeof *stream);
        *stream = (struct stream){id, find_plugin(parent), streams[id % 256]};
        streams[id % 256] = stream;
    }
}

EXPORT(proxy_on_delete) void proxy_on_delete(uint32_t id) {
    struct stream **slot = find_stream(id), *stream = *slot;
    if (stream) {
        *slot = stream->next;
        free(stream);
        return;
    }
    for (struct plugin **at = &plugins; *at; at = &(*at)->next) {
        if ((*at)->id == id) {
            struct plugin *plugin = *at;
            *at = plugin->next;
            forget_rules(plugin);
            free(plugin);
            return;
        }
    }
}

EXPORT(proxy_on_configure) uint32_t proxy_on_configure(uint32_t id, uint32_t size) {
    struct plugin *plugin = find_plugin(id);
    size_t length = 0;

    forget_rules(plugin);
    if (proxy_get_buffer_bytes(PLUGIN_CONFIGURATION, 0, size, &plugin->text, &length) != OK) return 0;

    struct rule **tail = &plugin->rules;
    const char *end = plugin->text + length;
    for (const char *start = plugin->text; start < end;) {
        const char *stop = memchr(start, '\n', (size_t)(end - start));
        if (!stop) stop = end;
        struct slice line = trim(start, stop);
        start = stop + 1;
        if (line.size == 0 || *line.start == '#') continue;
        struct rule *rule = calloc(1, sizeof *rule);
        *tail = rule;
        tail = &rule->next;
        if (!parse(line, rule)) {
            static const char expected[] = "expected `request|response add|set|remove|require NAME: VALUE` in the next line:";
            proxy_log(LOG_ERROR, expected, sizeof expected - 1);
            proxy_log(LOG_ERROR, line.start, line.size);
            return 0;
        }
    }
    return 1;
}

static int carries(const struct rule *rule) {
    char *value = NULL;
    size_t size = 0;
    int same = proxy_get_header_map_value(rule->map, rule->name.start, rule->name.size, &value, &size) == OK &&
               size == rule->value.size && (size == 0 || !memcmp(value, rule->value.start, size));
    free(value);
    return same;
}

static enum action apply(uint32_t id, enum map map) {
    struct stream *stream = *find_stream(id);
    if (!stream) return CONTINUE;
    for (const struct rule *rule = stream->plugin->rules; rule; rule = rule->next) {
        if (rule->map != map) continue;
        struct slice name = rule->name, value = rule->value;
        switch (rule->verb) {
        case ADD:
            proxy_add_header_map_value(map, name.start, name.size, value.start, value.size);
            break;
        case SET:
            proxy_replace_header_map_value(map, name.start, name.size, value.start, value.size);
            break;
        case REMOVE:
            proxy_remove_header_map_value(map, name.start, name.size);
            break;
        case REQUIRE:
            if (!carries(rule)) {
                proxy_send_local_response(403, LITERAL("required_header"), LITERAL("Forbidden\n"), NULL, 0, (uint32_t)-1);
                return PAUSE;
            }
        }
    }
    return CONTINUE;
}

EXPORT(proxy_on_request_headers) uint32_t proxy_on_request_headers(uint32_t id, uint32_t count, uint32_t end_of_stream) {
    (void)count, (void)end_of_stream;
    return apply(id, REQUEST_HEADERS);
}

EXPORT(proxy_on_response_headers) uint32_t proxy_on_response_headers(uint32_t id, uint32_t count, uint32_t end_of_stream) {
    (void)count, (void)end_of_stream;
    return apply(id, RESPONSE_HEADERS);
}
