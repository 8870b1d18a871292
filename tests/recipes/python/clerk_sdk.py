"""Clerk's SDK as it comes from PyPI, pointed at Stagedoor (STAGEDOOR, CLERK_SECRET_KEY). Prints what it saw, as JSON."""
import json, os
import httpx, jwt
from clerk_backend_api import Clerk, models
from clerk_backend_api.security import AuthenticateRequestOptions, TokenVerificationError, VerifyTokenOptions, authenticate_request, verify_token
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

STAGEDOOR, SECRET = os.environ["STAGEDOOR"], os.environ["CLERK_SECRET_KEY"]

def fails(call):
    try:
        return {"unexpected": str(call())}
    except models.ClerkErrors as error:
        return {"class": "ClerkErrors", "status": error.status_code, "errors": [e.model_dump() for e in error.data.errors]}
    except models.SDKError as error:
        return {"class": "SDKError", "status": error.status_code, "body": json.loads(error.body)}
    except TokenVerificationError as error:
        return {"class": "TokenVerificationError", "reason": error.reason.value[0]}

with Clerk(bearer_auth=SECRET, server_url=f"{STAGEDOOR}/v1") as clerk:
    # Whatever the caller leaves out, this SDK sends 3600 and 1800 seconds.
    person = {"user_id": "user_42", "actor": {"sub": "admin_7", "name": "dropped"}}
    created = clerk.actor_tokens.create(request=person)
    options = VerifyTokenOptions(secret_key=SECRET, api_url=STAGEDOOR, authorized_parties=["https://app.example.com"])
    other = VerifyTokenOptions(secret_key=SECRET, api_url=STAGEDOOR, authorized_parties=["https://evil.example"])
    kid = jwt.get_unverified_header(created.token)["kid"]
    keys = clerk.jwks.get_jwks().keys
    [key] = [key for key in keys if key.kid == kid]
    public = jwt.PyJWK(key.model_dump(exclude_none=True)).key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    # It asks api.clerk.com for keys unless it is given one.
    request = httpx.Request("GET", "https://app.example.com/me", headers={"Authorization": f"Bearer {created.token}"})
    state = authenticate_request(request, AuthenticateRequestOptions(jwt_key=public, authorized_parties=["https://app.example.com"]))
    print(json.dumps({
        "created": created.model_dump(mode="json"),
        "verified": verify_token(created.token, options),
        "otherParty": fails(lambda: verify_token(created.token, other)),
        "state": {"status": state.status.value, "reason": state.reason and state.reason.value[0], "actor": (state.payload or {}).get("act")},
        "revoked": clerk.actor_tokens.revoke(actor_token_id=created.id).model_dump(mode="json"),
        "revokedAgain": fails(lambda: clerk.actor_tokens.revoke(actor_token_id=created.id)),
        "unknown": fails(lambda: clerk.actor_tokens.revoke(actor_token_id="act_nobody")),
        "noUser": fails(lambda: clerk.actor_tokens.create(request={"user_id": "", "actor": {"sub": "admin_7"}})),
        "denied": fails(lambda: clerk.actor_tokens.create(request={"user_id": "user_42", "actor": {"sub": "somebody_else"}})),
    }))
