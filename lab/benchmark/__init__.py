# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks on the lab, each a subcommand of lab/bench: main.py lists them."""
