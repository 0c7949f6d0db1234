"""Run the quickstart: the origin and the proxy in front of it, until either ends or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROXY_PORT = 8080
ORIGIN_PORT = 8081


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False


def is_serving() -> bool:
    """Say whether an answer comes through the proxy from the origin."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{PROXY_PORT}/", timeout=10):
        return True
    return False


def main() -> int:
    for port in (PROXY_PORT, ORIGIN_PORT):
        if is_listening(port):
            print(f"Something listens on 127.0.0.1:{port} already; the quickstart needs that port.", file=sys.stderr)
            return 1

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    twistd = Path(sys.executable).with_name("twistd")
    children: list[subprocess.Popen[bytes]] = []
    try:
        # In sessions of their own, so that Ctrl-C reaches this process alone, which then ends them in order.
        # The origin ends when its end of this pipe closes, so also when we are killed.
        origin = [sys.executable, HERE / "origin.py", str(ORIGIN_PORT)]
        children.append(subprocess.Popen(origin, stdin=subprocess.PIPE, start_new_session=True))
        proxy = [twistd, "--nodaemon", "--pidfile=", "wasmproxy", "--config", HERE / "proxy.yaml"]
        children.append(subprocess.Popen(proxy, stdin=subprocess.DEVNULL, start_new_session=True))
        while not is_serving():
            if any(child.poll() is not None for child in children):
                return 1
            time.sleep(0.1)
        print("\nThe proxy is ready; Ctrl-C ends it. In another terminal try:\n")
        print(f"    curl -i http://127.0.0.1:{PROXY_PORT}/\n", flush=True)
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for child in children:
            if child.poll() is None:
                child.terminate()
        for child in children:
            child.wait()


if __name__ == "__main__":
    sys.exit(main())
