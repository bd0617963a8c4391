"""Why a request failed and what to do, in one sentence, from a server's response or a library's exception.

Permanent failures (a certificate, a proxy's password, 400, 403, 404, a web page) are distinguished from temporary ones
(silence, a broken connection, 408, 429, 5xx). `Retry-After`: RFC 9110, section 10.2.3.
"""

import html
import json
import re
import ssl
import textwrap
from urllib.parse import urlsplit

import requests
import urllib3

LONGEST_WAIT_S = 60  # if a server asks for a longer wait, the user decides when to retry
LATER = "run the same command again later to resume"
NETWORK = "check the network and the server's address, then run the same command again to resume"
PAGE = "it may be a bot check or a network login: open the address in a browser, then run the same command again"
UNLISTED = "check the server's address, or inform the maintainers of the data set"
ADVICE = {
    400: "follow its instructions in a browser, or inform the maintainers of the data set",
    401: "it requires an account; ask the maintainers of the data set",
    403: "access is restricted; open the address in a browser, or ask the maintainers of the data set",
    407: "set HTTPS_PROXY=http://name:password@host:port, or ask your network administrator",
}


class Failure(OSError):
    """A failed request: the problem (`what`), whether it is permanent (`lasts`), and the least wait before a retry in
    s."""

    def __init__(self, what: str, advice: str, lasts: bool = False, wait_s: float = 0):
        super().__init__(f"{what}: {advice}.")
        self.what, self.lasts, self.wait_s = what, lasts, wait_s


def is_page(answer: requests.Response) -> bool:
    """Whether the response is a web page; no file of a data set is."""
    return "html" in answer.headers.get("Content-Type", "")


def refusal(answer: requests.Response) -> Failure:
    """The failure that a server's response without data means, with the server's own text."""
    status, words, asked_s = answer.status_code, _words(answer), 0.0
    reason = _plain(answer.reason or "")
    what = f"{urlsplit(answer.url).netloc} answered {status} {reason}".rstrip()
    what += " with a web page, not data" * is_page(answer) + f" ({words})" * (words not in ("", reason))
    if status in (408, 425, 429) or status >= 500:
        try:
            asked_s = urllib3.Retry().get_retry_after(answer.raw) or 0.0
        except urllib3.exceptions.HTTPError:  # neither seconds nor a date
            pass
        later = (
            f"run the same command again in {asked_s / 60:.0f} min, as it requests"
            if asked_s > LONGEST_WAIT_S
            else LATER
        )
        return Failure(what, later, asked_s > LONGEST_WAIT_S, asked_s)
    login = is_page(answer) and status in (200, 202, 206, 401, 403)
    return Failure(what, PAGE if login else ADVICE.get(status, UNLISTED), lasts=True)


def explained(error: Exception, url: str) -> Failure:
    """The failure that a library's exception for `url` means, from its innermost cause."""
    root: BaseException = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    request = getattr(error, "request", None)  # may differ from `url` after a redirection
    host = urlsplit(getattr(request, "url", None) or url).netloc
    reason = _plain(getattr(root, "strerror", None) or "it was interrupted")
    if isinstance(error, ValueError):
        return Failure(f"{_plain(url)} is not a web address", "expected one such as https://dataverse.nl", lasts=True)
    if isinstance(root, ssl.SSLCertVerificationError):
        advice = "if your network inspects traffic, set REQUESTS_CA_BUNDLE to its certificate file"
        return Failure(f"{host} has a certificate that is not trusted ({root.verify_message})", advice, lasts=True)
    if isinstance(error, requests.exceptions.ProxyError):
        answered = re.search(r"\b4\d\d .*", str(root))
        what = f"the proxy for {host} failed ({_plain(answered[0]) if answered else reason})"
        return Failure(what, ADVICE[407], lasts=bool(answered))
    if isinstance(root, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return Failure(f"{host} does not answer", NETWORK)
    return Failure(f"the connection to {host} failed ({reason})", NETWORK)


def _words(answer: requests.Response) -> str:
    """The text of a response: the `message` of JSON, the title of a page, or the body; empty if there is none."""
    try:
        body = answer.raw.read(2**13, decode_content=True).decode(errors="replace")
    except urllib3.exceptions.HTTPError:
        return ""
    title = re.search(r"<title[^>]*>(.*?)</title>", body, re.DOTALL | re.IGNORECASE)
    try:
        words = json.loads(body)["message"]
    except (ValueError, LookupError, TypeError):
        words = title[1] if title else re.sub(r"<[^>]*>", " ", body)
    return textwrap.shorten(_plain(html.unescape(str(words))), 200, placeholder=" …")


def _plain(text: str) -> str:
    """A server's text on one line, without control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
