"""``camsweep methods``: the registry."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from .console import emit, table
from .explain import Json


def methods(
    name: Annotated[str | None, typer.Argument(help="One method, or a whole expression such as grad+input.")] = None,
    as_json: Json = False,
) -> None:
    """List the methods with their formulas, or explain one.

    Example: camsweep methods gradcam++
    """
    from ..core.methods import METHODS, parse_expression
    from ..core.methods.registry import FACTORS, QUESTIONS

    if name is None:
        answer: dict[str, Any] = {
            "methods": [_entry(method) for method in METHODS.values()],
            "factors": [{"name": f"+{each.name}", "formula": each.formula} for each in FACTORS.values()],
        }
        rows = [(m.name, m.family, m.cost, m.formula) for m in METHODS.values()]
        factors = [(f"+{each.name}", "factor", "nothing more", each.formula) for each in FACTORS.values()]
        letters = table(list(QUESTIONS.items()), ("letter", "is"))
        lines = [*table([*rows, *factors], ("method", "family", "cost", "formula")), "", *letters]
        emit(answer, lines, as_json=as_json)
        return
    expression = parse_expression(name)
    method = expression.method
    keys = [(key, spec.show(expression.settings[key]), spec.expects) for key, spec in method.keys.items()]
    lines = [
        str(expression),
        "",
        (inspect.getdoc(method.function) or "").replace("``", ""),
        "",
        f"formula  {expression.formula}",
        f"source   {method.source}",
        f"cost     {method.cost}",
        f"units    {expression.units}",
        *(["", *table(keys, ("key", "value", "takes"))] if keys else []),
    ]
    emit(_entry(method) | {"expression": str(expression)}, lines, as_json=as_json)


def _entry(method: Any) -> dict[str, Any]:
    return {
        "name": method.name,
        "family": method.family,
        "formula": method.formula,
        "source": method.source,
        "summary": method.summary,
        "asks": list(method.asks),
        "cost": method.cost,
        "units": method.units,
        "keys": {key: {"default": spec.default, "takes": spec.expects} for key, spec in method.keys.items()},
    }
