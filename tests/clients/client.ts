// Submits, uploads, waits and reads with the types that openapi-typescript makes.
//
// Run by tests/clients, with the generated `api.d.ts` beside it. FINISHLINE_API and FINISHLINE_KEY
// say where and as whom.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { env: Record<string, string> };

type Job = components["schemas"]["Job"];
type JobView = components["schemas"]["JobView"];
type Problem = components["schemas"]["Problem"];

const client = createClient<paths>({
    baseUrl: process.env["FINISHLINE_API"]!,
    headers: { authorization: `Bearer ${process.env["FINISHLINE_KEY"]}` },
});

function ensure(is_true: boolean, what: unknown): asserts is_true {
    if (!is_true) throw new Error(JSON.stringify(what));
}

// Callers with the scope `read` see the whole job.
function whole(view: JobView | undefined, problem: Problem | undefined): Job {
    ensure(view !== undefined && "outputs" in view, problem);
    return view;
}

const body: components["schemas"]["JobRequest"] = {
    inputFiles: { cbct: { extension: ".dcm" } },
    outputFiles: { meshes: [{ extension: ".stl", structures: ["mandible"] }] },
    finishline: { reference: "case-42" },
    note: { kept: 1 },
};

// Submits, once.
const header = { "Idempotency-Key": "typescript" };
const submitted = await client.POST("/v1/jobs", { body, params: { header } });
const job = whole(submitted.data, submitted.error);
ensure(submitted.response.status === 201, submitted.response.status);
ensure(job.status === "submitted" && job.success === null, job);
ensure(job.request !== null && job.request["note"] !== undefined, job);
const again = await client.POST("/v1/jobs", { body, params: { header } });
ensure(whole(again.data, again.error).id === job.id, again);
ensure(again.response.headers.get("idempotency-replayed") === "true", again);

// Uploads, and waits.
const scan = "\0".repeat(128) + "DICM".repeat(1000);
const path = { id: job.id, name: "cbct" };
const uploaded = await client.PUT("/v1/jobs/{id}/inputs/{name}", {
    params: { path },
    headers: { "content-type": "application/octet-stream" },
    body: scan,
    bodySerializer: (bytes) => bytes,
});
ensure(whole(uploaded.data, uploaded.error).inputs[0]?.state === "notified", uploaded);
const one = { path: { id: job.id } };
const finished = await client.GET("/v1/jobs/{id}", { params: { ...one, query: { wait: 20 } } });
ensure(finished.data?.status === "succeeded", finished.error);
ensure(finished.data.finishedAt !== null && finished.data.success === true, finished.data);

// Reads.
const result = await client.GET("/v1/jobs/{id}/result", { params: one });
ensure(result.data !== undefined && "success" in result.data && !!result.data.success, result.error);
const status: components["schemas"]["JobStatus"][] = ["succeeded", "partial"];
const page = await client.GET("/v1/jobs", { params: { query: { status, limit: 200 } } });
ensure(typeof page.data === "object" && page.data.jobs.some(({ id }) => id === job.id), page);
const timeline = await client.GET("/v1/jobs/{id}/events", { params: one });
ensure(!!timeline.data?.events.some(({ type }) => type === "job.finished"), timeline);
const delivery = (await client.GET("/v1/jobs/{id}/deliveries", { params: one })).data?.deliveries[0];
ensure(delivery !== undefined && delivery.outcome === "stored" && delivery.headers.length > 0, delivery);
const kept = await client.GET("/v1/deliveries/{id}/body", {
    params: { path: { id: delivery.id } },
    parseAs: "blob",
});
ensure(kept.data !== undefined && kept.data.size === delivery.bytes, kept);

// Is refused in words that it knows.
const late = await client.GET("/v1/jobs/{id}", { params: { ...one, query: { wait: 61 } } });
ensure(late.error?.code === "validation-failed", late);
const needless = await client.POST("/v1/jobs/{id}/resubmit", { params: one, body: { confirm: true } });
ensure(needless.error?.code === "validation-failed", needless);
const erased = await client.DELETE("/v1/jobs/{id}", { params: one });
ensure(erased.data?.erased === 1, erased);
console.log("the TypeScript client is done");
