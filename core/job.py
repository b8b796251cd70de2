"""The job: what is explained, how, and where to. A TOML file and flags, validated into one closed, typed model."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from .backend import Precision
from .data import DataSection
from .data.section import located
from .durations import Seconds
from .errors import OutputError, RequestError, nearest
from .keys import located as method_located
from .methods import METHODS, Expression, parse_expression
from .methods.legacy import expanded
from .outputs import Score
from .targets import Target, parse_target
from .targets import located as target_located


class Section(BaseModel):
    """A closed table: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(Section):
    """The checkpoint. ``source`` is code that builds the module, ``weights`` a file it is given."""

    backend: str | None = None
    source: str | None = None
    weights: str | None = None
    args: dict[str, Any] = {}
    output: str | None = None
    """Which of several outputs is explained: a dict's key, a tuple's place."""
    tokens: str | None = None
    """How tokens become a grid, ``prefix=1,grid=14x14``, or where the channels are, ``channels=last``."""
    trust_checkpoint: bool = False
    native: bool = False
    """Whether a Keras model or a SavedModel runs in TensorFlow itself, an ONNX graph in onnxruntime."""


def _batch(value: Any) -> Any:
    if value == "auto":
        return value
    try:
        size = int(value) if not isinstance(value, bool | float) else 0
    except (TypeError, ValueError):
        size = 0
    if size < 1:
        raise PydanticCustomError("batch_size", "input should be a whole number greater than 0, or auto")
    return size


class ExplainSection(Section):
    """What is asked of the model."""

    methods: list[str] = Field(["gradcam"], min_length=1)
    layers: list[str] = Field(["auto"], min_length=1)
    targets: list[str] = Field(["predicted"], min_length=1)
    score: Score = "logit"
    activation: Literal["auto", "softmax", "sigmoid", "none"] = "auto"
    """What turns logits into probabilities."""
    batch_size: Annotated[int | Literal["auto"], PlainValidator(_batch)] = 32
    """``auto`` finds it on the first samples."""
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    """Of this process, for computing; by what the process was given where it is not said."""
    workers: int | None = Field(None, ge=1)
    """Threads that read ahead."""
    channels_last: bool | None = None
    compile: bool = False
    """Whether forwards for outputs alone go through the framework's compiler."""
    precision: Precision = "float32"
    """What the model computes in, where the framework can; maps are stored as ever."""
    tune: bool = False
    """Whether threads, memory layout and batch size are tried out first."""
    seed: int = Field(0, ge=0)
    strict: bool = False
    """Whether a model with operators that have no rule of relevance is refused."""
    time_budget: Seconds | None = Field(None, gt=0)
    """How long a run may take; it stops by itself before that, and the same job goes on."""

    @property
    def block(self) -> int:
        """The batch size, or what stands for it where it is found on the way: shards are dealt out by it."""
        return 32 if self.batch_size == "auto" else self.batch_size

    @property
    def expressions(self) -> list[Expression]:
        """The methods, parsed, each meaning once."""
        found: dict[str, Expression] = {}
        for each in map(parse_expression, self.methods):
            if found.setdefault(str(each), each) != each:
                raise RequestError(f"{each} is given twice with different files of one name; rename one of them")
        return list(found.values())

    @property
    def renamed(self) -> dict[str, str]:
        """The methods given by their names in SIGN-XAI, and what they are here."""
        return {each: str(parse_expression(each)) for each in self.methods if expanded(each) and each not in METHODS}

    @property
    def parsed_targets(self) -> list[Target]:
        """The targets, parsed, each once."""
        return list(dict.fromkeys(map(parse_target, self.targets)))


COMPRESSIONS = ("auto", "none", "lzf", *(f"gzip:{level}" for level in range(1, 10)))


class OutputSection(Section):
    """Where the results go, and in what form."""

    path: Path = Path("camsweep.h5")
    resolution: Literal["input", "layer"] = "input"
    dtype: Literal["float32", "float16", "float64"] = "float32"
    inputs: Literal["link", "copy"] = "link"
    commit_every: Seconds = Field(1.0, ge=0)
    """Seconds of work that are committed at once, and at most done again after a kill; 0 commits every batch."""
    render: bool = False
    compression: str = "auto"
    """``none``, ``gzip:1`` to ``gzip:9``, ``lzf``, or ``auto``: gzip:1 where it saves anything."""
    shards: int | None = Field(None, ge=1)
    """Into how many shares the run is split, for array jobs."""

    @field_validator("compression")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in COMPRESSIONS:
            raise ValueError("expected auto, none, lzf or gzip:1 to gzip:9")
        return value

    @property
    def compute_dtype(self) -> str:
        """What the model runs in."""
        return "float64" if self.dtype == "float64" else "float32"


class Job(Section):
    """A whole job."""

    model: ModelSection
    data: DataSection
    explain: ExplainSection = ExplainSection()
    output: OutputSection = OutputSection()

    @classmethod
    def load(cls, path: Path | None, flags: Mapping[str, Mapping[str, Any]], base: Path | None = None) -> Job:
        """From a TOML file, its relative paths taken from its folder, and flags, theirs from ``base`` (the working
        folder), which override it. `RequestError` names the key that is wrong.
        """
        here = base or Path.cwd()
        given = cls._absolute(_read(path), path.resolve().parent) if path else {}
        for section, values in cls._absolute(flags, here).items():
            if isinstance(given.setdefault(section, {}), dict):  # what is no table is told below
                given[section] = {**given[section], **values}
        given.setdefault("model", {})
        given.setdefault("data", {})
        try:
            job = cls.model_validate(given)
        except ValidationError as error:
            raise RequestError(_one_line(error, cls)) from None
        if job.model.source is None and job.model.weights is None:
            raise RequestError("no model given: write --model FILE.py:CLASS --weights FILE, or [model] in a job file")
        output = job.output.model_copy(update={"path": here / job.output.path})
        job = job.model_copy(update={"output": output})
        job.explain.expressions, job.explain.parsed_targets  # noqa: B018  (raises where one cannot be read)
        return job

    @classmethod
    def _absolute(cls, tables: Mapping[str, Any], base: Path) -> dict[str, dict[str, Any]]:
        """The tables with relative paths taken from ``base``."""
        result = {}
        for name, table in tables.items():
            if name == "model" and isinstance(table, str):
                table = {"source" if ":" in table else "weights": table}
            if isinstance(table, Mapping):
                table = located(table, base) if name == "data" else dict(table)
                if name == "model" and table.get("source") == "":  # a checkpoint takes the place of code and weights
                    table |= {"source": None, "args": {}}
                if name == "model" and isinstance(table.get("weights"), str):
                    table["weights"] = str(base / table["weights"])
                if name == "model" and str(table.get("source") or "").rpartition(":")[0].endswith(".py"):
                    table["source"] = str(base / table["source"])
                if name == "explain" and isinstance(table.get("targets"), list):
                    table["targets"] = [target_located(t, base) if isinstance(t, str) else t for t in table["targets"]]
                if name == "explain" and isinstance(table.get("methods"), list):
                    table["methods"] = [method_located(m, base) if isinstance(m, str) else m for m in table["methods"]]
                if name == "output" and isinstance(table.get("path"), str):
                    if table["path"].endswith("/"):
                        raise OutputError(f"output {table['path']} is a folder; give a file name with --out")
                    table["path"] = str(base / table["path"])
            result[name] = table
        return result

    def toml(self) -> str:
        """The job as a file that `load` reads back."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))

    @property
    def identity(self) -> dict[str, Any]:
        """What the numbers depend on. Two jobs are the same where this is, wherever their files lie."""
        output = self.output
        return {
            "model.source": None if self.model.source is None else Path(self.model.source).name,
            "model.args": self.model.args,
            "model.output": self.model.output,
            "model.tokens": self.model.tokens,
            "data": self.data.model_dump(mode="json", exclude={"path", "manifest", "mask", "boxes"}),
            "explain.methods": [str(e) for e in self.explain.expressions],
            "explain.layers": self.explain.layers,
            "explain.targets": [str(t) for t in self.explain.parsed_targets],
            "explain.score": self.explain.score,
            "explain.activation": self.explain.activation,
            "explain.seed": self.explain.seed,
            "output.resolution": output.resolution,
            "output.dtype": output.dtype,
            "output.inputs": output.inputs,
            **({} if (precision := self.explain.precision) == "float32" else {"explain.precision": precision}),
        }


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """The keys of two identities that differ."""
    return [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        beside = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise RequestError(f"job file not found: {path}. {nearest(path.name, beside)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise RequestError(f"job file {path} cannot be read: {error.strerror}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of a job, with the nearest name for an unknown key."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        *tables, key = map(str, first["loc"])
        for table in tables:
            field = model.model_fields.get(table)
            if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
                break
            model = field.annotation
        return f"unknown key {where}. {nearest(key, model.model_fields)}"
    if first["type"] == "missing":
        flag = " (or --data PATH)" if where == "data.path" else ""
        return f"{where} is missing: write it in the job file{flag}"
    given = repr(first["input"])
    given = given if len(given) <= 80 else f"{given[:80]}.."
    return f"{where}: {given} given; {first['msg'][0].lower()}{first['msg'][1:]}"
