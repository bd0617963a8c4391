"""`make schema`: the JSON schema of configurations for editors, from `wmhlib.settings` and the registries."""

from wmhlib.running import light  # noqa: F401, I001  Keras without TensorFlow

# isort: split
import json
from typing import Any

from pydantic import TypeAdapter

from wmhlib import features, settings
from wmhlib.augmentations import AUGMENTATIONS, amount
from wmhlib.losses import LOSSES


def schema() -> dict:
    """The schema of a configuration. No key is required, since a file with a `base` has only the differences."""
    whole = settings.Configuration.model_json_schema()
    whole["properties"] |= {"augmentation": augmentations(), "base": {"type": "string"}}
    whole["properties"]["losses"]["additionalProperties"] = {"anyOf": [{"type": "null"}, *map(entry, LOSSES)]}
    whole["properties"]["losses"].pop("patternProperties", None)
    return optional(whole)


def augmentations() -> dict:
    """The schema of augmentations, with the limits of their amounts."""
    known = {name: TypeAdapter(amount(name)).json_schema() for name in AUGMENTATIONS}
    return {"type": "object", "properties": known, "additionalProperties": False}


def entry(loss: str) -> dict:
    """The schema of an entry below `losses` for this loss: overrides of the study's settings, and its own settings."""
    shared = {
        "loss": {"const": loss},
        "labels": TypeAdapter(settings.Labels).json_schema(),
        "view": TypeAdapter(settings.View).json_schema(),
        "intensity": TypeAdapter(settings.Intensity).json_schema(),
        "without": {
            "type": ["string", "array"],
            "items": {"type": "string"},
            "description": "centres to exclude from training",
        },
        "augmentation": augmentations(),
        "training": settings.Training.model_json_schema(),
        "generator": settings.Generator.model_json_schema(),
    }
    own = settings.model_of(LOSSES[loss]).model_json_schema()["properties"]
    own |= (
        settings.model_of(features.chosen).model_json_schema()["properties"] if LOSSES[loss].looks_at_features() else {}
    )
    return {"title": LOSSES[loss].title, "type": "object", "properties": shared | own, "additionalProperties": False}


def optional(schema: Any) -> Any:
    """The schema with all keys optional."""
    if isinstance(schema, list):
        return [optional(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: optional(value) for key, value in schema.items() if not (key == "required" and isinstance(value, list))
    }


if __name__ == "__main__":
    print(json.dumps(schema(), indent=2))
