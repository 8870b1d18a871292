"""What schemathesis has to be told of this service."""
import random
import schemathesis

# It reads JWTs as JSON, and the contract as YAML; both are described as the texts they are.
@schemathesis.deserializer("application/json")
def json_or_jwt(context, response):
    return response.content.decode() if response.content.startswith(b"eyJ") else response.json()

@schemathesis.deserializer("text/yaml")
def yaml(context, response):
    return response.content.decode()

# Thousands of wrong credentials from one address are a 429, as they should be; here they come from many.
@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers = {**(case.headers or {}), "X-Forwarded-For": f"198.51.{random.randrange(256)}.{random.randrange(1, 255)}"}
