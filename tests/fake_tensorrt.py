"""A stand-in of the module `tensorrt`, which notes what it is told and builds nothing.

Its names are those of the real bindings: tests/integration/test_tensorrt_api.py holds the calls
against them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

PLAN = b"a plan"
TIMES = b"measured times"


class ILogger:
    Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    def __init__(self) -> None:
        pass


@dataclass
class FakeTensorrt:
    parses: bool = True
    builds: bool = True
    told: list[tuple[Any, ...]] = field(default_factory=list)
    """In order."""

    __version__ = "10.5.0"
    ILogger = ILogger
    Dims = tuple
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    BuilderFlag = SimpleNamespace(TF32="TF32")

    def Builder(self, logger: Any) -> _Builder:  # noqa: N802
        return _Builder(self, logger)

    def OnnxParser(self, network: Any, logger: Any) -> _Parser:  # noqa: N802
        return _Parser(self, logger)


@dataclass
class _Builder:
    fake: FakeTensorrt
    logger: Any

    def create_network(self, flags: int) -> str:
        self.fake.told.append(("network", flags))
        return "network"

    def create_builder_config(self) -> _Config:
        return _Config(self.fake)

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shapes: self.fake.told.append(("shape", *shapes)))

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        if not self.fake.builds:
            self.logger.log(ILogger.Severity.ERROR, "no kernel for Attention")
            self.logger.log(ILogger.Severity.WARNING, "slow")
            return None
        self.fake.told.append(("built",))
        return PLAN


@dataclass
class _Config:
    fake: FakeTensorrt

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.fake.told.append((pool, size))

    def clear_flag(self, flag: str) -> None:
        self.fake.told.append(("cleared", flag))

    def add_optimization_profile(self, profile: Any) -> None:
        self.fake.told.append(("profile",))

    def create_timing_cache(self, known: bytes) -> Any:
        self.fake.told.append(("known times", known))
        return SimpleNamespace(serialize=lambda: TIMES)

    def set_timing_cache(self, cache: Any, *, ignore_mismatch: bool) -> None:
        self.fake.told.append(("cache", ignore_mismatch))


@dataclass
class _Parser:
    fake: FakeTensorrt
    logger: Any

    def parse_from_file(self, path: str) -> bool:
        self.fake.told.append(("parsed", path))
        if not self.fake.parses:
            self.logger.log(ILogger.Severity.ERROR, "unsupported operator Unique")
        return self.fake.parses
