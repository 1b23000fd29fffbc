# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2, IAM, STS and IMDS on loopback or in a namespace: moto, made as strict as EC2 where this project touches it."""
