"""Checkpoints for tests of real processes."""

import contextlib
import json
import pathlib
import tempfile

TINY = pathlib.Path(__file__).resolve().parents[2] / "Tests/Golden/tiny"


@contextlib.contextmanager
def checkpoint(name, pipeline_class, parent=TINY, **defaults):
    """A checkpoint of the tests as one of another class, for small images."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder, pipeline_class)
        folder.mkdir()
        for part in (parent / name).iterdir():
            if part.name not in ("model_index.json", "generation_defaults.json"):
                (folder / part.name).symlink_to(part.resolve())
        index = json.loads((parent / name / "model_index.json").read_text())
        index["_class_name"] = pipeline_class
        index.setdefault("processor", ["transformers", "Qwen2VLProcessor"])
        (folder / "model_index.json").write_text(json.dumps(index))
        areas = {"reference_area": 20736, "condition_area": 14400, "width": 96, "height": 64, "steps": 3}
        (folder / "generation_defaults.json").write_text(json.dumps({**areas, **defaults}))
        yield folder
