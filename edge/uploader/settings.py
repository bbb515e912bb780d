"""Where kept images go, and how gently."""

import re
from dataclasses import dataclass

S3_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/*")


@dataclass(frozen=True)
class UploadSettings:
    """The uploader."""

    to: str = ""  # a folder that is there, or s3://bucket/prefix; empty: images stay on the device
    profile: str = ""  # of the AWS configuration; empty: the environment, such as the token exchange service
    region: str = ""  # of the bucket; empty: AWS_REGION of the environment, or the AWS configuration
    max_kb_per_s: float = 0.0  # network for uploads, in 1,000 bytes a second; 0: all there is
    pause_s: float = 60.0  # from the end of one upload to the start of the next: starting boto3 costs a second or two
    retry_min_s: float = 30.0  # first wait when the store cannot be reached; doubles
    retry_max_s: float = 1800.0  # longest wait
    stalled_s: float = 3600.0  # an upload that moves no image for this long is stopped, and tried again
    nice: int = 10  # how far the upload stands back for inspection: 0 to 19

    def check(self) -> list[str]:
        """Faults in words; empty when there are none."""
        faults = []
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", self.to) and S3_URL.fullmatch(self.to) is None:
            faults.append(f"to: want a folder or s3://bucket/prefix, found {self.to!r}")
        if self.max_kb_per_s < 0:
            faults.append(f"max_kb_per_s: want 0 (no limit) or more, found {self.max_kb_per_s}")
        if self.pause_s < 0:
            faults.append(f"pause_s: want 0 or more, found {self.pause_s}")
        if not 1 <= self.retry_min_s <= self.retry_max_s:
            faults.append(
                f"retry_min_s, retry_max_s: want 1 s or more, rising, found {self.retry_min_s} and {self.retry_max_s}"
            )
        if self.stalled_s < 60:
            faults.append(f"stalled_s: want 60 or more, found {self.stalled_s}")
        if not 0 <= self.nice <= 19:
            faults.append(f"nice: want 0 to 19, found {self.nice}")
        return faults
