"""Prefect's API for a single run, as a program: `flows/server.py` starts it. It ends with the process that began it.

That process holds the other end of its standard input, which the system closes however it ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

LAST_REQUESTS_SECONDS = 10.0
"""After which it ends even if somebody is still being answered."""


def end_with_starter() -> None:
    """Wait until nobody holds the other end any more; then end as a server that is told to."""
    while os.read(0, 4096):  # not `sys.stdin`, whose lock an interpreter that ends meanwhile would wait for
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_REQUESTS_SECONDS)
    os._exit(0)


def main(port: int) -> None:
    """Serve on loopback until told to end."""
    import uvicorn

    threading.Thread(target=end_with_starter, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="error",
        lifespan="on",
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
