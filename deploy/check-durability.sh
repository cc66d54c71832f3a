#!/usr/bin/env bash
# Proves from a trace of a coordinator that acknowledged means durable: between the last write to a run's database and each
# acknowledgement of it lies an fdatasync of that database.
#
#   strace $(deploy/check-durability.sh --options) -o TRACE pgsoak coordinator --listen 127.0.0.1:7420 --data-dir DIR
#   deploy/check-durability.sh TRACE
#
# Two steps are checked, one after the other:
#   1. The coordinator notes in <run>/acknowledged what it is about to acknowledge. Every write to <run>/db that began before the
#      note is covered by an fdatasync of <run>/db that began after that write ended, and ended before the note began.
#   2. Every acknowledgement on the wire (the bytes of EvidenceAcknowledged) promises no more than a note that was written before it.
# Exit code 1 and the line of the trace when one does not hold, or when there is nothing to check.
set -euo pipefail

case "${1:-}" in
  # -D: the traced process stays the child of whoever started it. -f: threads. -ttt, -T: when calls begin and end. -y: paths. -xx: bytes.
  --options) echo '-D -f -q -ttt -T -y -xx -s 65536 -e trace=write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg,fdatasync,fsync,sync_file_range -e signal=none'; exit 0 ;;
  ''|-*) echo "usage: deploy/check-durability.sh TRACE | --options" >&2; exit 64 ;;
esac

exec python3 - "$1" <<'PYTHON'
import re
import sys

LINE = re.compile(rb'^(?:\[pid +)?(\d+)\]? +(\d+\.\d+) (.*)$')
CALL = re.compile(rb'^(\w+)\(')
# Paths and buffers are in hex: \x2f\x72 ...
HEX = re.compile(rb'((?:\\x[0-9a-f]{2})+)')
ACK = re.compile(rb'\x22[\x00-\xff]\x0a[\x00-\xff]\x0a\x24([0-9a-f-]{36})\x10', re.S)


def unhex(text):
    return bytes.fromhex(text.replace(b'\\x', b'').decode())


def varint(data, at):
    value, shift = 0, 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at
    return None, at


def calls(path):
    """(line, name, begin, end, text) in the order in which they ended."""
    open_calls = {}
    with open(path, 'rb') as trace:
        for number, line in enumerate(trace, 1):
            found = LINE.match(line.rstrip(b'\n'))
            if not found:
                continue
            pid, at, text = found.group(1), float(found.group(2)), found.group(3)
            if text.endswith(b'<unfinished ...>'):
                name = CALL.match(text)
                if name:
                    open_calls[pid] = (number, name.group(1), at, text[: -len(b'<unfinished ...>')])
            elif text.startswith(b'<... '):
                if pid in open_calls:
                    first, name, begin, head = open_calls.pop(pid)
                    rest = text.split(b'resumed>', 1)[-1]
                    yield number, name, begin, at, head + rest
            else:
                name = CALL.match(text)
                if name:
                    took = re.search(rb'<(\d+\.\d+)>$', text)
                    yield number, name.group(1), at, at + (float(took.group(1)) if took else 0.0), text


def target(text):
    """The path of the first descriptor."""
    found = re.match(rb'^\w+\(\d+<((?:\\x[0-9a-f]{2})+|[^>]*)>', text)
    if not found:
        return b''
    path = found.group(1)
    return unhex(path) if path.startswith(b'\\x') else path


def fail(number, problem):
    print(f'{sys.argv[1]}:{number}: {problem}')
    sys.exit(1)


writes = {}      # run -> [(begin, end)] not yet known to be on the disk
syncs = 0
notes = {}       # (job, attempt) -> [(end, sequence)]
checked_notes = acknowledged = 0

events = sorted(calls(sys.argv[1]), key=lambda call: call[3])
for number, name, begin, end, text in events:
    path = target(text)
    run = path.rsplit(b'/', 1)[0]
    if b'/runs/' in path and path.endswith(b'/db'):
        if name in (b'pwrite64', b'write', b'pwritev', b'writev', b'pwritev2'):
            writes.setdefault(run, []).append((begin, end))
        elif name in (b'fdatasync', b'fsync') and re.search(rb'\)\s*= 0', text):
            syncs += 1
            writes[run] = [write for write in writes.get(run, []) if write[1] > begin]
    elif b'/runs/' in path and path.endswith(b'/acknowledged'):
        pending = [write for write in writes.get(run, []) if write[0] < begin]
        if pending:
            fail(number, 'a note is written while a write to the run\'s database is not synced')
        data = b''.join(unhex(part) for part in HEX.findall(text.split(b',', 1)[1]))
        job = data[:16].hex()
        attempt, sequence = int.from_bytes(data[16:20], 'big'), int.from_bytes(data[20:28], 'big')
        notes.setdefault((job, attempt), []).append((end, sequence))
        checked_notes += 1
    elif path.startswith((b'socket:', b'UNIX', b'TCP', b'UNIX-STREAM')) or b'socket' in path or b'->' in path:
        data = b''.join(unhex(part) for part in HEX.findall(text.split(b',', 1)[-1]))
        for found in ACK.finditer(data):
            job = found.group(1).decode().replace('-', '')
            attempt, at = varint(data, found.end())
            if attempt is None or at >= len(data) or data[at] != 0x18:
                continue
            _, at = varint(data, at + 1)
            if at >= len(data) or data[at] != 0x10:
                continue
            sequence, _ = varint(data, at + 1)
            acknowledged += 1
            known = [note for when, note in notes.get((job, attempt), []) if when <= begin]
            if not known or max(known) < sequence:
                fail(number, f'frame {sequence} is acknowledged and was not noted as durable before')

if not (syncs and checked_notes and acknowledged):
    fail(0, f'nothing to check: {syncs} syncs, {checked_notes} notes, {acknowledged} acknowledgements')
print(f'{acknowledged} acknowledgements, each after an fdatasync of what it promises ({syncs} syncs, {checked_notes} notes)')
PYTHON
