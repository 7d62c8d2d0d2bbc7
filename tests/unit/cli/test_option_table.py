"""Each option of ``sconify_image`` has a test that shows its effect on a real image: this table says which."""

from __future__ import annotations

import ast

import pytest

from sconify.cli.option_groups import GroupedOption
from sconify.cli.sconify_image import sconify_image
from tests.containers import PROJECT

OPTIONS = "e2e/test_options.py"
EFFECTS = "e2e/test_option_effects.py"
REGISTRIES = "e2e/test_registries.py"
EMBEDDED = "e2e/test_binary_fs.py"
ODD = "integration/test_odd_images.py"

TESTS = {
    "from": (OPTIONS, "test_directories_files_and_the_base_image"),
    "to": (OPTIONS, "test_the_result_goes_to_standard_output_alone"),
    "binary": (OPTIONS, "test_the_result_goes_to_standard_output_alone"),
    "name": (OPTIONS, "test_names"),
    "base": (OPTIONS, "test_directories_files_and_the_base_image"),
    "command": (OPTIONS, "test_command_environment_and_working_directory"),
    "env": (OPTIONS, "test_command_environment_and_working_directory"),
    "service-name": (OPTIONS, "test_names"),
    "dir": (OPTIONS, "test_directories_files_and_the_base_image"),
    "plain": (OPTIONS, "test_directories_files_and_the_base_image"),
    "plain-file": (OPTIONS, "test_directories_files_and_the_base_image"),
    "host-path": (EFFECTS, "test_a_host_path_is_the_hosts"),
    "trace": (OPTIONS, "test_a_trace"),
    "replacement-image": (OPTIONS, "test_a_binary_that_can_not_run_is_replaced_or_refused"),
    "cas": (OPTIONS, "test_a_cas_of_ones_own"),
    "cas-enclave": (EFFECTS, "test_a_cas_whose_ports_are_its_own"),
    "cas-debug": (OPTIONS, "test_a_cas_of_ones_own"),
    "cas-key": (OPTIONS, "test_a_cas_of_ones_own"),
    "las": (EFFECTS, "test_a_cas_whose_ports_are_its_own"),
    "template": (OPTIONS, "test_a_template"),
    "session": (OPTIONS, "test_a_cas_of_ones_own"),
    "secrets": (OPTIONS, "test_secrets_and_injected_files"),
    "injectedfiles": (OPTIONS, "test_secrets_and_injected_files"),
    "namespace": (OPTIONS, "test_names"),
    "create-namespace": (OPTIONS, "test_names"),
    "identity": (OPTIONS, "test_identity"),
    "build-resources": (OPTIONS, "test_build_resources_make_the_same_files"),
    "key-file": (EFFECTS, "test_the_key_is_the_one_of_the_file"),
    "overwrite": (EFFECTS, "test_an_image_is_replaced_only_when_asked"),
    "push-image": (REGISTRIES, "test_a_bare_name_is_pushed"),
    "compression": (REGISTRIES, "test_a_bare_name_is_pushed"),
    "authfile": (REGISTRIES, "test_credentials_and_certificates"),
    "registry-cert-dir": (REGISTRIES, "test_credentials_and_certificates"),
    "insecure-registry": (REGISTRIES, "test_without_an_engine_and_the_engine_runs_it"),
    "allow-foreign-layers": (ODD, "test_a_layer_that_is_kept_elsewhere"),
    "max-image-size": (ODD, "test_a_small_file_that_is_a_huge_one"),
    "cli": (OPTIONS, "test_what_is_not_needed_is_accepted_and_said"),
    "crosscompiler": (OPTIONS, "test_what_is_not_needed_is_accepted_and_said"),
    "volume": ("e2e/volumes/conftest.py", ""),
    "disable-binary-symlink-detection": (OPTIONS, "test_links_to_the_binary"),
    "disable-copy-shared-object-dependencies": (OPTIONS, "test_shared_objects_can_be_left_to_the_base_image"),
    "disable-copy-service-libraries": (OPTIONS, "test_native_variables_can_be_left_out"),
    "disable-copy-envvars": (OPTIONS, "test_native_variables_can_be_left_out"),
    "disable-ld-library-path-in-session": (OPTIONS, "test_native_variables_can_be_left_out"),
    "disable-replace-unsconifiable-binaries": (OPTIONS, "test_a_binary_that_can_not_run_is_replaced_or_refused"),
    "disable-session-upload": (OPTIONS, "test_a_session_that_is_not_uploaded"),
    "disable-update-session-if-exists": (
        OPTIONS,
        "test_an_existing_session_is_updated_unless_that_is_forbidden",
    ),
    "disable-attestation": (OPTIONS, "test_a_cas_of_ones_own"),
    "disable-session-security-attestation": (OPTIONS, "test_without_attestation_of_the_service"),
    "binary-fs": (EMBEDDED, ""),
    "fs-dir": (EMBEDDED, ""),
    "fs-file": (EFFECTS, "test_single_files_are_embedded_and_nothing_is_remembered"),
    "disable-binary-fs-defaults": (EMBEDDED, ""),
    "binary-fs-plain": (EMBEDDED, ""),
    "no-cache": (EFFECTS, "test_single_files_are_embedded_and_nothing_is_remembered"),
    "allow-debug-mode": (OPTIONS, "test_what_the_policy_puts_up_with"),
    "allow-tcb-vulnerabilities": (OPTIONS, "test_what_the_policy_puts_up_with"),
    "heap": (OPTIONS, "test_start_up_variables"),
    "stack": (OPTIONS, "test_start_up_variables"),
    "dlopen": (OPTIONS, "test_start_up_variables"),
    "fork": (OPTIONS, "test_start_up_variables"),
    "mprotect": (OPTIONS, "test_what_is_not_needed_is_accepted_and_said"),
    "auto": (OPTIONS, "test_auto_finds_binary_and_directories"),
    "config": (OPTIONS, "test_init_writes_a_file_that_converts"),
    "explain": (OPTIONS, "test_init_writes_a_file_that_converts"),
    "explain-html": ("e2e/test_image_commands.py", "test_the_expected_measurement_is_the_one_that_is_made"),
    "json": (OPTIONS, "test_init_writes_a_file_that_converts"),
    "debug": (EFFECTS, "test_commands_are_shown"),
    "verbose": (OPTIONS, "test_what_is_printed"),
    "no-color": (OPTIONS, "test_the_result_goes_to_standard_output_alone"),
    "log": (OPTIONS, "test_what_is_printed"),
}
"""By option: file and function; the whole file where that is about the option."""


def options() -> list[str]:
    return [parameter.key for parameter in sconify_image.params if isinstance(parameter, GroupedOption)]


def test_each_option_has_one() -> None:
    assert set(TESTS) == set(options())


@pytest.mark.parametrize("option", TESTS)
def test_it_exists_and_gives_the_option(option: str) -> None:
    name, function = TESTS[option]
    text = (PROJECT / "tests" / name).read_text()
    parts = [
        ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef) and (node.name == function or not function)
    ]
    assert parts, f"{name} has no {function}"
    decorated = text.partition(f"def {function}(")[0].rpartition("\n\n\n")[2] if function else ""
    given = "\n".join([*parts, decorated] if function else [text]).replace("_", "-")
    # Fixtures give what each conversion needs.
    by_fixture = option in ("from", "to", "binary", "overwrite", "session")
    assert by_fixture or f"--{option}" in given, f"{name}::{function} does not give --{option}"
