"""`wasmproxy vms`: how the VMs of a running proxy fare, for people to read."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from twisted_wasmproxy.cli.client import Client, ClientError
from twisted_wasmproxy.printable import printable, printable_lines

__all__ = ["run"]


def run(client: Client, *, as_json: bool) -> int:
    """Print the figures of each VM; return the exit status."""
    try:
        answer = client.get("/wasm/vms")
    except ClientError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps(answer, indent=2))
        return 0
    for vm in answer["vms"]:
        vm_id = f" (vm_id {vm['vm_id']})" if vm["vm_id"] else ""
        print(printable(f"{vm['module']}{vm_id}:"))
        for name, value in _facts(vm):
            print(f"  {name:12} {printable(value)}")
    if not answer["vms"]:
        print("no Wasm filter is configured")
    return 0


def _facts(vm: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    budget = vm["budget"]
    yield "filters", ", ".join(name or "(no name)" for name in vm["plugins"])
    yield "state", f"serving, {_size(vm['memory'])}" if vm["serving"] else "out of service, to be started again"
    yield "spare", f"ready, {_size(vm['spare_memory'])}" if vm["spare"] else "none"
    yield "traps", f"{vm['traps']}, {budget['spent']} of {budget['traps']} in the last {budget['within']:g} s"
    if budget["exhausted"]:
        yield "budget", "exhausted: a trap is not made good at once"
    yield "replaced", f"{vm['replaced_at_once']} at once, {vm['restarted']} after a delay"
    if vm["start_failures"]:
        yield "not started", f"{vm['start_failures']} times"
    yield "without it", f"{vm['streams_without_vm']} streams"
    if vm["last_failure"] is not None:
        yield "last failure", vm["last_failure"]


def _size(number: int) -> str:
    return f"{number / 1024 / 1024:.1f} MiB"
