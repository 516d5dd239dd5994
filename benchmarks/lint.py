"""``python -m benchmarks.lint``: how long ``llm-common lint`` takes for 1,000 files, against parsing them alone."""

import argparse
import ast
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from llm_common.lint.config import Config
from llm_common.lint.files import find
from llm_common.lint.run import lint

FILE = '''"""Handlers of section {number}."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiogram import Router
from aiogram.filters import Command
from aiogram.types import CallbackQuery, Message

from shop.names_{group} import REPORT_{number}
from llm_common.prometheus import action_tracking, action_tracking_decorator, current_action

router = Router(name="section_{number}")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """An order of a customer."""

    number: int
    items: tuple[str, ...]
    prices: Mapping[str, float]
    note: str = ""

    def total(self) -> float:
        """Return what the order costs."""
        total = 0.0
        for item in self.items:
            price = self.prices.get(item)
            if price is None:
                log.warning("no price for %s in order %s", item, self.number)
                continue
            total += price
        return round(total, 2)

    def lines(self) -> list[str]:
        """Return the lines of the receipt."""
        return [f"{{item}}: {{self.prices.get(item, 0):.2f}}" for item in sorted(self.items)]


class OrderBook:
    """The orders of section {number}."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._orders: dict[int, Order] = {{}}

    async def load(self, numbers: list[int]) -> int:
        """Load orders, and return how many there are."""
        for number in numbers:
            answer = await self._api.get(f"/orders/{{number}}")
            if answer.status_code != 200:
                continue
            data = answer.json()
            self._orders[number] = Order(number, tuple(data["items"]), data["prices"], note=data.get("note") or "")
        return len(self._orders)

    def find(self, number: int) -> Order | None:
        """Return an order, or ``None``."""
        return self._orders.get(number)


@router.message(Command("order_{number}"))
@action_tracking_decorator("order_{number}_handler")
async def order(message: Message, book: OrderBook) -> None:
    """Show an order."""
    try:
        number = int((message.text or "").split()[1])
    except (IndexError, ValueError):
        await message.answer("Which order?")
        return
    found = book.find(number)
    if found is None:
        current_action().to_fail("unknown_order")
        await message.answer(f"There is no order {{number}}.")
        return
    await message.answer("\\n".join([*found.lines(), f"total: {{found.total():.2f}}"]))


@router.callback_query(lambda callback: callback.data == "close")
@action_tracking_decorator("close_{number}_handler")
async def close(callback: CallbackQuery) -> None:
    """Close an order."""
    await callback.answer("Closed.")


async def report_task(book: OrderBook, numbers: list[int]) -> None:
    """Load all orders once."""
    with action_tracking(REPORT_{number}) as tracker:
        try:
            tracker.size(await asyncio.wait_for(book.load(numbers), timeout=30))
        except Exception:
            tracker.to_fail("api")
            log.exception("no orders")
'''


def generate(folder: Path, count: int) -> int:
    """Write so many files, and return how many lines they have."""
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    lines = 0
    for group in range(0, count, 50):
        numbers = range(group, min(group + 50, count))
        names = "".join(f'REPORT_{number} = "report_{number}_task"\n' for number in numbers)
        (folder / "shop" / f"names_{group}.py").write_text(names, encoding="utf-8")
        for number in numbers:
            text = FILE.format(number=number, group=group)
            lines += text.count("\n")
            (folder / "shop" / f"section_{number}.py").write_text(text, encoding="utf-8")
    return lines


def timed(action: Callable[[], object]) -> float:
    """Return the shortest of three times, in seconds."""
    times = []
    for _ in range(3):
        begin = perf_counter()
        action()
        times.append(perf_counter() - begin)
    return min(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lint", description=__doc__)
    parser.add_argument("--files", type=int, default=1_000, help="how many (default 1000)")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        lines = generate(Path(directory), options.files)
        paths = [file.path for file in find([directory], Config().excludes)]

        def parse_alone() -> None:
            for path in paths:
                ast.parse(Path(path).read_bytes())

        def check() -> None:
            findings = lint(find([directory], Config().excludes), Config())
            assert not findings, findings[0]

        alone, whole = timed(parse_alone), timed(check)
    print(f"{len(paths):,} files, {lines:,} lines, {os.cpu_count()} cores (one is used)")
    print(f"read and parsed alone   {alone:6.2f} s")
    each = whole / len(paths) * 1000
    print(f"checked                 {whole:6.2f} s, {whole / alone:.1f} times that, {each:.2f} ms a file")


if __name__ == "__main__":
    main()
