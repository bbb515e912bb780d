"""Settings of the spool."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SpoolSettings:
    """How much the spool keeps, and how soon a result is on disk."""

    quota_bytes: int = 500_000_000  # bytes of database and images; SQLite's log comes on top with up to 4 MB
    durable_within_ms: int = 200  # a pass is synced at the latest after so many ms; fail, review and error at once
    memory_bytes: int = 32_000_000  # bytes of results and images held in memory while the disk refuses them
    keep_sent: int = 10_000  # results kept after they were sent or evicted, so that their source key is still known
    retry_min_s: float = 1.0  # seconds until a disk that refused is tried again; doubles
    retry_max_s: float = 60.0  # up to so many seconds

    def check(self) -> list[str]:
        """What is wrong with the values, in words."""
        limits = (
            ("quota_bytes", self.quota_bytes, 16_000_000, 1 << 50),
            ("durable_within_ms", self.durable_within_ms, 0, 60_000),
            ("memory_bytes", self.memory_bytes, 1_000_000, 1 << 40),
            ("keep_sent", self.keep_sent, 100, 1_000_000),
            ("retry_min_s", self.retry_min_s, 0.01, 3600),
            ("retry_max_s", self.retry_max_s, 0.01, 3600),
        )
        faults = [
            f"{name}: want {low} to {high}, found {value}"
            for name, value, low, high in limits
            if not low <= value <= high
        ]
        if self.retry_min_s > self.retry_max_s:
            faults.append(f"retry_min_s: want at most retry_max_s ({self.retry_max_s}), found {self.retry_min_s}")
        return faults
