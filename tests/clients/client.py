"""Submits, uploads, waits and reads with the client that openapi-python-client makes.

Run by tests/clients, with the generated package `generated` beside it. FINISHLINE_API and
FINISHLINE_KEY say where and as whom.
"""

import os
from io import BytesIO

from generated import AuthenticatedClient
from generated.api.events import show_timeline
from generated.api.jobs import erase_job, list_jobs, resubmit_job, show_job, show_output
from generated.api.jobs import show_result, submit_job, upload_input
from generated.api.deliveries import list_deliveries, show_delivery_body
from generated.models import DeliveryPage, EngineResult, Erased, EventPage, EventType, Finishline
from generated.models import InputFile, InputState, Job, JobRequest, JobRequestInputFiles, JobPage
from generated.models import JobStatus, OutputFile, OutputFiles, Problem, ProblemCode, Resubmission
from generated.types import File

SCAN = bytes(128) + b"DICM" * 1000

client = AuthenticatedClient(
    base_url=os.environ["FINISHLINE_API"],
    token=os.environ["FINISHLINE_KEY"],
    raise_on_unexpected_status=True,
)


def body() -> JobRequest:
    inputs = JobRequestInputFiles()
    inputs["cbct"] = InputFile(extension=".dcm")
    outputs = OutputFiles(meshes=[OutputFile(extension=".stl", structures=["mandible"])])
    request = JobRequest(
        input_files=inputs, output_files=outputs, finishline=Finishline(reference="case-42")
    )
    request["note"] = {"kept": 1}
    return request


# Submits, once.
submitted = submit_job.sync_detailed(client=client, body=body(), idempotency_key="python")
assert submitted.status_code == 201, submitted
job = submitted.parsed
assert isinstance(job, Job), job
assert submitted.headers["location"].endswith(job.id)
assert job.status is JobStatus.SUBMITTED and job.success is None, job
assert job.request is not None and job.request["note"] == {"kept": 1}, job
assert job.inputs[0].state is InputState.AWAITING, job
again = submit_job.sync_detailed(client=client, body=body(), idempotency_key="python")
assert again.status_code == 200 and isinstance(again.parsed, Job), again
assert again.parsed.id == job.id and again.headers["idempotency-replayed"] == "true"

# Uploads, and waits.
uploaded = upload_input.sync(
    id=job.id, name="cbct", client=client, body=File(payload=BytesIO(SCAN))
)
assert isinstance(uploaded, Job), uploaded
finished = show_job.sync(id=job.id, client=client, wait=20)
assert isinstance(finished, Job) and finished.status is JobStatus.SUCCEEDED, finished
assert finished.success is True and finished.finished_at is not None
assert finished.outputs[0].structures == ["mandible"]

# Reads.
result = show_result.sync(id=job.id, client=client, wait=20)
assert isinstance(result, EngineResult) and result.success, result
assert "outputFiles" in result.additional_properties, result
output = show_output.sync_detailed(id=job.id, name="meshes-0", client=client)
assert output.status_code in (200, 307), output
if output.status_code == 200:
    assert isinstance(output.parsed, File) and len(output.parsed.payload.read()) > 80, output
page = list_jobs.sync(client=client, status=[JobStatus.SUCCEEDED], limit=200)
assert isinstance(page, JobPage) and job.id in [one.id for one in page.jobs], page
timeline = show_timeline.sync(id=job.id, client=client)
assert isinstance(timeline, EventPage), timeline
assert EventType.JOB_FINISHED in [event.type_ for event in timeline.events], timeline
deliveries = list_deliveries.sync(id=job.id, client=client)
assert isinstance(deliveries, DeliveryPage) and deliveries.deliveries[0].headers, deliveries
delivery = show_delivery_body.sync(id=deliveries.deliveries[0].id, client=client)
assert isinstance(delivery, File) and b'"success"' in delivery.payload.read(), delivery

# Is refused in words that it knows.
missing = show_job.sync(id="01932f5e-7c3a-7b60-9d2e-3f6a1c8b4e55", client=client)
assert isinstance(missing, Problem) and missing.code is ProblemCode.NOT_FOUND, missing
too_long = show_job.sync(id=job.id, client=client, wait=61)
assert isinstance(too_long, Problem) and too_long.code is ProblemCode.VALIDATION_FAILED, too_long
needless = resubmit_job.sync(id=job.id, client=client, body=Resubmission(confirm=True))
assert isinstance(needless, Problem), needless
erased = erase_job.sync(id=job.id, client=client)
assert isinstance(erased, Erased) and erased.erased == 1, erased
print("the Python client is done")
