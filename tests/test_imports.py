"""How modules import each other, beyond the layers that import-linter checks."""

from __future__ import annotations

import grimp


def test_no_module_imports_itself_by_a_detour_not_even_for_types() -> None:
    graph = grimp.build_graph("gpt_neox_japanese", exclude_type_checking_imports=False)
    modules = set(graph.modules)
    while modules:  # what imports nothing of the rest cannot be part of a circle
        leaves = {
            module
            for module in modules
            if not graph.find_modules_directly_imported_by(module) & modules - {module}
        }
        assert leaves, f"these import each other: {sorted(modules)}"
        modules -= leaves
