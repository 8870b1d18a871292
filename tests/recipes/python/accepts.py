"""Reads {issuer, audience, jwksUri, tokens: {ALG: token}} from standard input, has every stock verifier look at
every token, and prints [{library, alg, sub, actor} | {library, alg, error}]."""
import json
import sys
import urllib.request

import jwt as pyjwt
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet

ask = json.load(sys.stdin)
issuer, audience, jwks_uri = ask["issuer"], ask["audience"], ask["jwksUri"]
jwks = json.load(urllib.request.urlopen(jwks_uri))


def with_pyjwt(token, alg):
    key = pyjwt.PyJWKClient(jwks_uri).get_signing_key_from_jwt(token)
    return pyjwt.decode(token, key, algorithms=[alg], audience=audience, issuer=issuer)


def with_joserfc(token, alg):
    decoded = joserfc_jwt.decode(token, KeySet.import_key_set(jwks), algorithms=[alg])
    rules = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}}
    joserfc_jwt.JWTClaimsRegistry(**rules, exp={"essential": True}).validate(decoded.claims)
    return decoded.claims


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return jwks


def with_authlib(token, alg):
    validator = Validator(issuer, audience)
    claims = validator.authenticate_token(token)
    validator.validate_token(claims, ["read"], None)
    return claims


results = []
for library, verify in {"PyJWT": with_pyjwt, "joserfc": with_joserfc, "Authlib": with_authlib}.items():
    for alg, token in ask["tokens"].items():
        try:
            claims = verify(token, alg.split()[0])  # "ES256", "ES256 forged"
            results.append({"library": library, "alg": alg, "sub": claims["sub"], "actor": claims["act"]["sub"]})
        except Exception as error:
            results.append({"library": library, "alg": alg, "error": f"{type(error).__name__}: {error}"})
print(json.dumps(results))
