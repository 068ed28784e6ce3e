"""Health checks of a stack's containers."""

from __future__ import annotations

from typing import Any

from stack import Stack

CHECKED = ("triton", "locust-master", "prometheus")
"""Services with a health check that every stack has; Grafana is missing in the lab."""
HEALTHY = "healthy"


def unhealthy(stack: Stack) -> list[str]:
    """Services that are not healthy yet, and what they are; none once all are.

    Podman leaves health checks to systemd's timers. Where there is no systemd nobody would run
    them, so they are run here, and no more of a container that is healthy: a check starts a process
    in it.
    """
    found = {}
    for service in CHECKED:
        known = [stack.inspect(one) for one in stack.containers(service)]
        if stack.engine.name == "podman":
            for one in known:
                if _status(one) != HEALTHY:
                    stack.engine.run("healthcheck", "run", one["Id"])
            known = [stack.inspect(one) for one in stack.containers(service)]
        found[service] = " ".join(map(_status, known)) or "not there"
    return [f"{service}: {one}" for service, one in found.items() if one != HEALTHY]


def _status(known: dict[str, Any]) -> str:
    state = known["State"]
    return str((state.get("Health") or state.get("Healthcheck") or {}).get("Status", ""))
