# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian hosts: images (root file systems with systemd) and hosts that boot, freeze and lose power."""
