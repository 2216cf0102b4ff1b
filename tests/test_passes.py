"""What makes many passes fast."""

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from skrobust.utils._passes import fast_passes

PASSES = """
import resource
import torch
from torch import nn
from skrobust.utils._passes import fast_passes

def n_faults(n_passes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_passes):
        activations = [relu(x) for _ in range(5)]
        del activations
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

relu, x = nn.ReLU(), torch.rand(2**20)
with fast_passes(relu, len(x)):
    n_faults(5)
    print(n_faults(20))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the allocator of glibc")
def test_freed_memory_is_kept():
    # In a process of its own: this one may have learnt by now.
    run = [sys.executable, "-c", PASSES]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    # An activation has 1,024 pages, and without there is a fault for most of them in every pass.
    assert int(output) < 1024


@pytest.mark.parametrize("before", [False, True])
def test_cudnn_sums_in_one_order(monkeypatch, before):
    # What that does needs a GPU; that it is so inside, and as before outside, does not.
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
    with fast_passes(nn.ReLU(), 1):
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before
