"""A Canaille (https://canaille.readthedocs.io) with one person and one client, run by its own Python.

Arguments: the port, and the address to which it may send people back. It prints "ready" when it listens.
"""

from __future__ import annotations

import datetime
import sys

from canaille import create_app
from canaille.app import models
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server


def main(port: int, redirect_uri: str) -> None:
    """Serve until told to end."""
    key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, auto_kid=True)
    app = create_app(
        {
            "SECRET_KEY": "of this test alone",
            "SERVER_NAME": f"127.0.0.1:{port}",
            "PREFERRED_URL_SCHEME": "http",
            "CANAILLE": {"DATABASE": "memory"},
            "CANAILLE_OIDC": {"REQUIRE_NONCE": True, "ACTIVE_JWKS": [key.as_dict(private=True)]},
        }
    )
    backend = app.backend
    with app.app_context(), backend.session():
        person = models.User(
            formatted_name="Ada Lovelace",
            family_name="Lovelace",
            user_name="ada",
            emails=["ada@example.org"],
            password="a good password",
        )
        backend.save(person)
        backend.save(models.Group(members=[person], display_name="llm-admins"))
        client = models.Client(
            client_id="ostler",
            client_secret="a secret that is shared",
            client_name="Ostler",
            client_uri="http://localhost",
            redirect_uris=[redirect_uri],
            grant_types=["authorization_code"],
            response_types=["code"],
            scope=["openid", "profile", "email", "groups"],
            token_endpoint_auth_method="client_secret_basic",
            client_id_issued_at=datetime.datetime.now(datetime.UTC),
        )
        backend.save(client)
        client.audience = [client]
        backend.save(client)
    server = make_server("127.0.0.1", port, app, threaded=True)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
