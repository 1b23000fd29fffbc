# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VPC as network namespaces (fabric) and the client whose packets tell the truth (traffic)."""
