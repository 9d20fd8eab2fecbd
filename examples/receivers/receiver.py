# Takes results from Finishline: verifies each signature, then answers 204.
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])

class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            result = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            return self.send_error(400, str(error))
        # webhook-id is signed, msg_JOB_RELAY; finishline-job-id is not.
        job = self.headers["webhook-id"].split("_")[1]
        print("verified:", job, "success:", result["success"], flush=True)
        self.send_response(204)
        self.end_headers()

ThreadingHTTPServer(("127.0.0.1", 3000), Receiver).serve_forever()
