"""A service that reads user and actor, with Authlib. Whoever acts as somebody else is refused, except where a route opts in."""
import functools, json, os, time, urllib.request
from authlib.integrations.flask_oauth2 import ResourceProtector, current_token
from authlib.oauth2.rfc6750 import InvalidTokenError
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from flask import Flask, abort, jsonify
from joserfc import jws

STAGEDOOR, HOME, AUDIENCE = (os.environ[name] for name in ("STAGEDOOR", "HOME_ISSUER", "AUDIENCE"))
app = Flask(__name__)

def is_id(value):
    return isinstance(value, str) and value != ""

class Validator(JWTBearerTokenValidator):
    def get_jwks(self):  # fetched once; a service keeps them fresh
        self.jwks = getattr(self, "jwks", None) or json.load(urllib.request.urlopen(f"{self.issuer}/.well-known/jwks.json"))
        return self.jwks

    def validate_token(self, token, scopes, request, **kwargs):
        if not isinstance(token.get("scope", ""), str):  # the library would break on it
            raise InvalidTokenError()
        token.validate = functools.partial(token.validate, leeway=5)  # who signed may be ahead of us
        super().validate_token(token, scopes, request, **kwargs)
        if token["exp"] <= time.time():  # no grace at the end
            raise InvalidTokenError()
        acted = "act" in token  # in a token of any issuer; null and false do not mean "nobody"
        named = isinstance(token["act"], dict) and is_id(token["act"].get("sub")) if acted else self.issuer != STAGEDOOR
        header_ok = is_id(token.header.get("typ")) and token.header["alg"] == "ES256" and is_id(token.header.get("kid"))
        if not (named and header_ok and is_id(token["sub"]) and is_id(token["iss"]) and "cnf" not in token):
            raise InvalidTokenError()

class AnyIssuer(Validator):
    def __init__(self):
        super().__init__(None, AUDIENCE)
        self.validators = {issuer: Validator(issuer, AUDIENCE) for issuer in (STAGEDOOR, HOME)}

    def authenticate_token(self, token_string):
        try:
            issuer = json.loads(jws.extract_compact(token_string.encode()).payload)["iss"]  # only to choose whose keys must have signed
            return self.validators[issuer].authenticate_token(token_string)
        except Exception as error:  # whatever is wrong with it, it is no token
            raise InvalidTokenError() from error

    def validate_token(self, token, scopes, request, **kwargs):
        self.validators[token["iss"]].validate_token(token, scopes, request, **kwargs)

signed_in = ResourceProtector()
signed_in.register_token_validator(AnyIssuer())

def show():
    actor = current_token.get("act", {}).get("sub")
    return jsonify(user=current_token["sub"], actor=actor), {"Impersonated": "?1" if actor else "?0"}

@app.get("/me")
@signed_in()
def me():
    return abort(403) if "act" in current_token else show()

@app.get("/orders")  # opts in
@signed_in("read")
def orders():
    return show()

app.run("127.0.0.1", int(os.environ["PORT"]))
