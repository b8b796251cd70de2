"""The users' domains, and single samples that they or the data fail on."""

import numpy as np
import pytest

from camsweep.core.results import Status

from .small_runs import LENGTH, METHODS, everything, found_by, near, run, signals, smooth

MOODY = """
class Picky:
    axes = [("place", "")]

    def forward(self, x):
        if (x[:, 0, 0] > 50).any():
            raise ValueError("I do not like\\nthis one")
        return x.flip(-1)

    def inverse(self, z):
        return z.flip(-1)


class Lossy(Picky):
    def forward(self, x):
        return x.clamp(max=50)

    def inverse(self, z):
        return z


class Bent(Lossy):
    def forward(self, x):
        return x.where(x < 50, x * x)

    def inverse(self, z):
        return z.where(z < 50, z.clamp(min=1).sqrt())


class Coarse(Picky):
    '''Loses what is small.'''

    def forward(self, x):
        return x.where(x.abs() > 1e-3, 0)

    def inverse(self, z):
        return z


def short(x):
    return {"part": x[..., 1:] if (x[:, 0, 0] > 50).any() else x / 2}


def turned(x):
    parts = {"third": x / 3, "half": x / 2}
    return dict(reversed(parts.items())) if (x[:, 0, 0] > 50).any() else parts
"""


@pytest.fixture
def moody(tmp_path):
    (tmp_path / "moody.py").write_text(MOODY)
    return f"{tmp_path}/moody.py"


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ("MOODY:Picky", "ValueError: I do not like"),
        ("MOODY:Lossy", "ValueError: domain Lossy: inverse(forward(x)) is off x by"),
        ("MOODY:Bent", "ValueError: domain Bent is not linear"),
        ("parts,of=MOODY:short", "short must give a dict of tensors"),
    ],
)
def test_a_sample_that_the_users_code_fails_on_is_one_row(tmp_path, moody, domain, message):
    x = signals(9)
    x[5, 0, 0] = 60
    asked = ["ig:steps=3,domain=" + domain.replace("MOODY", moody), "ig:steps=3", "occlusion:window=6"]
    with run(tmp_path, smooth(), x, asked, batch_size=4) as results:
        assert results.counts() == {"ok": 8, "failed": 1}
        assert message in results.messages[5]
        found = everything(results)
    x[5] = 1
    for key, values in found_by(tmp_path, smooth(), x, asked, name="good.h5", batch_size=4).items():
        near(np.delete(found[key], 5, 0), np.delete(values, 5, 0), floor=float(key[1] == "residual"))
        assert np.isnan(found[key][5]).all()


def test_whether_a_sample_comes_back_does_not_depend_on_the_batch(tmp_path, moody):
    x = signals(4) + 3 * np.sign(signals(4))
    x[2] *= 1e-4  # all of it is lost; beside the others that is little
    statuses = []
    for size in (1, 4):
        with run(tmp_path, smooth(), x, [f"ig:domain={moody}:Coarse"], batch_size=size, name=f"{size}.h5") as results:
            statuses.append(results.status.tolist())
    assert statuses[0] == [Status.OK, Status.OK, Status.FAILED, Status.OK]
    assert statuses[1] == statuses[0]


def test_parts_are_told_by_their_names(tmp_path, moody):
    x = signals(3)
    x[1, 0, 0] = 60
    method = f"ig:domain=parts,of={moody}:turned"
    with run(tmp_path, smooth(), x, [method, "ig"], batch_size=1) as results:
        view = results.map("ig:domain=parts,of=moody.py:turned")
        assert view.axes[0].labels == ("third", "half", "rest")
        near(view.signals(), x[:, None] * np.array([1 / 3, 1 / 2, 1 / 6]).reshape(1, 3, 1, 1), 1e-6)
        near(view.read(), results.map("ig").read().sum(-1)[..., None] * [1 / 3, 1 / 2, 1 / 6], 1e-6)


def test_a_sick_sample_leaves_its_neighbours_as_they_are(tmp_path):
    methods = [m for m in METHODS if "mean" not in m and "dataset" not in m and "item" not in m]
    x = signals(5)
    clean = found_by(tmp_path, smooth(), x, methods, batch_size=4, name="clean.h5")
    x[2, 1, 5] = np.nan
    with run(tmp_path, smooth(), x, methods, batch_size=4) as results:
        assert results.counts() == {"ok": 4, "non finite": 1}
        assert results.messages[2] == "input has 1 NaN or infinite values"
        for key, values in everything(results).items():
            near(np.delete(values, 2, 0), np.delete(clean[key], 2, 0), 1e-11, float(key[1] == "residual"))
            assert np.isnan(values[2]).all()


SHAPES = """
class Pairs:
    '''(channel, place, half).'''
    axes = [("place", "s"), ("half", "")]

    def forward(self, x):
        return x.unflatten(-1, (-1, 2))

    def inverse(self, z):
        return z.flatten(-2)


class Mixed:
    '''Sum and difference of the channels, which belong to no channel.'''
    per_channel = False
    axes = [("mode", ""), ("place", "s")]

    def forward(self, x):
        return x.new_tensor([[1, 1], [1, -1]]) @ x

    def inverse(self, z):
        return z.new_tensor([[1, 1], [1, -1]]) @ z / 2


class Flat:
    axes = [("place", "")]

    def forward(self, x):
        return x.flatten(1)

    def inverse(self, z):
        return z.unflatten(1, (2, -1))


class Bare:
    def forward(self, x):
        return x.flatten(1)

    def inverse(self, z):
        return z.unflatten(1, (2, -1))
"""


def test_the_users_domains_of_all_shapes(tmp_path):
    (tmp_path / "own.py").write_text(SHAPES)
    x = signals(3)
    names = ["Pairs", "Mixed", "Flat", "Bare"]
    with run(tmp_path, smooth(), x, ["ig", *(f"ig:domain={tmp_path}/own.py:{name}" for name in names)]) as results:
        plain = results.map("ig").read()
        views = {name: results.map(f"ig:domain=own.py:{name}") for name in names}
        told = {
            name: (view.per_channel, view.shape[2:], [(a.name, a.unit) for a in view.axes], view.layout)
            for name, view in views.items()
        }
        assert told == {
            "Pairs": (True, (2, 16, 2), [("place", "s"), ("half", "")], "image"),
            "Mixed": (False, (2, LENGTH), [("mode", ""), ("place", "s")], "image"),
            "Flat": (False, (2 * LENGTH,), [("place", "")], "lines"),
            "Bare": (False, (2 * LENGTH,), [("coefficient 1", "")], "lines"),
        }
        for name in ("Pairs", "Flat", "Bare"):
            near(views[name].read().reshape(plain.shape), plain)
        near(views["Mixed"].read().sum(2), plain.sum(2))
