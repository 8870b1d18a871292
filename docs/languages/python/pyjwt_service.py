"""A service that reads user and actor, with PyJWT. Whoever acts as somebody else is refused, except where a route opts in."""
import os, time, jwt
from flask import Flask, abort, g, jsonify, request

STAGEDOOR, HOME, AUDIENCE = (os.environ[name] for name in ("STAGEDOOR", "HOME_ISSUER", "AUDIENCE"))
keys = {issuer: jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json") for issuer in (STAGEDOOR, HOME)}
app = Flask(__name__)

def is_id(value):
    return isinstance(value, str) and value != ""

def identity(scheme, _, token):
    issuer = jwt.decode(token, options={"verify_signature": False})["iss"]  # believed only to choose whose keys must have signed
    claims = jwt.decode(token, keys[issuer].get_signing_key_from_jwt(token), algorithms=["ES256"], audience=AUDIENCE,
                        issuer=issuer, leeway=5, options={"require": ["exp", "iat", "sub"]})  # who signed may be ahead of us
    if int(claims["exp"]) <= time.time():  # no grace at the end
        raise ValueError("over")
    typ = jwt.get_unverified_header(token)["typ"].lower().removeprefix("application/")
    acted = "act" in claims  # in a token of any issuer; null and false do not mean "nobody"
    named = is_id(claims["act"]["sub"]) if acted else issuer != STAGEDOOR
    if scheme.lower() != "bearer" or typ != "at+jwt" or not is_id(claims["sub"]) or "cnf" in claims or not named:
        raise ValueError("no user or no actor")
    return {"user": claims["sub"], "actor": claims["act"]["sub"] if acted else None, "scopes": claims.get("scope", "").split()}

@app.before_request
def sign_in():
    try:
        g.who = identity(*request.headers.get("Authorization", "").partition(" "))
    except Exception:  # whatever is wrong with it, it is no token
        return "", 401, {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    opted_in = request.path == "/orders" and "read" in g.who["scopes"]  # the one route that opts in
    if g.who["actor"] and not opted_in:
        abort(403)

@app.get("/me")
@app.get("/orders")
def show():
    return jsonify(g.who), {"Impersonated": "?1" if g.who["actor"] else "?0"}

app.run("127.0.0.1", int(os.environ["PORT"]))
