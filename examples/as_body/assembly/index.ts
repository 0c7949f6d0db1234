// Keeps words out of text answers: each configured word (one a line, ASCII case ignored) becomes asterisks.
// With a `token:` line, requests whose `x-token` is another, or missing, are answered 403.
//
//     token: open sesame
//     secret
//     password

export * from "@gcoredev/proxy-wasm-sdk-as/assembly/proxy";
import {
  BufferTypeValues,
  Context,
  FilterDataStatusValues,
  FilterHeadersStatusValues,
  LogLevelValues,
  RootContext,
  get_buffer_bytes,
  log,
  registerRootContext,
  send_http_response,
  set_buffer_bytes,
  stream_context,
} from "@gcoredev/proxy-wasm-sdk-as/assembly";
import { ensureContext } from "@gcoredev/proxy-wasm-sdk-as/assembly/runtime";

const TOKEN = "token:";
const ASTERISK: u8 = 0x2a;

/** ASCII upper case to lower case; every other byte as it is. */
function lower(byte: u8): u8 {
  return byte >= 0x41 && byte <= 0x5a ? byte + 0x20 : byte;
}

class RedactRoot extends RootContext {
  token: string = "";
  words: Array<Uint8Array> = [];

  onConfigure(size: u32): bool {
    super.onConfigure(size);
    // At the end the SDK looks up the root among the stream contexts, where it has not put it, and would trap.
    ensureContext(this.context_id, this.context_id);

    this.token = "";
    this.words = [];
    const lines = this.getConfiguration().split("\n");
    for (let i = 0; i < lines.length; i++) {
      const line = lines[i].trim();
      if (line.startsWith(TOKEN)) {
        this.token = line.substring(TOKEN.length).trim();
      } else if (line.length > 0) {
        this.words.push(Uint8Array.wrap(String.UTF8.encode(line)));
      }
    }
    if (this.words.length == 0 && this.token == "") {
      log(LogLevelValues.error, "the configuration names neither a word nor a token");
      return false;
    }
    return true;
  }

  createContext(id: u32): Context {
    return new Redact(id, this);
  }

  /** Overwrite every word in `body`; how many there were. */
  redact(body: Uint8Array): i32 {
    let found = 0;
    for (let at = 0; at < body.length; at++) {
      for (let w = 0; w < this.words.length; w++) {
        const word = this.words[w];
        if (at + word.length > body.length) continue;
        let same = 0;
        while (same < word.length && lower(body[at + same]) == lower(word[same])) same++;
        if (same == word.length) {
          body.fill(ASTERISK, at, at + same);
          at += same - 1;
          found++;
          break;
        }
      }
    }
    return found;
  }
}

class Redact extends Context {
  root: RedactRoot;
  isText: bool = false;

  constructor(id: u32, root: RedactRoot) {
    super(id, root);
    this.root = root;
  }

  onRequestHeaders(count: u32, endOfStream: bool): FilterHeadersStatusValues {
    if (this.root.token != "" && stream_context.headers.request.get("x-token") != this.root.token) {
      send_http_response(403, "wrong_token", String.UTF8.encode("Forbidden\n"), []);
      return FilterHeadersStatusValues.StopIteration;
    }
    // What is compressed could not be read.
    stream_context.headers.request.remove("accept-encoding");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, endOfStream: bool): FilterHeadersStatusValues {
    const type = stream_context.headers.response.get("content-type");
    this.isText = type.startsWith("text/") || type.startsWith("application/json");
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(size: usize, endOfStream: bool): FilterDataStatusValues {
    if (!this.isText || this.root.words.length == 0) return FilterDataStatusValues.Continue;
    // A word may lie across two chunks: look when all of it is here.
    if (!endOfStream) return FilterDataStatusValues.StopIterationAndBuffer;
    const body = get_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, <u32>size);
    const found = this.root.redact(Uint8Array.wrap(body));
    if (found > 0) {
      set_buffer_bytes(BufferTypeValues.HttpResponseBody, 0, <u32>size, body);
      log(LogLevelValues.info, found.toString() + " words redacted");
    }
    return FilterDataStatusValues.Continue;
  }
}

registerRootContext((id: u32) => new RedactRoot(id), "redact");
