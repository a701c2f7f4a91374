"""From a configuration file to a client: what each setting stands for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sark_trio import jsontext
from sark_trio.client.approving import Approver
from sark_trio.client.config import IdentitySettings, PolicySettings, Settings
from sark_trio.client.gateway import GatewayClient
from sark_trio.client.handlers import Handlers
from sark_trio.client.identity import JwksUrl, read_jwks
from sark_trio.errors import ConfigError
from sark_trio.governance.jwt import TokenVerifier
from sark_trio.governance.opa import Opa
from sark_trio.governance.pipeline import AllowAll, Policy
from sark_trio.governance.principal import Principal
from sark_trio.governance.rego import Rego
from sark_trio.stores.audit import AuditLog
from sark_trio.telemetry.hooks import Hook

__all__ = ["audit_of", "client_of", "policy_of", "principal_of", "verifier_of"]

#: A token's algorithms where the configuration names none: asymmetric, and common.
_ALGORITHMS = ("RS256", "ES256")


def client_of(
    settings: Settings,
    *,
    audit: AuditLog | Path | None = None,
    principal: Principal | None = None,
    hooks: Iterable[Hook] = (),
    handlers: Handlers | None = None,
    approve: Approver | None = None,
) -> GatewayClient:
    """The client that *settings* describe.

    :param audit: where to record if the settings do not say.
    :param hooks: told what happens.
    :param handlers: what is done when a server asks.
    :param approve: who is asked where the policy wants a person's word.
    :raises ConfigError: the settings do not make a client; the message names file and key.
    """
    log = audit_of(settings) or audit
    if log is None:
        raise ConfigError(
            "no [audit] directory: every call is recorded, so say where",
            source=str(settings.source),
        )
    remote, source = settings.remote, str(settings.source)
    policy = policy_of(settings.policy, source)
    identity = verifier_of(settings.identity, source)
    caller = principal or principal_of(settings.identity)
    try:
        return GatewayClient(
            servers=settings.servers,
            policy=policy,
            audit=log,
            principal=caller,
            identity=identity,
            timeout_s=settings.timeout_s,
            grace_s=settings.grace_s,
            concurrent_max=settings.concurrent_max,
            rate=settings.rate,
            breaker=settings.breaker,
            retry=settings.retry,
            gateway_url=remote.gateway_url,
            api_key=remote.api_key,
            transport_mode=remote.transport_mode,
            max_connections=remote.max_connections,
            enable_error_handling=remote.enable_error_handling,
            agents=settings.agents,
            pins=settings.pins,
            hooks=hooks,
            handlers=handlers,
            approve=approve,
        )
    except ConfigError as exc:
        if exc.source in {str(path) for path in settings.policy.rego}:
            raise
        raise ConfigError(exc.message, source=source) from exc  # where its option stands


def policy_of(settings: PolicySettings, source: str | None = None) -> Policy:
    """The policy that decides; ``None``, which denies everything, if none is named.

    :param source: the file that the settings are from, for messages.
    """
    try:
        return _policy_of(settings)
    except ValueError as exc:
        raise ConfigError(f"policy: {exc}", source=source) from exc


def _policy_of(settings: PolicySettings) -> Policy:
    if settings.allow_all:
        return AllowAll()
    if settings.opa is not None:
        extra: dict[str, Any] = {} if settings.opa_path is None else {"path": settings.opa_path}
        return Opa(settings.opa, token=settings.opa_token, **extra)
    if not settings.rego:
        return None
    data = None if settings.data is None else _read_data(settings.data)
    return Rego(*settings.rego, query=settings.query, data=data, isolation=settings.isolation)


def audit_of(settings: Settings) -> AuditLog | None:
    """The audit log, not opened yet."""
    if settings.audit is None:
        return None
    audit = settings.audit
    try:
        return AuditLog(audit.directory, fsync=audit.fsync, checkpoint_sink=audit.checkpoints)
    except ValueError as exc:
        raise ConfigError(f"audit: {exc}", source=str(settings.source)) from exc


def verifier_of(settings: IdentitySettings, source: str) -> TokenVerifier | None:
    """What checks tokens, if keys are configured."""
    if settings.jwks is None:
        return None
    if settings.issuer is None or settings.audience is None:
        raise ConfigError("identity: 'jwks' needs 'issuer' and 'audience'", source=source)
    remote = settings.jwks.startswith(("https://", "http://"))
    try:
        return TokenVerifier(
            keys=JwksUrl(settings.jwks) if remote else read_jwks(Path(settings.jwks)),
            issuer=settings.issuer,
            audience=settings.audience,
            algorithms=settings.algorithms or _ALGORITHMS,
        )
    except (ValueError, ConfigError) as exc:
        raise ConfigError(f"identity: {exc}", source=source) from exc


def principal_of(settings: IdentitySettings) -> Principal | None:
    """Who the command line acts as, if the configuration says so."""
    if settings.principal is None:
        return None
    return Principal(id=settings.principal, roles=settings.roles)


def _read_data(path: Path) -> Mapping[str, Any]:
    try:
        value = jsontext.decode_strict(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"cannot be read: {exc.strerror}", source=str(path)) from exc
    except jsontext.JSONError as exc:
        raise ConfigError(str(exc), source=str(path)) from exc
    if not isinstance(value, dict):
        raise ConfigError("policy data must be a JSON object", source=str(path))
    return value
