"""The names of SIGN-XAI's methods, as expressions."""

from __future__ import annotations

import re

_NUMBER = r"(?:neg_)?\d+(?:_\d+)?"
_BASES = {
    "gradient": "grad",
    "guided_backprop": "guided",
    "smoothgrad": "smoothgrad:n=50,sd=0.2",
    "deconvnet": "deconv",
    "input_t_gradient": "grad+input",
    "gradient_x_input": "grad+input",
    "integrated_gradients": "ig:steps=50",
    "vargrad": "vargrad:n=50,sd=0.2",
    "grad_cam": "gradcam",
    "grad_cam_timeseries": "gradcam",
    "guided_grad_cam": "guided-gradcam",
}
_FIRST = {"lrp": "", "lrpsign": "@sign=0", "lrpz": "@z", "zblrp": "@zbox=caffe", "w2lrp": "@w2", "flatlrp": "@flat"}
_RULES = {
    "z": "z",
    f"epsilon_({_NUMBER})_std_x": "eps={}std",
    f"epsilon_({_NUMBER})": "eps={}",
    f"alpha_({_NUMBER})_beta_({_NUMBER})": "a{}b{}",
    "sequential_composite_a": "A",
    "sequential_composite_b": "B",
}


def expanded(name: str) -> str | None:
    """The expression that a name of SIGN-XAI stands for, the misspelt ones too; None where it is none."""
    name = re.sub(r"_VGG\d+ILSVRC$", "", name)
    if name in _BASES:
        return _BASES[name]
    if found := re.fullmatch(
        rf"(gradient|guided_backprop|smoothgrad|deconvnet)_x_sign(?:(_mu)(?:_({_NUMBER}))?)?", name
    ):
        base, against, mu = found.groups()
        return f"{_BASES[base]}+sign={_number(mu) if mu else 'mean' if against else 0}"
    if not (found := re.fullmatch(rf"({'|'.join(_FIRST)})_(.+?)(?:_mu_({_NUMBER}))?", name)):
        return None
    kind, rest, mu = found.groups()
    for form, rule in _RULES.items():
        if numbers := re.fullmatch(form, rest):
            first = f"@sign={_number(mu)}" if mu else _FIRST[kind]
            return f"lrp:{rule.format(*map(_number, numbers.groups()))}{first}"
    return None


def _number(text: str) -> str:
    """``neg_0_25`` is -0.25."""
    return text.replace("neg_", "-").replace("_", ".", 1)
