"""Correlation with a perfect memory: how every id there ever was ended."""

from __future__ import annotations

__all__ = ["CorrelatorModel"]


class CorrelatorModel:
    """The oracle: all requests ever, by (type, value) of their id."""

    def __init__(self, pending_max: int) -> None:
        self.pending_max = pending_max
        self.fate: dict[int, str] = {}  # pending, answered, cancelled, late, failed
        self.epoch_of: dict[int, int] = {}
        self.epoch = 1
        self.open = True

    def pending(self) -> list[int]:
        return [key for key, fate in self.fate.items() if fate == "pending"]

    def may_open(self) -> str:
        if not self.open:
            return "Closed"
        return "Full" if len(self.pending()) >= self.pending_max else "int"

    def opened(self, request_id: int) -> None:
        assert request_id not in self.fate
        self.fate[request_id] = "pending"
        self.epoch_of[request_id] = self.epoch

    def resolve(self, answer_id: object, epoch: int) -> str:
        if type(answer_id) is not int or answer_id not in self.fate:
            return "Unknown"
        if epoch != self.epoch or not self.open or self.epoch_of[answer_id] != self.epoch:
            return "Late"
        fate = self.fate[answer_id]
        if fate == "pending":
            self.fate[answer_id] = "answered"
            return "Match"
        if fate == "cancelled":
            self.fate[answer_id] = "late"
            return "Late"
        return "Duplicate"

    def cancel(self, request_id: object) -> bool:
        if type(request_id) is not int or self.fate.get(request_id) != "pending":
            return False
        self.fate[request_id] = "cancelled"
        return True

    def close(self) -> list[int]:
        failed = self.pending()
        self.fate.update(dict.fromkeys(failed, "failed"))
        self.open = False
        return failed

    def reopen(self) -> int:
        if not self.open:
            self.open, self.epoch = True, self.epoch + 1
        return self.epoch
