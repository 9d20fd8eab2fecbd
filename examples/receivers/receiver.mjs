// Takes results from Finishline: verifies each signature, then answers 204.
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);

createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray()).toString();
  try {
    const result = webhook.verify(body, request.headers);
    // webhook-id is signed, msg_JOB_RELAY; finishline-job-id is not.
    const job = request.headers["webhook-id"].split("_")[1];
    console.log("verified:", job, "success:", result.success);
    response.writeHead(204).end();
  } catch (error) {
    response.writeHead(error instanceof WebhookVerificationError ? 400 : 500).end(error.message);
  }
}).listen(3000, "127.0.0.1");
