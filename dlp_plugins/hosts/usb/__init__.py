"""Label propagation inside Microsoft's USB (semilearn 0.3.2): docs/usb.md.

Importing this package registers in USB's ALGORITHMS `dlp`, `dlp_meanteacher` and, for every USB
algorithm whose pseudo-labels come from a hook, `dlp_<name>` (`dlp_fixmatch`, ...). One line in a
USB script is enough; the rest is in its config file:

    import dlp_plugins.hosts.usb
"""

from dlp_plugins._semilearn import require

require()

from dlp_plugins.hosts.usb.algorithm import (  # noqa: E402
    DeepLabelPropagation,
    DeepLabelPropagationMeanTeacher,
)
from dlp_plugins.hosts.usb.combined import with_label_propagation  # noqa: E402
from dlp_plugins.hosts.usb.device import AnyDevice  # noqa: E402
from dlp_plugins.hosts.usb.hook import LabelPropagationHook  # noqa: E402
from dlp_plugins.hosts.usb.trainer import AnyDeviceTrainer  # noqa: E402

__all__ = [
    "AnyDevice",
    "AnyDeviceTrainer",
    "DeepLabelPropagation",
    "DeepLabelPropagationMeanTeacher",
    "LabelPropagationHook",
    "with_label_propagation",
]
