"""Random numbers from a ``random_state`` of scikit-learn, without use of global streams."""

import os
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch
from sklearn.utils import check_random_state

from ._rows import RowBatch

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


class TorchRandomState:
    """A state of torch's global generators that is in force for single calls.

    Modules draw from the global generators (initialisation, dropout, noise layers). The caller's
    stream must neither determine these draws nor be moved by them.

    Parameters
    ----------
    seed : int

    device : torch.device
        Device whose generator is isolated besides that of the CPU.
    """

    def __init__(self, seed, device):
        device = torch.device(device)
        self._generators = [torch.default_generator]
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            self._generators.append(torch.cuda.default_generators[index])
        self._states = [make_generator(seed, g.device).get_state() for g in self._generators]

    def global_state(self):
        """Return the states of the global generators."""
        return [generator.get_state() for generator in self._generators]

    def restore_global(self, states):
        """Put the global generators back to earlier states; return whether they had moved."""
        now = self.global_state()
        if all(torch.equal(*pair) for pair in zip(now, states, strict=True)):
            return False
        self._set_global(states)
        return True

    def _set_global(self, states):
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

    @contextmanager
    def active(self):
        """Context in which the global generators continue this state, one thread at a time.

        A lock is held inside: use it for single calls of torch, never around code of an estimator.
        """
        with _LOCK.held(), self.swapped():
            yield

    @contextmanager
    def swapped(self):
        """Context in which the global generators continue this state, without a lock.

        Other threads that draw at the same time share the generators.
        """
        outside = self.global_state()
        self._set_global(self._states)
        try:
            yield
        finally:
            self._states = self.global_state()
            self._set_global(outside)


class _ForkSafeLock:
    """A re-entrant lock that is free in a forked child, whoever held it in the parent."""

    def __init__(self):
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self):
        self._lock = RLock()

    def held(self):
        return self._lock


_LOCK = _ForkSafeLock()


class GeneratorNoise:
    """Uniform random numbers in [0, 1) for a batch, drawn in sequence from a torch generator."""

    def __init__(self, x, generator=None):
        device = x.device if generator is None else generator.device
        self.options = {"generator": generator, "dtype": x.dtype, "device": device}
        self.x = x

    def uniform(self, n_values):
        """Draw the next numbers: a tensor of shape (n_samples, n_values)."""
        return torch.rand((len(self.x), n_values), **self.options).to(self.x.device)


class RowNoise(RowBatch):
    """Uniform random numbers in [0, 1) for a batch, as a function of each row and the seed.

    The numbers of a row do not depend on the other rows of the batch. The result for a sample is
    therefore the same in any order of the samples and with any batch size.
    """

    _row_attributes = ("keys",)

    def __init__(self, x, seed):
        self.dtype = x.dtype
        self.keys = _mix_(hash_rows(x) + torch.tensor(seed + 1) * _GOLDEN)
        self.n_drawn = 0

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
