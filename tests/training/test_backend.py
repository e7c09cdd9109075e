"""torch's settings for a run on a GPU; they can be set without one."""

from __future__ import annotations

import os

import pytest
import torch

from dlp_plugins.recipe.model import Training
from dlp_plugins.training.backend import backend

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


def settings() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    return (
        cudnn.benchmark,
        cudnn.deterministic,
        cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled(),
    )


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        (Training(), (True, False, False, False)),
        (Training(precision="tf32"), (True, False, True, False)),
        (Training(deterministic=True), (False, True, False, True)),
    ],
)
def test_a_gpu_gets_its_settings_and_they_end_with_the_run(
    training: Training, expected: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "kept")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")  # so that it is put back as it was
    before = settings()
    with backend(CUDA, training):
        assert settings() == expected
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == training.deterministic
        # the search for neighbours needs products in float32
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert settings() == before


def test_settings_come_back_after_an_error() -> None:
    before = settings()
    with pytest.raises(ValueError, match="in a run"), backend(CUDA, Training(deterministic=True)):
        raise ValueError("in a run")
    assert settings() == before


def test_a_cpu_is_left_as_it_is() -> None:
    before = settings()
    with backend(CPU, Training(deterministic=True)):
        assert settings() == before
