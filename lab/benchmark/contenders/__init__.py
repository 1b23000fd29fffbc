# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systems that the takeover benchmark compares. Each module's docstring says how one is run, and after whom."""
