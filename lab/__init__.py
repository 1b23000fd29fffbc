# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: an AWS in one process, a VPC in network namespaces, Debian hosts with systemd."""
