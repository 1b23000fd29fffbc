# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a packet meets on its way through a host, from bare forwarding to the product with replication.

The way is the same for all: client, VPC, the floating interface, the host, out by the same interface, VPC, server. What
the host leaves undone, the VPC's router does in its stead (it writes the interface's address into the packets, without
any state), because the internet gateway knows no other.
"""

from __future__ import annotations

from collections.abc import Sequence

# From nothing to everything; each is compared with an earlier one.
VARIANTS = ("forwarding", "tracking", "nat", "replicated")
NATIVE = ("nat", "replicated")  # those that are the product's own rules


def bare_ruleset(variant: str) -> str:
    """The whole ruleset of a host for `forwarding` and `tracking`."""
    lines = ["flush ruleset"]
    if variant == "tracking":
        lines += [
            "table ip bench {",
            "  chain crossing {",
            "    type filter hook forward priority filter; policy accept;",
            "    ct state established,related accept",
            "  }",
            "}",
        ]
    return "\n".join([*lines, ""])


def router_ruleset(device: str, floating: str, servers: Sequence[str], back: str) -> str:
    """The VPC router's part, its work per packet the same for all variants; see the module's words.

    `device` is the router's for the floating interface, `back` the address that answers are sent to behind it: the
    client's where the host does no NAT, else the interface's own, which they have already.
    """
    far = f"{{ {', '.join(servers)} }}"
    return "\n".join(
        [
            "table ip bench",
            "delete table ip bench",
            "table ip bench {",
            "  chain going_out {",
            "    type filter hook prerouting priority raw + 10; policy accept;",
            f'    iifname "{device}" ip daddr {far} ip saddr set {floating}',
            "  }",
            "  chain coming_back {",
            "    type filter hook postrouting priority srcnat + 10; policy accept;",
            f'    oifname "{device}" ip saddr {far} ip daddr set {back}',
            "  }",
            "}",
            "",
        ]
    )
