"""What Stagedoor has revoked, asked for each second. Knowledge only moves forward, and knowledge older than `bound` is none:
then every actor token is refused. A service that cannot hear of a revocation closes; it never trusts on."""
import logging, threading, time, urllib.request
import jwt

MAX_BYTES = 16 * 1024 * 1024  # more than a hundred thousand revocations
ALGORITHMS = ["ES256", "RS256", "EdDSA"]

def _texts(value):
    return isinstance(value, list) and all(isinstance(one, str) for one in value)

def _whole(value):
    return isinstance(value, int) and not isinstance(value, bool)

class Revocations:
    """Follows one issuer, `every` so many seconds, until `stop()`. `refuses(claims, header)` says why a token is refused, or None."""

    def __init__(self, issuer, every=1.0, bound=5.0):
        self.issuer, self.every, self.bound = issuer, every, bound
        self._keys = jwt.PyJWKClient(f"{issuer}/v1/revocations/jwks", timeout=3, cooldown_duration=2)  # a new key waits no 30 s
        self._known, self._stopped = None, threading.Event()
        threading.Thread(target=self._follow, daemon=True, name="revocations").start()

    def stop(self):
        self._stopped.set()

    def refuses(self, claims, header):
        known, iat = self._known, claims.get("iat")  # one look: the thread may put another in its place
        if known is None or claims.get("iss") != self.issuer or not isinstance(iat, (int, float)):
            return "stale"
        cuts = (known["all"], known["clients"].get(claims.get("client_id")))
        if any(until is not None and iat <= until for until in cuts):
            return "revoked"
        if claims.get("sid") in known["sids"] or header.get("kid") in known["kids"]:
            return "revoked"
        return "stale" if abs(time.time() - known["read"]) > self.bound else None

    def _follow(self):
        while not self._stopped.is_set():
            try:
                self._ask()
            except Exception as error:  # whatever it is: what is known gets older, and then it is none
                logging.warning("revocations of %s could not be fetched: %s", self.issuer, error)
            self._stopped.wait(self.every)

    def _ask(self):
        with urllib.request.urlopen(f"{self.issuer}/v1/revocations", timeout=3) as answer:
            text = answer.read(MAX_BYTES + 1).decode("ascii")
        header, key = jwt.get_unverified_header(text), self._keys.get_signing_key_from_jwt(text)
        doc = jwt.decode(text, key, algorithms=ALGORITHMS, issuer=self.issuer, leeway=5, options={"require": ["iss", "iat", "exp"]})
        order, clients, cut = (doc.get("epoch"), doc.get("seq"), doc.get("read_ms")), doc.get("clients", {}), doc.get("all")
        times = [*order, doc["iat"], *clients.values()] + ([] if cut is None else [cut])
        if str(header.get("typ")).lower().removeprefix("application/") != "stagedoor-revocations+jwt" or doc.get("kind") != "snapshot":
            raise ValueError("not a snapshot")
        if not (all(map(_whole, times)) and order[2] // 1000 == doc["iat"] and _texts(doc.get("sids")) and _texts(doc.get("kids"))):
            raise ValueError("not the members of a snapshot")
        if self._known is None or order >= self._known["order"]:  # else of a replica that is behind: what is known stays
            self._known = {"order": order, "read": order[2] / 1000, "all": cut, "clients": clients, "sids": {*doc["sids"]}, "kids": {*doc["kids"]}}
