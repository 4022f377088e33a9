#!/usr/bin/env python3
"""Keeps the inputs that show most of a fuzz target, after it was run:

    fuzz-seeds.py PROGRAM COUNT    PROGRAM is a built target, such as fuzz/target/x86_64-unknown-linux-gnu/release/spec

The seeds that are there stay. To them come inputs of the corpus of at most 1 KiB, those first that reach most of what is not
reached yet, until COUNT are kept. `make test` replays them, and changes them a little.
"""

import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

LONGEST = 1024

program, count = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
fuzz = pathlib.Path(__file__).resolve().parent.parent / "fuzz"
seeds, corpus = fuzz / "seeds" / program.name, fuzz / "corpus" / program.name

# This kind of merge writes down all that each input has reached, not only what none before it had.
with tempfile.TemporaryDirectory() as scratch:
    control = pathlib.Path(scratch) / "control"
    (pathlib.Path(scratch) / "merged").mkdir()
    subprocess.run(
        [program, "-set_cover_merge=1", "-use_counters=0", f"-merge_control_file={control}", f"-max_len={LONGEST}",
         f"{scratch}/merged", seeds, corpus],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )
    lines = control.read_text().splitlines()

total = int(lines[0])
paths = [pathlib.Path(line) for line in lines[2 : 2 + total]]
reached = {path: set() for path in paths}
for line in lines[2 + total :]:
    if found := re.match(r"FT (\d+) ?(.*)", line):
        reached[paths[int(found[1])]] = set(map(int, found[2].split()))

known = set()
for path in paths:
    if path.parent == seeds:
        known |= reached[path]
kept = sum(1 for _ in seeds.iterdir())
others = {path: edges for path, edges in reached.items() if path.parent != seeds and path.stat().st_size <= LONGEST}
while kept < count and others:
    best = max(others, key=lambda path: (len(others[path] - known), -path.stat().st_size, path.name))
    if not others[best] - known:
        break
    known |= others.pop(best)
    content = best.read_bytes()
    (seeds / hashlib.sha1(content).hexdigest()[:12]).write_bytes(content)
    kept += 1
everything = set().union(*reached.values())
print(f"{program.name}: {kept} seeds reach {len(known)} of the {len(everything)} features of {total} inputs")
