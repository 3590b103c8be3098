"""Record a played run as a GIF: its page in a headless Chromium, act by act.

    python docs/record.py RUN docs/img/play.gif --start 22 --acts "look; model sft; back 1"
    python docs/record.py RUN docs/img/pusht.gif --start 5 --acts "0.8 0.25; 0.7 0.8; follow"

An act is a command that is typed, ``model NAME`` (another model goes on from here), ``back N`` (to step N) or, of
frames, a place to which the pointer goes, in shares of width and height, or ``follow``: the model goes on from where
the real world stands. Without acts a game or a page is given what it offers first, and the pointer goes once round a
circle. An OUT that ends in .png is a picture of the end. Needs the extras serve and web, Pillow, and a Chromium.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

CALM = """#commands { height: 4.2rem; align-content: start; } #commands:empty, #save { display: none; }
.seen { max-height: none; } .seen img { max-width: 18rem; } body:has(.moving) #steps { display: none; }"""
"""Style that keeps the page from jumping between frames."""
COLOURS = 256
CIRCLE = [
    f"{0.5 + 0.35 * math.cos(turn * math.pi / 4)} {0.5 + 0.35 * math.sin(turn * math.pi / 4)}" for turn in range(9)
]
STRIDE = 0.08
"""How far the pointer goes in one step of a hand that follows it, as a share of the frame."""
POINTER = """([x, y]) => {
  const mark = document.querySelector("#mark") || document.body.appendChild(document.createElement("div"));
  mark.id = "mark";
  mark.style = `position: fixed; left: ${x - 7}px; top: ${y - 7}px; width: 14px; height: 14px; border-radius: 50%;
    border: 2px solid #fff; background: #d6336c; pointer-events: none`;
}"""
PUSH = "([x, y]) => { down = at || [x, y]; at = [x, y]; return push(); }"
SHOWN = {"typed": 900, "did": 2200, "moved": 200, "last": 3500}
"""How long a frame is shown, in ms."""


class Recording:
    """A page of a run that is played, and its screenshots."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.frames: list[tuple[Image.Image, int]] = []

    def keep(self, kind: str) -> None:
        self.frames.append((Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"), SHOWN[kind]))

    def after(self, act: Any) -> None:
        """Do something, and wait until the page has answered."""
        act()
        self.page.wait_for_timeout(50)
        self.page.wait_for_function("!busy", timeout=120_000)

    def do(self, act: str) -> None:
        what, _, which = act.partition(" ")
        if what == "model":
            self.after(lambda: self.page.select_option("#model", which))
        elif what == "back":
            self.after(self.page.locator("#steps button").nth(int(which)).click)
        else:
            self.page.fill("#wish", act)
            self.keep("typed")
            self.after(lambda: self.page.press("#wish", "Enter"))
        self.keep("did")

    def lead(self, acts: Sequence[str]) -> None:
        """Frames: the pointer goes from place to place, the hand after it; on a table it drags from one to the next."""
        box, stride = self.page.locator("#imagined img").bounding_box(), 9 if self.page.evaluate("drags()") else STRIDE
        here: Any = None
        for act in acts:
            if act == "follow":
                self.after(lambda: self.page.click("#sync"))
                self.keep("did")
                continue
            place = np.array(act.split(), float)
            way = (
                [place]
                if here is None
                else np.linspace(here, place, 1 + math.ceil(math.dist(here, place) / stride))[1:]
            )
            for x, y in (at.tolist() for at in way):
                self.page.evaluate(POINTER, [box["x"] + x * box["width"], box["y"] + y * box["height"]])
                self.after(lambda at=(x, y): self.page.evaluate(PUSH, at))
                self.keep("moved")
            here = place

    def offered(self) -> str:
        """A command of those that the page offers, one that has not been given yet; on a web page, a click."""
        given = self.page.evaluate("history")
        commands = self.page.locator("#commands button").all_inner_texts()
        quiet = ("look", "inventory", "examine")
        if fresh := [one for one in commands if one not in given and not one.startswith(quiet)]:
            return str(fresh[0])
        self.page.locator("#imagined .pick").nth(len(given)).click()
        return str(self.page.input_value("#wish"))

    def write(self, out: Path) -> None:
        """One palette for all frames, no dithering: what stays the same costs nothing."""
        pictures = [picture for picture, _ in self.frames]
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".png":
            pictures[-1].quantize(256).save(out, optimize=True)
            return
        width, height = pictures[0].size
        strip = Image.new("RGB", (width, height * len(pictures)))
        for at, picture in enumerate(pictures):
            strip.paste(picture, (0, height * at))
        palette = strip.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)
        first, *rest = (one.quantize(palette=palette, dither=Image.Dither.NONE) for one in pictures)
        times = [*(shown for _, shown in self.frames[:-1]), SHOWN["last"]]
        first.save(out, save_all=True, append_images=rest, duration=times, loop=0, optimize=True)
        print(f"{out}: {len(pictures)} frames, {out.stat().st_size / 1000:.0f} kB")


@contextmanager
def served(run: str) -> Iterator[str]:
    """The address of the run's page, as long as it is served."""
    command = [sys.executable, "-m", "rlvr_world", "play", run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            if " on http" not in said:
                raise SystemExit(f"{run}: the page did not start; see above")
            yield said.split()[-1]
        finally:
            server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--start", type=int, default=0, help="which game, page or episode")
    parser.add_argument("--acts", default="", help="separated by ;")
    parser.add_argument("--size", default="880x580", help="of the page, in pixels")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with served(args.run) as address, sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium)
        recording = Recording(page := browser.new_page(viewport={"width": width, "height": height}))
        page.goto(address)
        if args.out.suffix == ".gif":
            page.add_style_tag(content=CALM)
        page.wait_for_function("!busy && document.querySelector('#steps button') !== null", timeout=120_000)
        page.fill("#seed", str(args.start))
        recording.after(lambda: page.click("#begin"))
        recording.keep("did")
        acts = [act.strip() for act in args.acts.split(";") if act.strip()]
        if page.is_visible("#numbers"):
            recording.lead(acts or CIRCLE)
        elif acts:
            for act in acts:
                recording.do(act)
        else:
            for _ in range(4):
                recording.do(recording.offered())
        browser.close()
    recording.write(args.out)


if __name__ == "__main__":
    main()
