"""Backbones: one file each, found by `dlp_plugins.registry.backbones`.

A backbone is a `torch.nn.Module` from images [b, channels, height, width] (float, normalised) to
features [b, d], with an attribute `num_features` = d. Its factory may declare the arguments
`in_channels` and `image_size`; the program fills them in from the data set. The classifier's heads
and the L2-normalised descriptor are added by `dlp_plugins.network.Network`.
"""
