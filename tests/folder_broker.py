"""A broker that is a folder: kombu's own, whose reader may come upon a message that is half written, without that."""

import json
import os
from pathlib import Path
from time import monotonic_ns
from typing import Any
from uuid import uuid4

from kombu.transport import TRANSPORT_ALIASES, filesystem

TRANSPORT_ALIASES["folder"] = "folder_broker:Transport"


class Channel(filesystem.Channel):
    def _put(self, queue: Any, payload: Any, **options: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = uuid4().hex
        (folder / name).write_text(json.dumps(payload))
        os.replace(folder / name, folder / f"{monotonic_ns():020}_{name}.{queue}.msg")


class Transport(filesystem.Transport):
    Channel = Channel
