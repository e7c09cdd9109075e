"""USB's algorithms with label propagation in place of their pseudo-labels: `dlp_fixmatch`..."""

from __future__ import annotations

from typing import Any

from semilearn.algorithms.utils import SSL_Argument
from semilearn.core.utils import ALGORITHMS

from dlp_plugins.hosts.usb.arguments import ssl_arguments
from dlp_plugins.hosts.usb.device import AnyDevice
from dlp_plugins.hosts.usb.hook import LabelPropagationHook

# Those whose pseudo-labels and masks both come from a hook.
BASES = ("adamatch", "fixmatch", "flexmatch", "freematch", "pseudolabel", "softmatch", "uda")


def with_label_propagation(name: str) -> type:
    """Register `dlp_<name>`: the USB algorithm with a LabelPropagationHook, on any device."""
    base: Any = ALGORITHMS[name]

    class Combined(AnyDevice, base):
        views_of = name

        def set_hooks(self) -> None:
            super().set_hooks()
            self.register_hook(LabelPropagationHook.from_args(self.args))

        @staticmethod
        def get_argument() -> list[SSL_Argument]:
            own = [a for a in ssl_arguments() if a.name != "--dlp_normalize"]
            return [*base.get_argument(), *own]

    Combined.__name__ = Combined.__qualname__ = f"Dlp{base.__name__}"
    Combined.__doc__ = f"{base.__name__} with graph labels and certainties from `dlp_warm_up` on."
    return ALGORITHMS.register(f"dlp_{name}")(Combined)


for _name in BASES:
    with_label_propagation(_name)
