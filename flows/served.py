"""The model as MLflow serves it. This file is copied into each version and run from there (models from code).

It reads safetensors and JSON, imports `data` and `vae` and nothing of `flows`, and holds no trained state itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext


class SparseCodes(PythonModel):
    """Rows in; their sparse codes out, or the rows that the codes alone give back."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model that was logged beside this file."""
        from vae.frames import Wire
        from vae.store import load

        folder = Path(context.artifacts["model"])
        self.trained = load(folder)
        content = json.loads((folder.parent / "card" / "wire.json").read_text(encoding="utf-8"))
        self.wire = {name: Wire.model_validate(way) for name, way in content.items()}

    def conform(self, frame: pd.DataFrame) -> pd.DataFrame:
        """A frame as pandas read it, in the types of the signature: what MLflow's `predict` and the server take."""
        from vae import frames

        return frames.conform(frame, self.trained.schema.to_arrow(), self.wire)

    def request(self, frame: pd.DataFrame, params: dict[str, Any] | None = None) -> str:
        """The JSON to post to `/invocations` for a frame as pandas read it; every value arrives as it is."""
        from vae import frames

        return frames.request(frame, self.trained.schema.to_arrow(), self.wire, params)

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow passes it by name)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Codes (`row`, `indices`, `values`), or with `output: reconstructions` the columns rebuilt from them."""
        from vae import codes, frames

        output = (params or {}).get("output", "codes")
        if output not in {"codes", "reconstructions"}:
            raise ValueError(f"output {output!r}: expected 'codes' or 'reconstructions'")
        table = frames.table_of(model_input, self.trained.schema.to_arrow(), self.wire)
        dense = codes.encode_rows(self.trained, table)
        if output == "reconstructions":
            return codes.rows_from_codes(self.trained, dense).to_pandas()
        return codes.sparse_table(dense).to_pandas()


set_model(SparseCodes())
