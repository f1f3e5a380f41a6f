"""What every section of the settings is made of: the base class, the declaration of a field, kinds of text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

Effect = Literal["restart", "next session"]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


SecretText = Annotated[SecretStr, BeforeValidator(_as_text)]
"""A secret; a number in the file is taken as its digits."""
Text = Annotated[str, BeforeValidator(_as_text)]
"""Text; a number in the file is taken as its digits."""


def setting(description: str, *, unit: str = "", effect: Effect = "restart", **options: Any) -> Any:
    """Declare a field with what the reference documentation needs; ``options`` go to `pydantic.Field`."""
    return Field(description=description, json_schema_extra={"unit": unit, "effect": effect}, **options)


def is_placeholder(text: str) -> bool:
    """Say whether a value is a template's example (``你的…``, ``your-token1``), which means: not set."""
    lowered = text.strip().lower()
    return "你的" in text or lowered.startswith(("your_", "your-", "your ", "<your"))


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)
