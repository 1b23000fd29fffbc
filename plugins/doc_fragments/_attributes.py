# SPDX-FileCopyrightText: evernat.aws contributors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What every module of the collection promises. This doc fragment is PRIVATE to the collection."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return a prediction of the changes without making them.
    support: full
  diff_mode:
    description: Returns details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments,
        the second invocation reports C(changed=false).
      - This assumes that nobody else changes the same objects in between.
    support: full
  action_group:
    description:
      - Use C(group/evernat.aws.aws) in C(module_defaults) to set defaults for these modules and those of amazon.aws.
    support: full
    membership:
      - evernat.aws.aws
"""
