"""Write docs/label.png and docs/report.png: pages of `dlp label` and `dlp report` in Chromium.

The first on scikit-learn's digits, some of them labelled; the second on a run of the recipe digits.
Run it where `make test-browser` runs: python docs/make_screenshots.py [label] [report]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT), str(ROOT / "cli")]

from label_page import Browser, Page, served, write_digits  # noqa: E402
from PIL import Image  # noqa: E402

ANSWERS = 32
MOST_BYTES = 300_000


def label_page(out: Path) -> None:
    """The views 'next' and 'map', one above the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = write_digits(folder)
        (folder / "x.npy").rename(folder / "digits.npy")
        with served(
            folder / "digits.npy", "--images", folder / "digits", "--truth", folder / "truth.csv",
            "--classes", "0,1,2,3,4,5,6,7,8,9",
        ) as (address, _):  # fmt: skip
            page = Page(address, height=780)
            for _ in range(ANSWERS):
                label, before = truth[page.framed], page.labelled
                if label < 9:
                    page.keys(str(label + 1))
                else:
                    page.keys("/")
                    page.keys("9", "\ue007")
                page.until(lambda before=before: page.labelled == before + 1)
            page.settled()
            page.js("return new Promise(done => setTimeout(done, 3000))")
            pictures = [save(page, folder / "next.png")]
            page.show("map")
            page.js("return new Promise(done => setTimeout(done, 2000))")
            pictures.append(save(page, folder / "map.png"))
            page.close()
        both = Image.new("RGB", (1400, 2 * 780 + 12), "white")
        for i, picture in enumerate(pictures):
            both.paste(picture, (0, i * 792))
        both.quantize(224, dither=Image.Dither.NONE).save(out, optimize=True)
    assert out.stat().st_size < MOST_BYTES, out.stat().st_size


def report_page(out: Path) -> None:
    """The upper part of the page."""
    from dlp_plugins.report.run import write_report
    from dlp_plugins.training.run import run

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "digits"
        run("digits", folder, device="cpu")
        write_report([folder], Path(name) / "report.html", device="cpu")
        browser = Browser((Path(name) / "report.html").as_uri(), height=2180)
        picture = save(browser, Path(name) / "report.png")
        browser.close()
    picture.save(out, optimize=True)
    assert out.stat().st_size < MOST_BYTES, out.stat().st_size


def save(page: Browser, path: Path) -> Image.Image:
    page.driver.save_screenshot(str(path))
    return Image.open(path).convert("RGB")


if __name__ == "__main__":
    for name in sys.argv[1:] or ["label", "report"]:
        {"label": label_page, "report": report_page}[name](ROOT / "docs" / f"{name}.png")
