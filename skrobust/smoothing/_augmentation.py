"""Training under noise of any distribution."""

from torch.nn.functional import cross_entropy

from ..defenses import BaseDefense


class NoiseAugmentation(BaseDefense):
    """The cross-entropy at noisy inputs, with fresh noise in every batch.

    Parameters
    ----------
    noise : Noise
        Fitted.
    """

    def __init__(self, noise):
        self.noise = noise

    def loss(self, model, x, y, threat, generator):
        """Loss of each sample of a batch; see :meth:`BaseDefense.loss`."""
        noisy = x.new_empty(x.shape)
        self.noise.sampler(x.dtype, x.device)(noisy, x, None, generator)
        logits = model(noisy)
        return cross_entropy(logits, y, reduction="none"), logits
