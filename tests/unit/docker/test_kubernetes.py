"""The CronJobs call what there is, when cron would, and hold no secret."""

from __future__ import annotations

import pytest
import yaml

from commands import ROOT
from musicrec.cli import schedule

(LIST,) = yaml.safe_load_all((ROOT / "docker" / "kubernetes" / "cronjobs.yaml").read_text())
JOBS = {item["metadata"]["name"]: item for item in LIST["items"] if item["kind"] == "CronJob"}


def pod(item):
    return item["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_there_is_one_for_each_job():
    assert set(JOBS) == {f"musicrec-{name}" for name in schedule.JOBS}


@pytest.mark.parametrize("name", schedule.JOBS)
def test_a_cronjob_is_due_when_cron_would_call_it(name):
    assert JOBS[f"musicrec-{name}"]["spec"]["schedule"] == schedule.JOBS[name].due


@pytest.mark.parametrize("name", schedule.JOBS)
def test_a_cronjob_calls_the_job_of_its_name(name):
    (container,) = pod(JOBS[f"musicrec-{name}"])["containers"]
    program, *words = container["command"]
    assert (program, words[:3]) == ("musicrec", ["schedule", "run", name])
    settings, more = schedule._split(words[3:])
    assert schedule.commands(schedule.JOBS[name], settings["dataset"], more)


@pytest.mark.parametrize("name", schedule.JOBS)
def test_a_cronjob_runs_alone_and_as_nobody_special(name):
    item = JOBS[f"musicrec-{name}"]
    assert item["spec"]["concurrencyPolicy"] == "Forbid"
    assert pod(item)["securityContext"]["runAsNonRoot"]
    (container,) = pod(item)["containers"]
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["envFrom"] == [{"secretRef": {"name": "musicrec-env"}}]
    assert [variable["name"] for variable in container["env"]] == ["MUSICREC_HOME"]


def test_a_policy_of_pod_failures_names_a_container_that_there_is():
    policy = JOBS["musicrec-retrain"]["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]
    (rule,) = policy["rules"]
    named = {container["name"] for container in pod(JOBS["musicrec-retrain"])["containers"]}
    assert rule["onExitCodes"]["containerName"] in named
