"""What an augmentation is: a batch of raw examples in, normalised float views out.

To write one, subclass `Augmentation`, register it, and hand its name to
`dlp_plugins.testing.check_augmentation`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


class Augmentation(ABC):
    """Makes the views of a batch that a network sees.

    Built with the context arguments `mean` and `std`, which it may leave out of its signature:
    tuples of one number per channel of images, or per number of vectors, or one for all of these.
    Views lie on the device of the examples, are float32, and have the examples' shape and memory
    format. Random numbers come from torch's global generator of that device, so that whoever seeds
    it decides the views.
    """

    @abstractmethod
    def plain(self, examples: Tensor) -> Tensor:
        """Normalised, otherwise unchanged: for evaluation and descriptors.

        Args:
            examples: images [b, channels, height, width] of uint8 or float32, or vectors [b, d] of
                float32. They are not changed.

        Raises:
            DataError: examples that this augmentation does not take.
        """

    @abstractmethod
    def weak(self, examples: Tensor) -> Tensor:
        """A slightly changed view, drawn again at every call; every example draws its own."""

    def strong(self, examples: Tensor) -> Tensor:
        """A strongly changed view, for methods such as FixMatch; the weak one unless overridden."""
        return self.weak(examples)
