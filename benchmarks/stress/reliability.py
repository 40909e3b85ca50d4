"""The table of docs/reliability.md: one line for each row of the list of faults and threats, made of recorded answers."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAME = "reliability"
PREFIX = "stress-"  # of the files of `alloop stress` among the results
HEAD = ("row", "fault or threat", "what is done", "figure", "aim", "met", "command", "date")
ASSERTED = "asserted"
EVERYDAY, SELDOM = "`make test`", "`make test-long`"
NOT_RUN = "not run yet"
NO_PROOF = "no proof yet"


@dataclass(frozen=True)
class Proof:
    """Where a row is proved: by a recorded `stress`, by a recorded `bench`, or by tests, "FILE::FUNCTION" each, which say
    `done` and `aim` themselves; by nothing yet where all are empty. `lacks`: what is asked for beyond that; `long`: the
    tests take minutes and run seldom."""

    row: str
    what: str
    aim: str
    stress: str = ""
    bench: str = ""
    tests: tuple[str, ...] = ()
    done: str = ""
    lacks: str = ""
    long: bool = False


PROOFS = (
    Proof("F1", "a worker is killed in mid label, or inside a commit", "0 lost, 0 doubled in 1,000 kills", "kills"),
    Proof("F2", "what a killed worker had started goes on", "0 processes after 5 s in 200 kills", "orphans"),
    Proof(
        "F3",
        "the Prefect server dies in a round",
        "0 labels lost in 50 kills",
        tests=("tests/integration/test_server.py::test_killed_it_comes_back_and_dies_with_its_parent",),
        done="the server that comes along is killed once; requests wait until it is back",
        lacks="fifty kills in a campaign",
    ),
    Proof("F4", "a flow run whose process is gone", "20 of 20 marked crashed within 150 s"),
    Proof("F5", "a worker comes back after its lease was lost", "0 overwrites in 10,000 interleavings", "late"),
    Proof("F6", "two schedulers start one round", "one winner in each of 1,000 races", "rounds"),
    Proof("F7", "many processes claim", "0 double claims, 0 lock errors; 50 processes, 10,000 labels", "claimers"),
    Proof("F8", "one geometry written down in several ways", ">= 99.99 % of 100,000; 0 false merges", bench="duplicates"),
    Proof(
        "F9",
        "the SCF does not converge",
        "0 unconverged energies stored, >= 90 % rescued, of 50 molecules",
        bench="scf-rescue",
    ),
    Proof(
        "F10",
        "the SCF converges to another state",
        "20 cases flagged",
        tests=(
            "tests/integration/test_pyscf_states.py::test_a_wrong_state_is_flagged",
            "tests/integration/test_pyscf_states.py::test_a_sound_state_is_not",
            "tests/unit/test_states.py::test_the_gate_quarantines_it_once",
        ),
        done="23 wrong states by <S^2> or an instability, and 11 sound ones that are not",
    ),
    Proof(
        "F11",
        "a label with a wrong sign or factor",
        "all found",
        tests=(
            "tests/unit/test_audit.py::test_sound_labels_pass_and_their_errors_are_found",
            "tests/unit/test_audit.py::test_the_gate_quarantines_what_is_unsound_once",
        ),
        done="errors of sign and factor put into sound labels of molecules and a cell",
    ),
    Proof(
        "F12",
        "no memory for a minibatch",
        "halved, three times at most",
        tests=("tests/unit/test_device.py::test_f12_the_minibatch_is_taken_in_parts_and_the_gradient_stays",),
        done="100 minibatches that do not fit",
    ),
    Proof(
        "F13",
        "NaN in a chain",
        "none in saved samples, moments within 3 Monte-Carlo errors",
        tests=("tests/unit/test_guard.py::test_f13_a_nan_in_a_hundred_steps_changes_no_moment",),
        done="NaN in 1 % of the steps; 400,000 steps in `make test-long`",
    ),
    Proof(
        "F14",
        "a sampler is killed",
        "the same bits as undisturbed",
        tests=("tests/integration/test_sampler_faults.py::test_f14_ten_kills",),
        done="10 kills; 200 in `make test-long`",
    ),
    Proof("F15", "a stored file is damaged", "1,000 of 1,000 found, the generation before used", "damage"),
    Proof("F16", "the database is cut off around a commit", "0 lost, 0 doubled in 500 cuts", "cuts"),
    Proof("F17", "the disk is full", "100 points: a clear error, the database whole, nothing lost", "full-disk"),
    Proof(
        "F18",
        "clocks that differ by an hour",
        "0 early steals",
        tests=(
            "tests/unit/test_registry_schema.py::test_the_clock_is_the_databases",
            "tests/unit/test_deployments.py::test_one_run_a_day_over_a_change_of_the_clock",
        ),
        done="times of leases are the database's own; schedules over both changes of the clock",
        lacks="clocks put back and forth",
    ),
    Proof("F19", "a label kills every worker that takes it", "quarantined after 3 workers, its neighbours complete", "poison"),
    Proof("F20", "a round of absurd proposals", "suspended, 10 of 10"),
    Proof("F21", "imported labels in other units than they say", "160 of 160 refused, 0 false alarms", bench="unit-faults"),
    Proof(
        "F22",
        "overlapping or exploded atoms from an attack",
        "0 of 10,000 reach the queue",
        tests=(
            "tests/property/test_nothing_unphysical_is_labeled.py::"
            "test_no_fuzzed_geometry_is_queued_and_each_rejection_is_counted",
        ),
        done="10,000 fuzzed geometries and 40 sound ones go through a committee",
    ),
    Proof(
        "F23",
        "charge and spin that do not fit the electrons",
        "refused at the door, the fitting ones are not",
        tests=("tests/property/test_electrons.py::test_charge_and_spin_that_do_not_fit_are_refused_and_no_others",),
        done="Z from 1 to 36, charge -2 to 2, multiplicity 0 to 9",
    ),
    Proof(
        "F24",
        "a registry or a campaign file of another version",
        "older data upgraded, newer refused with the command; a changed file refused with the difference",
        tests=(
            "tests/unit/test_migrations.py::test_it_is_upgraded_and_read",
            "tests/unit/test_registry_schema.py::test_a_newer_registry_is_refused_with_the_command",
            "tests/unit/test_registry_campaigns.py::test_a_changed_campaign_is_refused_with_the_keys_that_changed",
        ),
        done="every released schema with data, on both databases",
    ),
    Proof(
        "the queue",
        "any order of claims, results, failures, deaths, withdrawals and late returns",
        "one result a key, counts conserved, nothing leased without a lease",
        tests=("tests/property/test_registry_queue_machine.py::test_the_queue_keeps_its_laws",),
        done="a state machine draws 15 histories of 20 steps, on both databases",
    ),
    Proof(
        "S1",
        "code in checkpoints",
        "0 of 40 files execute anything",
        tests=(
            "tests/security/test_checkpoints.py::test_none_is_taken_for_a_checkpoint_and_the_generation_before_is_used",
            "tests/architecture/test_house.py::test_nothing_is_unpickled_or_evaluated",
        ),
        done="pickles of every protocol and disguise, archives, and tensors that lie about what they hold",
    ),
    Proof(
        "S2",
        "YAML that builds objects, or has no end",
        "0 of 60 execute anything; each below 1 s and 200 MB",
        tests=(
            "tests/security/test_yaml.py::test_nothing_runs_and_all_are_refused",
            "tests/security/test_yaml.py::test_none_takes_long_or_much",
            "tests/security/test_calculators.py::test_a_calculator_that_starts_a_shell_is_not_made_until_it_is_allowed",
        ),
        done="tags, calls, factories, aliases, depth, length, encodings",
    ),
    Proof(
        "S3",
        "structure files of any bytes",
        "structures or the input error, 100,000 times",
        tests=("tests/property/test_structure_files.py::test_a_hundred_thousand_mutated_extxyz_files",),
        done="mutated extxyz; fewer, and cif and POSCAR, in `make test`",
        long=True,
    ),
    Proof(
        "S4",
        "SQL in names and messages",
        "500 payloads are text or refused",
        tests=(
            "tests/security/test_sql.py::test_what_is_looked_for_is_not_found",
            "tests/security/test_sql.py::test_what_is_stored_is_text",
        ),
        done="as names, ids, messages, comments and facts, on both databases",
    ),
    Proof(
        "S5",
        "paths in names, links in folders",
        "200 payloads touch nothing outside",
        tests=(
            "tests/security/test_paths.py::test_only_a_digest_is_a_file",
            "tests/security/test_paths.py::test_a_link_in_the_store_is_not_written_through",
        ),
        done="as digests and as names of campaigns; links to files, to nothing, and where temporary files come",
    ),
    Proof(
        "S6",
        "a Prefect server open to the net",
        "it listens on this machine alone; 8 bad set-ups flagged",
        tests=(
            "tests/security/test_network.py::test_a_campaign_speaks_to_this_machine_alone",
            "tests/unit/test_doctor.py::test_a_bad_set_up_is_flagged",
            "tests/unit/test_doctor.py::test_it_is_seen_whether_others_reach_the_server",
        ),
        done="every address that the server which comes along listens on is looked at; `alloop doctor` judges 8 set-ups",
    ),
    Proof(
        "S7",
        "secrets in logs, databases and reports",
        "0 of 20 canaries",
        tests=(
            "tests/security/test_secrets.py::test_an_address_that_leads_nowhere_is_told_without_its_password",
            "tests/security/test_secrets.py::test_a_campaign_leaves_them_nowhere",
        ),
        done="addresses with passwords that fail; labels whose calculator prints its environment",
    ),
    Proof(
        "S8",
        "telemetry",
        "0 connections outside this machine",
        tests=("tests/security/test_network.py::test_a_campaign_speaks_to_this_machine_alone",),
        done="a campaign in which every Python process tells whom it connects to",
    ),
    Proof(
        "S9",
        "a label that runs away",
        "3 bombs contained",
        tests=(
            "tests/integration/test_label_pool.py::test_a_memory_bomb_is_contained",
            "tests/integration/test_label_pool.py::test_a_hanging_label_ends_at_its_wall_time",
        ),
        done="memory at once, memory bit by bit, time without end",
    ),
    Proof(
        "S10",
        "script in names that a report shows",
        "30 payloads are text",
        tests=("tests/security/test_report_scripts.py::test_script_comes_out_as_text",),
        done="as structure file, level, message, fact, step and reason; no tag and no attribute more than with plain names",
    ),
)


def table(results: Path) -> str:
    """All rows, in order."""
    lines = [HEAD, ("---",) * len(HEAD), *(line(proof, results) for proof in PROOFS)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def line(proof: Proof, results: Path) -> tuple[str, ...]:
    """The cells of one row."""
    if proof.tests:
        files = ", ".join(f"`{file}`" for file in dict.fromkeys(test.partition("::")[0] for test in proof.tests))
        lacks = f"not yet: {proof.lacks}" if proof.lacks else ""
        when = SELDOM if proof.long else EVERYDAY
        return proof.row, proof.what, proof.done, lacks, proof.aim, "no" if lacks else ASSERTED, files, when
    name = proof.stress or proof.bench
    if not name:
        return proof.row, proof.what, NO_PROOF, "", proof.aim, "not known", "", ""
    command = f"`alloop {'stress' if proof.stress else 'bench'} {name}`"
    file = results / f"{PREFIX if proof.stress else ''}{name}.json"
    if not file.is_file():
        return proof.row, proof.what, NOT_RUN, "", proof.aim, "not known", command, ""
    answer = json.loads(file.read_text(encoding="utf-8"))
    known = [row["met"] for row in answer["rows"] if row["aim"]]
    met = "yes" if all(known) else "no" if False in known else "not known"
    when = ", ".join(part for part in (answer.get("date"), answer["commit"]) if part)
    done = answer["title"] if proof.stress else "see the table of its own"
    return proof.row, proof.what, done, figures(answer), proof.aim, met, command, when


def figures(answer: dict[str, Any]) -> str:
    """What is judged, in words: each figure of each database."""
    told: dict[str, list[str]] = {}
    for row in answer["rows"]:
        if row["aim"] is not None:
            database, colon, title = row["name"].partition(": ")
            value = "not measured" if row["ours"] is None else f"{row['ours']:,.4g} {row['unit']}".rstrip()
            told.setdefault(title if colon else database, []).append(value)
    return "; ".join(f"{title} {' and '.join(values)}" for title, values in told.items())
