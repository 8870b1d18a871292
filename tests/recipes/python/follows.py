"""A service with docs/languages/python/revocations.py beside its verification, as docs/languages/python.md shows it."""
import os, sys, jwt
from flask import Flask, request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../../docs/languages/python"))
sys.dont_write_bytecode = True
from revocations import Revocations

STAGEDOOR, AUDIENCE = os.environ["STAGEDOOR"], os.environ["AUDIENCE"]
keys = jwt.PyJWKClient(f"{STAGEDOOR}/.well-known/jwks.json")
revocations = Revocations(STAGEDOOR, every=int(os.environ["EVERY_MS"]) / 1000)
app = Flask(__name__)

@app.get("/")
def who():
    token = request.headers["Authorization"].removeprefix("Bearer ")
    key = keys.get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=AUDIENCE, issuer=STAGEDOOR)
    return revocations.refuses(claims, jwt.get_unverified_header(token)) or "in"

app.run("127.0.0.1", int(os.environ["PORT"]))
