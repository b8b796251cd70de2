import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camsweep.core.data.axes import NAMES
from camsweep.core.data.layout import Layout
from camsweep.core.errors import RequestError

SIZES = {"N": 2, "C": 3, "T": 4, "D": 5, "H": 6, "W": 7, "Z": 8, "Y": 9, "X": 10, "F": 11}


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("NCT", (0, 1, 2)),
        ("NTC", (0, 2, 1)),
        ("NHWC", (0, 3, 1, 2)),
        ("NCHW", (0, 1, 2, 3)),
        ("NWHC", (0, 3, 1, 2)),
        ("NTHWC", (0, 4, 1, 2, 3)),
        ("NTCHW", (0, 2, 1, 3, 4)),
        ("NDHWC", (0, 4, 1, 2, 3)),
    ],
)
def test_canonical_is_the_explicit_transpose(text, order):
    x = np.random.default_rng(0).random([SIZES[letter] for letter in text])
    canonical = Layout.parse(text).canonical(x)
    np.testing.assert_array_equal(canonical, x.transpose(order))
    assert np.shares_memory(canonical, x)


def test_a_channel_axis_is_added():
    x = np.random.default_rng(0).random((2, 6, 7))
    np.testing.assert_array_equal(Layout.parse("NHW").canonical(x), x[:, None])


@given(st.permutations(sorted(NAMES)), st.integers(1, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_every_layout_goes_there_and_back(letters, rank, place, samples, channels):
    spatial = "".join(letters[:rank])
    place = min(place, rank)
    inner = spatial[:place] + "C" * channels + spatial[place:]
    layout = Layout.parse("N" * samples + inner)
    assert (layout.spatial, layout.rank) == (spatial, rank)
    x = np.arange(np.prod([SIZES[letter] for letter in "N" + inner])).reshape([SIZES[letter] for letter in "N" + inner])
    canonical = layout.canonical(x)
    assert canonical.shape == (2, 3 if channels else 1, *(SIZES[letter] for letter in spatial))
    back = np.moveaxis(canonical, 1, 1 + place) if channels else canonical[:, 0]
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("text", ["", "N", "NC", "NCTT", "CNT", "NCQ", "NHWCN"])
def test_what_is_no_layout_is_refused_in_one_line_with_an_example(text):
    with pytest.raises(RequestError, match="NHWC") as error:
        Layout.parse(text)
    assert "\n" not in str(error.value)


def test_small_letters_and_an_understood_n():
    assert Layout.parse("nct") == Layout.parse("NCT") == Layout.parse("CT")
