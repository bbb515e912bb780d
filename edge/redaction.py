"""Takes secrets out of text before anybody sees it: logs, stderr and health go through here alike.

It errs on the side of hiding: a password may hold any character, so in an address everything between the scheme and the
last `@` of the word goes.
"""

import functools
import re

HIDDEN = "***"

# The names are compared in any case, and may be part of a longer one such as aws_secret_access_key or X-Amz-Signature.
_NAMES = (
    r"passw(?:or)?d|passphrase|passcode|secret|token|signature|credential|authorization"
    r"|(?:api|access|private|account)[_-]?key|(?<![A-Za-z0-9_])(?:pwd|pw|sig|auth)(?![A-Za-z0-9_])"
)
_PATTERN = rf"""
    -----BEGIN[^-]*-----.*?(?:-----END[^-]*-----|$)
  | (?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{{16}}(?![A-Za-z0-9])
  | (?P<name>(?i:{_NAMES})[\w.-]{{0,100}}\\*["']?\s*(?:=>|[=:])\s*(?:(?i:bearer|basic)\s+)?)
    (?: (?P<quote>\\*["'])(?:(?!(?P=quote))(?:\\.|.))*     # up to the same quote, or to the end
      | [^\s&]*[^\s&"'\\)\]}},;.] | [^\s&]+ )                     # up to a space; closing marks are the sentence's
  | (?P<scheme>://)(?: [^\s/:@]{{0,200}}:\S{{0,400}} | [^\s/:@]{{1,200}} )(?=@)
  | (?P<user>(?<![\w.%+-])[\w.%+-]{{1,200}}:)[^\s@/]{{1,200}}(?=@[\w\[])     # user:password@host without a scheme
"""


@functools.cache
def _compiled() -> re.Pattern[str]:
    return re.compile(_PATTERN, re.DOTALL | re.VERBOSE)  # when first needed: it takes milliseconds


def redact(text: str) -> str:
    """The text without private keys, access keys, tokens, and passwords, in addresses or beside their names."""
    return _compiled().sub(_hide, text)


def _hide(match: re.Match[str]) -> str:
    kept = match["name"] or match["scheme"] or match["user"] or ""
    return f"{kept}{match['quote'] or ''}{HIDDEN}"
