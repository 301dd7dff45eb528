"""What this project uses of pcodec, which carries no types of its own. Results are Any: callers say what they are."""

from typing import Any

from pcodec import standalone as standalone

class ChunkConfig:
    def __init__(
        self,
        compression_level: int = ...,
        mode_spec: Any = ...,
        delta_spec: Any = ...,
        paging_spec: Any = ...,
        enable_8_bit: bool = ...,
    ) -> None: ...
