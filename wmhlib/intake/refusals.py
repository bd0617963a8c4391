"""Why a request failed, in one sentence that says what to do, from a server's answer or from an exception of a library.

What lasts (a certificate, a proxy's password, 400, 403, 404, a web page) is distinguished from what may pass (silence, a broken
connection, 408, 429, 5xx). `Retry-After`: RFC 9110, section 10.2.3.
"""

import html
import json
import re
import ssl
import textwrap
from urllib.parse import urlsplit

import requests
import urllib3

LONGEST_WAIT_S = 60  # where a server asks for more, the user decides when to ask again
LATER = "run the same again later, which resumes"
NETWORK = "check the network and the server's address, then run the same again, which resumes"
PAGE = "a check for robots, or the login of a network: open the address in a browser, then run the same again"
UNLISTED = "check the server's address, or tell the data set's keepers"
ADVICE = {
    400: "do in a browser what it asks for, or tell the data set's keepers",
    401: "it wants an account: ask the data set's keepers",
    403: "it does not give this to everyone: open the address in a browser, or ask the data set's keepers",
    407: "set HTTPS_PROXY=http://name:password@host:port, or ask who runs the network's proxy",
}


class Failure(OSError):
    """What went wrong, and what to do; whether it lasts, else how long (s) to wait at least before another attempt."""

    def __init__(self, what: str, advice: str, lasts: bool = False, wait_s: float = 0):
        super().__init__(f"{what}: {advice}.")
        self.what, self.lasts, self.wait_s = what, lasts, wait_s


def is_page(answer: requests.Response) -> bool:
    """Whether this is a web page, which none of the files is."""
    return "html" in answer.headers.get("Content-Type", "")


def refusal(answer: requests.Response) -> Failure:
    """What a server answered instead of data, with its own words."""
    status, words, asked_s = answer.status_code, _words(answer), 0.0
    reason = _plain(answer.reason or "")
    what = f"{urlsplit(answer.url).netloc} answered {status} {reason}".rstrip()
    what += " with a web page, not data" * is_page(answer) + f" ({words})" * (words not in ("", reason))
    if status in (408, 425, 429) or status >= 500:
        try:
            asked_s = urllib3.Retry().get_retry_after(answer.raw) or 0.0
        except urllib3.exceptions.HTTPError:  # neither seconds nor a date
            pass
        later = f"run the same again in {asked_s / 60:.0f} min, as it asks" if asked_s > LONGEST_WAIT_S else LATER
        return Failure(what, later, asked_s > LONGEST_WAIT_S, asked_s)
    login = is_page(answer) and status in (200, 202, 206, 401, 403)
    return Failure(what, PAGE if login else ADVICE.get(status, UNLISTED), lasts=True)


def explained(error: Exception, url: str) -> Failure:
    """Why no whole answer came from `url`: the innermost reason of what a library raised."""
    root: BaseException = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    request = getattr(error, "request", None)  # elsewhere than at `url`, after a redirection
    host = urlsplit(getattr(request, "url", None) or url).netloc
    reason = _plain(getattr(root, "strerror", None) or "it broke off")
    if isinstance(error, ValueError):
        return Failure(f"{_plain(url)} is not a web address", "expected one such as https://dataverse.nl", lasts=True)
    if isinstance(root, ssl.SSLCertVerificationError):
        advice = "where your network inspects what passes, name its certificate file in REQUESTS_CA_BUNDLE"
        return Failure(f"{host} has a certificate that is not trusted ({root.verify_message})", advice, lasts=True)
    if isinstance(error, requests.exceptions.ProxyError):
        answered = re.search(r"\b4\d\d .*", str(root))
        what = f"the proxy on the way to {host} failed ({_plain(answered[0]) if answered else reason})"
        return Failure(what, ADVICE[407], lasts=bool(answered))
    if isinstance(root, (TimeoutError, urllib3.exceptions.TimeoutError)):
        return Failure(f"{host} does not answer", NETWORK)
    return Failure(f"the connection to {host} failed ({reason})", NETWORK)


def _words(answer: requests.Response) -> str:
    """JSON's `message`, a page's title, or the text; empty where there is none."""
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
    """A server's text on one line, without what a terminal would take for a command."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
