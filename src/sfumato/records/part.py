"""What every record is made of: the base of its parts, and bounds that several records share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Part(BaseModel):
    """A frozen part of a record: unknown names, other types and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""A sha256."""
Scale = Annotated[float, Field(ge=-1e6, le=1e6)]
"""How strongly pictures are guided."""
MOST = 100_000
"""The most pictures that one record accounts for."""
