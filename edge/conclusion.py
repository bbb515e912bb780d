"""From a judged part to its result: what the line hears and the spool keeps."""

import math
import time

from edge.pool import Slot
from edge.results import Result
from edge.verdict import action_for


def conclude(slot: Slot, sequence: int, thing: str, line: str, clock_synced: bool | None) -> Result:
    """The result of a part that has its judgement.

    Args:
        slot: judged.
        sequence: its number.
        thing: this device.
        line: of results; the package's when "".
        clock_synced: whether the wall clock can be trusted; None: not known.
    """
    part, judgement, served = slot.part, slot.judgement, slot.served
    assert judgement is not None
    contract = served.contract if served is not None else None
    now_s, latency = time.monotonic(), judgement.latency
    stages = {
        "queue": (slot.begun_s or now_s) - part.started_s,
        "decode": latency.decode_s,
        "preprocess": latency.preprocess_s,
        "detect": latency.detect_s,
        "total": now_s - part.started_s,
    }
    return Result(
        thing=thing,
        sequence=sequence,
        source_key=part.source_key,
        line=line or (contract.line if contract is not None else ""),
        captured_at=part.captured_at if math.isfinite(part.captured_at) else time.time(),
        clock_synced=clock_synced,
        verdict=judgement.verdict,
        action=action_for(judgement.verdict, contract.operating_point if contract is not None else None),
        score=judgement.score,
        probability=judgement.probability,
        label=judgement.label,
        error=judgement.code,
        detail=judgement.reason,
        package=contract.version if contract is not None else "",
        operating_point=contract.operating_point.id if contract is not None else "",
        artifact=contract.artifact.kind if contract is not None else "",
        runtime=served.runtime if served is not None else "",
        part_id=part.part_id,
        lot=part.lot,
        station=part.station,
        view=part.view,
        latency_ms={name: round(seconds * 1e3, 3) for name, seconds in stages.items()},
    )
