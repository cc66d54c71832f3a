#!/usr/bin/env python3
"""Writes a raw file as heaptrack_inject does, of a program that is hard on heaptrack_interpret 1.4: random sizes over many stacks.

    deploy/make-hard-heap.py [EVENTS] [STACKS] [SEED] > hard.raw      default 6000000 60000 1
    deploy/make-hard-heap.py --interpreted [EVENTS] … > many.txt      the same program as heaptrack_interpret would have it, with few sizes:
                                                                      what deploy/bench-heap.sh takes for a file of many stacks

Its table of distinct (size, stack) pairs hashes by the size alone, so that thousands of stacks which ask for the same size collide and the table
grows without end: never interpret such a file without a limit of memory (deploy/bench-hard-heap.sh has one). One of three blocks is freed at once, one later, one never.
"""
import random
import sys

words = [word for word in sys.argv[1:] if word != "--interpreted"]
is_raw = len(words) == len(sys.argv) - 1
events, stacks, seed = [int(word) for word in words] + [6_000_000, 60_000, 1][len(words):]
dice = random.Random(seed)
out = sys.stdout
exe = "/usr/bin/true"
lines = ["v 10400 3", f"x {len(exe):x} {exe}" if is_raw else "X hard", "I 1000 100000"]
if is_raw:
    lines += ["m 1 -", f"m {len(exe):x} {exe} 555500000000 0 10000"]
else:
    # Names first: the module, then functions; every instruction is a function of its own.
    lines.append(f"s {len(exe):x} {exe}")
    for function in range(5_000):
        name = f"function_{function}"
        lines += [f"s {len(name):x} {name}", f"i {0x555500000000 + function * 16:x} 1 {function + 2:x}"]
for stack in range(1, stacks + 1):
    # Chains of up to forty frames that share their outer ends, as a program's do.
    parent = 0 if stack % 40 == 1 else dice.randint(stack - (stack - 1) % 40, stack - 1)
    place = 0x555500000000 + dice.randrange(0x10000) if is_raw else dice.randint(1, 5_000)
    lines.append(f"t {place:x} {parent:x}")
live = []
known = {}
pointer = 0x7F0000000000
for event in range(events):
    if event % 1000 == 0:
        lines.append(f"c {event // 1000:x}")
        out.write("\n".join(lines) + "\n")
        lines.clear()
    kind = dice.random()
    if kind < 0.45 and live:
        at = dice.randrange(len(live)) if kind < 0.2 else len(live) - 1
        live[at], live[-1] = live[-1], live[at]
        lines.append(f"- {live.pop():x}")
        continue
    trace = dice.randint(1, stacks)
    if is_raw:
        pointer += 16
        name = pointer
        lines.append(f"+ {dice.randrange(1, 4096):x} {trace:x} {pointer:x}")
    else:
        size = 16 << dice.randrange(8)
        name = known.get((size, trace))
        if name is None:
            name = known[size, trace] = len(known)
            lines.append(f"a {size:x} {trace:x}")
        lines.append(f"+ {name:x}")
    if kind < 0.9:
        live.append(name)
out.write("\n".join(lines) + "\n")
