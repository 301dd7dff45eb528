"""The model as MLflow serves it. This file is copied into each version and run from there (models from code).

It reads safetensors and JSON, imports `data` and `vae` and nothing of `flows`, and holds no trained state itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as _pc
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

pc: Any = _pc


class SparseCodes(PythonModel):
    """Rows in; their sparse codes out, or the rows that the codes alone give back."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model that was logged beside this file."""
        from vae.store import load

        folder = Path(context.artifacts["model"])
        self.trained = load(folder)
        self.wire: dict[str, dict[str, Any]] = json.loads(
            (folder.parent / "card" / "wire.json").read_text(encoding="utf-8")
        )

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002  (MLflow passes it by name)
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Codes (`row`, `indices`, `values`), or with `output: reconstructions` the columns rebuilt from them."""
        from vae import codes

        output = (params or {}).get("output", "codes")
        if output not in {"codes", "reconstructions"}:
            raise ValueError(f"output {output!r}: expected 'codes' or 'reconstructions'")
        table = table_of(model_input, self.trained.schema.to_arrow(), self.wire)
        dense = codes.encode_rows(self.trained, table)
        if output == "reconstructions":
            return codes.rows_from_codes(self.trained, dense).to_pandas()
        return codes.sparse_table(dense).to_pandas()


def table_of(frame: pd.DataFrame, schema: pa.Schema, wire: dict[str, dict[str, Any]]) -> pa.Table:
    """The frame as a table of the model's types; a column that is not there is null."""
    columns = []
    for field in schema:
        if field.name not in frame.columns or field.name not in wire:
            columns.append(pa.nulls(len(frame), field.type))
        else:
            columns.append(_typed(frame[field.name], field.type, wire[field.name], field.name))
    return pa.Table.from_arrays(columns, schema=schema)


def _typed(series: pd.Series, kind: pa.DataType, wire: dict[str, Any], name: str) -> pa.Array:
    try:
        if wire["type"] == "string" and not pa.types.is_string(kind):
            values = [
                None if missing else value for value, missing in zip(series, pd.isna(series), strict=True)
            ]
            texts = pa.array(
                [value if value is None or isinstance(value, str) else str(value) for value in values],
                pa.string(),
            )
            return _parsed(texts, kind)
        return pa.array(series, from_pandas=not wire["nan"]).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise ValueError(f"column {name!r}: {' '.join(str(error).split())}") from error


def _parsed(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # Arrow reads either only texts with an offset or only texts without: say UTC where nothing is said.
        has_zone = pc.match_substring_regex(texts, r"(Z|[+-]\d\d:?\d\d)$")
        texts = pc.if_else(has_zone, texts, pc.binary_join_element_wise(texts, "Z", ""))
    return texts.cast(kind)


set_model(SparseCodes())
