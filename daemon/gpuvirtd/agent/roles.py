# SPDX-License-Identifier: Apache-2.0
"""Who calls, and what they may. With TLS the certificate says who it is; on this machine a token does.

Anybody on this machine can connect to a port of it, and who commands an agent starts processes as other users: so the
token lies in a file that only gpuvirtd's user can read.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

import grpc

from gpuvirtd.agent.problems import Problem, Reason

SCHEDULER, VIEWER = "scheduler", "viewer"
TOKEN = "agent.token"  # in the runtime folder
HEADER = "authorization"  # "Bearer TOKEN"


class Roles:
    """token None: callers show certificates."""

    def __init__(self, token: str | None, named: Mapping[str, str]) -> None:
        self.token, self.named = token, named

    def check(self, context: grpc.aio.ServicerContext[Any, Any], needed: str) -> None:
        """Raises Problem."""
        role, who = self._role(context)
        if role != SCHEDULER and role != needed:
            raise Problem(
                Reason.NOT_PERMITTED, f"{who} is a {role}, and this call is for a {needed}", "see agent.roles"
            )

    def _role(self, context: grpc.aio.ServicerContext[Any, Any]) -> tuple[str, str]:
        if self.token is not None:
            for key, value in context.invocation_metadata() or ():
                shown = value if isinstance(value, bytes) else str(value).encode()
                if key == HEADER and hmac.compare_digest(shown, f"Bearer {self.token}".encode()):
                    return SCHEDULER, "the owner of the token"
            raise Problem(
                Reason.UNAUTHENTICATED, "the caller shows no valid token", f"send 'Bearer' and the content of {TOKEN}"
            )
        names = []
        for key in ("x509_common_name", "x509_subject_alternative_name"):
            names += [name.decode(errors="replace") for name in context.auth_context().get(key, ())]
        roles = {self.named[name] for name in names if name in self.named}
        if not roles:
            shown_names = ", ".join(f"'{name}'" for name in names) or "without a name"
            raise Problem(Reason.NOT_PERMITTED, f"nobody here knows the certificate {shown_names}", "see agent.roles")
        return (SCHEDULER if SCHEDULER in roles else VIEWER), names[0]
