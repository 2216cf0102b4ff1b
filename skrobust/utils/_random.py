"""Random state: from scikit-learn's ``random_state`` to torch, and back out untouched."""

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
    """Seed drawn from a scikit-learn ``random_state`` (int, RandomState or None)."""
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def make_generator(seed, device="cpu"):
    """Torch generator with a seed of its own."""
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
        with _LOCK.held():
            with self.swapped():
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
    """Uniform numbers in [0, 1) for a batch, from a torch generator: fast, in sequence."""

    def __init__(self, x, generator=None):
        device = x.device if generator is None else generator.device
        self.options = {"generator": generator, "dtype": x.dtype, "device": device}
        self.x = x

    def uniform(self, n_values):
        """Tensor of shape (n_samples, n_values)."""
        return torch.rand((len(self.x), n_values), **self.options).to(self.x.device)


class RowNoise(RowBatch):
    """Uniform numbers in [0, 1) for a batch, each row's a function of the row and the seed.

    What a row draws depends neither on its neighbours nor on the batches they come in, so that a
    result for a sample is the same alone, in another order and with another batch size.
    """

    _row_attributes = ("keys",)

    def __init__(self, x, seed):
        self.dtype = x.dtype
        self.keys = _mix_(hash_rows(x) + torch.tensor(seed + 1) * _GOLDEN)
        self.n_drawn = 0

    def uniform(self, n_values):
        """Tensor of shape (n_samples, n_values)."""
        multipliers = _multipliers(self.n_drawn, n_values, self.keys.device)
        self.n_drawn += n_values
        # The keys are random already: a product and one more round make independent numbers.
        bits = self.keys.unsqueeze(1) * multipliers
        bits = bits.bitwise_xor_(_shift_right(bits, 32)).mul_(_MIX_1)
        kept = {torch.float64: 53, torch.float32: 24}.get(self.dtype, 8)
        return (bits >> (64 - kept)).to(self.dtype).mul_(2.0**-kept).add_(0.5)


def hash_rows(x):
    """Hash of the values of each row: int64 tensor of shape (n_samples,).

    Exact integer arithmetic, the same wherever a row stands and on every device.
    """
    bits = x.detach().flatten(1).double().view(torch.int64)
    # The low bits of most numbers are zero, and a product only carries upwards: fold first.
    bits = bits ^ _shift_right(bits, 32)
    return _mix_(bits.mul_(_multipliers(0, bits.shape[1], x.device)).sum(1))


def _multipliers(start, n_values, device):
    """Odd random numbers, one for each position."""
    counter = torch.arange(start + 1, start + n_values + 1, device=device)
    return _mix_(counter.mul_(_GOLDEN)).bitwise_or_(1)


def _mix_(z):
    z = z.bitwise_xor_(_shift_right(z, 30)).mul_(_MIX_1)
    z = z.bitwise_xor_(_shift_right(z, 27)).mul_(_MIX_2)
    return z.bitwise_xor_(_shift_right(z, 31))


def _shift_right(z, n_bits):
    """Logical shift: torch's keeps the sign."""
    return (z >> n_bits).bitwise_and_((1 << (64 - n_bits)) - 1)
