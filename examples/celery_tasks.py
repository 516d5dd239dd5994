"""Tasks of Celery, the worker that runs them, and their metrics.

Run it with ``python examples/celery_tasks.py``: worker and broker are this process alone. With a broker, and processes
that share a folder for their metrics, it is as in production::

    export CELERY_BROKER_URL=amqp://... PROMETHEUS_MULTIPROC_DIR=/var/lib/shop/metrics
    celery --app examples.celery_tasks worker
"""

import os

from celery import Celery, Task
from celery.signals import worker_ready

from llm_common import configure, current_action
from llm_common.integrations.celery import track_tasks
from llm_common.prometheus import start_metrics_server

app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "memory://localhost"))
configure(app="shop_tasks")
track_tasks(names={"shop.send_invoice": "invoice_task"})


@app.task(name="shop.pack_order")
def pack_order(parcels: int) -> None:
    """Pack: counted as ``pack_order_task``, with the number of parcels as its size."""
    current_action().size(parcels)


@app.task(name="shop.send_invoice", bind=True, max_retries=1)
def send_invoice(self: Task) -> None:
    """Fail at first and ask for a retry: counted as ``invoice_task``, once with ``error`` and once with ``ok``."""
    if not self.request.retries:
        raise self.retry(exc=ConnectionError("the mail server does not answer"), countdown=0)


@worker_ready.connect
def serve_metrics(**_: object) -> None:
    """Serve them from the worker's main process, where those of its pool are seen too."""
    server = start_metrics_server(port=int(os.environ.get("METRICS_PORT", "9464")))
    print("metrics at", server.url, flush=True)


def send_orders(**_: object) -> None:
    """Send some tasks, since nobody else does here."""
    pack_order.delay(3)
    pack_order.delay(1)
    send_invoice.delay()


if __name__ == "__main__":
    app.conf.worker_redirect_stdouts = False
    worker_ready.connect(send_orders)
    app.worker_main(["worker", "--pool=solo", "--loglevel=WARNING"])
