"""Operators by the ONNX project's own tests: none is computed wrongly, few are refused, and those by their names."""

from __future__ import annotations

import pytest

pytest.importorskip("onnx")

from camsweep.tests.backends.onnx.conformance import Tally, cases, gradient, tried

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
EACH = 10
"""The gradient of one case in so many is tried where not all are."""


def tally(found) -> Tally:
    result = Tally()
    for case in found:
        outcome, why = tried(case)
        if outcome == "passed":
            result.passed.append(case.name)
        else:
            getattr(result, outcome)[case.name] = why
    return result


def bad_gradients(found) -> dict[str, str]:
    """Of cases whose forward is right."""
    outcomes = {case.name: gradient(case) for case in found if tried(case)[0] == "passed"}
    return {name: each for name, each in outcomes.items() if each not in ("ok", "none")}


def test_operators_compute_what_onnx_says(capsys):
    """With weights given as inputs, and as constants, which makes layers of them."""
    found = list(cases(*KINDS))
    fixed = [each for case in found if (each := case.with_constants())]
    for which in (found, fixed):
        result = tally(which)
        with capsys.disabled():
            print(f"\nconformance: {result}")
        assert not result.wrong
        assert result.share >= 0.955
        assert all("operators that are not imported: " in why for why in result.refused.values())
    assert len(found) > 1100
    assert not bad_gradients(found[::EACH])
    assert not bad_gradients(fixed[::EACH])


@pytest.mark.full
def test_all_gradients():
    found = list(cases(*KINDS))
    assert not bad_gradients(found)
    assert not bad_gradients(each for case in found if (each := case.with_constants()))
