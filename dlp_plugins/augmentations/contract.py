"""What an augmentation is: a batch of raw examples in, normalised float views out.

To write one, subclass `Augmentation`, register it, and hand its name to
`dlp_plugins.testing.check_augmentation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Augmentation(ABC):
    """Makes the views of a batch that a network sees.

    Built with the context arguments `mean` and `std`, tuples of one number per channel, which it
    may leave out of its signature. Views lie on the device of the examples, are float32, and have
    the examples' shape and memory format. Random numbers come from torch's global generator of that
    device, so that whoever seeds it decides the views.
    """

    @abstractmethod
    def plain(self, examples: Tensor) -> Tensor:
        """Normalised, otherwise unchanged: for evaluation and descriptors.

        Args:
            examples: [b, channels, height, width] uint8.

        Raises:
            DataError: examples that this augmentation does not take.
        """

    @abstractmethod
    def weak(self, examples: Tensor) -> Tensor:
        """A slightly changed view, drawn again at every call; every example draws its own."""

    def strong(self, examples: Tensor) -> Tensor:
        """A strongly changed view, for methods such as FixMatch; the weak one unless overridden."""
        return self.weak(examples)
