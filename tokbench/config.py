"""Cards: the YAML declarations of tokenizers, tasks, judges, datasets and suites.

A card is a pydantic model that forbids unknown fields; `tokbench.card_files` reads one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from tokbench.errors import UserError
from tokbench.streams import Capability, GlobalSpec, Role, StreamSpec

__all__ = [
    "AnyCard",
    "Card",
    "DatasetCard",
    "EnvironmentDecl",
    "GlobalDecl",
    "JudgeCard",
    "SourceDecl",
    "StreamDecl",
    "SuiteCard",
    "TaskCard",
    "TokenizerCard",
    "Weights",
]


def _fraction(value: object) -> Fraction:
    if isinstance(value, float):
        raise ValueError('write a non-integer rate as a fraction, for instance "25/2"')  # noqa: TRY004
    if isinstance(value, int | str | Fraction):
        return Fraction(value)
    raise ValueError("must be an integer or a fraction in quotes")


Rate = Annotated[Fraction, BeforeValidator(_fraction), PlainSerializer(str, return_type=str)]
"""A rate in Hz, exact: `50` or `"22050/1024"`."""


class Strict(BaseModel):
    """Base of everything read from a card: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Card(Strict):
    """What every card has."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    summary: str
    """One sentence for `tokbench list`."""
    notes: tuple[str, ...] = ()
    """What a reader must know before trusting a number."""
    requires: str | None = None
    """The extra of `pip install "tokbench[...]"` that brings what it needs beyond the core."""
    url: str | None = None
    citation: str | None = None


class Weights(Strict):
    """Where pretrained weights come from, and how they are recognised."""

    source: Literal["package", "hub", "file", "repository"]
    """`package`: inside an installed package; `hub`: Hugging Face; `file`: an address; `repository`: in tokbench."""
    location: str
    """Package name, hub repository id, address, or path inside tokbench."""
    revision: str | None = None
    files: dict[str, str] = {}
    """File name -> sha256, empty string where it is not known."""
    fallback: str | None = None
    """Hub repository with the original, used when the package is absent."""
    licence: str
    licence_url: str | None = None


class StreamDecl(Strict):
    """A stream as written on a card; `spec` is the value used by code."""

    name: str
    kind: Literal["codes", "latent"] = "codes"
    rate_hz: Rate
    vocab: int | None = Field(default=None, gt=0)
    dim: int | None = Field(default=None, gt=0)
    role: Role = "mixed"
    levels: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _complete(self) -> StreamDecl:
        if self.kind == "codes" and self.vocab is None:
            raise ValueError("a stream of codes needs 'vocab'")
        if self.kind == "latent" and self.dim is None:
            raise ValueError("a latent stream needs 'dim'")
        return self

    @property
    def spec(self) -> StreamSpec:
        """The stream as a plain value."""
        return StreamSpec(self.name, self.kind, self.rate_hz, self.vocab, self.dim, self.role, self.levels)


def _stack(entry: object) -> list[object]:
    """The streams that one entry declares: `books: K` makes K of them, called by the entry's name and 0 to K-1.

    `first_role` is the role of book 0 where it differs from the others'.
    """
    if not isinstance(entry, dict) or "books" not in entry:
        return [entry]
    rest = {key: value for key, value in entry.items() if key not in ("books", "first_role")}
    try:
        books = int(entry["books"])
    except (TypeError, ValueError):
        raise ValueError(f"'books' must be a number, is '{entry['books']}'") from None
    if books < 1:
        raise ValueError("'books' must be at least 1")
    first = {"role": entry["first_role"]} if "first_role" in entry else {}
    return [rest | {"name": f"{entry.get('name', '')}{i}"} | (first if i == 0 else {}) for i in range(books)]


class GlobalDecl(Strict):
    """A per-utterance vector as written on a card."""

    name: str
    dim: int = Field(gt=0)
    bits_per_dim: int = Field(default=16, gt=0)

    @property
    def spec(self) -> GlobalSpec:
        """The global as a plain value."""
        return GlobalSpec(self.name, self.dim, self.bits_per_dim)


class SourceDecl(Strict):
    """A checkout that a family without a package is imported from."""

    url: str
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    needs: tuple[str, ...] = ()
    """Paths that a checkout must hold, to recognise a wrong one."""


class EnvironmentDecl(Strict):
    """What a tokenizer runs in where its libraries do not fit beside ours; `tokbench env make` makes it."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._]*$")
    """Cards of one family share an environment by name."""
    python: str = Field(pattern=r"^3\.\d+$")
    requirements: tuple[str, ...] = ()
    """As pip takes them, pinned."""
    constraints: tuple[str, ...] = ()
    """Pins of what the requirements bring along."""
    source: SourceDecl | None = None
    imports: tuple[str, ...] = ()
    """Modules whose import shows that the environment works."""
    start_limit_s: float = Field(default=900.0, gt=0)
    """Seconds that loading may take."""
    item_limit_s: float = Field(default=600.0, gt=0)
    """Seconds that one utterance may take."""
    silence_limit_s: float = Field(default=120.0, gt=0)
    """Seconds without a heartbeat, after which the worker counts as hung."""


class TokenizerCard(Card):
    """A tokenizer: the adapter, its parameters, and everything a table needs to know without loading it."""

    adapter: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:Class` of the adapter, a subclass of `tokbench.tokenizers.base.Tokenizer`."""
    family: str
    """For grouping in lists and tables, for instance "k-means units"."""
    capabilities: tuple[Capability, ...]
    streams: tuple[StreamDecl, ...]
    globals: tuple[GlobalDecl, ...] = ()
    input_rate: int = Field(gt=0)
    output_rate: int | None = Field(default=None, gt=0)
    """None: encode-only."""
    batching: Literal["none", "equal-length", "masked"] = "none"
    max_seconds: float | None = None
    """Longer input is refused by the adapter; None: any length."""
    min_samples: int = Field(default=1, ge=1)
    """Shorter input is padded with zeros."""
    deterministic: bool = True
    causal: bool = False
    anchor: Literal["ceiling", "floor"] | None = None
    """Anchors frame the table and take no part in the ranking."""
    decoder: str | None = None
    """One sentence on what turns tokens into audio."""
    parameters: int | None = None
    """Number of weights, None where there are none."""
    weights: Weights | None = None
    environment: EnvironmentDecl | None = None
    """None: it runs in tokbench's own process."""
    trained_on: tuple[str, ...] = ()
    """Datasets it has seen; an evaluation on one of them is marked as contaminated."""
    languages: tuple[str, ...] = ()
    licence: str
    params: dict[str, Any] = {}
    """Read by the adapter alone."""
    proven: str | None = None
    """What has been shown about this port, how, and what only a real checkpoint can show."""

    @field_validator("streams", mode="before")
    @classmethod
    def _stacks(cls, value: object) -> object:
        return [made for entry in value for made in _stack(entry)] if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _consistent(self) -> TokenizerCard:
        if ("decode" in self.capabilities) != (self.output_rate is not None):
            raise ValueError("'output_rate' must be given exactly where 'decode' is a capability")
        kinds = {stream.kind for stream in self.streams}
        wanted = ({"discrete"} if "codes" in kinds else set()) | ({"continuous"} if "latent" in kinds else set())
        if set(self.capabilities) & {"discrete", "continuous"} != wanted:
            raise ValueError(
                f"capabilities must contain exactly {sorted(wanted)} of discrete and continuous, as the streams are"
            )
        if "swap_global" in self.capabilities and not self.globals:
            raise ValueError("'swap_global' needs at least one entry in 'globals'")
        return self

    @property
    def stream_specs(self) -> tuple[StreamSpec, ...]:
        """The streams as plain values."""
        return tuple(stream.spec for stream in self.streams)

    @property
    def global_specs(self) -> tuple[GlobalSpec, ...]:
        """The globals as plain values."""
        return tuple(entry.spec for entry in self.globals)


class JudgeCard(Card):
    """A judge; its name is the label inside metric names."""

    kind: Literal["asr", "speaker", "mos", "pitch"]
    adapter: str = Field(pattern=r"^[\w.]+:\w+$")
    input_rate: int = Field(gt=0)
    weights: Weights | None = None
    licence: str
    params: dict[str, Any] = {}


class Archive(Strict):
    """One official download of a corpus."""

    url: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$|^$")
    """Empty where no official sha256 is known; then `md5` must be given."""
    md5: str | None = None
    size: int | None = None
    split: str


class DatasetCard(Card):
    """A corpus: its reader, its splits and where it is fetched."""

    reader: str
    """Name in `tokbench.data.readers.READERS`."""
    location: str | None = None
    """Folder inside the package for an embedded corpus; None where the user names the folder."""
    splits: tuple[str, ...] = ()
    archives: tuple[Archive, ...] = ()
    language: str = "en"
    synthetic: bool = False
    """Synthetic speech: every page that shows it says so."""
    licence: str
    params: dict[str, Any] = {}


class TaskCard(Card):
    """A task: protocol, data, judges, metrics, seeds."""

    title: str
    protocol: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:Class` of the protocol."""
    version: int = 1
    """Raised whenever numbers stop being comparable; results of different versions never share a column."""
    needs: tuple[Capability, ...] = ()
    """A tokenizer without one of these gets `NotApplicable`."""
    data: tuple[str, ...]
    judges: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    """Names in print order, without judges; empty: all that the protocol makes."""
    headline: tuple[str, ...] = ()
    """The few that go on the front page."""
    seeds: tuple[int, ...] = (0,)
    samples: int = 6
    """How many utterances are kept to listen to."""
    params: dict[str, Any] = {}


class SuiteCard(Card):
    """A suite: tasks with their settings, and the tokenizers that `--all-tokenizers` means."""

    title: str
    tasks: tuple[str, ...]
    tokenizers: tuple[str, ...]
    data: dict[str, tuple[str, ...]] = {}
    """Task -> datasets, where they differ from the task card's."""
    judges: dict[str, tuple[str, ...]] = {}
    """Task -> judges, where they differ from the task card's."""
    params: dict[str, dict[str, Any]] = {}
    """Task -> protocol parameters merged over the task card's."""
    folder: str | None = None
    """Environment variable with the folder that `{folder}` stands for in tokenizers and data."""
    holds: str = ""
    """What that folder must hold, for the message where it is missing."""

    def located(self, environment: Mapping[str, str]) -> SuiteCard:
        """The suite with its folder in place of `{folder}`.

        Raises:
            UserError: it needs a folder, and the variable names none.
        """
        if self.folder is None:
            return self
        place = Path(environment.get(self.folder, "")).expanduser()
        if not environment.get(self.folder) or not place.is_dir():
            said = f"'{place}' is no folder" if environment.get(self.folder) else "it is not set"
            raise UserError(
                f"the suite {self.name} needs a folder that {self.folder} names, and {said}",
                hint=f"Type: export {self.folder}=DIR, with {self.holds or 'its data'} in it",
            )
        root = str(place.absolute())

        def fill(texts: Iterable[str]) -> tuple[str, ...]:
            return tuple(text.replace("{folder}", root) for text in texts)

        return self.model_copy(
            update={
                "tokenizers": fill(self.tokenizers),
                "data": {task: fill(specs) for task, specs in self.data.items()},
            }
        )


AnyCard = TypeVar("AnyCard", bound=Card)
