"""Certificates."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skrobust.verification import Certificate


def make_certificate(n=3):
    return Certificate(
        label=np.array(["a", "b", "a"])[:n],
        radius=np.array([0.5, 0.0, 1.5])[:n],
        abstained=np.array([False, True, False])[:n],
        reason=np.array(["certified", "time limit", "certified"])[:n],
        norm="linf",
        unit="units of X",
        method="by hand",
    )


def test_certificate_as_text_and_as_frame():
    certificate = make_certificate()
    assert len(certificate) == 3
    assert repr(certificate) == (
        "Certificate of 3 samples: 2 certified, 1 abstained (1 time limit); median radius 0.5; "
        "norm linf, in units of X; by hand"
    )
    frame = certificate.to_frame()
    assert list(frame.columns) == ["label", "radius", "abstained", "reason"]
    assert_array_equal(frame["radius"], [0.5, 0.0, 1.5])


def test_certificate_of_no_samples():
    assert repr(make_certificate(0)) == (
        "Certificate of 0 samples: 0 certified, 0 abstained; norm linf, in units of X; by hand"
    )
    assert make_certificate(0).to_frame().shape == (0, 4)


def test_certificate_is_a_value():
    certificate = make_certificate()
    assert repr(pickle.loads(pickle.dumps(certificate))) == repr(certificate)
    with pytest.raises(AttributeError):
        certificate.radius = np.ones(3)
