"""Stock of a warehouse: items, movements, and reports."""

import csv
import datetime
from dataclasses import dataclass, field


class InventoryError(Exception):
    """A movement that the stock does not allow."""


@dataclass
class Item:
    """One kind of goods."""

    sku: str
    name: str
    price_cents: int
    quantity: int = 0
    reorder_level: int = 10

    def value_cents(self):
        return self.price_cents * self.quantity

    def is_low(self):
        return self.quantity <= self.reorder_level


@dataclass
class Movement:
    """Goods that came in (positive) or went out (negative)."""

    sku: str
    amount: int
    when: datetime.datetime
    note: str = ""


@dataclass
class Inventory:
    """All items by their number, and what happened to them."""

    items: dict = field(default_factory=dict)
    movements: list = field(default_factory=list)

    def add_item(self, item):
        if item.sku in self.items:
            raise InventoryError(f"item {item.sku} exists already")
        self.items[item.sku] = item

    def get_item(self, sku):
        try:
            return self.items[sku]
        except KeyError:
            raise InventoryError(f"no item {sku}") from None

    def receive(self, sku, amount, note=""):
        if amount <= 0:
            raise InventoryError(f"cannot receive {amount} of {sku}")
        item = self.get_item(sku)
        item.quantity += amount
        self._record(sku, amount, note)

    def ship(self, sku, amount, note=""):
        if amount <= 0:
            raise InventoryError(f"cannot ship {amount} of {sku}")
        item = self.get_item(sku)
        if item.quantity < amount:
            raise InventoryError(f"only {item.quantity} of {sku} left, {amount} wanted")
        item.quantity -= amount
        self._record(sku, -amount, note)

    def _record(self, sku, amount, note):
        self.movements.append(Movement(sku, amount, datetime.datetime.now(), note))

    def total_value_cents(self):
        return sum(item.value_cents() for item in self.items.values())

    def low_items(self):
        return [item for item in self.items.values() if item.is_low()]

    def history(self, sku):
        return [m for m in self.movements if m.sku == sku]


def load(path):
    """Reads items from a CSV file."""
    inventory = Inventory()
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            item = Item(
                sku=row["sku"],
                name=row["name"],
                price_cents=int(row["price_cents"]),
                quantity=int(row["quantity"]),
                reorder_level=int(row.get("reorder_level") or 10),
            )
            inventory.add_item(item)
    return inventory


def save(inventory, path):
    """Writes items to a CSV file."""
    names = ["sku", "name", "price_cents", "quantity", "reorder_level"]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names)
        writer.writeheader()
        for item in inventory.items.values():
            writer.writerow({name: getattr(item, name) for name in names})


def report(inventory):
    """A table of all items, the low ones marked."""
    lines = [f"{'sku':<10} {'name':<20} {'quantity':>8} {'value':>12}"]
    for item in sorted(inventory.items.values(), key=lambda item: item.sku):
        mark = "!" if item.is_low() else " "
        value = item.value_cents() / 100
        lines.append(f"{item.sku:<10} {item.name:<20} {item.quantity:>8} {value:>12.2f}{mark}")
    lines.append(f"total {inventory.total_value_cents() / 100:.2f}")
    return "\n".join(lines)
