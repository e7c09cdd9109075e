"""What a GPU would see of batches sent ahead: which copies and waits come before which work."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch

from dlp_plugins.training.ahead import sent_ahead


def test_without_a_gpu_they_come_as_they_are() -> None:
    batches = [torch.full((2,), float(i)) for i in range(3)]
    sent = list(sent_ahead(batches, torch.device("cpu")))
    assert all(a is b for a, b in zip(sent, batches, strict=True))


class Log:
    """In place of streams, events and tensors on a GPU: writes down what is asked, in order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.device = torch.device("cuda")

    def batch(self, name: str) -> Any:
        def to(device: torch.device, non_blocking: bool) -> Any:
            assert non_blocking
            self.lines.append(f"copy {name} on {self.stream}")
            return sent

        sent = mock.Mock(device=self.device)
        sent.record_stream = lambda stream: self.lines.append(f"keep {name} for {stream}")
        sent.name = name
        return mock.Mock(to=to)

    stream = "work"

    @contextmanager
    def on(self, stream: Any) -> Any:
        self.stream = "copies"
        yield
        self.stream = "work"


def test_the_next_copy_starts_before_the_present_work() -> None:
    log = Log()
    copied = iter("ABC")
    copies = mock.Mock(record_event=lambda: next(copied))
    work = mock.MagicMock(__str__=lambda self: "work")
    work.wait_event = lambda event: log.lines.append(f"work waits for copy {event}")
    with (
        mock.patch("torch.cuda.Stream", return_value=copies),
        mock.patch("torch.cuda.stream", log.on),
        mock.patch("torch.cuda.current_stream", return_value=work),
    ):
        for batch in sent_ahead([log.batch(name) for name in "ABC"], log.device):
            log.lines.append(f"work on {batch.name}")
    assert log.lines == [
        "copy A on copies",
        "copy B on copies",
        "work waits for copy A",
        "keep A for work",
        "work on A",
        "copy C on copies",
        "work waits for copy B",
        "keep B for work",
        "work on B",
        "work waits for copy C",
        "keep C for work",
        "work on C",
    ]
