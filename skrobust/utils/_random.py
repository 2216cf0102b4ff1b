"""Random numbers from a ``random_state`` of scikit-learn, without use of global streams."""

from contextlib import contextmanager
from copy import copy
from threading import RLock

import numpy as np
import torch
from sklearn.utils import check_random_state

# SplitMix64: increment and multipliers of G. Steele, D. Lea and C. Flood, "Fast splittable
# pseudorandom number generators", OOPSLA 2014, as signed 64-bit integers.
_GOLDEN, _MIX_1, _MIX_2 = (
    int(np.uint64(c).astype(np.int64))
    for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def draw_seed(random_state):
    """Draw a seed from a ``random_state`` of scikit-learn (int, RandomState or None)."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def make_generator(seed, device="cpu"):
    """Return a new torch generator with the given seed."""
    return torch.Generator(device=device).manual_seed(seed)


_GLOBAL_GENERATORS = RLock()


@contextmanager
def isolated_rng(seed, device):
    """Seed torch's global generators inside the block and put them back after it.

    Modules draw from the global generators (initialisation, dropout, noise layers); the caller's
    stream must neither steer that nor be moved by it. One thread at a time has the generators to
    itself: with joblib's threads, too, a seed decides every bit.
    """
    device = torch.device(device)
    on_cuda = device.type == "cuda"
    with _GLOBAL_GENERATORS:
        cpu_state = torch.get_rng_state()
        cuda_state = torch.cuda.get_rng_state(device) if on_cuda else None
        # Not torch.manual_seed: it visits every device type, which costs more than a small attack.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(cpu_state)
            if on_cuda:
                torch.cuda.set_rng_state(cuda_state, device)


class GeneratorNoise:
    """Uniform random numbers in [0, 1) for a batch, drawn in sequence from a torch generator."""

    def __init__(self, x, generator=None):
        device = x.device if generator is None else generator.device
        self.options = {"generator": generator, "dtype": x.dtype, "device": device}
        self.x = x

    def uniform(self, n_values):
        """Draw the next numbers: a tensor of shape (n_samples, n_values)."""
        return torch.rand((len(self.x), n_values), **self.options).to(self.x.device)


class RowNoise:
    """Uniform random numbers in [0, 1) for a batch, as a function of each row and the seed.

    The numbers of a row do not depend on the other rows of the batch. The result for a sample is
    therefore the same in any order of the samples and with any batch size.
    """

    def __init__(self, x, seed):
        self.dtype = x.dtype
        self.keys = _mix_(hash_rows(x) + torch.tensor(seed + 1) * _GOLDEN)
        self.n_drawn = 0

    def take(self, rows):
        """Return the noise of some of the rows; it continues the present sequence of numbers."""
        part = copy(self)
        part.keys = self.keys[rows]
        return part

    def uniform(self, n_values):
        """Draw the next numbers: a tensor of shape (n_samples, n_values)."""
        multipliers = _multipliers(self.n_drawn, n_values, self.keys.device)
        self.n_drawn += n_values
        # The keys are well mixed: a multiplication and one more round give independent numbers.
        bits = self.keys.unsqueeze(1) * multipliers
        bits = bits.bitwise_xor_(_shift_right(bits, 32)).mul_(_MIX_1)
        kept = {torch.float64: 53, torch.float32: 24}.get(self.dtype, 8)
        return (bits >> (64 - kept)).to(self.dtype).mul_(2.0**-kept).add_(0.5)


def hash_rows(x):
    """Hash the values of each row: an int64 tensor of shape (n_samples,).

    Integer arithmetic is exact: the hash does not depend on the device or on the position of the
    row.
    """
    bits = x.detach().flatten(1).double().view(torch.int64)
    # The low bits of most floats are zero, and a product carries only upwards: fold the bits first.
    bits = bits ^ _shift_right(bits, 32)
    return _mix_(bits.mul_(_multipliers(0, bits.shape[1], x.device)).sum(1))


def _multipliers(start, n_values, device):
    """Return odd random multipliers, one for each position of a row."""
    counter = torch.arange(start + 1, start + n_values + 1, device=device)
    return _mix_(counter.mul_(_GOLDEN)).bitwise_or_(1)


def _mix_(z):
    z = z.bitwise_xor_(_shift_right(z, 30)).mul_(_MIX_1)
    z = z.bitwise_xor_(_shift_right(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift_right(z, 31))


def _shift_right(z, n_bits):
    """Shift right and fill with zeros; the shift of torch keeps the sign."""
    return (z >> n_bits).bitwise_and_((1 << (64 - n_bits)) - 1)
