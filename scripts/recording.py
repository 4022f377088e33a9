#!/usr/bin/env python3
"""Records a real service in a terminal, as an SVG that plays by itself: recording.py PROGRAM OUT.svg

Nothing is made up: a shell in a pseudo-terminal gets what is typed here, and every frame is what it showed then. Each
different line is in the file once.
"""

import fcntl
import html
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte

COLUMNS, ROWS = 92, 24
CHARACTER, LINE, PAD = 8.4, 19, 14
MOST_BYTES = 400_000
# What is typed, and how long its result is looked at.
SCENE = [
    ("procession run -- sh -c 'echo building; sleep 1; echo done; exit 3'", 0.6),
    ("echo $?", 1.5),
    ("# It ignores SIGTERM, and has a child in a session of its own:", 0.4),
    ("procession run -d --name stubborn --grace 2 -- sh -c 'trap \"\" TERM; setsid sleep 4711 & sleep 4711'", 1.0),
    ("pgrep -c -f 'sleep 4711'; procession ps", 2.5),
    ("procession stop stubborn; pgrep -c -f 'sleep 4711'", 1.5),
    ("procession ps -a", 5.0),
]
COLOURS = {"red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#a5d6ff"}


class Terminal:
    """A shell in a pseudo-terminal, its screen, and what it showed when."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self.stream = pyte.ByteStream(self.screen)
        self.frames: list[tuple[float, list[str]]] = []
        self.start = time.monotonic()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe("bash", ["bash", "--norc", "--noprofile"], environment)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))

    def watch(self, seconds: float, until: str | None = None, limit: float = 30) -> None:
        """Shows what comes: for so long, or until this prompt is back."""
        end = time.monotonic() + (limit if until else seconds)
        while time.monotonic() < end:
            if select.select([self.fd], [], [], 0.02)[0]:
                self.stream.feed(os.read(self.fd, 65536))
                self.keep()
            elif until and self.screen.display[self.screen.cursor.y].rstrip() == until:
                return
        if until:
            sys.exit(f"no prompt within {limit} s:\n" + "\n".join(self.screen.display))

    def keep(self) -> None:
        lines = [line_of(self.screen, row) for row in range(ROWS)]
        if not self.frames or self.frames[-1][1] != lines:
            self.frames.append((time.monotonic() - self.start, lines))

    def type(self, text: str) -> None:
        for at in range(0, len(text), 3):
            os.write(self.fd, text[at : at + 3].encode())
            self.watch(0.05)
        os.write(self.fd, b"\n")


def line_of(screen: pyte.Screen, row: int) -> str:
    """A line as SVG: a run of letters of one colour each."""
    runs: list[tuple[str, bool, str]] = []
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        look = (COLOURS.get(cell.fg, ""), cell.bold)
        if runs and runs[-1][:2] == look:
            runs[-1] = (*look, runs[-1][2] + cell.data)
        else:
            runs.append((*look, cell.data))
    while runs and not runs[-1][2].strip():
        runs.pop()
    made = ""
    for number, (colour, bold, text) in enumerate(runs):
        text = html.escape(text.rstrip() if number == len(runs) - 1 else text)
        style = (f' fill="{colour}"' if colour else "") + (' font-weight="700"' if bold else "")
        made += f"<tspan{style}>{text}</tspan>" if style else text
    return made


def picture(frames: list[tuple[float, list[str]]], end: float) -> str:
    width, height = round(COLUMNS * CHARACTER + 2 * PAD), ROWS * LINE + 2 * PAD
    known: dict[str, int] = {}
    film, times = [], []
    for number, (at, lines) in enumerate(frames):
        times.append(f"{100 * at / end:.3f}% {{ transform: translateX(-{number * width}px) }}")
        uses = []
        for row, line in enumerate(lines):
            if line:
                name = known.setdefault(line, len(known))
                uses.append(f'<use href="#l{name}" y="{PAD + (row + 1) * LINE - 5}"/>')
        film.append(f'<g transform="translate({number * width + PAD})">{"".join(uses)}</g>')
    defined = "".join(f'<text id="l{name}">{line}</text>' for line, name in known.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">\n'
        "<title>A command with its output and exit code; a stop that ends a stubborn tree of processes; the list of jobs</title>\n"
        "<style>text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: #e6edf3; white-space: pre }\n"
        f"#film {{ animation: film {end:.2f}s steps(1, end) infinite }}\n"
        # Whoever wants no motion sees how it ends.
        f"@media (prefers-reduced-motion: reduce) {{ #film {{ animation: none; transform: translateX(-{(len(frames) - 1) * width}px) }} }}\n"
        f"@keyframes film {{ 0% {{ transform: none }} {' '.join(times)} 100% {{ transform: translateX(-{(len(frames) - 1) * width}px) }} }}</style>\n"
        f'<defs>{defined}</defs>\n<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n'
        f'<g id="film">{"".join(film)}</g>\n</svg>\n'
    )


def main(program: Path, out: Path) -> None:
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "PATH": f"{program.parent}:/usr/bin:/bin",
            "HOME": home,
            "TERM": "xterm-256color",
            "PS1": "$ ",
            "LANG": "C.UTF-8",
            "PROCESSION_STATE_DIR": f"{home}/state",
        }
        serve = [program, "serve", "--listen", "127.0.0.1:0", "--min-free-bytes", "0", "--on-shutdown", "stop"]
        service = subprocess.Popen(serve, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            assert service.stdout and "listening on " in service.stdout.readline()
            os.chdir(home)
            terminal = Terminal(environment)
            terminal.watch(0, until="$")
            for text, pause in SCENE:
                terminal.type(text)
                terminal.watch(0.2)
                terminal.watch(0, until="$")
                terminal.watch(pause)
            end = time.monotonic() - terminal.start
            os.close(terminal.fd)
            os.waitpid(terminal.pid, 0)
        finally:
            service.terminate()
            service.wait(30)
    made = picture(terminal.frames, end)
    assert len(made) <= MOST_BYTES, f"{len(made)} bytes"
    out.write_text(made)
    print(f"{out}: {len(terminal.frames)} frames, {end:.0f} s, {len(made)} bytes")


main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
