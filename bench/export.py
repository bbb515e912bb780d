"""Export of the default backbone: convert, calibrate and compare in at most 60 s on 2 cores, and the peak memory.

    python bench/export.py [--backbone mobilenet_v2] [--size 224] [--images 200]

Images are random pictures and weights are random: neither changes the time. Memory is the largest resident set of this
process and all its children together, sampled every 50 ms (pages that they share are counted in each).
"""

import argparse
import logging
import os
import resource
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import torch
from PIL import Image

from edge.contract import InputContract
from inspection.export.conversion import convert
from inspection.export.parity import run_parity_gate, score_trained
from inspection.model.backbones import ARCHITECTURES, load_backbone
from inspection.model.classifier import Classifier, Design
from inspection.settings import ExportSettings

LIMIT_S = 60.0
SAMPLE_S = 0.05


class PeakMemory(threading.Thread):
    """Samples the resident memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        process = psutil.Process()
        while not self._done.wait(SAMPLE_S):
            total = 0
            for each in [process, *process.children(recursive=True)]:
                try:
                    total += each.memory_info().rss
                except psutil.NoSuchProcess:  # it has just ended
                    continue
            self.peak_bytes = max(self.peak_bytes, total)

    def stop(self) -> int:
        """End sampling; the peak in bytes."""
        self._done.set()
        self.join()
        return self.peak_bytes


def cpu_seconds() -> float:
    """Processor time of this process and its ended children: it tells the cost when other work shares the machine."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def make_pictures(count: int, size: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    resized = [Image.fromarray(each).resize((size, size), Image.Resampling.BICUBIC) for each in coarse]
    return np.stack([np.asarray(each) for each in resized])


def make_model(backbone: str, pixels: np.ndarray) -> Classifier:
    """A classifier with a head that scores its pictures differently: half of them high, half low."""
    model = Classifier(Design(backbone, ARCHITECTURES[backbone].taps), load_backbone(backbone, "none", 0)).eval()
    with torch.no_grad():
        batches = [torch.from_numpy(pixels[start : start + 16]).float() for start in range(0, len(pixels), 16)]
        features = torch.cat([torch.cat(model.pool(batch), dim=1).flatten(1) for batch in batches])
        model.set_standardisation(features.mean(0), features.std(0).clamp_min(1e-3))
        generator = torch.Generator().manual_seed(0)
        model.score.weight.copy_(torch.randn(model.score.weight.shape, generator=generator) / features.shape[1] ** 0.5)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="mobilenet_v2", choices=ARCHITECTURES)
    parser.add_argument("--size", type=int, default=224, help="px")
    parser.add_argument("--images", type=int, default=200, help="training images; copies fill up to 1,000")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    pixels = make_pictures(options.images, options.size)
    model = make_model(options.backbone, pixels)
    scores = model.score_pixels(pixels)
    is_bad = scores > np.median(scores)
    # What is measured is time: random weights say nothing of accuracy, so every limit is as wide as it goes.
    settings = ExportSettings(max_auroc_loss=0.99, max_flip_rate=0.99, min_correlation=0.001)
    contract = InputContract(options.size, options.size)
    memory = PeakMemory()
    memory.start()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as aside:
        start, cpu_start = time.perf_counter(), cpu_seconds()
        scored = aside.submit(score_trained, model, pixels, settings, 0)  # as the train flow does
        converted = convert(model, contract, pixels, Path(folder))
        convert_s, convert_cpu_s = time.perf_counter() - start, cpu_seconds() - cpu_start
        gate = run_parity_gate(scored.result(), converted, is_bad, contract, settings, 0)
        total_s, total_cpu_s = time.perf_counter() - start, cpu_seconds() - cpu_start
    peak = memory.stop()
    print(f"backbone {options.backbone}, {options.size} px, {os.cpu_count()} cores")
    print("                                    wall s   processor s")
    print(f"convert + calibrate + quantise    {convert_s:8.1f} {convert_cpu_s:10.1f}")
    print(
        f"parity, both files, {gate.int8.images} images {total_s - convert_s:9.1f} {total_cpu_s - convert_cpu_s:10.1f}"
    )
    print(f"together, want <= {LIMIT_S:.0f} s            {total_s:8.1f} {total_cpu_s:10.1f}")
    print(f"peak memory, converting process {converted.peak_rss_bytes / 1e6:6.0f} MB")
    print(f"peak memory, all processes      {peak / 1e6:6.0f} MB")
    for kind, device in gate.devices.items():
        p50_ms, p99_ms, rss_mb = device["p50_ms"], device["p99_ms"], device["rss_bytes"] / 1e6
        print(f"{kind:<8} p50 {p50_ms:.2f} ms  p99 {p99_ms:.2f} ms  {rss_mb:.0f} MB")
    print(gate.int8.summary())
    return 0 if total_s <= LIMIT_S else 1


if __name__ == "__main__":
    sys.exit(main())
