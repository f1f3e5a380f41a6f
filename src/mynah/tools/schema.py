"""From a Python signature and docstring to the JSON schema that a model sees, and back to Python values."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from mynah.errors import ToolError

_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Return|Raises|Yields|Examples?|Notes?):\s*$")
_ARGUMENT = re.compile(r"^\*{0,2}(\w+)\s*(?:\([^)]*\))?:\s*(.*)$")


class _Arguments(BaseModel):
    """Base of the models that hold one function's arguments."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class Signature:
    """The parameters of a function that a model fills in.

    Parameters annotated with ``hidden`` are found too (`hidden_names`), but never shown. Raises TypeError
    when a parameter cannot be described to a model.
    """

    def __init__(self, function: Callable[..., Any], hidden: type) -> None:
        self.description, described = read_docstring(inspect.getdoc(function) or "")
        self.hidden_names: tuple[str, ...] = ()
        hints = typing.get_type_hints(function, include_extras=True)
        fields: dict[str, Any] = {}
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
                raise TypeError(f"{function.__name__}: '{name}' cannot be filled in by name")
            # A parameter without a type is taken for text, the commonest.
            hint = hints.get(name, str)
            if hint is hidden:
                self.hidden_names += (name,)
                continue
            default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
            fields[name] = (hint, FieldInfo(default=default, description=described.get(name)))
        try:
            self._model: type[_Arguments] = create_model(function.__name__, __base__=_Arguments, **fields)
            self.parameters: dict[str, Any] = simplify(self._model.model_json_schema())
        except (PydanticSchemaGenerationError, PydanticUserError, NameError) as error:
            raise TypeError(f"{function.__name__}: {error}") from None

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``arguments`` as Python values (enums, lists …), defaults filled in. Raises ToolError."""
        try:
            bound = self._model.model_validate(dict(arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ToolError(f"argument '{where}': {first['msg']}") from None
        return {name: getattr(bound, name) for name in type(bound).model_fields}


def simplify(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without references, titles and unions: small models read only the plain part."""
    definitions = schema.get("$defs", {})

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[-1]]
            # An enum's own docstring says less than the parameter's description.
            node = {**{k: v for k, v in target.items() if k != "description"}, **_without(node, "$ref")}
        if "const" in node:
            node = {**_without(node, "const"), "enum": [node["const"]]}
        if "anyOf" in node:
            node = _merge_union(node, plain)
        result: dict[str, Any] = {}
        for key, value in node.items():
            if key == "properties":
                result[key] = {name: plain(inner) for name, inner in value.items()}
            elif key not in {"title", "$defs"} and not (key == "default" and value is None):
                result[key] = plain(value)
        return result

    found = plain(schema)
    found.pop("description", None)
    return {"type": "object", "properties": {}, **found}


def _without(node: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in node.items() if k != key}


def _merge_union(node: Mapping[str, Any], plain: Callable[[Any], Any]) -> dict[str, Any]:
    """Turn ``anyOf`` into a list of types; what belongs to one of them (items, enum) stays beside it."""
    merged = _without(node, "anyOf")
    kinds: list[str] = []
    for option in (plain(option) for option in node["anyOf"]):
        kinds += [option["type"]] if isinstance(option.get("type"), str) else option.get("type", [])
        merged = {**_without(option, "type"), **merged}
    merged["type"] = kinds[0] if len(kinds) == 1 else kinds
    if "null" in kinds and isinstance(merged.get("enum"), list):
        # "Not given" is said by leaving the argument out; a null among the choices only confuses.
        merged["type"] = next(kind for kind in kinds if kind != "null")
    return merged


def read_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """Split a Google-style docstring into its description and what it says about each argument."""
    section = ""
    description: list[str] = []
    arguments: dict[str, str] = {}
    current, margin = "", 0
    for line in docstring.splitlines():
        stripped = line.strip()
        heading = _SECTION.match(stripped) if line[:1].strip() else None
        if heading:
            section = heading[1]
        elif not section:
            description.append(stripped)
        elif section in {"Args", "Arguments", "Parameters"} and stripped:
            indent = len(line) - len(line.lstrip())
            entry = _ARGUMENT.match(stripped) if not current or indent <= margin else None
            if entry:
                current, margin = entry[1], indent
                arguments[current] = entry[2]
            elif current:
                arguments[current] = f"{arguments[current]} {stripped}".strip()
    paragraphs = "\n".join(description).strip().split("\n\n")
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).strip(), arguments
