"""The page of `dlp label` at 50,000 made embeddings: from a key to the new counts, and map frames.

Run it where `make test-browser` runs: python benchmarks/label_page.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "cli")]

from label_page import Page, served  # noqa: E402

CLASSES = 9
# Until the number of labels in the page, which the server counts with all the others, has changed.
ANSWER = """
const [key, done] = arguments, box = document.querySelector("#labelled"), before = box.textContent;
const seen = new MutationObserver(() => {
  if (box.textContent === before) return;
  seen.disconnect();
  done(performance.now() - begin);
});
seen.observe(box, { childList: true, characterData: true, subtree: true });
const begin = performance.now();
document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
"""
# The map dragged by 3 pixels a frame.
FRAMES = """
const done = arguments[0], canvas = document.querySelector("#map canvas"), gaps = [];
const box = canvas.getBoundingClientRect();
const send = (kind, x) => canvas.dispatchEvent(new PointerEvent(
  kind, { pointerId: 1, button: 0, bubbles: true, clientX: box.x + x, clientY: box.y + 200 }));
canvas.setPointerCapture = () => {};
send("pointerdown", 300);
let last = performance.now(), n = 0;
const step = () => {
  const now = performance.now();
  gaps.push(now - last);
  last = now;
  if (n++ === 60) return done(gaps.slice(1));
  send("pointermove", 300 + 3 * n);
  requestAnimationFrame(step);
};
requestAnimationFrame(step);
"""


def made(points: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings around five directions per class, and their classes."""
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((5 * CLASSES, dim))
    group = rng.integers(5 * CLASSES, size=points)
    x = centers[group] + 1.6 * rng.standard_normal((points, dim))
    return x.astype(np.float32), group % CLASSES


def describe(what: str, milliseconds: list[float]) -> str:
    median, high = np.quantile(milliseconds, (0.5, 0.9))
    return f"{what}: median {median:.0f} ms, 90 % {high:.0f} ms, most {max(milliseconds):.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--answers", type=int, default=30)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "x.npy"
        x, y = made(options.points, 128)
        np.save(path, x)
        names = ",".join(f"class{j}" for j in range(CLASSES))
        with served(path, "--classes", names) as (address, _):
            page = Page(address)
            times = []
            for _ in range(options.answers):
                key = str(int(y[page.framed]) + 1)
                times.append(page.driver.execute_async_script(ANSWER, key))
                time.sleep(1)  # a person looks at the next image
            print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            print(describe("from a key to the new counts", times))
            page.show("map")
            time.sleep(3)
            print(describe("between frames of the map", page.driver.execute_async_script(FRAMES)))
            page.close()


if __name__ == "__main__":
    main()
