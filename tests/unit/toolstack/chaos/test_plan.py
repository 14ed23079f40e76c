"""A plan: what it says when it is right, and file, line, key, expected and found when it is not."""

import pytest

from hvd.toolstack.chaos.plan import load_plan
from hvd.toolstack.config import ConfigError

from .conftest import PLAN


def problems(plan_file, text):
    with pytest.raises(ConfigError) as error:
        load_plan(plan_file(text))
    return error.value.problems


def test_a_plan_is_read_with_its_cluster_and_defaults(plan):
    assert (plan.name, plan.steps, plan.burst, plan.pause_ms, plan.seed) == ("plan", 30, (1, 3), (1, 20), 1)
    assert [(load.name, load.kind, load.backend) for load in plan.workloads] == [
        ("writer", "disk", "storage"), ("talker", "console", ""),
    ]  # fmt: skip
    assert plan.faults[1].for_ms == (10, 40)
    assert plan.expect.conserved


def test_whom_no_fault_is_for_is_a_bystander(plan):
    assert plan.bystanders == ("talker",)


def test_one_number_is_a_span_of_its_own(plan_file):
    plan = load_plan(plan_file(PLAN.replace("burst = [1, 3]", "burst = 2").replace("[10, 40]", "25")))
    assert plan.burst == (2, 2)
    assert plan.faults[1].for_ms == (25, 25)


WRITER, TALKER = 'workload[0] "writer"', 'workload[1] "talker"'


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("steps = 30", "steps = 0", (4, "scenario.steps", "a whole number from 1 to 10000", "0")),
        ("burst = [1, 3]", "burst = [3, 1]", (5, "scenario.burst", "[least, most]", "[3, 1]")),
        ("burst = [1, 3]", "burst = [1, 2, 3]", (5, "scenario.burst", "[least, most]", "a list of 3")),
        ("pause_ms = [1, 20]", 'pause_ms = "5"', (6, "scenario.pause_ms", "a whole number from 0", '"5"')),
        ('cluster = "cluster.toml"', "", (2, "scenario.cluster", "a text", "nothing")),
        ('kind = "disk"', 'kind = "tape"', (10, f'{WRITER}.kind', "one of disk, console", '"tape"')),
        ('backend = "storage"', 'backend = "strage"', (11, f'{WRITER}.backend', "a driver domain", '"strage"')),
        ('backend = "storage"', 'backend = "idler"', (11, f'{WRITER}.backend', "a driver domain", '"idler"')),
        ('backend = "storage"\n', "", (8, f'{WRITER}.backend', "a text", "nothing")),
        ('name = "talker"', 'name = "idler"', (14, 'workload[1] "idler".name', "a name of its own", '"idler"')),
        ('name = "talker"', 'name = "writer"', (14, 'workload[1] "writer".name', "a name of its own", '"writer"')),
        ('kind = "console"', 'kind = "program"', (14, f'{TALKER}.name', "a domain of the cluster", '"talker"')),
        ('name = "kill"', 'name = "kil"', (18, "fault[0].name", "a fault", '"kil"')),
        ('victims = ["storage", "writer", "idler"]', "", (17, 'fault[0] "kill".victims', "at least one", "nothing")),
        ('"writer", "idler"]', '"wrter"]', (19, 'fault[0] "kill".victims[1]', "a domain", '"wrter"')),
        ("weight = 3", "weight = 3\nfor_ms = 5", (21, 'fault[0] "kill".for_ms', "one of", "unknown key")),
        ("weight = 3", "wieght = 3", (20, 'fault[0] "kill".wieght', "a key", "unknown key")),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(plan_file, old, new, told):
    line, key, expected, found = told
    assert old in PLAN
    problem, *others = problems(plan_file, PLAN.replace(old, new, 1))
    assert not others
    assert (problem.line, problem.key) == (line, key)
    assert expected in problem.expected
    assert found in problem.found


def test_every_mistake_is_told_at_once(plan_file):
    text = PLAN.replace("steps = 30", "steps = -1").replace("weight = 3", "weight = 0")
    assert [problem.key for problem in problems(plan_file, text.replace("[1, 20]", '"x"'))] == [
        "scenario.steps", "scenario.pause_ms",
    ]  # fmt: skip
    found = problems(plan_file, PLAN.replace("weight = 3", "weight = 0").replace('"disk"', '"tape"'))
    assert [problem.key for problem in found] == [f'{WRITER}.kind', 'fault[0] "kill".weight']


def test_a_plan_without_faults_is_none(plan_file):
    (problem,) = problems(plan_file, PLAN[: PLAN.index("[[fault]]")])
    assert (problem.key, problem.expected) == ("fault", "at least one [[fault]]")


def test_what_is_wrong_with_the_clusters_file_is_told_as_that_files(plan_file):
    (problem,) = problems(plan_file, PLAN.replace("cluster.toml", "other.toml"))
    assert problem.file.endswith("other.toml")
