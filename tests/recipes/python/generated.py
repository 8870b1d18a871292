"""With the client that openapi-python-client generated from openapi.yaml (on PYTHONPATH): mints, verifies, revokes."""
import json, os
from stagedoor_client import AuthenticatedClient
from stagedoor_client.api.actor_tokens import mint_actor_token, revoke_actor_token, verify_actor_token
from stagedoor_client.models import ClaimedActor, MintRequest, Problem, VerifyRequest

with AuthenticatedClient(base_url=os.environ["STAGEDOOR"], token=os.environ["CLIENT_SECRET"]) as client:
    ask = MintRequest(user_id="user_42", actor=ClaimedActor(sub="admin_7"), reason="Invoice is missing")
    minted = mint_actor_token.sync(client=client, body=ask)
    before = verify_actor_token.sync(client=client, body=VerifyRequest(token=minted.token))
    revoke_actor_token.sync(client=client, id=minted.id)
    after = verify_actor_token.sync(client=client, body=VerifyRequest(token=minted.token))
    refused = mint_actor_token.sync(client=client, body=MintRequest(user_id="user_42", actor=ClaimedActor(sub="somebody")))
    assert isinstance(refused, Problem)
    print(json.dumps({
        "status": minted.status.value, "milliseconds": minted.expires_at, "actor": before.act.sub,
        "reason": after.reason.value, "code": refused.errors[0].code.value,
    }))
