"""``camsweep methods``: the registries of methods, factors and domains."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import emit, table
from .explain import Json

if TYPE_CHECKING:
    from ..core.domains.domain import Kind
    from ..core.keys import Key
    from ..core.methods import Method
    from ..core.methods.grammar import Term


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, or a whole expression such as grad+input or ig:domain=stft.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the methods, factors and domains with their formulas, or explain one method.

    Example: camsweep methods gradcam++
    """
    from ..core.domains import DOMAINS
    from ..core.methods import METHODS, parse_expression
    from ..core.methods.legacy import expanded
    from ..core.methods.registry import FACTORS, QUESTIONS

    if name is None:
        answer: dict[str, Any] = {
            "methods": [_entry(method) for method in METHODS.values()],
            "factors": [_entry(each) | {"name": f"+{each.name}"} for each in FACTORS.values()],
            "domains": [_domain(kind) for kind in DOMAINS.values()],
        }
        rows = [(m.name, m.family, m.cost, m.formula) for m in METHODS.values()]
        factors = [(f"+{each.name}", "factor", "nothing more", each.formula) for each in FACTORS.values()]
        letters = table(list(QUESTIONS.items()), ("letter", "is"))
        lines = [*table([*rows, *factors], ("method", "family", "cost", "formula")), "", *_domains(), "", *letters]
        emit(answer, lines, as_json=as_json)
        return
    expression = parse_expression(name)
    method = expression.method
    meant = expanded(name) if name not in METHODS else None
    lines = [
        f"{name} of SIGN-XAI is {expression}" if meant else str(expression),
        "",
        _plain(method.function),
        "",
        f"formula  {expression.formula}",
        f"source   {method.source}",
        f"cost     {method.cost}",
        f"units    {expression.units}",
        *_settings(expression),
    ]
    for each in expression.factors:
        about = _plain(each.method.function)
        lines += ["", f"+{each.method.name}", "", about, "", f"formula  {each.method.formula}", *_settings(each)]
    if any("domain" in term.settings for term in expression.terms) and expression.place is None:
        lines += ["", *_domains()]
    keys = {key: spec for term in expression.terms for key, spec in term.keys.items()}
    answer = _entry(method) | {"expression": str(expression), "keys": _takes(keys)}
    if expression.place and expression.place.name in DOMAINS:
        answer["domain"] = _domain(DOMAINS[expression.place.name])
    emit(answer, lines, as_json=as_json)


def _settings(term: Term) -> list[str]:
    """Its keys, those of its domain among them, and what the domain is."""
    from ..core.domains import DOMAINS
    from ..core.domains.own import Own

    takes = _takes(term.keys)
    rows = [(key, spec.show(term.settings[key]), takes[key]["takes"]) for key, spec in term.keys.items()]
    lines = ["", *table(rows, ("key", "value", "takes"))] if rows else []
    if term.domain:
        kind = DOMAINS.get(term.domain.name)
        lines += ["", f"domain={term.domain}", "", _plain(kind.build if kind else Own)]
        lines += ["", f"formula  {kind.formula}", f"source   {kind.source}"] if kind else []
    return lines


def _domains() -> list[str]:
    from ..core.domains import DOMAINS

    rows = [(kind.name, kind.formula, " ".join(kind.keys)) for kind in DOMAINS.values()]
    return table([*rows, ("FILE.py:CLASS", "your own", "")], ("domain", "formula", "keys"))


def _plain(documented: Any) -> str:
    return (inspect.getdoc(documented) or "").replace("``", "")


def _takes(keys: Any) -> dict[str, dict[str, Any]]:
    return {key: {"default": spec.default, "takes": _expects(key, spec)} for key, spec in keys.items()}


def _expects(key: str, spec: Key) -> str:
    return "a domain, or FILE.py:CLASS" if key == "domain" else spec.expects


def _domain(kind: Kind) -> dict[str, Any]:
    return {"name": kind.name, "formula": kind.formula, "source": kind.source, "keys": _takes(kind.keys)}


def _entry(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "family": method.family,
        "formula": method.formula,
        "source": method.source,
        "summary": method.summary,
        "asks": list(method.asks),
        "cost": method.cost,
        "units": method.units,
        "keys": _takes(method.keys),
    }
