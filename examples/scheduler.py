"""A service that runs two jobs of APScheduler and serves their metrics.

Run it with ``python examples/scheduler.py``, and look at the address that it prints. Ctrl-C ends it.
"""

import asyncio
import os
import signal
from datetime import UTC, datetime

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from llm_common import configure, current_action
from llm_common.integrations.apscheduler import track_jobs
from llm_common.prometheus import start_metrics_server

PRICES = {"lamp": 30, "shade": 12, "bulb": 4}


async def refresh_prices() -> None:
    """Ask the supplier for each price: counted as ``refresh_prices_task``, with the number of prices as its size."""
    for article in PRICES:
        await asyncio.sleep(0)  # where the supplier would be asked
        PRICES[article] += 1
        current_action().size(1)


def remove_old_carts() -> None:
    """Fail, as jobs do: counted as ``clean_up_task`` with the status ``error``, and tried again at its next time."""
    raise ConnectionError("the database does not answer")


async def main() -> None:
    """Serve until the process is told to stop."""
    configure(app="shop_jobs")
    scheduler = AsyncIOScheduler(timezone=UTC)
    track_jobs(scheduler, names={"remove_old_carts": "clean_up_task"})
    now = datetime.now(UTC)
    scheduler.add_job(refresh_prices, "interval", minutes=15, next_run_time=now)
    scheduler.add_job(remove_old_carts, "interval", hours=1, next_run_time=now)

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    with start_metrics_server(port=int(os.environ.get("METRICS_PORT", "9464"))) as server:
        print("metrics at", server.url, flush=True)
        scheduler.start()
        await stopped.wait()
        scheduler.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
