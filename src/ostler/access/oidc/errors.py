"""What can go wrong between this server, a browser and a provider."""

from __future__ import annotations

from ostler.core.errors import Invalid, NotAllowed, NotFound, Unauthenticated, Unsupported, UpstreamError


class OidcNotConfigured(NotFound):
    """No provider is set."""

    hint = "Set oidc_issuer and oidc_client_id; see docs/sign-in.md."


class OidcNotInstalled(Unsupported):
    """The optional part of Ostler for it is not installed."""

    hint = "Install it with: pip install 'ostler[oidc]'"


class ProviderAway(UpstreamError):
    """The provider does not answer."""

    hint = "Try again soon, or sign in with a name and a password."


class ProviderNonsense(UpstreamError):
    """The provider answered with what no provider may answer."""

    hint = "Check oidc_issuer: it must be what the provider calls itself."


class SignInRefused(Unauthenticated):
    """The provider did not let the person in, or what it said does not hold."""

    hint = "Sign in again."


class SignInLost(Invalid):
    """The answer of a provider does not belong to a sign-in that this browser began."""

    hint = "Begin again; a sign-in must end in the browser in which it began, within ten minutes."


class NoRoleForYou(NotAllowed):
    """None of the roles that the provider says leads to one here."""

    hint = "Ask an administrator: the setting oidc_roles says which lead in."
