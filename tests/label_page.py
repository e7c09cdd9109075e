"""A browser with a page in it, for tests and for the pictures in docs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# Without these Chromium looks for updates and for its maker's hosts at every start.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
WAIT = 60.0  # seconds: the machine may be busy with other tests


def write_digits(folder: Path) -> list[int]:
    """scikit-learn's 1,797 digits as PNG files in `digits/`, x.npy and truth.csv; their classes."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    (folder / "digits").mkdir()
    for i, image in enumerate(digits.images):
        pixels = Image.fromarray((image * 15.9).astype(np.uint8))
        pixels.save(folder / "digits" / f"{i:04}.png")
    np.save(folder / "x.npy", digits.data.astype(np.float32))
    (folder / "truth.csv").write_text("label\n" + "".join(f"{t}\n" for t in digits.target))
    return digits.target.tolist()


@contextmanager
def served(*arguments: Any) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `dlp label` started with these arguments, and its process."""
    command = [sys.executable, "-m", "dlp_cli", "label", *map(str, arguments), "--no-browser"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("Open "))
        yield address, process
    finally:
        process.kill()
        process.wait()


class Browser:
    """A window of Chromium with one address in it."""

    def __init__(
        self, address: str, width: int = 1400, height: int = 900, scale: float = 1
    ) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or ""
        for flag in (*FLAGS, f"--window-size={width},{height}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(WAIT)
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get(address)

    def close(self) -> None:
        self.driver.quit()

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.js("return document.querySelector(arguments[0]).textContent", selector))

    def js(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def keys(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def until(self, condition: Callable[[], Any]) -> Any:
        end = time.monotonic() + WAIT
        while not (found := condition()):
            assert time.monotonic() < end, f"waited {WAIT:.0f} s for {condition}"
            time.sleep(0.05)
        return found

    def problems(self) -> list[Any]:
        """What the browser's console holds."""
        return self.driver.get_log("browser")  # type: ignore[no-any-return]


class Page(Browser):
    """The page of `dlp label`, ready."""

    def __init__(self, address: str, **size: Any) -> None:
        super().__init__(address, **size)
        self.until(lambda: self.all("#classes .class"))

    def show(self, view: str) -> None:
        self.js(f"document.querySelector('[role=tab][data-view={view}]').click()")

    @property
    def framed(self) -> int:
        """The point of the framed image; it has no label yet."""
        script = "return document.querySelector('.card.cursor:not(.done)')?.dataset.point ?? null"
        return int(self.until(lambda: self.js(script)))

    @property
    def labelled(self) -> int:
        return int(self.text("#labelled").replace(",", ""))

    def settled(self) -> None:
        self.until(lambda: self.text("#status span") == "Up to date")
